package wallet

import (
	"crypto/sha256"
	"encoding/binary"
	"path/filepath"
	"testing"
	"time"

	"github.com/tradle/cloudpal/ticket"
)

// rich makes a wallet that has n tickets, whose form is as it should be: what a
// command does with a wallet, without a mint, does not look further.
func rich(tb testing.TB, n int) Config {
	tb.Helper()
	c := Config{Dir: filepath.Join(tb.TempDir(), "wallet"), Seed: seedOf("ann"), Clock: &clock{at: start}}
	_, trust := newShelf()
	w, err := Create(c, trust, FirstDevice)
	if err != nil {
		tb.Fatal(err)
	}
	defer w.Close()
	for from := 0; from < n; from += 1000 {
		err := w.change(tb.Context(), func(_ *state, ch *change) error {
			for i := from; i < min(from+1000, n); i++ {
				o := coin{Class: ticket.Paid, Denomination: ticket.Denominations[i%7], Epoch: 82, Origin: Bought, Ready: start}
				o.secret = sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i)))
				o.token.Nonce = ticket.SerialOf(public(keyOf(string(o.secret[:]))))
				ch.putCoin(o)
			}
			return nil
		})
		if err != nil {
			tb.Fatal(err)
		}
	}
	return c
}

// mostTickets is how many a wallet is to be quick with.
const mostTickets = 10_000

// quick is how long a command may take with so many, without what the mint takes.
const quick = 200 * time.Millisecond

// BenchmarkCommand is what every command does: open the wallet of 10,000 tickets, do
// something, close it.
func BenchmarkCommand(b *testing.B) {
	c := rich(b, mostTickets)
	for name, f := range commands(b) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				oneCommand(b, c, f)
			}
			if each := b.Elapsed() / time.Duration(b.N); each > quick {
				b.Errorf("it takes %s, above %s", each, quick)
			}
		})
	}
}

func commands(tb testing.TB) map[string]func(*Wallet) error {
	backup := filepath.Join(tb.TempDir(), "backup")
	return map[string]func(*Wallet) error{
		"list":   func(w *Wallet) error { _, err := w.Balance(); return err },
		"backup": func(w *Wallet) error { return w.Backup(backup) },
		"send": func(w *Wallet) error {
			g, _, err := w.Send(tb.Context(), ticket.Paid, 85)
			if err != nil {
				return err
			}
			return w.change(tb.Context(), func(s *state, c *change) error { // and all is as before
				for _, o := range s.gifts[g.N].Coins {
					c.putCoin(o)
				}
				c.drop(kindGift, numbered(g.N))
				return nil
			})
		},
		"sync with nothing to do": func(w *Wallet) error { return w.Resume(tb.Context()) },
	}
}

func oneCommand(tb testing.TB, c Config, f func(*Wallet) error) {
	w, err := Open(c)
	if err == nil {
		err = f(w)
	}
	if err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
}

// The commands work with so many, and do not take seconds.
func TestManyTickets(t *testing.T) {
	t.Parallel()
	c := rich(t, mostTickets)
	for name, f := range commands(t) {
		begun := time.Now()
		oneCommand(t, c, f)
		if took := time.Since(begun); took > 50*quick { // on a machine that does much else
			t.Errorf("%s took %s", name, took)
		}
	}
}
