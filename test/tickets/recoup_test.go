package tickets

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/center/till"
	mintapi "github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/mint/payment"
	"github.com/tradle/cloudpal/person/wallet"
	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/manifest"
)

// key is one of this month's.
func (w *world) key(c ticket.Class, d ticket.Denomination) *ticket.Key {
	w.Helper()
	m, _, err := shown{w.log, w}.Epoch(w.Context(), ticket.EpochAt(w.Now()))
	w.must(err)
	k, err := m.Key(c, d)
	w.must(err)
	return k
}

// revokes has the mint revoke a key, which somebody stole.
func (w *world) revokes(k *ticket.Key) {
	w.Helper()
	entry, err := manifest.Revocation{Issuer: issuer, Epoch: k.Epoch, Key: k.ID(), Reason: "it was stolen"}.Sign(w.root)
	w.must(err)
	w.must(w.log.Publish(w.Context(), entry, nil))
	w.Add(4 * 24 * time.Hour) // by then every wallet looks at the log again
	w.reads(entry)
}

// reads returns when the mint has read an entry of its log. It does that when it is asked
// for a key that it does not know, though not twice within a second.
func (w *world) reads(entry manifest.Entry) {
	w.Helper()
	tick, end := time.NewTicker(50*time.Millisecond), time.After(time.Minute)
	defer tick.Stop()
	c := w.client()
	for unknown := (ticket.Output{Blinded: [ticket.BlindSize]byte{1}}); ; {
		_, err := c.Restore(w.Context(), []ticket.Output{unknown})
		if !errors.Is(err, cloudpal.Invalid) {
			w.Fatalf("a key that there is not: %v", err)
		}
		raw, err := c.Manifest(w.Context(), ticket.EpochAt(w.Now()))
		if err == nil {
			b, err := manifest.ParseBundle(raw)
			w.must(err)
			if slices.Contains(b.Entries, entry) {
				return
			}
		} else if !errors.Is(err, cloudpal.NotExist) {
			w.Fatal(err)
		}
		select {
		case <-tick.C:
		case <-end:
			w.Fatal("the mint does not read its log")
		}
	}
}

// A purse has tickets, and what they were made of.
type purse struct {
	*world
	seed ticket.Seed
	n    uint64
}

func (p *purse) secrets(k *ticket.Key, n int) (secrets []ticket.Secret, outputs []ticket.Output) {
	p.Helper()
	for range n {
		p.n++
		s, err := ticket.Derive(p.seed, "test", issuer, k, p.n)
		p.must(err)
		secrets, outputs = append(secrets, s), append(outputs, s.Output())
	}
	return secrets, outputs
}

// buys buys a pack of days, and returns the tickets and their seeds.
func (p *purse) buys(k *ticket.Key) (tickets []ticket.Ticket, seeds [][]byte) {
	p.Helper()
	codes, err := p.vouchers.Make(p.Context(), "test", payment.Amount{Minor: 300, Currency: "EUR"}, 1)
	p.must(err)
	public, lock, err := ed25519.GenerateKey(rand.Reader)
	p.must(err)
	c := p.client()
	q, err := c.Quote(p.Context(), mintapi.QuoteRequest{Method: "voucher", Pack: "days", Lock: public})
	p.must(err)
	_, err = c.Pay(p.Context(), q.ID, codes[0].Print())
	p.must(err)
	secrets, outputs := p.secrets(k, len(q.Tickets))
	signatures, err := c.Issue(p.Context(), q.ID, outputs, lock)
	p.must(err)
	for i, s := range secrets {
		t, err := s.Finish(signatures[i])
		p.must(err)
		seed := s.BlindSeed()
		tickets, seeds = append(tickets, t), append(seeds, seed[:])
	}
	return tickets, seeds
}

