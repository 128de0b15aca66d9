package data_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience is how long a question may take. What is waited for here takes
// milliseconds; the rest is for a machine that is busy with other tests.
const patience = 90 * time.Second

// A peer is a process with the JavaScript originals (js/peer.js). It ends with
// its test, and with the test's process, whatever becomes of that.
type peer struct {
	t      testing.TB
	in     io.WriteCloser
	stderr trouble

	mu      sync.Mutex
	last    int
	waiting map[int]chan answer
	ended   chan struct{}
}

// trouble is what a process writes to its standard error.
type trouble struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (e *trouble) Write(b []byte) (int, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.text.Write(b)
}

func (e *trouble) String() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.TrimSpace(e.text.String())
}

// q are the arguments of a question.
type q map[string]any

type answer struct {
	ID    int             `json:"id"`
	Value json.RawMessage `json:"value"`
	Error string          `json:"error"`
}

func startPeer(t testing.TB) *peer {
	t.Helper()
	if _, err := os.Stat("node_modules"); err != nil {
		t.Fatal("no JavaScript peers: run make setup-test")
	}
	cmd := exec.Command("node", filepath.Join("js", "peer.js"))
	p := &peer{t: t, waiting: map[int]chan answer{}, ended: make(chan struct{})}
	cmd.Stderr = &p.stderr
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	p.in = in
	go p.read(out)
	t.Cleanup(func() {
		in.Close()
		timer := time.AfterFunc(5*time.Second, func() { cmd.Process.Kill() })
		<-p.ended
		cmd.Wait()
		timer.Stop()
	})
	return p
}

// read hands answers to who waits for them, until the process is done.
func (p *peer) read(out io.Reader) {
	defer close(p.ended)
	lines := bufio.NewReaderSize(out, 1<<20)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		var a answer
		if err := json.Unmarshal(line, &a); err != nil {
			continue // something a module printed
		}
		p.mu.Lock()
		c := p.waiting[a.ID]
		delete(p.waiting, a.ID)
		p.mu.Unlock()
		if c != nil {
			c <- a
		}
	}
}

// try asks a question and returns the answer.
func (p *peer) try(op string, args q) (json.RawMessage, error) {
	question := map[string]any{"op": op}
	for k, v := range args {
		question[k] = plain(v)
	}
	c := make(chan answer, 1)
	p.mu.Lock()
	p.last++
	question["id"] = p.last
	p.waiting[p.last] = c
	line, err := json.Marshal(question)
	if err == nil {
		_, err = p.in.Write(append(line, '\n'))
	}
	p.mu.Unlock()
	if err != nil {
		return nil, err
	}
	select {
	case a := <-c:
		if a.Error != "" {
			return nil, fmt.Errorf("JavaScript's %s: %s", op, a.Error)
		}
		return a.Value, nil
	case <-p.ended:
		return nil, errors.New("the JavaScript peer ended")
	case <-time.After(patience):
		return nil, fmt.Errorf("JavaScript's %s %v: no answer", op, args)
	}
}

// plain makes of bytes what the peer reads: base64. Keys are given as hex.
func plain(v any) any {
	switch v := v.(type) {
	case [][]byte:
		all := make([]string, len(v))
		for i, b := range v {
			all[i] = base64.StdEncoding.EncodeToString(b)
		}
		return all
	default:
		return v // encoding/json writes []byte as base64
	}
}

// ask asks a question that must be answered.
func ask[T any](p *peer, op string, args q) T {
	p.t.Helper()
	raw, err := p.try(op, args)
	if err != nil {
		p.t.Fatalf("%v\n%s", err, &p.stderr)
	}
	var v T
	if err := json.Unmarshal(raw, &v); err != nil {
		p.t.Fatalf("%s: %v: %s", op, err, raw)
	}
	return v
}

// do asks for something whose answer says nothing.
func (p *peer) do(op string, args q) {
	p.t.Helper()
	ask[struct{}](p, op, args)
}

// What the peer answers.
type (
	coreInfo struct {
		Key, DiscoveryKey string
		Length            uint64
		ByteLength        uint64
		Fork              uint64
		Contiguous        uint64
		Writable          bool
		Signature         []byte
	}
	blocks  struct{ Blocks [][]byte }
	version struct{ Version uint64 }
)

// dial makes the peer call a port with what it has under the names.
func (p *peer) dial(port int, names ...string) {
	p.t.Helper()
	p.do("connect", q{"port": port, "on": names})
}

// listen makes the peer wait for calls, and returns its port.
func (p *peer) listen(names ...string) int {
	p.t.Helper()
	return ask[struct{ Port int }](p, "listen", q{"on": names}).Port
}

// blocks returns those of [start, end), fetched where they are not there.
func (p *peer) blocks(name string, start, end uint64) [][]byte {
	p.t.Helper()
	return ask[blocks](p, "blocks", q{"on": name, "start": start, "end": end}).Blocks
}

// treeHash is the hash of the first length blocks' tree, in hex.
func (p *peer) treeHash(name string, length uint64) string {
	p.t.Helper()
	return ask[struct{ Hash string }](p, "treeHash", q{"on": name, "length": length}).Hash
}

// wait is until the peer's log has the length on the fork, and all blocks of it
// if asked.
func (p *peer) wait(name string, length, fork uint64, all bool) coreInfo {
	p.t.Helper()
	raw, err := p.try("wait", q{"on": name, "length": length, "fork": fork, "all": all})
	if err != nil {
		state, _ := p.try("state", q{"on": name})
		p.t.Fatalf("%v\nit is at %s\n%s", err, state, &p.stderr)
	}
	var info coreInfo
	must(p.t, json.Unmarshal(raw, &info))
	return info
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
