package audit

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/mint/keylog"
	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/manifest"
)

// A liar is a mint that says other things than it did, and signs them.
type liar struct {
	Source
	receipt  ed25519.PrivateKey
	counters func(*api.Counters) error
	leaves   func(api.Kind, int64, [][32]byte) ([][32]byte, error)
	manifest func() ([]byte, error)
}

func (l *liar) Manifest(ctx context.Context, e ticket.Epoch) ([]byte, error) {
	if l.manifest == nil || e != epoch {
		return l.Source.Manifest(ctx, e)
	}
	return l.manifest()
}

func (l *liar) Counters(ctx context.Context, e ticket.Epoch) (api.Counters, error) {
	c, err := l.Source.Counters(ctx, e)
	if err != nil || l.counters == nil {
		return c, err
	}
	err = l.counters(&c)
	if c.Signature != nil {
		c.Signature = ed25519.Sign(l.receipt, c.Text())
	}
	return c, err
}

func (l *liar) Leaves(ctx context.Context, id ticket.KeyID, kind api.Kind, hour int64) ([][32]byte, error) {
	leaves, err := l.Source.Leaves(ctx, id, kind, hour)
	if err != nil || l.leaves == nil {
		return leaves, err
	}
	return l.leaves(kind, hour, leaves)
}

func (w *world) audit(c Config) *Report {
	w.Helper()
	if c.Mint == nil {
		c.Mint = w.client
	}
	c.Trust, c.Now = w.trust, w.now()
	r, err := Run(w.Context(), c)
	w.must(err)
	return r
}

// wantFinding fails the test unless a report has just one kind of finding.
func (w *world) wantFinding(r *Report, text string) Finding {
	w.Helper()
	for _, f := range r.Findings {
		if strings.Contains(f.Text, text) {
			for _, name := range f.Evidence {
				if r.Evidence[name] == nil {
					w.Errorf("the evidence %q is not there", name)
				}
			}
			return f
		}
	}
	w.Fatalf("nothing about %q is found: %+v", text, r.Findings)
	return Finding{}
}

// A mint that is honest has nothing to be found, whatever was done, when it is audited
// and how often.
func TestHonest(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var own Own
	var memory Memory
	audited := func() *Report {
		t.Helper()
		r := w.audit(Config{Own: own, Memory: memory})
		if len(r.Findings) > 0 {
			t.Fatalf("at %v: %+v", w.now(), r.Findings)
		}
		memory = r.Memory
		return r
	}
	audited()
	for range 3 {
		a, signed := w.buy()
		b, alsoSigned := w.buy()
		own.Signed = append(own.Signed, signed, alsoSigned)
		own.Receipts = append(own.Receipts, w.deposit(a, 7))
		w.swap(b)
		audited()
		w.add(40 * time.Minute)
		audited()
	}
	w.add(time.Hour)
	audited()
	w.add(27 * time.Hour)
	r := audited()
	if r.Keys != 14 || r.Issued != 3*(2+4+10) || r.Redeemed != 3*2 || r.Alone { // bought, change, swapped
		t.Errorf("got %+v", r)
	}
	if memory.Checkpoint == "" || len(memory.Counters) != 1 {
		t.Errorf("it remembers %+v", memory)
	}
}

// A mint that signs tickets beside its books shows it when they are paid with.
func TestPrintsMoney(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a, _ := w.buy()
	w.deposit(a, 0)
	w.deposit(w.print(), 0)
	w.add(2 * time.Hour)
	r := w.audit(Config{})
	f := w.wantFinding(r, "2 were redeemed and only 1 issued: it printed money")
	c, ok := r.Evidence[f.Evidence[0]].(api.Counters)
	if !ok || c.Verify(w.receipt.Public().(ed25519.PublicKey)) != nil {
		t.Error("the evidence is not what the mint signed")
	}
	if len(r.Findings) != 1 {
		t.Errorf("found are %+v", r.Findings)
	}
}

