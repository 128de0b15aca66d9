package secretstream

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// modules is where the JavaScript originals are.
const modules = "../../test/data"

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

// told reads the next line of a script.
func told(t *testing.T, lines *bufio.Scanner, into any) {
	t.Helper()
	if !lines.Scan() {
		t.Fatalf("the script has ended: %v", lines.Err())
	}
	if err := json.Unmarshal(lines.Bytes(), into); err != nil {
		t.Fatal(err)
	}
}

// original starts the original and shakes hands with it.
func original(t *testing.T, c Config, keepAlive int) (*Conn, *bufio.Scanner) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	o, err := json.Marshal(map[string]any{"initiator": !c.Initiator, "seed": hex.EncodeToString(key(8).Seed()), "keepAlive": keepAlive})
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	lines := node(t, "peer.js", port, string(o))
	l.(*net.TCPListener).SetDeadline(time.Now().Add(time.Minute))
	raw, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := Handshake(t.Context(), raw, c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn, lines
}

// TestWithTheOriginal has a thousand messages go both ways, from either role.
func TestWithTheOriginal(t *testing.T) {
	for name, initiator := range map[string]bool{"we initiate": true, "the original initiates": false} {
		t.Run(name, func(t *testing.T) {
			conn, lines := original(t, Config{Initiator: initiator, Key: key(7), Remote: public(key(8)), KeepAlive: -1}, 0)
			var met struct{ Local, Remote, Hash string }
			told(t, lines, &met)
			hash := conn.HandshakeHash()
			if met.Local != hex.EncodeToString(public(key(8))[:]) || met.Remote != hex.EncodeToString(public(key(7))[:]) || met.Hash != hex.EncodeToString(hash[:]) {
				t.Errorf("the original knows us as %s, and has the hash %s, want %x", met.Remote, met.Hash, hash)
			}
			sent := make(chan error, 1)
			go func() { sent <- sendSizes(conn) }()
			random := messageSizes()
			for i, n := range random {
				got, err := conn.ReadMessage()
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, testMessage(i, n)) {
					t.Fatalf("message %d came back as another, of %d bytes, not %d", i, len(got), n)
				}
			}
			if err := <-sent; err != nil {
				t.Fatal(err)
			}
			if err := conn.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.ReadMessage(); err != io.EOF {
				t.Errorf("at the end: got %v, want %v", err, io.EOF)
			}
			var end struct{ Messages, Empty int }
			told(t, lines, &end)
			if end.Messages != len(random) || end.Empty == 0 {
				t.Errorf("the original had %+v", end)
			}
		})
	}
}

// messageSizes returns a thousand sizes from 0 to 1 MiB, most of them small,
// the same each time.
func messageSizes() []int {
	random := rand.New(rand.NewPCG(1, 2))
	sizes := make([]int, 1000)
	for i := range sizes {
		sizes[i] = random.IntN(1 << random.IntN(21))
	}
	return append(sizes, 0, 1<<20)
}

// testMessage is the i-th message, of a size.
func testMessage(i, n int) []byte {
	b := make([]byte, n+8)
	for at := 0; at < n; at += 8 {
		binary.LittleEndian.PutUint64(b[at:], uint64(at)*0x9e3779b97f4a7c15+uint64(i))
	}
	return b[:n]
}

// sendSizes sends all messages, some at once.
func sendSizes(c *Conn) error {
	for i, n := range messageSizes() {
		send := c.QueueMessage
		if i%5 == 0 {
			send = c.WriteMessage
		}
		if err := send(testMessage(i, n)); err != nil {
			return err
		}
	}
	return c.Flush()
}

// TestKeepAliveWithTheOriginal has a quiet connection stand, with read timeouts
// shorter than it is quiet.
func TestKeepAliveWithTheOriginal(t *testing.T) {
	conn, lines := original(t, Config{Initiator: true, KeepAlive: 50 * time.Millisecond, ReadTimeout: 2 * time.Second}, 100)
	var met struct{ Hash string }
	told(t, lines, &met)
	late := time.AfterFunc(3*time.Second, func() { conn.WriteMessage([]byte("still there?")) })
	defer late.Stop()
	want(t, conn, []byte("still there?"))
	conn.CloseWrite()
	if _, err := conn.ReadMessage(); err != io.EOF {
		t.Errorf("got %v, want %v", err, io.EOF)
	}
	var end struct{ Messages, Empty int }
	if told(t, lines, &end); end.Messages != 1 {
		t.Errorf("the original had %+v", end)
	}
}

// TestOriginalRefuses has the original notice a frame that was changed.
func TestOriginalRefuses(t *testing.T) {
	conn, lines := original(t, Config{Initiator: true}, 0)
	var met struct{ Hash string }
	told(t, lines, &met)
	conn.rw.Write(append(appendLength(nil, 20), make([]byte, 20)...))
	var end struct{ Error string }
	if told(t, lines, &end); end.Error == "" {
		t.Error("it took the frame")
	}
	if _, err := conn.ReadMessage(); err == nil {
		t.Error("it goes on")
	}
}

// TestRekey changes keys when libsodium does.
func TestRekey(t *testing.T) {
	var v struct {
		Header hexBytes
		Frames []hexBytes
	}
	told(t, node(t, "rekey.js"), &v)
	var rx, tx stream
	for _, s := range []*stream{&rx, &tx} {
		s.init([32]byte(bytes.Repeat([]byte{5}, 32)), v.Header)
		binary.LittleEndian.PutUint32(s.nonce[:4], 1<<32-1)
	}
	for i, want := range []string{"the last of the old key", "the first of the new", "asks for another", "which is in use"} {
		got, err := opened(&rx, v.Frames[i])
		if err != nil || string(got) != want {
			t.Fatalf("frame %d: got %q, %v, want %q", i, got, err, want)
		}
		if i < 2 {
			if frame := sealed(&tx, []byte(want)); !bytes.Equal(frame, v.Frames[i]) {
				t.Errorf("frame %d: got %x, want %x", i, frame, v.Frames[i])
			}
		}
	}
	if _, err := opened(&rx, v.Frames[3]); !errors.Is(err, errCipher) {
		t.Errorf("the last frame again: got %v, want %v", err, errCipher)
	}
}
