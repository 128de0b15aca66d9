package wallet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	center "github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/manifest"
)

// The tests of this file kill a process that uses two wallets, again and again, at
// instants that nobody chose: the mint and the center live on in another. At the end
// no unit is lost, and none is there twice.

const (
	childSeed = "CLOUDPAL_TEST_WALLET_SEED" // the child is to draw what it does by
	childDir  = "CLOUDPAL_TEST_WALLET_DIR"
	childShop = "CLOUDPAL_TEST_WALLET_SHOP"
	childDie  = "CLOUDPAL_TEST_WALLET_DIE" // at which question to the mint it kills itself; negative: before it
)

func TestMain(m *testing.M) {
	if seed, ok := os.LookupEnv(childSeed); ok {
		n, _ := strconv.ParseUint(seed, 10, 64)
		die, _ := strconv.Atoi(os.Getenv(childDie))
		fmt.Fprintln(os.Stderr, beBusy(n, os.Getenv(childDir), os.Getenv(childShop), die))
		os.Exit(3)
	}
	os.Exit(m.Run())
}

// A mortal kills its process at a question.
type mortal struct {
	asker
	at *int
}

// ask counts down to the question at which the process dies: before it, or after its
// answer.
func (m mortal) ask() (answered func()) {
	switch {
	case *m.at < 0:
		if *m.at++; *m.at == 0 {
			die()
		}
	case *m.at > 0:
		if *m.at--; *m.at == 0 {
			return die
		}
	}
	return func() {}
}

