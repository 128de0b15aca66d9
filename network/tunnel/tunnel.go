// Package tunnel is a device's end of the WireGuard tunnel to its pal.
//
// WireGuard runs in this process (wireguard-go). What comes out of it goes
// either to a TCP/IP stack that is in this process, too (gVisor's), so that no
// root is needed: see Open, or to a TUN device, for all programs of the
// machine: see OpenTUN.
//
// A tunnel speaks only when somebody has something to say: it has no
// keepalive, so that the pal at its far end can sleep. It follows the peer
// when the peer's address changes, as WireGuard does, and tells the peer when
// the machine's own address changes.
package tunnel

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"github.com/tradle/cloudpal"
)

// LinkName is the interface that leads into the tunnel of OpenTUN.
const LinkName = "cloudpal0"

// MTU is what an IPv6 path of 1500 bytes leaves for a packet in the tunnel.
const MTU = 1420

// MaxEndpoints bounds the places where a peer is looked for.
const MaxEndpoints = 8

const dialTimeout = 10 * time.Second

// A Config says who the two ends are.
type Config struct {
	PrivateKey []byte         // this end's, 32 bytes
	Addrs      []netip.Addr   // this end's, in the tunnel
	Peer       [32]byte       // the far end's public key
	Routes     []netip.Prefix // what is at the far end: WireGuard's AllowedIPs
	// Endpoints are where the peer may be: who answers a handshake first is
	// taken. At most MaxEndpoints.
	Endpoints []netip.AddrPort
	Port      uint16       // of UDP, to listen on; 0: any
	DNS       []netip.Addr // at the far end, what DialContext looks names up with
	Hosts     []Host       // names at the far end, for a machine whose DNS OpenTUN leaves as it is
	Log       *slog.Logger // nil: nowhere
}

// A Host is a name and its addresses.
type Host struct {
	Name  string
	Addrs []netip.Addr
}

func (c Config) check() error {
	const op = "open a tunnel"
	switch {
	case len(c.PrivateKey) != 32:
		return cloudpal.E(op, cloudpal.Invalid, errors.New("the private key is not of 32 bytes"))
	case len(c.Addrs) == 0 || len(c.Routes) == 0:
		return cloudpal.E(op, cloudpal.Invalid, errors.New("it has no addresses or leads nowhere"))
	}
	return nil
}

// A Tunnel is one end. It is safe for concurrent use.
type Tunnel struct {
	device *device.Device
	paths  *paths
	peer   device.NoisePublicKey
	stack  *stack // nil with a TUN device
	link   *link  // nil without
	dns    []netip.Addr
	stop   context.CancelFunc
	tasks  sync.WaitGroup
	close  sync.Once
}

// start puts WireGuard between d and the network. It takes d over, also when it
// fails.
func start(c Config, d tun.Device, bind conn.Bind, mark uint32) (*Tunnel, error) {
	const op = "open a tunnel"
	log := c.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	t := &Tunnel{paths: &paths{Bind: bind}, peer: c.Peer, dns: c.DNS}
	if err := t.paths.set(c.Endpoints); err != nil {
		return nil, errors.Join(cloudpal.E(op, cloudpal.Invalid, err), d.Close())
	}
	t.device = device.NewDevice(d, t.paths, &device.Logger{
		Verbosef: func(format string, args ...any) { log.Debug("wireguard: " + fmt.Sprintf(format, args...)) },
		Errorf:   func(format string, args ...any) { log.Warn("wireguard: " + fmt.Sprintf(format, args...)) },
	})
	settings := c.settings(mark)
	defer clear(settings)
	err := t.device.IpcSetOperation(bytes.NewReader(settings))
	if err == nil {
		err = t.device.Up()
	}
	if err != nil {
		t.device.Close()
		return nil, cloudpal.E(op, "", err)
	}
	t.stop = func() {}
	return t, nil
}

// begin is the last thing that opening a tunnel does.
func (t *Tunnel) begin() *Tunnel {
	ctx, stop := context.WithCancel(context.Background())
	t.stop = stop
	t.tasks.Go(func() { t.follow(ctx) })
	return t
}

// settings are what WireGuard is told, as its configuration protocol has it.
func (c Config) settings(mark uint32) []byte {
	b := make([]byte, 0, 4096) // so that append leaves no copies of the key behind
	b = append(b, "private_key="...)
	b = hex.AppendEncode(b, c.PrivateKey)
	b = fmt.Appendf(b, "\nlisten_port=%d\nfwmark=%d\npublic_key=%x\nendpoint=%s\n", c.Port, mark, c.Peer, everywhereText)
	for _, r := range c.Routes {
		b = fmt.Appendf(b, "allowed_ip=%s\n", r)
	}
	return b
}

