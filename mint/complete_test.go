package mint

import (
	"errors"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/mint/books"
	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/ledger"
)

// restart does what a mint does first when it starts.
func (h *house) restart() {
	h.Helper()
	m, err := New(h.Config)
	h.must(err)
	h.must(m.chores(h.Context()))
}

// balance returns that of an account, 0 where there is none.
func (h *house) balance(unit, name string) int64 {
	h.Helper()
	list, err := h.Books.Accounts(h.Context())
	h.must(err)
	for _, a := range list {
		if a.Unit == unit && a.Name == name {
			return a.Balance
		}
	}
	return 0
}

// What is in the ledger and not in the books is completed at the next start, though
// nobody asks for it: payments of both classes, and half of a swap. Damaged rows, and
// those that do not say their key, keep nobody else's from it.
func testBehind(t *testing.T, e engine) {
	h := newHouse(t, e)
	ann, c, ctx := h.person("ann"), h.till("center"), t.Context()
	h.must(h.chores(ctx))
	tickets := append(ann.buy("mixed"), ann.buy("day")...)
	var owed ticket.Units
	for _, one := range tickets[:3] {
		s := ann.pay(c, ann.lock(), one)
		h.must(h.spend(ctx, input{s.spend, h.keyOf(one)}, s.contract))
		owed += ticket.Units(h.keyOf(one).Denomination)
	}
	done := ann.pay(c, ann.lock(), tickets[3])
	_, err := c.Deposit(ctx, done.contract, done.spend)
	h.must(err)
	owed += 64
	to := ann.hand(ticket.Paid, 82, 64)
	swap := ticket.SwapContract{Outputs: to.digest()}
	h.must(h.spend(ctx, input{tickets[4].Sign(swap), h.keyOf(tickets[4])}, swap))

	old := ann.pay(c, ann.lock(), ann.buy("day")[0])
	keyless := api.Evidence{Contract: old.contract, Spend: old.spend}
	keyless.Spend.Token.Key = ticket.KeyID{}
	for n, evidence := range [][]byte{{9}, nil, keyless.Append(nil), (api.Evidence{Contract: swap, Spend: tickets[0].Sign(swap)}).Append(nil)} {
		_, err := h.Ledger.Spend(ctx, 82, []ledger.Row{{Serial: ledger.Serial{byte(n), 1}, Evidence: evidence}})
		h.must(err)
	}

	for range 2 {
		h.restart()
		a, err := c.Account(ctx, 0)
		if h.must(err); a.Balance != owed || len(a.Deposits) != 4 {
			t.Errorf("the center is owed %d for %d deposits, want %d for 4", a.Balance, len(a.Deposits), owed)
		}
		if got := h.balance("paid", "swapped"); got != 64 {
			t.Errorf("%d units came back and are not changed yet, want 64", got)
		}
		h.check()
	}
	signed, err := h.client.Swap(ctx, []ticket.Spend{tickets[4].Sign(swap)}, to.outputs)
	h.must(err)
	ann.finish(to, signed)
	if got := h.balance("paid", "swapped"); got != 0 {
		t.Errorf("once they are, %d units are left", got)
	}
	h.check()
}

// An epoch that is over is not dropped before its books are complete and counted.
func testLast(t *testing.T, e engine) {
	p := newParts(t, e)
	p.epochs = shelf{82, 83}
	h := p.open(t)
	ann, c, ctx := h.person("ann"), h.till("center"), t.Context()
	h.must(h.chores(ctx))
	one := ann.buy("day")[0]
	s := ann.pay(c, ann.lock(), one)
	h.must(h.spend(ctx, input{s.spend, h.keyOf(one)}, s.contract))

	h.set(ticket.Epoch(82).SwapEnds())
	h.must(h.chores(ctx))
	if a, err := c.Account(ctx, 0); err != nil || a.Balance != 64 {
		t.Errorf("the center is owed %d (%v), want 64", a.Balance, err)
	}
	if _, err := h.Books.Final(ctx, 82); !errors.Is(err, cloudpal.NotExist) {
		t.Errorf("the counters are final before the last hour is in them: %v", err)
	}
	h.add(time.Hour + closeAfter + spentAfter)
	h.must(h.chores(ctx))
	last, err := h.Counters(ctx, 82)
	h.must(err)
	id := h.key(ticket.Paid, 64, 82).ID()
	i := slices.IndexFunc(last.Keys, func(k api.KeyCounter) bool { return ticket.KeyID(k.Key) == id })
	if k := last.Keys[i]; k.Redeemed != 1 || len(k.Hours) != 2 || len(k.Hours[1].Spent) == 0 {
		t.Errorf("the last counters are %+v", k)
	}
	if _, err := h.Ledger.Look(ctx, 82, nil); !errors.Is(err, cloudpal.Exhausted) {
		t.Errorf("the epoch is not dropped: %v", err)
	}
	if lost := h.balance("paid", "breakage"); lost != 0 {
		t.Errorf("%d units were written off that the center is owed", lost)
	}
	h.restart() // of what is dropped nothing is left to complete
	h.check()
}

