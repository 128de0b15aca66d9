package hypercore_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/manifest"
	"github.com/tradle/cloudpal/data/merkle"
	"github.com/tradle/cloudpal/data/storage"
)

// A trouble is a disk that goes wrong after so many of the operations it is
// about.
type trouble struct {
	kinds []errorfs.OpKind
	err   error
	kind  cloudpal.Kind
}

var (
	full = trouble{[]errorfs.OpKind{errorfs.OpFileWrite, errorfs.OpCreate, errorfs.OpFilePreallocate},
		syscall.ENOSPC, cloudpal.NoSpace}
	failing = trouble{[]errorfs.OpKind{errorfs.OpFileWrite, errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo},
		syscall.EIO, cloudpal.Other}
)

// A disk goes wrong when left, which counts down once it is not zero, gets to 1.
type disk struct {
	trouble
	left atomic.Int64
}

func (d *disk) MaybeError(op errorfs.Op) error {
	for _, k := range d.kinds {
		if op.Kind != k {
			continue
		}
		switch left := d.left.Load(); {
		case left == 1:
			return d.err
		case left > 1:
			d.left.Add(-1)
		}
	}
	return nil
}

func (d *disk) String() string { return "a disk that goes wrong" }

// A deed changes a log, in steps. Each step is one commit.
type deed struct {
	name string
	step func(c *hypercore.Core, n int) error
}

// deeds returns what can be done to a log of 300 blocks. Source is the same log,
// with 300 more.
func deeds(source *hypercore.Core) []deed {
	return []deed{
		{"append", func(c *hypercore.Core, n int) error {
			_, err := c.Append(diskBlock(uint64(n), 40_000))
			return err
		}},
		{"batch", func(c *hypercore.Core, n int) error {
			var blocks [][]byte
			for i := range uint64(100) {
				blocks = append(blocks, diskBlock(uint64(n)<<8|i, 1000))
			}
			_, err := c.Append(blocks...)
			return err
		}},
		{"truncate", func(c *hypercore.Core, n int) error {
			if n%2 == 0 {
				return c.Truncate(c.Length() - 2)
			}
			_, err := c.Append(diskBlock(uint64(n), 60_000))
			return err
		}},
		{"clear", func(c *hypercore.Core, n int) error {
			if n%2 == 0 {
				return c.Clear(uint64(3*n), uint64(3*n+4))
			}
			_, err := c.Append(diskBlock(uint64(n), 60_000))
			return err
		}},
		{"replicate", func(c *hypercore.Core, n int) error { return take(source, c, 15) }},
	}
}

// take gives a reader the length of a log, or its next blocks.
func take(from, to *hypercore.Core, blocks uint64) error {
	if to.Length() < from.Length() {
		p, err := from.Prove(merkle.Request{Upgrade: &merkle.UpgradeRequest{Start: to.Length(), Length: from.Length() - to.Length()}})
		if err == nil {
			_, err = to.Apply(p)
		}
		return err
	}
	var proofs []merkle.Proof
	for i := to.Contiguous(); len(proofs) < int(blocks); i++ {
		missing, err := to.Missing(i)
		if err != nil {
			return err
		}
		p, err := from.Prove(merkle.Request{Block: &merkle.NodeRequest{Index: i, Nodes: missing}})
		if err != nil {
			return err
		}
		proofs = append(proofs, p)
	}
	results := make([]hypercore.Applied, len(proofs))
	err := to.ApplyBatch(proofs, results)
	for _, r := range results {
		err = errors.Join(err, r.Err)
	}
	return err
}

func diskBlock(n uint64, size int) []byte {
	b := make([]byte, size)
	rand.NewChaCha8([32]byte{byte(n), byte(n >> 8), byte(n >> 16)}).Read(b)
	return b
}

// A state is what a log is, as far as one can see.
func stateOf(c *hypercore.Core) string {
	i := c.Info()
	return fmt.Sprint(i.Fork, i.Length, i.ByteLength, i.Contiguous, i.Blocks, i.TreeHash)
}

var diskPair = manifest.NewKeyPair([32]byte{3})

// begin makes a log of 300 blocks.
func beginLog(t *testing.T, fs vfs.FS) (*storage.Store, *hypercore.Core) {
	t.Helper()
	s, err := storage.Open("store", storage.Options{FS: fs, Buffer: 256 << 10})
	if err != nil {
		t.Fatal(err)
	}
	c, err := hypercore.Create(s, hypercore.Options{KeyPair: &diskPair})
	if err != nil {
		t.Fatal(err)
	}
	var blocks [][]byte
	for i := range uint64(300) {
		blocks = append(blocks, diskBlock(i, 100))
	}
	if _, err := c.Append(blocks...); err != nil {
		t.Fatal(err)
	}
	if err := c.Sync(); err != nil {
		t.Fatal(err)
	}
	return s, c
}

