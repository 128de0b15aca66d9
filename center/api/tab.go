package api

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

// A Signed is JSON as the center's ticket key signed it. What is signed is the
// text itself, so that no two sides can read it in two ways.
type Signed struct {
	Text      []byte `json:"text"`
	Signature []byte `json:"signature"`
}

// A Purpose parts what a key signs: what was signed for one is good for no
// other.
type Purpose string

// What a center's ticket key signs, besides a meter's records.
const (
	ForOffer  Purpose = "cloudpal offer v1"
	ForPaid   Purpose = "cloudpal paid v1"
	ForClosed Purpose = "cloudpal closed v1"
)

// Sign signs v.
func Sign(key ed25519.PrivateKey, p Purpose, v any) (Signed, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return Signed{}, err
	}
	return Signed{text, ed25519.Sign(key, p.bytes(text))}, nil
}

// bytes is what is signed of a text.
func (p Purpose) bytes(text []byte) []byte {
	b := binary.BigEndian.AppendUint64(nil, uint64(len(p)))
	return append(append(b, p...), text...)
}

// Open reads v from what by signed. The error is cloudpal.Denied where it did
// not.
func (s Signed) Open(by ed25519.PublicKey, p Purpose, v any) error {
	const op = "check the center's signature"
	if len(by) != ed25519.PublicKeySize || !ed25519.Verify(by, p.bytes(s.Text), s.Signature) {
		return cloudpal.E(op, cloudpal.Denied, errors.New("the center did not sign it"))
	}
	if err := json.Unmarshal(s.Text, v); err != nil {
		return cloudpal.E(op, cloudpal.Invalid, err)
	}
	return nil
}

// An Offer is what a center sells, and for how much. It comes as a Signed by
// Center, ForOffer; what a payment names it by is its OfferDigest.
type Offer struct {
	Center  []byte              `json:"center"`  // Ed25519 public key: the ticket.CenterID that is paid
	Issuers []string            `json:"issuers"` // mints whose tickets are taken
	Classes []ticket.Class      `json:"classes"` // of tickets that are taken
	Tariff  Tariff              `json:"tariff"`
	Slice   ticket.Denomination `json:"slice"` // what one ticket is worth; also what a center can claim beyond the last countersigned record
	Until   time.Time           `json:"until"` // payments that name it are taken until then
	Grace   Seconds             `json:"grace"` // within which a ticket is taken to its mint
	// What happens when the money is at its end, counted from that moment.
	Seal   Seconds `json:"seal"`   // the pal, which naps at once, is sealed
	Delete Seconds `json:"delete"` // it is deleted, with all its data
}

// A Tariff says what is paid, in whole units. Use is added up to the second
// and the byte, and a record has whole units of it, rounded down.
type Tariff struct {
	Core    ticket.Units `json:"core"`    // for a day of a core that is awake
	App     ticket.Units `json:"app"`     // for a day of an app that is awake
	Storage ticket.Units `json:"storage"` // for 30 days of a GiB on disk, asleep or awake
	Traffic ticket.Units `json:"traffic"` // for a GiB sent
}

// Seconds are a time in whole seconds.
type Seconds int64

// Duration returns s as a time.Duration.
func (s Seconds) Duration() time.Duration { return time.Duration(s) * time.Second }

// OpenOffer reads an offer and checks that the center that it names signed it.
// Whose center that is, is the caller's to know: over a Client it is that of
// the address.
func OpenOffer(s Signed) (o Offer, err error) {
	const op = "read an offer"
	if err := json.Unmarshal(s.Text, &o); err != nil {
		return Offer{}, cloudpal.E(op, cloudpal.Invalid, err)
	}
	if err := s.Open(o.Center, ForOffer, &o); err != nil {
		return Offer{}, cloudpal.E(op, "", err)
	}
	if err := o.Check(); err != nil {
		return Offer{}, cloudpal.E(op, cloudpal.Invalid, err)
	}
	return o, nil
}

