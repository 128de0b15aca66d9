package card

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/mint/payment/ask"
)

const (
	maxHook    = 256 << 10       // bytes
	tolerance  = 5 * time.Minute // between a webhook's time and ours
	maxSigning = 16              // signatures that are looked at: some, while a secret is changed
)

// Hook implements payment.Method.
func (c *Cards) Hook(r *http.Request) (order string, err error) {
	const op = "take a webhook of Stripe"
	body, err := ask.ReadHook(r, maxHook)
	if err != nil {
		return "", cloudpal.E(op, "", err)
	}
	if !signed(r.Header.Get("Stripe-Signature"), body, []byte(c.Secret), c.now()) {
		return "", cloudpal.E(op, cloudpal.Denied, errors.New("it is not signed by Stripe, or at another time"))
	}
	var event struct {
		Type string `json:"type"`
		Data struct {
			Object json.RawMessage `json:"object"`
		} `json:"data"`
	}
	if err := json.Unmarshal(body, &event); err != nil {
		return "", cloudpal.E(op, cloudpal.Invalid, errors.New("it is no event"))
	}
	kind, _, _ := strings.Cut(event.Type, ".")
	if kind != "checkout" && kind != "payment_intent" && kind != "charge" {
		return "", nil
	}
	if order, err = c.orderOf(r.Context(), event.Data.Object); err != nil {
		return "", cloudpal.E(op, "", err)
	}
	return order, nil
}

// orderOf finds the order that a page, a payment, a charge or a dispute is of. A
// dispute does not say: its payment does.
func (c *Cards) orderOf(ctx context.Context, object json.RawMessage) (string, error) {
	var o struct {
		Reference string          `json:"client_reference_id"`
		Intent    json.RawMessage `json:"payment_intent"` // an id, unless it is expanded
		Metadata  struct {
			Order string `json:"order"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(object, &o); err != nil {
		return "", cloudpal.E("", cloudpal.Invalid, errors.New("it is about nothing"))
	}
	if o.Metadata.Order != "" {
		return o.Metadata.Order, nil
	}
	var id string
	if o.Reference != "" || json.Unmarshal(o.Intent, &id) != nil || id == "" {
		return o.Reference, nil
	}
	var i struct {
		Metadata struct {
			Order string `json:"order"`
		} `json:"metadata"`
	}
	err := c.get(ctx, "/v1/payment_intents/"+url.PathEscape(id), &i)
	if errors.Is(err, cloudpal.NotExist) {
		return "", nil
	}
	return i.Metadata.Order, err
}

// signed checks a header such as "t=1495999758,v1=ABC,v1=DEF": that one of its
// signatures is the HMAC-SHA256 of the time, a dot and the body, and the time about
// now. Other schemes than v1 are not looked at.
func signed(header string, body, secret []byte, now time.Time) bool {
	var at string
	var signatures [][]byte
	for part := range strings.SplitSeq(header, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(part), "=")
		switch name {
		case "t":
			at = value
		case "v1":
			if b, err := hex.DecodeString(value); err == nil && len(signatures) < maxSigning {
				signatures = append(signatures, b)
			}
		}
	}
	seconds, err := strconv.ParseInt(at, 10, 64)
	if err != nil || now.Sub(time.Unix(seconds, 0)).Abs() > tolerance {
		return false
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(at + "."))
	mac.Write(body)
	want := mac.Sum(nil)
	for _, s := range signatures {
		if hmac.Equal(s, want) {
			return true
		}
	}
	return false
}
