package mint

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/time/rate"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/crowd"
	"github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/mint/books"
	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/ledger"
	"github.com/tradle/cloudpal/ticket/manifest"
	"github.com/tradle/cloudpal/ticket/signer"
)

// childEnv tells this program to be a mint, and of what.
const childEnv = "CLOUDPAL_TEST_MINT"

// A child is a mint process, which can be killed.
type child struct {
	Place, Ledger, Keys, Listen string

	Dies bool // as soon as a ticket is in its ledger
}

func TestMain(m *testing.M) {
	if text, ok := os.LookupEnv(childEnv); ok {
		var c child
		err := json.Unmarshal([]byte(text), &c)
		if err == nil {
			err = c.run()
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	flag.Parse()
	for name, value := range map[string]string{"rapid.checks": "6", "rapid.steps": "50"} { // each check makes a mint
		if f := flag.Lookup(name); f.Value.String() == f.DefValue {
			f.Value.Set(value)
		}
	}
	os.Exit(m.Run())
}

// save and load are how a child has the same keys.
func (p *press) save(dir string, e ticket.Epoch) error {
	for _, k := range p.epoch(e).Keys() {
		p.mu.Lock()
		s := p.signers[k.ID()]
		p.mu.Unlock()
		data, err := s.Marshal()
		if err != nil {
			return err
		}
		name := fmt.Sprintf("%d-%d-%d", e, k.Class, k.Denomination)
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}

func (p *press) load(dir string, e ticket.Epoch) error {
	var keys []*ticket.Key
	for _, c := range ticket.Classes {
		for _, d := range ticket.Denominations {
			data, err := os.ReadFile(filepath.Join(dir, fmt.Sprintf("%d-%d-%d", e, c, d)))
			if err != nil {
				return err
			}
			s, err := signer.Parse(data)
			if err != nil {
				return err
			}
			k, err := ticket.NewKey(c, d, e, s.Public())
			if err != nil {
				return err
			}
			p.signers[k.ID()] = s
			keys = append(keys, k)
		}
	}
	receipt, _ := receiptKey(e)
	m, err := manifest.New(issuer, e, receipt.Public().(ed25519.PublicKey), keys)
	p.epochs[e] = m
	return err
}

func tlsKey() ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("the mint's certificate"))
	return ed25519.NewKeyFromSeed(seed[:])
}

// run is the child's life.
func (c child) run() error {
	if err := thePress.load(c.Keys, 82); err != nil {
		return err
	}
	ctx := context.Background()
	b, err := books.Open(ctx, c.Place)
	if err != nil {
		return err
	}
	spent, err := ledger.OpenPebble(c.Ledger)
	if err != nil {
		return err
	}
	var from ledger.Ledger = spent
	if c.Dies {
		from = deadly{spent}
	}
	m, err := New(Config{
		Issuer: issuer, Books: b, Ledger: from, Signer: thePress, Log: shelf{82}, Receipt: receiptKey,
		Methods: map[string]Method{"purse": {newPurse(), ticket.Paid}}, Packs: packs,
		Now: func() time.Time { return start }, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return err
	}
	m.gate.quotes = crowd.NewRates(rate.Inf, 1) // all are of one source
	cert, err := Certificate(tlsKey())
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return err
	}
	fmt.Println("ready", l.Addr())
	return m.Serve(ctx, l, cert, m.Handler())
}

// A deadly ledger kills its process once it has written something.
type deadly struct{ ledger.Ledger }

func (d deadly) Spend(ctx context.Context, e ticket.Epoch, rows []ledger.Row) ([]ledger.Row, error) {
	if _, err := d.Ledger.Spend(ctx, e, rows); err != nil {
		return nil, err
	}
	p, err := os.FindProcess(os.Getpid())
	if err == nil {
		err = p.Kill()
	}
	<-ctx.Done() // the signal is on its way
	return nil, errors.Join(err, ctx.Err())
}

// dial returns a client of the child that runs, and of those that come after it.
func (c *child) dial(t *testing.T) *api.Client {
	t.Helper()
	cert, err := Certificate(tlsKey())
	if err != nil {
		t.Fatal(err)
	}
	client, err := api.Dial("https://"+c.Listen+"#"+Fingerprint(cert), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// start starts the child and returns once it answers.
func (c *child) start(t *testing.T) *exec.Cmd {
	t.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	addr, ok := strings.CutPrefix(strings.TrimSpace(line), "ready ")
	if err != nil || !ok {
		cmd.Process.Kill()
		cmd.Wait()
		t.Fatalf("the mint did not start: %q %v", line, err)
	}
	c.Listen = addr
	return cmd
}

// The users are persons and centers that use a mint while it is killed.
type users struct {
	testing.TB
	client *api.Client
	done   atomic.Int64 // things that were done

	mu     sync.Mutex
	bought ticket.Units
	holds  map[ticket.Serial]ticket.Ticket
	owed   map[ticket.CenterID]ticket.Units
	cheats int // second spendings that were refused, with proof
}

// until asks the same until there is an answer: what got lost is asked again.
func until[A any](c *users, ask func(ctx context.Context) (A, error)) (A, error) {
	for {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		a, err := ask(ctx)
		cancel()
		var spent *api.Spent
		if err == nil || errors.As(err, &spent) {
			c.done.Add(1)
			return a, err
		}
		for _, final := range []cloudpal.Kind{cloudpal.Invalid, cloudpal.Denied, cloudpal.Exist, cloudpal.NotExist, cloudpal.Exhausted, cloudpal.Corrupt} {
			if errors.Is(err, final) {
				return a, err
			}
		}
	}
}

// testKilled kills a mint at random instants, while users use it, and counts: not a
// unit is lost, and none is made.
func testKilled(t *testing.T, e engine) {
	const kills, crowdSize = 12, 6
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	c := &child{Place: e(t), Ledger: t.TempDir(), Keys: t.TempDir(), Listen: "127.0.0.1:0"}
	if err := thePress.save(c.Keys, 82); err != nil {
		t.Fatal(err)
	}
	cmd := c.start(t)
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	client := c.dial(t)
	all := &users{TB: t, client: client, holds: map[ticket.Serial]ticket.Ticket{}, owed: map[ticket.CenterID]ticket.Units{}}
	ending := make(chan struct{})
	var crowded sync.WaitGroup
	for i := range crowdSize {
		crowded.Go(func() {
			p := &walker{users: all, rnd: rand.New(rand.NewPCG(seed, uint64(100+i))), seed: ticket.Seed(sha256.Sum256(fmt.Append(nil, seed, i)))}
			for {
				select {
				case <-ending:
					return
				default:
					p.step()
				}
			}
		})
	}
	for range kills {
		for next := all.done.Load() + int64(1+rnd.IntN(12)); all.done.Load() < next; {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(time.Duration(rnd.IntN(3000)) * time.Microsecond)
		cmd.Process.Kill()
		cmd.Wait()
		cmd = c.start(t)
	}
	close(ending)
	crowded.Wait()
	cmd.Process.Kill()
	cmd.Wait()
	all.count(c)
}

// count counts: what was bought is what people hold and centers are owed.
func (c *users) count(from *child) {
	c.Helper()
	b, err := books.Open(context.Background(), from.Place)
	if err != nil {
		c.Fatal(err)
	}
	defer b.Close()
	if err := b.Check(context.Background(), thePress.epoch(82).Keys()); err != nil {
		c.Error(err)
	}
	var held, owed ticket.Units
	for _, t := range c.holds {
		k, err := thePress.epoch(82).KeyByID(t.Token.Key)
		if err != nil {
			c.Fatal(err)
		}
		held += ticket.Units(k.Denomination)
	}
	for id, want := range c.owed {
		owed += want
		got, _, err := b.Balance(context.Background(), id, ticket.Paid)
		if err != nil || got != int64(want) {
			c.Errorf("a center is owed %d (%v), and counted %d", got, err, want)
		}
	}
	if c.bought != held+owed {
		c.Errorf("%d units were bought; %d are held and %d owed", c.bought, held, owed)
	}
	accounts, err := b.Accounts(context.Background())
	if err != nil {
		c.Fatal(err)
	}
	var outstanding int64
	for _, a := range accounts {
		if strings.HasPrefix(a.Name, "outstanding/") {
			outstanding += a.Balance
		}
	}
	if outstanding != int64(held) {
		c.Errorf("the mint has %d units outstanding, people hold %d", outstanding, held)
	}
	c.Logf("%d things done, %d units bought, %d held, %d owed, %d second spendings refused", c.done.Load(), c.bought, held, owed, c.cheats)
}

// A walker is one of the users.
type walker struct {
	*users
	rnd  *rand.Rand
	seed ticket.Seed
	n    uint64
	have []ticket.Ticket
}

func (w *walker) fail(what string, err error) { w.Errorf("%s: %v", what, err) }

func (w *walker) hand(of ...ticket.Denomination) (h hand) {
	for _, d := range of {
		k, err := thePress.epoch(82).Key(ticket.Paid, d)
		if err != nil {
			panic(err)
		}
		w.n++
		s, err := ticket.Derive(w.seed, "crowd", issuer, k, w.n)
		if err != nil {
			panic(err)
		}
		o := s.Output()
		h.secrets, h.outputs = append(h.secrets, s), append(h.outputs, o)
	}
	return h
}

// take keeps the tickets that signatures make.
func (w *walker) take(h hand, signed [][]byte) {
	for i, s := range h.secrets {
		t, err := s.Finish(signed[i])
		if err != nil {
			w.fail("finish", err)
			continue
		}
		w.have = append(w.have, t)
		w.mu.Lock()
		w.holds[t.Serial()] = t
		w.mu.Unlock()
	}
}

// give lets go of a ticket.
func (w *walker) give() ticket.Ticket {
	i := w.rnd.IntN(len(w.have))
	t := w.have[i]
	w.have = append(w.have[:i], w.have[i+1:]...)
	return t
}

func (w *walker) forget(t ticket.Ticket) {
	w.mu.Lock()
	delete(w.holds, t.Serial())
	w.mu.Unlock()
}

func (w *walker) step() {
	switch {
	case len(w.have) < 2 || len(w.have) < 12 && w.rnd.IntN(3) == 0:
		w.buy()
	case w.rnd.IntN(3) == 0:
		w.swap()
	default:
		w.pay()
	}
}

func (w *walker) buy() { w.buyPack(packs[w.rnd.IntN(len(packs))]) }

func (w *walker) buyPack(pack api.Pack) {
	w.n++
	seed := sha256.Sum256(fmt.Append(w.seed[:], w.n))
	lock := ed25519.NewKeyFromSeed(seed[:])
	q, err := until(w.users, func(ctx context.Context) (api.Quote, error) {
		return w.client.Quote(ctx, api.QuoteRequest{Method: "purse", Pack: pack.Name, Lock: public(lock)})
	})
	if err == nil {
		_, err = until(w.users, func(ctx context.Context) (api.Quote, error) { return w.client.Pay(ctx, q.ID, fmt.Sprintf("%x", seed)) })
	}
	if err != nil {
		w.fail("buy", err)
		return
	}
	h := w.hand(q.Tickets...)
	signed, err := until(w.users, func(ctx context.Context) ([][]byte, error) { return w.client.Issue(ctx, q.ID, h.outputs, lock) })
	if err != nil {
		w.fail("issue", err)
		return
	}
	w.mu.Lock()
	w.bought += ticket.Sum(q.Tickets)
	w.mu.Unlock()
	w.take(h, signed)
}

// swap changes two tickets for as few as can be.
func (w *walker) swap() {
	two := []ticket.Ticket{w.give(), w.give()}
	var worth ticket.Units
	for _, t := range two {
		k, _ := thePress.epoch(82).KeyByID(t.Token.Key)
		worth += ticket.Units(k.Denomination)
	}
	h := w.hand(ticket.Split(worth)...)
	var spends []ticket.Spend
	for _, t := range two {
		spends = append(spends, t.Sign(ticket.SwapContract{Outputs: h.digest()}))
	}
	signed, err := until(w.users, func(ctx context.Context) ([][]byte, error) { return w.client.Swap(ctx, spends, h.outputs) })
	if err != nil {
		w.fail("swap", err)
		return
	}
	for _, t := range two {
		w.forget(t)
	}
	w.take(h, signed)
}

// pay pays a center, now and then two with one ticket, and may take change back.
func (w *walker) pay() {
	t := w.give()
	k, err := thePress.epoch(82).KeyByID(t.Token.Key)
	if err != nil {
		panic(err)
	}
	type side struct {
		till *till
		slip slip
		err  error
	}
	sides := make([]side, 1+w.rnd.IntN(2))
	first := w.rnd.IntN(3)
	for i := range sides {
		seed := sha256.Sum256(fmt.Append(nil, "center", (first+i)%3))
		key := ed25519.NewKeyFromSeed(seed[:])
		s := &sides[i]
		s.till = &till{w.client.As(key, func() time.Time { return start }), key}
		s.slip = slip{ticket: t, blank: w.hand(ticket.Blank(k.Denomination)...)}
		s.slip.contract = ticket.PayContract{
			Center: s.till.id(), Hidden: ticket.Hidden{byte(w.n)}, Amount: k.Denomination, NotBefore: start, Blank: s.slip.blank.digest(),
		}
		s.slip.spend = t.Sign(s.slip.contract)
	}
	var together sync.WaitGroup
	for i := range sides {
		together.Go(func() {
			s := &sides[i]
			_, s.err = until(w.users, func(ctx context.Context) (api.Receipt, error) {
				return s.till.Deposit(ctx, s.slip.contract, s.slip.spend)
			})
		})
	}
	together.Wait()
	w.forget(t)
	taken := -1
	for i, s := range sides {
		var spent *api.Spent
		switch {
		case s.err == nil && taken < 0:
			taken = i
		case s.err == nil:
			w.Error("one ticket was credited to two centers")
		case !errors.As(s.err, &spent):
			w.fail("deposit", s.err)
		default:
			if err := spent.Evidence.Proves(issuer, k, t.Serial(), s.slip.contract); err != nil {
				w.fail("evidence", err)
			}
			w.mu.Lock()
			w.cheats++
			w.mu.Unlock()
		}
	}
	if taken < 0 {
		w.Error("nobody was credited")
		return
	}
	w.settle(k, sides[taken].till, sides[taken].slip)
}

// settle counts a deposit, and takes some of it back.
func (w *walker) settle(k *ticket.Key, c *till, s slip) {
	w.mu.Lock()
	w.owed[c.id()] += ticket.Units(k.Denomination)
	w.mu.Unlock()
	if k.Denomination == 1 || w.rnd.IntN(2) == 0 {
		return
	}
	units := ticket.Units(1 + w.rnd.IntN(int(k.Denomination)-1))
	signed, err := until(w.users, func(ctx context.Context) ([][]byte, error) { return w.client.Refund(ctx, c.refund(s, units)) })
	if err != nil {
		w.fail("refund", err)
		return
	}
	w.mu.Lock()
	w.owed[c.id()] -= units
	w.mu.Unlock()
	w.take(s.change(units), signed)
}
