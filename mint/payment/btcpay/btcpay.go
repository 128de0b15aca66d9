// Package btcpay is a way to pay a mint in bitcoin, on the chain or by Lightning,
// through a BTCPay Server: a program that the mint's operator runs, or has run, and
// that asks nobody's name. It speaks the server's Greenfield API.
//
//	Begin  POST /api/v1/stores/{store}/invoices, unless there is one for the order
//	Poll   GET  /api/v1/stores/{store}/invoices/{id}
//	Hook   BTCPay-Sig: sha256=HMAC-SHA256(secret, body)
//
// What became of an invoice is always asked of the server:
//
//	New ──► Processing ──► Settled
//	 │          └────────► Invalid     it never confirmed
//	 └────► Expired ─────► (paid late) taken once all of it is settled
package btcpay

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"math"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/mint/payment"
	"github.com/tradle/cloudpal/mint/payment/ask"
)

// monitor is for how many minutes after its expiry an invoice is watched for money
// that comes late: some is always on its way.
const monitor = 24 * 60

const maxHook = 256 << 10 // bytes

// Config says which server, and how it is talked to.
type Config struct {
	URL    string `json:"url"` // https://HOST
	Store  string `json:"store"`
	Key    string `json:"key"`    // of the API: may create and view invoices of the store
	Secret string `json:"secret"` // of the webhook
}

// Server is a payment.Method.
type Server struct {
	service  ask.Service
	store    string
	secret   []byte
	now      func() time.Time
	starting singleflight.Group
}

var _ payment.Method = (*Server)(nil)

// New returns the method.
func New(c Config, client *http.Client, now func() time.Time) (*Server, error) {
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || (u.Scheme != "https" && u.Scheme != "http") {
		return nil, cloudpal.E("use a BTCPay Server", cloudpal.Invalid, errors.New("its address is not https://HOST"))
	}
	if c.Store == "" || c.Key == "" || c.Secret == "" || strings.ContainsAny(c.Key, "\r\n") {
		return nil, cloudpal.E("use a BTCPay Server", cloudpal.Invalid, errors.New("it takes a store, a key and the webhook's secret"))
	}
	return &Server{
		service: ask.Service{
			Name: "the BTCPay Server", Base: strings.TrimSuffix(c.URL, "/"), Client: client,
			Authorize: func(h http.Header) { h.Set("Authorization", "token "+c.Key) },
		},
		store: c.Store, secret: []byte(c.Secret), now: now,
	}, nil
}

// An invoice is what of one is used here.
type invoice struct {
	ID       string `json:"id"`
	StoreID  string `json:"storeId"`
	Amount   string `json:"amount"`
	Currency string `json:"currency"`
	Link     string `json:"checkoutLink"`
	Status   string `json:"status"`
	More     string `json:"additionalStatus"`
	Archived bool   `json:"archived"`
	Metadata struct {
		OrderID string `json:"orderId"`
	} `json:"metadata"`
}

// isFor reports whether an invoice is an order's, to the cent.
func (i invoice) isFor(o payment.Order) bool {
	got, ok := new(big.Rat).SetString(i.Amount)
	want, _ := new(big.Rat).SetString(o.Amount.Decimal())
	return ok && len(i.Amount) < 40 && got.Cmp(want) == 0 && strings.EqualFold(i.Currency, o.Amount.Currency) && i.Metadata.OrderID == o.ID
}

func (s *Server) path(parts ...string) string {
	path := []string{"/api/v1/stores", url.PathEscape(s.store), "invoices"}
	for _, p := range parts {
		path = append(path, url.PathEscape(p))
	}
	return strings.Join(path, "/")
}

// Begin implements payment.Method. The server knows no idempotency keys; but it finds
// invoices by their order, so that one is made only where there is none.
func (s *Server) Begin(ctx context.Context, o payment.Order) (payment.Started, error) {
	v, err, _ := s.starting.Do(o.ID, func() (any, error) { return s.begin(ctx, o) })
	if err != nil {
		return payment.Started{}, cloudpal.E("begin a payment in bitcoin", "", err)
	}
	return v.(payment.Started), nil
}

