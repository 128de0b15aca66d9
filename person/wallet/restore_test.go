package wallet

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

// lost makes a wallet of a person who has lost theirs, and nothing but the phrase.
func (h *house) lost(name string) *own {
	h.Helper()
	w, err := Create(h.config(filepath.Join(h.TempDir(), "wallet"), name, Now), h.trust, 0)
	h.must(err)
	h.Cleanup(func() { w.Close() })
	return &own{w, h}
}

func (o *own) restore() {
	o.Helper()
	_, err := o.Restore(o.Context(), nil, nil)
	o.must(err)
}

// busy does with a wallet what a person does: all branches are used.
func busy(t *testing.T, h *house, ann *own) {
	for range 2 {
		ann.buy("week")
	}
	dc := h.shop("center", 16)
	tab, _ := ann.tab(dc, "pal of "+t.Name())
	for range 3 {
		_, err := ann.Pay(t.Context(), dc, tab, ticket.Paid, h.Now())
		h.must(err)
	}
	dc.use(tab, 35)
	_, err := ann.CloseTab(t.Context(), dc, tab) // 13 units of change
	h.must(err)
	_, text, err := ann.Send(t.Context(), ticket.Paid, 23)
	h.must(err)
	bob := h.wallet("bob")
	_, err = bob.Receive(t.Context(), text, nil)
	h.must(err)
	_, text, err = bob.Send(t.Context(), ticket.Paid, 6) // which has to be split
	h.must(err)
	_, err = ann.Receive(t.Context(), text, nil)
	h.must(err)
}

func TestRestoreFromPhrase(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ann := h.wallet("ann")
	busy(t, h, ann)
	want := ann.units()
	if want != 2*426-35-23+6 {
		t.Fatalf("ann has %d units", want)
	}
	again := h.lost("ann")
	if _, err := again.Buy(t.Context(), Order{Pack: "day", Method: "code", Voucher: h.code()}); !errors.Is(err, cloudpal.Missing) {
		t.Errorf("bought before it was known what other devices made: %v", err)
	}
	again.restore()
	if got := again.all(); got != want+64 {
		// The purchase goes on, too.
		h.must(again.Resume(t.Context()))
		if got = again.all(); got != want+64 {
			t.Errorf("restored %d units, want %d", got, want+64)
		}
	}
	if got := again.Device(); got != 2 {
		t.Errorf("the device has number %d, want 2", got)
	}
	if b, _ := again.Balance(); b.Lost != 0 || b.Moving != 0 {
		t.Errorf("%d units are lost and %d moving", b.Lost, b.Moving)
	}
	// What it found is its own: the lost device has nothing any more.
	for _, c := range mustLook(t, ann.Wallet).coins {
		tk, err := c.ticket()
		h.must(err)
		_, out, err := ann.secrets(t.Context(), wants("x", c.Class, c.Epoch, []ticket.Denomination{c.Denomination}))
		h.must(err)
		m, err := h.dial()
		h.must(err)
		_, err = m.Swap(t.Context(), []ticket.Spend{tk.Sign(ticket.SwapContract{Outputs: ticket.OutputsDigest(out)})}, out)
		m.Close()
		if !errors.Is(err, cloudpal.Exist) {
			t.Fatalf("the lost device could use a ticket that was restored: %v", err)
		}
	}
	// And again, from the phrase alone, on a third: all that the second has is found,
	// and nothing twice.
	third := h.lost("ann")
	third.restore()
	if got := third.all(); got != want+64 {
		t.Errorf("restored %d units, want %d", got, want+64)
	}
}

