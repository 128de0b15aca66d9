package tunnel

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"

	"github.com/tradle/cloudpal"
)

// patience is how long anything may take that should take no time.
const patience = 20 * time.Second

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// A key is a WireGuard key pair.
type key struct {
	private []byte
	public  [32]byte
}

func newKey(t *testing.T) key {
	t.Helper()
	k, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key{k.Bytes(), [32]byte(k.PublicKey().Bytes())}
}

// A pair is a device and a core on this machine's loopback.
type pair struct {
	device, core *Tunnel
	port         uint16 // of the core
}

var (
	core4, core6     = addr("10.77.1.1"), addr("fd77::1")
	device4, device6 = addr("10.77.1.2"), addr("fd77::2")
)

// newPair opens both ends. The device looks for the core at these places, and
// where it is.
func newPair(t *testing.T, elsewhere ...netip.AddrPort) pair {
	t.Helper()
	a, b := newKey(t), newKey(t)
	core := opened(t, Config{
		PrivateKey: b.private, Addrs: []netip.Addr{core4, core6}, Peer: a.public,
		Routes: []netip.Prefix{netip.PrefixFrom(device4, 32), netip.PrefixFrom(device6, 128)},
	})
	p := pair{core: core, port: listenPort(t, core)}
	p.device = opened(t, Config{
		PrivateKey: a.private, Addrs: []netip.Addr{device4, device6}, Peer: b.public,
		Routes:    []netip.Prefix{netip.MustParsePrefix("10.77.1.0/24"), netip.MustParsePrefix("fd77::/64")},
		Endpoints: append(elsewhere, netip.AddrPortFrom(addr("127.0.0.1"), p.port)),
		DNS:       []netip.Addr{core4},
	})
	return p
}

func opened(t *testing.T, c Config) *Tunnel {
	t.Helper()
	c.Log = slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	tun, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tun.Close(); err != nil {
			t.Error(err)
		}
	})
	return tun
}

func listenPort(t *testing.T, tun *Tunnel) (port uint16) {
	t.Helper()
	text, err := tun.device.IpcGet()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(line, "listen_port="); ok {
			fmt.Sscan(value, &port)
		}
	}
	return port
}

// serve answers every TCP connection with f.
func serve(t *testing.T, l net.Listener, err error, f func(net.Conn)) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				f(c)
			}()
		}
	}()
}

func dial(t *testing.T, tun *Tunnel, network, to string) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := tun.DialContext(ctx, network, to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

func echo(c net.Conn) { io.Copy(c, c) }

// eventually waits for what to hold.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not after %v", what, patience)
		}
	}
}

func wantEcho(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != text {
		t.Fatalf("got %q, %v; want %q", got, err, text)
	}
}

func TestTCPAndUDPOverBothFamilies(t *testing.T) {
	p := newPair(t)
	for _, at := range []netip.Addr{core4, core6} {
		l, err := p.core.Listen(netip.AddrPortFrom(at, 80))
		serve(t, l, err, echo)
		wantEcho(t, dial(t, p.device, "tcp", netip.AddrPortFrom(at, 80).String()), "over TCP")

		u, err := p.core.ListenPacket(netip.AddrPortFrom(at, 7))
		if err != nil {
			t.Fatal(err)
		}
		defer u.Close()
		go func() {
			b := make([]byte, 2000)
			for {
				n, from, err := u.ReadFrom(b)
				if err != nil {
					return
				}
				u.WriteTo(b[:n], from)
			}
		}()
		wantEcho(t, dial(t, p.device, "udp", netip.AddrPortFrom(at, 7).String()), "over UDP")
	}
	s := p.device.Stats()
	if time.Since(s.Handshake).Abs() > patience || s.Received == 0 || s.Sent == 0 {
		t.Errorf("stats are %+v, want a handshake just now and bytes both ways", s)
	}
	if s.Endpoint.Port() != p.port {
		t.Errorf("the endpoint is %v, want port %d", s.Endpoint, p.port)
	}
}

