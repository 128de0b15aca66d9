package tunnel

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/tun"
	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/link/channel"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv6"
	netstack "gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"github.com/tradle/cloudpal"
)

const (
	nicID     = 1
	queueSize = 1024    // packets that wait for WireGuard
	maxWindow = 4 << 20 // bytes in flight of one connection
	batch     = 32      // packets that WireGuard takes at once
)

// A stack is TCP/IP in this process: a TUN device to WireGuard, net.Conns to
// us. (wireguard-go has one, too; its Close panics while a packet is on its
// way, and it hands over packets one at a time.)
type stack struct {
	ip     *netstack.Stack
	wire   *channel.Endpoint
	events chan tun.Event
	ctx    context.Context // ends Read
	cancel context.CancelFunc
	once   sync.Once
}

// Open opens a tunnel that only this process uses, by its DialContext and
// Listen. It needs no privileges.
func Open(c Config) (*Tunnel, error) { return open(c, conn.NewDefaultBind()) }

func open(c Config, bind conn.Bind) (*Tunnel, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	s, err := newStack(c.Addrs)
	if err != nil {
		return nil, cloudpal.E("open a tunnel", "", err)
	}
	t, err := start(c, s, bind, 0)
	if err != nil {
		return nil, err
	}
	t.stack = s
	return t.begin(), nil
}

func newStack(addrs []netip.Addr) (*stack, error) {
	s := &stack{
		ip: netstack.New(netstack.Options{
			NetworkProtocols:   []netstack.NetworkProtocolFactory{ipv4.NewProtocol, ipv6.NewProtocol},
			TransportProtocols: []netstack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4, icmp.NewProtocol6},
			HandleLocal:        true,
		}),
		wire:   channel.New(queueSize, MTU, ""),
		events: make(chan tun.Event, 1),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if err := s.setUp(addrs); err != nil {
		s.Close()
		return nil, err
	}
	s.events <- tun.EventUp
	return s, nil
}

func (s *stack) setUp(addrs []netip.Addr) error {
	sack, moderate := tcpip.TCPSACKEnabled(true), tcpip.TCPModerateReceiveBufferOption(true)
	recovery := tcpip.TCPRecovery(0) // its RACK retransmits what was not lost
	receive := tcpip.TCPReceiveBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: tcp.DefaultReceiveBufferSize, Max: maxWindow}
	send := tcpip.TCPSendBufferSizeRangeOption{Min: tcp.MinBufferSize, Default: tcp.DefaultSendBufferSize, Max: maxWindow}
	for _, o := range []tcpip.SettableTransportProtocolOption{&sack, &moderate, &recovery, &receive, &send} {
		if err := s.ip.SetTransportProtocolOption(tcp.ProtocolNumber, o); err != nil {
			return fmt.Errorf("set %T: %v", o, err)
		}
	}
	if err := s.ip.CreateNIC(nicID, s.wire); err != nil {
		return fmt.Errorf("make its interface: %v", err)
	}
	for _, a := range addrs {
		err := s.ip.AddProtocolAddress(nicID, tcpip.ProtocolAddress{
			Protocol: protocolOf(a), AddressWithPrefix: tcpip.AddrFromSlice(a.AsSlice()).WithPrefix(),
		}, netstack.AddressProperties{})
		if err != nil {
			return fmt.Errorf("give it %v: %v", a, err)
		}
	}
	s.ip.SetRouteTable([]tcpip.Route{
		{Destination: header.IPv4EmptySubnet, NIC: nicID}, {Destination: header.IPv6EmptySubnet, NIC: nicID},
	})
	return nil
}

func protocolOf(a netip.Addr) tcpip.NetworkProtocolNumber {
	if a.Is4() {
		return ipv4.ProtocolNumber
	}
	return ipv6.ProtocolNumber
}

// Read, Write and the others make it a tun.Device.

// Read waits for packets that leave.
func (s *stack) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	p := s.wire.ReadContext(s.ctx)
	if p == nil {
		return 0, os.ErrClosed
	}
	n := 0
	for p != nil {
		view := p.ToView()
		p.DecRef()
		size, err := view.Read(bufs[n][offset:])
		view.Release()
		if err != nil {
			return n, err
		}
		sizes[n] = size
		if n++; n == len(bufs) {
			break
		}
		p = s.wire.Read()
	}
	return n, nil
}

// Write takes packets that arrive. What is no IP packet is dropped.
func (s *stack) Write(bufs [][]byte, offset int) (int, error) {
	for _, b := range bufs {
		b = b[offset:]
		if len(b) == 0 {
			continue
		}
		var protocol tcpip.NetworkProtocolNumber
		switch b[0] >> 4 {
		case 4:
			protocol = ipv4.ProtocolNumber
		case 6:
			protocol = ipv6.ProtocolNumber
		default:
			continue
		}
		p := netstack.NewPacketBuffer(netstack.PacketBufferOptions{Payload: buffer.MakeWithData(b)})
		s.wire.InjectInbound(protocol, p)
		p.DecRef()
	}
	return len(bufs), nil
}

