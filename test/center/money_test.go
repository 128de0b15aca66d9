package center_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center"
	centerapi "github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/center/till"
	host "github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/test/bank"
	"github.com/tradle/cloudpal/test/world"
	"github.com/tradle/cloudpal/ticket"
)

// A budget that ends puts a real VM to sleep, with a packet's worth of patience, and
// tickets wake it: where it was. The till goes by the test's clock; what is used, the
// host counts, so that a slice is a minute awake.
func TestBudgetEnds(t *testing.T) {
	t.Parallel()
	world.Require(t)
	image, err := core()
	if err != nil {
		t.Fatal(err)
	}
	w := world.New(t)
	// In the middle of this month: the mint has its keys.
	clock := bank.NewClock(ticket.EpochAt(time.Now()).Begins().AddDate(0, 0, 12))
	b := bank.New(t, clock.Now)
	c, err := center.New(t.Context(), center.Config{
		Dir: t.TempDir(), Host: w.API, Core: image, Version: "test", Disk: 64 << 20, Nap: host.Nap{Idle: time.Hour},
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)), Addrs: func() []netip.Addr { return []netip.Addr{netip.MustParseAddr("10.201.0.1")} },
		Money: &center.Money{
			Mints: func(ed25519.PrivateKey) ([]till.Issuer, error) { return []till.Issuer{{Trust: b.Trust, Mint: b}}, nil },
			Terms: till.Terms{Tariff: centerapi.Tariff{Core: 64 * 24 * 60}}, Now: clock.Now,
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- c.Serve(ctx, l) }()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-served, c.Close()); err != nil {
			t.Error(err)
		}
	})
	payer := bank.NewPayer(t, b)
	ann, err := centerapi.Dial(c.Addresses([]netip.AddrPort{l.Addr().(*net.TCPAddr).AddrPort()})[0], newAccount(), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ann.Close)
	id := payer.Request.ID
	pays := func() {
		t.Helper()
		offer, err := ann.Offer(t.Context())
		if err == nil {
			with := payer.Buy(ticket.Paid, 64, ticket.EpochAt(clock.Now()))
			_, err = ann.Pay(t.Context(), id, payer.Pays(offer, with, time.Time{}))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	create := centerapi.CreateRequest{WireGuard: payer.Request.WireGuard}
	if _, err := ann.Create(t.Context(), create); !errors.Is(err, cloudpal.Exhausted) {
		t.Fatalf("without money a pal is made: %v", err)
	}
	if _, err := ann.OpenTab(t.Context(), payer.Request); err != nil {
		t.Fatal(err)
	}
	pays()
	p, err := ann.Create(t.Context(), create)
	if err != nil {
		t.Fatal(err)
	}
	vm := "pal-" + string(p.ID)
	after := int64(0)
	w.Eventually(4*time.Minute, "the money ends", func() error {
		clock.Add(time.Minute)
		events, err := ann.TabEvents(t.Context(), id, after, time.Second)
		for _, e := range events {
			if after = e.N; e.What == centerapi.Napped {
				return nil
			}
		}
		return errors.Join(err, errors.New("nothing tells it"))
	})
	w.Eventually(time.Minute, "the VM naps", func() error {
		if v := w.VM(vm); v.State != host.Asleep {
			return fmt.Errorf("it is %s", v.State)
		}
		return nil
	})
	if _, err := ann.Wake(t.Context(), p.ID); !errors.Is(err, cloudpal.Exhausted) {
		t.Errorf("without money it is woken: %v", err)
	}

	meter, err := ann.Meter(t.Context(), id)
	if err == nil {
		_, err = ann.Countersign(t.Context(), id, payer.Agrees(meter))
	}
	if err != nil {
		t.Fatal(err)
	}
	pays()
	if back, err := ann.Wake(t.Context(), p.ID); err != nil || back.State != centerapi.Awake || back.Boots != p.Boots {
		t.Errorf("paid again it is %+v (%v), and had booted %d times", back, err, p.Boots)
	}
}