func TestBothEndsMayBegin(t *testing.T) {
	p := newPair(t)
	l, err := p.device.Listen(netip.AddrPortFrom(device4, 80))
	serve(t, l, err, echo)
	// The core does not know where the device is until the device has spoken.
	p.device.Renew()
	eventually(t, "the device shakes hands", func() bool { return !p.device.Stats().Handshake.IsZero() })
	wantEcho(t, dial(t, p.core, "tcp", device4.String()+":80"), "from the core")
}

// A core may have an IPv6 address that this machine cannot reach, an old port
// and a new one: who answers is taken.
func TestEndpointsAreTriedUntilOneAnswers(t *testing.T) {
	deaf, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	p := newPair(t,
		netip.MustParseAddrPort("[2001:db8::77]:51820"),
		netip.MustParseAddrPort("127.0.0.1:1"),
		netip.MustParseAddrPort(deaf.LocalAddr().String()))
	l, err := p.core.Listen(netip.AddrPortFrom(core4, 80))
	serve(t, l, err, echo)
	begun := time.Now()
	wantEcho(t, dial(t, p.device, "tcp", core4.String()+":80"), "found")
	if took := time.Since(begun); took > 4*time.Second {
		t.Errorf("it took %v: places were tried one after the other", took)
	}
	if got := p.device.Stats().Endpoint.Port(); got != p.port {
		t.Errorf("the endpoint has port %d, want %d", got, p.port)
	}
}

func TestPeerThatMovedIsFoundAtItsNewPlace(t *testing.T) {
	p := newPair(t)
	l, err := p.core.Listen(netip.AddrPortFrom(core4, 80))
	serve(t, l, err, echo)
	c := dial(t, p.device, "tcp", core4.String()+":80")
	wantEcho(t, c, "here")
	change(t, p.core)
	at := netip.AddrPortFrom(addr("127.0.0.1"), listenPort(t, p.core))
	if err := p.device.SetEndpoints([]netip.AddrPort{at}); err != nil {
		t.Fatal(err)
	}
	p.device.Renew()
	wantEcho(t, c, "there")
	if got := p.device.Stats().Endpoint; got.Port() != at.Port() {
		t.Errorf("the endpoint is %v, want %v", got, at)
	}
}

// change gives a tunnel another UDP port, as a NAT does whose mapping is gone,
// or another network.
func change(t *testing.T, tun *Tunnel) {
	t.Helper()
	was := listenPort(t, tun)
	if err := tun.device.IpcSet("listen_port=0\n"); err != nil {
		t.Fatal(err)
	}
	if is := listenPort(t, tun); is == was {
		t.Fatalf("the port is still %d", is)
	}
}

// Who waits for something says nothing: without word from the device, the core
// would send it to where the device was.
func TestDeviceThatMovedIsStillReached(t *testing.T) {
	p := newPair(t)
	moved := make(chan struct{})
	l, err := p.core.Listen(netip.AddrPortFrom(core4, 80))
	serve(t, l, err, func(c net.Conn) {
		io.CopyN(c, c, 5)
		<-moved
		io.WriteString(c, "there")
	})
	c := dial(t, p.device, "tcp", core4.String()+":80")
	wantEcho(t, c, "here?")
	eventually(t, "nothing is left to be said", func() bool {
		was := p.device.Stats()
		time.Sleep(100 * time.Millisecond)
		return was == p.device.Stats()
	})
	change(t, p.device)
	p.device.moved()
	close(moved)
	got := make([]byte, 5)
	if _, err := io.ReadFull(c, got); err != nil || string(got) != "there" {
		t.Fatalf("got %q, %v", got, err)
	}
}

