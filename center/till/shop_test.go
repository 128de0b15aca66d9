package till

import (
	"crypto/ed25519"
	"crypto/rand"
	"log/slog"
	"testing"
	"time"

	"github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/test/bank"
)

// start is the time of the tests, in epoch 82.
var start = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// A world is a mint and the time.
type world struct {
	*bank.Bank
	*bank.Clock
}

func newBank(tb testing.TB) *world {
	tb.Helper()
	c := bank.NewClock(start)
	return &world{bank.New(tb, c.Now), c}
}

// A shop is a till on a folder, and what it was made with.
type shop struct {
	*Till
	tb     testing.TB
	config Config
	bank   *world
}

var tariff = api.Tariff{Core: 64, App: 64, Storage: 30, Traffic: 2}

// openShop opens a till; adjust may be nil.
func openShop(tb testing.TB, b *world, dir string, adjust func(*Config)) *shop {
	tb.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	c := Config{
		Dir: dir, Key: key, Issuers: []Issuer{{b.Trust, b}}, Log: slog.New(slog.DiscardHandler), Now: b.Now,
		Terms: Terms{Tariff: tariff, Slice: 64},
	}
	if adjust != nil {
		adjust(&c)
	}
	s := &shop{tb: tb, config: c, bank: b}
	s.open()
	tb.Cleanup(func() {
		if s.Till != nil {
			s.Close()
		}
	})
	return s
}

func newShop(tb testing.TB, b *world) *shop { return openShop(tb, b, tb.TempDir(), nil) }

func (s *shop) open() {
	s.tb.Helper()
	t, err := Open(s.config)
	if err != nil {
		s.tb.Fatal(err)
	}
	s.Till = t
}

// again closes the till and opens it anew.
func (s *shop) again() {
	s.tb.Helper()
	if err := s.Close(); err != nil {
		s.tb.Fatal(err)
	}
	s.open()
}

// tab opens the payer's tab.
func (s *shop) tab(p *bank.Payer) api.Tab {
	s.tb.Helper()
	v, err := s.OpenTab(p.Account, p.Request)
	if err != nil {
		s.tb.Fatal(err)
	}
	return v
}

func (s *shop) pay(p *bank.Payer, r api.PayRequest) api.Paid {
	s.tb.Helper()
	signed, err := s.Pay(s.tb.Context(), p.Account, p.Request.ID, r)
	if err != nil {
		s.tb.Fatalf("pay: %v", err)
	}
	center := s.Center()
	var paid api.Paid
	if err := signed.Open(center[:], api.ForPaid, &paid); err != nil {
		s.tb.Fatal(err)
	}
	return paid
}

func (s *shop) look(p *bank.Payer) api.Tab {
	s.tb.Helper()
	v, err := s.Tab(p.Account, p.Request.ID)
	if err != nil {
		s.tb.Fatal(err)
	}
	return v
}

// works lets an awake pal work for so long, in steps as the center counts.
func (s *shop) works(p *bank.Payer, from Use, d time.Duration) Use {
	s.tb.Helper()
	const step = time.Minute
	s.count(p, from)
	for ; d > 0; d -= step {
		s.bank.Set(s.bank.Now().Add(step))
		from.Awake += step
		from.Up = true
		s.count(p, from)
		s.Review()
	}
	return from
}

func (s *shop) count(p *bank.Payer, u Use) api.Meter {
	s.tb.Helper()
	_, m, err := s.Count(p.Account, p.Request.WireGuard, u)
	if err != nil {
		s.tb.Fatal(err)
	}
	return m
}

// agree countersigns the last record.
func (s *shop) agree(p *bank.Payer) {
	s.tb.Helper()
	m, err := s.Meter(p.Account, p.Request.ID)
	if err != nil {
		s.tb.Fatal(err)
	}
	if _, err := s.Countersign(p.Account, p.Request.ID, p.Agrees(m)); err != nil {
		s.tb.Fatal(err)
	}
}

func (s *shop) closeTab(p *bank.Payer) api.Closed {
	s.tb.Helper()
	signed, err := s.CloseTab(p.Account, p.Request.ID)
	if err != nil {
		s.tb.Fatal(err)
	}
	center := s.Center()
	var c api.Closed
	if err := signed.Open(center[:], api.ForClosed, &c); err != nil {
		s.tb.Fatal(err)
	}
	return c
}
