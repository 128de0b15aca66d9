package pal

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/identity"
	"github.com/tradle/cloudpal/pal/api"
	"github.com/tradle/cloudpal/ticket"
)

// A seller is a center as a core hears of it.
type seller struct {
	key   ed25519.PrivateKey
	offer []byte
	nonce []byte
	tab   [32]byte
	last  *ticket.Record
}

// newSeller opens a tab for an unlocked core under a tariff.
func newSeller(t *testing.T, p *unlocked, nonce byte, rates tariff) *seller {
	t.Helper()
	public, key, err := ed25519.GenerateKey(nil)
	must(t, err)
	offer, err := json.Marshal(map[string]any{"center": []byte(public), "tariff": rates, "slice": 64})
	must(t, err)
	s := &seller{key: key, offer: offer, nonce: bytes.Repeat([]byte{nonce}, 16)}
	s.tab = [32]byte(p.meter.Key([16]byte(s.nonce), offerDigest(offer)).Public().(ed25519.PublicKey))
	return s
}

// offerDigest is center/api's OfferDigest.
func offerDigest(text []byte) [32]byte {
	const purpose = "cloudpal offer v1"
	b := append(binary.BigEndian.AppendUint64(nil, uint64(len(purpose))), purpose...)
	return sha256.Sum256(append(b, text...))
}

// claims returns the request for the next record.
func (s *seller) claims(used ticket.Units) api.CountersignRequest {
	r := ticket.Record{Tab: s.tab, Seq: 1, Used: used, At: time.Now().Truncate(time.Second)}
	if s.last != nil {
		r.Seq, r.Prev = s.last.Seq+1, s.last.Digest()
	}
	return api.CountersignRequest{Nonce: s.nonce, Offer: s.offer, Record: r.Append(nil), Signature: r.Sign(s.key)}
}

func newUnlocked(t *testing.T, dir string, secrets identity.Secrets) *unlocked {
	t.Helper()
	p := &unlocked{core: &Core{}, log: slog.New(slog.DiscardHandler), store: store{dir}, since: time.Now(), meter: secrets.MeterKeys()}
	var err error
	p.naps, err = p.store.naps(p.since)
	must(t, err)
	return p
}

// A core agrees to what it has measured itself, and to no more.
func TestACoreCountersignsItsOwnMeasure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		secrets := identity.NewPhrase().Root().PalSecrets()
		dir := t.TempDir()
		p := newUnlocked(t, dir, secrets)
		s := newSeller(t, p, 1, tariff{Core: 64})
		time.Sleep(6 * time.Hour) // of a day, 16 units
		agree := func(used ticket.Units) error {
			q := s.claims(used)
			signature, err := p.countersign(q)
			if err != nil {
				return err
			}
			r, err := ticket.ParseRecord(q.Record)
			must(t, err)
			if !r.Signed(s.tab[:], signature) {
				t.Errorf("%d units are not signed by the tab's key", used)
			}
			if again, err := p.countersign(q); err != nil || !bytes.Equal(again, signature) {
				t.Errorf("asked again it says %v", err)
			}
			s.last = &r
			return nil
		}
		if err := agree(24); !errors.Is(err, cloudpal.Denied) {
			t.Errorf("24 units for 6 hours: %v", err)
		}
		if err := agree(16); err != nil {
			t.Errorf("16 units for 6 hours: %v", err)
		}
		time.Sleep(3 * time.Hour)
		if err := agree(16 + 14); !errors.Is(err, cloudpal.Denied) {
			t.Errorf("14 units for 3 hours more: %v", err)
		}
		if err := agree(15); !errors.Is(err, cloudpal.Denied) {
			t.Errorf("less than before: %v", err)
		}
		if err := agree(16 + 8); err != nil {
			t.Errorf("8 units for 3 hours more: %v", err)
		}
		// An old record is not agreed to once more as a new one.
		old := *s.last
		s.last = nil
		if err := agree(24); !errors.Is(err, cloudpal.Denied) {
			t.Errorf("a second chain: %v", err)
		}
		s.last = &old
		// A boot forgets nothing: asleep is not awake.
		time.Sleep(3 * time.Hour)
		p.naps.add(api.Nap{From: time.Now().Add(-2 * time.Hour), To: time.Now()})
		must(t, p.naps.save())
		p = newUnlocked(t, dir, secrets)
		if err := agree(24 + 7); !errors.Is(err, cloudpal.Denied) {
			t.Errorf("7 units for an hour awake and two asleep: %v", err)
		}
		if err := agree(24 + 3); err != nil {
			t.Errorf("3 units for it: %v", err)
		}
	})
}

// What is not of the tab that was opened under just that offer is not signed.
func TestACoreKnowsItsOffer(t *testing.T) {
	p := newUnlocked(t, t.TempDir(), identity.NewPhrase().Root().PalSecrets())
	s := newSeller(t, p, 1, tariff{Core: 64})
	other := newSeller(t, p, 2, tariff{Core: 6400})
	stranger := newSeller(t, newUnlocked(t, t.TempDir(), identity.NewPhrase().Root().PalSecrets()), 1, tariff{Core: 64})
	good := s.claims(1)
	if _, err := p.countersign(good); err != nil {
		t.Fatal(err)
	}
	for what, q := range map[string]api.CountersignRequest{
		"another tariff":   {Nonce: good.Nonce, Offer: other.offer, Record: good.Record, Signature: good.Signature},
		"another nonce":    {Nonce: other.nonce, Offer: good.Offer, Record: good.Record, Signature: good.Signature},
		"another's tab":    stranger.claims(1),
		"no signature":     {Nonce: good.Nonce, Offer: good.Offer, Record: s.claims(2).Record, Signature: make([]byte, 64)},
		"nothing":          {},
		"a short record":   {Nonce: good.Nonce, Offer: good.Offer, Record: good.Record[:9]},
		"another's record": {Nonce: good.Nonce, Offer: good.Offer, Record: other.claims(1).Record, Signature: other.claims(1).Signature},
	} {
		if signature, err := p.countersign(q); err == nil || signature != nil {
			t.Errorf("%s is countersigned", what)
		}
	}
}

// FuzzCountersign asks a core for anything: it signs no more than it has measured.
func FuzzCountersign(f *testing.F) {
	dir, secrets := f.TempDir(), identity.NewPhrase().Root().PalSecrets()
	f.Add([]byte(`{"nonce":"AAAAAAAAAAAAAAAAAAAAAA==","offer":"e30=","record":"AA==","signature":"AA=="}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		var q api.CountersignRequest
		if json.Unmarshal(body, &q) != nil {
			return
		}
		if _, err := newUnlocked(t, dir, secrets).countersign(q); err == nil {
			t.Errorf("countersigned %s", body)
		}
	})
}