// A download is all one way: without word from the device, the core would send
// it to where the device was.
func TestDownloadGoesOnWhenTheDeviceMoves(t *testing.T) {
	const size, part = 32 << 20, 8 << 20
	p := newPair(t)
	data := make([]byte, size)
	rand.Read(data)
	l, err := p.core.Listen(netip.AddrPortFrom(core4, 80))
	serve(t, l, err, func(c net.Conn) { c.Write(data) })
	c := dial(t, p.device, "tcp", core4.String()+":80")
	c.SetDeadline(time.Now().Add(3 * patience))
	sum := sha256.New()
	slow := &stopwatch{Reader: c}
	for range size / part {
		if _, err := io.CopyN(sum, slow, part); err != nil {
			t.Fatal(err)
		}
		change(t, p.device)
		p.device.moved()
	}
	if want := sha256.Sum256(data); !bytes.Equal(sum.Sum(nil), want[:]) {
		t.Error("what arrived is not what was sent")
	}
	if slow.longest > 5*time.Second {
		t.Errorf("the download stood still for %v", slow.longest)
	}
}

// A stopwatch measures the longest of its reads.
type stopwatch struct {
	io.Reader
	longest time.Duration
}

func (s *stopwatch) Read(b []byte) (int, error) {
	begun := time.Now()
	n, err := s.Reader.Read(b)
	s.longest = max(s.longest, time.Since(begun))
	return n, err
}

func TestNothingIsSaidUnasked(t *testing.T) {
	p := newPair(t)
	p.device.moved() // there is no session to tell of
	time.Sleep(50 * time.Millisecond)
	if s := p.device.Stats(); s.Sent != 0 {
		t.Errorf("%d bytes were sent", s.Sent)
	}
	text, err := p.device.device.IpcGet()
	if err != nil || !strings.Contains(text, "persistent_keepalive_interval=0\n") {
		t.Errorf("there is a keepalive: %v", err)
	}
}

func TestCloseCleansUp(t *testing.T) {
	before := runtime.NumGoroutine()
	p := newPair(t)
	l, err := p.core.Listen(netip.AddrPortFrom(core4, 80))
	serve(t, l, err, func(c net.Conn) { io.Copy(c, forever{}) })
	c := dial(t, p.device, "tcp", core4.String()+":80")
	if _, err := io.CopyN(io.Discard, c, 1<<20); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, c)
		ended <- err
	}()
	for _, tun := range []*Tunnel{p.device, p.core} {
		if err := tun.Close(); err != nil {
			t.Fatal(err)
		}
		select {
		case <-tun.Closed():
		case <-time.After(patience):
			t.Fatal("it is not closed")
		}
	}
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("a connection outlives its tunnel")
	}
	l.Close()
	eventually(t, "all goroutines end", func() bool { return runtime.NumGoroutine() <= before })
	if t.Failed() {
		buf := make([]byte, 1<<20)
		t.Logf("%s", buf[:runtime.Stack(buf, true)])
	}
}

type forever struct{}

func (forever) Read(b []byte) (int, error) { return len(b), nil }

func TestBadConfigs(t *testing.T) {
	good := Config{
		PrivateKey: newKey(t).private, Addrs: []netip.Addr{device4}, Peer: newKey(t).public,
		Routes: []netip.Prefix{netip.MustParsePrefix("10.77.1.0/24")},
	}
	for name, spoil := range map[string]func(*Config){
		"no key":             func(c *Config) { c.PrivateKey = nil },
		"short key":          func(c *Config) { c.PrivateKey = c.PrivateKey[:31] },
		"no addresses":       func(c *Config) { c.Addrs = nil },
		"nowhere":            func(c *Config) { c.Routes = nil },
		"endpoint":           func(c *Config) { c.Endpoints = []netip.AddrPort{{}} },
		"port 0":             func(c *Config) { c.Endpoints = []netip.AddrPort{netip.AddrPortFrom(core4, 0)} },
		"too many endpoints": func(c *Config) { c.Endpoints = make([]netip.AddrPort, MaxEndpoints+1) },
	} {
		c := good
		spoil(&c)
		if tun, err := Open(c); !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("%s: got %v, want %v", name, err, cloudpal.Invalid)
			if tun != nil {
				tun.Close()
			}
		}
	}
}

