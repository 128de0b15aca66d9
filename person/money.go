package person

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
	mint "github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/person/wallet"
	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/manifest"
)

// A Grant is a mint that gives this person tickets: that of their own machine.
type Grant struct {
	Trust   []byte `json:"trust"`   // manifest.Trust
	Account string `json:"account"` // secret: for free tickets
}

const (
	grantPack   = "week" // that is taken of a grant
	grantSlices = 2      // another is taken when there is less in the wallet than so many slices
)

// WalletDir is where the wallets of a home are, one for each mint.
func WalletDir(home string) string { return filepath.Join(home, "wallet") }

// A Money says how a pal is paid for.
type Money struct {
	Issuer  string       `json:"issuer"`  // whose tickets pay
	Units   ticket.Units `json:"units"`   // in the wallet
	Tickets int          `json:"tickets"` // that they are in
	Left    ticket.Units `json:"left"`    // at the center, paid and not used
	Ahead   ticket.Units `json:"ahead"`   // with tickets that are due later
	Stage   api.Stage    `json:"stage"`
	Hour    float64      `json:"hour"`  // units that the pal costs an hour, as it is now
	Costs   []Cost       `json:"costs"` // of what is metered in it
	Days    float64      `json:"days"`  // that all of it is enough for, with the core awake
	Ends    time.Time    `json:"ends,omitzero"`
	Deletes time.Time    `json:"deletes,omitzero"` // when the pal is deleted if nothing is paid until then
}

// A Cost is of a part of a pal that is metered by itself.
type Cost struct {
	Name string  `json:"name"`
	Hour float64 `json:"hour"` // units, while it is awake
}

// newMoney puts together what a wallet has and what a center says.
func newMoney(b wallet.Balance, st wallet.Standing, awake bool) *Money {
	t, tariff := st.Tab, st.Offer.Tariff
	rate := t.Rate // as it was when the center last counted
	if awake {
		rate = max(rate, tariff.Core)
	}
	m := &Money{
		Issuer: b.Issuer, Left: t.Paid - min(t.Used, t.Paid), Ahead: t.Ahead, Stage: t.Stage,
		Hour: float64(rate) / 24, Costs: []Cost{{"core", float64(tariff.Core) / 24}}, Ends: t.Ends, Deletes: t.Deletes,
	}
	for _, h := range b.Holdings {
		if len(st.Offer.Classes) == 0 || slices.Contains(st.Offer.Classes, h.Class) {
			m.Units += ticket.Units(h.Denomination) * ticket.Units(h.Tickets)
			m.Tickets += h.Tickets
		}
	}
	if day := max(t.Rate, tariff.Core); day > 0 {
		m.Days = float64(m.Units+m.Left+m.Ahead) / float64(day)
	}
	return m
}

// Stay is the pal's at its center, which the client asks.
func (s State) Stay(c wallet.Counter) (wallet.Stay, error) {
	secrets, err := s.secrets()
	if err != nil {
		return wallet.Stay{}, err
	}
	defer secrets.Wipe()
	keys, public := secrets.MeterKeys(), secrets.WireGuardKey()
	return wallet.Stay{
		Counter: c, Address: s.Center.Address, WireGuard: public[:],
		Name: func(nonce [16]byte, offer ticket.Digest) api.TabID {
			return api.TabID(keys.Key(nonce, offer).Public().(ed25519.PublicKey))
		},
	}, nil
}

// grant returns the mint that gives this person tickets, or nil.
func (s State) grant() *Grant {
	if s.Center.Local == nil {
		return nil
	}
	return s.Center.Local.Grant
}

// errNoWallet says that nothing was ever paid from here, nor can be.
var errNoWallet = errors.New("there is no wallet with tickets")

