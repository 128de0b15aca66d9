//go:build linux

package wake

import (
	"bytes"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal/network/route"
	"github.com/tradle/cloudpal/test/apart"
)

// Real peers: wireguard-go and wg as Debian has them, each in a network of its
// own. What stands behind the tap is a process that is stopped and continued,
// in place of a VM that sleeps and wakes; the host's side is all real.

// prompt is how soon an answer must be there that needs no second try: WireGuard
// tries a handshake again after 5 s, and TCP a connection after 1 s.
const prompt = 900 * time.Millisecond

// A wg is a WireGuard interface.
type wg struct {
	*place
	dev  string
	addr netip.Addr // inside
	key  *ecdh.PrivateKey
	cmd  *exec.Cmd
}

var wgs atomic.Int32

// wireguard starts one in a place. Its name is nobody else's, for its control
// socket is in a directory that all share.
func (p *place) wireguard(addr string, port int) *wg {
	p.t.Helper()
	for _, name := range []string{"wireguard-go", "wg"} {
		if _, err := exec.LookPath(name); err == nil {
			continue
		}
		apart.Skip(p.t, "needs "+name+": scripts/setup test")
	}
	key, err := ecdh.X25519().GenerateKey(rand.Reader)
	if err != nil {
		p.t.Fatal(err)
	}
	w := &wg{place: p, dev: fmt.Sprintf("w%d-%d", os.Getpid()%1e6, wgs.Add(1)), addr: netip.MustParseAddr(addr), key: key}
	w.start()
	file := filepath.Join(p.t.TempDir(), "key")
	if err := os.WriteFile(file, []byte(base64.StdEncoding.EncodeToString(key.Bytes())), 0o600); err != nil {
		p.t.Fatal(err)
	}
	args := []string{"set", w.dev, "private-key", file}
	if port != 0 {
		args = append(args, "listen-port", fmt.Sprint(port))
	}
	w.run("wg", args...)
	w.run("ip", "addr", "add", addr+"/24", "dev", w.dev)
	w.run("ip", "link", "set", w.dev, "mtu", "1420", "up")
	return w
}

func (w *wg) start() {
	w.t.Helper()
	w.cmd = w.command("wireguard-go", "-f", w.dev)
	w.cmd.Env = append(os.Environ(), "LOG_LEVEL=error", "WG_PROCESS_FOREGROUND=1")
	var said bytes.Buffer
	w.cmd.Stderr = &said
	if err := w.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		w.cmd.Process.Signal(syscall.SIGCONT)
		w.cmd.Process.Kill()
		w.cmd.Wait()
		os.Remove("/var/run/wireguard/" + w.dev + ".sock")
	})
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		if w.command("wg", "show", w.dev).Run() == nil {
			return
		}
		if time.Now().After(end) {
			w.cmd.Process.Kill()
			w.t.Fatalf("wireguard-go does not start: %v\n%s", w.cmd.Wait(), &said)
		}
	}
}

func (w *wg) public() string { return base64.StdEncoding.EncodeToString(w.key.PublicKey().Bytes()) }

// knows adds a peer.
func (w *wg) knows(other *wg, more ...string) {
	w.t.Helper()
	w.run("wg", append([]string{"set", w.dev, "peer", other.public(), "allowed-ips", other.addr.String() + "/32"}, more...)...)
}

// forgets removes it, and the session with it.
func (w *wg) forgets(other *wg) {
	w.t.Helper()
	w.run("wg", "set", w.dev, "peer", other.public(), "remove")
}

// A sleeper is a stand-in for a VM with WireGuard inside.
type sleeper struct {
	*wg
	n     *Network
	name  string
	v     *nic
	inner int  // the tap in its place, which is its NIC
	stop  *int // closing it ends the pump
	ended chan struct{}
}