// Check says what is wrong with an offer.
func (o *Offer) Check() error {
	const most = 1 << 20 // units: what is added up of such stays within 64 bits for years, in billionths
	t := o.Tariff
	switch {
	case len(o.Center) != ed25519.PublicKeySize:
		return errors.New("it names no center")
	case len(o.Issuers) == 0 || len(o.Classes) == 0:
		return errors.New("it takes no tickets")
	case !o.Slice.Valid():
		return errors.New("its slice is not worth one ticket")
	case t.Core > most || t.App > most || t.Storage > most || t.Traffic > most:
		return errors.New("its tariff is too high")
	case o.Grace <= 0 || o.Seal < 0 || o.Delete < o.Seal:
		return errors.New("its times are in no order")
	}
	return nil
}

// OfferDigest is what ticket.Terms name an offer by.
func OfferDigest(s Signed) ticket.Digest {
	return ticket.Digest(sha256.Sum256(ForOffer.bytes(s.Text)))
}

// A TabID names a tab: the Tab of ticket.Terms. It is an Ed25519 public key, whose
// owner countersigns the meter, so that who is shown a record knows by whom it is
// to be countersigned. Its text is hex.
type TabID [32]byte

// String returns the ID's text.
func (id TabID) String() string { return hex.EncodeToString(id[:]) }

