package person

import (
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/person/wallet"
	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/challenge"
	"github.com/tradle/cloudpal/ticket/manifest"
)

// sells makes the cloud's center one that takes tickets of a mint.
func (c *cloud) sells(issuer string) {
	c.t.Helper()
	c.sellsUntil(issuer, time.Now().Add(30*24*time.Hour))
}

// sellsUntil makes it one whose present offer is good until then.
func (c *cloud) sellsUntil(issuer string, until time.Time) {
	c.t.Helper()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	signed, err := api.Sign(key, api.ForOffer, api.Offer{
		Center: public, Issuers: []string{issuer}, Classes: []ticket.Class{ticket.Free}, Tariff: api.Tariff{Core: 64}, Slice: 64,
		Until: until, Grace: 300, Seal: 600, Delete: 900,
	})
	if err != nil {
		c.t.Fatal(err)
	}
	c.do(func() { c.offer = &signed })
}

// newGrant returns one of a mint that nobody answers for.
func newGrant(t *testing.T, issuer string) *Grant {
	t.Helper()
	trust := manifest.Trust{Issuer: issuer, URL: "https://127.0.0.1:1"}
	for _, k := range []struct {
		name string
		key  *string
	}{{issuer, &trust.Root}, {issuer + "/log", &trust.Log}} {
		_, public, err := note.GenerateKey(rand.Reader, k.name)
		if err != nil {
			t.Fatal(err)
		}
		*k.key = public
	}
	raw, err := trust.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return &Grant{Trust: raw, Account: "a secret word"}
}

// grants gives a device's person tickets of a mint.
func (d *device) grants(g *Grant) {
	d.t.Helper()
	err := d.home.Change(d.t.Context(), func(s *State) error {
		s.Center.Local = &Local{State: "/nowhere", Grant: g}
		return nil
	})
	if err != nil {
		d.t.Fatal(err)
	}
}

