package mint

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base32"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/mint/books"
	"github.com/tradle/cloudpal/mint/payment"
	"github.com/tradle/cloudpal/ticket"
)

const (
	quoteTime = time.Hour           // until a quote expires
	lateTime  = 10 * 24 * time.Hour // in which money for an expired quote still comes
	pollEvery = 5 * time.Second     // a quote's payment is asked for, at most
	maxPolls  = 100_000             // quotes whose last poll is remembered
	free      = "free"              // the method of free packs
)

// Describe says what is sold.
func (m *Mint) Describe() api.Mint {
	now := m.Now().UTC()
	d := api.Mint{Issuer: m.Issuer, Epoch: ticket.EpochAt(now), Time: now.Truncate(time.Second), Methods: []api.Method{}, Packs: m.Packs}
	for name, method := range m.Methods {
		_, here := method.Method.(payment.Taker)
		d.Methods = append(d.Methods, api.Method{Name: name, Class: method.Class, Here: here})
	}
	slices.SortFunc(d.Methods, func(a, b api.Method) int { return strings.Compare(a.Name, b.Name) })
	return d
}

// Quote says what a pack costs, and how to pay it. A lock has one quote.
func (m *Mint) Quote(ctx context.Context, r api.QuoteRequest) (api.Quote, error) {
	method, ok := m.Methods[r.Method]
	pack, sold := m.pack(r.Pack)
	if !ok || !sold || len(r.Lock) != ed25519.PublicKeySize {
		return api.Quote{}, refuse(cloudpal.Invalid, "name a method and a pack that the mint has, and a lock of 32 bytes")
	}
	q, err := m.Books.Quote(ctx, books.Quote{
		ID: quoteID(r.Lock), Lock: r.Lock, Method: r.Method, Class: method.Class, Pack: pack.Name, Tickets: pack.Tickets,
		Price: pack.Price, Currency: pack.Code, Expires: m.Now().Add(quoteTime).Truncate(time.Second), State: books.Unpaid,
	})
	if err != nil {
		return api.Quote{}, err
	}
	if q.Begun || q.State != books.Unpaid || m.expired(q) {
		return m.quote(q), nil
	}
	// The method that the quote has, which may be another than was asked for now.
	if method, ok = m.Methods[q.Method]; !ok {
		return m.quote(q), nil
	}
	started, err := method.Begin(ctx, order(q))
	if err != nil {
		return api.Quote{}, cloudpal.E("begin a payment", "", err)
	}
	if err := m.Books.Begin(ctx, q.ID, started.Ref, started.URL); err != nil {
		return api.Quote{}, err
	}
	return m.reread(ctx, q.ID)
}

func (m *Mint) pack(name string) (api.Pack, bool) {
	i := slices.IndexFunc(m.Packs, func(p api.Pack) bool { return p.Name == name })
	if i < 0 {
		return api.Pack{}, false
	}
	return m.Packs[i], true
}

// quoteID names the quote of a lock. Nobody guesses one who does not know the lock.
func quoteID(lock []byte) string {
	h := sha256.Sum256(append([]byte("cloudpal quote id v1"), lock...))
	return strings.ToLower(base32.StdEncoding.EncodeToString(h[:15]))
}

func order(q books.Quote) payment.Order {
	return payment.Order{ID: q.ID, Amount: payment.Amount{Minor: q.Price, Currency: q.Currency}, Expires: q.Expires}
}

func (m *Mint) expired(q books.Quote) bool {
	return q.State == books.Reversed || q.State == books.Unpaid && !q.Pending && m.Now().After(q.Expires)
}

// quote is a quote as it is shown.
func (m *Mint) quote(q books.Quote) api.Quote {
	v := api.Quote{
		ID: q.ID, State: api.State(q.State), Class: q.Class, Pack: q.Pack, Tickets: q.Tickets, Method: q.Method, Pay: q.Pay,
		Price: q.Price, Currency: q.Currency, Expires: q.Expires, Hint: q.Hint,
	}
	if m.expired(q) {
		v.State = api.Expired
	}
	return v
}

func (m *Mint) reread(ctx context.Context, id string) (api.Quote, error) {
	q, err := m.Books.Look(ctx, id)
	if err != nil {
		return api.Quote{}, err
	}
	return m.quote(q), nil
}

// Look returns a quote, and asks its method whether it was paid, now and then.
func (m *Mint) Look(ctx context.Context, id string) (api.Quote, error) {
	q, err := m.Books.Look(ctx, id)
	if err != nil {
		return api.Quote{}, err
	}
	if q.State != books.Unpaid || !q.Begun || !m.mayPoll(id) {
		return m.quote(q), nil
	}
	if err := m.poll(ctx, q); err != nil && !passes(err) {
		return api.Quote{}, err
	}
	return m.reread(ctx, id)
}