// A ticket of a key that was revoked is taken from who had it signed, once and for one
// purpose; from who stole the key, nothing is.
func TestRecoup(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	stolen, good := w.key(ticket.Paid, 64), w.key(ticket.Paid, 16)
	p := &purse{world: w, seed: ticket.Seed{1}}
	have, seeds := p.buys(stolen)
	_, outputs := p.secrets(good, 4)
	_, others := p.secrets(good, 4)
	c, ctx := w.client(), t.Context()
	recoup := func(t ticket.Ticket, seed []byte, into []ticket.Output) ([][]byte, error) {
		spend := t.Sign(ticket.SwapContract{Outputs: ticket.OutputsDigest(into)})
		return c.Recoup(ctx, []ticket.Spend{spend}, [][]byte{seed}, into)
	}
	if _, err := recoup(have[0], seeds[0], outputs); !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("of a good key, with a seed: %v", err)
	}
	w.revokes(stolen)
	spend := have[0].Sign(ticket.SwapContract{Outputs: ticket.OutputsDigest(outputs)})
	if _, err := c.Swap(ctx, []ticket.Spend{spend}, outputs); !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("without a seed: %v", err)
	}
	// The thief makes tickets that verify, with seeds of their own or of others' tickets.
	thief := &purse{world: w, seed: ticket.Seed{2}}
	secret, blind := thief.secrets(stolen, 1)
	signed, err := w.press.Sign(ctx, stolen.ID(), [][]byte{blind[0].Blinded[:]})
	w.must(err)
	forged, err := secret[0].Finish(signed[0])
	w.must(err)
	own := secret[0].BlindSeed()
	for what, seed := range map[string][]byte{"their own": own[:], "another's": seeds[0], "one of zeros": make([]byte, 32)} {
		if _, err := recoup(forged, seed, outputs); !errors.Is(err, cloudpal.Denied) {
			t.Errorf("a forged ticket with the seed %s: %v", what, err)
		}
	}
	if _, err := recoup(have[0], seeds[1], outputs); !errors.Is(err, cloudpal.Denied) {
		t.Errorf("with another ticket's seed: %v", err)
	}
	if _, err := recoup(have[0], seeds[0][:31], outputs); !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("with a seed that is too short: %v", err)
	}
	first, err := recoup(have[0], seeds[0], outputs)
	w.must(err)
	again, err := recoup(have[0], seeds[0], outputs)
	if err != nil || !slices.EqualFunc(first, again, bytes.Equal) {
		t.Errorf("asked again, it answers something else (%v)", err)
	}
	var spent *mintapi.Spent
	if _, err := recoup(have[0], seeds[0], others); !errors.As(err, &spent) {
		t.Errorf("for other outputs, too: %v", err)
	}
}

// deaf asks the mint, and does not hear what it answers.
type deaf struct{ *mintapi.Client }

func (d deaf) Recoup(ctx context.Context, inputs []ticket.Spend, seeds [][]byte, outputs []ticket.Output) ([][]byte, error) {
	if _, err := d.Client.Recoup(ctx, inputs, seeds, outputs); err != nil {
		return nil, err
	}
	return nil, cloudpal.Missing
}

func (d deaf) Swap(ctx context.Context, inputs []ticket.Spend, outputs []ticket.Output) ([][]byte, error) {
	if _, err := d.Client.Swap(ctx, inputs, outputs); err != nil {
		return nil, err
	}
	return nil, cloudpal.Missing
}

// hearsNothing is the person's wallet, which hears nothing of what the mint changes.
func (p *person) hearsNothing() *wallet.Wallet {
	p.Helper()
	config := p.config
	config.Connect = func() (wallet.Mint, error) { return deaf{p.client()}, nil }
	w, err := wallet.Open(config)
	p.must(err)
	p.Cleanup(func() { w.Close() })
	return w
}

// A wallet has tickets of a key that was revoked changed by itself, and pays with what they
// became; those that wait at a center come back.
func TestWalletRecoups(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, p := w.centerWith(till.Terms{Tariff: api.Tariff{Core: 16}, Slice: 16}), w.person()
	p.buys()
	desk := counter{c, p.account}
	tab, err := p.Fund(t.Context(), p.stay(desk), 0) // changes a day for slices
	w.must(err)
	if tab.Paid != 16 || p.has() != 3*64-16 {
		t.Fatalf("paid is %d, and the wallet has %d", tab.Paid, p.has())
	}
	w.revokes(w.key(ticket.Paid, 64))
	_, err = p.Receipt(t.Context(), ticket.EpochAt(w.Now())) // looks at the log again
	w.must(err)
	b, err := p.Balance()
	w.must(err)
	if b.Revoked != 2*64 || b.Paid != 48 {
		t.Errorf("with a key revoked the balance is %+v", b)
	}
	// The first time, the answers get lost.
	if err := p.hearsNothing().Resume(t.Context()); !errors.Is(err, cloudpal.Missing) {
		t.Errorf("without an answer: %v", err)
	}
	if b, err = p.Balance(); err != nil || b.Revoked != 0 || b.Moving != 2*64 {
		t.Errorf("without an answer the balance is %+v (%v)", b, err)
	}
	w.must(p.Resume(t.Context()))
	if b, err = p.Balance(); err != nil || b.Revoked != 0 || b.Paid != 3*64-16 || b.Moving != 0 {
		t.Errorf("changed, the balance is %+v (%v)", b, err)
	}
	c.count(p, 0)
	tab, err = p.Fund(t.Context(), p.stay(desk), 6*24*time.Hour)
	if err != nil || tab.Ahead != 5*16 {
		t.Errorf("what the tickets became pays: %+v (%v)", tab, err)
	}
	w.must(p.Resume(t.Context())) // has nothing to do
	if got := p.has(); got != 3*64-6*16 {
		t.Errorf("the wallet has %d", got)
	}
}

