//go:build linux

package wake

import (
	"bytes"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/network/route"
)

// Sweep removes taps that an earlier process made and nobody has adopted, and
// has the rules forget VMs that are not there. What others made, whatever its
// name, is left alone.
func (n *Network) Sweep() error {
	const op = "sweep the VMs' taps"
	links, err := netlink.LinkList()
	if err != nil {
		return cloudpal.E(op, "", err)
	}
	ours := n.taps()
	var errs []error
	for _, l := range links {
		a := l.Attrs()
		isTap := l.Type() == "tuntap" || l.Type() == "tun"
		if !isTap || ours[a.Index] || !strings.HasPrefix(a.Name, route.Prefix) || !bytes.Equal(a.HardwareAddr, route.HostMAC) {
			continue
		}
		n.cfg.Log.Warn("remove a tap that was left behind", "tap", a.Name)
		errs = append(errs, netlink.LinkDel(l))
	}
	errs = append(errs, n.rules.Only(n.listings()))
	if err := errors.Join(errs...); err != nil {
		return cloudpal.E(op, "", err)
	}
	return nil
}

// listings is what the rules are to know.
func (n *Network) listings() (ls []route.Listing) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, v := range n.byName {
		ls = append(ls, v.listing())
	}
	return ls
}

// taps returns the interfaces that are plugged in.
func (n *Network) taps() map[int]bool {
	n.mu.Lock()
	nics := slices.Collect(maps.Values(n.byName))
	n.mu.Unlock()
	taps := map[int]bool{}
	for _, v := range nics {
		v.mu.Lock()
		if v.tap != nil {
			taps[v.tap.Index()] = true
		}
		v.mu.Unlock()
	}
	return taps
}
