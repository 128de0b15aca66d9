// Package card is a way to pay a mint by card, through Stripe's HTTP API. The page at
// which a card's number is typed is Stripe's: the mint never sees one, only a
// fingerprint by which it knows a card again.
//
// Blind tickets cannot be called back, and a card's payment can, for months. So the
// mint first only reserves the money, looks at the card, and then takes it or lets it
// go:
//
//	open ──► reserved ──► taken ──► settled ──► issue        a new card
//	 │          │           └─────────────────► issue        one known for long
//	 ▼          ▼
//	expired   let go: disputed before, or above what a new card may pay
//
// A new card pays little until it is known: a limit holds for all of its orders
// together, and its tickets are issued when the money is the mint's. A card of which a
// payment was taken back is never taken again. What is lost all the same is the cost
// of fraud: there is no key to trace tickets by, and must not be.
package card

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/mint/payment"
	"github.com/tradle/cloudpal/mint/payment/ask"
)

const (
	stripe  = "https://api.stripe.com"
	version = "2026-02-25.clover" // of the API, whatever the account's default is

	// A page is open for longer than its order: Stripe allows no less than half an
	// hour from now on.
	pageOpen = 31 * time.Minute
)

// Defaults of a Config.
const (
	DefaultNewLimit  = 50_00
	DefaultProbation = 120 // days, in which a payment can be taken back by the rules of most cards
)

// Config says how Stripe is asked, and how much new cards are trusted.
type Config struct {
	Key    string `json:"key"`    // secret, of the API
	Secret string `json:"secret"` // of the webhook's endpoint
	Return string `json:"return"` // the https page to show who has paid, or gave up

	NewLimit  int64 `json:"newLimit,omitempty"`  // in the currency's smallest coin, what a card pays in Probation, in all; 0: DefaultNewLimit
	Probation int   `json:"probation,omitempty"` // days until a card is known, from its first payment on; 0: DefaultProbation

	URL string `json:"url,omitempty"` // of the API; empty: Stripe's
}

// Cards is a payment.Method.
type Cards struct {
	service ask.Service
	Config
	db  *sql.DB
	now func() time.Time

	deciding sync.Mutex // so that two orders of one card do not share its limit
}

var _ payment.Method = (*Cards)(nil)

// schema is for SQLite and PostgreSQL. Of a card it has a hash of its fingerprint.
var schema = []string{
	`create table if not exists card_orders (
		ord text primary key,
		session text not null,
		url text not null,
		card text not null,
		minor bigint not null,
		currency text not null,
		at bigint not null,
		known bigint not null,
		state text not null
	)`,
	`create index if not exists card_orders_card on card_orders (card)`,
}

// States of an order here.
const (
	opened   = "opened"   // it has a page
	taking   = "taking"   // the money is to be taken, or is
	dropping = "dropping" // the money is to be let go, or is
	reversed = "reversed" // the money was taken back
)

// Open returns the method, with its table in a database of SQLite or PostgreSQL,
// which it does not close.
func Open(ctx context.Context, c Config, client *http.Client, db *sql.DB, now func() time.Time) (*Cards, error) {
	const op = "take cards"
	back, err := url.Parse(c.Return)
	if err != nil || back.Scheme != "https" || back.Host == "" {
		return nil, cloudpal.E(op, cloudpal.Invalid, errors.New("the page to return to is not an https address"))
	}
	if c.Key == "" || c.Secret == "" || strings.ContainsAny(c.Key, "\r\n") || c.NewLimit < 0 || c.Probation < 0 {
		return nil, cloudpal.E(op, cloudpal.Invalid, errors.New("it takes a secret key and the webhook's secret"))
	}
	if c.NewLimit == 0 {
		c.NewLimit = DefaultNewLimit
	}
	if c.Probation == 0 {
		c.Probation = DefaultProbation
	}
	if c.URL == "" {
		c.URL = stripe
	}
	for _, statement := range schema {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return nil, away(op, err)
		}
	}
	return &Cards{Config: c, db: db, now: now, service: ask.Service{
		Name: "Stripe", Base: strings.TrimSuffix(c.URL, "/"), Client: client,
		Authorize: func(h http.Header) {
			h.Set("Authorization", "Bearer "+c.Key)
			h.Set("Stripe-Version", version)
		},
	}}, nil
}

