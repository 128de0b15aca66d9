package wallet

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/tradle/cloudpal"
	mint "github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/ticket"
)

// An Order is what a person wants to buy.
type Order struct {
	Pack    string // its name, as the mint has it
	Method  string // of paying
	Voucher string // what to pay with, where the method is paid at the mint: a secret
	Account string // of free tickets, in place of a method: a secret
}

// A Purchase is how far an order is.
type Purchase struct {
	N       uint64       `json:"n"` // numbers it in this wallet
	Begun   time.Time    `json:"begun"`
	Method  string       `json:"method,omitempty"`
	Pack    string       `json:"pack"`
	Units   ticket.Units `json:"units"`
	Tickets int          `json:"tickets"`
	State   mint.State   `json:"state"` // empty: the mint was not reached yet
	Pay     string       `json:"pay,omitempty"`
	Price   int64        `json:"price"`
	Code    string       `json:"currency,omitempty"`
	Expires time.Time    `json:"expires,omitzero"`
	Hint    string       `json:"hint,omitempty"`
	Done    bool         `json:"done"` // the tickets are here
}

func (p *purchase) show(n uint64) Purchase {
	q := p.Quote
	return Purchase{
		N: n, Begun: p.Begun, Method: p.Method, Pack: p.Pack, Units: ticket.Sum(q.Tickets), Tickets: len(q.Tickets),
		State: q.State, Pay: q.Pay, Price: q.Price, Code: q.Currency, Expires: q.Expires, Hint: q.Hint, Done: p.Done,
	}
}

// Mint says what the mint sells.
func (w *Wallet) Mint(ctx context.Context) (mint.Mint, error) {
	return askOpenly(w, func(m Mint) (mint.Mint, error) { return m.Mint(ctx) })
}

// Buy begins a purchase and takes it as far as it goes: with a voucher or an
// account, to its end; else to where it is to be paid. GoOn takes it on from there,
// whatever happens.
func (w *Wallet) Buy(ctx context.Context, o Order) (Purchase, error) {
	lock := make([]byte, ed25519.SeedSize)
	rand.Read(lock)
	p := purchase{Begun: w.now(), Method: o.Method, Pack: o.Pack, Voucher: o.Voucher, Account: o.Account, Lock: lock}
	var n uint64
	err := w.change(ctx, func(_ *state, c *change) error {
		n = c.number()
		c.put(kindPurchase, numbered(n), p)
		return nil
	})
	if err != nil {
		return Purchase{}, err
	}
	return w.GoOn(ctx, n)
}

// GoOn takes a purchase as far as it goes, and returns how far that is.
func (w *Wallet) GoOn(ctx context.Context, n uint64) (Purchase, error) {
	for {
		s, err := w.look()
		if err != nil {
			return Purchase{}, err
		}
		p, ok := s.purchases[n]
		if !ok {
			return Purchase{}, cloudpal.E("go on with a purchase", cloudpal.NotExist, fmt.Errorf("there is none with number %d", n)).
				WithHint("cloudpal wallet list shows those that there are")
		}
		more, err := w.step(ctx, n, p)
		if err != nil || !more {
			return w.shown(n, err)
		}
	}
}

// shown returns how far a purchase is.
func (w *Wallet) shown(n uint64, err error) (Purchase, error) {
	s, lookErr := w.look()
	if lookErr != nil {
		return Purchase{}, errors.Join(err, lookErr)
	}
	p, ok := s.purchases[n]
	if !ok {
		return Purchase{N: n}, err
	}
	return p.show(n), err
}

// step takes a purchase one step further, and reports whether there is another to
// take at once.
//
//	asked ─► unpaid ─► paid ─► outputs chosen ─► done
func (w *Wallet) step(ctx context.Context, n uint64, p *purchase) (more bool, err error) {
	q := p.Quote
	switch {
	case p.Done:
		return false, nil
	case q.ID == "":
		return true, w.quote(ctx, n, p)
	case q.State == mint.Paid && p.Outputs == nil:
		return true, w.choose(ctx, n, p)
	case p.Outputs != nil:
		return false, w.issue(ctx, n, p)
	case p.Voucher != "" && (q.State == mint.Unpaid || q.State == mint.Expired):
		return true, w.payVoucher(ctx, n, p) // too late, the mint says that the voucher is still good
	}
	return w.poll(ctx, n, p)
}

func (p *purchase) lock() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(p.Lock) }