// passes reports whether a payment service is only away just now.
func passes(err error) bool {
	return errors.Is(err, cloudpal.Busy) || errors.Is(err, cloudpal.Timeout) || errors.Is(err, cloudpal.Missing)
}

func (m *Mint) mayPoll(id string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	if now.Sub(m.polls[id]) < pollEvery {
		return false
	}
	if len(m.polls) >= maxPolls {
		clear(m.polls)
	}
	m.polls[id] = now
	return true
}

// poll asks what became of a quote's payment, and writes it down.
func (m *Mint) poll(ctx context.Context, q books.Quote) error {
	method, ok := m.Methods[q.Method]
	if !ok {
		return nil
	}
	s, err := method.Poll(ctx, order(q), q.Ref)
	if err != nil {
		return cloudpal.E("ask for a payment", "", err)
	}
	switch s.State {
	case payment.Paid:
		return m.Books.Pay(ctx, q.ID, m.hour())
	case payment.Reversed:
		inTime, err := m.Books.Reverse(ctx, q.ID, m.hour())
		if err == nil && !inTime && q.State == books.Issued {
			m.Logger.Warn("a payment was taken back after its tickets were issued", "method", q.Method)
		}
		return err
	}
	return m.Books.Hint(ctx, q.ID, s.Hint, s.State == payment.Pending)
}

// Pay pays a quote here, with a secret such as a voucher.
func (m *Mint) Pay(ctx context.Context, id string, r api.PayRequest) (api.Quote, error) {
	q, err := m.Books.Look(ctx, id)
	if err != nil {
		return api.Quote{}, err
	}
	taker, ok := m.Methods[q.Method].Method.(payment.Taker)
	if !ok {
		return api.Quote{}, refuse(cloudpal.Invalid, "the quote is not paid here, but at the page that it names")
	}
	if q.State == books.Unpaid && m.expired(q) {
		// The mint may have been ended just when it had taken the voucher: then it
		// is good for nothing else.
		if err := m.poll(ctx, q); err != nil {
			return api.Quote{}, err
		}
		if q, err = m.Books.Look(ctx, id); err != nil {
			return api.Quote{}, err
		}
	}
	if m.expired(q) {
		return api.Quote{}, refuse(cloudpal.Exhausted, "the quote has expired: ask for another; the voucher is still good")
	}
	if q.State == books.Unpaid {
		if err := taker.Take(ctx, order(q), r.Voucher); err != nil {
			return api.Quote{}, voucherRefused(err)
		}
		if err := m.poll(ctx, q); err != nil {
			return api.Quote{}, err
		}
	}
	return m.reread(ctx, id)
}

// voucherRefused is what who pays is told. A method's hints are for them.
func voucherRefused(err error) error {
	if hint := cloudpal.HintOf(err); hint != "" && !passes(err) {
		return refuse(cloudpal.KindOf(err), hint)
	}
	return cloudpal.E("take a voucher", "", err)
}

// Hook takes a payment service's webhook. It returns once what it is about is
// written down.
func (m *Mint) Hook(r *http.Request, name string) error {
	method, ok := m.Methods[name]
	if !ok {
		return refuse(cloudpal.NotExist, "the mint is not paid that way")
	}
	id, err := method.Hook(r)
	if err != nil || id == "" {
		return err
	}
	q, err := m.Books.Look(r.Context(), id)
	if errors.Is(err, cloudpal.NotExist) {
		return nil // another mint's, which uses the same service
	}
	if err != nil {
		return err
	}
	return m.poll(r.Context(), q)
}

// Free grants a pack of free tickets to an account.
func (m *Mint) Free(ctx context.Context, r api.FreeRequest) (api.Quote, error) {
	pack, ok := m.pack(r.Pack)
	if !ok || len(r.Lock) != ed25519.PublicKeySize || r.Account == "" || len(r.Account) > 200 {
		return api.Quote{}, refuse(cloudpal.Invalid, "name an account, a pack that the mint has, and a lock of 32 bytes")
	}
	account := AccountHash(r.Account)
	q, err := m.Books.Grant(ctx, books.Quote{
		ID: quoteID(r.Lock), Lock: r.Lock, Method: free, Class: ticket.Free, Pack: pack.Name, Tickets: pack.Tickets,
		Expires: m.Now().Add(quoteTime).Truncate(time.Second), State: books.Paid, Account: account[:], Epoch: ticket.EpochAt(m.Now()),
	})
	if err != nil {
		return api.Quote{}, err
	}
	return m.quote(q), nil
}

// AccountHash is what a mint keeps of the secret of an account for free tickets.
func AccountHash(secret string) [32]byte {
	return sha256.Sum256([]byte("cloudpal free account v1" + secret))
}
