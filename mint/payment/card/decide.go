package card

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"net/url"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/mint/payment"
)

// A row is what is known of an order.
type row struct {
	state string
	known bool
}

func (c *Cards) row(ctx context.Context, order string) (r row, err error) {
	var known int64
	err = c.db.QueryRowContext(ctx, `select state, known from card_orders where ord = $1`, order).Scan(&r.state, &known)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return r, away("look for an order's card", err)
	}
	r.known = known != 0
	return r, nil
}

func (c *Cards) set(ctx context.Context, order, state string) error {
	if _, err := c.db.ExecContext(ctx, `update card_orders set state = $1 where ord = $2`, state, order); err != nil {
		return away("write down what became of an order", err)
	}
	return nil
}

// decide takes the money of an order, or lets it go. What it decides it writes down
// first, and does not decide again: so the limit holds whatever is killed, and
// Stripe's answer can be lost.
func (c *Cards) decide(ctx context.Context, o payment.Order, s session) error {
	state, err := c.judge(ctx, o, s)
	if err != nil {
		return err
	}
	what := "capture"
	if state == dropping {
		what = "cancel"
	}
	path := "/v1/payment_intents/" + url.PathEscape(s.Intent.ID) + "/" + what
	var answer json.RawMessage // what became of it, Poll asks
	err = c.once(ctx, path, what+"-"+s.Intent.ID, url.Values{}, &answer)
	if errors.Is(err, cloudpal.Invalid) {
		return nil // it is not reserved any more: done before, or over; Poll looks again
	}
	return err
}

// judge says whether an order's money is taken.
func (c *Cards) judge(ctx context.Context, o payment.Order, s session) (state string, err error) {
	c.deciding.Lock()
	defer c.deciding.Unlock()
	r, err := c.row(ctx, o.ID)
	if err != nil || r.state == taking || r.state == dropping {
		return r.state, err
	}
	card := s.Intent.Charge.card()
	h, err := c.history(ctx, card, o)
	if err != nil {
		return "", err
	}
	state, known := taking, int64(0)
	switch {
	case card == "", h.reversed > 0: // a card that nobody could know again
		state = dropping
	case h.known > 0:
		known = 1
	case h.recent+o.Amount.Minor > c.NewLimit:
		state = dropping
	}
	_, err = c.db.ExecContext(ctx, `insert into card_orders (ord, session, url, card, minor, currency, at, known, state)
		values ($1, $2, '', $3, $4, $5, $6, $7, $8)
		on conflict (ord) do update set card = excluded.card, at = excluded.at, known = excluded.known, state = excluded.state`,
		o.ID, s.ID, card, o.Amount.Minor, o.Amount.Currency, c.now().Unix(), known, state)
	if err != nil {
		return "", away("decide on a card", err)
	}
	return state, nil
}

// A history is what a card did before.
type history struct {
	known    int64 // payments that are old enough to vouch for it
	recent   int64 // what it paid since, in the order's currency
	reversed int64 // payments that were taken back
}

func (c *Cards) history(ctx context.Context, card string, o payment.Order) (h history, err error) {
	since := c.now().AddDate(0, 0, -c.Probation).Unix()
	err = c.db.QueryRowContext(ctx, `select
		count(case when state = $1 and at <= $2 then 1 end),
		coalesce(sum(case when state = $1 and at > $2 and currency = $3 then minor else 0 end), 0),
		count(case when state = $4 then 1 end)
		from card_orders where card = $5 and ord <> $6`,
		taking, since, o.Amount.Currency, reversed, card, o.ID).Scan(&h.known, &h.recent, &h.reversed)
	if err != nil {
		return h, away("look at what a card did before", err)
	}
	return h, nil
}