// sleeping makes one that sleeps.
func sleeping(t testing.TB, n *Network, name string, number byte, hostPort uint16) *sleeper {
	t.Helper()
	s := &sleeper{n: n, name: name}
	p := apartFrom(t)
	s.wg = p.wireguard("10.99.0.1", 51820)
	v4, v6 := addresses(number)
	mac := net.HardwareAddr{2, 0xc1, 0x0d, 0, 0, number}
	s.makeNIC(mac)
	p.run("ip", "link", "set", "eth0", "address", mac.String())
	p.run("ip", "link", "set", "eth0", "up")
	p.run("ip", "addr", "add", v4.String()+"/32", "dev", "eth0")
	p.run("ip", "neigh", "add", n.own(v4).String(), "lladdr", route.HostMAC.String(), "dev", "eth0")
	p.run("ip", "route", "add", "default", "via", n.own(v4).String(), "dev", "eth0", "onlink")
	err := n.Add(name, NIC{MAC: mac, Addrs: []netip.Addr{v4, v6}, Outbound: true, WireGuard: &WireGuard{
		PublicKey: [32]byte(s.key.PublicKey().Bytes()), Port: 51820, HostPort: hostPort,
	}})
	if err != nil {
		t.Fatal(err)
	}
	if s.v, err = n.find(name); err != nil {
		t.Fatal(err)
	}
	s.cmd.Process.Signal(syscall.SIGSTOP)
	t.Cleanup(func() {
		if s.stop != nil {
			s.nap()
		}
	})
	return s
}

func (s *sleeper) makeNIC(mac net.HardwareAddr) {
	s.t.Helper()
	s.inside(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
		if err != nil {
			return err
		}
		ifr, err := unix.NewIfreq("eth0")
		if err != nil {
			return err
		}
		ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		s.inner = fd
		return unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	})
	s.t.Cleanup(func() { unix.Close(s.inner) })
}

// wake has it run, with what was held for it.
func (s *sleeper) wake() {
	s.t.Helper()
	f, _, err := s.n.Plug(s.name)
	if err != nil {
		s.t.Fatal(err)
	}
	outer, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := unix.SetNonblock(outer, true); err != nil {
		s.t.Fatal(err)
	}
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		s.t.Fatal(err)
	}
	s.stop, s.ended = &pipe[1], make(chan struct{})
	go func() {
		defer close(s.ended)
		s.pump(outer, pipe[0])
		unix.Close(outer)
		unix.Close(pipe[0])
	}()
	s.cmd.Process.Signal(syscall.SIGCONT)
	if err := s.n.Admit(s.name); err != nil {
		s.t.Fatal(err)
	}
}

// pump carries frames between the host's tap and the NIC.
func (s *sleeper) pump(outer, stop int) {
	buf := make([]byte, vnetSize+etherSize+maxPacket)
	for {
		poll := []unix.PollFd{{Fd: int32(stop), Events: unix.POLLIN}, {Fd: int32(outer), Events: unix.POLLIN}, {Fd: int32(s.inner), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return
		}
		if poll[0].Revents != 0 {
			return
		}
		for _, way := range [][2]int{{outer, s.inner}, {s.inner, outer}} {
			if n, err := unix.Read(way[0], buf); err == nil {
				unix.Write(way[1], buf[:n])
			}
		}
	}
}

// nap puts it to sleep, as an agent does: packets are held first.
func (s *sleeper) nap() {
	s.t.Helper()
	if err := s.n.Hold(s.name); err != nil {
		s.t.Error(err)
	}
	s.cmd.Process.Signal(syscall.SIGSTOP)
	unix.Close(*s.stop)
	s.stop = nil
	<-s.ended
	if err := s.n.Unplug(s.name); err != nil {
		s.t.Error(err)
	}
}

// serve answers in the sleeper's overlay what UDP and TCP send to port 7.
func (s *sleeper) serve() {
	s.inside(func() error {
		at := netip.AddrPortFrom(s.addr, 7)
		u, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
		if err != nil {
			return err
		}
		l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
		if err != nil {
			return err
		}
		s.t.Cleanup(func() { u.Close(); l.Close() })
		go func() {
			buf := make([]byte, 2000)
			for {
				n, from, err := u.ReadFromUDPAddrPort(buf)
				if err != nil {
					return
				}
				u.WriteToUDPAddrPort(buf[:n], from)
			}
		}()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() { io.Copy(c, c); c.Close() }()
			}
		}()
		return nil
	})
}

