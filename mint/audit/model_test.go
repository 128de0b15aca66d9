package audit

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/transparency-dev/formats/log"
	"golang.org/x/mod/sumdb/note"
	"pgregory.net/rapid"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/manifest"
)

// A model is a mint that only counts.
type model struct {
	trust   *manifest.Trust
	bundle  []byte
	receipt ed25519.PrivateKey
	keys    []*ticket.Key
	now     time.Time
	outputs map[place][][32]byte
	spent   map[place][][32]byte
	change  map[place]int64
	lie     func(*api.Counters) // what it lies, if it does
	leaves  func(place, api.Kind, [][32]byte) [][32]byte
}

// A place is a key and an hour.
type place struct {
	key  int
	hour int64
}

func newModel(tb testing.TB) *model {
	tb.Helper()
	pair := func(name string) (note.Signer, string) {
		private, public, err := note.GenerateKey(nil, name)
		if err != nil {
			tb.Fatal(err)
		}
		s, err := note.NewSigner(private)
		if err != nil {
			tb.Fatal(err)
		}
		return s, public
	}
	root, rootKey := pair(issuer)
	origin, logKey := pair(issuer + "/log")
	m := &model{
		trust: &manifest.Trust{Issuer: issuer, URL: "https://" + issuer, Root: rootKey, Log: logKey},
		now:   time.Date(2026, 11, 20, 12, 30, 0, 0, time.UTC),
	}
	_, m.receipt, _ = ed25519.GenerateKey(nil)
	for _, c := range ticket.Classes {
		for _, d := range ticket.Denominations {
			k, err := ticket.NewKey(c, d, epoch, unsignable(fmt.Sprint(c, d)))
			if err != nil {
				tb.Fatal(err)
			}
			m.keys = append(m.keys, k)
		}
	}
	listed, err := manifest.New(issuer, epoch, m.receipt.Public().(ed25519.PublicKey), m.keys)
	if err != nil {
		tb.Fatal(err)
	}
	entry, err := listed.Sign(root)
	if err != nil {
		tb.Fatal(err)
	}
	top := log.Checkpoint{Origin: origin.Name(), Size: 1, Hash: manifest.Root([]manifest.Entry{entry})}
	signed, err := note.Sign(&note.Note{Text: string(top.Marshal())}, origin)
	if err != nil {
		tb.Fatal(err)
	}
	m.bundle, err = (&manifest.Bundle{Keys: listed.Public(), Entries: []manifest.Entry{entry}, Checkpoint: manifest.Checkpoint(signed)}).Marshal()
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

func (m *model) Manifest(_ context.Context, e ticket.Epoch) ([]byte, error) {
	if e != epoch {
		return nil, cloudpal.NotExist
	}
	return m.bundle, nil
}

// trade makes what was done in the last days.
func (m *model) trade(rt *rapid.T) {
	m.outputs, m.spent, m.change = map[place][][32]byte{}, map[place][][32]byte{}, map[place]int64{}
	held := make([]int, len(m.keys))
	first, n := api.HourOf(m.now)-50, 0
	leaf := func() [32]byte {
		n++
		return sha256.Sum256(fmt.Append(nil, n))
	}
	for hour := first; hour < first+4; hour++ {
		for range rapid.IntRange(1, 6).Draw(rt, "trades") {
			at := place{rapid.IntRange(0, len(m.keys)-1).Draw(rt, "key"), hour}
			if held[at.key] > 0 && rapid.Bool().Draw(rt, "spent") {
				held[at.key]--
				m.spent[at] = append(m.spent[at], leaf())
				continue
			}
			held[at.key]++
			m.outputs[at] = append(m.outputs[at], leaf())
		}
	}
	// Of a ticket of 4 that is spent, one of 1 may come back.
	for at := range m.spent {
		if at.key%len(ticket.Denominations) == 1 {
			back := place{at.key - 1, at.hour}
			m.outputs[back] = append(m.outputs[back], leaf())
			m.change[back]++
		}
	}
	for _, all := range []map[place][][32]byte{m.outputs, m.spent} {
		for _, leaves := range all {
			slices.SortFunc(leaves, func(a, b [32]byte) int { return bytes.Compare(a[:], b[:]) })
		}
	}
}

// deposited are the leaves of deposits: every second of what was spent is one.
func deposited(spent [][32]byte) (leaves [][32]byte) {
	for i, s := range spent {
		if i%2 == 0 {
			leaves = append(leaves, sha256.Sum256(s[:]))
		}
	}
	return leaves
}

func (m *model) Counters(context.Context, ticket.Epoch) (api.Counters, error) {
	c := api.Counters{Issuer: issuer, Epoch: epoch, Time: m.now.Truncate(time.Hour), Signed: epoch}
	for i, k := range m.keys {
		id := k.ID()
		n := api.KeyCounter{Key: id[:]}
		for hour := api.HourOf(m.now) - 50; hour < api.HourOf(m.now); hour++ {
			at := place{i, hour}
			h := api.Hour{Hour: hour, Issued: int64(len(m.outputs[at])), Redeemed: int64(len(m.spent[at])), Refunded: m.change[at]}
			if h.Issued+h.Redeemed == 0 {
				continue
			}
			outputs, spent := api.Root(m.outputs[at]), api.Root(m.spent[at])
			deposits := api.Root(deposited(m.spent[at]))
			h.Outputs, h.Spent, h.Deposits = outputs[:], spent[:], deposits[:]
			n.Issued, n.Redeemed, n.Refunded = n.Issued+h.Issued, n.Redeemed+h.Redeemed, n.Refunded+h.Refunded
			n.Hours = append(n.Hours, h)
		}
		c.Keys = append(c.Keys, n)
	}
	if m.lie != nil {
		m.lie(&c)
	}
	c.Signature = ed25519.Sign(m.receipt, c.Text())
	return c, nil
}

func (m *model) Leaves(_ context.Context, id ticket.KeyID, kind api.Kind, hour int64) ([][32]byte, error) {
	at := place{slices.IndexFunc(m.keys, func(k *ticket.Key) bool { return k.ID() == id }), hour}
	leaves := m.outputs[at]
	switch kind {
	case api.LeafSpent:
		leaves = m.spent[at]
	case api.LeafDeposits:
		leaves = deposited(m.spent[at])
	}
	if m.leaves != nil {
		leaves = m.leaves(at, kind, slices.Clone(leaves))
	}
	return leaves, nil
}

func (m *model) audit(tb testing.TB, own Own, memory Memory) *Report {
	tb.Helper()
	r, err := Run(tb.Context(), Config{Mint: m, Trust: m.trust, Now: m.now, Own: own, Memory: memory})
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// Whatever an honest mint did, nothing is found; whatever one number, root or leaf is
// changed to, it is.
func TestAnyChangeIsFound(t *testing.T) {
	t.Parallel()
	base := newModel(t)
	rapid.Check(t, func(rt *rapid.T) {
		m := *base
		m.trade(rt)
		r := m.audit(t, Own{}, Memory{})
		if len(r.Findings) > 0 {
			rt.Fatalf("an honest mint: %+v", r.Findings)
		}
		if again := m.audit(t, Own{}, r.Memory); len(again.Findings) > 0 {
			rt.Fatalf("an honest mint, again: %+v", again.Findings)
		}
		by := rapid.Int64Range(1, 3).Draw(rt, "by")
		if rapid.Bool().Draw(rt, "less") {
			by = -by
		}
		field := rapid.IntRange(0, 10).Draw(rt, "field")
		which := rapid.IntRange(0, 1000).Draw(rt, "which")
		m.lie = func(c *api.Counters) {
			traded := slices.DeleteFunc(slices.Clone(c.Keys), func(k api.KeyCounter) bool { return len(k.Hours) == 0 })
			k := traded[which%len(traded)]
			at := slices.IndexFunc(c.Keys, func(o api.KeyCounter) bool { return bytes.Equal(o.Key, k.Key) })
			h := &k.Hours[which%len(k.Hours)]
			switch field {
			case 0:
				h.Issued, c.Keys[at].Issued = h.Issued+by, k.Issued+by
			case 1:
				h.Redeemed, c.Keys[at].Redeemed = h.Redeemed+by, k.Redeemed+by
			case 2:
				c.Keys[at].Refunded += by
			case 3:
				c.Keys[at].Issued += by
			case 4:
				c.Keys[at].Redeemed += by
			case 5:
				h.Outputs[which%32] ^= 1
			case 6:
				h.Spent[which%32] ^= 1
			case 7:
				h.Hour += 1000
			case 10:
				h.Deposits[which%32] ^= 1
			case 8:
				c.Keys = slices.Delete(c.Keys, at, at+1)
			}
		}
		if field == 9 { // the leaves instead
			m.lie = nil
			m.leaves = func(_ place, _ api.Kind, leaves [][32]byte) [][32]byte {
				if len(leaves) > 0 {
					leaves[which%len(leaves)][0] ^= 1
				}
				return leaves
			}
		}
		if found := m.audit(t, Own{}, Memory{}); len(found.Findings) == 0 {
			rt.Fatal("nothing is found")
		}
		// Who audited before sees also what would look right by itself.
		m.lie, m.leaves = func(c *api.Counters) {
			for i := range c.Keys {
				c.Keys[i] = api.KeyCounter{Key: c.Keys[i].Key}
			}
		}, nil
		if found := m.audit(t, Own{}, r.Memory); len(found.Findings) == 0 {
			rt.Fatal("it forgot everything, and nothing is found")
		}
	})
}

// What a mint sends may be anything.
func FuzzAudit(f *testing.F) {
	m := newModel(f)
	good, err := m.Counters(context.Background(), epoch)
	if err != nil {
		f.Fatal(err)
	}
	raw, err := json.Marshal(good)
	if err != nil {
		f.Fatal(err)
	}
	own, err := json.Marshal(Own{Signed: []Signed{{}}, Receipts: []api.Receipt{{Epoch: epoch}}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw, own, []byte("x"))
	f.Add([]byte(`{"epoch":82,"keys":[{"key":"AA==","hours":[{"hour":9223372036854775807,"issued":-1}]}]}`), []byte(`{"receipts":[{"key":"AA=="}]}`), raw)
	f.Fuzz(func(t *testing.T, counters, own, leaves []byte) {
		liar := *m
		var said api.Counters
		var mine Own
		if json.Unmarshal(counters, &said) != nil || json.Unmarshal(own, &mine) != nil {
			return
		}
		said.Issuer, said.Epoch, said.Signed = issuer, epoch, epoch
		liar.lie = func(c *api.Counters) { *c = said }
		liar.leaves = func(place, api.Kind, [][32]byte) [][32]byte { return [][32]byte{sha256.Sum256(leaves)} }
		r := liar.audit(t, mine, Memory{Counters: map[ticket.Epoch]api.Counters{epoch: good}})
		if _, err := json.Marshal(r); err != nil {
			t.Errorf("the report cannot be written: %v", err)
		}
	})
}
