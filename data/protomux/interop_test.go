package protomux

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/tradle/cloudpal/data/secretstream"
)

// modules is where the JavaScript originals are.
const modules = "../../test/data"

// An original is a script with the original, and what it has told.
type original struct {
	t     *testing.T
	lines *bufio.Scanner
}

// meetOriginal returns a Mux that talks to the original.
func meetOriginal(t *testing.T, initiator bool) (*peer, *Channel, *original) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	o := &original{t, node(t, "peer.js", port, fmt.Sprint(!initiator))}
	l.(*net.TCPListener).SetDeadline(time.Now().Add(time.Minute))
	raw, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := secretstream.Handshake(t.Context(), raw, secretstream.Config{Initiator: initiator})
	if err != nil {
		t.Fatal(err)
	}
	m := New(conn)
	control := open(t, m, ChannelOptions{Protocol: "control"})
	return run(t, m), control, o
}

// node starts a script of testdata, and returns what it prints.
func node(t *testing.T, script string, args ...string) *bufio.Scanner {
	t.Helper()
	if _, err := os.Stat(filepath.Join(modules, "node_modules")); err != nil {
		if os.Getenv("CLOUDPAL_MUST_RUN") != "" {
			t.Fatal("no JavaScript peers: run make setup-test")
		}
		t.Skip("no JavaScript peers: run make setup-test")
	}
	cmd := exec.Command("node", append([]string{filepath.Join("testdata", script), modules}, args...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	return bufio.NewScanner(out)
}

// tells waits for lines.
func (o *original) tells(lines ...string) {
	o.t.Helper()
	for i, want := range lines {
		if !o.lines.Scan() {
			o.t.Fatalf("line %d: the script has ended, want %s", i, want)
		}
		if got := o.lines.Text(); got != want {
			o.t.Fatalf("line %d: got %s, want %s", i, got, want)
		}
	}
}

func roles(t *testing.T, test func(t *testing.T, initiator bool)) {
	for name, initiator := range map[string]bool{"we initiate": true, "the original initiates": false} {
		t.Run(name, func(t *testing.T) { test(t, initiator) })
	}
}

// echoed is the i-th message of a channel, of 0 to 64 KiB or, once, 1 MiB.
func echoed(id byte, i int) []byte {
	n := (int(id)*7919 + i*104729) % (1 << (i % 17))
	if i == 50 {
		n = 1 << 20
	}
	return bytes.Repeat([]byte{id, byte(i)}, n/2+1)[:n]
}

// TestEchoes opens 20 channels that the original answers, and sends on each,
// alone and in batches over several channels.
func TestEchoes(t *testing.T) { roles(t, testEchoes) }

func testEchoes(t *testing.T, initiator bool) {
	const channels, each = 20, 100
	m, _, o := meetOriginal(t, initiator)
	var all sync.WaitGroup
	all.Add(channels * each)
	closed := make(chan error, channels)
	var chans []*Channel
	for id := range byte(channels) {
		got := 0
		chans = append(chans, open(t, m.Mux, ChannelOptions{
			Protocol:  "echo",
			ID:        []byte{id + 1},
			Handshake: append([]byte{7}, fmt.Sprintf("from %2d", id+1)...),
			OnOpen: func(handshake []byte) error {
				if string(handshake) != "\x11from the original" {
					t.Errorf("got the handshake %q", handshake)
				}
				return nil
			},
			OnMessage: func(typ uint64, payload []byte) error {
				if int(typ) != got%2 || !bytes.Equal(payload, echoed(id, got)) {
					t.Errorf("channel %d: message %d came back as another", id, got)
				}
				got++
				all.Done()
				return nil
			},
			OnClose: func(reason error) { closed <- reason },
		}))
	}
	for i := 0; i < each; i += 5 {
		if i%2 == 0 {
			m.Cork()
		}
		for k := i; k < i+5; k++ {
			for id, c := range chans {
				if err := c.Send(uint64(k%2), echoed(byte(id), k)); err != nil {
					t.Fatal(err)
				}
			}
		}
		if i%2 == 0 {
			m.Uncork()
		}
	}
	all.Wait()
	for id := range channels {
		o.tells(fmt.Sprintf(`{"opened":"%02x","handshake":"from %2d"}`, id+1, id+1))
	}
	for id, c := range chans {
		if id%2 == 0 {
			c.Close()
			<-closed
			o.tells(fmt.Sprintf(`{"closed":"%02x","remote":true}`, id+1))
			continue
		}
		c.Send(2)
		if reason := <-closed; reason != ErrClosed {
			t.Errorf("got %v, want %v", reason, ErrClosed)
		}
		o.tells(fmt.Sprintf(`{"closed":"%02x","remote":false}`, id+1))
	}
	m.Close()
	o.tells(`{"end":true}`)
	if err := m.ended(); err != nil {
		t.Error(err)
	}
}

// TestCounts answers channels that the original opens, over which it sends
// batches. It closes them when all has come back.
func TestCounts(t *testing.T) { roles(t, testCounts) }

func testCounts(t *testing.T, initiator bool) {
	m, control, o := meetOriginal(t, initiator)
	closed := make(chan error, 30)
	m.Pair("count", func(id []byte) error {
		var c *Channel
		c, err := m.Open(ChannelOptions{
			Protocol:  "count",
			ID:        slices.Clone(id),
			OnMessage: func(typ uint64, payload []byte) error { return c.Send(typ, payload) },
			OnClose:   func(reason error) { closed <- reason },
		})
		return err
	})
	for range 2 { // with the same ids again
		send(t, control, 0, `{"count":12}`)
		var got struct {
			Counted []int
			Wrong   int
		}
		if !o.lines.Scan() || json.Unmarshal(o.lines.Bytes(), &got) != nil {
			t.Fatalf("got %q", o.lines.Text())
		}
		if got.Wrong != 0 || len(got.Counted) != 12 || slices.Max(got.Counted) != 200 || slices.Min(got.Counted) != 200 {
			t.Errorf("the original counted %+v", got)
		}
		for range 12 {
			if reason := <-closed; reason != ErrClosed {
				t.Errorf("got %v, want %v", reason, ErrClosed)
			}
		}
	}
	if len(m.remote) > 13 {
		t.Errorf("%d ids were used", len(m.remote))
	}
	send(t, control, 0, `{"end":true}`)
	if err := m.ended(); err != nil {
		t.Error(err)
	}
	o.tells(`{"end":true}`)
}

// TestOriginalRejects offers the original what it does not have, and opens and
// closes before it answers.
func TestOriginalRejects(t *testing.T) {
	m, _, o := meetOriginal(t, true)
	d := make(diary, 1000)
	for range 3 {
		open(t, m.Mux, d.options("nobody's"))
		d.reads(t, "nobody's closed: "+ErrRejected.Error())
	}
	open(t, m.Mux, d.options("nobody's")).Close()
	d.reads(t, "nobody's closed: <nil>")
	echo := d.options("echo", 5)
	echo.Handshake = []byte("\x02hi")
	open(t, m.Mux, echo).Close()
	d.reads(t, "echo closed: <nil>")
	for o.lines.Scan() && o.lines.Text() != `{"closed":"05","remote":true}` {
		// it may have been opened before, or not, as they arrived
	}
	c := open(t, m.Mux, echo)
	send(t, c, 1, "still works")
	d.reads(t, "echo opened \x11from the original", "echo 1 still works")
	if c.id > 4 {
		t.Errorf("ids do not come back: got %d", c.id)
	}
}

// TestOriginalAlias pairs channels that each side has under a name which is an
// alias at the other.
func TestOriginalAlias(t *testing.T) {
	m, control, o := meetOriginal(t, false)
	d := make(diary, 1000)
	newer := d.options("newer")
	newer.Aliases = []string{"older"}
	m.Pair("older", func([]byte) error {
		c, err := m.Open(newer)
		if err == nil {
			err = c.Send(0, []byte("\x05hello"))
		}
		return err
	})
	send(t, control, 0, `{"older":true}`)
	d.reads(t, "newer opened ")
	o.tells(`{"older":"hello"}`)
}
