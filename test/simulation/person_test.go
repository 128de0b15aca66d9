package simulation_test

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/center/till"
	mintapi "github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/person/wallet"
	"github.com/tradle/cloudpal/ticket"
)

// A person buys tickets, has a pal at one center and then at another, and at the end
// wants to have what is left.
type person struct {
	*world
	folder
	clock    *actor
	name     string
	address  string
	seed     ticket.Seed
	random   *rand.Rand // what the person does
	luck     *rand.Rand // what happens to it on the way
	mortal   bool
	careless bool // its pals seldom agree with what is counted
	cheats   bool // spends what it has at all centers at once
	voucher  string
	copied   int // which copy of a wallet it is, of one who cheats

	wallet *wallet.Wallet
	stays  []*stay
	paid   int // payments that a center took
}

// A stay is a pal at a center.
type stay struct {
	at    visitor
	tab   api.TabRequest
	key   ed25519.PrivateKey // countersigns
	since time.Time
	taken int
}

func (p *person) config() wallet.Config {
	ask := func(from string) wallet.Connect {
		return func() (wallet.Mint, error) { return mintapi.Over("https://"+issuer, p.line(from)), nil }
	}
	return wallet.Config{
		Dir: p.dir + "/wallet", Seed: p.seed, Policy: p.policy, Clock: p.clock,
		Connect: ask("10.0.0.2:1"), Direct: ask(p.address), // the first is a relay's
		Random: rand.NewPCG(p.random.Uint64(), 0),
	}
}

func (p *person) line(from string) line {
	return line{network: p.net, from: from, mortal: p.mortal, luck: p.luck}
}

func (w *world) person(i int, cheats bool) *person {
	name := fmt.Sprint("person ", i)
	p := &person{
		world: w, folder: newFolder(fmt.Sprintf("%s/person-%d", w.home, i)), clock: w.clock.actor(), name: name, address: fmt.Sprintf("10.1.%d.%d:1", i>>8, i&255),
		seed: sha256.Sum256(fmt.Append(nil, w.seed, name)), random: w.luck(uint64(2 * i)), luck: w.luck(uint64(2*i + 1)), mortal: !cheats, cheats: cheats, careless: i%8 == 7,
	}
	return p
}

// opens opens the person's wallet, or makes it.
func (p *person) opens() (err error) {
	p.wallet, err = wallet.Open(p.config())
	if errors.Is(err, cloudpal.NotExist) {
		p.wallet, err = wallet.Create(p.config(), p.trust, wallet.FirstDevice)
	}
	return err
}

var errKilled = cloudpal.E("", cloudpal.Missing, errors.New("the process was killed"))

// does does something with the wallet, whose process can be killed: then it is
// opened again from what its folder was.
func (p *person) does(f func(context.Context) error) (err error) {
	defer func() {
		switch r := recover(); r.(type) {
		case nil:
		case killed:
			p.move(p.wallet.Close)
			if err = p.opens(); err == nil {
				err = errKilled
			}
		default:
			panic(r)
		}
	}()
	return f(context.Background())
}

// passes reports whether an error is of the way and not of what was asked.
func passes(err error) bool {
	switch cloudpal.KindOf(err) {
	case cloudpal.Other, cloudpal.Missing, cloudpal.Busy, cloudpal.Timeout:
		return true
	}
	return false
}

const (
	tryEvery = 30 * time.Second
	maxTries = 500
)

