package card

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	_ "modernc.org/sqlite"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/mint/payment"
	"github.com/tradle/cloudpal/mint/payment/ask"
	"github.com/tradle/cloudpal/test/shop"
)

var euros = payment.Amount{Minor: 1000, Currency: "EUR"}

// A street has Stripe, a shop that takes cards, and a clock.
type street struct {
	*server
	*shop.Shop
	db    *sql.DB
	cards *Cards

	mu sync.Mutex
	at time.Time
}

func (s *street) clock() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at
}

func (s *street) pass(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = s.at.Add(d)
}

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

func openWith(t *testing.T, db *sql.DB) *street {
	s := &street{at: time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC), db: db}
	s.server = newServer(t, s.clock)
	s.start(t)
	return s
}

func open(t *testing.T) *street {
	db, _ := lite(t)
	return openWith(t, db)
}

func (s *street) config() Config {
	return Config{Key: someKey, Secret: someSecret, Return: "https://mint.example/thanks", NewLimit: 2500, URL: s.server.URL}
}

// start is a start of the mint.
func (s *street) start(t *testing.T) {
	t.Helper()
	client := ask.NewClient()
	t.Cleanup(client.CloseIdleConnections)
	cards, err := Open(t.Context(), s.config(), client, s.db, s.clock)
	if err != nil {
		t.Fatal(err)
	}
	s.cards, s.Shop = cards, shop.Open(t, cards)
}

func (s *street) look(t *testing.T, id string) payment.State {
	t.Helper()
	if err := s.Look(t.Context(), id); err != nil {
		t.Fatalf("look for %s: %v", id, err)
	}
	return s.State(id)
}

// buy pays an order by a card, and returns its page and what became of it.
func (s *street) buy(t *testing.T, id string, a payment.Amount, card string) (string, payment.State) {
	t.Helper()
	ref := s.Begin(id, a, s.clock()).Ref
	s.pay(ref, card)
	return ref, s.look(t, id)
}

// A new card's tickets are issued when its money is the mint's.
func TestNewCard(t *testing.T) {
	t.Parallel()
	s := open(t)
	begun := s.Begin("o", euros, s.clock())
	if !strings.HasSuffix(begun.URL, "/c/pay/"+begun.Ref) || s.look(t, "o") != payment.Unpaid {
		t.Errorf("begun: %+v, %s", begun, s.State("o"))
	}
	s.become(begun.Ref, func(p *page) { p.Intent, p.Failed = "requires_payment_method", true })
	if s.look(t, "o") != payment.Unpaid || !strings.Contains(s.Hint("o"), "refused") {
		t.Errorf("a refused card: %s, %s", s.State("o"), s.Hint("o"))
	}
	s.pay(begun.Ref, "ann")
	if s.look(t, "o") != payment.Pending || s.did("capture o") != 1 || !strings.Contains(s.Hint("o"), "2 December 2026") {
		t.Errorf("paid: %s, %s", s.State("o"), s.Hint("o"))
	}
	s.become(begun.Ref, func(p *page) { p.Available = true })
	if s.look(t, "o") != payment.Paid || s.did("capture o") != 1 {
		t.Errorf("settled: %s", s.State("o"))
	}
}

// A card that paid well for long pays at once, and more.
func TestKnownCard(t *testing.T) {
	t.Parallel()
	s := open(t)
	s.buy(t, "first", euros, "ann")
	dear := payment.Amount{Minor: 90_00, Currency: "EUR"}
	s.pass(DefaultProbation*24*time.Hour - time.Hour)
	if _, got := s.buy(t, "early", dear, "ann"); got != payment.Dead {
		t.Errorf("before its time: %s", got)
	}
	s.pass(2 * time.Hour)
	if _, got := s.buy(t, "late", dear, "ann"); got != payment.Paid {
		t.Errorf("a known card: %s", got)
	}
	if _, got := s.buy(t, "other", dear, "bob"); got != payment.Dead {
		t.Errorf("another card: %s", got)
	}
}

