package world

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal/compute/api"
)

// A House is a data center on an internet, Ann's laptop, whose pal is in it, and
// her phone: Debian's WireGuard with what the QR code says.
type House struct {
	*World
	Net    *Internet
	Laptop *Laptop
	Phone  *Place
	WG     *WireGuard
	Pal    string     // the name of its VM
	Core   netip.Addr // on the overlay
	Core6  netip.Addr
}

// NewHouse makes all of it by the commands that a person would use. The pal
// sleeps only when it is told to, unless args, the center's, say otherwise.
func NewHouse(tb testing.TB, args ...string) *House {
	tb.Helper()
	h := &House{Net: NewInternet(tb)}
	args = append([]string{"--core", Core(tb), "--pal-disk", "256M", "--idle", "1h"}, args...)
	h.World = NewCenter(tb, h.Net, args...)
	h.Laptop = h.Net.Join().Laptop()
	s := h.Laptop.Up("--center", h.CenterAddress().String(), "--name", "laptop")
	h.Pal = "pal-" + string(s.Pal.ID)
	for _, p := range s.Network {
		if core := p.Addr().Next(); core.Is4() {
			h.Core = core
		} else {
			h.Core6 = core
		}
	}
	h.Phone = h.Net.Join()
	h.WG = h.Phone.WireGuard(h.Laptop.Phone)
	return h
}

// Sleep puts the pal to sleep. A packet that is still on its way may come
// between.
func (h *House) Sleep(d api.Depth) {
	h.TB.Helper()
	h.Eventually(20*time.Second, "the pal sleeps", func() error {
		v, err := h.API.Suspend(context.Background(), h.Pal, api.SuspendRequest{Depth: d})
		if err == nil && v.State != api.Asleep && v.State != api.Cold {
			err = fmt.Errorf("it is %s", v.State)
		}
		return err
	})
}

// AskCore asks a core's name server with one datagram, which nobody repeats, and
// returns how long the answer took.
func (p *Place) AskCore(core netip.Addr, timeout time.Duration) (time.Duration, error) {
	conn, err := p.Dial(context.Background(), "udp", net.JoinHostPort(core.String(), "53"))
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	begun := time.Now()
	conn.SetDeadline(begun.Add(timeout))
	if _, err := conn.Write(question("pal")); err != nil {
		return 0, err
	}
	answer := make([]byte, 512)
	n, err := conn.Read(answer)
	took := time.Since(begun)
	if err != nil {
		return 0, err
	}
	if n < 12 || answer[3]&0xf != 0 || answer[7] == 0 {
		return 0, fmt.Errorf("the answer has no address: %x", answer[:n])
	}
	return took, nil
}

// question asks for a name's IPv4 address (RFC 1035, section 4.1).
func question(name string) []byte {
	q := []byte{0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}
	for label := range strings.SplitSeq(name, ".") {
		q = append(append(q, byte(len(label))), label...)
	}
	return append(q, 0, 0, 1, 0, 1)
}
