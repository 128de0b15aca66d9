package center

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/center/till"
	host "github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/test/bank"
	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/challenge"
)

// sells makes a center one that takes the bank's tickets.
func sells(b *bank.Bank) func(*Config) {
	return func(c *Config) {
		c.Money = &Money{
			Mints: func(ed25519.PrivateKey) ([]till.Issuer, error) { return []till.Issuer{{Trust: b.Trust, Mint: b}}, nil },
			Terms: till.Terms{Tariff: api.Tariff{Core: 64, Storage: 30}},
		}
	}
}

// pay pays the payer's tab with a ticket of today.
func pay(t *testing.T, c *api.Client, p *bank.Payer) {
	t.Helper()
	offer, err := c.Offer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	with := p.Buy(ticket.Paid, 64, ticket.EpochAt(time.Now()))
	if _, err := c.Pay(t.Context(), p.Request.ID, p.Pays(offer, with, time.Time{})); err != nil {
		t.Fatal(err)
	}
}

// A center that takes money makes and wakes no pal without it, and says what to do;
// when the money comes all is as if it had been there.
func TestNoMoneyNoPal(t *testing.T) {
	t.Parallel()
	b := bank.New(t, time.Now)
	p := open(t, newHouse(t), t.TempDir(), sells(b))
	payer, account := bank.NewPayer(t, b), newAccount(t)
	c := p.as(account)
	about, err := p.as(nil).Center(t.Context())
	if err != nil || !about.Paid {
		t.Errorf("the center says %+v (%v)", about, err)
	}
	create := api.CreateRequest{WireGuard: payer.Request.WireGuard}
	if _, err := c.Create(t.Context(), create); !errors.Is(err, cloudpal.Exhausted) || !strings.Contains(cloudpal.HintOf(err), "offer") {
		t.Errorf("unpaid: %v, hint %q", err, cloudpal.HintOf(err))
	}
	body, _ := json.Marshal(create)
	header := fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n", len(body))
	if status, problem := p.send(account, request("POST /v1/pals", header, string(body))); status != http.StatusPaymentRequired || problem.Hint == "" {
		t.Errorf("unpaid it is %d %+v", status, problem)
	}
	if got := p.house.took(); got != "POST images/import" {
		t.Errorf("for it the host was asked %q", got)
	}
	if _, err := c.OpenTab(t.Context(), payer.Request); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Create(t.Context(), create); !errors.Is(err, cloudpal.Exhausted) {
		t.Errorf("with a tab that is not paid: %v", err)
	}
	pay(t, c, payer)
	made, err := c.Create(t.Context(), create)
	if err != nil {
		t.Fatal(err)
	}
	// Another account's money is not this one's.
	if _, err := p.as(newAccount(t)).Create(t.Context(), create); !errors.Is(err, cloudpal.Exhausted) {
		t.Errorf("another account: %v", err)
	}
	if _, err := p.as(newAccount(t)).Tab(t.Context(), payer.Request.ID); !errors.Is(err, cloudpal.NotExist) {
		t.Errorf("another account sees the tab: %v", err)
	}
	tabs, err := c.Tabs(t.Context())
	if err != nil || len(tabs) != 1 || tabs[0].Paid != 64 {
		t.Errorf("tabs %+v (%v)", tabs, err)
	}
	// Closed, its money is at an end: it naps however often a packet wakes it, and
	// nothing asks for it.
	if _, err := c.CloseTab(t.Context(), payer.Request.ID); err != nil {
		t.Fatal(err)
	}
	p.till.Review()
	for _, is := range []host.State{host.Running, host.Running} {
		p.house.set(func(v *host.VM) { v.State = is })
		p.house.took()
		p.collect(t.Context(), newMeter())
		if got := p.house.took(); got != "POST vms/suspend" {
			t.Errorf("without money the host is asked %q", got)
		}
	}
	for what, ask := range map[string]func() error{
		"wake":   func() error { _, err := c.Wake(t.Context(), made.ID); return err },
		"lock":   func() error { _, err := c.Lock(t.Context(), made.ID); return err },
		"unlock": func() error { return c.Unlock(t.Context(), made.ID, []byte("x")) },
	} {
		if err := ask(); !errors.Is(err, cloudpal.Exhausted) || !strings.Contains(cloudpal.HintOf(err), "closed") {
			t.Errorf("%s: %v, hint %q", what, err, cloudpal.HintOf(err))
		}
	}
	// Another tab brings it back.
	payer.Anew()
	if _, err := c.OpenTab(t.Context(), payer.Request); err != nil {
		t.Fatal(err)
	}
	pay(t, c, payer)
	if got, err := c.Wake(t.Context(), made.ID); err != nil || got.State != api.Awake {
		t.Errorf("paid again: %+v (%v)", got, err)
	}
}

