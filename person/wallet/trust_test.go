package wallet

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/manifest"
)

// other is a manifest of the epoch with other keys: what a mint would show to one
// person to know their tickets again. The public keys are those of another epoch.
func other(t *testing.T, e ticket.Epoch) *manifest.Manifest {
	t.Helper()
	var keys []*ticket.Key
	for _, k := range thePress.epoch(e + 1).Keys() {
		again, err := ticket.ParseKey(k.Class, k.Denomination, e, k.Public())
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, again)
	}
	receipt, _ := receiptKey(e)
	m, err := manifest.New(issuer, e, public(receipt), keys)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// A mint that shows one person other keys is refused, with a sentence that says so,
// and nothing is paid.
func TestSecondKeyIsRefused(t *testing.T) {
	t.Parallel()
	h := newHouse(t)

	// In its log there are two of one month.
	twice, trust := newShelf()
	twice.add(thePress.epoch(82))
	twice.add(other(t, 82))
	_, raw, err := twice.Epoch(t.Context(), 82)
	h.must(err)
	b, err := manifest.ParseBundle(raw)
	h.must(err)
	if _, err := trust.Verify(b, 82, "", h.Now()); err == nil {
		t.Error("two manifests of one month were accepted")
	}

	// Or there is one, of a log that is another than the one that was seen.
	h2 := newHouse(t)
	bob := h2.wallet("bob")
	bob.buy("day")
	forked, _ := newShelf()
	forked.root, forked.log = h2.shelf.root, h2.shelf.log
	forked.add(other(t, 82))
	h2.shelf = forked
	h2.reopen()
	h2.set(h2.Now().Add(80 * time.Hour)) // when it looks again
	_, err = bob.Buy(t.Context(), Order{Pack: "day", Method: "code", Voucher: h2.code()})
	if err == nil || !strings.Contains(err.Error(), "trust the mint's keys") || cloudpal.HintOf(err) == "" {
		t.Errorf("got %v (%s)", err, cloudpal.HintOf(err))
	}
	if got := bob.units(); got != 64 {
		t.Errorf("bob has %d units", got)
	}
}

// Keys that are not those that were logged are refused, and a root that is another.
func TestUnloggedKeysAreRefused(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	stranger, trust := newShelf() // another root, another log
	stranger.add(thePress.epoch(82))
	trust.URL = h.address
	w, err := Create(h.config(t.TempDir()+"/wallet", "ann", Now), trust, FirstDevice)
	h.must(err)
	defer w.Close()
	p, err := w.Buy(t.Context(), Order{Pack: "day", Method: "code", Voucher: h.code()})
	if err == nil || p.Done || cloudpal.HintOf(err) == "" {
		t.Errorf("got %+v, %v", p, err)
	}
	if got := w.all(); got != 0 {
		t.Errorf("it has %d units of a mint that it does not know", got)
	}
}

// A month ends: what is bought then is of the new keys, what is old is renewed, and
// what is too old is worth nothing.
func TestMonths(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ann := h.wallet("ann")
	ann.buy("day")
	h.shelf.add(thePress.epoch(83))
	h.reopen()
	h.set(ticket.Epoch(83).Begins().Add(time.Minute)) // near the boundary the mint is asked
	ann.buy("day")
	var epochs [84]int
	for _, c := range mustLook(t, ann.Wallet).coins {
		epochs[c.Epoch]++
	}
	if epochs[82] != 1 || epochs[83] != 1 {
		t.Errorf("epochs: %v", epochs[80:])
	}
	h.shelf.add(thePress.epoch(84))
	h.shelf.add(thePress.epoch(85))
	h.shelf.add(thePress.epoch(86))
	h.set(ticket.Epoch(82).SpendEnds().Add(-24 * time.Hour))
	h.reopen()
	if n, err := ann.Renew(t.Context()); err != nil || n != 1 {
		t.Errorf("renewed %d, %v", n, err)
	}
	if got := ann.units(); got != 128 {
		t.Errorf("it has %d units", got)
	}
	h.set(ticket.Epoch(83).SwapEnds().Add(time.Hour))
	if got := ann.units(); got != 64 {
		t.Errorf("it has %d units, want those that are not too old: 64", got)
	}
	h.must(ann.Forget(t.Context()))
	if got := len(mustLook(t, ann.Wallet).coins); got != 1 {
		t.Errorf("it has %d tickets", got)
	}
}

// A swap that was begun in one month and is finished in the next: whether the mint
// heard of it or not, nothing is lost.
func TestSwapOverTheEndOfAMonth(t *testing.T) {
	t.Parallel()
	for name, before := range map[string]bool{"the mint did not hear": true, "the answer was lost": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHouse(t)
			h.shelf.add(thePress.epoch(83))
			ann := h.wallet("ann")
			ann.buy("day")
			h.lose(func(path string, b bool) bool { return path == "/v1/swap" && b == before })
			if _, _, err := ann.Send(t.Context(), ticket.Paid, 5); err == nil {
				t.Fatal("it worked")
			}
			h.lose(func(string, bool) bool { return false })
			h.set(ticket.Epoch(83).Begins().Add(24 * time.Hour))
			h.must(ann.Resume(t.Context()))
			if got := ann.units(); got != 64 {
				t.Errorf("it has %d units, want 64", got)
			}
		})
	}
}

