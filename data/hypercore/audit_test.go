package hypercore_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/merkle"
	"github.com/tradle/cloudpal/data/storage"
)

// TestAuditFinds changes what is on disk behind a log's back, one thing at a
// time: the audit says what it is, and nothing else.
func TestAuditFinds(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(b *storage.Batch, c *storage.Core) error
		want   []string
	}{
		{"nothing", func(*storage.Batch, *storage.Core) error { return nil }, nil},
		{"block", func(b *storage.Batch, c *storage.Core) error {
			copy(b.Block(c, 17, 3), "bad")
			return nil
		}, []string{"block 17 is not what was signed"}},
		{"a block that is gone", func(b *storage.Batch, c *storage.Core) error {
			b.RemoveBlock(c, 18)
			return nil
		}, []string{"block 18 is not here, though it should be"}},
		{"leaf", func(b *storage.Batch, c *storage.Core) error {
			return b.Node(c, merkle.Node{Index: 2 * 20, Size: 2})
		}, []string{"block 20 is not what was signed", "node 41 is not that of its children"}},
		{"inner node", func(b *storage.Batch, c *storage.Core) error {
			return b.Node(c, merkle.Node{Index: 15, Size: 26})
		}, []string{"node 15 is not that of its children", "node 31 is not that of its children"}},
		{"root", func(b *storage.Batch, c *storage.Core) error {
			return b.Node(c, merkle.Node{Index: 63, Size: 118})
		}, []string{"the signature: ", "node 63 is not that of its children"}},
		{"signature", func(b *storage.Batch, c *storage.Core) error {
			h := c.Head()
			h.Signature = append([]byte(nil), h.Signature...)
			h.Signature[20] ^= 1
			b.SetHead(c, h)
			return nil
		}, []string{"the signature: "}},
		{"a bit too many", func(b *storage.Batch, c *storage.Core) error {
			h := c.Head()
			h.Contiguous--
			b.SetHead(c, h)
			b.SetPage(c, 0, &storage.Page{1: 1 << 63}) // block 127 of 100
			return nil
		}, []string{"block 127 is beyond the end of the log"}},
		{"a node beyond the end", func(b *storage.Batch, c *storage.Core) error {
			return b.Node(c, merkle.Node{Index: 2 * 101, Size: 2})
		}, []string{"node 202 is beyond the end of the log"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStore(t)
			damaged(t, s, c.damage)
			create(t, s, hypercore.Options{}) // a good one beside it
			var faults []string
			cores := 0
			for a, err := range hypercore.AuditStore(t.Context(), s) {
				if err != nil {
					t.Fatal(err)
				}
				cores++
				faults = append(faults, a.Faults...)
				if a.Good() != (len(a.Faults) == 0) {
					t.Errorf("good is %v with the faults %q", a.Good(), a.Faults)
				}
			}
			if cores != 2 || len(faults) != len(c.want) {
				t.Fatalf("in %d cores found %q, want %q in 2", cores, faults, c.want)
			}
			for i, want := range c.want {
				if !strings.HasPrefix(faults[i], want) {
					t.Errorf("found %q, want %q", faults[i], want)
				}
			}
		})
	}
}

// damaged leaves a log of 100 blocks in a store, closed and damaged.
func damaged(t *testing.T, s *storage.Store, damage func(b *storage.Batch, c *storage.Core) error) {
	t.Helper()
	c, err := hypercore.Create(s, hypercore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for range 100 {
		appendAll(t, c, "ok")
	}
	c.Close()
	stored, err := s.Core(c.DiscoveryKey())
	if err != nil {
		t.Fatal(err)
	}
	b := s.Begin()
	defer b.Close()
	if err := errors.Join(damage(b, stored), b.Commit()); err != nil {
		t.Fatal(err)
	}
}

func TestAuditEnds(t *testing.T) {
	c := create(t, newStore(t), hypercore.Options{})
	appendAll(t, c, "a")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Audit(ctx, nil); !errors.Is(err, cloudpal.Timeout) || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, cloudpal.Timeout)
	}
}

func TestAuditTellsHowFarItIs(t *testing.T) {
	c := create(t, newStore(t), hypercore.Options{})
	for range 4 {
		appendAll(t, c, make([]string, 500)...)
	}
	var told []uint64
	a, err := c.Audit(t.Context(), func(a hypercore.Audit) { told = append(told, a.Blocks) })
	if err != nil || !a.Good() {
		t.Fatal(a, err)
	}
	if len(told) < 4 || !slices.IsSorted(told) || told[len(told)-1] < a.Blocks/2 {
		t.Errorf("of %d blocks, it told of %d", a.Blocks, told)
	}
}