// Each is what a mint does that cheats and lies about it, after a day with one ticket
// bought and paid with, of which one unit came back.
func TestLies(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	bought, signed := w.buy()
	receipt := w.deposit(bought, 1)
	w.add(3 * time.Hour)
	before := w.audit(Config{}).Memory
	w.add(26 * time.Hour)
	day, one := w.keys[64].ID(), w.keys[1].ID()
	of := func(c *api.Counters, id ticket.KeyID) *api.KeyCounter {
		i := slices.IndexFunc(c.Keys, func(k api.KeyCounter) bool { return bytes.Equal(k.Key, id[:]) })
		return &c.Keys[i]
	}
	none := api.Root(nil)
	own := Own{Signed: []Signed{signed}, Receipts: []api.Receipt{receipt}}
	honest := w.audit(Config{Own: own, Memory: before})
	if len(honest.Findings) > 0 || len(honest.Counted) != 1 {
		t.Fatalf("before it lies: %+v", honest)
	}
	stranger := receipt
	stranger.Key = make([]byte, 32)
	stranger.Signature = ed25519.Sign(w.receipt, stranger.Text())
	forged := receipt
	forged.Serial = make([]byte, 32)
	short := receipt
	short.Amount = 16
	short.Signature = ed25519.Sign(w.receipt, short.Text())
	secret := signed
	secret.Signature = nil
	wrong := signed
	wrong.Signature = make([]byte, ticket.BlindSize)
	tagged := signed
	tagged.Output.Key = make([]byte, 32)
	dropsIssue := func(c *api.Counters) error {
		k := of(c, day)
		k.Issued, k.Hours[0].Issued, k.Hours[0].Outputs = 0, 0, none[:]
		k.Redeemed, k.Hours[0].Redeemed, k.Hours[0].Spent = 0, 0, none[:]
		o := of(c, one)
		o.Refunded, o.Hours[0].Refunded = 0, 0
		return nil
	}
	nothing := func(api.Kind, int64, [][32]byte) ([][32]byte, error) { return nil, nil }
	for _, c := range []struct {
		name, want string
		own        Own
		memory     Memory
		liar       liar
	}{
		{name: "it drops a deposit", want: "a deposit of paid 64 of epoch 82 at 2026-11-20 12:00 is not among", own: Own{Receipts: own.Receipts}, liar: liar{
			counters: func(c *api.Counters) error {
				k := of(c, day)
				k.Redeemed, k.Hours[0].Redeemed, k.Hours[0].Spent = 0, 0, none[:]
				return nil
			},
			leaves: func(kind api.Kind, _ int64, leaves [][32]byte) ([][32]byte, error) {
				if kind == api.LeafSpent {
					return nil, nil
				}
				return leaves, nil
			},
		}},
		{name: "it calls a deposit a swap", want: "a deposit of paid 64 of epoch 82 at 2026-11-20 12:00 is not among", own: Own{Receipts: own.Receipts}, liar: liar{
			counters: func(c *api.Counters) error { of(c, day).Hours[0].Deposits = none[:]; return nil },
			leaves: func(kind api.Kind, _ int64, leaves [][32]byte) ([][32]byte, error) {
				if kind == api.LeafDeposits {
					return nil, nil
				}
				return leaves, nil
			},
		}},
		{name: "it does not say what was deposited", want: "which of the redeemed of 2026-11-20 12:00 were deposited", liar: liar{
			counters: func(c *api.Counters) error { of(c, day).Hours[0].Deposits = nil; return nil },
		}},
		{name: "it says that another deposit was made", want: "it changed what it had said", memory: honest.Memory, liar: liar{
			counters: func(c *api.Counters) error { of(c, day).Hours[0].Deposits = none[:]; return nil },
		}},
		{name: "it makes deposits of nothing", want: "it shows 2 deposits, and counts 1 redeemed", liar: liar{
			leaves: func(kind api.Kind, _ int64, leaves [][32]byte) ([][32]byte, error) {
				if kind == api.LeafDeposits && len(leaves) > 0 {
					return append(leaves, [32]byte{}), nil
				}
				return leaves, nil
			},
		}},
		{name: "it does not count what it signed", want: "a ticket of paid 64 of epoch 82 that it signed", own: Own{Signed: own.Signed}, liar: liar{counters: dropsIssue, leaves: nothing}},
		{name: "nor what cannot be proven", want: "only who has the ticket knows", own: Own{Signed: []Signed{secret}}, liar: liar{counters: dropsIssue, leaves: nothing}},
		{name: "it counts no issue", want: "1 were redeemed and only 0 issued: it printed money", liar: liar{counters: func(c *api.Counters) error {
			k := of(c, day)
			k.Issued, k.Hours[0].Issued, k.Hours[0].Outputs = 0, 0, none[:]
			return nil
		}}},
		{name: "it counts an issue that comes after", want: "printed money", liar: liar{counters: func(c *api.Counters) error {
			k := of(c, day)
			late := k.Hours[0]
			late.Hour, late.Redeemed, late.Spent = late.Hour+1, 0, none[:]
			k.Hours[0].Issued, k.Hours[0].Outputs = 0, none[:]
			k.Hours = append(k.Hours, late)
			return nil
		}}},
		{name: "its sums are others", want: "the sums", liar: liar{counters: func(c *api.Counters) error { of(c, day).Issued += 10; return nil }}},
		{name: "it gives back more than was paid", want: "units were given back, and only", liar: liar{counters: func(c *api.Counters) error {
			k := of(c, one)
			k.Issued, k.Refunded, k.Hours[0].Issued, k.Hours[0].Refunded = 99, 99, 99, 99
			return nil
		}}},
		{name: "change that it did not issue", want: "of the issued were change", liar: liar{counters: func(c *api.Counters) error {
			k := of(c, one)
			k.Refunded, k.Hours[0].Refunded = 2, 2
			return nil
		}}},
		{name: "below nothing", want: "-1 redeemed", liar: liar{counters: func(c *api.Counters) error {
			k := of(c, one)
			k.Redeemed, k.Hours[0].Redeemed = -1, -1
			return nil
		}}},
		{name: "hours of days to come", want: "an hour is counted that is not over", liar: liar{counters: func(c *api.Counters) error { of(c, day).Hours[0].Hour += 100; return nil }}},
		{name: "an hour twice", want: "not in their order", liar: liar{counters: func(c *api.Counters) error {
			k := of(c, day)
			k.Hours = append(k.Hours, k.Hours[0])
			return nil
		}}},
		{name: "roots of something else", want: "is not that of what it shows", liar: liar{counters: func(c *api.Counters) error { of(c, day).Hours[0].Outputs = make([]byte, 32); return nil }}},
		{name: "roots of fewer", want: "it counts 1 outputs, and shows 0", liar: liar{leaves: nothing}},
		{name: "no roots", want: "it does not say what the 1 spent", liar: liar{counters: func(c *api.Counters) error { of(c, day).Hours[0].Spent = nil; return nil }}},
		{name: "no leaves", want: "it keeps back the outputs", liar: liar{leaves: func(api.Kind, int64, [][32]byte) ([][32]byte, error) {
			return nil, cloudpal.NotExist
		}}},
		{name: "leaves twice", want: "twice", liar: liar{leaves: func(_ api.Kind, _ int64, leaves [][32]byte) ([][32]byte, error) {
			return append(leaves, leaves...), nil
		}}},
		{name: "no counters", want: "it keeps back the counters of epoch 82", liar: liar{counters: func(*api.Counters) error { return cloudpal.NotExist }}},
		{name: "counters that it did not sign", want: "did not sign the counters", liar: liar{counters: func(c *api.Counters) error { c.Signature = nil; return nil }}},
		{name: "counters by a key of no epoch", want: "did not sign the counters", liar: liar{counters: func(c *api.Counters) error { c.Signed = 81; return nil }}},
		{name: "another epoch's counters", want: "for epoch 82 it gives the counters of", liar: liar{counters: func(c *api.Counters) error { c.Epoch = 81; return nil }}},
		{name: "old counters", want: "the counters of epoch 82 are of", liar: liar{counters: func(c *api.Counters) error { c.Time = c.Time.Add(-4 * time.Hour); return nil }}},
		{name: "counters without a key", want: "leave paid 64 of epoch 82 out", liar: liar{counters: func(c *api.Counters) error {
			c.Keys = slices.DeleteFunc(c.Keys, func(k api.KeyCounter) bool { return bytes.Equal(k.Key, day[:]) })
			return nil
		}}},
		{name: "a second key", want: "which is not logged for it", liar: liar{counters: func(c *api.Counters) error {
			c.Keys = append(c.Keys, api.KeyCounter{Key: make([]byte, 32)})
			return nil
		}}},
		{name: "a key twice", want: "twice", liar: liar{counters: func(c *api.Counters) error { c.Keys = append(c.Keys, c.Keys[0]); return nil }}},
		{name: "something that is no key", want: "something that is no key", liar: liar{counters: func(c *api.Counters) error {
			c.Keys = append(c.Keys, api.KeyCounter{Key: []byte{1}})
			return nil
		}}},
		{name: "it changes what it said", want: "it changed what it had said of the key", memory: before, liar: liar{counters: dropsIssue, leaves: nothing}},
		{name: "it adds to what it said", want: "what it had not before", memory: before, liar: liar{counters: func(c *api.Counters) error {
			k := of(c, day)
			early := k.Hours[0]
			early.Hour -= 2
			k.Issued, k.Redeemed = 2*k.Issued, 2*k.Redeemed
			k.Hours = append([]api.Hour{early}, k.Hours...)
			return nil
		}}},
		{name: "it gives what it gave long ago", want: "older counters than before", memory: before, liar: liar{counters: func(c *api.Counters) error { c.Time = c.Time.Add(-40 * time.Hour); return nil }}},
		{name: "it credited a ticket of a key of its own", want: "which is not logged", own: Own{Receipts: []api.Receipt{stranger}}},
		{name: "it credited less", want: "it credited 16 units for a ticket of paid 64", own: Own{Receipts: []api.Receipt{short}}},
		{name: "a receipt that it did not sign", want: "the mint did not sign it", own: Own{Receipts: []api.Receipt{forged}}},
		{name: "a receipt that is none", want: "is no receipt", own: Own{Receipts: []api.Receipt{{}}}},
		{name: "it signed with a key of its own", want: "which is not logged", own: Own{Signed: []Signed{tagged}}},
		{name: "a signature that is none", want: "the signature is not by", own: Own{Signed: []Signed{wrong}}},
		{name: "an output that is none", want: "is no output", own: Own{Signed: []Signed{{}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			sub := *w
			sub.TB = t
			c.liar.Source, c.liar.receipt = w.client, w.receipt
			r := sub.audit(Config{Mint: &c.liar, Own: c.own, Memory: c.memory})
			sub.wantFinding(r, c.want)
			if _, err := json.Marshal(r); err != nil {
				t.Errorf("the report cannot be written: %v", err)
			}
		})
	}
}

// A mint that shows one person another log, with keys of their own, is found out by
// who saw the log before, by who knows what others saw, and by all who want witnesses.
func TestForkedLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	honest := w.audit(Config{}).Memory.Checkpoint

	forged := w.config
	forged.Folder = t.TempDir()
	alone := *w.trust
	alone.Quorum, alone.Witnesses = 0, nil
	forged.Trust, forged.Witnesses = &alone, nil
	l, err := keylog.Open(forged)
	w.must(err)
	defer l.Close()
	entry, keys := w.manifest("for ann only")
	w.must(l.Publish(t.Context(), entry, keys))
	fork := &liar{Source: w.client, manifest: func() ([]byte, error) { return l.Bundle(epoch) }}

	w.wantFinding(w.audit(Config{Mint: fork}), "0 witnesses cosigned")
	if r := w.audit(Config{Mint: fork, Memory: Memory{Checkpoint: honest}}); r.Memory.Checkpoint != honest {
		t.Error("it forgets the log that it saw before")
	}

	sub := *w
	sub.trust = &alone
	for name, c := range map[string]Config{
		"who saw it before": {Mint: fork, Memory: Memory{Checkpoint: honest}},
		"who knows others":  {Mint: fork, Others: []manifest.Checkpoint{honest}},
	} {
		r := sub.audit(c)
		f := w.wantFinding(r, "not the one that was shown before")
		shown, ok := r.Evidence[f.Evidence[0]].(*manifest.Fork)
		if !ok || shown.Seen != honest || shown.Shown == honest {
			t.Errorf("%s: the evidence is %+v", name, r.Evidence)
		}
	}
	if r := sub.audit(Config{Mint: fork}); len(r.Findings) == 0 || !r.Alone {
		t.Error("with no witness and nobody to compare with, other keys than the counters' were not found")
	}

	// Two manifests of one epoch, in one log that all see.
	second := &liar{Source: w.client, manifest: func() ([]byte, error) {
		raw, err := w.log.Bundle(epoch)
		if err != nil {
			return nil, err
		}
		b, err := manifest.ParseBundle(raw)
		if err != nil {
			return nil, err
		}
		b.Entries = append(b.Entries, entry)
		return b.Marshal()
	}}
	if r := w.audit(Config{Mint: second}); len(r.Findings) == 0 {
		t.Error("a second manifest is not found")
	}
	broken := &liar{Source: w.client, manifest: func() ([]byte, error) { return []byte("{"), nil }}
	w.wantFinding(w.audit(Config{Mint: broken}), "read a bundle of keys")
}

