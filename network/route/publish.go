package route

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/tradle/cloudpal"
)

// Bounds of one published port. Who comes beyond them waits (TCP) or is not
// heard (UDP).
const (
	maxConns   = 4096
	maxClients = 1024
	clientIdle = 2 * time.Minute // of a UDP client, before it is forgotten (RFC 4787, REQ-5)
	dialWait   = 2 * time.Minute // while the VM wakes, or boots
)

// A Port is a port of the host that leads to a VM. It is carried by this
// process: what is sent to the VM takes the way of everything that the host
// itself sends, and so wakes it where it sleeps. There is one way to wake.
type Port struct {
	addr   netip.AddrPort
	close  func() error
	cancel context.CancelFunc
	tasks  sync.WaitGroup
	log    *slog.Logger
	failed rate.Sometimes // is logged: strangers decide how often it happens
}

// logEvery is how often a port logs that connections do not reach its VM.
const logEvery = time.Minute

// Publish forwards proto ("tcp" or "udp") on listen to target until the port is
// closed. Port 0 of listen is any free one.
func Publish(proto string, listen, target netip.AddrPort, log *slog.Logger) (*Port, error) {
	op := fmt.Sprintf("publish port %v/%s", listen, proto)
	ctx, cancel := context.WithCancel(context.Background())
	p := &Port{cancel: cancel, log: log, failed: rate.Sometimes{Interval: logEvery}}
	var err error
	switch proto {
	case "tcp":
		err = p.listenTCP(ctx, listen, target)
	case "udp":
		err = p.listenUDP(ctx, listen, target)
	default:
		err = fmt.Errorf("protocol %.20q", proto)
	}
	if err != nil {
		cancel()
		return nil, cloudpal.E(op, "", err)
	}
	return p, nil
}

// Addr returns where the port is.
func (p *Port) Addr() netip.AddrPort { return p.addr }

// Close ends the port and all that it carries.
func (p *Port) Close() error {
	p.cancel()
	err := p.close()
	p.tasks.Wait()
	return err
}

func (p *Port) listenTCP(ctx context.Context, listen, target netip.AddrPort) error {
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(listen))
	if err != nil {
		return err
	}
	p.addr, p.close = unmapped(l.Addr().(*net.TCPAddr).AddrPort()), l.Close
	p.tasks.Go(func() { p.acceptTCP(ctx, l, target) })
	return nil
}

func (p *Port) acceptTCP(ctx context.Context, l *net.TCPListener, target netip.AddrPort) {
	room := make(chan struct{}, maxConns)
	for {
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			return
		}
		client, err := l.AcceptTCP()
		if err != nil {
			if ctx.Err() != nil {
				return
			}
			// Out of descriptors, most likely: those who wait will be
			// accepted when there are some.
			p.log.Warn("accept a connection", "port", p.addr, "err", err)
			<-room
			pause(ctx, 100*time.Millisecond)
			continue
		}
		p.tasks.Go(func() {
			defer func() { <-room }()
			p.carryTCP(ctx, client, target)
		})
	}
}

// carryTCP connects a client to the VM until both have said all, or either is
// gone.
func (p *Port) carryTCP(ctx context.Context, client *net.TCPConn, target netip.AddrPort) {
	defer client.Close()
	// No keep-alive towards the VM: it would wake it for nothing.
	d := net.Dialer{Timeout: dialWait, KeepAlive: -1}
	conn, err := d.DialContext(ctx, "tcp", target.String())
	if err != nil {
		if ctx.Err() == nil {
			p.failed.Do(func() {
				p.log.Info("clients' connections do not reach the vm", "port", p.addr, "err", err, "told", "once in "+logEvery.String())
			})
		}
		return
	}
	inside := conn.(*net.TCPConn)
	defer inside.Close()
	stop := context.AfterFunc(ctx, func() {
		client.Close()
		inside.Close()
	})
	defer stop()
	var in sync.WaitGroup
	in.Go(func() { carry(inside, client) })
	carry(client, inside)
	in.Wait()
}

// carry copies until from has said all, and tells to. A connection that broke
// breaks the other.
func carry(to, from *net.TCPConn) {
	if _, err := io.Copy(to, from); err != nil {
		to.SetLinger(0)
		to.Close()
		from.Close()
		return
	}
	to.CloseWrite()
}

func (p *Port) listenUDP(ctx context.Context, listen, target netip.AddrPort) error {
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(listen))
	if err != nil {
		return err
	}
	p.addr, p.close = unmapped(conn.LocalAddr().(*net.UDPAddr).AddrPort()), conn.Close
	u := &datagrams{port: p, outside: conn, target: target, clients: map[netip.AddrPort]*net.UDPConn{}}
	p.tasks.Go(func() { u.run(ctx) })
	return nil
}

// datagrams carries UDP: each client has a socket of its own towards the VM, by
// which answers are known to be its.
type datagrams struct {
	port    *Port
	outside *net.UDPConn
	target  netip.AddrPort

	mu      sync.Mutex
	clients map[netip.AddrPort]*net.UDPConn
}

func (u *datagrams) run(ctx context.Context) {
	defer u.end()
	buf := make([]byte, 64<<10)
	for {
		n, from, err := u.outside.ReadFromUDPAddrPort(buf)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			continue // an earlier answer's: its client is gone
		}
		if conn := u.client(from); conn != nil {
			_, _ = conn.Write(buf[:n]) // a datagram may be lost
		}
	}
}

// client returns the socket of a client, or nil where there is no room.
func (u *datagrams) client(from netip.AddrPort) *net.UDPConn {
	u.mu.Lock()
	defer u.mu.Unlock()
	if conn := u.clients[from]; conn != nil {
		return conn
	}
	if len(u.clients) >= maxClients {
		return nil
	}
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(u.target))
	if err != nil {
		u.port.log.Warn("reach the vm", "port", u.port.addr, "err", err)
		return nil
	}
	u.clients[from] = conn
	u.port.tasks.Go(func() { u.answer(from, conn) })
	return conn
}

// answer carries what the VM says to a client until that has been silent for
// long.
func (u *datagrams) answer(client netip.AddrPort, conn *net.UDPConn) {
	defer func() {
		u.mu.Lock()
		delete(u.clients, client)
		u.mu.Unlock()
		conn.Close()
	}()
	buf := make([]byte, 64<<10)
	for {
		conn.SetReadDeadline(time.Now().Add(clientIdle))
		n, err := conn.Read(buf)
		var t net.Error
		switch {
		case err == nil:
			_, _ = u.outside.WriteToUDPAddrPort(buf[:n], client)
		case errors.Is(err, net.ErrClosed), errors.As(err, &t) && t.Timeout():
			return
		}
	}
}

func (u *datagrams) end() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, conn := range u.clients {
		conn.Close()
	}
}

// unmapped writes an IPv4 address as such, whatever socket it is of.
func unmapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
