package data_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/tradle/cloudpal/data/corestore"
	"github.com/tradle/cloudpal/data/hypercore"
)

// have tells what a reader has on disk: blocks of a fork.
type have struct{ Fork, Start, End uint64 }

// replicate downloads parts of a log, at random, until the process is killed.
// The log's key and the port of who has it are given.
func (w *writer) replicate(extra string) error {
	var key string
	var port int
	if _, err := fmt.Sscan(extra, &key, &port); err != nil {
		return err
	}
	raw, err := hex.DecodeString(key)
	if err != nil {
		return err
	}
	c, err := w.GetKey([32]byte(raw))
	if err != nil {
		return err
	}
	go w.stayConnected(port)
	rng := w.rand(0)
	ctx := context.Background()
	for {
		if _, err := c.Update(ctx); err != nil {
			return err
		}
		fork, length := c.Fork(), c.Length()
		if length == 0 {
			continue
		}
		start := rng.Uint64N(length)
		end := min(length, start+1+rng.Uint64N(60))
		part, cancel := context.WithTimeout(ctx, time.Second) // it may be gone, by a truncation
		err := c.Download(part, hypercore.Range{Start: start, End: end})
		cancel()
		if err != nil || c.Fork() != fork {
			continue
		}
		w.must(c.Sync())
		w.say(word{Have: &have{fork, start, end}})
	}
}

func (w *writer) stayConnected(port int) {
	for {
		conn, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
		w.must(err)
		w.Replicate(context.Background(), conn, corestore.ReplicateOptions{Initiator: true})
	}
}

// A source is the log that the killed process reads, with all that it ever was.
type source struct {
	log   *hypercore.Core
	rng   *rand.Rand
	forks [][]uint64 // by fork, what its blocks are made of
	cuts  []uint64   // by fork, where it left the one before
}

// change appends, and sometimes cuts off something before.
func (s *source) change() error {
	if n := s.log.Length(); n > 0 && s.rng.IntN(4) == 0 {
		at := n - s.rng.Uint64N(n/2+1)
		if err := s.log.Truncate(at); err != nil {
			return err
		}
		s.forks = append(s.forks, slices.Clone(s.forks[len(s.forks)-1][:at]))
		s.cuts = append(s.cuts, at)
	}
	var blocks [][]byte
	last := &s.forks[len(s.forks)-1]
	for range 1 + s.rng.IntN(60) {
		id := s.rng.Uint64() | 1
		*last = append(*last, id)
		blocks = append(blocks, content(id))
	}
	_, err := s.log.Append(blocks...)
	return err
}

// goOn changes it again and again.
func (s *source) goOn(pause time.Duration, stop <-chan struct{}) error {
	for {
		select {
		case <-stop:
			return nil
		case <-time.After(pause):
			if err := s.change(); err != nil {
				return err
			}
		}
	}
}

// keeps is how many of a fork's blocks are still those of the newest.
func (s *source) keeps(fork uint64) uint64 {
	least := uint64(1 << 62)
	for _, cut := range s.cuts[fork+1:] {
		least = min(least, cut)
	}
	return least
}

// TestKilledReader kills a process that downloads a log while this one appends
// to it and cuts it.
func TestKilledReader(t *testing.T) {
	t.Parallel()
	us := newOurs(t)
	s := &source{log: us.log("log"), rng: rand.New(rand.NewPCG(1, 1)), forks: [][]uint64{nil}, cuts: []uint64{0}}
	must(t, s.change())
	extra := fmt.Sprint(hexKey(s.log.Key()), " ", us.listen())
	var dir string
	var all []have
	for trial := range trials(120) {
		if trial%perStore == 0 {
			os.RemoveAll(dir)
			dir, all = filepath.Join(t.TempDir(), "store"), nil
		}
		pause := time.Duration(1+trial%5) * 10 * time.Millisecond
		done, stop := make(chan error), make(chan struct{})
		go func() { done <- s.goOn(pause, stop) }()
		seed := uint64(trial) + 1
		words := kill(t, "replicate", dir, seed, extra)
		close(stop)
		must(t, <-done)
		for _, w := range words {
			if w.Have != nil {
				all = append(all, *w.Have)
			}
		}
		if err := s.check(dir, all); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
	}
	t.Logf("the log was cut %d times", len(s.cuts)-1)
}

// check holds what a reader left against what it said it had.
func (s *source) check(dir string, said []have) error {
	store, err := corestore.Open(dir, corestore.Options{})
	if err != nil {
		return err
	}
	defer store.Close()
	c, err := store.GetKey(s.log.Key())
	if err != nil {
		return err
	}
	defer c.Close()
	if c.Fork() >= uint64(len(s.forks)) {
		return fmt.Errorf("it is on fork %d, of which there are %d", c.Fork(), len(s.forks))
	}
	ids := s.forks[c.Fork()]
	if c.Length() > uint64(len(ids)) {
		return fmt.Errorf("it is longer than fork %d ever was: %d, not %d", c.Fork(), c.Length(), len(ids))
	}
	for _, h := range said {
		if h.Fork > c.Fork() {
			return fmt.Errorf("it had fork %d on disk, and is on %d", h.Fork, c.Fork())
		}
		for i := h.Start; i < min(h.End, s.keeps(h.Fork)); i++ {
			if !c.Has(i) {
				return fmt.Errorf("block %d of fork %d was on disk, and is not there on fork %d", i, h.Fork, c.Fork())
			}
		}
	}
	for i := range c.Length() {
		if !c.Has(i) {
			continue
		}
		b, err := c.Local(i)
		if err != nil || !bytes.Equal(b, content(ids[i])) {
			return fmt.Errorf("block %d of fork %d is another (%v)", i, c.Fork(), err)
		}
	}
	return intact(c)
}
