package host

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute/api"
)

// firstPort is WireGuard's usual one.
const firstPort = 51820

// choosePort gives a VM that is a WireGuard peer its UDP port on this host, for
// good: its own peers keep the number. The caller holds mu.
func (h *Host) choosePort(q *api.CreateRequest) error {
	if q.WireGuard == nil {
		return nil
	}
	w := *q.WireGuard
	q.WireGuard = &w // the caller's stays as it is
	if w.HostPort != 0 {
		return h.takePort(w.HostPort)
	}
	for port := firstPort; port <= 0xffff; port++ {
		if h.takePort(uint16(port)) == nil {
			w.HostPort = uint16(port)
			return nil
		}
	}
	return cloudpal.E("", cloudpal.Busy, fmt.Errorf("no UDP port is free from %d up", firstPort)).
		WithHint("remove a VM that needs none any more: cloudpal vm ps")
}

// takePort says why a UDP port cannot be had. The caller holds mu.
func (h *Host) takePort(port uint16) error {
	for _, v := range h.vms {
		if w := v.rec.Request.WireGuard; w != nil && w.HostPort == port {
			return cloudpal.E("", cloudpal.Busy, fmt.Errorf("vm %s has UDP port %d", v.name, port)).
				WithHint("choose another port, or none to have one chosen")
		}
	}
	for _, at := range []struct{ network, addr string }{{"udp4", "0.0.0.0"}, {"udp6", "::"}} {
		c, err := net.ListenPacket(at.network, net.JoinHostPort(at.addr, strconv.Itoa(int(port))))
		switch {
		case err == nil:
			c.Close()
		case errors.Is(err, syscall.EADDRINUSE):
			return cloudpal.E("", cloudpal.Busy, fmt.Errorf("another program of this host has UDP port %d", port)).
				WithHint("choose another port, or none to have one chosen")
		case errors.Is(err, syscall.EAFNOSUPPORT), errors.Is(err, syscall.EADDRNOTAVAIL):
			// A host without IPv6.
		default:
			return cloudpal.E("", "", fmt.Errorf("try UDP port %d: %w", port, err))
		}
	}
	return nil
}