// A refusal for want of money says by RFC 9577 which tickets would change it: those of
// the offer, with the keys that the mint has published. One for another reason does not.
func TestUnpaidIsChallenged(t *testing.T) {
	t.Parallel()
	b := bank.New(t, time.Now)
	p := open(t, newHouse(t), t.TempDir(), func(c *Config) {
		sells(b)(c)
		c.Money.Terms.Classes, c.MaxOwned = []string{"paid", "free"}, 1
	})
	payer := bank.NewPayer(t, b)
	p.till.Chores(t.Context())
	c := p.as(newAccount(t))
	create := api.CreateRequest{WireGuard: payer.Request.WireGuard}
	var w *api.Wanted
	if _, err := c.Create(t.Context(), create); !errors.As(err, &w) || len(w.Tickets) != 2 || w.Tickets[0] != (api.WantedTicket{Issuer: bank.Issuer, Class: ticket.Paid}) {
		t.Errorf("unpaid: %v, wanted %+v", err, w)
	}
	offers, err := challenge.Offers([]string{p.till.Wanted()})
	if err != nil || len(offers) != 2 {
		t.Fatalf("the challenges are %+v (%v)", offers, err)
	}
	bought := payer.Buy(ticket.Paid, 64, ticket.EpochAt(time.Now()))
	if challenge.Digest(offers[0].Challenge) != bought.Token.Challenge || sha256.Sum256(offers[0].Key) != bought.Token.Key {
		t.Error("a ticket of today is no answer to the challenge")
	}
	if o := offers[1]; string(o.Challenge) != string(ticket.Challenge(bank.Issuer, ticket.Free)) || len(o.Key) == 0 {
		t.Errorf("the second challenge is %+v", o)
	}
	if _, err := c.OpenTab(t.Context(), payer.Request); err != nil {
		t.Fatal(err)
	}
	pay(t, c, payer)
	if _, err := c.Create(t.Context(), create); err != nil {
		t.Fatal(err)
	}
	payer.Anew()
	payer.Request.WireGuard = bytes.Repeat([]byte{7}, 32)
	if _, err := c.OpenTab(t.Context(), payer.Request); err != nil {
		t.Fatal(err)
	}
	pay(t, c, payer)
	w = nil
	if _, err := c.Create(t.Context(), api.CreateRequest{WireGuard: payer.Request.WireGuard}); !errors.Is(err, cloudpal.Exhausted) || errors.As(err, &w) {
		t.Errorf("one more than an account may have: %v, wanted %+v", err, w)
	}
}

// The mints' receipts are for who has the center's own key, and nobody else.
func TestReceiptsAreTheOperators(t *testing.T) {
	t.Parallel()
	b := bank.New(t, time.Now)
	dir := t.TempDir()
	p := open(t, newHouse(t), dir, sells(b))
	payer, account := bank.NewPayer(t, b), newAccount(t)
	c := p.as(account)
	if _, err := c.OpenTab(t.Context(), payer.Request); err != nil {
		t.Fatal(err)
	}
	pay(t, c, payer)
	key, err := ReadKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := p.as(key).Receipts(t.Context(), ""); err != nil || len(got.Receipts) != 1 || got.Receipts[0].Issuer != bank.Issuer {
		t.Errorf("the operator has %+v (%v)", got, err)
	}
	for what, who := range map[string]ed25519.PrivateKey{"a stranger": nil, "who paid": account} {
		if _, err := p.as(who).Receipts(t.Context(), ""); !errors.Is(err, cloudpal.Denied) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := p.as(key).Receipts(t.Context(), "nonsense"); !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("after nonsense: %v", err)
	}
	none := t.TempDir()
	if _, err := ReadKey(none); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("where there is no center: %v", err)
	}
	if list, err := os.ReadDir(none); err != nil || len(list) > 0 {
		t.Errorf("looking for a key made %v (%v)", list, err)
	}
}

