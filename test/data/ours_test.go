package data_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/tradle/cloudpal/data/corestore"
	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/manifest"
)

// ours is a store of ours on disk, with its connections.
type ours struct {
	*corestore.Store
	t       testing.TB
	ctx     context.Context
	stop    context.CancelFunc
	running sync.WaitGroup

	mu    sync.Mutex
	conns map[net.Conn]struct{}
}

func newOurs(t testing.TB) *ours {
	t.Helper()
	return openOurs(t, t.TempDir(), nil)
}

// openOurs opens the store in a folder, which makes the keys of a primary key if
// it is given.
func openOurs(t testing.TB, dir string, primary *corestore.PrimaryKey) *ours {
	t.Helper()
	s, err := corestore.Open(dir, corestore.Options{PrimaryKey: primary})
	must(t, err)
	o := &ours{Store: s, t: t, conns: map[net.Conn]struct{}{}}
	o.ctx, o.stop = context.WithCancel(context.Background())
	t.Cleanup(o.end)
	return o
}

// end is safe to call again.
func (o *ours) end() {
	o.stop()
	o.hangUp()
	o.running.Wait()
	o.Close()
}

// log returns the store's own log of a name.
func (o *ours) log(name string) *hypercore.Core {
	o.t.Helper()
	c, err := o.Get(name)
	must(o.t, err)
	o.t.Cleanup(func() { c.Close() })
	return c
}

// theirs returns a log by its key.
func (o *ours) theirs(key string) *hypercore.Core {
	o.t.Helper()
	return o.open(corestore.CoreOptions{Key: keyOf(o.t, key)})
}

func (o *ours) open(options corestore.CoreOptions) *hypercore.Core {
	o.t.Helper()
	c, err := o.Core(options)
	must(o.t, err)
	o.t.Cleanup(func() { c.Close() })
	return c
}

// plug runs a connection until it ends.
func (o *ours) plug(conn net.Conn, initiator bool) {
	o.mu.Lock()
	o.conns[conn] = struct{}{}
	o.mu.Unlock()
	err := o.Replicate(o.ctx, conn, corestore.ReplicateOptions{Initiator: initiator})
	o.mu.Lock()
	_, wanted := o.conns[conn]
	delete(o.conns, conn)
	o.mu.Unlock()
	if err != nil && wanted && o.ctx.Err() == nil {
		o.t.Logf("our connection ended: %v", err)
	}
}

// listen takes calls, and returns its port.
func (o *ours) listen() int {
	o.t.Helper()
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	must(o.t, err)
	context.AfterFunc(o.ctx, func() { ln.Close() })
	o.running.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			o.running.Go(func() { o.plug(conn, false) })
		}
	})
	return ln.Addr().(*net.TCPAddr).Port
}

func (o *ours) dial(port int) {
	o.t.Helper()
	conn, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	must(o.t, err)
	o.running.Go(func() { o.plug(conn, true) })
}

// keepConnected calls, and again whenever the connection is lost.
func (o *ours) keepConnected(port int) {
	o.running.Go(func() {
		for o.ctx.Err() == nil {
			conn, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
			if err == nil {
				o.plug(conn, true)
			}
			select {
			case <-o.ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
}

// hangUp ends all connections.
func (o *ours) hangUp() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for c := range o.conns {
		delete(o.conns, c)
		c.Close()
	}
}

// soon is a context for what must be done within patience.
func soon(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

// until waits for what only looking tells.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// await waits until one of our logs has a length on a fork, and all blocks if
// asked.
func await(t testing.TB, c *hypercore.Core, length, fork uint64, all bool) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	if all {
		go follow(ctx, c)
	}
	until(t, fmt.Sprintf("length %d on fork %d", length, fork), func() bool {
		return c.Length() == length && c.Fork() == fork && (!all || c.Contiguous() == length)
	})
}

// follow downloads whatever there is of a log and whatever comes, until ctx
// ends.
func follow(ctx context.Context, c *hypercore.Core) {
	for ctx.Err() == nil {
		if err := c.Download(ctx, hypercore.Range{Live: true}); err != nil {
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// read returns our blocks of [start, end), fetched where they are not here.
func read(t testing.TB, c *hypercore.Core, start, end uint64) [][]byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var all [][]byte
	for i := start; i < end; i++ {
		b, err := c.Get(ctx, i)
		if err != nil {
			t.Fatalf("block %d: %v", i, err)
		}
		all = append(all, b)
	}
	return all
}

func hashOf(c *hypercore.Core) string {
	h := c.TreeHash()
	return hex.EncodeToString(h[:])
}

func keyOf(t testing.TB, text string) *manifest.Key {
	t.Helper()
	raw, err := hex.DecodeString(text)
	must(t, err)
	k := manifest.Key(raw)
	return &k
}

func hexKey(k manifest.Key) string { return hex.EncodeToString(k[:]) }

// block is the content of a test's block: most are small, some empty, some
// large.
func block(i int) []byte {
	switch {
	case i%17 == 3:
		return []byte{}
	case i%29 == 7:
		return bytes.Repeat([]byte{byte(i)}, 70_000+i)
	default:
		return fmt.Appendf(nil, "block %d of the test", i)
	}
}

func blocksOf(start, end int) (all [][]byte) {
	for i := start; i < end; i++ {
		all = append(all, block(i))
	}
	return all
}

// same holds blocks against what they must be.
func same(t testing.TB, who string, got, want [][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s has %d blocks, want %d", who, len(got), len(want))
	}
	for i := range want {
		if !bytes.Equal(got[i], want[i]) {
			t.Fatalf("%s: block %d is %.40q (%d bytes), want %.40q (%d bytes)", who, i, got[i], len(got[i]), want[i], len(want[i]))
		}
	}
}