func die() {
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

func (m mortal) Swap(ctx context.Context, inputs []ticket.Spend, outputs []ticket.Output) ([][]byte, error) {
	defer m.ask()()
	return m.asker.Swap(ctx, inputs, outputs)
}

func (m mortal) Refund(ctx context.Context, r api.RefundRequest) ([][]byte, error) {
	defer m.ask()()
	return m.asker.Refund(ctx, r)
}

func (m mortal) Pay(ctx context.Context, quote, voucher string) (api.Quote, error) {
	defer m.ask()()
	return m.asker.Pay(ctx, quote, voucher)
}

func (m mortal) Quote(ctx context.Context, r api.QuoteRequest) (api.Quote, error) {
	defer m.ask()()
	return m.asker.Quote(ctx, r)
}

// beBusy does this and that with the wallets in a directory, until it is killed.
func beBusy(seed uint64, dir, shopURL string, dieAt int) error {
	r := rand.New(rand.NewPCG(seed, 1))
	trust, err := manifest.Load(filepath.Join(dir, "mint.json"))
	if err != nil {
		return err
	}
	var wallets []*Wallet
	for _, name := range []string{"ann", "bob"} {
		w, err := Open(Config{Dir: filepath.Join(dir, name), Seed: seedOf(name), Connect: func() (Mint, error) {
			m, err := api.Dial(trust.URL, nil)
			return mortal{m, &dieAt}, err
		}})
		if err != nil {
			return err
		}
		wallets = append(wallets, w)
	}
	fmt.Println("ready")
	ctx := context.Background()
	shop := remoteShop(shopURL)
	for i := 0; ; i++ {
		a, b := wallets[r.IntN(2)], wallets[r.IntN(2)]
		if err := something(ctx, r, a, b, shop, fmt.Sprint(seed, " ", i)); err != nil && !expected(err) {
			return err
		}
	}
}

// expected reports whether an error is one of a person that has not enough, asks the mint
// for too much at once, or does
// a thing twice.
func expected(err error) bool {
	return errors.Is(err, cloudpal.Exhausted) || errors.Is(err, cloudpal.Exist) || errors.Is(err, cloudpal.NotExist) || errors.Is(err, cloudpal.Busy)
}

func something(ctx context.Context, r *rand.Rand, a, b *Wallet, shop remoteShop, name string) error {
	pal := public(keyOf(fmt.Sprint("pal ", r.IntN(40), a.dir)))
	id := center.TabID(public(palKey(pal)))
	switch r.IntN(16) {
	case 0: // the mint lets nobody buy often
		_, err := a.Buy(ctx, Order{Pack: packs[r.IntN(2)].Name, Method: "code", Voucher: "code " + name})
		return err
	case 1, 2, 3, 4:
		_, text, err := a.Send(ctx, ticket.Paid, ticket.Units(1+r.IntN(40)))
		if err == nil {
			_, err = b.Receive(ctx, text, nil)
		}
		return err
	case 5, 6:
		s, err := a.look()
		if err != nil {
			return err
		}
		for n := range s.gifts {
			_, err = a.TakeBack(ctx, n)
		}
		return err
	case 7, 8, 9, 10:
		if _, err := a.OpenTab(ctx, shop, center.TabRequest{ID: id, WireGuard: pal}, ""); err != nil {
			return err
		}
		_, err := a.Pay(ctx, shop, id, ticket.Paid, time.Now().Truncate(time.Second).Add(time.Duration(r.IntN(2))*time.Hour))
		return err
	case 11:
		_, err := a.CloseTab(ctx, shop, id)
		return err
	}
	return a.Resume(ctx)
}

// remoteShop is a shop in another process.
type remoteShop string

type shopCall struct {
	Do  string
	ID  center.TabID
	Tab center.TabRequest
	Pay center.PayRequest
}

type shopAnswer struct {
	Signed center.Signed
	Tab    center.Tab
	Kind   cloudpal.Kind
}

func (s remoteShop) call(ctx context.Context, c shopCall) (a shopAnswer, err error) {
	body, _ := json.Marshal(c)
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, string(s), bytes.NewReader(body))
	if err != nil {
		return a, err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return a, cloudpal.E("ask the shop", cloudpal.Other, err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&a); err != nil {
		return a, cloudpal.E("ask the shop", cloudpal.Other, err)
	}
	if a.Kind != "" {
		return a, cloudpal.E("ask the shop to "+c.Do, a.Kind, nil)
	}
	return a, nil
}

func (s remoteShop) Offer(ctx context.Context) (center.Signed, error) {
	a, err := s.call(ctx, shopCall{Do: "offer"})
	return a.Signed, err
}

func (s remoteShop) OpenTab(ctx context.Context, r center.TabRequest) (center.Tab, error) {
	a, err := s.call(ctx, shopCall{Do: "open", Tab: r})
	return a.Tab, err
}

func (s remoteShop) Pay(ctx context.Context, id center.TabID, r center.PayRequest) (center.Signed, error) {
	a, err := s.call(ctx, shopCall{Do: "pay", ID: id, Pay: r})
	return a.Signed, err
}

func (s remoteShop) CloseTab(ctx context.Context, id center.TabID) (center.Signed, error) {
	a, err := s.call(ctx, shopCall{Do: "close", ID: id})
	return a.Signed, err
}

// ServeHTTP answers a remoteShop. What is paid is used in part.
func (s *shop) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var c shopCall
	var a shopAnswer
	err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&c)
	ctx := context.WithoutCancel(r.Context())
	// A ticket is paid and used in one: else who was killed and closes the tab
	// would meet one that is deposited and not used at all.
	s.turn.Lock()
	defer s.turn.Unlock()
	if err == nil {
		switch c.Do {
		case "offer":
			a.Signed, err = s.Offer(ctx)
		case "open":
			a.Tab, err = s.OpenTab(ctx, c.Tab)
		case "pay":
			if a.Signed, err = s.Pay(ctx, c.ID, c.Pay); err == nil && c.Pay.NotBefore <= s.Now().Unix() {
				s.useUpTo(c.ID, 3)
			}
		case "close":
			a.Signed, err = s.CloseTab(ctx, c.ID)
		}
	}
	if err != nil {
		a.Kind = cloudpal.KindOf(err)
	}
	json.NewEncoder(w).Encode(a)
}

// useUpTo has a tab use more, and something of every ticket that was deposited: a
// ticket that is not used at all does not come back as change.
func (s *shop) useUpTo(id center.TabID, more ticket.Units) {
	s.mu.Lock()
	t := s.tabs[id]
	open := t.closed == nil
	var paid ticket.Units
	for i, p := range t.paid {
		if t.taken[i] {
			paid += ticket.Units(p.Amount)
		}
	}
	used := t.used
	s.mu.Unlock()
	if want := paid - ticket.Units(s.slice) + more; open && want > used && want <= paid {
		s.use(id, want-used)
	}
}

func TestKilledAtAnyInstant(t *testing.T) {
	t.Parallel()
	kills := 60
	if testing.Short() {
		kills = 12
	}
	h := openHouse(t, nil)
	dc := h.shop("center", 16)
	served := httptest.NewServer(dc)
	t.Cleanup(served.Close)
	dir := t.TempDir()
	raw, err := h.trust.Marshal()
	h.must(err)
	h.must(os.WriteFile(filepath.Join(dir, "mint.json"), raw, 0o600))
	for _, name := range []string{"ann", "bob"} {
		w, err := Create(Config{Dir: filepath.Join(dir, name), Seed: seedOf(name), Connect: h.dial}, h.trust, FirstDevice)
		h.must(err)
		h.must(w.Close())
	}
	r := rand.New(rand.NewPCG(7, 7))
	for seed := range uint64(kills) {
		dieAt := 0
		if seed%3 == 0 {
			dieAt = 1 + r.IntN(12)
			if r.IntN(2) == 0 {
				dieAt = -dieAt
			}
		}
		runUntilKilled(t, seed, dir, served.URL, dieAt, time.Duration(r.Int64N(int64(400*time.Millisecond))))
	}
	h.settleAll(t, dir, dc, remoteShop(served.URL))
}