// get looks; post does something, once however often it is asked under one key.
func (c *Cards) get(ctx context.Context, path string, answer any) error {
	return c.service.Do(ctx, ask.Question{Method: http.MethodGet, Path: path, Again: true}, answer)
}

func (c *Cards) post(ctx context.Context, path, key string, form url.Values, answer any) error {
	return c.service.Do(ctx, ask.Question{
		Method: http.MethodPost, Path: path, Type: "application/x-www-form-urlencoded", Body: []byte(form.Encode()),
		Header: map[string]string{"Idempotency-Key": key}, Again: true,
	}, answer)
}

// Begin implements payment.Method.
func (c *Cards) Begin(ctx context.Context, o payment.Order) (payment.Started, error) {
	const op = "begin a payment by card"
	begun, err := c.begun(ctx, o.ID)
	if err != nil || begun.Ref != "" {
		return begun, err
	}
	s, err := c.open(ctx, o)
	if err != nil {
		return payment.Started{}, cloudpal.E(op, "", err)
	}
	if !s.isFor(o) || s.ID == "" || !isLink(s.URL) {
		return payment.Started{}, cloudpal.E(op, cloudpal.Corrupt, errors.New("another page was opened than was asked for"))
	}
	_, err = c.db.ExecContext(ctx, `insert into card_orders (ord, session, url, card, minor, currency, at, known, state)
		values ($1, $2, $3, '', $4, $5, $6, 0, $7) on conflict (ord) do nothing`,
		o.ID, s.ID, s.URL, o.Amount.Minor, o.Amount.Currency, c.now().Unix(), opened)
	if err != nil {
		return payment.Started{}, away(op, err)
	}
	return c.begun(ctx, o.ID) // another may have come first
}

func (c *Cards) begun(ctx context.Context, order string) (s payment.Started, err error) {
	err = c.db.QueryRowContext(ctx, `select session, url from card_orders where ord = $1`, order).Scan(&s.Ref, &s.URL)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		return s, away("look for an order's page", err)
	}
	return s, nil
}

// open opens a page. One that nobody was told of costs nothing.
func (c *Cards) open(ctx context.Context, o payment.Order) (s session, err error) {
	form := url.Values{
		"mode":                                          {"payment"},
		"client_reference_id":                           {o.ID},
		"success_url":                                   {c.Return},
		"cancel_url":                                    {c.Return},
		"expires_at":                                    {strconv.FormatInt(o.Expires.Add(pageOpen).Unix(), 10)},
		"payment_method_types[0]":                       {"card"},
		"line_items[0][quantity]":                       {"1"},
		"metadata[order]":                               {o.ID},
		"payment_intent_data[capture_method]":           {"manual"},
		"payment_intent_data[metadata][order]":          {o.ID},
		"line_items[0][price_data][currency]":           {strings.ToLower(o.Amount.Currency)},
		"line_items[0][price_data][unit_amount]":        {strconv.FormatInt(o.Amount.Minor, 10)},
		"line_items[0][price_data][product_data][name]": {"Tickets"},
	}
	err = c.once(ctx, "/v1/checkout/sessions", "open-"+o.ID, form, &s)
	return s, err
}

// once does something that harms nobody when it is done twice. Under one key Stripe
// gives the same answer for a day, even one that says that it failed: then another
// key is tried.
func (c *Cards) once(ctx context.Context, path, key string, form url.Values, answer any) (err error) {
	for try := range 3 {
		err = c.post(ctx, path, fmt.Sprintf("%s-%d", key, try), form, answer)
		if !errors.Is(err, cloudpal.Missing) {
			break
		}
	}
	return err
}

