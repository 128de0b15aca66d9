package simulation_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
	mintapi "github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/mint/books"
	"github.com/tradle/cloudpal/mint/payment"
	"github.com/tradle/cloudpal/person/wallet"
	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/manifest"
)

// A world is a mint, its centers, and people.
type world struct {
	testing.TB
	home    string
	seed    uint64
	clock   *clock
	net     *network
	policy  wallet.Policy
	trust   *manifest.Trust
	mint    *theMint
	centers []*center
	people  []*person
	codes   []string

	left     atomic.Int64 // people who are not done
	bought   atomic.Int64 // packs
	payments atomic.Int64

	mu       sync.Mutex // of what was seen
	seen     sightings
	firsts   []truth
	proven   int // second spendings that the mint's evidence proves
	unproven []string
}

// must is for what is no test's concern.
func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

// A setting is what a world is made of.
type setting struct {
	seed   uint64
	people int
	faults faults
	dies   float64 // how likely a mint or a center dies at an instant at which it could
	policy wallet.Policy
}

func newWorld(tb testing.TB, dir string, s setting) *world {
	w := &world{TB: tb, home: dir, seed: s.seed, clock: newClock(start), policy: s.policy}
	w.seen = sightings{issues: map[string]issued{}, paid: map[api.TabID][]paid{}}
	w.net = &network{faults: s.faults, parties: map[string]party{}, sees: w.sees}
	press := press{}
	log, trust := newKeylog(w.clock.Now, press.keys(ticket.EpochAt(start), made()))
	w.trust = trust
	w.mint = &theMint{mortal: mortal{odds: s.dies, luck: w.luck(ofMint)}, folder: newFolder(dir + "/mint"), now: w.clock.Now, press: press, log: log}
	w.must(w.mint.open())
	w.net.parties[issuer] = w.mint
	for i, slice := range []ticket.Denomination{1, 4, 4} {
		c := &center{
			mortal: mortal{odds: s.dies, luck: w.luck(ofCenter + uint64(2*i))}, folder: newFolder(fmt.Sprintf("%s/center-%d", dir, i)),
			net: w.net, way: w.luck(ofCenter + uint64(2*i+1)), name: fmt.Sprintf("center-%d.example", i), key: keyOf(fmt.Sprint("center ", i)), slice: slice, trust: trust, now: w.clock.Now,
		}
		w.must(c.open())
		w.net.parties[c.name] = c
		w.centers = append(w.centers, c)
	}
	if s.people == 0 {
		return w
	}
	codes, err := w.mint.vouchers.Make(context.Background(), "all", payment.Amount{Minor: price, Currency: "EUR"}, s.people)
	w.must(err)
	for _, c := range codes {
		w.codes = append(w.codes, c.Print())
	}
	return w
}

// luck is what happens to one of many: its draws are the same whatever others do.
func (w *world) luck(whose uint64) *rand.Rand { return rand.New(rand.NewPCG(w.seed, whose)) }

// Who has luck of its own, besides people. Those and centers have two, one after another.
const (
	ofArrivals = 1<<40 + iota
	ofMint
	ofCenter
)

// close ends all processes.
func (w *world) close() {
	w.must(w.mint.close())
	for _, c := range w.centers {
		w.must(c.till.Close())
	}
	for _, p := range w.people {
		if p.wallet != nil {
			w.must(p.wallet.Close())
		}
	}
}

// runs lets people live, who come one after another within a time, and centers work
// for them; it returns when all is settled. One of so many cheats.
func (w *world) runs(n int, within time.Duration, cheats int, life func(*person) error) {
	random := w.luck(ofArrivals)
	w.left.Store(int64(n))
	for i := range n {
		p := w.person(i, cheats > 0 && i%cheats == cheats-1)
		p.voucher = w.codes[i]
		w.people = append(w.people, p)
		p.clock.start(time.Duration(random.Int64N(int64(within))), func() {
			if err := life(p); err != nil {
				w.Errorf("%s cannot go on (seed %d): %v", p.name, w.seed, err)
			}
			w.left.Add(-1)
		})
	}
	for _, c := range w.centers {
		c.starts(w)
	}
	// The mint looks at its log anew by the machine's time: it is ended each day by
	// somebody, so that it does so by this one's.
	daily := w.clock.actor()
	daily.start(0, func() {
		for w.left.Load() > 0 {
			daily.sleep(24 * time.Hour)
			w.mint.kill()
		}
	})
	w.clock.run()
}

