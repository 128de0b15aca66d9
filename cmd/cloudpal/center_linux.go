//go:build amd64

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center"
	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/network/wake"
)

// serveCenter runs a center until a signal ends it.
func (c *cli) serveCenter(ctx context.Context, o centerOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	return c.untilSignal(ctx, func(ctx context.Context) error { return c.runCenter(ctx, o) })
}

// runCenter puts an agent and a center on it together, and runs both until ctx
// ends. What is missing is found out before anything is changed.
func (c *cli) runCenter(ctx context.Context, o centerOptions) error {
	if err := mustBeRoot(); err != nil {
		return err
	}
	core, err := findCore(o.core)
	if err != nil {
		return err
	}
	o.core = core
	listeners, err := listenAll(o.listen)
	if err != nil {
		return err
	}
	defer closeAll(listeners)
	h, l, err := c.listenHost(ctx, o.host)
	if err != nil {
		return err
	}
	// The agent ends after the center, which asks it to the last.
	hosting, endHost := context.WithCancel(context.WithoutCancel(ctx))
	working, endWork := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() {
		served <- h.Serve(hosting, l)
		endWork()
	}()
	err = c.runOn(working, o, listeners)
	endHost()
	return errors.Join(err, <-served)
}

// runOn runs a center on the agent that answers on the socket.
func (c *cli) runOn(ctx context.Context, o centerOptions, listeners []net.Listener) error {
	agent := api.Dial(o.host.socket)
	defer agent.Close()
	state, err := filepath.Abs(o.host.state)
	if err != nil {
		return cloudpal.E("find "+o.host.state, cloudpal.Invalid, err)
	}
	log := c.logger(o.host.debug)
	addrs := addressesOf(o, log)
	money, err := o.money(log)
	if err != nil {
		return err
	}
	ctr, err := center.New(ctx, center.Config{
		Dir: filepath.Join(state, "center"), Host: agent, Core: o.core, Version: versionName(), Log: log,
		Addrs:  addrs,
		Memory: int64(o.memory), Disk: int64(o.disk), Nap: api.Nap{Idle: o.idle, Seal: o.seal},
		Ports: o.ports, MaxPals: o.pals, MaxOwned: o.owned, Money: money,
	})
	if err != nil {
		return err
	}
	// What finding its pals again took would be kept for as long as it is idle:
	// with thousands of them, as much as they take.
	debug.FreeOSMemory()
	n := notice{PID: os.Getpid(), Addresses: ctr.Addresses(reached(o, listeners, addrs())), Here: here(listeners[0])}
	file := filepath.Join(o.host.run, noticeName)
	defer os.Remove(file)
	err = c.announce(file, n)
	if err == nil {
		err = ctr.Serve(ctx, listeners...)
	}
	return errors.Join(err, ctr.Close())
}

// reached are the addresses and ports at which listeners are to be found, where
// one on all addresses is at each of all.
func reached(o centerOptions, listeners []net.Listener, all []netip.Addr) (list []netip.AddrPort) {
	for _, l := range listeners {
		at := l.Addr().(*net.TCPAddr).AddrPort()
		if !at.Addr().IsUnspecified() && len(o.advertise) == 0 {
			list = append(list, netip.AddrPortFrom(at.Addr().Unmap(), at.Port()))
			continue
		}
		for _, a := range all {
			list = append(list, netip.AddrPortFrom(a, at.Port()))
		}
	}
	return list
}

// here is where this machine itself reaches a listener, whatever it is behind. One on all
// addresses is also on IPv4's.
func here(l net.Listener) netip.AddrPort {
	at := l.Addr().(*net.TCPAddr).AddrPort()
	if at.Addr().IsUnspecified() {
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), at.Port())
	}
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

// announce says, where others look, that the center answers.
func (c *cli) announce(file string, n notice) error {
	if len(n.Addresses) == 0 {
		return cloudpal.E("find an address of this machine", cloudpal.Missing, nil).
			WithHint("say it: cloudpal center --advertise IP")
	}
	n.Address = n.Addresses[0]
	data, err := json.Marshal(n)
	if err != nil {
		return err
	}
	if err := replaceFile(file, data); err != nil {
		return cloudpal.E("write "+file, "", err)
	}
	if c.json {
		_, err = fmt.Fprintf(c.out, "%s\n", data) // on one line, for who reads on
		return err
	}
	_, err = fmt.Fprintf(c.out, "the center answers at %s\n", n.Address)
	return err
}

// replaceFile writes a file that anyone may read, at no time half of it.
func replaceFile(path string, data []byte) error {
	tmp := path + ".new"
	if err := os.WriteFile(tmp, data, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// findCore returns the path of the core's image.
func findCore(path string) (string, error) {
	if path == "" {
		return findPart("core")
	}
	abs, err := filepath.Abs(path)
	if err == nil {
		_, err = os.Stat(abs)
	}
	if err != nil {
		return "", cloudpal.E("find the core's image", cloudpal.Missing, err).
			WithHint("give --core an OCI layout or archive, or leave it out")
	}
	return abs, nil
}

// addressesOf makes what tells at which addresses this machine is reached.
func addressesOf(o centerOptions, log *slog.Logger) func() []netip.Addr {
	if said, _ := o.addrs(); len(said) > 0 {
		return func() []netip.Addr { return said }
	}
	v4, v6 := wake.DefaultV4, wake.DefaultV6
	if o.host.v4.IsValid() {
		v4 = o.host.v4
	}
	if o.host.v6.IsValid() {
		v6 = o.host.v6
	}
	return func() []netip.Addr {
		all, err := ownAddrs()
		if err != nil {
			log.Error("look for this machine's addresses", "err", err)
		}
		return center.Addresses(all, v4, v6)
	}
}

// ownAddrs are those of this machine's devices that are up, before them those
// that it speaks to the world with.
func ownAddrs() ([]netip.Addr, error) {
	var list []netip.Addr
	for _, far := range []string{"192.0.2.1:9", "[2001:db8::1]:9"} { // nothing is sent there
		if c, err := net.Dial("udp", far); err == nil {
			list = append(list, c.LocalAddr().(*net.UDPAddr).AddrPort().Addr())
			c.Close()
		}
	}
	devices, err := net.Interfaces()
	for _, d := range devices {
		if d.Flags&net.FlagUp == 0 {
			continue
		}
		addrs, _ := d.Addrs() // one that went just now has none
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil {
				list = append(list, p.Addr())
			}
		}
	}
	return list, err
}
