package books

import (
	"context"
	"encoding/json"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

// A QuoteState is what became of a quote.
type QuoteState string

// The states. A quote that nobody paid in time stays Unpaid: money can come late.
const (
	Unpaid   QuoteState = "unpaid"
	Paid     QuoteState = "paid"
	Issued   QuoteState = "issued"
	Reversed QuoteState = "reversed" // the money was taken back before anything was issued
)

// A Quote is one purchase.
type Quote struct {
	ID       string
	Lock     []byte
	Method   string
	Class    ticket.Class
	Pack     string
	Tickets  []ticket.Denomination
	Price    int64
	Currency string
	Expires  time.Time
	State    QuoteState
	Begun    bool   // the method was asked for Ref and Pay
	Ref, Pay string // see payment.Started
	Hint     string
	Pending  bool   // money is on its way
	Account  []byte // of free tickets, its hash
	Epoch    ticket.Epoch
}

const quoteColumns = `id, locked, method, class, pack, tickets, price, currency, expires, state, begun, ref, pay, hint, pending, account, coalesce(epoch, 0)`

func readQuote(scan func(...any) error) (q Quote, err error) {
	var tickets string
	var expires, begun, pending int64
	if err := scan(&q.ID, &q.Lock, &q.Method, &q.Class, &q.Pack, &tickets, &q.Price, &q.Currency, &expires, &q.State, &begun, &q.Ref, &q.Pay, &q.Hint, &pending, &q.Account, &q.Epoch); err != nil {
		return Quote{}, err
	}
	q.Expires, q.Begun, q.Pending = time.Unix(expires, 0).UTC(), begun != 0, pending != 0
	return q, json.Unmarshal([]byte(tickets), &q.Tickets)
}

// Quote keeps a quote, and returns it as it is now: one with its ID may be there.
func (b *Books) Quote(ctx context.Context, q Quote) (Quote, error) {
	const op = "write a quote"
	err := b.change(ctx, op, func(t *tx) error { return t.quote(q) })
	if err != nil {
		return Quote{}, err
	}
	return b.Look(ctx, q.ID)
}

func (t *tx) quote(q Quote) error {
	tickets, err := json.Marshal(q.Tickets)
	if err != nil {
		return err
	}
	t.exec(`insert into quotes (id, locked, method, class, pack, tickets, price, currency, expires, state, begun, ref, pay, hint, pending, reversed, account, epoch)
		values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0, '', '', '', 0, 0, $11, $12) on conflict (id) do nothing`,
		q.ID, q.Lock, q.Method, int64(q.Class), q.Pack, string(tickets), q.Price, q.Currency, q.Expires.Unix(), string(q.State), q.Account, int64(q.Epoch))
	return nil
}

// Look returns a quote.
func (b *Books) Look(ctx context.Context, id string) (Quote, error) {
	const op = "look at a quote"
	list, err := query(ctx, b, op, readQuote, `select `+quoteColumns+` from quotes where id = $1`, id)
	if err == nil && len(list) == 0 {
		err = cloudpal.E(op, cloudpal.NotExist, nil)
	}
	if err != nil {
		return Quote{}, err
	}
	return list[0], nil
}

// Waiting returns quotes that a method began and nobody has paid, which expired no
// earlier than since; those that expire first come first.
func (b *Books) Waiting(ctx context.Context, since time.Time, most int) ([]Quote, error) {
	return query(ctx, b, "look for unpaid quotes", readQuote,
		`select `+quoteColumns+` from quotes where state = 'unpaid' and begun = 1 and expires >= $1 order by expires limit $2`, since.Unix(), most)
}

// Quotes returns the newest quotes.
func (b *Books) Quotes(ctx context.Context, most int) ([]Quote, error) {
	return query(ctx, b, "list quotes", readQuote, `select `+quoteColumns+` from quotes order by expires desc, id limit $1`, most)
}

// Begin notes how a quote can be paid.
func (b *Books) Begin(ctx context.Context, id, ref, pay string) error {
	return b.change(ctx, "write how a quote is paid", func(t *tx) error {
		t.exec(`update quotes set begun = 1, ref = $2, pay = $3 where id = $1 and begun = 0`, id, ref, pay)
		return nil
	})
}

// Hint notes why a quote is not paid yet, and whether money is on its way.
func (b *Books) Hint(ctx context.Context, id, hint string, pending bool) error {
	var is int64
	if pending {
		is = 1
	}
	return b.change(ctx, "write why a quote is not paid", func(t *tx) error {
		t.exec(`update quotes set hint = $2, pending = $3 where id = $1 and (hint <> $2 or pending <> $3)`, id, hint, is)
		return nil
	})
}

// Pay notes that a quote is paid, once.
func (b *Books) Pay(ctx context.Context, id string, hour int64) error {
	return b.change(ctx, "write that a quote is paid", func(t *tx) error {
		var method, currency string
		var price int64
		if t.exec(`update quotes set state = 'paid', hint = '', pending = 0 where id = $1 and state = 'unpaid'`, id) == 0 {
			return nil
		}
		t.find([]any{&method, &price, &currency}, `select method, price, currency from quotes where id = $1`, id)
		if price != 0 {
			t.post("pay/"+id, currency, hour, map[string]int64{cash + "/" + method: price, prepaid: -price})
		}
		return nil
	})
}

// Reverse notes that what was paid was taken back, once. It reports whether that came
// in time: nothing was issued. What was issued is the mint's loss.
func (b *Books) Reverse(ctx context.Context, id string, hour int64) (inTime bool, err error) {
	err = b.change(ctx, "write that a payment was taken back", func(t *tx) error {
		if t.exec(`update quotes set reversed = 1 where id = $1 and reversed = 0 and state in ('paid', 'issued')`, id) == 0 {
			return nil
		}
		against := loss
		if inTime = t.exec(`update quotes set state = 'reversed' where id = $1 and state = 'paid'`, id) == 1; inTime {
			against = prepaid
		}
		var method, currency string
		var price int64
		t.find([]any{&method, &price, &currency}, `select method, price, currency from quotes where id = $1`, id)
		t.post("reverse/"+id, currency, hour, map[string]int64{cash + "/" + method: -price, against: price})
		return nil
	})
	return inTime, err
}

// Grant writes a paid quote for free tickets of an account, named by its hash,
// unless it has as many of the quote's epoch as it may have, and returns it.
func (b *Books) Grant(ctx context.Context, q Quote) (Quote, error) {
	const op = "grant free tickets"
	err := b.change(ctx, op, func(t *tx) error {
		var most, has, there int64
		// The row is locked, that two grants of one account come one after the other.
		if t.exec(`update grants set packs = packs where account = $1`, q.Account) == 0 {
			return refuse(cloudpal.Denied, "there is no such account")
		}
		t.find([]any{&most}, `select packs from grants where account = $1`, q.Account)
		t.find([]any{&there}, `select count(*) from quotes where id = $1`, q.ID)
		t.find([]any{&has}, `select count(*) from quotes where account = $1 and epoch = $2`, q.Account, int64(q.Epoch))
		if there == 0 && has >= most {
			return refuse(cloudpal.Exhausted, "the account had its %d packs of this month", most)
		}
		return t.quote(q)
	})
	if err != nil {
		return Quote{}, err
	}
	return b.Look(ctx, q.ID)
}

// Allow lets an account, named by its hash, have so many packs of free tickets an
// epoch.
func (b *Books) Allow(ctx context.Context, account []byte, name string, packs int) error {
	return b.change(ctx, "allow free tickets", func(t *tx) error {
		t.exec(`insert into grants (account, name, packs) values ($1, $2, $3)
			on conflict (account) do update set name = excluded.name, packs = excluded.packs`, account, name, packs)
		return nil
	})
}
