package corestore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/manifest"
	"github.com/tradle/cloudpal/data/protomux"
)

// join connects two stores, until the test ends or cut is called, which waits.
func join(t testing.TB, a, b *Store, o ReplicateOptions) (cut func()) {
	t.Helper()
	near, far := net.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	first := o
	first.Initiator = true
	wg.Go(func() { a.Replicate(ctx, near, first) })
	wg.Go(func() { b.Replicate(ctx, far, o) })
	cut = func() {
		cancel()
		wg.Wait()
	}
	t.Cleanup(cut)
	return cut
}

// A core that both have open is replicated, and stays so.
func TestReplicateOpenCores(t *testing.T) {
	a, b := open(t, Options{}), open(t, Options{})
	mine := get(t, a, "a")
	appendTo(t, mine, "one", "two")
	theirs := getKey(t, b, mine.Key())
	join(t, a, b, ReplicateOptions{})
	wantBlock(t, theirs, 1, "two")
	appendTo(t, mine, "three")
	wantBlock(t, theirs, 2, "three")
	if b, err := b.GetKey(mine.Key()); err != nil || b.Writable() {
		t.Errorf("a reader can write: %v", err)
	}
}

// A core that is opened while a connection runs joins it, on either side.
func TestCoresOpenedLaterJoin(t *testing.T) {
	a, b := open(t, Options{}), open(t, Options{})
	join(t, a, b, ReplicateOptions{})
	for i := range 5 {
		mine := get(t, a, fmt.Sprint(i))
		appendTo(t, mine, "hello")
		wantBlock(t, getKey(t, b, mine.Key()), 0, "hello")
		back := get(t, b, fmt.Sprint("back", i))
		reader := getKey(t, a, back.Key())
		appendTo(t, back, "hi")
		wantBlock(t, reader, 0, "hi")
	}
}

// One that is stored and that nobody has open is opened when a peer asks, and
// closed when the peer is gone.
func TestStoredCoresAreServed(t *testing.T) {
	a, b := open(t, Options{Linger: -1}), open(t, Options{})
	var keys []manifest.Key
	for i := range 20 {
		c := get(t, a, fmt.Sprint(i))
		appendTo(t, c, fmt.Sprint("block of ", i))
		keys = append(keys, c.Key())
		c.Close()
	}
	wantOpen(t, a, 0)
	cut := join(t, a, b, ReplicateOptions{})
	var readers []*hypercore.Core
	for i, key := range keys {
		c := getKey(t, b, key)
		wantBlock(t, c, 0, fmt.Sprint("block of ", i))
		readers = append(readers, c)
	}
	for _, c := range readers[:10] {
		c.Close()
	}
	cut()
	wantOpen(t, a, 0)
}

func wantOpen(t testing.TB, s *Store, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d cores are open", n), func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return len(s.cores) == n
	})
}

// A core whose readers have left is closed on both sides while the connection
// goes on, and comes back when it is read again.
func TestIdleCoresLeaveAConnection(t *testing.T) {
	a, b := open(t, Options{Linger: -1}), open(t, Options{Linger: -1})
	c := get(t, a, "a")
	appendTo(t, c, "x", "y")
	key := c.Key()
	c.Close()
	join(t, a, b, ReplicateOptions{})
	for i := range 3 {
		reader := getKey(t, b, key)
		wantBlock(t, reader, uint64(i%2), []string{"x", "y"}[i%2])
		if n := reader.Length(); n != 2 {
			t.Errorf("%d blocks, want 2", n)
		}
		reader.Close()
		wantOpen(t, b, 0)
		wantOpen(t, a, 0)
	}
}

// A core that is not stored is not made for a peer who asks.
func TestUnknownCoresAreNotMade(t *testing.T) {
	a, b := open(t, Options{}), open(t, Options{})
	join(t, a, b, ReplicateOptions{})
	reader := getKey(t, b, manifest.Key{1})
	known := get(t, a, "known")
	appendTo(t, known, "x")
	wantBlock(t, getKey(t, b, known.Key()), 0, "x") // so the other question was answered before
	if reader.Length() != 0 {
		t.Error("it has blocks")
	}
	for d, err := range a.List() {
		if d != known.DiscoveryKey() || err != nil {
			t.Errorf("it made %x, %v", d, err)
		}
	}
	// When the other side gets it later, it is asked again.
	late := get(t, a, "late")
	appendTo(t, late, "z")
	wantBlock(t, getKey(t, b, late.Key()), 0, "z")
}

// What a connection may not have it does not get, whoever knows the key.
func TestAllow(t *testing.T) {
	a, b := open(t, Options{}), open(t, Options{})
	public, private, closed := get(t, a, "public"), get(t, a, "private"), get(t, a, "closed")
	for _, c := range []*hypercore.Core{public, private, closed} {
		appendTo(t, c, "x")
	}
	closed.Close()
	hidden := []*hypercore.Core{getKey(t, b, private.Key()), getKey(t, b, closed.Key())}
	near, far := net.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		a.Replicate(ctx, near, ReplicateOptions{Initiator: true, Allow: func(k manifest.Key) bool { return k == public.Key() }})
	})
	wg.Go(func() { b.Replicate(ctx, far, ReplicateOptions{}) })
	defer wg.Wait()
	defer cancel()
	wantBlock(t, getKey(t, b, public.Key()), 0, "x")
	late := get(t, a, "late")
	appendTo(t, late, "x")
	hidden = append(hidden, getKey(t, b, late.Key()))
	appendTo(t, public, "y")
	wantBlock(t, getKey(t, b, public.Key()), 1, "y")
	for i, c := range hidden {
		if c.Length() != 0 {
			t.Errorf("core %d went over", i)
		}
	}
}