// A realPair is a device at a place on the internet, and a sleeper that knows it.
type realPair struct {
	n       *Network
	wakes   <-chan waking
	device  *wg
	sleeper *sleeper
	out     *place // where the device is
}

func pairUp(t *testing.T) *realPair {
	t.Helper()
	n, wakes := openedWith(t, Config{Dir: t.TempDir()})
	p := beside(t, 1, "198.51.100")
	s := sleeping(t, n, "hub", 16, hubPort)
	d := p.wireguard("10.99.0.2", 4711)
	r := &realPair{n: n, wakes: wakes, device: d, sleeper: s, out: p}
	s.cmd.Process.Signal(syscall.SIGCONT)
	s.knows(d)
	s.cmd.Process.Signal(syscall.SIGSTOP)
	r.meet()
	s.serve()
	return r
}

func (r *realPair) meet() {
	r.device.knows(r.sleeper.wg, "endpoint", fmt.Sprintf("%v:%d", r.out.host4, hubPort))
}

// wakesWithin wakes the sleeper when it is asked to, and returns why it was.
func (r *realPair) wakesWithin(t *testing.T, d time.Duration) string {
	t.Helper()
	select {
	case w := <-r.wakes:
		r.sleeper.wake()
		return w.why
	case <-time.After(d):
		t.Fatalf("no wake within %v", d)
		return ""
	}
}

// naps puts the sleeper to sleep. What a connection says at its end may wake it
// at once; it sleeps again when all is said.
func (r *realPair) naps(t *testing.T) {
	t.Helper()
	for {
		r.sleeper.nap()
		select {
		case <-r.wakes:
			r.sleeper.wake()
			time.Sleep(50 * time.Millisecond)
		case <-time.After(100 * time.Millisecond):
			return
		}
	}
}

// ways are how one may say something and be answered.
var ways = map[string]func(r *realPair) error{
	"UDP": func(r *realPair) error {
		return r.dial("udp", func(c net.Conn) error { return echoed(c, []byte("first packet")) })
	},
	"TCP": func(r *realPair) error {
		return r.dial("tcp", func(c net.Conn) error {
			err := echoed(c, []byte("first packet"))
			// To the end of it, so that nothing is said again later.
			c.(*net.TCPConn).CloseWrite()
			_, end := io.Copy(io.Discard, c)
			return errors.Join(err, end)
		})
	},
	"ICMP": func(r *realPair) error {
		out, err := r.device.command("ping", "-q", "-c", "1", "-W", "3", r.sleeper.addr.String()).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w: %s", err, out)
		}
		return nil
	},
}

func (r *realPair) dial(proto string, f func(net.Conn) error) error {
	var failed error
	r.device.inside(func() error {
		d := net.Dialer{Timeout: 10 * time.Second}
		c, err := d.Dial(proto, netip.AddrPortFrom(r.sleeper.addr, 7).String())
		if err != nil {
			failed = err
			return nil
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(10 * time.Second))
		failed = f(c)
		return nil
	})
	return failed
}

func echoed(c net.Conn, b []byte) error {
	if _, err := c.Write(b); err != nil {
		return err
	}
	got := make([]byte, len(b))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != string(b) {
		return fmt.Errorf("got %q, %v; want %q", got, err, b)
	}
	return nil
}

