package voucher

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	_ "modernc.org/sqlite"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/mint/payment"
)

var euros = payment.Amount{Minor: 500, Currency: "EUR"}

// lite is a database in a file.
func lite(t *testing.T) (db *sql.DB, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "mint.db")
	db, err := sql.Open("sqlite", "file:"+path+"?_pragma=journal_mode(WAL)&_pragma=synchronous(FULL)&_pragma=busy_timeout(10000)&_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db, path
}

func open(t *testing.T, db *sql.DB) *Vouchers {
	t.Helper()
	v, err := Open(t.Context(), db)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func made(t *testing.T, v *Vouchers, n int) []Code {
	t.Helper()
	codes, err := v.Make(t.Context(), "kiosk", euros, n)
	if err != nil {
		t.Fatal(err)
	}
	return codes
}

func state(t *testing.T, v *Vouchers, id string) payment.State {
	t.Helper()
	s, err := v.Poll(t.Context(), payment.Order{ID: id, Amount: euros}, id)
	if err != nil {
		t.Fatal(err)
	}
	return s.State
}

// engines runs a test over each database.
func engines(t *testing.T, test func(t *testing.T, db *sql.DB)) {
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		db, _ := lite(t)
		test(t, db)
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		test(t, server(t))
	})
}

func TestPaysOnce(t *testing.T) {
	t.Parallel()
	engines(t, func(t *testing.T, db *sql.DB) {
		v := open(t, db)
		codes := made(t, v, 3)
		a, b := payment.Order{ID: "a", Amount: euros}, payment.Order{ID: "b", Amount: euros}
		if s, err := v.Begin(t.Context(), a); err != nil || s.URL != "" || state(t, v, "a") != payment.Unpaid {
			t.Errorf("before: %+v, %v", s, err)
		}
		for range 2 { // an answer that got lost
			if err := v.Take(t.Context(), a, strings.ToLower(codes[0].Print())); err != nil {
				t.Fatal(err)
			}
		}
		if state(t, v, "a") != payment.Paid || state(t, v, "b") != payment.Unpaid {
			t.Errorf("a is %s and b %s", state(t, v, "a"), state(t, v, "b"))
		}
		if err := v.Take(t.Context(), b, codes[0].Print()); !errors.Is(err, cloudpal.Exhausted) {
			t.Errorf("a code that was used: %v", err)
		}
		if err := v.Take(t.Context(), a, codes[1].Print()); !errors.Is(err, cloudpal.Exist) {
			t.Errorf("a second code for one order: %v", err)
		}
		if err := v.Take(t.Context(), b, codes[1].Print()); err != nil {
			t.Errorf("the second code is not good any more: %v", err)
		}
		// Opened again, nothing is different.
		if err := open(t, db).Take(t.Context(), a, codes[0].Print()); err != nil {
			t.Errorf("after a start: %v", err)
		}
	})
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	engines(t, func(t *testing.T, db *sql.DB) {
		v := open(t, db)
		codes := made(t, v, 2)
		other := payment.Order{ID: "dear", Amount: payment.Amount{Minor: 501, Currency: "EUR"}}
		dollars := payment.Order{ID: "usd", Amount: payment.Amount{Minor: 500, Currency: "USD"}}
		order := payment.Order{ID: "o", Amount: euros}
		for what, c := range map[string]struct {
			order payment.Order
			code  string
			want  cloudpal.Kind
			say   string
		}{
			"another amount":   {other, codes[0].Print(), cloudpal.Invalid, "worth 5.00 EUR and this costs 5.01 EUR"},
			"another currency": {dollars, codes[0].Print(), cloudpal.Invalid, "5.00 USD"},
			"no such code":     {order, NewCode().Print(), cloudpal.NotExist, "no voucher has this code"},
			"a typo":           {order, "x" + codes[0].Print()[1:], cloudpal.Invalid, "mistyped"},
		} {
			err := v.Take(t.Context(), c.order, c.code)
			if !errors.Is(err, c.want) || !strings.Contains(cloudpal.HintOf(err), c.say) || strings.Contains(err.Error(), c.code[5:]) {
				t.Errorf("%s: got %v (%s), want %v that says %q", what, err, cloudpal.HintOf(err), c.want, c.say)
			}
			if state(t, v, c.order.ID) != payment.Unpaid {
				t.Errorf("%s has paid", what)
			}
		}
		// What is stolen is worth nothing; what was used before stays used.
		if err := v.Take(t.Context(), order, codes[0].Print()); err != nil {
			t.Fatal(err)
		}
		if n, err := v.Void(t.Context(), "kiosk"); n != 1 || err != nil {
			t.Errorf("%d are void (%v), want 1", n, err)
		}
		if err := v.Take(t.Context(), payment.Order{ID: "p", Amount: euros}, codes[1].Print()); !errors.Is(err, cloudpal.Denied) {
			t.Errorf("a void one: %v", err)
		}
		if state(t, v, "o") != payment.Paid {
			t.Error("what was paid before is not any more")
		}
	})
}

