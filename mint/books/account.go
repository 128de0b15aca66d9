package books

import (
	"context"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

// The names of accounts. Some are of a key or a center: see of.
const (
	sold        = "sold"        // what was issued for quotes: negative
	outstanding = "outstanding" // tickets of a key that somebody has
	payable     = "payable"     // what the mint owes a center
	held        = "held"        // of that, what a dispute is about
	paidOut     = "paidout"     // what a center was paid for
	swapped     = "swapped"     // tickets that were swapped for nothing: by a wallet's mistake, or until it asks again
	breakage    = "breakage"    // tickets that nobody will bring
	cash        = "cash"        // money that came by a method: positive
	prepaid     = "prepaid"     // money that nothing was issued for: negative
	loss        = "loss"        // money that was taken back after its tickets were issued: positive
	sales       = "sales"       // money for what was issued: negative
)

func of(account string, id []byte) string { return account + "/" + hex.EncodeToString(id) }

// post writes an entry: amounts that go to accounts, together nothing. An entry is
// written once; who posts sees to it. Accounts are taken in one order, so that
// several mints on one database do not wait for each other in a circle.
func (t *tx) post(entry, unit string, hour int64, amounts map[string]int64) {
	var sum int64
	for _, name := range slices.Sorted(maps.Keys(amounts)) {
		amount := amounts[name]
		sum += amount
		t.exec(`insert into postings (entry, unit, name, amount, hour) values ($1, $2, $3, $4, $5)`, entry, unit, name, amount, hour)
		t.exec(`insert into accounts (unit, name, balance) values ($1, $2, $3)
			on conflict (unit, name) do update set balance = accounts.balance + excluded.balance`, unit, name, amount)
	}
	if sum != 0 && t.err == nil {
		t.err = cloudpal.E("write "+unit+" into the books", cloudpal.Other, fmt.Errorf("the entry is off by %d", sum))
	}
}

// balance returns an account's. After a post to it, nobody else changes it until the
// transaction ends.
func (t *tx) balance(unit, name string) (n int64) {
	t.find([]any{&n}, `select balance from accounts where unit = $1 and name = $2`, unit, name)
	return n
}

// An Account is one of the books' accounts. Unit is the class of its tickets, or a
// currency.
type Account struct {
	Unit, Name string
	Balance    int64
}

// Accounts returns all accounts.
func (b *Books) Accounts(ctx context.Context) ([]Account, error) {
	const op = "read the mint's accounts"
	return query(ctx, b, op, func(scan func(...any) error) (a Account, err error) {
		return a, scan(&a.Unit, &a.Name, &a.Balance)
	}, `select unit, name, balance from accounts order by unit, name`)
}

// Check looks whether the books are right: each account has what was posted to it,
// each entry and so each unit is zero in all, nobody has less than nothing, each
// center is owed what it deposited, less what was given back and paid out, and of each
// key as much is outstanding as was signed and did not come back.
func (b *Books) Check(ctx context.Context, keys []*ticket.Key) error {
	for _, rule := range []struct{ wrong, query string }{
		{"an account has another balance than its postings",
			`select count(*) from (select a.unit from accounts a left join postings p on p.unit = a.unit and p.name = a.name
			 group by a.unit, a.name, a.balance having a.balance <> coalesce(sum(p.amount), 0)) as wrong`},
		{"a unit is not zero in all", `select count(*) from (select unit from accounts group by unit having sum(balance) <> 0) as wrong`},
		{"an entry is not zero in all", `select count(*) from (select entry from postings group by entry, unit having sum(amount) <> 0) as wrong`},
		{"a deposit was not posted once", `select (select count(*) from postings where entry like 'deposit/%') - 2 * (select count(*) from deposits)`},
		{"somebody has less than nothing",
			`select count(*) from accounts where balance < 0 and name not in ('sold', 'prepaid', 'sales')`},
	} {
		if err := b.count(ctx, rule.wrong, rule.query); err != nil {
			return err
		}
	}
	if _, err := b.Debts(ctx, 0); err != nil {
		return err
	}
	return b.checkKeys(ctx, keys)
}

func (b *Books) count(ctx context.Context, wrong, query string) error {
	const op = "check the mint's books"
	var n int64
	if err := b.find(ctx, []any{&n}, query); err != nil {
		return failed(op, err)
	}
	if n != 0 {
		return cloudpal.E(op, cloudpal.Corrupt, fmt.Errorf("%s (%d times)", wrong, n))
	}
	return nil
}

func (b *Books) checkKeys(ctx context.Context, keys []*ticket.Key) error {
	const op = "check the mint's books"
	for _, k := range keys {
		id := k.ID()
		var signed, back, out, dropped int64
		for query, n := range map[string]*int64{
			`select count(*) from outputs where key = $1`: &signed,
			`select count(*) from spent where key = $1`:   &back,
		} {
			if err := b.find(ctx, []any{n}, query, id[:]); err != nil {
				return failed(op, err)
			}
		}
		name := of(outstanding, id[:])
		err := b.find(ctx, []any{&out}, `select coalesce(sum(balance), 0) from accounts where name = $1`, name)
		if err != nil {
			return failed(op, err)
		}
		err = b.find(ctx, []any{&dropped}, `select coalesce(-sum(amount), 0) from postings where name = $1 and entry = $2`, name, "expire/"+name)
		if err != nil {
			return failed(op, err)
		}
		if want := (signed - back) * int64(k.Denomination); dropped == 0 && out != want {
			return cloudpal.E(op, cloudpal.Corrupt, fmt.Errorf("of a key for %d, %d units are outstanding and %d should be", k.Denomination, out, want))
		}
	}
	return nil
}

// query reads rows.
func query[T any](ctx context.Context, b *Books, op string, read func(scan func(...any) error) (T, error), query string, args ...any) ([]T, error) {
	s, err := b.statement(ctx, query)
	if err != nil {
		return nil, failed(op, err)
	}
	rows, err := s.QueryContext(ctx, args...)
	if err != nil {
		return nil, failed(op, err)
	}
	defer rows.Close()
	var list []T
	for rows.Next() {
		v, err := read(rows.Scan)
		if err != nil {
			return nil, failed(op, err)
		}
		list = append(list, v)
	}
	if err := rows.Err(); err != nil {
		return nil, failed(op, err)
	}
	return list, nil
}

// Expire writes off what is still outstanding of keys whose tickets are worth
// nothing any more, and forgets what was signed and spent under them.
func (b *Books) Expire(ctx context.Context, keys []*ticket.Key, hour int64) error {
	return b.change(ctx, "write off tickets", func(t *tx) error {
		for _, k := range keys {
			id := k.ID()
			name, unit := of(outstanding, id[:]), k.Class.String()
			if left := t.balance(unit, name); left != 0 {
				t.post("expire/"+name, unit, hour, map[string]int64{name: -left, breakage: left})
			}
			t.exec(`delete from outputs where key = $1`, id[:])
			t.exec(`delete from spent where key = $1`, id[:])
		}
		return nil
	})
}