// until does something again and again until it succeeds, or fails for good.
func (p *person) until(what string, f func(context.Context) error) error {
	for range maxTries {
		err := p.does(f)
		var resting *wallet.Resting
		switch {
		case err == nil:
			return nil
		case errors.As(err, &resting):
			p.clock.sleep(max(resting.Until.Sub(p.clock.Now()), time.Second))
		case passes(err):
			p.clock.sleep(tryEvery)
		default:
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return fmt.Errorf("%s: it never came to an end", what)
}

// buys buys the pack.
func (p *person) buys() error {
	return p.until("buy", func(ctx context.Context) error {
		b, err := p.wallet.Balance()
		switch {
		case err != nil:
			return err
		case len(b.Purchases) > 0:
			_, err = p.wallet.GoOn(ctx, b.Purchases[0].N)
		case b.Paid > 0 || len(b.Tabs) > 0: // a process before may have spent it all
			return nil
		default:
			_, err = p.wallet.Buy(ctx, wallet.Order{Pack: "pack", Method: "voucher", Voucher: p.voucher})
		}
		if errors.Is(err, cloudpal.Exhausted) {
			err = cloudpal.E("", cloudpal.Busy, err) // the quote expired: another is asked for
		}
		return err
	})
}

// comes opens a tab at a center.
func (p *person) comes(c *center) (*stay, error) {
	n := len(p.stays) + 100*p.copied
	account := sha256.Sum256(fmt.Append(nil, p.seed[:], c.name))
	s := &stay{key: keyOf(fmt.Sprint(p.seed[:], " tab ", n)), at: visitor{c, account, p.line(p.address)}}
	pal := sha256.Sum256(fmt.Append(nil, p.seed[:], "pal ", n))
	s.tab = api.TabRequest{ID: api.TabID(publicOf(s.key)), WireGuard: pal[:]}
	p.stays = append(p.stays, s)
	return s, p.until("open a tab", func(ctx context.Context) error {
		_, err := p.wallet.OpenTab(ctx, s.at, s.tab, "")
		return err
	})
}

// pays pays one slice that is due after a while.
func (p *person) pays(s *stay, ahead time.Duration) error {
	begun := false
	err := p.until("pay", func(ctx context.Context) (err error) {
		defer func() {
			if errors.Is(err, cloudpal.NotExist) { // the center was killed before it was ever paid
				if _, err = p.wallet.OpenTab(ctx, s.at, s.tab, ""); err == nil {
					err = errKilled
				}
			}
		}()
		n, ok, err := p.undelivered(s)
		switch {
		case err != nil:
			return err
		case ok:
			begun = true
			_, err = p.wallet.Deliver(ctx, s.at, n)
			return err
		case begun:
			return nil // it was taken, and the answer got lost with the process
		}
		_, err = p.wallet.Pay(ctx, s.at, s.tab.ID, ticket.Paid, p.clock.Now().Add(ahead).Truncate(time.Second))
		if err != nil {
			_, begun, _ = p.undelivered(s)
		}
		if errors.Is(err, cloudpal.Busy) && !isResting(err) {
			err = errors.Join(err, p.wallet.Resume(ctx))
		}
		return err
	})
	if err == nil {
		s.taken++
		p.paid++
		p.payments.Add(1)
	}
	return err
}

func isResting(err error) bool {
	var r *wallet.Resting
	return errors.As(err, &r)
}

// undelivered returns a payment that the center may not have.
func (p *person) undelivered(s *stay) (uint64, bool, error) {
	b, err := p.wallet.Balance()
	for _, pay := range b.Payments {
		if pay.Tab == s.tab.ID && !pay.Taken && !pay.Ended {
			return pay.N, true, err
		}
	}
	return 0, false, err
}

// works lets the pal use its center, and its side agree with what is counted.
func (p *person) works(s *stay) {
	use := till.Use{Awake: p.clock.Now().Sub(s.since), Up: true}
	if s.since.IsZero() {
		s.since, use.Awake = p.clock.Now(), 0
	}
	s.at.work(func() { s.at.till.Count(s.at.account, s.tab.WireGuard, use) })
	// What gets lost of this is made good the next time.
	p.does(func(ctx context.Context) error {
		m, err := s.at.meter(ctx, s.tab.ID)
		if err != nil || len(m.Record) == 0 {
			return err
		}
		r, err := ticket.ParseRecord(m.Record)
		if err != nil {
			return err
		}
		m.Countersigned = r.Sign(s.key)
		_, err = s.at.countersign(ctx, s.tab.ID, api.CountersignRequest{Record: m.Record, Signature: m.Countersigned})
		return errors.Join(err, p.wallet.KeepMeter(ctx, s.tab.ID, m))
	})
}

// leaves closes a tab and waits until all is back that was not used.
func (p *person) leaves(s *stay) error {
	err := p.until("close a tab", func(ctx context.Context) error {
		_, err := p.wallet.CloseTab(ctx, s.at, s.tab.ID)
		return err
	})
	if err != nil {
		return err
	}
	return p.until("have the rest back", func(ctx context.Context) error {
		b, err := p.wallet.Balance()
		if err != nil {
			return err
		}
		for _, t := range b.Tabs {
			if t.ID == s.tab.ID && !t.Ended {
				return errors.Join(p.wallet.Resume(ctx), cloudpal.E("", cloudpal.Busy, errors.New("the tab has not ended")))
			}
		}
		return nil
	})
}

// stay is one pal's life, for so many payments or until the money ends.
func (p *person) stay(c *center, payments int) error {
	s, err := p.comes(c)
	if err != nil {
		return err
	}
	for i := range payments {
		var ahead time.Duration
		if i > 1 && p.random.IntN(20) == 0 {
			ahead = time.Duration(1+p.random.IntN(180)) * time.Minute
		}
		if err := p.pays(s, ahead); errors.Is(err, cloudpal.Exhausted) {
			break
		} else if err != nil {
			return err
		}
		if i == 0 {
			p.first(p, s)
		}
		if ahead > 0 && p.random.IntN(2) == 0 {
			if err := p.cancels(s); err != nil {
				return err
			}
		}
		if i%p.agrees(s) == 0 {
			p.works(s)
		}
		slice := time.Duration(c.slice) * 24 * time.Hour / 64
		p.clock.sleep(slice/2 + time.Duration(p.random.Int64N(int64(slice))))
	}
	p.works(s)
	return p.leaves(s)
}

// agrees is after how many payments the pal's side looks at what is counted. A center
// has no more than a slice of what nobody agreed with, and the rest comes back: of the
// pals of one person in eight, nearly all of it. Of tickets of one unit nothing does.
func (p *person) agrees(s *stay) int {
	if p.careless || s.at.slice == 1 {
		return 8
	}
	return 1
}

// cancels takes back a payment that is not due.
func (p *person) cancels(s *stay) error {
	return p.until("cancel", func(ctx context.Context) error {
		b, err := p.wallet.Balance()
		if err != nil {
			return err
		}
		for _, pay := range b.Payments {
			if pay.Tab == s.tab.ID && !pay.Ended && pay.NotBefore.After(p.clock.Now().Add(time.Minute)) {
				err := p.wallet.Cancel(ctx, pay.N)
				var taken *wallet.Taken
				if errors.As(err, &taken) {
					return nil
				}
				return err
			}
		}
		return nil
	})
}

// lives is all that a person does.
func (p *person) lives() error {
	if err := p.opens(); err != nil {
		return err
	}
	if err := p.buys(); err != nil {
		return err
	}
	p.bought.Add(1)
	if p.cheats {
		return p.doubles()
	}
	here := p.random.IntN(len(p.centers))
	there := (here + 1 + p.random.IntN(len(p.centers)-1)) % len(p.centers)
	if p.centers[here].slice == p.centers[there].slice {
		there = 0
	}
	for _, c := range []int{here, there} {
		n := 50 - p.random.IntN(3)
		if p.centers[c].slice == 4 {
			n = 46 + p.random.IntN(6)/5*3 // the last ones of some are of swapped tickets
		}
		if err := p.stay(p.centers[c], n); err != nil {
			return err
		}
	}
	return nil
}
