package api

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
)

// Receipts are a page of what mints gave a center for the tickets that it took to them.
type Receipts struct {
	Receipts []Receipt `json:"receipts"`
	Next     string    `json:"next,omitempty"` // what the next page is after; "": there is none
}

// A Receipt is a mint's word that it has credited a ticket.
type Receipt struct {
	Issuer string          `json:"issuer"`
	Signed json.RawMessage `json:"signed"` // as the mint gave it: mint/api has what is in it
}

// Receipts returns a page of the center's receipts. It is for who has the center's own
// key, and asks with that for an account: cloudpal.Denied to everybody else.
func (c *Client) Receipts(ctx context.Context, after string) (Receipts, error) {
	path := "/v1/receipts?" + url.Values{"after": {after}}.Encode()
	return ask[Receipts](ctx, c, question{op: "list the center's receipts", method: http.MethodGet, path: path})
}
