package network_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/test/world"
)

// A house is one of the world's, in a test.
type house struct {
	*world.House
	t      *testing.T
	net    *world.Internet
	laptop *world.Laptop
	phone  *world.Place
	wg     *world.WireGuard
	vm     string     // the core's
	core   netip.Addr // on the overlay
	core6  netip.Addr
}

// newHouse makes one whose pal sleeps only when it is told to, unless args say
// otherwise.
func newHouse(t *testing.T, args ...string) *house {
	t.Helper()
	h := world.NewHouse(t, args...)
	return &house{
		House: h, t: t, net: h.Net, laptop: h.Laptop, phone: h.Phone, wg: h.WG,
		vm: h.Pal, core: h.Core, core6: h.Core6,
	}
}

// sleep puts the pal to sleep.
func (h *house) sleep(d api.Depth) {
	h.t.Helper()
	h.Sleep(d)
}

// asleep fails the test if the pal is awake.
func (h *house) asleep(why string) {
	h.t.Helper()
	if v := h.VM(h.vm); v.State != api.Asleep && v.State != api.Cold {
		h.t.Errorf("%s: the pal is %s (%s)", why, v.State, v.Reason)
	}
}

// udp asks the core's name server with one datagram, which nobody repeats, and
// returns how long the answer took.
func (h *house) udp(from *world.Place, timeout time.Duration) (time.Duration, error) {
	return from.AskCore(h.core, timeout)
}

// page fetches the pal's page.
func (h *house) page(from *world.Place, timeout time.Duration) error {
	r, err := from.HTTP(timeout).Get("http://" + h.core.String() + "/")
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if r.StatusCode != 200 {
		return fmt.Errorf("the page: %s", r.Status)
	}
	return nil
}

// lines returns the test's own reading of a counter such as wakes.
func (h *house) wakes() int64 {
	h.t.Helper()
	return h.VM(h.vm).Wakes
}
