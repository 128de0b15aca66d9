package center_test

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	centerapi "github.com/tradle/cloudpal/center/api"
)

// Three customers make, wake, stop and destroy pals, while the center is killed
// again and again. Each time everything fits together: every pal has its VM,
// volume and port, no VM and no volume is without a pal, no pal is lost that
// its customer was told of, and none is there that was gone.
func TestKilledAtRandom(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	var customers []*customer
	for n := range 3 {
		customers = append(customers, &customer{account: newAccount(), rnd: rand.New(rand.NewPCG(seed, uint64(n+1)))})
	}
	for range 8 {
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for _, c := range customers {
			c.client = s.ask(c.account, s.World.Dial)
			all.Go(func() { c.live(ctx) })
		}
		time.Sleep(time.Duration(rnd.IntN(6000)) * time.Millisecond)
		s.KillAgent()
		cancel()
		all.Wait()
		s.StartAgent()
		s.ready()
		for n, c := range customers {
			c.client = s.ask(c.account, s.World.Dial)
			if err := c.check(t.Context()); err != nil {
				t.Fatalf("customer %d: %v", n, err)
			}
		}
		s.fits()
	}
}

// A customer has at most one pal, and remembers what the center last said.
type customer struct {
	account ed25519.PrivateKey
	client  *centerapi.Client
	rnd     *rand.Rand

	pal   centerapi.ID // "" for none
	key   []byte       // that it was last asked for with
	doubt bool         // the last answer got lost
}

// live does one thing after the other until one fails.
func (c *customer) live(ctx context.Context) {
	for c.act(ctx) == nil {
	}
}

func (c *customer) act(ctx context.Context) (err error) {
	c.doubt = true
	switch n := c.rnd.IntN(6); {
	case c.pal == "":
		var p centerapi.Pal
		c.key = newKey()
		if p, err = c.client.Create(ctx, centerapi.CreateRequest{WireGuard: c.key}); err == nil {
			c.pal = p.ID
		}
	case n == 0:
		_, err = c.client.Stop(ctx, c.pal)
	case n == 1:
		_, err = c.client.Sleep(ctx, c.pal, centerapi.DepthMemory)
		if errors.Is(err, cloudpal.Invalid) {
			err = nil // it was not awake
		}
	case n == 2:
		if err = c.client.Destroy(ctx, c.pal); err == nil {
			c.pal = ""
		}
	case n == 3:
		_, err = c.client.Lock(ctx, c.pal)
	default:
		_, err = c.client.Wake(ctx, c.pal)
	}
	c.doubt = err != nil
	return err
}

// check compares what the customer remembers with what is there.
func (c *customer) check(ctx context.Context) error {
	list, err := c.client.Pals(ctx)
	if err != nil {
		return err
	}
	switch {
	case len(list) > 1:
		return fmt.Errorf("has %d pals", len(list))
	case len(list) == 0 && c.pal != "" && !c.doubt:
		return fmt.Errorf("has lost pal %s", c.pal)
	case len(list) == 0:
		c.pal = ""
		return nil
	case c.pal == "" && !c.doubt:
		return fmt.Errorf("has pal %s, which was destroyed", list[0].ID)
	case c.pal != "" && list[0].ID != c.pal:
		return fmt.Errorf("has pal %s, not %s", list[0].ID, c.pal)
	}
	c.pal = list[0].ID
	if p, err := c.client.Create(ctx, centerapi.CreateRequest{WireGuard: c.key}); err != nil || p.ID != c.pal {
		return fmt.Errorf("asked for again, pal %s is %s: %w", c.pal, p.ID, err)
	}
	if l, err := c.client.Lock(ctx, c.pal); err != nil || !l.Locked {
		return fmt.Errorf("the core of pal %s says %+v: %w", c.pal, l, err)
	}
	return nil
}

// fits compares the center's pals with what the host has.
func (s *site) fits() {
	s.t.Helper()
	vms, err := s.API.VMs(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	volumes, err := s.API.Volumes(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	var have, want []string
	for _, v := range vms {
		want = append(want, v.Name)
	}
	for _, v := range volumes {
		have = append(have, v.Name)
	}
	slices.Sort(have)
	if !slices.Equal(have, want) {
		s.t.Errorf("volumes %v, of VMs %v", have, want)
	}
	out, err := s.command("center", "status", "--json")
	if err != nil || !strings.Contains(out, fmt.Sprintf(`"pals": %d`, len(s.records()))) || len(s.records()) != len(vms) {
		s.t.Errorf("records %v, VMs %v, status %s (%v)", s.records(), want, out, err)
	}
}