func (s *Server) begin(ctx context.Context, o payment.Order) (payment.Started, error) {
	const tries = 3
	for try := 1; ; try++ {
		found, err := s.find(ctx, o)
		if err != nil || found != nil {
			return started(found), err
		}
		made, err := s.create(ctx, o)
		if err == nil {
			return started(made), nil
		}
		// It may have been made all the same: look again.
		if try == tries || !errors.Is(err, cloudpal.Missing) {
			return payment.Started{}, err
		}
	}
}

func started(i *invoice) payment.Started {
	if i == nil {
		return payment.Started{}
	}
	return payment.Started{Ref: i.ID, URL: i.Link}
}

// find returns the order's invoice, or nil.
func (s *Server) find(ctx context.Context, o payment.Order) (*invoice, error) {
	var list []invoice
	q := ask.Question{Method: http.MethodGet, Path: s.path() + "?orderId=" + url.QueryEscape(o.ID), Again: true}
	if err := s.service.Do(ctx, q, &list); err != nil {
		return nil, err
	}
	for _, i := range list {
		if i.isFor(o) && !i.Archived {
			return &i, nil
		}
	}
	return nil, nil
}

func (s *Server) create(ctx context.Context, o payment.Order) (*invoice, error) {
	minutes := math.Ceil(o.Expires.Sub(s.now()).Minutes())
	if minutes < 1 {
		return nil, cloudpal.E("", cloudpal.Exhausted, errors.New("the order has expired"))
	}
	body, err := json.Marshal(map[string]any{
		"amount": o.Amount.Decimal(), "currency": o.Amount.Currency,
		"metadata": map[string]string{"orderId": o.ID}, // and nothing of who pays
		"checkout": map[string]any{"expirationMinutes": int(minutes), "monitoringMinutes": monitor, "paymentTolerance": 0},
	})
	if err != nil {
		return nil, err
	}
	var i invoice
	q := ask.Question{Method: http.MethodPost, Path: s.path(), Type: "application/json", Body: body}
	if err := s.service.Do(ctx, q, &i); err != nil {
		return nil, err
	}
	if !i.isFor(o) || i.ID == "" || !isLink(i.Link) {
		return nil, cloudpal.E("", cloudpal.Corrupt, errors.New("it made another invoice than was asked for"))
	}
	return &i, nil
}

// isLink reports whether a person can be sent there.
func isLink(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "https" || u.Scheme == "http") && u.Host != "" && len(s) < 2000
}

// Poll implements payment.Method.
func (s *Server) Poll(ctx context.Context, o payment.Order, ref string) (payment.Status, error) {
	const op = "ask for a payment in bitcoin"
	i, err := s.look(ctx, ref)
	if err != nil {
		return payment.Status{}, cloudpal.E(op, "", err)
	}
	if !i.isFor(o) {
		return payment.Status{}, cloudpal.E(op, cloudpal.Corrupt, errors.New("the invoice is for another order, or amount"))
	}
	status, err := s.status(ctx, i)
	if err != nil {
		return payment.Status{}, cloudpal.E(op, "", err)
	}
	return status, nil
}

func (s *Server) look(ctx context.Context, id string) (i invoice, err error) {
	err = s.service.Do(ctx, ask.Question{Method: http.MethodGet, Path: s.path(id), Again: true}, &i)
	if err == nil && (i.ID != id || i.StoreID != "" && i.StoreID != s.store) {
		err = cloudpal.E("", cloudpal.Corrupt, errors.New("it answers with another invoice"))
	}
	return i, err
}

