// Package voucher is a way to pay a mint with a code that was bought elsewhere: at a
// shop, for cash, from somebody. The mint sells codes to who sells them on, and never
// sees who pays with one.
//
// A voucher is worth a fixed amount and used whole, once. What pays for an order is
// that the order stands beside the code's hash: written in one statement, so that of
// two who come at once with one code one wins, and who comes again with it for the
// same order has paid it already. The codes themselves are only on paper.
package voucher

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/mint/payment"
)

// schema is for SQLite and PostgreSQL.
var schema = []string{
	`create table if not exists vouchers (
		hash bytea primary key,
		batch text not null,
		minor bigint not null,
		currency text not null,
		void bigint not null,
		paid text unique
	)`,
	`create index if not exists vouchers_batch on vouchers (batch)`,
}

// MaxBatch is how many codes are made at once.
const MaxBatch = 10_000

// Vouchers are a payment.Method and a payment.Taker.
type Vouchers struct{ db *sql.DB }

var (
	_ payment.Method = (*Vouchers)(nil)
	_ payment.Taker  = (*Vouchers)(nil)
)

// Open returns the vouchers in a database of SQLite or PostgreSQL, where it makes its
// table. It does not close the database.
func Open(ctx context.Context, db *sql.DB) (*Vouchers, error) {
	for _, statement := range schema {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return nil, away("open the vouchers", err)
		}
	}
	return &Vouchers{db}, nil
}

// Make makes n vouchers worth an amount each. They are in the database before the
// codes are returned, which are nowhere else: print them. Batch is what to Void them
// by, such as the name of who sells them.
func (v *Vouchers) Make(ctx context.Context, batch string, each payment.Amount, n int) ([]Code, error) {
	const op = "make vouchers"
	if n < 1 || n > MaxBatch || each.Minor < 1 || len(each.Currency) < 3 {
		return nil, cloudpal.E(op, cloudpal.Invalid, fmt.Errorf("it is 1 to %d vouchers, of an amount in a currency", MaxBatch))
	}
	tx, err := v.db.BeginTx(ctx, nil)
	if err != nil {
		return nil, away(op, err)
	}
	defer tx.Rollback()
	codes := make([]Code, n)
	for i := range codes {
		codes[i] = NewCode()
		_, err := tx.ExecContext(ctx, `insert into vouchers (hash, batch, minor, currency, void) values ($1, $2, $3, $4, 0)`,
			codes[i].hash(), batch, each.Minor, each.Currency)
		if err != nil {
			return nil, away(op, err)
		}
	}
	if err := tx.Commit(); err != nil {
		return nil, away(op, err)
	}
	return codes, nil
}

// Void makes those of a batch worthless that nobody used, as when a parcel of them is
// stolen, and returns how many they were.
func (v *Vouchers) Void(ctx context.Context, batch string) (int64, error) {
	done, err := v.db.ExecContext(ctx, `update vouchers set void = 1 where batch = $1 and void = 0 and paid is null`, batch)
	if err != nil {
		return 0, away("void vouchers", err)
	}
	return done.RowsAffected()
}

// Begin implements payment.Method: whoever has a code can pay at once.
func (v *Vouchers) Begin(_ context.Context, o payment.Order) (payment.Started, error) {
	return payment.Started{Ref: o.ID}, nil
}

// Take implements payment.Taker. Its hints are for who typed the code.
func (v *Vouchers) Take(ctx context.Context, o payment.Order, secret string) error {
	const op = "take a voucher"
	code, err := Parse(secret)
	if err != nil {
		return cloudpal.E(op, "", err)
	}
	// That no other code pays for the order, the unique column says too, to those who
	// come at once.
	_, err = v.db.ExecContext(ctx, `update vouchers set paid = $1
		where hash = $2 and paid is null and void = 0 and minor = $3 and currency = $4
		and not exists (select 1 from vouchers where paid = $5)`,
		o.ID, code.hash(), o.Amount.Minor, o.Amount.Currency, o.ID)
	found, looked := v.look(ctx, code)
	switch {
	case looked != nil:
		return away(op, errors.Join(err, looked))
	case found.paid.String == o.ID:
		return nil // just now, or before
	}
	if refusal := found.refusal(o.Amount); refusal != nil {
		return cloudpal.E(op, "", refusal)
	}
	if other, _ := v.paid(ctx, o.ID); other {
		return cloudpal.E(op, cloudpal.Exist, errors.New("another voucher has paid for it")).
			WithHint("it is paid already, with another code: this one is still good, keep it")
	}
	return away(op, err)
}

// A row is a voucher as it stands in the table; the zero row is of none.
type row struct {
	there    bool
	minor    int64
	currency string
	void     int64
	paid     sql.NullString
}

func (v *Vouchers) look(ctx context.Context, c Code) (r row, err error) {
	err = v.db.QueryRowContext(ctx, `select minor, currency, void, paid from vouchers where hash = $1`, c.hash()).
		Scan(&r.minor, &r.currency, &r.void, &r.paid)
	if errors.Is(err, sql.ErrNoRows) {
		return row{}, nil
	}
	r.there = err == nil
	return r, err
}

// refusal is why a voucher does not pay an amount.
func (r row) refusal(a payment.Amount) error {
	switch {
	case !r.there:
		return cloudpal.E("", cloudpal.NotExist, errors.New("there is no such voucher")).
			WithHint("no voucher has this code: compare it with the paper, and ask who sold it")
	case r.paid.Valid:
		return cloudpal.E("", cloudpal.Exhausted, errors.New("the voucher was used before")).
			WithHint("this voucher was used before: each pays once")
	case r.void != 0:
		return cloudpal.E("", cloudpal.Denied, errors.New("the voucher is void")).
			WithHint("this voucher was called back: ask who sold it for another")
	case r.minor != a.Minor || r.currency != a.Currency:
		return cloudpal.E("", cloudpal.Invalid, errors.New("the voucher is worth another amount")).
			WithHint(fmt.Sprintf("this voucher is worth %s and this costs %s: choose what costs as much, the voucher is still good",
				payment.Amount{Minor: r.minor, Currency: r.currency}, a))
	}
	return nil
}

// Poll implements payment.Method.
func (v *Vouchers) Poll(ctx context.Context, o payment.Order, _ string) (payment.Status, error) {
	paid, err := v.paid(ctx, o.ID)
	if err != nil {
		return payment.Status{}, err
	}
	if !paid {
		return payment.Status{State: payment.Unpaid}, nil
	}
	return payment.Status{State: payment.Paid}, nil
}

func (v *Vouchers) paid(ctx context.Context, order string) (bool, error) {
	var n int
	if err := v.db.QueryRowContext(ctx, `select count(*) from vouchers where paid = $1`, order).Scan(&n); err != nil {
		return false, away("look for an order's voucher", err)
	}
	return n > 0, nil
}

// Hook implements payment.Method: nobody rings for vouchers.
func (v *Vouchers) Hook(*http.Request) (string, error) {
	return "", cloudpal.E("take a webhook", cloudpal.Denied, errors.New("vouchers have none"))
}

// away is trouble with the database, which passes.
func away(op string, err error) error {
	if err == nil {
		err = errors.New("the database gave no reason")
	}
	return cloudpal.E(op, cloudpal.Missing, err)
}