// SetEndpoints says anew where the peer may be. A path that works is kept until
// it no longer does.
func (t *Tunnel) SetEndpoints(endpoints []netip.AddrPort) error {
	if err := t.paths.set(endpoints); err != nil {
		return cloudpal.E("change a tunnel's endpoints", cloudpal.Invalid, err)
	}
	return nil
}

// Renew gives up the session with the peer and begins another: for a peer that
// is known to have lost it.
func (t *Tunnel) Renew() {
	p := t.device.LookupPeer(t.peer)
	if p == nil {
		return // it is closed
	}
	p.ExpireCurrentKeypairs()
	t.look()
	p.SendHandshakeInitiation(false) // an error is an endpoint that is not there: WireGuard tries again
}

// moved tells the peer from which address this machine speaks now, if it has a
// session with it. An empty packet does, and does not wake a pal that sleeps.
func (t *Tunnel) moved() {
	t.look()
	t.device.SendKeepalivesToPeersWithCurrentKeypair()
}

// look sends whatever is sent next to all places where the peer may be, among
// them where it was. WireGuard takes a packet once, however often it comes.
func (t *Tunnel) look() {
	if e := t.Stats().Endpoint; e.IsValid() {
		t.paths.remember(e)
	}
	t.device.IpcSet(fmt.Sprintf("public_key=%x\nupdate_only=true\nendpoint=%s\n", t.peer, everywhereText))
}

// Moved packets are sent again, as nobody acknowledges them.
var movedAgain = []time.Duration{300 * time.Millisecond, time.Second, 3 * time.Second}

// follow calls moved when this machine speaks to the peer from another address
// than before.
func (t *Tunnel) follow(ctx context.Context) {
	from := t.sources(ctx)
	changes := make(chan struct{}, 1)
	t.tasks.Go(func() { watch(ctx, changes) })
	var again []time.Duration
	timer := time.NewTimer(0)
	<-timer.C
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-changes:
			if now := t.sources(ctx); now != from {
				from, again = now, movedAgain
			}
		case <-timer.C:
		}
		if len(again) > 0 {
			t.moved()
			timer.Reset(again[0])
			again = again[1:]
		}
	}
}

// sources are the addresses that this machine would speak from now, to each
// place where the peer may be. Routes come and go for other reasons, too: a
// center on the same machine makes one for each VM that wakes.
func (t *Tunnel) sources(ctx context.Context) string {
	var all []string
	for _, c := range t.paths.all() {
		// Connecting a UDP socket sends nothing.
		conn, err := t.Around().DialContext(ctx, "udp", c.DstToString())
		if err != nil {
			all = append(all, "none")
			continue
		}
		host, _, _ := net.SplitHostPort(conn.LocalAddr().String())
		all = append(all, host)
		conn.Close()
	}
	return strings.Join(all, " ")
}

// Stats are what a tunnel has done.
type Stats struct {
	Endpoint       netip.AddrPort // where the peer answered last; invalid where it did not yet
	Handshake      time.Time      // the last one, or zero
	Received, Sent int64          // bytes on the network
}

// Stats returns what the tunnel has done.
func (t *Tunnel) Stats() Stats {
	var text bytes.Buffer
	defer func() { clear(text.Bytes()) }() // it has the private key in it
	if err := t.device.IpcGetOperation(&text); err != nil {
		return Stats{}
	}
	return parseStats(text.Bytes())
}

func parseStats(text []byte) (s Stats) {
	var seconds, nanos int64
	number := map[string]*int64{
		"last_handshake_time_sec": &seconds, "last_handshake_time_nsec": &nanos,
		"rx_bytes": &s.Received, "tx_bytes": &s.Sent,
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), "=")
		if n, ok := number[key]; ok {
			*n, _ = strconv.ParseInt(value, 10, 64)
		}
		if key == "endpoint" {
			s.Endpoint, _ = netip.ParseAddrPort(value)
		}
	}
	if seconds != 0 || nanos != 0 {
		s.Handshake = time.Unix(seconds, nanos)
	}
	return s
}

// Close ends the tunnel and all connections through it. It waits until nothing
// of it is left.
func (t *Tunnel) Close() error {
	var err error
	t.close.Do(func() {
		t.stop()
		t.tasks.Wait()
		if t.link != nil {
			err = t.link.undo()
		}
		t.device.Close()
	})
	return err
}

// Closed is closed when the tunnel has ended, also where its TUN device was
// taken away.
func (t *Tunnel) Closed() <-chan struct{} { return t.device.Wait() }