// TestTroubledDisk does to a log what can be done until the disk is full, or
// fails, at an instant drawn by lot. The error is clear, what is here can be
// read, and when the disk is well again the log is as it was after one of the
// steps: at least the last that was synced. It can go on from there.
func TestTroubledDisk(t *testing.T) {
	const steps, trials = 30, 6
	longer := func(t *testing.T) *hypercore.Core {
		s, c := beginLog(t, vfs.NewMem())
		t.Cleanup(func() { s.Close() })
		for i := range uint64(600) {
			if _, err := c.Append(diskBlock(i, 4000)); err != nil {
				t.Fatal(err)
			}
		}
		return c
	}
	for _, d := range deeds(longer(t)) {
		s, c := beginLog(t, vfs.NewMem())
		states := []string{stateOf(c)}
		for n := range steps {
			if err := d.step(c, n); err != nil {
				t.Fatal(err)
			}
			states = append(states, stateOf(c))
		}
		s.Close()
		for name, trouble := range map[string]trouble{"full": full, "failing": failing} {
			t.Run(d.name+"/"+name, func(t *testing.T) {
				t.Parallel()
				lots := rand.New(rand.NewPCG(4, uint64(len(d.name))))
				for range trials {
					endure(t, d, trouble, states, 2+lots.Int64N(60))
				}
			})
		}
	}
}

// endure does one trial. The disk goes wrong after so many operations.
func endure(t *testing.T, d deed, tr trouble, states []string, after int64) {
	t.Helper()
	mem := vfs.NewCrashableMem()
	bad := &disk{trouble: tr}
	s, c := beginLog(t, errorfs.Wrap(mem, bad))
	synced, done := 0, 0 // steps
	bad.left.Store(after)
	var err error
	for err == nil && done < len(states)-1 {
		if err = d.step(c, done); err != nil {
			break
		}
		done++
		if done%3 == 0 {
			if err = c.Sync(); err == nil {
				synced = done
			}
		}
	}
	if err == nil {
		if err = c.Sync(); err == nil {
			return // the disk lasted
		}
	}
	if got := cloudpal.KindOf(err); got != tr.kind || cloudpal.HintOf(err) == "" || !errors.Is(err, tr.err) {
		t.Errorf("after %d operations: the error is %q of kind %q with the hint %q", after, err, got, cloudpal.HintOf(err))
	}
	if got := stateOf(c); got != states[done] {
		t.Errorf("after %d operations: in step %d the log is %s, want %s", after, done, got, states[done])
	}
	readAll(t, c)
	if _, err := c.Append([]byte("more")); !errors.Is(err, tr.err) {
		t.Errorf("after the trouble an append says %v", err)
	}
	lost := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rand.New(rand.NewPCG(1, uint64(after)))})
	c.Close()
	s.Close() // says again what the trouble was
	bad.left.Store(0)
	for _, fs := range []vfs.FS{mem, lost} {
		recovered(t, fs, states, synced, min(done+1, len(states)-1))
	}
}

// readAll reads what is here.
func readAll(t *testing.T, c *hypercore.Core) {
	t.Helper()
	for i := range c.Length() {
		if _, err := c.Local(i); (err == nil) != c.Has(i) {
			t.Errorf("block %d, of which it says %v that it is here: %v", i, c.Has(i), err)
		}
	}
}

// recovered opens a store when its disk is well again.
func recovered(t *testing.T, fs vfs.FS, states []string, from, to int) {
	t.Helper()
	s, err := storage.Open("store", storage.Options{FS: fs})
	if err != nil {
		t.Errorf("open again: %v", err)
		return
	}
	defer s.Close()
	m := manifest.Default(diskPair.Public)
	c, err := hypercore.Open(s, m.Key(), hypercore.Options{KeyPair: &diskPair})
	if err != nil {
		t.Errorf("open again: %v", err)
		return
	}
	defer c.Close()
	found := false
	for _, state := range states[from : to+1] {
		found = found || state == stateOf(c)
	}
	if !found {
		t.Errorf("the log is %s, which it was in none of the steps %d to %d", stateOf(c), from, to)
	}
	if audit, err := c.Audit(t.Context(), nil); err != nil || !audit.Good() {
		t.Errorf("audit: %v %v", audit.Faults, err)
	}
	n, err := c.Append([]byte("goes on"))
	if err == nil {
		err = c.Sync()
	}
	if err != nil {
		t.Errorf("append when the disk is well: %v", err)
		return
	}
	if b, err := c.Local(n - 1); err != nil || !bytes.Equal(b, []byte("goes on")) {
		t.Errorf("got %q, %v", b, err)
	}
}
