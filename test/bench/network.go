package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/test/world"
)

// network are the figures of a pal as its devices see it.
var network = []bench{
	{"wake", benchWake},
	{"throughput", benchThroughput},
	{"filter", benchFilter},
	{"many", benchPals},
	{"up", benchUp},
	{"keepalive", benchKeepalive},
}

// patience is how long an answer may take before it counts as lost.
const patience = 20 * time.Second

// A dialer is where a packet comes from.
type dialer interface {
	Dial(ctx context.Context, network, addr string) (net.Conn, error)
}

// ping sends one echo request from a raw socket, opened before the clock
// starts, and returns how long the reply took (RFC 792).
func ping(from dialer, to netip.Addr) (time.Duration, error) {
	conn, err := from.Dial(context.Background(), "ip4:icmp", to.String())
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	request := echo(uint16(os.Getpid()), uint16(time.Now().UnixNano()))
	begun := time.Now()
	if err := conn.SetDeadline(begun.Add(patience)); err != nil {
		return 0, err
	}
	if _, err := conn.Write(request); err != nil {
		return 0, err
	}
	buf := make([]byte, 1500)
	for {
		n, _, err := conn.(*net.IPConn).ReadFrom(buf)
		took := time.Since(begun)
		if err != nil {
			return 0, err
		}
		if n >= 8 && buf[0] == 0 && [4]byte(buf[4:8]) == [4]byte(request[4:8]) {
			return took, nil
		}
	}
}

// echo is an echo request.
func echo(id, number uint16) []byte {
	p := make([]byte, 64)
	p[0] = 8
	binary.BigEndian.PutUint16(p[4:], id)
	binary.BigEndian.PutUint16(p[6:], number)
	var sum uint32
	for i := 0; i < len(p); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(p[i:]))
	}
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(p[2:], ^uint16(sum+sum>>16))
	return p
}

// Once more than that, a device is a stranger to the pal's host for a while.
const (
	liveRounds = 40
	newRounds  = 30
)

// benchWake holds the way from a device's first packet to the first reply of a
// pal that naps, over WireGuard, against the plain wake of the same VM: another
// one of the same image, as large and as unlocked, that answers an echo request
// without WireGuard. They take turns, and while one is woken the other sleeps.
func benchWake(b *run) error {
	h := world.NewHouse(b, "--armed", "0")
	w, v := b.plainCore()
	pal, plain := b.palWakes(h), b.plainWakes(w, v)
	for i := range liveRounds {
		plain.wake("ping")
		pal.wake("ping, live session")
		plain.wake("page")
		pal.wake("DNS question, live session")
		if i < newRounds {
			pal.wake("ping, new handshake")
			pal.wake("DNS question, new handshake")
		}
	}
	plain.tell()
	pal.tell()
	for _, row := range []struct {
		ours, other string
		goal        float64
	}{
		{"ping, live session", "ping", 1.5},
		{"DNS question, live session", "page", 1.5},
		{"ping, new handshake", "ping", 1.8},
		{"DNS question, new handshake", "page", 1.8},
	} {
		ours, other := pal.took[row.ours], plain.took[row.other]
		b.add(most("wake by a "+row.ours+", p50", "ms", ours.at(0.5), other.at(0.5), "plain wake by a "+row.other, row.goal),
			most("wake by a "+row.ours+", p99", "ms", ours.at(0.99), ours.at(0.5), "its own p50", 3))
	}
	shares := share(pal.parts)
	b.add(told("plain wake by a ping, p99", "ms", plain.took["ping"].at(0.99), plain.took["ping"].at(0.5), "its own p50"),
		upTo("the agent's own share of a wake, p99", "ms", shares.at(0.99), 3),
		told("the agent's own share of a wake, p50", "ms", shares.at(0.5), share(plain.parts).at(0.5), "of the plain one"))
	return nil
}

// wakes are those of one VM, by what woke it. In between it sleeps.
type wakes struct {
	b      *run
	name   string
	by     map[string]func() (time.Duration, error)
	awake  func() []api.Step
	asleep func()
	took   map[string]sample
	parts  [][]api.Step
}

// wake wakes it, and puts it to sleep again.
func (w *wakes) wake(by string) {
	d, err := w.by[by]()
	w.b.must(err)
	w.took[by] = append(w.took[by], d)
	w.parts = append(w.parts, w.awake())
	w.asleep()
	time.Sleep(settled)
}

// settled is how long a nap lasts at least: what the end of a process leaves the
// kernel to do is no part of a wake.
const settled = 300 * time.Millisecond

func (w *wakes) tell() {
	tellSteps(w.name, w.parts)
	fmt.Fprintf(os.Stderr, "    %s: p99 of turn %s, of packets %s ms\n", w.name, short(part(w.parts, "turn").at(0.99)), short(part(w.parts, "packets").at(0.99)))
	for by, s := range w.took {
		fmt.Fprintf(os.Stderr, "    %s: by a %s %s ms, p50 of %d\n", w.name, by, short(s.at(0.5)), len(s))
	}
}

// palWakes are a pal's, by its phone.
func (b *run) palWakes(h *world.House) *wakes {
	ask := func() (time.Duration, error) { return h.Phone.AskCore(h.Core, patience) }
	echo := func() (time.Duration, error) { return ping(h.Phone, h.Core) }
	again := func(f func() (time.Duration, error)) func() (time.Duration, error) {
		return func() (time.Duration, error) { h.WG.Forget(); return f() }
	}
	w := &wakes{b: b, name: "pal", took: map[string]sample{}, by: map[string]func() (time.Duration, error){
		"ping, live session": echo, "DNS question, live session": ask,
		"ping, new handshake": again(echo), "DNS question, new handshake": again(ask),
	}}
	w.awake = func() []api.Step { return b.woken(h) }
	w.asleep = func() { h.Sleep(api.Memory) }
	for _, f := range []func() (time.Duration, error){ask, echo} {
		_, err := f()
		b.must(err)
	}
	w.asleep()
	return w
}

// plainWakes are those of a core that any packet wakes, by its host. Its page is
// what its own program answers over TCP.
func (b *run) plainWakes(h *world.World, v api.VM) *wakes {
	w := &wakes{b: b, name: "plain", took: map[string]sample{}, by: map[string]func() (time.Duration, error){
		"ping": func() (time.Duration, error) { return ping(h, v.Addresses[0]) },
		"page": func() (time.Duration, error) {
			return timed(func() error { return askAt(h, world.Addr(v, 7460), "/v1/healthz") })
		},
	}}
	w.awake = func() []api.Step { return h.Await(v.Name, api.Running).Steps }
	w.asleep = func() { b.suspend(h, v.Name, api.Memory) }
	for _, f := range w.by {
		_, err := f()
		b.must(err)
	}
	w.asleep()
	return w
}

// askAt sends a request and waits for the first byte of the answer.
func askAt(from dialer, addr, path string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := from.Dial(ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: pal\r\n\r\n"); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1))
	return err
}

// woken returns the steps of the pal's wake, once it is done: the answer may
// come before the agent has put its papers away.
func (b *run) woken(h *world.House) []api.Step { return h.Await(h.Pal, api.Running).Steps }

// share is what the agent takes of each wake: from the packet to the beginning
// of the resume, and from its end until packets flow.
func share(parts [][]api.Step) sample { return part(parts, "turn", "packets") }

// part adds up the named steps of each wake.
func part(parts [][]api.Step, names ...string) sample {
	var s sample
	for _, p := range parts {
		s = append(s, steps(api.VM{Steps: p}, names...))
	}
	return s
}