// openWallet opens the wallet that pays: the grant's, which is made where it is not
// there yet, or one of a mint whose tickets the center takes.
func (h *Home) openWallet(s State, issuers []string, through mint.Dialer) (*wallet.Wallet, error) {
	if g := s.grant(); g != nil {
		return h.openGranted(s, g, through)
	}
	base := WalletDir(h.dir)
	for _, name := range issuers {
		dir, ok := h.walletOf(name)
		if !ok {
			continue
		}
		seed, err := wallet.ReadSeed(base)
		if err != nil {
			return nil, err
		}
		return openWallet(wallet.Config{Dir: dir, Seed: seed, Policy: wallet.Careful}, through)
	}
	return nil, cloudpal.E("pay the center", cloudpal.Missing, fmt.Errorf("%w of %s", errNoWallet, strings.Join(issuers, " or "))).
		WithHint("buy some, with the file that the mint gives away: cloudpal wallet buy --mint FILE")
}

// walletOf returns where the wallet of a mint is, if there is one. The name may be
// anybody's.
func (h *Home) walletOf(mint string) (dir string, ok bool) {
	dir = filepath.Join(WalletDir(h.dir), mint)
	if !filepath.IsLocal(mint) || mint == "." || strings.ContainsAny(mint, `/\`) {
		return "", false
	}
	info, err := os.Stat(dir)
	return dir, err == nil && info.IsDir()
}

// openWallet opens a wallet that asks its mint through a dialer.
func openWallet(c wallet.Config, through mint.Dialer) (*wallet.Wallet, error) {
	var w *wallet.Wallet
	c.Connect = func() (wallet.Mint, error) { return mint.Dial(w.Trust().URL, through) }
	w, err := wallet.Open(c)
	return w, err
}

// openGranted opens the wallet of a grant. Nobody is to be hidden from there: the mint is
// the person's own.
func (h *Home) openGranted(s State, g *Grant, through mint.Dialer) (*wallet.Wallet, error) {
	trust, err := manifest.ParseTrust(g.Trust)
	if err != nil {
		return nil, cloudpal.E("read who your mint is", "", err)
	}
	base := WalletDir(h.dir)
	seed, err := wallet.ReadSeed(base)
	if errors.Is(err, cloudpal.NotExist) {
		if len(s.Wallet) != len(seed) {
			return nil, cloudpal.E("make a wallet", cloudpal.Missing, errors.New("your pal is older than wallets are: this device has no seed for one")).
				WithHint("bring it here with your recovery phrase: cloudpal wallet restore --mint FILE")
		}
		seed = ticket.Seed(s.Wallet)
		err = wallet.KeepSeed(base, seed)
	}
	if err != nil {
		return nil, err
	}
	c := wallet.Config{Dir: filepath.Join(base, trust.Issuer), Seed: seed, Policy: wallet.Now}
	w, err := openWallet(c, through)
	if errors.Is(err, cloudpal.NotExist) {
		if w, err = wallet.Create(c, trust, wallet.FirstDevice); err == nil {
			err = w.Close()
		}
		if err == nil || errors.Is(err, cloudpal.Exist) {
			w, err = openWallet(c, through)
		}
	}
	if err != nil {
		return nil, err
	}
	if pinned := w.Trust(); pinned.Root != trust.Root || pinned.Log != trust.Log || pinned.URL != trust.URL {
		return nil, errors.Join(cloudpal.E("pay with your own tickets", cloudpal.Denied, errors.New("the mint of this machine is another than your wallet is of")).
			WithHint("put the mint's folder back; or put "+c.Dir+" away, whose tickets are worth nothing any more, and run: sudo cloudpal up"), w.Close())
	}
	return w, nil
}

// refill takes another pack of a grant when the wallet has little left.
func (g *Grant) refill(ctx context.Context, w *wallet.Wallet) error {
	b, err := w.Balance()
	if err != nil || b.Free+b.Moving >= grantSlices*64 || len(b.Purchases) > 0 {
		return err // one that was begun, Resume goes on with
	}
	_, err = w.Buy(ctx, wallet.Order{Pack: grantPack, Account: g.Account})
	return err
}

// explain says of a mint of one's own that does not answer how to bring it back.
func (g *Grant) explain(err error) error {
	if g == nil || !errors.Is(err, cloudpal.Missing) && !errors.Is(err, cloudpal.Timeout) {
		return err
	}
	return cloudpal.E("have tickets of your own mint", "", err).WithHint("bring it back: sudo cloudpal up")
}

// explain says of a center's refusal for want of money what to do. Which tickets it takes
// is the center's word alone, so nothing is asked of a mint that it names: one counts if
// there is a wallet of it, which was made with a file that the person was given.
func (h *Home) explain(err error) error {
	var w *api.Wanted
	if !errors.As(err, &w) {
		return err
	}
	hint := "it takes tickets of " + strings.Join(w.Issuers(), " or ") + "; if you trust that mint, buy some with the mint.json that it gives away: cloudpal wallet buy --mint FILE"
	for _, name := range w.Issuers() {
		if _, ok := h.walletOf(name); ok {
			hint = "do that: cloudpal wallet pay; with more tickets, where you have too few: cloudpal wallet buy --mint " + name
			break
		}
	}
	if says := cloudpal.HintOf(err); says != "" {
		hint = says + "; " + hint
	}
	return cloudpal.E("", "", err).WithHint(hint)
}

// fund sees to it that the pal is paid, where its center takes money, and keeps what
// there is to tell of that. It fails where the pal is not paid: what else is wrong, the
// status tells. Step is not called where there is nothing to be paid.
func (a *Agent) fund(ctx context.Context, step func(f func() error) error) error {
	a.paying.Lock()
	defer a.paying.Unlock()
	c, s, err := a.ask()
	if err != nil {
		return err
	}
	about, err := c.Center(ctx)
	if err != nil {
		return err
	}
	if !about.Paid {
		a.spent(nil)
		return nil
	}
	return step(func() error {
		paid, err := a.pay(ctx, c, s)
		err = s.grant().explain(err)
		a.spent(err)
		if paid {
			return nil
		}
		return err
	})
}

// spent keeps why the pal could not be paid, and logs a reason that is new.
func (a *Agent) spent(err error) {
	a.mu.Lock()
	was := a.poor
	a.poor = err
	a.mu.Unlock()
	if err != nil && (was == nil || was.Error() != err.Error()) {
		a.log.Warn("cannot pay the center", "err", err)
	}
}

// pay pays the pal's center from the wallet, which takes new tickets where it is
// granted some. It reports whether the pal is paid for now, also where there is an
// error: a mint that cannot be asked is in nobody's way until the money is at its end.
func (a *Agent) pay(ctx context.Context, c *api.Client, s State) (paid bool, err error) {
	w, err := a.openPurse(ctx, c, s)
	if err != nil {
		return false, err
	}
	at, err := s.Stay(c)
	if err != nil {
		return false, err
	}
	refilled := a.tidy(ctx, w)
	if g := s.grant(); g != nil && refilled == nil {
		refilled = g.refill(ctx, w)
	}
	tab, err := w.Fund(ctx, at, wallet.DefaultAhead)
	paid = tab.Stage == api.Funded
	var rests *wallet.Resting
	switch {
	case paid && (errors.As(err, &rests) || errors.Is(err, cloudpal.Exhausted)):
		err = refilled // there is no more to pay ahead with
	case hides(err):
		err = cloudpal.E("pay the center", "", err).
			WithHint("wait until then; or, where it does not matter who sees it: cloudpal wallet pay --now, then: cloudpal up")
	case err == nil && !paid:
		err = ended(tab)
	case err == nil || !paid && refilled != nil:
		err = refilled
	}
	return paid, err
}

// hides reports whether there are tickets, and they are not used yet so that nobody sees
// whose they are.
func hides(err error) bool {
	var rests *wallet.Resting
	var sparse *wallet.Sparse
	return errors.As(err, &rests) || errors.As(err, &sparse)
}

// tidyEvery is how often tickets are looked through that could get too old.
const tidyEvery = 24 * time.Hour

// tidy goes on with what was begun in the wallet, and now and then renews what is in it
// and drops what is over. The caller holds paying.
func (a *Agent) tidy(ctx context.Context, w *wallet.Wallet) error {
	if err := w.Resume(ctx); err != nil || time.Since(a.tidied) < tidyEvery {
		return err
	}
	if _, err := w.Renew(ctx); err != nil {
		return err
	}
	a.tidied = time.Now()
	return w.Forget(ctx)
}

// ended says what it means that a tab is at its end.
func ended(t api.Tab) error {
	why := t.Reason
	if why == "" {
		why = "nothing is paid for it yet"
	}
	err := cloudpal.E("pay the center", cloudpal.Exhausted, errors.New(why)).WithHint("buy tickets: cloudpal wallet buy; then: cloudpal up")
	if !t.Deletes.IsZero() {
		err.Hint += "; it is deleted on " + t.Deletes.Local().Format("January 2")
	}
	return err
}

// openPurse opens the wallet that pays, where it is not open.
func (a *Agent) openPurse(ctx context.Context, c *api.Client, s State) (*wallet.Wallet, error) {
	a.mu.Lock()
	w := a.purse
	a.mu.Unlock()
	if w != nil {
		return w, nil
	}
	w, err := a.home.openPaying(ctx, c, s, a)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.purse = w
	return w, nil
}

func (a *Agent) closePurse() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.purse == nil {
		return nil
	}
	return a.purse.Close()
}

// payEvery is how often it is looked what the pal has used.
const payEvery = time.Minute

// payLoop pays the center for the pal, once there is one.
func (a *Agent) payLoop(ctx context.Context) {
	t := time.NewTicker(payEvery)
	defer t.Stop()
	for {
		if s, err := a.home.Read(); err == nil && s.Pal != nil {
			err = a.fund(ctx, func(f func() error) error { return f() })
			if err != nil && ctx.Err() == nil {
				a.log.Debug("the center is not paid", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// money tells how the pal is paid for: nil where it is not.
func (s State) money(ctx context.Context, c *api.Client, w *wallet.Wallet, awake bool) (*Money, error) {
	b, err := w.Balance()
	if err != nil {
		return nil, err
	}
	at, err := s.Stay(c)
	if err != nil {
		return nil, err
	}
	st, err := w.Standing(ctx, at)
	if errors.Is(err, cloudpal.NotExist) {
		st.Tab.Stage, err = api.Unpaid, nil
	}
	if err != nil {
		return nil, err
	}
	return newMoney(b, st, awake), nil
}

// Leave closes the tabs of the pal at its center, and brings back what is not used of
// them, as long as ctx lasts. No agent may run, or it pays anew.
func (h *Home) Leave(ctx context.Context) (ticket.Units, error) {
	s, err := h.Read()
	if err != nil {
		return 0, err
	}
	c, err := s.Ask(nil)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	about, err := c.Center(ctx)
	if err != nil || !about.Paid {
		return 0, err
	}
	if _, err := wallet.ReadSeed(WalletDir(h.dir)); errors.Is(err, cloudpal.NotExist) {
		return 0, nil // nothing was ever paid, and no wallet is to be made for that
	}
	w, err := h.openPaying(ctx, c, s, nil)
	if errors.Is(err, errNoWallet) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer w.Close()
	at, err := s.Stay(c)
	if err != nil {
		return 0, err
	}
	return w.Leave(ctx, at)
}

// openPaying opens the wallet that pays a center, by what tickets that takes.
func (h *Home) openPaying(ctx context.Context, c *api.Client, s State, through mint.Dialer) (*wallet.Wallet, error) {
	var issuers []string
	if s.grant() == nil {
		signed, err := c.Offer(ctx)
		if err != nil {
			return nil, err
		}
		offer, err := api.OpenOffer(signed)
		if err != nil {
			return nil, err
		}
		issuers = offer.Issuers
	}
	return h.openWallet(s, issuers, through)
}