// That a mint cannot be reached is no finding.
func TestUnreachable(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for name, l := range map[string]*liar{
		"manifests": {manifest: func() ([]byte, error) { return nil, os.ErrDeadlineExceeded }},
		"counters":  {counters: func(*api.Counters) error { return cloudpal.Timeout }},
	} {
		l.Source, l.receipt = w.client, w.receipt
		if _, err := Run(t.Context(), Config{Mint: l, Trust: w.trust, Now: w.now()}); err == nil {
			t.Errorf("%s: it has a report", name)
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Run(gone, Config{Mint: w.client, Trust: w.trust, Now: w.now()}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// What proves that a deposit was counted proves that, and of no other deposit: whoever
// has the counters and the receipt key can check it.
func TestCounted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var own Own
	for range 3 {
		a, _ := w.buy()
		own.Receipts = append(own.Receipts, w.deposit(a, 0))
	}
	swapped, _ := w.buy()
	w.swap(swapped)
	w.add(27 * time.Hour)
	r := w.audit(Config{Own: own})
	if len(r.Findings) > 0 || len(r.Counted) != len(own.Receipts) {
		t.Fatalf("got %+v", r)
	}
	text, err := json.Marshal(r)
	w.must(err)
	var shown struct {
		Counted  []Counted
		Evidence map[string]api.Counters
	}
	if err := json.Unmarshal(text, &shown); err != nil {
		t.Fatal(err)
	}
	counters := shown.Evidence["counters-82"]
	w.must(counters.Verify(w.receipt.Public().(ed25519.PublicKey)))
	for i, c := range shown.Counted {
		w.must(c.Verify(counters))
		if !bytes.Equal(c.Receipt.Serial, own.Receipts[i].Serial) || c.Size != 3 {
			t.Errorf("receipt %d is proved as %+v", i, c)
		}
		for name, change := range map[string]func(*Counted){
			"another amount": func(c *Counted) { c.Receipt.Amount = 256 },
			"another center": func(c *Counted) { c.Receipt.Center = make([]byte, 32) },
			"another hour":   func(c *Counted) { c.Receipt.Credited = c.Receipt.Credited.Add(time.Hour) },
			"another key":    func(c *Counted) { c.Receipt.Key = make([]byte, 32) },
			"another epoch":  func(c *Counted) { c.Epoch++ },
			"another place":  func(c *Counted) { c.Index = (c.Index + 1) % c.Size },
			"another size":   func(c *Counted) { c.Size = 1 },
			"a shorter path": func(c *Counted) { c.Path = c.Path[1:] },
			"something else": func(c *Counted) { c.Path = append([][]byte{make([]byte, 32)}, c.Path[1:]...) },
		} {
			bad := c
			change(&bad)
			if err := bad.Verify(counters); !errors.Is(err, cloudpal.Denied) {
				t.Errorf("%s: got %v", name, err)
			}
		}
	}
}

// Each of any number of deposits can be proved.
func TestProve(t *testing.T) {
	t.Parallel()
	var leaves [][32]byte
	for n := range 40 {
		r := api.Receipt{Serial: []byte{byte(n)}, Key: []byte{7}, Credited: time.Unix(3600, 0)}
		leaves = append(leaves, r.Leaf())
		root := api.Root(leaves)
		counters := api.Counters{Epoch: 82, Keys: []api.KeyCounter{{Key: []byte{7}, Hours: []api.Hour{{Hour: 1, Deposits: root[:]}}}}}
		for i := range leaves {
			r.Serial = []byte{byte(i)}
			c, ok := prove(r, 82, leaves)
			if !ok || c.Verify(counters) != nil {
				t.Errorf("of %d, %d is not proved", n+1, i)
			}
		}
		r.Serial = []byte{99}
		if _, ok := prove(r, 82, leaves); ok {
			t.Error("what is not there is proved")
		}
	}
}