// quote asks what the pack costs. Asked again with the same lock, it is the same.
func (w *Wallet) quote(ctx context.Context, n uint64, p *purchase) error {
	public := []byte(p.lock().Public().(ed25519.PublicKey))
	q, err := askOpenly(w, func(m Mint) (mint.Quote, error) {
		if p.Account != "" {
			return m.Free(ctx, mint.FreeRequest{Account: p.Account, Pack: p.Pack, Lock: public})
		}
		return m.Quote(ctx, mint.QuoteRequest{Method: p.Method, Pack: p.Pack, Lock: public})
	})
	if err != nil && !passes(err) {
		return errors.Join(err, w.forget(ctx, n)) // nothing came of it
	}
	if err != nil {
		return err
	}
	if err := p.check(q); err != nil {
		return err
	}
	return w.keepQuote(ctx, n, q)
}

// check says what is wrong with a mint's quote.
func (p *purchase) check(q mint.Quote) error {
	wrong := ""
	switch {
	case q.ID == "" || len(q.ID) > 255 || len(q.Pay) > 4096 || len(q.Hint) > 4096:
		wrong = "it is not complete"
	case p.Quote.ID != "" && q.ID != p.Quote.ID:
		wrong = "it is another one"
	case len(q.Tickets) == 0 || len(q.Tickets) > mint.MaxOutputs:
		wrong = fmt.Sprintf("it is for %d tickets", len(q.Tickets))
	case q.Class != ticket.Paid && q.Class != ticket.Free:
		wrong = "it is for tickets of no class"
	case p.Quote.ID != "" && (q.Class != p.Quote.Class || ticket.Sum(q.Tickets) != ticket.Sum(p.Quote.Tickets)):
		wrong = "it is for something else than before"
	}
	for _, d := range q.Tickets {
		if !d.Valid() {
			wrong = "it is for tickets that there are not"
		}
	}
	if wrong == "" {
		return nil
	}
	return cloudpal.E("read the mint's quote", cloudpal.Invalid, errors.New(wrong)).WithHint("pay nothing, and tell the mint's operator")
}

func (w *Wallet) keepQuote(ctx context.Context, n uint64, q mint.Quote) error {
	return w.onPurchase(ctx, n, func(p *purchase, _ *change) { p.Quote = q })
}

// onPurchase changes a purchase that is not done.
func (w *Wallet) onPurchase(ctx context.Context, n uint64, f func(*purchase, *change)) error {
	return w.change(ctx, func(s *state, c *change) error {
		old, ok := s.purchases[n]
		if !ok || old.Done {
			return nil // another process was faster
		}
		p := *old
		f(&p, c)
		c.put(kindPurchase, numbered(n), p)
		return nil
	})
}

// forget drops a purchase of which nothing came.
func (w *Wallet) forget(ctx context.Context, n uint64) error {
	return w.change(ctx, func(_ *state, c *change) error {
		c.drop(kindPurchase, numbered(n))
		return nil
	})
}

func (w *Wallet) payVoucher(ctx context.Context, n uint64, p *purchase) error {
	q, err := askOpenly(w, func(m Mint) (mint.Quote, error) { return m.Pay(ctx, p.Quote.ID, p.Voucher) })
	if err != nil && !passes(err) {
		return errors.Join(err, w.forget(ctx, n)) // a quote that is not paid is worth nothing
	}
	if err == nil {
		err = p.check(q)
	}
	if err == nil && q.State == mint.Unpaid {
		err = cloudpal.E("pay with a voucher", cloudpal.Denied, errors.New("the mint took it and says that it is not paid")).
			WithHint("do it again; the mint's operator can see what became of it: quote " + q.ID)
	}
	if err != nil {
		return err
	}
	return w.keepQuote(ctx, n, q)
}

// poll asks what became of a quote that is paid elsewhere. One that expired may
// still be paid: money comes late.
func (w *Wallet) poll(ctx context.Context, n uint64, p *purchase) (more bool, err error) {
	q, err := askOpenly(w, func(m Mint) (mint.Quote, error) { return m.Look(ctx, p.Quote.ID) })
	if err != nil {
		return false, err
	}
	if err := p.check(q); err != nil {
		return false, err
	}
	if q.State == mint.Issued {
		return false, cloudpal.E("take the tickets that were bought", cloudpal.Denied, errors.New("the mint says that it gave them out, and this wallet has not asked yet")).
			WithHint("tell the mint's operator: quote " + q.ID)
	}
	return q.State == mint.Paid, w.keepQuote(ctx, n, q)
}