// What a new card pays is limited in all, whatever it is split into and however
// quickly; one that is above is not charged at all.
func TestLimit(t *testing.T) {
	t.Parallel()
	engines(t, func(t *testing.T, db *sql.DB) {
		s := openWith(t, db)
		for i, want := range []payment.State{payment.Pending, payment.Pending, payment.Dead} {
			id := fmt.Sprint("o", i)
			if _, got := s.buy(t, id, euros, "ann"); got != want {
				t.Errorf("order %d: %s, want %s", i, got, want)
			}
		}
		if s.did("cancel o2") != 1 || s.did("capture o2") != 0 || !strings.Contains(s.Hint("o2"), "25.00 EUR in its first 120 days") {
			t.Errorf("what is above the limit: %s", s.Hint("o2"))
		}
		if _, got := s.buy(t, "small", payment.Amount{Minor: 500, Currency: "EUR"}, "ann"); got != payment.Pending {
			t.Errorf("what is left of the limit: %s", got)
		}
		if _, got := s.buy(t, "bobs", euros, "bob"); got != payment.Pending {
			t.Errorf("another card: %s", got)
		}
		// Ten at once share the limit.
		var all sync.WaitGroup
		for i := range 10 {
			id := fmt.Sprint("at once ", i)
			s.pay(s.Begin(id, euros, s.clock()).Ref, "carol")
			all.Go(func() {
				if err := s.Look(t.Context(), id); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		taken := 0
		for i := range 10 {
			taken += s.did(fmt.Sprint("capture at once ", i))
		}
		if taken != 2 {
			t.Errorf("%d of ten orders at once were taken, want 2", taken)
		}
	})
}

// A payment that is taken back is said to be, and its card is not taken again; an
// inquiry is no dispute, and a dispute that is won is over.
func TestDisputes(t *testing.T) {
	t.Parallel()
	s := open(t)
	ref, _ := s.buy(t, "o", euros, "ann")
	s.become(ref, func(p *page) { p.Available = true })
	if s.look(t, "o") != payment.Paid {
		t.Fatalf("the order is %s", s.State("o"))
	}
	for _, step := range []struct {
		disputes []string
		event    string
		want     payment.State
	}{
		{[]string{"warning_needs_response"}, "charge.dispute.created", payment.Paid},
		{[]string{"warning_closed"}, "charge.dispute.closed", payment.Paid},
		{[]string{"warning_closed", "needs_response"}, "charge.dispute.created", payment.Reversed},
		{[]string{"warning_closed", "under_review"}, "charge.dispute.updated", payment.Reversed},
		{[]string{"warning_closed", "won"}, "charge.dispute.closed", payment.Paid},
		{[]string{"lost"}, "charge.dispute.closed", payment.Reversed},
		{[]string{"a status of tomorrow"}, "charge.dispute.closed", payment.Reversed},
	} {
		s.become(ref, func(p *page) { p.Disputed, p.Disputes = true, step.disputes })
		body := s.event(step.event, ref)
		if got := ring(t, s.Shop.URL, body, signature(someSecret, body, s.clock())); got != 200 || s.State("o") != step.want {
			t.Errorf("%v: status %d, the order is %s, want %s", step.disputes, got, s.State("o"), step.want)
		}
	}
	s.pass(2 * DefaultProbation * 24 * time.Hour)
	if _, got := s.buy(t, "again", euros, "ann"); got != payment.Dead || s.did("capture again") != 0 {
		t.Errorf("the card is taken again: %s", got)
	}
	ref, _ = s.buy(t, "p", euros, "bob")
	s.become(ref, func(p *page) { p.Available, p.Refunded = true, 1 })
	if s.look(t, "p") != payment.Reversed {
		t.Errorf("a refunded order is %s", s.State("p"))
	}
}

// A card that could not be known again is not taken.
func TestNoFingerprint(t *testing.T) {
	t.Parallel()
	s := open(t)
	if _, got := s.buy(t, "o", euros, ""); got != payment.Dead || s.did("capture o") != 0 {
		t.Errorf("the order is %s", got)
	}
}

func TestExpired(t *testing.T) {
	t.Parallel()
	s := open(t)
	ref := s.Begin("o", euros, s.clock()).Ref
	s.become(ref, func(p *page) { p.Status = "expired" })
	if s.look(t, "o") != payment.Dead {
		t.Errorf("the order is %s", s.State("o"))
	}
	// A reservation that ended before it was taken leaves the limit as it was.
	ref = s.Begin("p", payment.Amount{Minor: 2500, Currency: "EUR"}, s.clock()).Ref
	s.pay(ref, "ann")
	s.trouble = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost {
			w.WriteHeader(http.StatusForbidden)
		}
		return r.Method == http.MethodPost
	}
	if err := s.Look(t.Context(), "p"); !errors.Is(err, cloudpal.Denied) {
		t.Errorf("got %v", err)
	}
	s.trouble = nil
	s.become(ref, func(p *page) { p.Intent = "canceled" })
	if s.look(t, "p") != payment.Dead {
		t.Errorf("the order is %s", s.State("p"))
	}
	if _, got := s.buy(t, "q", payment.Amount{Minor: 2500, Currency: "EUR"}, "ann"); got != payment.Pending {
		t.Errorf("after it: %s", got)
	}
}

func TestWebhooksInAnyOrder(t *testing.T) {
	t.Parallel()
	s := open(t)
	ref := s.Begin("o", euros, s.clock()).Ref
	s.pay(ref, "ann")
	for _, kind := range []string{
		"charge.succeeded", "payment_intent.succeeded", "checkout.session.completed", "payment_intent.created", "charge.captured",
		"checkout.session.completed", "payment_intent.amount_capturable_updated", "checkout.session.expired", "payment_intent.payment_failed",
	} {
		body := s.event(kind, ref)
		if got := ring(t, s.Shop.URL, body, signature(someSecret, body, s.clock())); got != 200 || s.State("o") != payment.Pending {
			t.Errorf("%s: status %d, the order is %s", kind, got, s.State("o"))
		}
	}
	if s.did("capture o") != 1 {
		t.Errorf("the money was taken %d times", s.did("capture o"))
	}
	// An event that says what is not so changes nothing.
	other := s.Begin("p", euros, s.clock()).Ref
	body := strings.Replace(s.event("checkout.session.completed", other), `"payment_status":"unpaid"`, `"payment_status":"paid"`, 1)
	if got := ring(t, s.Shop.URL, body, signature(someSecret, body, s.clock())); got != 200 || s.State("p") != payment.Unpaid {
		t.Errorf("status %d, the order is %s", got, s.State("p"))
	}
	body = `{"type":"customer.created","data":{"object":{"id":"cus_1"}}}`
	if got := ring(t, s.Shop.URL, body, signature(someSecret, body, s.clock())); got != 200 {
		t.Errorf("of something else: status %d", got)
	}
	body = `{"type":"charge.succeeded","data":{"object":{"id":"ch_9","payment_intent":"pi_of_another_shop","metadata":{}}}}`
	if got := ring(t, s.Shop.URL, body, signature(someSecret, body, s.clock())); got != 200 {
		t.Errorf("of another shop's payment: status %d", got)
	}
}

func TestForgeries(t *testing.T) {
	t.Parallel()
	s := open(t)
	ref := s.Begin("o", euros, s.clock()).Ref
	body := s.event("checkout.session.completed", ref)
	now := s.clock()
	good := signature(someSecret, body, now)
	for what, c := range map[string]struct {
		body, sig string
		want      int
	}{
		"no signature":      {body, "", 403},
		"another secret":    {body, signature("x", body, now), 403},
		"another body":      {body + " ", good, 403},
		"only another way":  {body, strings.Replace(good, "v1=", "v2=", 1), 403},
		"no time":           {body, strings.Replace(good, "t=", "x=", 1), 403},
		"a changed time":    {body, strings.Replace(good, fmt.Sprint("t=", now.Unix()), fmt.Sprint("t=", now.Unix()+1), 1), 403},
		"six minutes old":   {body, signature(someSecret, body, now.Add(-6*time.Minute)), 403},
		"of six minutes on": {body, signature(someSecret, body, now.Add(6*time.Minute)), 403},
		"very old":          {body, strings.Replace(good, fmt.Sprint("t=", now.Unix()), "t=-9223372036854775808", 1), 403},
		"garbage":           {body, ",,=,t=,v1=", 403},
		"a large body":      {strings.Repeat(" ", maxHook+1), signature(someSecret, strings.Repeat(" ", maxHook+1), now), 400},
		"no event":          {"[]", signature(someSecret, "[]", now), 400},
		"about nothing":     {`{"type":"charge.x","data":{"object":7}}`, signature(someSecret, `{"type":"charge.x","data":{"object":7}}`, now), 400},
	} {
		if got := ring(t, s.Shop.URL, c.body, c.sig); got != c.want {
			t.Errorf("%s: status %d, want %d", what, got, c.want)
		}
		if s.Polls("o") != 0 {
			t.Errorf("%s: the shop asked for the order", what)
		}
	}
	// While the secret is changed, there are two signatures, and one is good.
	two := strings.Replace(good, "v1=", "v1="+strings.Repeat("00", 32)+",v1=", 1)
	for _, sig := range []string{two, signature(someSecret, body, now.Add(-4*time.Minute))} {
		if got := ring(t, s.Shop.URL, body, sig); got != 200 {
			t.Errorf("%s: status %d", sig, got)
		}
	}
}

// TestSignatureOfOthers: made by Stripe's own library for Go.
func TestSignatureOfOthers(t *testing.T) {
	t.Parallel()
	const body, secret, at = `{"id":"evt_test","object":"event"}`, "whsec_test_secret", 1764504000
	const header = "t=1764504000,v1=ca6e83ede3d8f8459a0e6481ac9bc608efa9e0981d0a79118356f9e43ff34dca"
	if !signed(header, []byte(body), []byte(secret), time.Unix(at, 0)) {
		t.Error("what the library signed is refused")
	}
}

// Whatever is killed and lost, an order has one page, and its money is taken once.
func TestOnceWhateverIsLost(t *testing.T) {
	t.Parallel()
	s := open(t)
	s.lose = 1
	first := s.Begin("o", euros, s.clock())
	s.start(t)
	if again := s.Begin("o", euros, s.clock()); again != first || len(s.sessions) != 1 {
		t.Errorf("got %+v, then %+v, of %d", first, again, len(s.sessions))
	}
	s.pay(first.Ref, "ann")
	s.lose = 1
	if got := s.look(t, "o"); got != payment.Pending || s.did("capture o") != 1 {
		t.Errorf("the order is %s, taken %d times", got, s.did("capture o"))
	}

	// What is decided stays so: killed between the decision and its doing, the next
	// does it, though by then the card would be judged otherwise.
	ref := s.Begin("p", euros, s.clock()).Ref
	s.pay(ref, "ann")
	s.trouble = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPost {
			w.WriteHeader(http.StatusUnauthorized)
		}
		return r.Method == http.MethodPost
	}
	if err := s.Look(t.Context(), "p"); !errors.Is(err, cloudpal.Denied) {
		t.Fatalf("got %v", err)
	}
	s.trouble = nil
	_, got := s.buy(t, "q", payment.Amount{Minor: 600, Currency: "EUR"}, "ann") // would be within the limit without p
	if got != payment.Dead {
		t.Errorf("the limit does not count what is decided: %s", got)
	}
	s.start(t)
	s.Begin("p", euros, s.clock())
	if got := s.look(t, "p"); got != payment.Pending || s.did("capture p") != 1 {
		t.Errorf("the order is %s, taken %d times", got, s.did("capture p"))
	}
}

// A failure that Stripe keeps under its key does not keep an order for ever.
func TestFailuresThatAreKept(t *testing.T) {
	t.Parallel()
	s := open(t)
	s.failing = 1
	ref := s.Begin("o", euros, s.clock()).Ref
	s.pay(ref, "ann")
	s.failing = 1
	if got := s.look(t, "o"); got != payment.Pending || s.did("capture o") != 1 {
		t.Errorf("the order is %s, taken %d times", got, s.did("capture o"))
	}
}

func TestTrouble(t *testing.T) {
	t.Parallel()
	s := open(t)
	ref, _ := s.buy(t, "o", euros, "ann")
	fail := func(times int, answer func(w http.ResponseWriter, r *http.Request)) {
		s.server.mu.Lock()
		defer s.server.mu.Unlock()
		s.trouble = func(w http.ResponseWriter, r *http.Request) bool {
			s.server.mu.Lock()
			times--
			left := times
			s.server.mu.Unlock()
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
	page := func(text string) func(http.ResponseWriter, *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, text) }
	}
	for what, c := range map[string]struct {
		times  int
		answer func(http.ResponseWriter, *http.Request)
		want   cloudpal.Kind
	}{
		"one of 500":       {1, status(500), ""},
		"a lost answer":    {1, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, ""},
		"too many asked":   {1, status(429), ""},
		"locked":           {1, status(409), ""},
		"always 503":       {100, status(503), cloudpal.Missing},
		"another key":      {100, status(401), cloudpal.Denied},
		"no page":          {100, status(404), cloudpal.NotExist},
		"a web page":       {100, page("<html>"), cloudpal.Corrupt},
		"another page":     {100, page(`{"id":"cs_other","client_reference_id":"o","amount_total":1000,"currency":"eur"}`), cloudpal.Corrupt},
		"another's page":   {100, page(`{"id":"` + ref + `","client_reference_id":"p","amount_total":1000,"currency":"eur"}`), cloudpal.Corrupt},
		"a smaller amount": {100, page(`{"id":"` + ref + `","client_reference_id":"o","amount_total":1,"currency":"eur"}`), cloudpal.Corrupt},
		"another currency": {100, page(`{"id":"` + ref + `","client_reference_id":"o","amount_total":1000,"currency":"jpy"}`), cloudpal.Corrupt},
		"a smaller intent": {100, page(`{"id":"` + ref + `","client_reference_id":"o","amount_total":1000,"currency":"eur","payment_intent":{"amount":1,"currency":"eur","status":"succeeded"}}`), cloudpal.Corrupt},
		"less received":    {100, page(`{"id":"` + ref + `","client_reference_id":"o","amount_total":1000,"currency":"eur","payment_intent":{"amount":1000,"amount_received":1,"currency":"eur","status":"succeeded"}}`), cloudpal.Corrupt},
		"a strange state":  {100, page(`{"id":"` + ref + `","client_reference_id":"o","amount_total":1000,"currency":"eur","payment_intent":{"amount":1000,"currency":"eur","status":"teapot"}}`), cloudpal.Corrupt},
		"very much":        {100, func(w http.ResponseWriter, r *http.Request) { w.Write(make([]byte, 2<<20)) }, cloudpal.Corrupt},
	} {
		fail(c.times, c.answer)
		err := s.Look(t.Context(), "o")
		if c.want == "" && err != nil || c.want != "" && !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %q", what, err, c.want)
		}
		for _, secret := range []string{someKey, someSecret} {
			if strings.Contains(fmt.Sprint(err, cloudpal.HintOf(err)), secret) {
				t.Errorf("%s: the error has a secret", what)
			}
		}
	}
	fail(100, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Look(ctx, "o"); !errors.Is(err, cloudpal.Timeout) {
		t.Errorf("a slow answer: got %v", err)
	}
	fail(100, status(503))
	body := s.event("checkout.session.completed", ref)
	if got := ring(t, s.Shop.URL, body, signature(someSecret, body, s.clock())); got != 503 {
		t.Errorf("a webhook that cannot be followed up: status %d", got)
	}
	fail(0, nil)
	s.db.Close()
	if err := s.Look(t.Context(), "o"); !errors.Is(err, cloudpal.Missing) {
		t.Errorf("without the database: %v", err)
	}
}

// Neither a card's number, nor what Stripe knows it by, is in the database.
func TestWhatIsKept(t *testing.T) {
	t.Parallel()
	db, path := lite(t)
	s := openWith(t, db)
	s.buy(t, "o", euros, "Xt5EWLLDS7FJjR1c")
	db.Close()
	files, _ := filepath.Glob(path + "*")
	var seen []byte
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, data...)
	}
	if !bytes.Contains(seen, []byte("cs_test_1")) || bytes.Contains(seen, []byte("Xt5EWLLDS7FJjR1c")) || bytes.Contains(seen, []byte("4242")) {
		t.Error("the database has more of a card than it must, or is not what was looked at")
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	db, _ := lite(t)
	good := Config{Key: "k", Secret: "s", Return: "https://x/"}
	for what, change := range map[string]func(*Config){
		"no key": func(c *Config) { c.Key = "" }, "no secret": func(c *Config) { c.Secret = "" },
		"a page of another kind": func(c *Config) { c.Return = "javascript:x" }, "two lines": func(c *Config) { c.Key = "k\nx" },
		"a limit below zero": func(c *Config) { c.NewLimit = -1 },
	} {
		c := good
		change(&c)
		if _, err := Open(t.Context(), c, nil, db, time.Now); !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// FuzzHook: nothing that is not signed is followed, and nothing that is breaks it.
func FuzzHook(f *testing.F) {
	f.Add([]byte(`{"type":"charge.succeeded","data":{"object":{"payment_intent":"pi_1"}}}`), "t=1,v1=00", true)
	f.Add([]byte(`{}`), "", false)
	now := time.Unix(1764504000, 0)
	c := &Cards{Config: Config{Secret: someSecret}, now: func() time.Time { return now }, service: ask.Service{
		Base: "https://api.example", Client: &http.Client{Transport: nowhere{}}, Authorize: func(http.Header) {}}}
	f.Fuzz(func(t *testing.T, body []byte, sig string, sign bool) {
		if sign {
			sig = signature(someSecret, string(body), now)
		}
		r := httptest.NewRequest("POST", "/", strings.NewReader(string(body)))
		r.Header.Set("Stripe-Signature", sig)
		if order, err := c.Hook(r); !sign && (err == nil || order != "") {
			t.Errorf("%q signed by %q is of order %q", body, sig, order)
		}
	})
}

// nowhere has no payments.
type nowhere struct{}

func (nowhere) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: 404, Body: http.NoBody, Request: r}, nil
}