// settles lets the way be good from now on, and all that is under way come to its
// end.
func (w *world) settles() {
	w.net.faults, w.mint.odds = faults{}, 0
	for _, c := range w.centers {
		c.odds = 0
	}
	for len(w.net.late) > 0 {
		m := w.net.late[0]
		w.net.late = w.net.late[1:]
		w.net.deliver(m)
	}
	w.mint.kill()
	for range 3 {
		w.clock.sleepAll(time.Hour)
		for _, c := range w.centers {
			c.work(func() { c.till.Deposit(context.Background()) })
		}
	}
	for _, p := range w.people {
		p.clock.start(0, func() {
			if p.cheats {
				if err := p.restores(); err != nil {
					w.Errorf("%s: %v", p.name, err)
				}
				return
			}
			err := p.wallet.Resume(context.Background())
			if err != nil { // the first who asks may find the mint dead
				err = p.wallet.Resume(context.Background())
			}
			if err != nil {
				w.Errorf("%s: after all, %v", p.name, err)
			}
		})
	}
	w.clock.run()
}

// Sightings are all that the mint and all centers could write down.
type sightings struct {
	issues   map[string]issued // by the quote
	deposits []deposit
	paid     map[api.TabID][]paid
}

// An issued is a purchase, as the mint knows it: who bought is known.
type issued struct {
	at   time.Time
	who  string
	keys map[ticket.KeyID]int
}

// A deposit is one, as the mint knows it.
type deposit struct {
	at     time.Time
	center string
	serial ticket.Serial
	key    ticket.KeyID
}

// A paid is a payment, as a center knows it.
type paid struct {
	at     time.Time
	center string
	serial ticket.Serial
	key    ticket.KeyID
}

// A truth is what nobody but the simulation knows.
type truth struct {
	who   string
	tab   api.TabID
	began time.Time // was bought
	at    time.Time // was first paid
}