// A connection that is cut and made again goes on where it was.
func TestReconnect(t *testing.T) {
	a, b := open(t, Options{}), open(t, Options{})
	mine := get(t, a, "a")
	theirs := getKey(t, b, mine.Key())
	for i := range 5 {
		cut := join(t, a, b, ReplicateOptions{})
		appendTo(t, mine, fmt.Sprint(i))
		wantBlock(t, theirs, uint64(i), fmt.Sprint(i))
		cut()
	}
}

// Suspend ends connections, brings all to disk, and lets no new ones in until
// Resume.
func TestSuspend(t *testing.T) {
	a, b := open(t, Options{}), open(t, Options{})
	mine := get(t, a, "a")
	appendTo(t, mine, "x")
	theirs := getKey(t, b, mine.Key())
	join(t, a, b, ReplicateOptions{})
	wantBlock(t, theirs, 0, "x")
	if err := a.Suspend(); err != nil {
		t.Fatal(err)
	}
	if err := replicateOnce(t, a, b); err == nil {
		t.Error("a suspended store replicates")
	}
	appendTo(t, mine, "y")
	a.Resume()
	join(t, a, b, ReplicateOptions{})
	wantBlock(t, theirs, 1, "y")
}

func replicateOnce(t *testing.T, a, b *Store) error {
	near, far := net.Pipe()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- b.Replicate(ctx, far, ReplicateOptions{}) }()
	err := a.Replicate(ctx, near, ReplicateOptions{Initiator: true})
	<-done
	return err
}

// Closing a store ends its connections and waits for them.
func TestCloseEndsConnections(t *testing.T) {
	a, b := open(t, Options{}), open(t, Options{})
	mine := get(t, a, "a")
	appendTo(t, mine, "x")
	theirs := getKey(t, b, mine.Key())
	near, far := net.Pipe()
	done := make(chan error, 2)
	go func() { done <- a.Replicate(context.Background(), near, ReplicateOptions{Initiator: true}) }()
	go func() { done <- b.Replicate(context.Background(), far, ReplicateOptions{}) }()
	wantBlock(t, theirs, 0, "x")
	closeStore(t, a)
	<-done
	<-done
	if err := replicateOnce(t, a, b); err == nil {
		t.Error("a closed store replicates")
	}
}

// Three stores in a row: what the first wrote reaches the third through the
// second, which only knows the key.
func TestThroughAThird(t *testing.T) {
	a, b, c := open(t, Options{}), open(t, Options{}), open(t, Options{})
	mine := get(t, a, "a")
	appendTo(t, mine, "x", "y")
	middle := getKey(t, b, mine.Key())
	end := getKey(t, c, mine.Key())
	join(t, b, c, ReplicateOptions{})
	join(t, a, b, ReplicateOptions{})
	wantBlock(t, middle, 0, "x")
	wantBlock(t, end, 0, "x")
	wantBlock(t, middle, 1, "y")
	wantBlock(t, end, 1, "y")
}

// Many goroutines use two stores at once while connections come and go.
func TestReplicateManyAtOnce(t *testing.T) {
	a, b := open(t, Options{Linger: -1}), open(t, Options{Linger: -1})
	const workers, rounds = 6, 10
	stop := make(chan struct{})
	var cutting, wg sync.WaitGroup
	cutting.Go(func() {
		for {
			cut := join(t, a, b, ReplicateOptions{})
			select {
			case <-stop:
				return
			case <-time.After(100 * time.Millisecond):
				cut()
			}
		}
	})
	for w := range workers {
		wg.Go(func() {
			for i := range rounds {
				carry(t, a, b, fmt.Sprint(w), uint64(i))
			}
		})
	}
	wg.Wait()
	close(stop)
	cutting.Wait()
}

// carry appends to a core of one store and reads it in the other.
func carry(t *testing.T, from, to *Store, name string, i uint64) {
	mine, err := from.Get(name)
	if err != nil {
		t.Error(err)
		return
	}
	defer mine.Close()
	if _, err := mine.Append(fmt.Append(nil, name, i)); err != nil {
		t.Error(err)
		return
	}
	theirs, err := to.GetKey(mine.Key())
	if err != nil {
		t.Error(err)
		return
	}
	defer theirs.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if b, err := theirs.Get(ctx, i); err != nil || string(b) != fmt.Sprint(name, i) {
		t.Errorf("block %d of %s: %q, %v", i, name, b, err)
	}
}

// Who has a core and who does not is told.
func TestOnCore(t *testing.T) {
	a, b := open(t, Options{}), open(t, Options{})
	mine := get(t, a, "a")
	appendTo(t, mine, "x")
	unknown := manifest.Key{1}
	told := make(chan string, 10)
	reader := getKey(t, b, mine.Key())
	getKey(t, b, unknown)
	near, far := net.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { a.Replicate(ctx, near, ReplicateOptions{Initiator: true}) })
	wg.Go(func() {
		b.Replicate(ctx, far, ReplicateOptions{OnCore: func(key manifest.Key, ended error) {
			told <- fmt.Sprint(key == unknown, errors.Is(ended, protomux.ErrRejected), ended == nil)
		}})
	})
	wantBlock(t, reader, 0, "x")
	got := map[string]bool{<-told: true, <-told: true}
	if !got["true true false"] || !got["false false true"] {
		t.Errorf("told %v", got)
	}
	cancel()
	wg.Wait()
	if end := <-told; end != "false false false" {
		t.Errorf("in the end told %q", end)
	}
}
