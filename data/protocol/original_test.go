package protocol

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/manifest"
	"github.com/tradle/cloudpal/data/protomux"
	"github.com/tradle/cloudpal/data/secretstream"
	"github.com/tradle/cloudpal/data/storage"
)

// An original is a process with the JavaScript hypercore (test/data/js/peer.js).
// It has one store, called "store".
type original struct {
	t      testing.TB
	in     io.Writer
	out    *bufio.Reader
	stderr bytes.Buffer
	last   int
}

type args map[string]any

// said is what the original says of a core.
type said struct {
	Key          string
	Length, Fork uint64
	Contiguous   uint64
	Hash         string
	Port         int
	Block        string
	Blocks       []string
	At           []uint64
	RSS          uint64
}

func startOriginal(t testing.TB) *original {
	t.Helper()
	dir := filepath.Join("..", "..", "test", "data")
	if _, err := os.Stat(filepath.Join(dir, "node_modules")); err != nil {
		if os.Getenv("CLOUDPAL_MUST_RUN") != "" {
			t.Fatal("no JavaScript peers: run make setup-test")
		}
		t.Skip("no JavaScript peers: run make setup-test")
	}
	cmd := exec.Command("node", filepath.Join(dir, "js", "peer.js"))
	o := &original{t: t}
	cmd.Stderr = &o.stderr
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	o.in, o.out = in, bufio.NewReaderSize(out, 1<<20)
	t.Cleanup(func() {
		in.Close()
		timer := time.AfterFunc(5*time.Second, func() { cmd.Process.Kill() })
		cmd.Wait()
		timer.Stop()
	})
	o.do("store", args{"as": "store", "dir": t.TempDir()})
	return o
}

// do asks the original to do something, and returns what it says of it.
func (o *original) do(op string, q args) (s said) {
	o.t.Helper()
	o.last++
	question := map[string]any{"op": op, "id": o.last}
	maps.Copy(question, q)
	line, err := json.Marshal(question)
	must(o.t, err)
	_, err = o.in.Write(append(line, '\n'))
	must(o.t, err)
	lines := make(chan []byte, 1)
	go func() {
		for {
			line, err := o.out.ReadBytes('\n')
			if err != nil || bytes.HasPrefix(line, []byte(`{"id":`+strconv.Itoa(o.last)+",")) {
				lines <- line
				return
			}
		}
	}()
	select {
	case line = <-lines:
	case <-time.After(90 * time.Second):
		o.t.Fatalf("JavaScript's %s %v: no answer\n%s", op, q, o.stderr.String())
	}
	var a struct {
		Value said
		Error string
	}
	if err := json.Unmarshal(line, &a); err != nil || a.Error != "" {
		o.t.Fatalf("JavaScript's %s %v: %v %s\n%s", op, q, err, a.Error, o.stderr.String())
	}
	return a.Value
}

// reader opens a core there by its key, under the name "log".
func (o *original) reader(c *hypercore.Core) {
	key := c.Key()
	o.do("core", args{"as": "log", "on": "store", "key": hex.EncodeToString(key[:])})
}

// writer makes a core there, under the name "log".
func (o *original) writer(n int) manifest.Key {
	o.t.Helper()
	s := o.do("core", args{"as": "log", "on": "store", "name": "log"})
	o.fill(n)
	return keyOf(o.t, s.Key)
}

func (o *original) fill(n int) {
	o.do("fill", args{"on": "log", "count": n, "batch": 500, "prefix": "block "})
}

func (o *original) append(blocks ...string) {
	var b [][]byte
	for _, s := range blocks {
		b = append(b, []byte(s))
	}
	o.do("append", args{"on": "log", "blocks": b})
}

func (o *original) blocks(start, end uint64) (all [][]byte) {
	o.t.Helper()
	for _, s := range o.do("blocks", args{"on": "log", "start": start, "end": end}).Blocks {
		b, err := base64.StdEncoding.DecodeString(s)
		must(o.t, err)
		all = append(all, b)
	}
	return all
}

// hash is the tree hash of the first length blocks.
func (o *original) hash(length uint64) string {
	return o.do("treeHash", args{"on": "log", "length": length}).Hash
}

func (o *original) wait(length, fork uint64, all bool) said {
	return o.do("wait", args{"on": "log", "length": length, "fork": fork, "all": all})
}

// dial connects replicators of ours with the original's store.
func (o *original) dial(rs ...*Replicator) *protomux.Mux {
	o.t.Helper()
	port := o.do("listen", args{"on": []string{"store"}}).Port
	conn, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	must(o.t, err)
	return join(o.t, conn, true, rs...)
}

// join replicates over a connection until the test ends.
func join(t testing.TB, conn net.Conn, initiator bool, rs ...*Replicator) *protomux.Mux {
	t.Helper()
	s, err := secretstream.Handshake(context.Background(), conn, secretstream.Config{Initiator: initiator})
	must(t, err)
	m := protomux.New(s)
	for _, r := range rs {
		must(t, r.Open(m))
	}
	running, stop := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := m.Run(running); err != nil && running.Err() == nil {
			t.Logf("the connection with the original: %v", err)
		}
	}()
	t.Cleanup(func() { stop(); <-done })
	return m
}

func keyOf(t testing.TB, s string) (k manifest.Key) {
	t.Helper()
	b, err := hex.DecodeString(s)
	must(t, err)
	return manifest.Key(b)
}

func openKey(t testing.TB, key manifest.Key, o hypercore.Options) *hypercore.Core {
	t.Helper()
	s := storage.Memory()
	t.Cleanup(func() { s.Close() })
	c, err := hypercore.Open(s, key, o)
	must(t, err)
	t.Cleanup(func() { c.Close() })
	return c
}

func sameAs(t testing.TB, o *original, c *hypercore.Core, start, end uint64) {
	t.Helper()
	blocksAs(t, o, c, start, end)
	hash := c.TreeHash()
	if hex.EncodeToString(hash[:]) != o.hash(c.Length()) {
		t.Error("the tree hashes differ")
	}
}

// blocksAs compares blocks; the original fetches those that it does not have.
func blocksAs(t testing.TB, o *original, c *hypercore.Core, start, end uint64) {
	t.Helper()
	want := o.blocks(start, end)
	for i, w := range want {
		got, err := c.Local(start + uint64(i))
		must(t, err)
		if !bytes.Equal(got, w) {
			t.Fatalf("block %d is %q, the original's is %q", start+uint64(i), got, w)
		}
	}
}

// A log that the original writes, whole, and then live.
func TestReadsTheOriginal(t *testing.T) {
	o := startOriginal(t)
	c := openKey(t, o.writer(2000), hypercore.Options{})
	o.dial(replicator(t, c, Options{Full: true}))
	waitAll(t, c, 2000)
	sameAs(t, o, c, 0, 2000)
	o.append("one more", "and another")
	waitAll(t, c, 2002)
	sameAs(t, o, c, 1990, 2002)
}

// A log that we write, whole, and then live.
func TestTheOriginalReads(t *testing.T) {
	w := newWriter(t, hypercore.Options{})
	fill(t, w, 0, 2000)
	o := startOriginal(t)
	o.reader(w)
	o.do("follow", args{"on": "log"})
	o.dial(replicator(t, w, Options{}))
	o.wait(2000, 0, true)
	sameAs(t, o, w, 0, 2000)
	fill(t, w, 2000, 2010)
	o.wait(2010, 0, true)
	sameAs(t, o, w, 2000, 2010)
}