// MarshalText is String.
func (id TabID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads the ID's text.
func (id *TabID) UnmarshalText(text []byte) error {
	if len(text) != hex.EncodedLen(len(id)) {
		return cloudpal.E("read a tab's id", cloudpal.Invalid, errors.New("it has 64 digits, in hex"))
	}
	if _, err := hex.Decode(id[:], text); err != nil || id.String() != string(text) {
		return cloudpal.E("read a tab's id", cloudpal.Invalid, errors.New("it has 64 digits, in hex"))
	}
	return nil
}

// A TabRequest opens a tab. Sent again, it gives the same tab; one that was closed
// is followed by another, with another ID.
type TabRequest struct {
	ID        TabID  `json:"id"`
	WireGuard []byte `json:"wireGuard"`       // the key of the pal that it pays for, made or yet to be made
	Nonce     []byte `json:"nonce,omitempty"` // 16 bytes by which a core that is unlocked finds ID's private key; none: a device countersigns
}

// Check says what is wrong with a request.
func (r TabRequest) Check() error {
	switch {
	case r.ID == TabID{}:
		return errors.New("a tab's id is the key that countersigns its meter")
	case len(r.WireGuard) != 32 || [32]byte(r.WireGuard) == [32]byte{}:
		return errors.New("a WireGuard public key has 32 bytes")
	case len(r.Nonce) != 0 && len(r.Nonce) != 16:
		return errors.New("a nonce has 16 bytes")
	}
	return nil
}

// A Stage is how a tab stands.
type Stage string

// The stages. Money brings a tab back from each to Funded; what was deleted stays so.
//
//	unpaid ─► funded ─► napping ─► sealed ─► deleted
const (
	Unpaid     Stage = "unpaid" // nothing was paid yet
	Funded     Stage = "funded"
	TabNapping Stage = "napping" // its money is at an end: the pal naps
	TabSealed  Stage = "sealed"  // the pal is sealed
	TabDeleted Stage = "deleted" // the pal is deleted
)

// A Tab is one pal's account.
type Tab struct {
	ID        TabID         `json:"id"`
	Request   TabRequest    `json:"request"`
	Offer     ticket.Digest `json:"offer"` // whose tariff counts
	Stage     Stage         `json:"stage"`
	Closed    bool          `json:"closed,omitempty"`
	Reason    string        `json:"reason,omitempty"` // of a stage after Funded
	Paid      ticket.Units  `json:"paid"`             // with tickets that are due, those refused left out
	Pending   ticket.Units  `json:"pending"`          // of Paid, what the mint has not confirmed yet
	Ahead     ticket.Units  `json:"ahead"`            // with tickets that are not due yet; not in Paid
	Used      ticket.Units  `json:"used"`             // so far, rounded down
	Signed    ticket.Units  `json:"signed"`           // of Used, as last countersigned
	Rate      ticket.Units  `json:"rate"`             // a day, as the pal is now
	Ends      time.Time     `json:"ends,omitzero"`    // when the money ends at that rate; zero: never
	Seals     time.Time     `json:"seals,omitzero"`   // and if nothing is paid until then
	Deletes   time.Time     `json:"deletes,omitzero"`
	NextAhead time.Time     `json:"nextAhead,omitzero"` // when the next ticket is due
	Refused   []Refusal     `json:"refused,omitempty"`  // tickets that the mint did not take
}

// A Refusal says that a ticket was worth nothing to the center.
type Refusal struct {
	Serial []byte `json:"serial"`
	Why    string `json:"why"`
}

// A PayRequest pays a tab with one ticket. Sent again, it gives the same
// answer.
type PayRequest struct {
	Spend     []byte              `json:"spend"` // ticket.Spend for the contract that the rest makes
	Offer     []byte              `json:"offer"` // OfferDigest
	Nonce     []byte              `json:"nonce"` // of ticket.Terms, 16 bytes
	Amount    ticket.Denomination `json:"amount"`
	NotBefore int64               `json:"notBefore"` // Unix seconds; 0: now
	Blank     []byte              `json:"blank"`     // ticket.OutputsDigest of the outputs for change
}

// Contract returns what the ticket is spent for.
func (r PayRequest) Contract(center ticket.CenterID, tab TabID) (c ticket.PayContract, err error) {
	if len(r.Offer) != 32 || len(r.Nonce) != 16 || len(r.Blank) != 32 {
		return c, cloudpal.E("read a payment", cloudpal.Invalid, errors.New("a digest has 32 bytes, a nonce 16"))
	}
	if !r.Amount.Valid() || r.NotBefore < 0 || r.NotBefore > maxTime {
		return c, cloudpal.E("read a payment", cloudpal.Invalid, errors.New("its amount or its time cannot be"))
	}
	terms := ticket.Terms{Tab: tab, Tariff: ticket.Digest(r.Offer), Nonce: [16]byte(r.Nonce)}
	return ticket.PayContract{
		Center: center, Hidden: terms.Hide(), Amount: r.Amount,
		NotBefore: time.Unix(r.NotBefore, 0).UTC(), Blank: ticket.Digest(r.Blank),
	}, nil
}

// maxTime is the last second of the year 9999.
const maxTime = 253402300799

// A Paid is the center's word that it has a ticket. It comes as a Signed,
// ForPaid. The word holds even where the mint refuses the ticket later: then
// the ticket was spent before, and the tab says so.
type Paid struct {
	Tab       TabID               `json:"tab"`
	Serial    []byte              `json:"serial"`
	Contract  ticket.Digest       `json:"contract"`
	Amount    ticket.Denomination `json:"amount"`
	NotBefore int64               `json:"notBefore"`
	At        int64               `json:"at"` // Unix seconds, by the center's clock
}

// A Meter is the last record of a tab's meter. Only one that is countersigned
// is followed by another.
type Meter struct {
	Record        []byte `json:"record"`                  // ticket.Record; empty: there is none yet
	Signature     []byte `json:"signature"`               // the center's
	Countersigned []byte `json:"countersigned,omitempty"` // the person's side's
}

// A CountersignRequest agrees with the last record.
type CountersignRequest struct {
	Record    []byte `json:"record"`
	Signature []byte `json:"signature"`
}

// A Closed is a tab's end: what was used, and how much of each ticket its mint
// gives back. It comes as a Signed, ForClosed.
type Closed struct {
	Tab      TabID    `json:"tab"`
	Meter    Meter    `json:"meter"`           // the final record
	Agreed   Meter    `json:"agreed,omitzero"` // the last that was countersigned; the final one may claim a slice more
	Refunds  []Refund `json:"refunds,omitempty"`
	Returned [][]byte `json:"returned,omitempty"` // serials of tickets that were not taken to their mint, and will not be: swap them
}

// A Refund is the center's leave to have the rest of a deposited ticket back
// from its mint, signed as mint/api says. Until the deposit is made, which is
// within the grace where the mint can be reached, the mint does not know of it.
type Refund struct {
	Issuer    string       `json:"issuer"`
	Serial    []byte       `json:"serial"`
	Units     ticket.Units `json:"units"`
	Blank     []byte       `json:"blank"` // digest of the outputs
	Signature []byte       `json:"signature"`
}

// Offer returns the center's present offer. A center that takes no money is
// cloudpal.NotExist.
func (c *Client) Offer(ctx context.Context) (Signed, error) {
	return ask[Signed](ctx, c, question{op: "ask for the center's offer", method: http.MethodGet, path: "/v1/offer"})
}

// OpenTab opens a tab, before or after its pal is made.
func (c *Client) OpenTab(ctx context.Context, r TabRequest) (Tab, error) {
	return ask[Tab](ctx, c, question{op: "open a tab", method: http.MethodPost, path: "/v1/tabs", body: r})
}

// Tabs lists the account's tabs.
func (c *Client) Tabs(ctx context.Context) ([]Tab, error) {
	return ask[[]Tab](ctx, c, question{op: "list tabs", method: http.MethodGet, path: "/v1/tabs"})
}

// Tab describes one tab.
func (c *Client) Tab(ctx context.Context, id TabID) (Tab, error) {
	return ask[Tab](ctx, c, tabQuestion(http.MethodGet, "look at a tab", id, "", nil))
}

// Pay pays a tab. The error is cloudpal.Denied for a ticket that is not good or
// was spent before, and cloudpal.Missing where the mint cannot be asked: then
// it is not known yet, and the same is to be sent again.
func (c *Client) Pay(ctx context.Context, id TabID, r PayRequest) (Signed, error) {
	return ask[Signed](ctx, c, tabQuestion(http.MethodPost, "pay a tab", id, "/pay", r))
}

// Meter returns the last record of a tab.
func (c *Client) Meter(ctx context.Context, id TabID) (Meter, error) {
	return ask[Meter](ctx, c, tabQuestion(http.MethodGet, "read a tab's meter", id, "/meter", nil))
}

// Countersign agrees with the last record of a tab.
func (c *Client) Countersign(ctx context.Context, id TabID, r CountersignRequest) (Meter, error) {
	return ask[Meter](ctx, c, tabQuestion(http.MethodPost, "countersign a tab's meter", id, "/meter", r))
}

// CloseTab ends a tab: nothing more is used on it, and what is left comes back.
// A pal that goes on needs another tab. Sent again, it gives the same answer.
func (c *Client) CloseTab(ctx context.Context, id TabID) (Signed, error) {
	return ask[Signed](ctx, c, tabQuestion(http.MethodPost, "close a tab", id, "/close", struct{}{}))
}

// TabEvents returns what happened to a tab after event number after, as Events
// does of a pal.
func (c *Client) TabEvents(ctx context.Context, id TabID, after int64, wait time.Duration) ([]Event, error) {
	query := url.Values{"after": {strconv.FormatInt(after, 10)}, "wait": {wait.String()}}
	return ask[[]Event](ctx, c, tabQuestion(http.MethodGet, "ask what happened to a tab", id, "/events?"+query.Encode(), nil))
}

func tabQuestion(method, op string, id TabID, rest string, body any) question {
	return question{op: op, method: method, path: "/v1/tabs/" + id.String() + rest, body: body}
}