// killed reports whether a process that has ended was.
func killed(cmd *exec.Cmd) bool { return cmd.ProcessState.ExitCode() == -1 }

// A mint that is killed between its ledger and its books credits the center when it
// starts again, though the center does not repeat its deposit.
func testKilledBetween(t *testing.T, e engine) {
	c := &child{Place: e(t), Ledger: t.TempDir(), Keys: t.TempDir(), Listen: "127.0.0.1:0"}
	if err := thePress.save(c.Keys, 82); err != nil {
		t.Fatal(err)
	}
	cmd := c.start(t)
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	client := c.dial(t)
	all := &users{TB: t, client: client, holds: map[ticket.Serial]ticket.Ticket{}, owed: map[ticket.CenterID]ticket.Units{}}
	w := &walker{users: all, seed: ticket.Seed{1}}
	for len(w.have) < 2 {
		w.buyPack(packs[0])
	}
	pays, swaps := w.have[0], w.have[1]
	key := tlsKey()
	till := &till{client.As(key, func() time.Time { return start }), key}
	blank := w.hand(ticket.Blank(64)...)
	contract := ticket.PayContract{Center: till.id(), Amount: 64, NotBefore: start, Blank: blank.digest()}
	to := w.hand(64)
	swap := ticket.SwapContract{Outputs: to.digest()}

	for what, ask := range map[string]func() error{
		"deposit": func() error { _, err := till.Deposit(t.Context(), contract, pays.Sign(contract)); return err },
		"swap": func() error {
			_, err := client.Swap(t.Context(), []ticket.Spend{swaps.Sign(swap)}, to.outputs)
			return err
		},
	} {
		cmd.Process.Kill()
		cmd.Wait()
		c.Dies = true
		cmd = c.start(t)
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		for alive := true; alive; { // a connection of the one before may still be tried
			if err := ask(); err == nil {
				t.Fatalf("the mint answered a %s that it was killed in", what)
			}
			select {
			case <-ended:
				alive = false
			default:
			}
		}
		if !killed(cmd) {
			t.Fatalf("in a %s the mint ended by itself: %v", what, cmd.ProcessState)
		}
		c.Dies = false
		cmd = c.start(t)
	}
	b, err := books.Open(t.Context(), c.Place)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	giveUp := time.Now().Add(3 * time.Minute)
	for completed := 0; completed < 2; {
		if time.Now().After(giveUp) {
			t.Fatal("the mint does not complete its books")
		}
		list, err := b.Accounts(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		completed = 0
		for _, a := range list {
			if a.Balance == 64 && (a.Name == "swapped" || strings.HasPrefix(a.Name, "payable/")) {
				completed++
			}
		}
	}
	if a, err := till.Account(t.Context(), 0); err != nil || a.Balance != 64 || len(a.Deposits) != 1 {
		t.Errorf("the account is %+v (%v)", a, err)
	}
	signed, err := client.Swap(t.Context(), []ticket.Spend{swaps.Sign(swap)}, to.outputs)
	if err != nil {
		t.Fatal(err)
	}
	w.take(to, signed)
	w.forget(pays)
	w.forget(swaps)
	all.owed[till.id()] = 64
	cmd.Process.Kill()
	cmd.Wait()
	all.count(c)
}