// status is what an invoice's two statuses mean.
func (s *Server) status(ctx context.Context, i invoice) (payment.Status, error) {
	switch i.Status {
	case "New":
		if i.More == "PaidPartial" {
			return payment.Status{State: payment.Pending, Hint: "a part is paid: pay the rest at the same page before it expires"}, nil
		}
		return payment.Status{State: payment.Unpaid}, nil
	case "Processing":
		return payment.Status{State: payment.Pending, Hint: "the payment is seen and not confirmed yet: wait, nothing more is to be done"}, nil
	case "Settled", "Complete": // as older ones say
		return payment.Status{State: payment.Paid}, nil
	case "Invalid":
		return payment.Status{State: payment.Dead, Hint: "the payment was never confirmed, or the mint refused it: ask the mint's operator"}, nil
	case "Expired":
		return s.expired(ctx, i)
	}
	return payment.Status{}, cloudpal.E("", cloudpal.Corrupt, errors.New("the invoice is in a state that nobody knows"))
}

func (s *Server) expired(ctx context.Context, i invoice) (payment.Status, error) {
	switch i.More {
	case "PaidPartial":
		return payment.Status{State: payment.Dead, Hint: "only a part was paid in time: ask the mint's operator for it back"}, nil
	case "PaidLate":
		return s.late(ctx, i)
	}
	return payment.Status{State: payment.Dead, Hint: "nothing was paid in time: begin again"}, nil
}

// A way is one by which an invoice can be paid, and was.
type way struct {
	Due      string `json:"due"` // of the whole invoice
	Payments []struct {
		Status string `json:"status"`
	} `json:"payments"`
}

// late takes what was paid late, all of it and confirmed: the server leaves it to the
// merchant, and who paid has nothing else for the money.
func (s *Server) late(ctx context.Context, i invoice) (payment.Status, error) {
	wait := payment.Status{State: payment.Pending, Hint: "the payment came late and is not confirmed yet: wait, nothing more is to be done"}
	var ways []way
	if err := s.service.Do(ctx, ask.Question{Method: http.MethodGet, Path: s.path(i.ID, "payment-methods"), Again: true}, &ways); err != nil {
		return payment.Status{}, err
	}
	payments := 0
	for _, w := range ways {
		due, ok := new(big.Rat).SetString(w.Due)
		if !ok || len(w.Due) > 40 || due.Sign() > 0 {
			return wait, nil
		}
		for _, p := range w.Payments {
			if p.Status != "Settled" {
				return wait, nil
			}
			payments++
		}
	}
	if payments == 0 {
		return wait, nil
	}
	return payment.Status{State: payment.Paid}, nil
}

// Hook implements payment.Method.
func (s *Server) Hook(r *http.Request) (order string, err error) {
	const op = "take a webhook of the BTCPay Server"
	body, err := ask.ReadHook(r, maxHook)
	if err != nil {
		return "", cloudpal.E(op, "", err)
	}
	if !s.signed(r.Header.Get("BTCPay-Sig"), body) {
		return "", cloudpal.E(op, cloudpal.Denied, errors.New("the server did not sign it"))
	}
	var event struct {
		Type      string `json:"type"`
		StoreID   string `json:"storeId"`
		InvoiceID string `json:"invoiceId"`
	}
	if err := json.Unmarshal(body, &event); err != nil {
		return "", cloudpal.E(op, cloudpal.Invalid, errors.New("it is no event"))
	}
	if !strings.HasPrefix(event.Type, "Invoice") || event.InvoiceID == "" || event.StoreID != s.store {
		return "", nil
	}
	i, err := s.look(r.Context(), event.InvoiceID)
	if errors.Is(err, cloudpal.NotExist) {
		return "", nil // as the server's own test of the webhook is
	}
	if err != nil {
		return "", cloudpal.E(op, "", err)
	}
	return i.Metadata.OrderID, nil
}

func (s *Server) signed(header string, body []byte) bool {
	text, ok := strings.CutPrefix(header, "sha256=")
	got, err := hex.DecodeString(text)
	if !ok || err != nil {
		return false
	}
	mac := hmac.New(sha256.New, s.secret)
	mac.Write(body)
	return hmac.Equal(got, mac.Sum(nil))
}