// asks says something one way while the sleeper sleeps, wakes it, and returns
// why it woke and how long the answer took from when it was awake: the machine
// that runs this may take long to make a tap.
func (r *realPair) asks(t *testing.T, way string) (string, time.Duration) {
	t.Helper()
	answered := make(chan error, 1)
	go func() { answered <- ways[way](r) }()
	why := r.wakesWithin(t, patience)
	awake := time.Now()
	if err := <-answered; err != nil {
		t.Errorf("%s: %v", way, err)
	}
	return why, time.Since(awake)
}

// TestTheFirstPacketOfRealWireGuardIsNotLost wakes a VM again and again, in a
// live session and with a new handshake, by all three kinds of packets. An
// answer that took a second try took longer than prompt.
func TestTheFirstPacketOfRealWireGuardIsNotLost(t *testing.T) {
	r := pairUp(t)
	for _, way := range []string{"UDP", "TCP", "ICMP"} {
		for i := range 24 {
			want := "a packet from 198.51.100.2"
			if i%8 == 0 {
				r.device.forgets(r.sleeper.wg)
				r.meet()
				want = "a WireGuard handshake from 198.51.100.2:4711"
			}
			why, took := r.asks(t, way)
			if why != want {
				t.Errorf("%s, wake %d: got %q, want %q", way, i, why, want)
			}
			if took > prompt {
				t.Errorf("%s, wake %d: the answer took %v", way, i, took)
			}
			r.naps(t)
		}
	}
}

// TestPacketsBehindTheFirstComeInOrder sends many at once to a VM that sleeps.
func TestPacketsBehindTheFirstComeInOrder(t *testing.T) {
	r := pairUp(t)
	r.asks(t, "UDP")
	r.naps(t)
	const count = 100
	answered := make(chan error, 1)
	go func() {
		answered <- r.dial("udp", func(c net.Conn) error {
			for i := range count {
				if _, err := c.Write(number(i)); err != nil {
					return err
				}
			}
			buf := make([]byte, 4)
			for i := range count {
				if _, err := c.Read(buf); err != nil || numberOf(buf) != i {
					return fmt.Errorf("got %d, %v; want %d", numberOf(buf), err, i)
				}
			}
			return nil
		})
	}()
	r.wakesWithin(t, patience)
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

// TestAnEmptyKeepaliveOfRealWireGuardDoesNotWake has a device that sends one
// each second.
func TestAnEmptyKeepaliveOfRealWireGuardDoesNotWake(t *testing.T) {
	r := pairUp(t)
	r.asks(t, "UDP")
	r.device.run("wg", "set", r.device.dev, "peer", r.sleeper.public(), "persistent-keepalive", "1")
	r.naps(t)
	before := r.sent(t)
	for end := time.Now().Add(patience); r.sent(t) < before+3*32; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it sends no keepalives")
		}
	}
	if len(r.wakes) > 0 {
		t.Errorf("a keepalive wakes: %v", <-r.wakes)
	}
	if why, _ := r.asks(t, "UDP"); why != "a packet from 198.51.100.2" {
		t.Errorf("data behind them: got %q", why)
	}
}

// sent is how many bytes the device has sent to the sleeper.
func (r *realPair) sent(t *testing.T) (n int) {
	t.Helper()
	f := strings.Fields(r.device.run("wg", "show", r.device.dev, "transfer"))
	fmt.Sscan(f[2], &n)
	return n
}

// TestAPeerThatMovesWakes has the device go on from another port, as one does
// whose router forgot it.
func TestAPeerThatMovesWakes(t *testing.T) {
	r := pairUp(t)
	r.asks(t, "UDP")
	r.naps(t)
	r.device.run("wg", "set", r.device.dev, "listen-port", "4712")
	if why, took := r.asks(t, "UDP"); why != "a packet from 198.51.100.2" || took > prompt {
		t.Errorf("got %q after %v", why, took)
	}
}

