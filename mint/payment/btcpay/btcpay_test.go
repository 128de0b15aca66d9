package btcpay

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/mint/payment"
	"github.com/tradle/cloudpal/mint/payment/ask"
	"github.com/tradle/cloudpal/test/shop"
)

var (
	noon  = time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	euros = payment.Amount{Minor: 1250, Currency: "EUR"}
)

func method(t *testing.T, s *server) *Server {
	t.Helper()
	client := ask.NewClient()
	t.Cleanup(client.CloseIdleConnections)
	m, err := New(Config{URL: s.URL + "/", Store: someStore, Key: someKey, Secret: someSecret}, client, func() time.Time { return noon })
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func open(t *testing.T) (*server, *shop.Shop) {
	s := newServer(t)
	return s, shop.Open(t, method(t, s))
}

func look(t *testing.T, sh *shop.Shop, id string) {
	t.Helper()
	if err := sh.Look(t.Context(), id); err != nil {
		t.Fatal(err)
	}
}

func TestPaid(t *testing.T) {
	t.Parallel()
	s, sh := open(t)
	begun := sh.Begin("order-1", euros, noon)
	i := s.find(begun.Ref)
	if begun.URL != s.URL+"/i/"+begun.Ref || i.Amount != "12.50" || i.Currency != "EUR" || i.Order != "order-1" || i.Expires != 60 || i.Monitors != monitor {
		t.Errorf("the invoice is %+v, at %s", i, begun.URL)
	}
	for _, step := range []struct {
		status, event string
		want          payment.State
	}{
		{"New", "InvoiceCreated", payment.Unpaid},
		{"New PaidPartial", "InvoiceReceivedPayment", payment.Pending},
		{"Processing", "InvoiceProcessing", payment.Pending},
		{"Settled", "InvoicePaymentSettled", payment.Paid},
		{"Settled", "InvoiceSettled", payment.Paid},
	} {
		s.become(begun.Ref, step.status)
		body := event(begun.Ref, step.event)
		if got := ring(t, sh.URL, body, signature(someSecret, body)); got != 200 || sh.State("order-1") != step.want {
			t.Errorf("%s: status %d, the order is %s, want %s", step.event, got, sh.State("order-1"), step.want)
		}
	}
}

// All that an invoice can be, as the documentation has it.
func TestStatuses(t *testing.T) {
	t.Parallel()
	s, sh := open(t)
	ref := sh.Begin("o", euros, noon).Ref
	for status, want := range map[string]payment.State{
		"New": payment.Unpaid, "New PaidPartial": payment.Pending,
		"Processing": payment.Pending, "Processing PaidOver": payment.Pending,
		"Settled": payment.Paid, "Settled PaidOver": payment.Paid, "Settled Marked": payment.Paid, "Settled PaidLate": payment.Paid,
		"Invalid": payment.Dead, "Invalid Marked": payment.Dead, "Invalid PaidOver": payment.Dead,
		"Expired": payment.Dead, "Expired PaidPartial": payment.Dead, "Expired PaidLate": payment.Pending,
	} {
		s.become(ref, status)
		look(t, sh, "o")
		if got := sh.State("o"); got != want {
			t.Errorf("%s is %s, want %s", status, got, want)
		}
		if sh.Hint("o") == "" && want != payment.Paid && want != payment.Unpaid {
			t.Errorf("of %s nothing is told", status)
		}
	}
	s.become(ref, "Teapot")
	if err := sh.Look(t.Context(), "o"); !errors.Is(err, cloudpal.Corrupt) {
		t.Errorf("a state that nobody knows: %v", err)
	}
}

// What comes late is taken when all of it is there and confirmed, and not before.
func TestLate(t *testing.T) {
	t.Parallel()
	s, sh := open(t)
	ref := sh.Begin("o", euros, noon).Ref
	s.become(ref, "Expired")
	look(t, sh, "o")
	if sh.State("o") != payment.Dead {
		t.Errorf("an expired order is %s", sh.State("o"))
	}
	s.become(ref, "Expired PaidLate")
	for _, step := range []struct {
		due      string
		payments []string
		want     payment.State
	}{
		{"0", nil, payment.Pending},
		{"0", []string{"Processing"}, payment.Pending},
		{"0", []string{"Settled", "Processing"}, payment.Pending},
		{"0.00000001", []string{"Settled"}, payment.Pending},
		{"junk", []string{"Settled"}, payment.Pending},
		{"0", []string{"Settled", "Invalid"}, payment.Pending},
		{"0", []string{"Settled"}, payment.Paid},
		{"-0.1", []string{"Settled", "Settled"}, payment.Paid},
	} {
		i := s.find(ref)
		s.mu.Lock()
		i.Due, i.Payments = step.due, step.payments
		s.mu.Unlock()
		look(t, sh, "o")
		if got := sh.State("o"); got != step.want {
			t.Errorf("%s is due of %v: got %s, want %s", step.due, step.payments, got, step.want)
		}
	}
}

// Webhooks come in any order, twice, again a day later: what the server says now is
// what counts.
func TestWebhooksInAnyOrder(t *testing.T) {
	t.Parallel()
	s, sh := open(t)
	ref := sh.Begin("o", euros, noon).Ref
	s.become(ref, "Settled")
	for _, kind := range []string{"InvoiceSettled", "InvoiceProcessing", "InvoiceSettled", "InvoiceExpired", "InvoiceCreated", "InvoiceInvalid", "InvoiceSettled"} {
		body := event(ref, kind)
		if got := ring(t, sh.URL, body, signature(someSecret, body)); got != 200 || sh.State("o") != payment.Paid {
			t.Errorf("%s: status %d, the order is %s", kind, got, sh.State("o"))
		}
	}
	// And that it was paid makes no other order paid.
	other := sh.Begin("p", euros, noon).Ref
	body := event(other, "InvoiceSettled")
	if got := ring(t, sh.URL, body, signature(someSecret, body)); got != 200 || sh.State("p") != payment.Unpaid {
		t.Errorf("an event that is not so: status %d, the order is %s", got, sh.State("p"))
	}
}

// No webhook ever comes.
func TestNoWebhooks(t *testing.T) {
	t.Parallel()
	s, sh := open(t)
	ref := sh.Begin("o", euros, noon).Ref
	s.become(ref, "Settled")
	look(t, sh, "o")
	if sh.State("o") != payment.Paid {
		t.Errorf("the order is %s", sh.State("o"))
	}
}

func TestForgeries(t *testing.T) {
	t.Parallel()
	s, sh := open(t)
	ref := sh.Begin("o", euros, noon).Ref
	s.become(ref, "Settled")
	body := event(ref, "InvoiceSettled")
	good := signature(someSecret, body)
	for what, c := range map[string]struct {
		body, sig string
		want      int
	}{
		"no signature":       {body, "", 403},
		"another secret":     {body, signature("x", body), 403},
		"another body":       {strings.Replace(body, "Settled", "Invalid", 1), good, 403},
		"another hash":       {body, strings.Replace(good, "sha256", "sha1", 1), 403},
		"no hash's name":     {body, strings.TrimPrefix(good, "sha256="), 403},
		"half a signature":   {body, good[:40], 403},
		"no hexadecimal":     {body, "sha256=" + strings.Repeat("z", 64), 403},
		"a large body":       {strings.Repeat(" ", maxHook+1), signature(someSecret, strings.Repeat(" ", maxHook+1)), 400},
		"no event":           {"<xml/>", signature(someSecret, "<xml/>"), 400},
		"another store's":    {strings.Replace(body, someStore, "x", 1), signature(someSecret, strings.Replace(body, someStore, "x", 1)), 200},
		"of something else":  {strings.Replace(body, "InvoiceSettled", "PaymentRequestUpdated", 1), signature(someSecret, strings.Replace(body, "InvoiceSettled", "PaymentRequestUpdated", 1)), 200},
		"the server's tests": {event("__test__abc", "InvoiceSettled"), signature(someSecret, event("__test__abc", "InvoiceSettled")), 200},
	} {
		if got := ring(t, sh.URL, c.body, c.sig); got != c.want {
			t.Errorf("%s: status %d, want %d", what, got, c.want)
		}
		if sh.State("o") != payment.Unpaid || sh.Polls("o") != 0 {
			t.Errorf("%s: the order is %s", what, sh.State("o"))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, asked := range s.asked[2:] { // after Begin
		if !strings.Contains(asked, "__test__") {
			t.Errorf("for a forgery the server was asked %s", asked)
		}
	}
}

// The same order has one invoice, whatever is lost, and however many begin it.
func TestOneInvoiceAnOrder(t *testing.T) {
	t.Parallel()
	s, sh := open(t)
	s.lose = true
	first := sh.Begin("o", euros, noon)
	again := sh.Begin("o", euros, noon)
	if first != again {
		t.Errorf("got %+v, then %+v", first, again)
	}
	var all sync.WaitGroup
	m := method(t, s)
	for range 10 {
		all.Go(func() {
			if _, err := m.Begin(t.Context(), payment.Order{ID: "p", Amount: euros, Expires: noon.Add(time.Hour)}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.invoices) != 2 {
		t.Errorf("there are %d invoices, want 2", len(s.invoices))
	}
}

// An order whose invoice says something else is not paid by it.
func TestAnotherInvoice(t *testing.T) {
	t.Parallel()
	s, sh := open(t)
	ref := sh.Begin("o", euros, noon).Ref
	s.become(ref, "Settled")
	for what, change := range map[string]func(*record){
		"a smaller amount": func(i *record) { i.Amount = "0.01" },
		"another currency": func(i *record) { i.Currency = "VND" },
		"another order":    func(i *record) { i.Order = "x" },
		"no amount":        func(i *record) { i.Amount = "" },
	} {
		i := s.find(ref)
		s.mu.Lock()
		was := *i
		change(i)
		s.mu.Unlock()
		if err := sh.Look(t.Context(), "o"); !errors.Is(err, cloudpal.Corrupt) || sh.State("o") != payment.Unpaid {
			t.Errorf("%s: got %v, and the order is %s", what, err, sh.State("o"))
		}
		s.mu.Lock()
		*i = was
		s.mu.Unlock()
	}
	i := s.find(ref)
	i.Amount = "12.500000" // the same, written otherwise
	look(t, sh, "o")
	if sh.State("o") != payment.Paid {
		t.Errorf("the order is %s", sh.State("o"))
	}
}

// Trouble that passes is sat out, and what does not pass is said.
func TestTrouble(t *testing.T) {
	t.Parallel()
	s, sh := open(t)
	ref := sh.Begin("o", euros, noon).Ref
	s.become(ref, "Settled")
	fail := func(times int, answer func(w http.ResponseWriter, r *http.Request)) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.trouble = func(w http.ResponseWriter, r *http.Request) bool {
			s.mu.Lock()
			times--
			left := times
			s.mu.Unlock()
			if left < 0 {
				return false
			}
			answer(w, r)
			return true
		}
	}
	status := func(code int) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(code) }
	}
	for what, c := range map[string]struct {
		times  int
		answer func(http.ResponseWriter, *http.Request)
		want   cloudpal.Kind
	}{
		"two of 500":     {2, status(500), ""},
		"one of 503":     {1, status(503), ""},
		"a lost answer":  {1, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, ""},
		"too many asked": {1, status(429), ""},
		"always 502":     {100, status(502), cloudpal.Missing},
		"another key":    {100, status(401), cloudpal.Denied},
		"no invoice":     {100, status(404), cloudpal.NotExist},
		"a bad question": {100, status(400), cloudpal.Invalid},
		"a web page":     {100, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "<html>") }, cloudpal.Corrupt},
		"another place": {100, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		}, cloudpal.Invalid},
		"very much":       {100, func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, 2<<20)) }, cloudpal.Corrupt},
		"half an invoice": {100, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"id":"other"}`) }, cloudpal.Corrupt},
	} {
		fail(c.times, c.answer)
		err := sh.Look(t.Context(), "o")
		if c.want == "" && err != nil || c.want != "" && !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %q", what, err, c.want)
		}
		for _, secret := range []string{someKey, someSecret} {
			if strings.Contains(fmt.Sprint(err, cloudpal.HintOf(err)), secret) {
				t.Errorf("%s: the error has a secret", what)
			}
		}
	}
	// A webhook that could not be followed up is asked for again.
	fail(100, status(503))
	body := event(ref, "InvoiceSettled")
	if got := ring(t, sh.URL, body, signature(someSecret, body)); got != 503 {
		t.Errorf("status %d, want 503", got)
	}
	// One that never answers is left when the caller says.
	fail(100, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := sh.Look(ctx, "o"); !errors.Is(err, cloudpal.Timeout) {
		t.Errorf("got %v, want %v", err, cloudpal.Timeout)
	}
}

func TestBeginRefuses(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	m := method(t, s)
	if _, err := m.Begin(t.Context(), payment.Order{ID: "o", Amount: euros, Expires: noon}); !errors.Is(err, cloudpal.Exhausted) {
		t.Errorf("an order that has expired: %v", err)
	}
	for what, answer := range map[string]string{
		"another amount": `{"id":"I","amount":"1","currency":"EUR","checkoutLink":"https://x/","metadata":{"orderId":"o"}}`,
		"no id":          `{"amount":"12.50","currency":"EUR","checkoutLink":"https://x/","metadata":{"orderId":"o"}}`,
		"a strange link": `{"id":"I","amount":"12.50","currency":"EUR","checkoutLink":"javascript:alert(1)","metadata":{"orderId":"o"}}`,
	} {
		s.trouble = func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method == http.MethodPost {
				fmt.Fprint(w, answer)
			}
			return r.Method == http.MethodPost
		}
		if b, err := m.Begin(t.Context(), payment.Order{ID: "o", Amount: euros, Expires: noon.Add(time.Hour)}); !errors.Is(err, cloudpal.Corrupt) {
			t.Errorf("%s: got %+v, %v", what, b, err)
		}
	}
	for what, c := range map[string]Config{
		"no address": {Store: "s", Key: "k", Secret: "x"}, "an address with a name": {URL: "https://a:b@c", Store: "s", Key: "k", Secret: "x"},
		"no secret": {URL: "https://c", Store: "s", Key: "k"}, "a key of two lines": {URL: "https://c", Store: "s", Key: "k\r\nx: y", Secret: "x"},
	} {
		if _, err := New(c, nil, nil); !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// FuzzHook: nothing that is not signed is followed, and nothing that is breaks it.
func FuzzHook(f *testing.F) {
	f.Add([]byte(event("I", "InvoiceSettled")), "sha256=00", true)
	f.Add([]byte("{}"), "", false)
	client := &http.Client{Transport: nowhere{}}
	m, err := New(Config{URL: "https://btcpay.example", Store: someStore, Key: someKey, Secret: someSecret}, client, time.Now)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, body []byte, sig string, sign bool) {
		if sign {
			sig = signature(someSecret, string(body))
		}
		r := httptest.NewRequest("POST", "/", strings.NewReader(string(body)))
		r.Header.Set("BTCPay-Sig", sig)
		order, err := m.Hook(r)
		if order != "" || !sign && err == nil {
			t.Errorf("%q signed by %q is of order %q", body, sig, order)
		}
	})
}

// nowhere has no invoices.
type nowhere struct{}

func (nowhere) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: 404, Body: http.NoBody, Request: r}, nil
}