func mustLook(t *testing.T, w *Wallet) *state {
	t.Helper()
	s, err := w.look()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A restore that is killed anywhere, or whose mint is away, goes on where it was.
func TestRestoreGoesOn(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ann := h.wallet("ann")
	busy(t, h, ann)
	want := ann.units()
	again := h.lost("ann")
	var calls, lost atomic.Int64
	h.lose(func(_ string, before bool) bool {
		n := calls.Add(1)
		return n%9 == 3 || n%14 == 9
	})
	for {
		w, err := Open(again.config(again.dir, "ann", Now)) // as after a kill
		h.must(err)
		_, err = w.Restore(t.Context(), nil, nil)
		w.Close()
		if err == nil {
			break
		}
		if lost.Add(1) > 400 {
			t.Fatalf("it does not end: %v", err)
		}
	}
	h.lose(func(string, bool) bool { return false })
	h.must(again.Resume(t.Context()))
	if got := again.all(); got != want || lost.Load() < 5 {
		t.Errorf("restored %d units after %d failures, want %d", got, lost.Load(), want)
	}
}

// Each branch is asked for over a connection of its own, and no question is of two.
func TestRestoreAsksApart(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ann := h.wallet("ann")
	ann.buy("week")
	ann.buy("week")
	again := h.lost("ann")
	connections, most := 0, 0
	connect := again.Wallet.connect
	again.Wallet.connect = func() (Mint, error) {
		connections++
		m, err := connect()
		return &counted{asker: m, most: &most}, err
	}
	again.policy = Policy{Gap: Spread{Least: time.Second, Mean: time.Second, Most: time.Minute}}
	again.restore()
	if most > 1 || connections < 10 {
		t.Errorf("%d connections; over one, %d questions were asked", connections, most)
	}
	if len(h.waited) < connections/2 {
		t.Errorf("it waited %d times between %d questions", len(h.waited), connections)
	}
}

// An asker is a Mint by another name: a Mint has a method of its own.
type asker interface{ Mint }

// counted counts what is asked over one connection.
type counted struct {
	asker
	asked int
	most  *int
}

func (c *counted) Restore(ctx context.Context, outputs []ticket.Output) ([][]byte, error) {
	c.count()
	return c.asker.Restore(ctx, outputs)
}

func (c *counted) Swap(ctx context.Context, inputs []ticket.Spend, outputs []ticket.Output) ([][]byte, error) {
	c.count()
	return c.asker.Swap(ctx, inputs, outputs)
}

func (c *counted) Manifest(ctx context.Context, e ticket.Epoch) ([]byte, error) {
	c.count()
	return c.asker.Manifest(ctx, e)
}

func (c *counted) count() {
	c.asked++
	*c.most = max(*c.most, c.asked)
}

// FromBackup and Restore bring back what the phrase cannot: what was sent and not
// taken, and how payments stand.
func TestBackup(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ann := h.wallet("ann")
	busy(t, h, ann)
	g, _, err := ann.Send(t.Context(), ticket.Paid, 16)
	h.must(err)
	file := filepath.Join(t.TempDir(), "backup")
	h.must(ann.Backup(file))
	ann.buy("day")    // after it
	want := ann.all() // with all that was sent, of which it does not know that it was taken
	h.must(ann.Close())

	c := h.config(filepath.Join(t.TempDir(), "new"), "ann", Now)
	w, err := FromBackup(c, file)
	h.must(err)
	t.Cleanup(func() { w.Close() })
	back := &own{w, h}
	if got := back.all(); got != want-64 {
		t.Errorf("the backup has %d units, want %d", got, want-64)
	}
	back.restore()
	if got := back.all(); got != want {
		t.Errorf("restored %d units, want %d", got, want)
	}
	if b, _ := back.Balance(); len(b.Gifts) != 2 || b.Lost != 0 {
		t.Errorf("gifts: %+v, lost: %d", b.Gifts, b.Lost)
	}
	_, err = back.TakeBack(t.Context(), g.N)
	h.must(err)
	if got := back.units(); got != want-23 {
		t.Errorf("the wallet has %d units, want %d", got, want-23)
	}
	if _, err := FromBackup(c, file); !errors.Is(err, cloudpal.Exist) {
		t.Errorf("restored over a wallet: %v", err)
	}
}

func TestBackupIsWholeAndSealed(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ann := h.wallet("ann")
	ann.buy("day")
	file := filepath.Join(t.TempDir(), "backup")
	h.must(ann.Backup(file))
	b, err := os.ReadFile(file)
	h.must(err)
	if bytes.Contains(b, []byte(issuer)) {
		t.Error("the mint's name is in the clear")
	}
	if info, _ := os.Stat(file); info.Mode().Perm() != 0o600 {
		t.Errorf("its mode is %v", info.Mode())
	}
	for _, size := range []int{0, 10, headerSize, len(b) / 2, len(b) - 1} {
		if _, err := unseal(ann.seed, b[:size]); err == nil {
			t.Errorf("%d bytes of %d were taken for all", size, len(b))
		}
	}
	for i := 0; i < len(b); i += 97 {
		bad := slices.Clone(b)
		bad[i] ^= 1
		if _, err := unseal(ann.seed, bad); err == nil {
			t.Errorf("byte %d was changed and nobody noticed", i)
		}
	}
	if _, err := unseal(ann.seed, append(slices.Clone(b), 0)); err == nil {
		t.Error("more was taken for the same")
	}
	if _, err := unseal(seedOf("eve"), b); err == nil {
		t.Error("another person could read it")
	}
	// What is a part of one is no backup of an older state either: the frames count.
	s, err := unseal(ann.seed, b)
	h.must(err)
	if len(s.coins) != 1 {
		t.Errorf("it has %d tickets", len(s.coins))
	}
	if err := ann.Backup(filepath.Join(t.TempDir(), "no", "where")); cloudpal.HintOf(err) == "" {
		t.Errorf("got %v without a hint", err)
	}
}

// Two devices of one person never make the same ticket, also where both think that
// they have the same number.
func TestTwoDevices(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	laptop, phone := h.wallet("ann"), h.wallet("ann")
	for range 3 {
		laptop.buy("day")
		phone.buy("day")
	}
	seen := map[ticket.Serial]bool{}
	for _, w := range []*own{laptop, phone} {
		for serial := range mustLook(t, w.Wallet).coins {
			if seen[serial] {
				t.Error("a ticket is on both")
			}
			seen[serial] = true
		}
	}
	if len(seen) != 6 {
		t.Errorf("%d tickets, want 6", len(seen))
	}
	// Tickets move from one to the other as to anybody.
	_, text, err := laptop.Send(t.Context(), ticket.Paid, 64)
	h.must(err)
	_, err = phone.Receive(t.Context(), text, nil)
	h.must(err)
	if laptop.units() != 128 || phone.units() != 256 {
		t.Errorf("%d and %d units", laptop.units(), phone.units())
	}
	// All of it is found.
	again := h.lost("ann")
	again.restore()
	if got := again.all(); got != 384 {
		t.Errorf("restored %d units, want 384", got)
	}
}

// A wallet whose disk is put back to what it was pays for nothing that it has, and
// spends nothing twice without noticing.
func TestOldCopyOfTheDisk(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ann := h.wallet("ann")
	ann.buy("day")
	journal := filepath.Join(ann.dir, journalName)
	old, err := os.ReadFile(journal)
	h.must(err)
	ann.buy("week")
	dc := h.shop("center", 64)
	tab, _ := ann.tab(dc, "pal")
	_, err = ann.Pay(t.Context(), dc, tab, ticket.Paid, h.Now())
	h.must(err)
	h.must(ann.Close())
	h.must(os.WriteFile(journal, old, 0o600))

	w, err := Open(h.config(ann.dir, "ann", Now))
	h.must(err)
	defer w.Close()
	back := &own{w, h}
	back.buy("week")
	if got := back.units(); got != 64+426 {
		t.Errorf("the wallet has %d units, want %d: it bought what it had", got, 64+426)
	}
	// The old copy has a ticket that was paid: a restore tells what is what.
	back.restore()
	want := ticket.Units(64 + 426 - 64 + 426)
	if got := back.all(); got != want {
		t.Errorf("the wallet has %d units, want %d", got, want)
	}
}
