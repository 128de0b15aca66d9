package hypercore

import (
	"context"
	"fmt"
	"iter"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/flat"
	"github.com/tradle/cloudpal/data/manifest"
	"github.com/tradle/cloudpal/data/merkle"
	"github.com/tradle/cloudpal/data/storage"
)

// An Audit is what was found in checking all that is here of a core.
type Audit struct {
	Key    manifest.Key
	Length uint64
	Blocks uint64   // that are here and were checked
	Bytes  uint64   // of these, as stored
	Nodes  uint64   // of the tree that are here and were checked
	Faults []string // what is wrong; at most MaxFaults are told
	Faulty uint64   // how many things are wrong
}

// MaxFaults is how many faults an Audit tells in words.
const MaxFaults = 100

// Good reports whether nothing is wrong.
func (a Audit) Good() bool { return a.Faulty == 0 }

func (a *Audit) fault(format string, args ...any) {
	if a.Faulty++; len(a.Faults) < MaxFaults {
		a.Faults = append(a.Faults, fmt.Sprintf(format, args...))
	}
}

// Audit checks all that is here: each block against its leaf, each node of the
// tree against those below it, the roots against the signature, and the
// bitfield against the blocks. It reads everything, and lets the core be used
// meanwhile.
func (c *Core) Audit(ctx context.Context) (Audit, error) {
	if err := c.check("audit"); err != nil {
		return Audit{}, err
	}
	s := c.Snapshot()
	defer s.Close()
	a := &auditor{core: s, audit: Audit{Key: c.Key(), Length: s.Length()}}
	if err := a.run(ctx); err != nil {
		return a.audit, cloudpal.E("audit core "+c.Key().String(), "", err)
	}
	return a.audit, nil
}

type auditor struct {
	core  *Core
	audit Audit
}

func (a *auditor) run(ctx context.Context) error {
	a.checkHead()
	for i := uint64(0); i < a.audit.Length; i++ {
		if i&1023 == 0 && ctx.Err() != nil {
			return cloudpal.E("", cloudpal.Timeout, ctx.Err())
		}
		if err := a.checkBlock(i); err != nil {
			return err
		}
	}
	return nil
}

func (a *auditor) checkHead() {
	h := a.core.snap.head
	if h.Length == 0 && len(h.Signature) == 0 {
		return
	}
	if err := a.core.VerifyHead(h); err != nil {
		a.audit.fault("the signature: %v", err)
	}
}

// checkBlock checks a block, its leaf, and the nodes that end with it.
func (a *auditor) checkBlock(i uint64) error {
	leaf, known, err := a.node(2 * i)
	if err != nil {
		return err
	}
	stored, err := a.core.appendStored(nil, i)
	switch {
	case err == cloudpal.NotExist:
		if a.core.Has(i) {
			a.audit.fault("block %d is not here, though it should be", i)
		}
	case err != nil:
		a.audit.fault("block %d: %v", i, err)
	default:
		a.audit.Blocks++
		a.audit.Bytes += uint64(len(stored))
		if !known || merkle.Leaf(i, stored) != leaf {
			a.audit.fault("block %d is not what was signed", i)
		}
	}
	return a.checkParents(2 * i)
}

// checkParents checks the nodes of which a leaf is the last.
func (a *auditor) checkParents(leaf uint64) error {
	for n := flat.Parent(leaf); ; n = flat.Parent(n) {
		if _, last := flat.Span(n); last != leaf {
			return nil
		}
		if err := a.checkParent(n); err != nil {
			return err
		}
	}
}

func (a *auditor) checkParent(index uint64) error {
	n, known, err := a.node(index)
	if err != nil || !known {
		return err
	}
	l, r, _ := flat.Children(index)
	left, hasLeft, err := a.node(l)
	if err != nil {
		return err
	}
	right, hasRight, err := a.node(r)
	if err != nil {
		return err
	}
	if hasLeft && hasRight && merkle.Parent(left, right) != n {
		a.audit.fault("node %d is not that of its children", index)
	}
	return nil
}

func (a *auditor) node(index uint64) (merkle.Node, bool, error) {
	n, ok, err := snapReader{a.core.log, a.core.snap}.Node(index)
	if ok {
		a.audit.Nodes++
	}
	return n, ok, err
}

// AuditStore audits all cores of a store, one after the other.
func AuditStore(ctx context.Context, s *storage.Store) iter.Seq2[Audit, error] {
	return func(yield func(Audit, error) bool) {
		for d, err := range s.Cores() {
			if err != nil {
				yield(Audit{}, err)
				return
			}
			a, err := auditStored(ctx, s, d)
			if !yield(a, err) {
				return
			}
		}
	}
}

func auditStored(ctx context.Context, s *storage.Store, d [32]byte) (Audit, error) {
	c, err := OpenStored(s, d, Options{})
	if err != nil {
		return Audit{}, err
	}
	defer c.Close()
	return c.Audit(ctx)
}
