package route

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"
)

var anyPort = netip.MustParseAddrPort("127.0.0.1:0")

// patience is how long anything may take that should take no time.
const patience = 20 * time.Second

func published(t *testing.T, proto string, target netip.AddrPort) *Port {
	t.Helper()
	p, err := Publish(proto, anyPort, target, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// echo is a TCP service that says what it was told when it was told all.
func echo(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(anyPort))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				all, _ := io.ReadAll(conn)
				conn.Write(all)
			}()
		}
	}()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func dial(t *testing.T, proto string, to netip.AddrPort) net.Conn {
	t.Helper()
	conn, err := net.Dial(proto, to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return conn
}

func TestTCPIsCarriedBothWaysToItsEnd(t *testing.T) {
	p := published(t, "tcp", echo(t))
	conn := dial(t, "tcp", p.Addr())
	want := bytes.Repeat([]byte("0123456789"), 200_000)
	go func() {
		conn.Write(want)
		conn.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(conn)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, %v; want %d as they were", len(got), err, len(want))
	}
}

func TestCloseEndsConnections(t *testing.T) {
	p := published(t, "tcp", echo(t))
	conn := dial(t, "tcp", p.Addr())
	if _, err := conn.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := conn.Read(make([]byte, 1)); err == nil {
		t.Errorf("got %d bytes of a port that is closed", n)
	}
	if conn, err := net.Dial("tcp", p.Addr().String()); err == nil {
		conn.Close()
		t.Error("it is still there")
	}
}

// nobody returns where nothing listens.
func nobody(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(anyPort))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).AddrPort()
}

func TestTCPToNobodyIsClosed(t *testing.T) {
	p := published(t, "tcp", nobody(t))
	conn := dial(t, "tcp", p.Addr())
	if n, err := conn.Read(make([]byte, 1)); err == nil {
		t.Errorf("got %d bytes of nobody", n)
	}
}

// TestStrangersDoNotFillTheLog connects again and again to a port that leads to
// nobody.
func TestStrangersDoNotFillTheLog(t *testing.T) {
	var log bytes.Buffer
	p, err := Publish("tcp", anyPort, nobody(t), slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		io.ReadAll(dial(t, "tcp", p.Addr()))
	}
	p.Close()
	if n := bytes.Count(log.Bytes(), []byte("\n")); n < 1 || n > 2 {
		t.Errorf("50 connections wrote %d lines:\n%s", n, &log)
	}
}

// TestEachUDPClientGetsItsAnswers has a service that tells each whom it sees.
func TestEachUDPClientGetsItsAnswers(t *testing.T) {
	service, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(anyPort))
	if err != nil {
		t.Fatal(err)
	}
	defer service.Close()
	go func() {
		buf := make([]byte, 100)
		for {
			n, from, err := service.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			service.WriteToUDPAddrPort(append(buf[:n:n], from.String()...), from)
		}
	}()
	p := published(t, "udp", service.LocalAddr().(*net.UDPAddr).AddrPort())
	seen := map[string]bool{}
	for _, name := range []string{"a", "b", "a", "b"} {
		conn := dial(t, "udp", p.Addr())
		for range 2 {
			if _, err := conn.Write([]byte(name)); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 100)
			n, err := conn.Read(buf)
			if err != nil || string(buf[:1]) != name {
				t.Fatalf("%s: got %q, %v", name, buf[:n], err)
			}
			seen[string(buf[1:n])] = true
		}
	}
	if len(seen) != 4 {
		t.Errorf("the service sees %d clients, want 4", len(seen))
	}
}

func TestPublishRefuses(t *testing.T) {
	p := published(t, "tcp", anyPort)
	for what, ask := range map[string]struct {
		proto  string
		listen netip.AddrPort
	}{
		"a port that is taken":        {"tcp", p.Addr()},
		"an address that is nobody's": {"udp", netip.MustParseAddrPort("192.0.2.1:0")},
		"another protocol":            {"sctp", anyPort},
	} {
		if p, err := Publish(ask.proto, ask.listen, anyPort, slog.New(slog.DiscardHandler)); err == nil {
			p.Close()
			t.Errorf("%s is published", what)
		}
	}
}