// isLink reports whether a person can be sent there.
func isLink(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && len(s) < 2000
}

// What of Stripe's objects is used here.
type (
	session struct {
		ID       string  `json:"id"`
		URL      string  `json:"url"`
		Status   string  `json:"status"` // open, complete, expired
		Order    string  `json:"client_reference_id"`
		Total    int64   `json:"amount_total"`
		Currency string  `json:"currency"`
		Intent   *intent `json:"payment_intent"`
	}
	intent struct {
		ID       string  `json:"id"`
		Status   string  `json:"status"`
		Amount   int64   `json:"amount"`
		Received int64   `json:"amount_received"`
		Currency string  `json:"currency"`
		Charge   *charge `json:"latest_charge"`
		Failure  *struct {
			Code string `json:"code"`
		} `json:"last_payment_error"`
	}
	charge struct {
		ID       string `json:"id"`
		Disputed bool   `json:"disputed"`
		Refunded int64  `json:"amount_refunded"`
		Method   struct {
			Card struct {
				Fingerprint string `json:"fingerprint"`
			} `json:"card"`
		} `json:"payment_method_details"`
		Balance *struct {
			Status    string `json:"status"` // pending, available
			Available int64  `json:"available_on"`
		} `json:"balance_transaction"`
	}
)

func (s session) isFor(o payment.Order) bool {
	return s.Order == o.ID && s.Total == o.Amount.Minor && strings.EqualFold(s.Currency, o.Amount.Currency)
}

// card is what a card is known by.
func (ch *charge) card() string {
	if ch == nil || ch.Method.Card.Fingerprint == "" {
		return ""
	}
	sum := sha256.Sum256([]byte("cloudpal card v1" + ch.Method.Card.Fingerprint))
	return hex.EncodeToString(sum[:])
}

// Poll implements payment.Method. It is also what takes the money of a card that may
// pay.
func (c *Cards) Poll(ctx context.Context, o payment.Order, ref string) (payment.Status, error) {
	const op = "ask for a payment by card"
	s, err := c.look(ctx, o, ref)
	if err != nil {
		return payment.Status{}, cloudpal.E(op, "", err)
	}
	if s.Intent != nil && s.Intent.Status == "requires_capture" {
		if err := c.decide(ctx, o, s); err != nil {
			return payment.Status{}, cloudpal.E(op, "", err)
		}
		if s, err = c.look(ctx, o, ref); err != nil {
			return payment.Status{}, cloudpal.E(op, "", err)
		}
	}
	status, err := c.status(ctx, o, s)
	if err != nil {
		return payment.Status{}, cloudpal.E(op, "", err)
	}
	return status, nil
}

func (c *Cards) look(ctx context.Context, o payment.Order, ref string) (s session, err error) {
	err = c.get(ctx, "/v1/checkout/sessions/"+url.PathEscape(ref)+"?expand[]=payment_intent.latest_charge.balance_transaction", &s)
	if err != nil {
		return s, err
	}
	if s.ID != ref || !s.isFor(o) || s.Intent != nil && (s.Intent.Amount != o.Amount.Minor || !strings.EqualFold(s.Intent.Currency, o.Amount.Currency)) {
		return s, cloudpal.E("", cloudpal.Corrupt, errors.New("the page is for another order, or amount"))
	}
	return s, nil
}