func TestNamesAreLookedUpInTheTunnel(t *testing.T) {
	p := newPair(t)
	u, err := p.core.ListenPacket(netip.AddrPortFrom(core4, 53))
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	go answerEveryName(u, core4)
	l, err := p.core.Listen(netip.AddrPortFrom(core4, 80))
	serve(t, l, err, echo)
	wantEcho(t, dial(t, p.device, "tcp", "laptop.pal:80"), "by name")
	if _, err := p.core.DialContext(t.Context(), "tcp", "laptop.pal:80"); !errors.Is(err, cloudpal.NotExist) {
		t.Errorf("a tunnel without a DNS server: got %v, want %v", err, cloudpal.NotExist)
	}
}

// answerEveryName says that each name has one IPv4 address and no IPv6 address.
func answerEveryName(u net.PacketConn, a netip.Addr) {
	b := make([]byte, 1500)
	for {
		n, from, err := u.ReadFrom(b)
		if err != nil {
			return
		}
		question := b[12:n]
		end := bytes.IndexByte(question, 0) + 5
		isA := question[end-3] == 1
		r := append([]byte{b[0], b[1], 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, question[:end]...)
		if isA {
			r[7] = 1
			r = append(r, 0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4)
			r = append(r, a.AsSlice()...)
		}
		u.WriteTo(r, from)
	}
}

// A packet of any kind from the peer harms nobody.
func FuzzStackTakesAnyPacket(f *testing.F) {
	f.Add([]byte{0x45, 0, 0, 20})
	f.Add([]byte{0x60, 0, 0, 0, 0, 0, 59, 64})
	f.Add([]byte{0})
	f.Add([]byte{})
	s, err := newStack([]netip.Addr{device4, device6})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	f.Fuzz(func(t *testing.T, packet []byte) {
		if _, err := s.Write([][]byte{packet}, 0); err != nil {
			t.Fatal(err)
		}
	})
}

func FuzzParseStats(f *testing.F) {
	f.Add([]byte("private_key=00\nendpoint=127.0.0.1:5\nlast_handshake_time_sec=5\nrx_bytes=7\n"))
	f.Add([]byte("endpoint=everywhere\nrx_bytes=x\n="))
	f.Fuzz(func(t *testing.T, text []byte) { parseStats(text) })
}

// A Bind that loses all but its handshakes would be found out: the test above
// counts on paths to send data to one place only.
func TestDataGoesToOnePlace(t *testing.T) {
	counted := &countingBind{Bind: conn.NewDefaultBind(), sent: map[string]int{}}
	p := &paths{Bind: counted}
	if err := p.set([]netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:1001"), netip.MustParseAddrPort("127.0.0.1:1002")}); err != nil {
		t.Fatal(err)
	}
	known, err := p.ParseEndpoint("127.0.0.1:1002")
	if err != nil {
		t.Fatal(err)
	}
	initiation := append([]byte{1}, make([]byte, 147)...)
	p.Send([][]byte{make([]byte, 96)}, known)
	if len(counted.sent) != 1 || counted.sent["127.0.0.1:1002"] != 1 {
		t.Errorf("data went to %v", counted.sent)
	}
	p.Send([][]byte{initiation}, known)
	if counted.sent["127.0.0.1:1001"] != 1 || counted.sent["127.0.0.1:1002"] != 2 {
		t.Errorf("the initiation went to %v, want both", counted.sent)
	}
	p.Send([][]byte{make([]byte, 32)}, everywhere{})
	if counted.sent["127.0.0.1:1001"] != 2 || counted.sent["127.0.0.1:1002"] != 3 {
		t.Errorf("what may be anywhere went to %v, want both", counted.sent)
	}
	if err := p.set(nil); err != nil {
		t.Fatal(err)
	}
	if err := p.Send([][]byte{initiation}, everywhere{}); err == nil {
		t.Error("a packet to nowhere was sent")
	}
	counted.err = os.ErrPermission
	if err := p.Send([][]byte{initiation}, known); !errors.Is(err, os.ErrPermission) {
		t.Errorf("got %v, want the network's error", err)
	}
}

type countingBind struct {
	conn.Bind
	sent map[string]int
	err  error
}

func (b *countingBind) Send(_ [][]byte, e conn.Endpoint) error {
	b.sent[e.DstToString()]++
	return b.err
}