// TestTheGuestSpeaksFirst has a VM that lost its session begin, to a device
// that conntrack has forgotten.
func TestTheGuestSpeaksFirst(t *testing.T) {
	r := pairUp(t)
	r.asks(t, "UDP")
	r.naps(t)
	forgetConnections(t)
	r.sleeper.wake()
	r.sleeper.forgets(r.device)
	r.sleeper.knows(r.device, "endpoint", "198.51.100.2:4711")
	start := time.Now()
	out, err := r.sleeper.command("ping", "-q", "-c", "1", "-W", "3", "10.99.0.2").CombinedOutput()
	if err != nil || time.Since(start) > prompt {
		t.Errorf("after %v: %v\n%s", time.Since(start), err, out)
	}
}

// TestAMillionPacketsOfGarbageWakeNobody floods a VM that sleeps from outside,
// with what is no WireGuard, what only looks like it, and what is somebody
// else's; in the midst of it the device's own packet wakes it, at once.
func TestAMillionPacketsOfGarbageWakeNobody(t *testing.T) {
	r := pairUp(t)
	r.asks(t, "UDP")
	r.naps(t)
	stranger := beside(t, 2, "203.0.113")
	kinds := garbage(r)
	const each = 170_000
	flooded := make(chan int, 1)
	go func() {
		total := 0
		for _, g := range kinds {
			total += flood(t, stranger, at(stranger.host4, g.port), g.m, each)
		}
		flooded <- total
	}()
	genuine, total := 0, 0
	for total == 0 {
		select {
		case total = <-flooded:
		case w := <-r.wakes:
			t.Errorf("garbage wakes: %v", w)
			total = <-flooded
		case <-time.After(200 * time.Millisecond):
			why, took := r.asks(t, "UDP")
			if took > prompt || why != "a packet from 198.51.100.2" {
				t.Errorf("in the midst of it: %q, answered after %v", why, took)
			}
			genuine++
			r.naps(t)
		}
	}
	if total < 1_000_000 || genuine == 0 {
		t.Errorf("got %d packets sent and %d genuine ones among them", total, genuine)
	}
	t.Logf("%d packets of garbage, %d genuine ones among them", total, genuine)
}

// A garbageKind is a packet that must not wake, and the port that it goes to.
type garbageKind struct {
	port uint16
	m    []byte
}

func garbage(r *realPair) []garbageKind {
	key := [32]byte(r.sleeper.key.PublicKey().Bytes())
	forged := initiation(key)
	forged[sizeInitiation-20] ^= 1
	r.sleeper.v.mu.Lock()
	index := r.sleeper.v.judge.inOrder()[0].Index
	r.sleeper.v.mu.Unlock()
	return []garbageKind{
		{hubPort, []byte("GET / HTTP/1.0\r\n\r\n")},
		{hubPort, forged},
		{hubPort, initiation([32]byte{9})},
		{hubPort, dataMessage(index+1, 1, 100)},
		{hubPort, dataMessage(index, 1<<40, 0)},
		{hubPort + 1, initiation(key)},
	}
}

// flood sends a message count times, as fast as it goes, and returns how often
// it was sent.
func flood(t testing.TB, from *place, to netip.AddrPort, m []byte, count int) int {
	var conn *net.UDPConn
	from.inside(func() (err error) {
		conn, err = net.ListenUDP("udp4", &net.UDPAddr{})
		return err
	})
	defer conn.Close()
	batch := make([]ipv4.Message, 64)
	for i := range batch {
		batch[i] = ipv4.Message{Buffers: [][]byte{m}, Addr: net.UDPAddrFromAddrPort(to)}
	}
	c, sent := ipv4.NewPacketConn(conn), 0
	for sent < count {
		n, err := c.WriteBatch(batch, 0)
		if err != nil && !errors.Is(err, unix.ECONNREFUSED) {
			t.Errorf("flood: %v", err)
			return sent
		}
		sent += n
	}
	return sent
}