// status is what a page and its payment mean.
func (c *Cards) status(ctx context.Context, o payment.Order, s session) (payment.Status, error) {
	if s.Intent == nil {
		if s.Status == "expired" {
			return payment.Status{State: payment.Dead, Hint: "nothing was paid in time: begin again"}, nil
		}
		return payment.Status{State: payment.Unpaid}, nil
	}
	switch s.Intent.Status {
	case "requires_payment_method", "requires_confirmation", "requires_action":
		if s.Status == "expired" {
			return payment.Status{State: payment.Dead, Hint: "nothing was paid in time: begin again"}, nil
		}
		if s.Intent.Failure != nil {
			return payment.Status{State: payment.Unpaid, Hint: "the card was refused: try again at the same page, or with another card"}, nil
		}
		return payment.Status{State: payment.Unpaid}, nil
	case "processing", "requires_capture":
		return payment.Status{State: payment.Pending, Hint: "the payment is on its way: wait a moment"}, nil
	case "canceled":
		return c.dropped(ctx, o)
	case "succeeded":
		return c.taken(ctx, o, s.Intent)
	}
	return payment.Status{}, cloudpal.E("", cloudpal.Corrupt, errors.New("the payment is in a state that nobody knows"))
}

// dropped is a payment that was let go.
func (c *Cards) dropped(ctx context.Context, o payment.Order) (payment.Status, error) {
	r, err := c.row(ctx, o.ID)
	if err != nil {
		return payment.Status{}, err
	}
	if r.state == dropping {
		limit := payment.Amount{Minor: c.NewLimit, Currency: o.Amount.Currency}
		return payment.Status{State: payment.Dead, Hint: fmt.Sprintf(
			"the card was not charged: a card that is new here pays at most %s in its first %d days, and one whose payment was taken back pays nothing; choose a smaller pack, or another way to pay",
			limit, c.Probation)}, nil
	}
	if r.state == taking { // the reservation ended first: it takes no room below the limit
		if err := c.set(ctx, o.ID, opened); err != nil {
			return payment.Status{}, err
		}
	}
	return payment.Status{State: payment.Dead, Hint: "the payment was given up, and the card was not charged: begin again"}, nil
}

// taken is a payment that the mint took.
func (c *Cards) taken(ctx context.Context, o payment.Order, i *intent) (payment.Status, error) {
	back, err := c.takenBack(ctx, i.Charge)
	if err != nil {
		return payment.Status{}, err
	}
	r, err := c.row(ctx, o.ID)
	if err != nil {
		return payment.Status{}, err
	}
	switch {
	case back:
		if err := c.set(ctx, o.ID, reversed); err != nil {
			return payment.Status{}, err
		}
		return payment.Status{State: payment.Reversed, Hint: "the payment was taken back"}, nil
	case i.Received != o.Amount.Minor:
		return payment.Status{}, cloudpal.E("", cloudpal.Corrupt, errors.New("another amount was taken than the order's"))
	case r.known, i.Charge != nil && i.Charge.Balance != nil && i.Charge.Balance.Status == "available":
		return payment.Status{State: payment.Paid}, nil
	}
	hint := "the payment is made; since the card is new here, it takes some days until the money has come"
	if i.Charge != nil && i.Charge.Balance != nil && i.Charge.Balance.Available > 0 {
		hint += ", which is on " + time.Unix(i.Charge.Balance.Available, 0).UTC().Format("2 January 2006")
	}
	return payment.Status{State: payment.Pending, Hint: hint}, nil
}

// takenBack reports whether money was given back, or is disputed with its bank and
// was not won. An inquiry takes none.
func (c *Cards) takenBack(ctx context.Context, ch *charge) (bool, error) {
	if ch == nil {
		return false, nil
	}
	if ch.Refunded > 0 || !ch.Disputed {
		return ch.Refunded > 0, nil
	}
	var list struct {
		Data []struct {
			Status string `json:"status"`
		} `json:"data"`
	}
	if err := c.get(ctx, "/v1/disputes?limit=100&charge="+url.QueryEscape(ch.ID), &list); err != nil {
		return false, err
	}
	for _, d := range list.Data {
		switch d.Status {
		case "won", "prevented", "warning_closed", "warning_needs_response", "warning_under_review":
		default:
			return true, nil
		}
	}
	return false, nil
}

// away is trouble with the database, which passes.
func away(op string, err error) error { return cloudpal.E(op, cloudpal.Missing, err) }
