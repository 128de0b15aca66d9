package hypercore

import (
	"context"
	"errors"
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

// Audit checks all that is here of the log as it is in the store now: each block
// that the bitfield says is here against its leaf, each node of the tree against
// those below it, the roots against the signature. It reads everything, also
// what is in memory, from disk, and lets the core be used meanwhile. What takes
// time is what is here, however long the log is; progress, which may be nil, is
// told now and then how far it is. The error is that of ctx or of the store; a
// disk that cannot read something is a fault.
func (c *Core) Audit(ctx context.Context, progress func(Audit)) (Audit, error) {
	if err := c.check("audit"); err != nil {
		return Audit{}, err
	}
	l := c.log
	l.mu.RLock()
	a := auditor{log: l, head: l.head, view: l.core.View(), progress: progress}
	contiguous := l.bits.contiguous
	l.mu.RUnlock()
	defer a.view.Close()
	a.audit = Audit{Key: l.key, Length: a.head.Length}
	if err := a.run(ctx, contiguous); err != nil {
		return a.audit, cloudpal.E("audit core "+l.key.String(), "", err)
	}
	return a.audit, nil
}

type auditor struct {
	log   *log
	head  merkle.Head
	view  *storage.View
	buf   []byte
	audit Audit

	progress func(Audit)
}

func (a *auditor) run(ctx context.Context, contiguous uint64) error {
	if err := a.checkHead(); err != nil {
		return err
	}
	if err := a.checkBlocks(ctx, 0, contiguous); err != nil {
		return err
	}
	err := a.view.Pages(func(i uint64, p *storage.Page) error { return a.checkPage(ctx, contiguous, i, p) })
	if err := a.found(ctx, err); err != nil {
		return err
	}
	return a.found(ctx, a.view.Nodes(func(nodes []merkle.Node) error { return a.checkNodes(ctx, nodes) }))
}

// found makes a fault of an error, unless it is one that ends the audit.
func (a *auditor) found(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil || errors.Is(err, storage.ErrClosed) {
		return err
	}
	a.audit.fault("%v", err)
	return nil
}

// checkHead checks that the roots are here, and what is signed.
func (a *auditor) checkHead() error {
	h := a.head
	roots, err := merkle.Roots(a.view, h.Length)
	switch {
	case errors.Is(err, storage.ErrClosed):
		return err
	case err != nil:
		a.audit.fault("the roots: %v", err)
	default:
		h.Roots = roots
	}
	if h.Length == 0 && len(h.Signature) == 0 {
		return nil
	}
	a.log.mu.RLock()
	defer a.log.mu.RUnlock()
	if err := a.log.verify(h); err != nil {
		a.audit.fault("the signature: %v", err)
	}
	return nil
}

// checkPage checks the blocks of a page of the bitfield that are beyond the
// contiguous ones.
func (a *auditor) checkPage(ctx context.Context, contiguous, index uint64, p *storage.Page) error {
	first := index * storage.PageBits
	for start := p.Next(0, true); start < storage.PageBits; {
		end := p.Next(start, false)
		if err := a.checkBlocks(ctx, max(first+start, contiguous), first+end); err != nil {
			return err
		}
		start = p.Next(end, true)
	}
	return nil
}

// auditStep is after how many blocks an audit tells how far it is, and may end.
const auditStep = 256

func (a *auditor) checkBlocks(ctx context.Context, start, end uint64) error {
	for i := start; i < end; i++ {
		if i%auditStep == 0 {
			if ctx.Err() != nil {
				return cloudpal.E("", cloudpal.Timeout, ctx.Err())
			}
			if a.progress != nil {
				a.progress(a.audit)
			}
		}
		if err := a.checkBlock(i); err != nil {
			return err
		}
	}
	return nil
}

// checkBlock checks a block that should be here against its leaf.
func (a *auditor) checkBlock(i uint64) error {
	leaf, known, err := a.view.Node(2 * i)
	if err == nil {
		a.buf, err = a.view.AppendBlock(a.buf[:0], i)
	}
	switch {
	case errors.Is(err, storage.ErrClosed):
		return err
	case i >= a.head.Length:
		a.audit.fault("block %d is beyond the end of the log", i)
	case err == cloudpal.NotExist:
		a.audit.fault("block %d is not here, though it should be", i)
	case err != nil:
		a.audit.fault("block %d: %v", i, err)
	default:
		a.audit.Blocks++
		a.audit.Bytes += uint64(len(a.buf))
		if !known || merkle.Leaf(i, a.buf) != leaf {
			a.audit.fault("block %d is not what was signed", i)
		}
	}
	return nil
}

// checkNodes checks nodes against those below them, where both of these are here.
func (a *auditor) checkNodes(ctx context.Context, nodes []merkle.Node) error {
	if ctx.Err() != nil {
		return cloudpal.E("", cloudpal.Timeout, ctx.Err())
	}
	for _, n := range nodes {
		a.audit.Nodes++
		if _, last := flat.Span(n.Index); last >= 2*a.head.Length {
			a.audit.fault("node %d is beyond the end of the log", n.Index)
			continue
		}
		if err := a.checkNode(n, nodes); err != nil {
			return err
		}
	}
	return nil
}

func (a *auditor) checkNode(n merkle.Node, beside []merkle.Node) error {
	l, r, parent := flat.Children(n.Index)
	if !parent {
		return nil
	}
	left, hasLeft, err := a.node(l, beside)
	if err != nil {
		return err
	}
	right, hasRight, err := a.node(r, beside)
	if err != nil {
		return err
	}
	if hasLeft && hasRight && merkle.Parent(left, right) != n {
		a.audit.fault("node %d is not that of its children", n.Index)
	}
	return nil
}

// node returns a node that is stored, which often is one of some.
func (a *auditor) node(index uint64, some []merkle.Node) (merkle.Node, bool, error) {
	for _, n := range some {
		if n.Index == index {
			return n, true, nil
		}
	}
	return a.view.Node(index)
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
	return c.Audit(ctx, nil)
}