// recoups has the wallet hear that the key for a denomination was revoked. It must then
// have as many units as before, and none in such tickets.
func (p *person) recoups(d ticket.Denomination, units ticket.Units) {
	p.Helper()
	_, err := p.Receipt(p.Context(), ticket.EpochAt(p.Now())) // looks at the log again
	p.must(err)
	p.must(p.Resume(p.Context()))
	b, err := p.Balance()
	if err != nil || b.Paid != units || b.Revoked+b.Moving != 0 {
		p.Errorf("the balance is %+v (%v)", b, err)
	}
	for _, h := range b.Holdings {
		if h.Denomination == d {
			p.Errorf("it holds %+v, whose key is revoked", h)
		}
	}
}

// What was fixed before a key was revoked is signed with it all the same, and changed
// then: change of a payment, and what is restored from the phrase.
func TestRevokedKeyOfChangeAndRestore(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, p := w.center(), w.person()
	p.buys()
	desk := counter{c, p.account}
	_, err := p.Fund(t.Context(), p.stay(desk), 0)
	w.must(err)
	w.revokes(w.key(ticket.Paid, 16))
	if _, err := p.Fund(t.Context(), p.stay(desk), 2*24*time.Hour); err != nil {
		t.Errorf("another payment, whose change may be of a revoked key: %v", err)
	}
	if back, err := p.Leave(t.Context(), p.stay(desk)); err != nil || back != 2*64-1 {
		t.Errorf("%d came back (%v)", back, err)
	}
	p.recoups(16, 3*64-1)

	w.revokes(w.key(ticket.Paid, 64))
	config := p.config
	config.Dir = t.TempDir() + "/wallet"
	again, err := wallet.Create(config, w.trust, 0)
	w.must(err)
	defer again.Close()
	_, err = again.Restore(t.Context(), nil, nil)
	w.must(err)
	w.must(again.Resume(t.Context()))
	if b, err := again.Balance(); err != nil || b.Paid != 3*64-1 || b.Revoked != 0 {
		t.Errorf("restored, the balance is %+v (%v)", b, err)
	}
}

// What a wallet swapped for, and did not hear of before the key of that was revoked, the
// mint still tells, and changes.
func TestRevokedKeyOfALostAnswer(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, p := w.centerWith(till.Terms{Tariff: api.Tariff{Core: 16}, Slice: 16}), w.person()
	p.buys()
	desk := counter{c, p.account}
	if _, err := p.hearsNothing().Fund(t.Context(), p.stay(desk), 0); !errors.Is(err, cloudpal.Missing) {
		t.Fatalf("change for a slice, without an answer: %v", err)
	}
	if b, err := p.Balance(); err != nil || b.Moving != 64 {
		t.Fatalf("without an answer the balance is %+v (%v)", b, err)
	}
	w.revokes(w.key(ticket.Paid, 16))
	p.recoups(16, 3*64)
}

// A wallet that has not heard of a revocation hears of it when a center refuses a ticket:
// that comes back as others, which cannot pay there before next month's keys.
func TestRefusedTicketComesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, p := w.center(), w.person()
	p.buys()
	desk := counter{c, p.account}
	w.revokes(w.key(ticket.Paid, 64))
	c.Chores(t.Context())
	if _, err := p.Fund(t.Context(), p.stay(desk), 0); !errors.Is(err, cloudpal.Denied) {
		t.Fatalf("a ticket whose key is revoked: %v", err)
	}
	if _, err := p.Fund(t.Context(), p.stay(desk), 0); !errors.Is(err, cloudpal.Busy) || cloudpal.HintOf(err) == "" {
		t.Errorf("with no key for a slice: %v, hint %q", err, cloudpal.HintOf(err))
	}
	w.must(p.Resume(t.Context()))
	if b, err := p.Balance(); err != nil || b.Paid != 3*64 || b.Revoked+b.Moving != 0 {
		t.Errorf("the balance is %+v (%v)", b, err)
	}
	w.Add(20 * 24 * time.Hour) // another month
	w.reads(w.publish(ticket.EpochAt(w.Now())))
	c.Chores(t.Context())
	if tab, err := p.Fund(t.Context(), p.stay(desk), 0); err != nil || tab.Paid != 64 {
		t.Errorf("a month later: %+v (%v)", tab, err)
	}
}