// Who cannot pay is told why and what to do, and nothing is made.
func TestUpWithoutMoney(t *testing.T) {
	c := newCloud(t)
	c.sells("mint.example")
	d := c.newDevice()
	err := d.Up(t.Context(), UpRequest{}, func(Step) {})
	if !errors.Is(err, cloudpal.Missing) || !strings.Contains(err.Error(), "no wallet with tickets of mint.example") || !strings.Contains(cloudpal.HintOf(err), "cloudpal wallet buy --mint") {
		t.Errorf("without a wallet: %v, hint %q", err, cloudpal.HintOf(err))
	}
	d.grants(newGrant(t, "mint.example"))
	err = d.Up(t.Context(), UpRequest{}, func(Step) {})
	if !errors.Is(err, cloudpal.Missing) || !strings.Contains(cloudpal.HintOf(err), "sudo cloudpal up") || strings.Contains(err.Error(), "a secret word") {
		t.Errorf("without the mint: %v, hint %q", err, cloudpal.HintOf(err))
	}
	s, err := d.Status(t.Context())
	if err != nil || !strings.Contains(s.Problem, "your own mint") || s.Hint == "" {
		t.Errorf("the status is %+v (%v)", s, err)
	}
	if c.pals != 0 || c.count("create") != 0 {
		t.Errorf("%d pals were made", c.pals)
	}
	// What was begun is written down, once.
	d.end()
	w, err := d.home.openWallet(d.state(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	b, err := w.Balance()
	if err != nil || len(b.Purchases) != 1 {
		t.Errorf("there are purchases %+v (%v)", b.Purchases, err)
	}
}

// A center that is to be paid first says whose tickets it takes. The person is told, and
// what they can do; no mint is asked that they have no wallet of.
func TestRefusedForMoney(t *testing.T) {
	c := newCloud(t)
	d := c.newDevice()
	d.up()
	c.do(func() {
		c.refuse = cloudpal.Exhausted
		c.wanted = challenge.Format(
			challenge.Offer{Challenge: ticket.Challenge("mint.example", ticket.Paid)},
			challenge.Offer{Challenge: ticket.Challenge("../other.example", ticket.Paid)},
		)
	})
	err := d.Up(t.Context(), UpRequest{}, func(Step) {})
	if !errors.Is(err, cloudpal.Exhausted) || !strings.HasSuffix(err.Error(), "it takes tickets of mint.example") || !strings.Contains(cloudpal.HintOf(err), "cloudpal wallet buy --mint FILE") {
		t.Errorf("without a wallet: %v, hint %q", err, cloudpal.HintOf(err))
	}
	if err := os.MkdirAll(filepath.Join(WalletDir(d.home.Dir()), "mint.example"), 0o700); err != nil {
		t.Fatal(err)
	}
	err = d.Up(t.Context(), UpRequest{}, func(Step) {})
	if !errors.Is(err, cloudpal.Exhausted) || !strings.Contains(cloudpal.HintOf(err), "cloudpal wallet pay") || !strings.Contains(cloudpal.HintOf(err), "--mint mint.example") {
		t.Errorf("with a wallet: %v, hint %q", err, cloudpal.HintOf(err))
	}
}

// A mint that is away is told, and keeps nobody from a pal that is paid.
func TestUpWithoutTheMint(t *testing.T) {
	c := newCloud(t)
	c.sells("mint.example")
	c.do(func() { c.tab = &api.Tab{Stage: api.Funded, Paid: 64, Ahead: 192} })
	d := c.newDevice()
	d.grants(newGrant(t, "mint.example"))
	if err := d.Up(t.Context(), UpRequest{}, func(Step) {}); err != nil {
		t.Errorf("with a pal that is paid: %v, hint %q", err, cloudpal.HintOf(err))
	}
	s, err := d.Status(t.Context())
	if err != nil || s.Pal == nil || s.Money == nil || s.Money.Left != 64 || !strings.Contains(s.Problem, "your own mint") || !strings.Contains(s.Hint, "cloudpal up") {
		t.Errorf("the status is %+v (%v)", s, err)
	}
}

// A tab that is paid keeps the pal while the one that follows it, since its offer is over
// soon, cannot be paid yet.
func TestUpWhileTheOfferEnds(t *testing.T) {
	c := newCloud(t)
	c.sellsUntil("mint.example", time.Now().Add(20*time.Hour))
	c.do(func() { c.tab = &api.Tab{Stage: api.Funded, Paid: 64, Ahead: 192} })
	d := c.newDevice()
	d.grants(newGrant(t, "mint.example"))
	if err := d.Up(t.Context(), UpRequest{}, func(Step) {}); err != nil {
		t.Fatal(err)
	}
	c.sells("mint.example")
	c.do(func() { c.poor = true })
	if err := d.Up(t.Context(), UpRequest{}, func(Step) {}); err != nil {
		t.Errorf("while the next tab is not paid: %v, hint %q", err, cloudpal.HintOf(err))
	}
	s, err := d.Status(t.Context())
	c.do(func() {
		if len(c.unpaid) < 2 {
			t.Errorf("it opened tabs %v", c.unpaid)
		}
	})
	if err != nil || s.Money == nil || s.Money.Stage != api.Funded || s.Money.Left != 64 {
		t.Errorf("the status is %+v (%v)", s.Money, err)
	}
}

// The wallet of a grant is the person's and pinned to its mint: it takes no other mint of
// the same name.
func TestGrantedWalletIsPinned(t *testing.T) {
	c := newCloud(t)
	d := c.newDevice()
	d.end()
	d.grants(newGrant(t, "mint.example"))
	s := d.state()
	w, err := d.home.openWallet(s, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.Close()
	base := WalletDir(d.home.Dir())
	if seed, err := wallet.ReadSeed(base); err != nil || seed != ticket.Seed(s.Wallet) {
		t.Errorf("it has another seed than the person (%v)", err)
	}
	if info, err := os.Stat(filepath.Join(base, "mint.example")); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("its folder is %v (%v)", info, err)
	}
	d.grants(newGrant(t, "mint.example"))
	if _, err := d.home.openWallet(d.state(), nil, nil); !errors.Is(err, cloudpal.Denied) || cloudpal.HintOf(err) == "" {
		t.Errorf("another mint of that name: %v", err)
	}
	// Nor does a name lead out of the folder.
	for _, name := range []string{"../wallet/mint.example", "..", ".", "a/b", ""} {
		state := d.state()
		state.Center.Local = nil
		if w, err := d.home.openWallet(state, []string{name}, nil); err == nil {
			w.Close()
			t.Errorf("a mint called %q opens a wallet", name)
		}
	}
}

// Tickets that hide are told from there being none: "up" says how they are used all the
// same.
func TestTicketsThatHide(t *testing.T) {
	for _, c := range []struct {
		err  error
		want bool
	}{
		{cloudpal.E("pay", cloudpal.Busy, &wallet.Sparse{Sold: 7}), true},
		{cloudpal.E("pay", "", &wallet.Resting{Until: time.Now()}), true},
		{cloudpal.E("pay", cloudpal.Busy, nil), false},
		{cloudpal.Exhausted, false},
		{nil, false},
	} {
		if got := hides(c.err); got != c.want {
			t.Errorf("%v: got %v", c.err, got)
		}
	}
}

// Who has paid nothing leaves with nothing, and without a wallet.
func TestLeaveWithoutAWallet(t *testing.T) {
	c := newCloud(t)
	c.sells("mint.example")
	d := c.newDevice()
	d.end()
	d.grants(newGrant(t, "mint.example"))
	if back, err := d.home.Leave(t.Context()); err != nil || back != 0 {
		t.Errorf("%d came back (%v)", back, err)
	}
	if _, err := os.Stat(WalletDir(d.home.Dir())); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is a wallet now (%v)", err)
	}
	err := d.home.Change(t.Context(), func(s *State) error { s.Center.Local = nil; return nil })
	if err != nil {
		t.Fatal(err)
	}
	if err := wallet.KeepSeed(WalletDir(d.home.Dir()), ticket.Seed{1}); err != nil {
		t.Fatal(err)
	}
	if back, err := d.home.Leave(t.Context()); err != nil || back != 0 {
		t.Errorf("with a wallet of another mint %d came back (%v)", back, err)
	}
}

func TestMoneyInFigures(t *testing.T) {
	b := wallet.Balance{Issuer: "mint.example", Holdings: []wallet.Holding{
		{Class: ticket.Free, Denomination: 64, Tickets: 3}, {Class: ticket.Free, Denomination: 1, Tickets: 2}, {Class: ticket.Paid, Denomination: 4096, Tickets: 9},
	}}
	st := wallet.Standing{
		Tab:   api.Tab{Stage: api.Funded, Paid: 64, Used: 4, Ahead: 128, Rate: 2},
		Offer: api.Offer{Classes: []ticket.Class{ticket.Free}, Tariff: api.Tariff{Core: 64}},
	}
	for awake, hour := range map[bool]float64{true: 64.0 / 24, false: 2.0 / 24} {
		m := newMoney(b, st, awake)
		if m.Units != 194 || m.Tickets != 5 || m.Left != 60 || m.Ahead != 128 || m.Hour != hour || m.Costs[0].Hour != 64.0/24 || m.Days != (194+60+128)/64.0 {
			t.Errorf("awake %v: got %+v", awake, m)
		}
	}
	st.Tab.Used = 70
	if m := newMoney(b, st, false); m.Left != 0 {
		t.Errorf("with more used than paid, %d are left", m.Left)
	}
}