// runUntilKilled starts a child and kills it so long after it is ready, if it does not
// do it itself.
func runUntilKilled(t *testing.T, seed uint64, dir, shopURL string, dieAt int, after time.Duration) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^$")
	cmd.Env = append(os.Environ(), childSeed+"="+strconv.FormatUint(seed, 10), childDir+"="+dir, childShop+"="+shopURL, childDie+"="+strconv.Itoa(dieAt))
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 16)); err != nil {
		cmd.Wait()
		t.Fatalf("child %d is not ready: %s", seed, errs.String())
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if dieAt != 0 {
		after = time.Minute
	}
	select {
	case err = <-ended:
	case <-time.After(after):
		cmd.Process.Kill()
		err = <-ended
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("child %d ended by itself: %v: %s", seed, err, errs.String())
	}
}

// settleAll ends all that was begun, and counts.
func (h *house) settleAll(t *testing.T, dir string, dc *shop, at remoteShop) {
	t.Helper()
	var have ticket.Units
	seen := map[ticket.Serial]bool{}
	for _, name := range []string{"ann", "bob"} {
		w, err := Open(Config{Dir: filepath.Join(dir, name), Seed: seedOf(name), Connect: h.dial})
		h.must(err)
		defer w.Close()
		err = w.Resume(t.Context())
		// So many quotes at once, and what the other took back: that is told once.
		for errors.Is(err, cloudpal.Busy) || errors.Is(err, cloudpal.Exist) {
			h.must(SystemClock{}.Wait(t.Context(), time.Second))
			err = w.Resume(t.Context())
		}
		h.must(err)
		s := mustLook(t, w)
		for n, p := range s.payments {
			if p.Taken == nil && !p.Ended {
				if _, err := w.Deliver(t.Context(), at, n); err != nil && !errors.Is(err, cloudpal.Denied) {
					t.Fatal(err)
				}
			}
		}
		for id := range s.tabs {
			// One that was noted when its opener was killed, the shop never heard of.
			if _, err := w.CloseTab(t.Context(), at, id); err != nil && !errors.Is(err, cloudpal.NotExist) {
				t.Errorf("close a tab: %v", err)
			}
		}
		for n := range s.gifts {
			_, err := w.TakeBack(t.Context(), n)
			h.must(err)
		}
		s = mustLook(t, w)
		if len(s.swaps) > 0 || len(s.losses) > 0 {
			t.Errorf("%s: %d swaps are not done, and %d tickets were lost", name, len(s.swaps), len(s.losses))
		}
		for _, p := range s.purchases {
			if !p.Done && p.Quote.State != api.Unpaid {
				t.Errorf("a purchase is %s and not done", p.Quote.State)
			}
		}
		for serial, c := range s.coins {
			if seen[serial] {
				t.Error("both have one ticket")
			}
			seen[serial] = true
			have += ticket.Units(c.Denomination)
		}
		h.spendable(t, w, s)
	}
	account, err := h.Account(t.Context(), dc.id(), 0)
	h.must(err)
	bought := h.sold()
	t.Logf("%d units were bought, %d are in the wallets, %d are the center's", bought, have, account.Balance)
	if bought == 0 || have+account.Balance != bought {
		t.Errorf("%d units were bought, %d are in the wallets and %d the center's", bought, have, account.Balance)
	}
}

// spendable has the mint swap every ticket of a wallet: each is worth what it says.
func (h *house) spendable(t *testing.T, w *Wallet, s *state) {
	t.Helper()
	for serial := range s.coins {
		if err := w.renew(t.Context(), serial); err != nil {
			t.Errorf("a ticket is worth nothing: %v", err)
		}
	}
}

// sold is what the mint was paid for.
func (h *house) sold() (units ticket.Units) {
	h.purse.mu.Lock()
	defer h.purse.mu.Unlock()
	for _, order := range h.purse.paid {
		q, err := h.Look(h.Context(), order)
		h.must(err)
		units += ticket.Sum(q.Tickets)
	}
	return units
}
