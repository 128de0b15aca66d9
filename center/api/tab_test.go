package api

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

func newOffer(tb testing.TB) (Offer, ed25519.PrivateKey) {
	tb.Helper()
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		tb.Fatal(err)
	}
	return Offer{
		Center: public, Issuers: []string{"mint.example"}, Classes: []ticket.Class{ticket.Paid}, Tariff: Tariff{Core: 64},
		Slice: 64, Until: time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), Grace: 300, Seal: 3600, Delete: 7200,
	}, key
}

// An offer is read as the center signed it, and not at all where it makes no sense.
func TestOffersAreSigned(t *testing.T) {
	good, key := newOffer(t)
	signed, err := Sign(key, ForOffer, good)
	if err != nil {
		t.Fatal(err)
	}
	if o, err := OpenOffer(signed); err != nil || o.Tariff.Core != 64 || OfferDigest(signed) == (ticket.Digest{}) {
		t.Fatalf("read it is %+v (%v)", o, err)
	}
	_, stranger := newOffer(t)
	for what, s := range map[string]Signed{
		"another's signature": {signed.Text, ed25519.Sign(stranger, ForOffer.bytes(signed.Text))},
		"another purpose":     {signed.Text, ed25519.Sign(key, ForPaid.bytes(signed.Text))},
		"another text":        {append([]byte(" "), signed.Text...), signed.Signature},
		"no text":             {nil, signed.Signature},
		"no signature":        {signed.Text, nil},
	} {
		if _, err := OpenOffer(s); err == nil {
			t.Errorf("%s is read", what)
		}
	}
	for what, change := range map[string]func(*Offer){
		"no mint":           func(o *Offer) { o.Issuers = nil },
		"no class":          func(o *Offer) { o.Classes = nil },
		"a slice of none":   func(o *Offer) { o.Slice = 65 },
		"an endless tariff": func(o *Offer) { o.Tariff.Core = 1 << 40 },
		"deleted first":     func(o *Offer) { o.Delete = 1 },
		"no grace":          func(o *Offer) { o.Grace = 0 },
	} {
		o := good
		change(&o)
		s, err := Sign(key, ForOffer, o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := OpenOffer(s); !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("an offer with %s: %v", what, err)
		}
	}
}

// The digest is part of contracts and of tabs' names: it never changes.
func TestOfferDigestIsGolden(t *testing.T) {
	d := OfferDigest(Signed{Text: []byte(`{"center":"AA=="}`)})
	id := TabID(d)
	if got, want := id.String(), "2ad3b7d0585007678c4cb720651e0ab02b848de827b6ead470e7e4efbf779b22"; got != want {
		t.Errorf("the digest is %s, want %s", got, want)
	}
}

func TestTabIDs(t *testing.T) {
	var id, back TabID
	id[0], id[31] = 0xab, 1
	text, _ := id.MarshalText()
	if err := back.UnmarshalText(text); err != nil || back != id {
		t.Errorf("%s is read as %s (%v)", text, back, err)
	}
	for _, bad := range []string{"", "AB" + string(text[2:]), string(text[1:]), string(text) + "0", "zz" + string(text[2:]), "0x" + string(text[2:])} {
		if err := new(TabID).UnmarshalText([]byte(bad)); !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("%q is read (%v)", bad, err)
		}
	}
}

// FuzzOffer reads offers of all kinds: what is read was signed, and makes sense.
func FuzzOffer(f *testing.F) {
	o, key := newOffer(f)
	signed, _ := Sign(key, ForOffer, o)
	good, _ := json.Marshal(signed)
	f.Add(good)
	f.Add([]byte(`{"text":"e30=","signature":"AA=="}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var s Signed
		if json.Unmarshal(data, &s) != nil {
			return
		}
		if o, err := OpenOffer(s); err == nil {
			if err := o.Check(); err != nil || !ed25519.Verify(o.Center, ForOffer.bytes(s.Text), s.Signature) {
				t.Errorf("read %+v (%v)", o, err)
			}
		}
	})
}
