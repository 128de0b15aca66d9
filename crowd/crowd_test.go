package crowd

import (
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"
)

// Connections are counted by where they come from.
func TestOneSource(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	const each = 8
	c := New(100, each)
	bounded := c.Listener(l)
	defer bounded.Close()
	accepted := make(chan net.Conn)
	go func() {
		for {
			c, err := bounded.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	dial := func() net.Conn {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	letIn := func() net.Conn {
		select {
		case c := <-accepted:
			return c
		case <-time.After(20 * time.Second):
			t.Fatal("one that there is room for is not let in")
			return nil
		}
	}
	var one net.Conn
	for range each {
		dial()
		one = letIn()
	}
	extra := dial()
	extra.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := extra.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !isReset(err) {
		t.Errorf("one more: %v, want it closed", err)
	}
	one.Close()
	one.Close() // counts once
	dial()
	letIn()
	if n := c.Count(); n != each {
		t.Errorf("%d connections are counted, want %d", n, each)
	}
}

// There is room for so many in all, whoever they are.
func TestAll(t *testing.T) {
	c := New(2, 2)
	a, b := source("192.0.2.1:1", 64), source("192.0.2.2:1", 64)
	if !c.enter(a) || !c.enter(b) || c.enter(b) {
		t.Error("two are let in, and no third")
	}
	c.leave(a)
	if !c.enter(b) {
		t.Error("there is room again")
	}
}

func isReset(err error) bool {
	var n *net.OpError
	return errors.As(err, &n) && !n.Timeout()
}

func TestSource(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string]string{
		"203.0.113.5:1":             "203.0.113.5/32",
		"[::ffff:203.0.113.5]:1":    "203.0.113.5/32",
		"[2001:db8:1:2:3:4:5:6]:99": "2001:db8:1:2::/64",
		"[fe80::1%eth0]:1":          "fe80::/64",
	} {
		if got := source(addr, 64); got.String() != want {
			t.Errorf("source of %s is %v, want %s", addr, got, want)
		}
	}
}

func TestRates(t *testing.T) {
	t.Parallel()
	const burst = 3
	r, now := NewRates(1, burst), time.Unix(1e9, 0)
	for i := range burst {
		if !r.Allow(fmt.Sprintf("[2001:db8:1:%x::1]:9", i), now) {
			t.Errorf("question %d is refused", i)
		}
	}
	if r.Allow("[2001:db8:1:ffff::1]:9", now) {
		t.Error("a house with many networks asks without end")
	}
	if !r.Allow("[2001:db8:2::1]:9", now) || !r.Allow("203.0.113.5:1", now) {
		t.Error("others are refused for it")
	}
	if !r.Allow("[2001:db8:1::1]:9", now.Add(time.Second)) {
		t.Error("who has waited is refused")
	}
	// What is known of sources has an end, and those that ask are the last to go.
	for i := range maxSources - 4 {
		r.Allow(fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&255, i&255), now)
	}
	now = now.Add(time.Hour)
	for range burst {
		r.Allow("203.0.113.5:1", now)
	}
	for i := range 10 {
		r.Allow(fmt.Sprintf("192.0.2.%d:1", i), now)
	}
	if n := len(r.sources); n > maxSources/2 {
		t.Errorf("%d sources are known", n)
	}
	if r.Allow("203.0.113.5:1", now) {
		t.Error("one that asks was forgotten")
	}
}