// choose chooses outputs for what was bought.
func (w *Wallet) choose(ctx context.Context, n uint64, p *purchase) error {
	e, err := w.issuing(ctx)
	if err != nil {
		return err
	}
	line, err := w.line("buy", e, p.Quote.Class)
	if err != nil {
		return err
	}
	k, outputs, err := w.fresh(ctx, line, e, p.Quote.Class, p.Quote.Tickets)
	if err != nil {
		return err
	}
	return w.onPurchase(ctx, n, func(p *purchase, c *change) {
		if p.Outputs == nil {
			p.Outputs = outputs
			c.use(line, k)
		}
	})
}

// line is what the branches of a device begin with that count.
func (w *Wallet) line(what string, e ticket.Epoch, class ticket.Class) (string, error) {
	device := w.Device()
	if device == 0 {
		return "", cloudpal.E("make tickets", cloudpal.Missing, errors.New("it is not known yet what other devices have made")).
			WithHint("let the restore come to its end: cloudpal wallet restore")
	}
	return place{What: what, Dev: device, Epoch: e, Class: class}.line(), nil
}

func branchOf(line string, k uint64) ticket.Branch {
	return ticket.Branch(fmt.Sprintf("%s/%d", line, k))
}

// used returns how many branches of a line are used.
func (s *state) used(line string) (k uint64) {
	s.fact(factBranch+line, &k)
	return k
}

// use says that the k-th is used, and all before it.
func (c *change) use(line string, k uint64) {
	c.putFact(factBranch+line, max(k+1, c.of.used(line)))
}

// unuse frees the branch of a swap of which nothing came: too many in a row that
// are empty would end what Restore looks at.
func (c *change) unuse(sw *swap) {
	if sw.Line != "" && c.of.used(sw.Line) == sw.K+1 {
		c.putFact(factBranch+sw.Line, sw.K)
	}
}

// fresh returns outputs on the first branch of a line of which nothing was ever
// signed. A wallet that came back from an old copy of the disk, or a device that
// took another's number, would else pay for tickets that it has already: a mint
// signs the same twice, and for money.
func (w *Wallet) fresh(ctx context.Context, line string, e ticket.Epoch, class ticket.Class, parts []ticket.Denomination) (k uint64, _ []want, err error) {
	s, err := w.look()
	if err != nil {
		return 0, nil, err
	}
	for k = s.used(line); ; k++ {
		outputs := wants(branchOf(line, k), class, e, parts)
		_, blinded, err := w.secrets(ctx, outputs)
		if err != nil {
			return 0, nil, err
		}
		signed, err := w.signed(ctx, blinded)
		if err != nil {
			return 0, nil, err
		}
		if !anySigned(signed) {
			return k, outputs, nil
		}
	}
}

// signed asks which outputs were ever signed.
func (w *Wallet) signed(ctx context.Context, outputs []ticket.Output) ([][]byte, error) {
	signed, err := ask(w, func(m Mint) ([][]byte, error) { return m.Restore(ctx, outputs) })
	if err == nil && len(signed) != len(outputs) {
		err = cloudpal.E("ask what was signed", cloudpal.Denied, fmt.Errorf("the mint answered %d for %d", len(signed), len(outputs)))
	}
	return signed, err
}

func anySigned(signatures [][]byte) bool {
	for _, s := range signatures {
		if s != nil {
			return true
		}
	}
	return false
}

// issue has the outputs signed and keeps the tickets.
func (w *Wallet) issue(ctx context.Context, n uint64, p *purchase) error {
	secrets, outputs, err := w.secrets(ctx, p.Outputs)
	if err != nil {
		return err
	}
	signatures, err := askOpenly(w, func(m Mint) ([][]byte, error) { return m.Issue(ctx, p.Quote.ID, outputs, p.lock()) })
	if err != nil && !passes(err) && !p.Outputs[0].Epoch.Issues(w.clock.Now()) {
		// It was not issued before the month ended: a mint answers a repetition.
		return w.onPurchase(ctx, n, func(p *purchase, _ *change) { p.Outputs = nil })
	}
	if err != nil {
		return err
	}
	coins, err := w.finish(ctx, p.Outputs, secrets, signatures, Bought)
	if err != nil {
		return err
	}
	return w.onPurchase(ctx, n, func(p *purchase, c *change) {
		p.Done, p.Outputs, p.Voucher, p.Account, p.Quote.State = true, nil, "", "", mint.Issued
		for _, o := range coins {
			c.putCoin(o)
		}
	})
}