// Calls and answers get lost, of every kind, again and again: all of it goes on.
func TestLossyNetwork(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ann, bob, dc := h.wallet("ann"), h.wallet("bob"), h.shop("center", 16)
	r := rand.New(rand.NewPCG(3, 4))
	h.lose(func(path string, before bool) bool {
		// The center's own business is another's.
		return !strings.HasPrefix(path, "/v1/deposits") && r.IntN(8) == 0
	})
	try := func(what string, f func() error) {
		t.Helper()
		for range 60 {
			err := f()
			if err == nil {
				return
			}
			if !passes(err) {
				t.Fatalf("%s: %v", what, err)
			}
		}
		t.Fatalf("%s does not end", what)
	}
	p, err := ann.Buy(t.Context(), Order{Pack: "week", Method: "code", Voucher: h.code()})
	for i := 0; err != nil || !p.Done; i++ {
		if i > 60 {
			t.Fatalf("the purchase does not end: %v", err)
		}
		b, _ := ann.Balance()
		if len(b.Purchases) == 0 {
			break
		}
		p, err = ann.GoOn(t.Context(), b.Purchases[0].N)
	}
	if got := ann.units(); got != 426 {
		t.Fatalf("bought %d units", got)
	}
	tab, _ := ann.tab(dc, "pal")
	try("pay", func() error { _, err := ann.Pay(t.Context(), dc, tab, ticket.Paid, h.Now()); return err })
	dc.use(tab, 5)
	try("close", func() error { _, err := ann.CloseTab(t.Context(), dc, tab); return err })
	var text string
	try("send", func() (err error) { _, text, err = ann.Send(t.Context(), ticket.Paid, 23); return err })
	try("receive", func() error { _, err := bob.Receive(t.Context(), text, nil); return err })
	try("resume", func() error { return errors.Join(ann.Resume(t.Context()), bob.Resume(t.Context())) })
	if a, b := ann.units(), bob.units(); a != 426-5-23 || b != 23 {
		t.Errorf("ann has %d units, and bob %d", a, b)
	}
	if h.sunken.Load() < 5 {
		t.Errorf("only %d calls were lost", h.sunken.Load())
	}
}

// A mint that lies about a ticket is not believed without a proof, and the ticket is
// kept.
func TestLyingMint(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ann := h.wallet("ann")
	ann.buy("day")
	ann.buy("day")
	var mine, theirs *coin
	for _, c := range mustLook(t, ann.Wallet).coins {
		mine, theirs = theirs, c
	}
	dial := ann.Wallet.connect
	lie := api.Evidence{}
	ann.Wallet.connect = func() (Mint, error) {
		m, err := dial()
		return liar{m, &lie}, err
	}
	tk, err := theirs.ticket()
	h.must(err)
	contract := ticket.SwapContract{Outputs: ticket.Digest{1}}
	for name, e := range map[string]api.Evidence{
		"about another": {Contract: contract, Spend: tk.Sign(contract)},
		"not signed":    {Contract: contract, Spend: ticket.Spend{Token: mine.token, Public: [32]byte(public(keyOf("x")))}},
	} {
		lie = e
		err := errors.Join(ann.renew(t.Context(), mine.serial()), ann.Resume(t.Context()))
		if !errors.Is(err, cloudpal.Denied) || !strings.Contains(err.Error(), "cannot prove") {
			t.Errorf("%s: got %v", name, err)
		}
		if got := ann.all(); got != 128 {
			t.Errorf("%s: the wallet has %d units", name, got)
		}
	}
	ann.Wallet.connect = dial
	h.must(ann.Resume(t.Context()))
	if got := ann.units(); got != 128 {
		t.Errorf("the wallet has %d units", got)
	}
}

// A ticket that was really spent, by whoever read it, is gone, and the proof is kept.
func TestStolenTicket(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ann := h.wallet("ann")
	for range 4 {
		ann.buy("day")
	}
	var stolen *coin
	for _, c := range mustLook(t, ann.Wallet).coins {
		stolen = c
	}
	eve := h.wallet("eve")
	_, err := eve.Receive(t.Context(), giftText(issuer, []coin{*stolen}), nil)
	h.must(err)
	// In a merge, too: the others are bound to it, and another takes the place.
	err = ann.make(t.Context(), ticket.Paid, []ticket.Denomination{256})
	mustBe(t, cloudpal.Exhausted, err)
	ann.buy("day")
	h.must(ann.Resume(t.Context()))
	b, err := ann.Balance()
	h.must(err)
	if b.Lost != 64 || ann.units() != 256 || b.Moving != 0 {
		t.Errorf("%d units are lost, %d there and %d moving", b.Lost, ann.units(), b.Moving)
	}
	for _, l := range mustLook(t, ann.Wallet).losses {
		e, err := api.ParseEvidence(l.Evidence)
		h.must(err)
		k, err := ann.key(t.Context(), stolen.Class, stolen.Denomination, stolen.Epoch)
		h.must(err)
		h.must(e.Proves(issuer, k, stolen.serial(), ticket.SwapContract{}))
	}
}

// A liar says that tickets are spent.
type liar struct {
	asker
	with *api.Evidence
}

func (l liar) Swap(context.Context, []ticket.Spend, []ticket.Output) ([][]byte, error) {
	return nil, cloudpal.E("swap tickets", cloudpal.Exist, &api.Spent{Evidence: *l.with})
}