// What stage a tab is in is where its pal is, and in the end it is gone.
func TestPalsFollowTheirMoney(t *testing.T) {
	t.Parallel()
	clock := bank.NewClock(time.Now())
	b := bank.New(t, clock.Now)
	p := open(t, newHouse(t), t.TempDir(), func(c *Config) {
		sells(b)(c)
		c.Money.Now = clock.Now
	})
	payer := bank.NewPayer(t, b)
	c := p.as(newAccount(t))
	if _, err := c.OpenTab(t.Context(), payer.Request); err != nil {
		t.Fatal(err)
	}
	pay(t, c, payer)
	if _, err := c.Create(t.Context(), api.CreateRequest{WireGuard: payer.Request.WireGuard}); err != nil {
		t.Fatal(err)
	}
	m := newMeter()
	p.collect(t.Context(), m)
	// The host counts thirty hours awake; the money is for a day.
	clock.Add(20 * time.Hour)
	p.house.awake(20 * time.Hour)
	p.collect(t.Context(), newMeter())
	meter, err := c.Meter(t.Context(), payer.Request.ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Countersign(t.Context(), payer.Request.ID, payer.Agrees(meter)); err != nil {
		t.Fatal(err)
	}
	tab, err := c.Tab(t.Context(), payer.Request.ID)
	if err != nil || tab.Used != 53 || tab.Signed != 53 {
		t.Errorf("after 20 of 24 hours the tab is %+v (%v)", tab, err)
	}
	clock.Add(10 * time.Hour)
	p.house.awake(30 * time.Hour)
	p.collect(t.Context(), newMeter())
	p.till.Review()
	p.house.took()
	p.collect(t.Context(), m)
	if got := p.house.took(); got != "POST vms/suspend" {
		t.Errorf("when its money has ended the host is asked %q", got)
	}
	events, err := c.TabEvents(t.Context(), payer.Request.ID, 0, 0)
	if err != nil || len(events) < 3 {
		t.Fatalf("events %+v (%v)", events, err)
	}
	pass := func(d time.Duration) {
		for ; d > 0; d -= 2 * time.Minute {
			clock.Add(2 * time.Minute)
			p.till.Review()
		}
	}
	pass(3*24*time.Hour + time.Hour)
	p.house.took()
	p.collect(t.Context(), m)
	if got := p.house.took(); got != "POST vms/suspend" || p.house.depth() != host.Sealed {
		t.Errorf("three days later the host is asked %q, to %s", got, p.house.depth())
	}
	if left := p.house.left(); left == "" {
		t.Error("it is gone too early")
	}
	pass(27 * 24 * time.Hour)
	p.collect(t.Context(), m)
	if left := p.house.left(); left != "" {
		t.Errorf("thirty days later there is %s", left)
	}
}

// A pal from before the center took money naps, and is not taken away.
func TestPalsFromBeforeMoney(t *testing.T) {
	t.Parallel()
	h, dir, account := newHouse(t), t.TempDir(), newAccount(t)
	p := open(t, h, dir, nil)
	made := create(t, p.as(account), 1)
	p.end()
	b := bank.New(t, time.Now)
	p = open(t, h, dir, sells(b))
	p.till.Review()
	h.took()
	p.collect(t.Context(), newMeter())
	if got := h.took(); got != "POST vms/suspend" {
		t.Errorf("the host is asked %q", got)
	}
	if _, err := p.as(account).Wake(t.Context(), made.ID); !errors.Is(err, cloudpal.Exhausted) {
		t.Errorf("woken: %v", err)
	}
	// And a center that takes none any more is free of charge again.
	p.end()
	p = open(t, h, dir, nil)
	if got, err := p.as(account).Wake(t.Context(), made.ID); err != nil || got.State != api.Awake {
		t.Errorf("free again: %+v (%v)", got, err)
	}
	if _, err := p.as(account).Offer(t.Context()); !errors.Is(err, cloudpal.NotExist) {
		t.Errorf("it offers %v", err)
	}
}

// What is wrong about money is told with its kind, and what to do.
func TestBadMoney(t *testing.T) {
	t.Parallel()
	b := bank.New(t, time.Now)
	p := open(t, newHouse(t), t.TempDir(), sells(b))
	payer, account := bank.NewPayer(t, b), newAccount(t)
	c := p.as(account)
	if _, err := c.OpenTab(t.Context(), payer.Request); err != nil {
		t.Fatal(err)
	}
	id := payer.Request.ID.String()
	for what, q := range map[string]struct {
		line, body string
		want       int
	}{
		"no tab":              {"GET /v1/tabs/nonsense", "", 404},
		"a tab in capitals":   {"GET /v1/tabs/" + strings.ToUpper(id), "", 404},
		"a tab of nobody's":   {"GET /v1/tabs/" + strings.Repeat("0", 64), "", 404},
		"no request":          {"POST /v1/tabs", "{}", 400},
		"an unknown field":    {"POST /v1/tabs/" + id + "/pay", `{"gift":1}`, 400},
		"nothing":             {"POST /v1/tabs/" + id + "/pay", `{}`, 400},
		"huge":                {"POST /v1/tabs/" + id + "/pay", `{"spend":"` + strings.Repeat("A", 1<<16) + `"}`, 400},
		"two payments":        {"POST /v1/tabs/" + id + "/pay", `{}{}`, 400},
		"a record of none":    {"POST /v1/tabs/" + id + "/meter", `{"record":"AAAA","signature":"AAAA"}`, 409},
		"the end of nothing":  {"POST /v1/tabs/" + id + "/close", `{}`, 400},
		"a wait without end":  {"GET /v1/tabs/" + id + "/events?wait=1h", "", 400},
		"an offer to be made": {"POST /v1/offer", "{}", 404},
	} {
		header := fmt.Sprintf("Content-Type: application/json\r\nContent-Length: %d\r\n", len(q.body))
		status, problem := p.send(account, request(q.line, header, q.body))
		if status != q.want || problem.Title == "" {
			t.Errorf("%s: %d %+v, want %d", what, status, problem, q.want)
		}
	}
	if status, _ := p.send(nil, request("GET /v1/tabs", "", "")); status != http.StatusForbidden {
		t.Errorf("a stranger's tabs: %d", status)
	}
	if status, _ := p.send(nil, request("GET /v1/offer", "", "")); status != http.StatusOK {
		t.Errorf("a stranger asks for the offer: %d", status)
	}
}

// A core that is unlocked countersigns over the relay, so that a pal is paid for while
// its person is away; one that does not is no trouble.
func TestACoreCountersigns(t *testing.T) {
	t.Parallel()
	clock := bank.NewClock(time.Now())
	b := bank.New(t, clock.Now)
	p, answerWith := withCore(t, "127.77.0.9", func(c *Config) {
		sells(b)(c)
		c.Money.Now = clock.Now
	})
	payer := bank.NewPayer(t, b)
	payer.Request.Nonce = []byte("0123456789abcdef")
	c := p.as(newAccount(t))
	if _, err := c.OpenTab(t.Context(), payer.Request); err != nil {
		t.Fatal(err)
	}
	pay(t, c, payer)
	if _, err := c.Create(t.Context(), api.CreateRequest{WireGuard: payer.Request.WireGuard}); err != nil {
		t.Fatal(err)
	}
	offer, err := c.Offer(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.collect(t.Context(), newMeter())
	clock.Add(6 * time.Hour)
	p.house.awake(6 * time.Hour)
	asked := make(chan string, 8)
	answerWith(func(w http.ResponseWriter, r *http.Request) {
		asked <- "locked"
		w.WriteHeader(http.StatusTooManyRequests)
	})
	p.collect(t.Context(), newMeter())
	<-asked
	answerWith(func(w http.ResponseWriter, r *http.Request) {
		var q struct{ Nonce, Offer, Record, Signature []byte }
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil || r.URL.Path != "/v1/countersign" {
			t.Errorf("the core is asked %s: %v", r.URL.Path, err)
		}
		if string(q.Nonce) != "0123456789abcdef" || string(q.Offer) != string(offer.Text) {
			t.Errorf("the core is shown another nonce or offer: %q %s", q.Nonce, q.Offer)
		}
		json.NewEncoder(w).Encode(payer.Agrees(api.Meter{Record: q.Record}))
	})
	p.collect(t.Context(), newMeter())
	eventually(t, "it is countersigned", func() bool {
		tab, err := c.Tab(t.Context(), payer.Request.ID)
		return err == nil && tab.Signed == 16
	})
}