// Of many who come at once with one code, one has paid; of many codes that come at
// once for one order, one is used.
func TestAtOnce(t *testing.T) {
	t.Parallel()
	engines(t, func(t *testing.T, db *sql.DB) {
		v := open(t, db)
		codes := made(t, v, 9)
		const n = 8
		var mu sync.Mutex
		results := map[string]int{}
		var all sync.WaitGroup
		take := func(what string, o payment.Order, c Code) {
			all.Go(func() {
				err := v.Take(context.Background(), o, c.Print())
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					results[what+" paid"]++
				case errors.Is(err, cloudpal.Exhausted), errors.Is(err, cloudpal.Exist):
					results[what+" refused"]++
				default:
					t.Errorf("%s: %v", what, err)
				}
			})
		}
		for i := range n {
			take("one code", payment.Order{ID: string(rune('a' + i)), Amount: euros}, codes[n])
			take("one order", payment.Order{ID: "z", Amount: euros}, codes[i])
		}
		all.Wait()
		if results["one code paid"] != 1 || results["one order paid"] != 1 || results["one code refused"] != n-1 || results["one order refused"] != n-1 {
			t.Errorf("got %v", results)
		}
		var used int
		if err := db.QueryRow(`select count(*) from vouchers where paid is not null`).Scan(&used); err != nil || used != 2 {
			t.Errorf("%d codes are used (%v), want 2", used, err)
		}
	})
}

// The database has no code, in whatever form.
func TestOnlyHashesAreStored(t *testing.T) {
	t.Parallel()
	db, path := lite(t)
	v := open(t, db)
	codes := made(t, v, 5)
	if err := v.Take(t.Context(), payment.Order{ID: "a", Amount: euros}, codes[0].Print()); err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	files, _ := filepath.Glob(path + "*")
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if file == path && !bytes.Contains(data, codes[1].hash()) {
			t.Error("the file is not what was looked at")
		}
		for _, c := range codes {
			if bytes.Contains(data, c[:]) || bytes.Contains(data, []byte(c.Print())) || bytes.Contains(data, []byte(strings.ReplaceAll(c.Print(), "-", ""))) {
				t.Errorf("%s has a code", filepath.Base(file))
			}
		}
	}
}

// A database that is away is said to be, and nothing is refused for it.
func TestDatabaseAway(t *testing.T) {
	t.Parallel()
	db, _ := lite(t)
	v := open(t, db)
	code := made(t, v, 1)[0]
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := v.Take(ctx, payment.Order{ID: "a", Amount: euros}, code.Print()); !errors.Is(err, cloudpal.Missing) {
		t.Errorf("got %v", err)
	}
	if err := v.Take(t.Context(), payment.Order{ID: "a", Amount: euros}, code.Print()); err != nil {
		t.Errorf("once it is back: %v", err)
	}
	db.Close()
	if _, err := v.Poll(t.Context(), payment.Order{ID: "a"}, "a"); !errors.Is(err, cloudpal.Missing) {
		t.Errorf("got %v", err)
	}
	if _, err := v.Make(t.Context(), "x", euros, 1); !errors.Is(err, cloudpal.Missing) {
		t.Errorf("got %v", err)
	}
}

func TestMakeRefuses(t *testing.T) {
	t.Parallel()
	db, _ := lite(t)
	v := open(t, db)
	for _, c := range []struct {
		a payment.Amount
		n int
	}{{euros, 0}, {euros, MaxBatch + 1}, {payment.Amount{Currency: "EUR"}, 1}, {payment.Amount{Minor: 5}, 1}, {payment.Amount{Minor: -5, Currency: "EUR"}, 1}} {
		if _, err := v.Make(t.Context(), "x", c.a, c.n); !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("%+v: got %v", c, err)
		}
	}
	if _, err := v.Hook(nil); !errors.Is(err, cloudpal.Denied) {
		t.Errorf("a webhook: %v", err)
	}
}
