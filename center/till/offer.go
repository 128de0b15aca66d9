package till

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/ticket"
)

// Terms are what a center's operator decides about money. They are written as JSON, in
// the file of "cloudpal center --tariff".
type Terms struct {
	Tariff  api.Tariff          `json:"tariff"`
	Slice   ticket.Denomination `json:"slice"`   // units of one ticket; 0: DefaultSlice
	Classes []string            `json:"classes"` // "paid" and "free"; none: paid
	Valid   Duration            `json:"valid"`   // of an offer; 0: 30 days
	Grace   Duration            `json:"grace"`   // 0: 5 minutes
	Seal    Duration            `json:"seal"`    // after the money's end; 0: 3 days
	Delete  Duration            `json:"delete"`  // after the money's end; 0: 30 days
	Warn    Duration            `json:"warn"`    // before the money's end; 0: 6 hours
}

// A Duration is a time.Duration that JSON has as text, such as "72h".
type Duration time.Duration

// MarshalText writes it as time.Duration does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText reads what time.ParseDuration does.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%.40q is no time; write it as 72h", text)
	}
	*d = Duration(v)
	return nil
}

// What Terms that are silent get.
const (
	DefaultSlice  = 64
	defaultValid  = 30 * 24 * time.Hour
	defaultGrace  = 5 * time.Minute
	defaultSeal   = 3 * 24 * time.Hour
	defaultDelete = 30 * 24 * time.Hour
	defaultWarn   = 6 * time.Hour
)

// maxTerms bounds a file of Terms in bytes.
const maxTerms = 16 << 10

// LoadTerms reads Terms from a file.
func LoadTerms(path string) (t Terms, err error) {
	op := "read " + path
	info, err := os.Stat(path)
	if err != nil {
		return t, cloudpal.E(op, "", err)
	}
	if info.Size() > maxTerms {
		return t, cloudpal.E(op, cloudpal.Invalid, errors.New("it is too large for a tariff"))
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return t, cloudpal.E(op, "", err)
	}
	if t, err = ParseTerms(data); err != nil {
		return t, cloudpal.E(op, "", err)
	}
	return t, nil
}

// ParseTerms reads Terms and completes them.
func ParseTerms(data []byte) (t Terms, err error) {
	const op = "read a tariff"
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&t); err != nil {
		return t, cloudpal.E(op, cloudpal.Invalid, err)
	}
	if d.More() {
		return t, cloudpal.E(op, cloudpal.Invalid, errors.New("more follows it"))
	}
	if err := t.complete(); err != nil {
		return t, cloudpal.E(op, cloudpal.Invalid, err)
	}
	return t, nil
}

// complete fills in what is silent, and refuses what cannot be.
func (t *Terms) complete() error {
	if t.Slice == 0 {
		t.Slice = DefaultSlice
	}
	if len(t.Classes) == 0 {
		t.Classes = []string{ticket.Paid.String()}
	}
	for d, or := range map[*Duration]time.Duration{
		&t.Valid: defaultValid, &t.Grace: defaultGrace, &t.Seal: defaultSeal, &t.Delete: defaultDelete, &t.Warn: defaultWarn,
	} {
		if *d == 0 {
			*d = Duration(or)
		}
		if *d < 0 || time.Duration(*d)%time.Second != 0 {
			return fmt.Errorf("a time of %v: times are in whole seconds", time.Duration(*d))
		}
	}
	if _, err := t.classes(); err != nil {
		return err
	}
	if time.Duration(t.Grace) < time.Minute || time.Duration(t.Grace) > time.Hour {
		return errors.New("the grace is between a minute and an hour")
	}
	o := t.offer()
	o.Center, o.Issuers = make([]byte, 32), []string{"any"}
	return o.Check()
}

func (t *Terms) classes() (list []ticket.Class, err error) {
	for _, name := range t.Classes {
		i := slices.IndexFunc(ticket.Classes, func(c ticket.Class) bool { return c.String() == name })
		if i < 0 {
			return nil, fmt.Errorf("class %.20q: there are paid and free", name)
		}
		list = append(list, ticket.Classes[i])
	}
	return list, nil
}

func (t *Terms) offer() api.Offer {
	classes, _ := t.classes()
	seconds := func(d Duration) api.Seconds { return api.Seconds(time.Duration(d) / time.Second) }
	return api.Offer{
		Classes: classes, Tariff: t.Tariff, Slice: t.Slice,
		Grace: seconds(t.Grace), Seal: seconds(t.Seal), Delete: seconds(t.Delete),
	}
}

// Offer returns the present offer.
func (t *Till) Offer() api.Signed {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.offer
}

// renewOffer makes a new offer where the present one says something else, or has less
// than half of its time left. Old ones are kept: there are tabs that go by them.
func (t *Till) renewOffer() error {
	want := t.cfg.Terms.offer()
	want.Center = t.center[:]
	for _, i := range t.cfg.Issuers {
		want.Issuers = append(want.Issuers, i.Trust.Issuer)
	}
	now := t.now()
	if o, err := api.OpenOffer(t.Offer()); err == nil && o.Until.Sub(now) > time.Duration(t.cfg.Terms.Valid)/2 {
		want.Until = o.Until
		a, _ := json.Marshal(want)
		if bytes.Equal(a, t.Offer().Text) {
			return nil
		}
	}
	want.Until = now.Add(time.Duration(t.cfg.Terms.Valid)).Truncate(time.Second)
	signed, err := api.Sign(t.key, api.ForOffer, want)
	if err != nil {
		return err
	}
	d := api.OfferDigest(signed)
	b := t.store.begin()
	b.put(offerKey(d), signed)
	b.put(presentOffer, signed)
	if err := b.commit(); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.offer, t.offers[d] = signed, want
	return nil
}

func (t *Till) loadOffers() error {
	if _, err := t.store.get(presentOffer, &t.offer); err != nil {
		return err
	}
	return t.store.each(offers, func(_, value []byte) error {
		var s api.Signed
		if err := json.Unmarshal(value, &s); err != nil {
			return err
		}
		o, err := api.OpenOffer(s)
		t.offers[api.OfferDigest(s)] = o
		return err
	})
}

// terms returns an offer that was made here.
func (t *Till) terms(d ticket.Digest) (api.Offer, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	o, ok := t.offers[d]
	return o, ok
}

// OfferOf returns the offer whose tariff counts for an account's tab.
func (t *Till) OfferOf(owner api.Fingerprint, id api.TabID) (s api.Signed, ok bool) {
	tb, err := t.find(owner, id)
	if err != nil {
		return s, false
	}
	tb.mu.Lock()
	d := tb.Offer
	tb.mu.Unlock()
	ok, err = t.store.get(offerKey(d), &s)
	return s, ok && err == nil
}