// Close ends all connections.
func (s *stack) Close() error {
	s.once.Do(func() {
		s.cancel()
		s.ip.Close()
		s.wire.Close()
		close(s.events)
	})
	return nil
}

// Name, MTU, BatchSize, Events and File are constants.
func (s *stack) Name() (string, error)    { return "stack", nil }
func (s *stack) MTU() (int, error)        { return MTU, nil }
func (s *stack) BatchSize() int           { return batch }
func (s *stack) Events() <-chan tun.Event { return s.events }
func (s *stack) File() *os.File           { return nil }

// DialContext connects through the tunnel, with "tcp" or "udp", to an address
// or a name that the DNS server in the tunnel knows. With a TUN device it is
// the machine that connects.
func (t *Tunnel) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	if t.stack == nil {
		return (&net.Dialer{Resolver: t.resolver()}).DialContext(ctx, network, address)
	}
	op := "connect through the tunnel to " + address
	host, portText, err := net.SplitHostPort(address)
	if err != nil {
		return nil, cloudpal.E(op, cloudpal.Invalid, err)
	}
	port, err := strconv.ParseUint(portText, 10, 16)
	if err != nil {
		return nil, cloudpal.E(op, cloudpal.Invalid, errors.New("the port is no number"))
	}
	addrs, err := t.Lookup(ctx, host)
	if err != nil {
		return nil, err
	}
	var errs []error
	for _, a := range addrs {
		c, err := t.stack.dial(ctx, network, netip.AddrPortFrom(a, uint16(port)))
		if err == nil {
			return c, nil
		}
		errs = append(errs, err)
	}
	return nil, cloudpal.E(op, kindOf(ctx), errors.Join(errs...))
}

func kindOf(ctx context.Context) cloudpal.Kind {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return cloudpal.Timeout
	}
	return cloudpal.Other
}

func (s *stack) dial(ctx context.Context, network string, to netip.AddrPort) (net.Conn, error) {
	full := tcpip.FullAddress{NIC: nicID, Addr: tcpip.AddrFromSlice(to.Addr().AsSlice()), Port: to.Port()}
	switch network {
	case "tcp", "tcp4", "tcp6":
		return gonet.DialContextTCP(ctx, s.ip, full, protocolOf(to.Addr()))
	case "udp", "udp4", "udp6":
		return gonet.DialUDP(s.ip, nil, &full, protocolOf(to.Addr()))
	}
	return nil, net.UnknownNetworkError(network)
}

// Lookup returns the addresses of a name, IPv4 first, as the DNS server in the
// tunnel has them. An address is its own name.
func (t *Tunnel) Lookup(ctx context.Context, name string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(name); err == nil {
		return []netip.Addr{a.Unmap()}, nil
	}
	op := "look up " + name
	if len(t.dns) == 0 {
		return nil, cloudpal.E(op, cloudpal.NotExist, errors.New("the tunnel has no DNS server"))
	}
	addrs, err := t.resolver().LookupNetIP(ctx, "ip", strings.TrimSuffix(name, ".")+".")
	if err != nil {
		return nil, cloudpal.E(op, cloudpal.NotExist, err)
	}
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	slices.SortStableFunc(addrs, func(a, b netip.Addr) int { return a.BitLen() - b.BitLen() })
	return addrs, nil
}

// lookupTimeout bounds one question to one DNS server. A pal that was asleep
// has woken by then.
const lookupTimeout = 5 * time.Second

// resolver asks the DNS servers in the tunnel in turn, whatever this machine
// has in /etc/resolv.conf.
func (t *Tunnel) resolver() *net.Resolver {
	if len(t.dns) == 0 {
		return nil
	}
	var mu sync.Mutex
	next := 0
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		mu.Lock()
		server := t.dns[next%len(t.dns)]
		next++
		mu.Unlock()
		ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
		defer cancel()
		to := netip.AddrPortFrom(server, 53)
		if t.stack == nil {
			return new(net.Dialer).DialContext(ctx, network, to.String())
		}
		return t.stack.dial(ctx, network, to)
	}}
}

// Listen opens a TCP port of this end for those who come through the tunnel.
func (t *Tunnel) Listen(at netip.AddrPort) (net.Listener, error) {
	op := fmt.Sprintf("listen on %v in the tunnel", at)
	if t.stack == nil {
		return net.Listen("tcp", at.String())
	}
	full := tcpip.FullAddress{NIC: nicID, Addr: tcpip.AddrFromSlice(at.Addr().AsSlice()), Port: at.Port()}
	l, err := gonet.ListenTCP(t.stack.ip, full, protocolOf(at.Addr()))
	if err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	return l, nil
}

// ListenPacket is Listen for UDP.
func (t *Tunnel) ListenPacket(at netip.AddrPort) (net.PacketConn, error) {
	op := fmt.Sprintf("listen on %v in the tunnel", at)
	if t.stack == nil {
		return net.ListenPacket("udp", at.String())
	}
	full := tcpip.FullAddress{NIC: nicID, Addr: tcpip.AddrFromSlice(at.Addr().AsSlice()), Port: at.Port()}
	c, err := gonet.DialUDP(t.stack.ip, &full, nil, protocolOf(at.Addr()))
	if err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	return c, nil
}
