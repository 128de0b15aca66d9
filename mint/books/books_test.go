package books

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

func opened(t *testing.T, place string) *Books {
	t.Helper()
	b, err := Open(t.Context(), place)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

func quote(n int) Quote {
	return Quote{
		ID: fmt.Sprintf("quote%d", n), Lock: []byte{byte(n)}, Method: "voucher", Class: ticket.Paid, Pack: "day", Tickets: []ticket.Denomination{64},
		Price: 100, Currency: "EUR", Expires: time.Unix(1_800_000_000, 0), State: Unpaid,
	}
}

// What was answered is there after the books are opened again, for nobody else's
// eyes, whatever the folder is called.
func TestReopen(t *testing.T) {
	t.Parallel()
	place := filepath.Join(t.TempDir(), "odd name?#%.db")
	b := opened(t, place)
	if _, err := b.Quote(t.Context(), quote(1)); err != nil {
		t.Fatal(err)
	}
	if err := b.Pay(t.Context(), "quote1", 7); err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(place); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v (%v)", info, err)
	}
	b = opened(t, place)
	q, err := b.Look(t.Context(), "quote1")
	if err != nil || q.State != Paid || q.Price != 100 || len(q.Tickets) != 1 {
		t.Errorf("got %+v (%v)", q, err)
	}
	if _, err := b.Look(t.Context(), "none"); !errors.Is(err, cloudpal.NotExist) {
		t.Errorf("a quote that is not there: %v", err)
	}
}

// Of changes that are committed together each stands for itself: one that is refused,
// in its middle, takes nothing of the others with it, and leaves nothing.
func TestTogether(t *testing.T) {
	t.Parallel()
	b := opened(t, filepath.Join(t.TempDir(), "books.db"))
	var together sync.WaitGroup
	for n := range 40 {
		together.Go(func() {
			err := b.change(t.Context(), "test", func(t *tx) error {
				t.post(fmt.Sprint("entry", n), "EUR", 1, map[string]int64{"cash": 1, "prepaid": -1})
				if n%2 == 1 {
					return refuse(cloudpal.Denied, "no")
				}
				return nil
			})
			if (n%2 == 1) != errors.Is(err, cloudpal.Denied) {
				t.Errorf("change %d: %v", n, err)
			}
		})
	}
	together.Wait()
	accounts, err := b.Accounts(t.Context())
	if err != nil || len(accounts) != 2 || accounts[0].Balance != 20 {
		t.Errorf("the accounts are %v (%v), want 20 in each", accounts, err)
	}
	if err := b.Check(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

// Check finds what is wrong.
func TestCheck(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]string{
		"a balance":   `update accounts set balance = balance + 1 where name = 'prepaid'`,
		"a posting":   `delete from postings where name = 'prepaid'`,
		"an account":  `delete from accounts where name = 'prepaid'`,
		"a deposit":   `insert into postings (entry, unit, name, amount, hour) values ('deposit/1', 'EUR', 'none', 0, 1)`,
		"a payout":    `insert into payouts (reference, center, n, units, time) values ('r', x'` + strings.Repeat("01", 32) + `', 1, 5, 1)`,
		"a debt":      `update postings set unit = 'paid', name = 'payable/1' where name = 'cash'; update accounts set unit = 'paid', name = 'payable/1' where name = 'cash'; update postings set unit = 'paid'; update accounts set unit = 'paid'`,
		"less than 0": `update accounts set balance = -1, name = 'payable/1' where name = 'prepaid'`,
	} {
		b := opened(t, filepath.Join(t.TempDir(), "books.db"))
		err := b.change(t.Context(), "test", func(t *tx) error {
			t.post("entry", "EUR", 1, map[string]int64{"cash": 1, "prepaid": -1})
			return nil
		})
		if err = errors.Join(err, b.Check(t.Context(), nil)); err != nil {
			t.Fatal(err)
		}
		if _, err := b.db.Exec(damage); err != nil {
			t.Fatal(err)
		}
		if err := b.Check(t.Context(), nil); !errors.Is(err, cloudpal.Corrupt) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	b := opened(t, filepath.Join(t.TempDir(), "books.db"))
	err := b.change(t.Context(), "test", func(t *tx) error {
		t.post("entry", "EUR", 1, map[string]int64{"cash": 1})
		return nil
	})
	if err == nil {
		t.Error("an entry that is not zero in all was written")
	}
}

// A disk that is full refuses, says so, and loses nothing; with room again, all goes
// on.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	b := opened(t, filepath.Join(t.TempDir(), "books.db"))
	b.db.SetMaxOpenConns(1)                                           // the limit is a connection's
	if _, err := b.db.Exec(`pragma max_page_count = 1`); err != nil { // as many as there are
		t.Fatal(err)
	}
	n := 0
	var err error
	for ; n < 10_000; n++ {
		q := quote(n)
		q.Pack = strings.Repeat("x", 1000)
		if _, err = b.Quote(t.Context(), q); err != nil {
			break
		}
	}
	if !errors.Is(err, cloudpal.NoSpace) || !strings.Contains(cloudpal.HintOf(err), "nothing is lost") {
		t.Fatalf("after %d quotes: %v (%s)", n, err, cloudpal.HintOf(err))
	}
	if list, err := b.Quotes(t.Context(), 20_000); err != nil || len(list) != n {
		t.Errorf("%d quotes are there (%v), want %d", len(list), err, n)
	}
	if _, err := b.db.Exec(`pragma max_page_count = 100000`); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Quote(t.Context(), quote(n)); err != nil {
		t.Errorf("with room again: %v", err)
	}
}

// Who does not wait any more has nothing done that has not begun.
func TestGaveUp(t *testing.T) {
	t.Parallel()
	b := opened(t, filepath.Join(t.TempDir(), "books.db"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := b.Quote(ctx, quote(1)); err == nil {
		t.Error("it was answered")
	}
	b.Close()
	for range 20 { // wherever it is found out
		if _, err := b.Quote(t.Context(), quote(1)); !errors.Is(err, cloudpal.Missing) {
			t.Errorf("closed books: %v", err)
		}
	}
}

// What is no database is not overwritten.
func TestNoDatabase(t *testing.T) {
	t.Parallel()
	place := filepath.Join(t.TempDir(), "books.db")
	text := strings.Repeat("this is no database\n", 100)
	if err := os.WriteFile(place, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), place); !errors.Is(err, cloudpal.Corrupt) {
		t.Errorf("got %v", err)
	}
	if got, err := os.ReadFile(place); err != nil || string(got) != text {
		t.Errorf("the file was changed (%v)", err)
	}
}