func (w *world) first(p *person, s *stay) {
	if len(p.stays) > 1 {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, i := range w.seen.issues {
		if i.who == p.address {
			w.firsts = append(w.firsts, truth{p.address, s.tab.ID, i.at, w.seen.paid[s.tab.ID][0].at})
		}
	}
}

// sees writes down what parties learn, and checks what the mint says about second
// spendings.
func (w *world) sees(m message, a *answer) {
	if m.host == issuer && a.status == 409 {
		w.checkSpent(m, a)
	}
	if a.status != 200 {
		return
	}
	now := w.clock.Now()
	switch {
	case m.path == "/v1/issue":
		var r mintapi.IssueRequest
		if json.Unmarshal(m.body, &r) != nil {
			return
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if _, again := w.seen.issues[r.Quote]; !again {
			i := issued{at: now, who: m.from, keys: map[ticket.KeyID]int{}}
			for _, o := range r.Outputs {
				i.keys[ticket.KeyID(o.Key)]++
			}
			w.seen.issues[r.Quote] = i
		}
	case m.path == "/v1/deposits":
		var r mintapi.DepositRequest
		if json.Unmarshal(m.body, &r) != nil {
			return
		}
		if s, err := ticket.ParseSpend(r.Spend); err == nil {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.seen.deposits = append(w.seen.deposits, deposit{now, hex.EncodeToString(r.Center), s.Serial(), s.Token.Key})
		}
	case strings.HasSuffix(m.path, "/pay") && m.host != issuer:
		var r api.PayRequest
		var id api.TabID
		if json.Unmarshal(m.body, &r) != nil || id.UnmarshalText([]byte(strings.Split(m.path, "/")[3])) != nil {
			return
		}
		if s, err := ticket.ParseSpend(r.Spend); err == nil {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.seen.paid[id] = append(w.seen.paid[id], paid{now, m.host, s.Serial(), s.Token.Key})
		}
	}
}

// checkSpent checks the proof that a mint shows for a ticket that it refuses.
func (w *world) checkSpent(m message, a *answer) {
	var p mintapi.Problem
	if json.Unmarshal(a.body, &p) != nil || len(p.Evidence) == 0 {
		return
	}
	e, err := mintapi.ParseEvidence(p.Evidence)
	if err == nil {
		err = w.proves(m, e)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil {
		w.unproven = append(w.unproven, fmt.Sprintf("%s: %v", m.path, err))
		return
	}
	w.proven++
}

func (w *world) proves(m message, e mintapi.Evidence) error {
	var contract ticket.Contract
	var spends [][]byte
	switch m.path {
	case "/v1/deposits":
		var r mintapi.DepositRequest
		if err := json.Unmarshal(m.body, &r); err != nil {
			return err
		}
		contract = ticket.PayContract{
			Center: ticket.CenterID(r.Center), Hidden: ticket.Hidden(r.Hidden), Amount: r.Amount, NotBefore: r.NotBefore, Blank: ticket.Digest(r.Blank),
		}
		spends = [][]byte{r.Spend}
	case "/v1/swap":
		var r mintapi.SwapRequest
		if err := json.Unmarshal(m.body, &r); err != nil {
			return err
		}
		var outputs []ticket.Output
		for _, o := range r.Outputs {
			outputs = append(outputs, ticket.Output{Key: ticket.KeyID(o.Key), Blinded: [ticket.BlindSize]byte(o.Blinded)})
		}
		contract, spends = ticket.SwapContract{Outputs: ticket.OutputsDigest(outputs)}, r.Inputs
	}
	var last error = fmt.Errorf("evidence in an answer to %s", m.path)
	for _, b := range spends {
		s, err := ticket.ParseSpend(b)
		if err != nil {
			return err
		}
		k := w.key(s.Token.Key)
		if last = e.Proves(issuer, k, s.Serial(), contract); last == nil {
			return nil
		}
	}
	return last
}

func (w *world) key(id ticket.KeyID) *ticket.Key {
	for _, k := range w.mint.log.shown.Keys() {
		if k.ID() == id {
			return k
		}
	}
	return nil
}

// has is what a person has, all told, who has nothing under way.
func (w *world) has(p *person) ticket.Units {
	b, err := p.wallet.Balance()
	w.must(err)
	if b.Moving > 0 {
		w.Errorf("%s still waits for a swap", p.name)
	}
	return b.Paid
}

// holds looks whether value is where it ought to be, to the unit.
func (w *world) holds() {
	w.Helper()
	ctx := context.Background()
	w.must(w.mint.books.Check(ctx, w.mint.log.shown.Keys()))
	accounts, err := w.mint.books.Accounts(ctx)
	w.must(err)
	var sold, outstanding, broken int64
	payable, held := map[string]int64{}, int64(0)
	for _, a := range accounts {
		kind, id, _ := strings.Cut(a.Name, "/")
		switch {
		case a.Unit != ticket.Paid.String():
		case kind == "sold":
			sold += a.Balance
		case kind == "outstanding":
			outstanding += a.Balance
		case kind == "payable":
			payable[id] += a.Balance
		case kind == "held":
			held += a.Balance
		case kind == "breakage":
			broken += a.Balance
		}
	}
	worth := int64(ticket.Sum(pack))
	if sold != -worth*w.bought.Load() || held != 0 || broken != 0 {
		w.Errorf("%d packs were bought, and the mint sold %d; it holds %d and wrote off %d", w.bought.Load(), sold, held, broken)
	}
	took := map[ticket.Serial]books.Deposit{}
	for _, c := range w.centers {
		list, err := w.mint.books.Deposits(context.Background(), ticket.CenterID(publicOf(c.key)), 0, 1<<30)
		w.must(err)
		for _, d := range list {
			took[d.Serial] = d
		}
	}
	var have, owed int64
	for _, p := range w.people {
		has := int64(w.has(p))
		have += has
		if p.cheats {
			continue
		}
		var used int64
		for _, s := range p.stays {
			used += int64(w.used(s, took))
		}
		if has+used != worth {
			w.Errorf("%s bought %d, used %d and has %d", p.name, worth, used, has)
		}
	}
	if have != outstanding {
		w.Errorf("people have %d, and the mint thinks it is %d", have, outstanding)
	}
	for _, c := range w.centers {
		owed += w.owed(c, payable[hex.EncodeToString(publicOf(c.key))])
	}
	if -sold != have+owed {
		w.Errorf("sold were %d; people have %d and centers %d", -sold, have, owed)
	}
	if len(w.net.differs) > 0 {
		w.Errorf("asked the same twice, these answered two things: %v", w.net.differs)
	}
	if len(w.unproven) > 0 {
		w.Errorf("the mint said of tickets that they were spent, and its proofs are none: %v", w.unproven)
	}
	w.Logf("seed %d: %d packs of %d units sold; people have %d, centers are owed %d; %d payments; %d second spendings refused with proof",
		w.seed, w.bought.Load(), worth, have, owed, w.payments.Load(), w.proven)
	w.Logf("of %d messages %d were lost, %d came twice and %d late; killed: people %d, the mint %d, centers %d %d %d times",
		w.net.sent, w.net.lost, w.net.twice, w.net.delayed, w.net.deaths, w.mint.died.Load(),
		w.centers[0].died.Load(), w.centers[1].died.Load(), w.centers[2].died.Load())
}

// used is what the mint says that the center keeps of what was paid on a stay's tab. It
// is what the center's last record says, less what that counts of payments which the
// center had and never took, as of one that was taken back without its knowing. No pal
// naps here when its money ends: what it used without, nobody pays.
func (w *world) used(s *stay, took map[ticket.Serial]books.Deposit) ticket.Units {
	m, err := s.at.till.Meter(s.at.account, s.tab.ID)
	w.must(err)
	var record, paid ticket.Units
	if len(m.Record) > 0 {
		r, err := ticket.ParseRecord(m.Record)
		w.must(err)
		tab, err := s.at.till.Tab(s.at.account, s.tab.ID)
		w.must(err)
		record, paid = min(r.Used, tab.Paid), tab.Paid
	}
	var kept, deposited, missing ticket.Units
	seen := map[ticket.Serial]bool{}
	for _, p := range w.seen.paid[s.tab.ID] {
		if seen[p.serial] {
			continue
		}
		seen[p.serial] = true
		if d, ok := took[p.serial]; ok {
			kept, deposited = kept+ticket.Units(d.Amount)-d.Refunded, deposited+ticket.Units(d.Amount)
		} else {
			missing += ticket.Units(s.at.slice)
		}
	}
	if deposited != paid {
		return record // processes that are gone have seen the others
	}
	if kept > record || record > kept+missing {
		w.Errorf("%s keeps %d units of a tab, and its last record says %d; it did not take %d", s.at.name, kept, record, missing)
	}
	return kept
}

// owed checks that a center has been credited what it took, and returns what it is
// owed.
func (w *world) owed(c *center, payable int64) int64 {
	list, err := w.mint.books.Deposits(context.Background(), ticket.CenterID(publicOf(c.key)), 0, 1<<30)
	w.must(err)
	var credited, refunded, took ticket.Units
	for _, d := range list {
		credited += ticket.Units(d.Amount)
		refunded += d.Refunded
	}
	for _, p := range w.people {
		for _, s := range p.stays {
			if s.at.center == c {
				tab, err := c.till.Tab(s.at.account, s.tab.ID)
				if errors.Is(err, cloudpal.NotExist) {
					continue // nothing was ever paid on it
				}
				w.must(err)
				if tab.Pending > 0 {
					w.Errorf("%s still has %d units of %s to deposit", c.name, tab.Pending, p.name)
				}
				took += tab.Paid
			}
		}
	}
	if credited != took || int64(credited-refunded) != payable {
		w.Errorf("%s took %d and was credited %d, less %d that it gave back: it is owed %d", c.name, took, credited, refunded, payable)
	}
	return payable
}
