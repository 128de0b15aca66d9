package merkle

import (
	"fmt"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/flat"
)

// Prove answers a request from the nodes that r has of the tree with head h.
// Value and Manifest are left to the caller. The signature of an upgrade is
// h's, so the proof always reaches h, also where less was asked for; where the
// log has a prologue, an upgrade that starts in it is widened to it.
//
// A part of a log that is empty cannot be proved, and is left out. The error is
// ErrRequest for what cannot be asked of this tree, cloudpal.NotExist for what
// is not stored here, or r's.
func Prove(r Reader, h Head, req Request) (Proof, error) {
	out := Proof{ID: req.ID, Fork: h.Fork}
	if h.Length == 0 {
		return out, nil
	}
	p, err := newProver(r, h, req)
	if err == nil {
		err = p.run()
	}
	if err != nil {
		return Proof{}, err
	}
	p.settle(&out)
	return out, nil
}

// A target is the block or the node that is asked for, as a node.
type target struct {
	index, nodes uint64
	block        bool
}

// A prover makes one proof.
type prover struct {
	r       Reader
	h       Head
	target  *target
	seek    *SeekRequest
	upgrade *UpgradeRequest

	// What is proved so far; nil is not yet.
	targetNodes, seekNodes, upgradeNodes, additional []Node
}

func newProver(r Reader, h Head, req Request) (*prover, error) {
	p := &prover{r: r, h: h, seek: req.Seek}
	switch {
	case req.Block != nil && req.Hash != nil:
		return nil, fmt.Errorf("%w: a block and a hash at once", ErrRequest)
	case req.Block != nil && req.Block.Index >= h.Length:
		return nil, fmt.Errorf("%w: block %d of %d", ErrRequest, req.Block.Index, h.Length)
	case req.Block != nil:
		p.target = &target{index: 2 * req.Block.Index, nodes: req.Block.Nodes, block: true}
	case req.Hash != nil:
		p.target = &target{index: req.Hash.Index, nodes: req.Hash.Nodes}
		if _, last := flat.Span(req.Hash.Index); req.Hash.Index >= 2*h.Length || last >= 2*h.Length {
			return nil, fmt.Errorf("%w: node %d of %d blocks", ErrRequest, req.Hash.Index, h.Length)
		}
	}
	if req.Upgrade != nil {
		u := widen(*req.Upgrade, h.Prologue)
		if u.Length == 0 || u.Start >= h.Length || u.Length > h.Length-u.Start {
			return nil, fmt.Errorf("%w: blocks %d to %d of %d", ErrRequest, u.Start, u.Start+u.Length, h.Length)
		}
		p.upgrade = &u
	}
	return p, nil
}

// widen makes an upgrade that starts in the prologue one of the prologue.
func widen(u UpgradeRequest, prologue *Prologue) UpgradeRequest {
	if prologue != nil && u.Start < prologue.Length {
		return UpgradeRequest{0, prologue.Length}
	}
	return u
}

// run proves the parts: what the asker can attach to its tree as it is, and then
// the upgrade with what is new in it.
func (p *prover) run() error {
	old := p.upgrade == nil || p.target != nil && p.targetLast() < 2*p.upgrade.Start
	switch {
	case p.target != nil && old:
		if err := p.proveOld(); err != nil {
			return err
		}
	case p.target != nil && p.seek != nil:
		return fmt.Errorf("%w: a seek and a new block at once", ErrRequest)
	}
	if p.upgrade != nil {
		if err := p.proveUpgrade(); err != nil {
			return err
		}
	}
	if p.target != nil && p.targetNodes == nil {
		return fmt.Errorf("%w: node %d is not below a new one", ErrRequest, p.target.index)
	}
	return nil
}

// targetLast returns the last leaf below the target.
func (p *prover) targetLast() uint64 {
	_, last := flat.Span(p.target.index)
	return last
}

// proveOld proves a target that the asker's tree has, up to the node that the
// asker holds. A seek goes on within that.
func (p *prover) proveOld() error {
	end := p.h.Length
	if p.upgrade != nil {
		end = p.upgrade.Start + p.upgrade.Length
	}
	top := p.target.index
	for range p.target.nodes {
		top = flat.Parent(top)
		if flat.Contains(top, 2*end) {
			return fmt.Errorf("%w: %d nodes above node %d are outside of the tree", ErrRequest, p.target.nodes, p.target.index)
		}
	}
	if p.seek == nil {
		return p.proveTarget(top, nil)
	}
	found, err := p.seekBelow(top)
	if err != nil {
		return err
	}
	return p.proveTarget(top, &found)
}

// proveTarget collects the path from the target to top. Where a sibling on it
// has what a seek found below it, the seek's path stands for that sibling.
func (p *prover) proveTarget(top uint64, found *uint64) (err error) {
	p.targetNodes = []Node{}
	if !p.target.block {
		if p.targetNodes, err = p.add(p.targetNodes, p.target.index); err != nil {
			return err
		}
	}
	for i := p.target.index; i != top; i = flat.Parent(i) {
		sibling := flat.Sibling(i)
		if found != nil && sibling != *found && flat.Contains(sibling, *found) {
			err = p.proveSeek(*found, sibling)
		} else {
			p.targetNodes, err = p.add(p.targetNodes, sibling)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// proveSeek collects the path from what a seek found to top.
func (p *prover) proveSeek(found, top uint64) (err error) {
	p.seekNodes, err = p.add([]Node{}, found)
	for i := found; err == nil && i != top; i = flat.Parent(i) {
		p.seekNodes, err = p.add(p.seekNodes, flat.Sibling(i))
	}
	return err
}

// proveUpgrade collects the nodes that grow the asker's tree. The path of a new
// target, or of what a seek found, stands for the node that has it.
func (p *prover) proveUpgrade() error {
	start, end := p.upgrade.Start, p.upgrade.Start+p.upgrade.Length
	inside, err := p.newPart(end)
	if err != nil {
		return err
	}
	p.upgradeNodes = []Node{}
	var indexes [128]uint64
	for _, i := range AppendUpgrade(indexes[:0], start, end) {
		switch {
		case inside == nil || !flat.Contains(i, *inside):
			p.upgradeNodes, err = p.add(p.upgradeNodes, i)
		case p.target != nil:
			err = p.proveTarget(i, nil)
		default:
			err = p.proveSeek(*inside, i)
		}
		if err != nil {
			return err
		}
	}
	p.additional = []Node{}
	for _, i := range AppendUpgrade(indexes[:0], end, p.h.Length) {
		if p.additional, err = p.add(p.additional, i); err != nil {
			return err
		}
	}
	return nil
}

// newPart returns the node whose path goes into the upgrade to end blocks, or
// nil.
func (p *prover) newPart(end uint64) (*uint64, error) {
	switch {
	case p.targetNodes != nil: // it was old, and the seek is in it
		return nil, nil
	case p.target != nil:
		return &p.target.index, nil
	case p.seek == nil:
		return nil, nil
	}
	return p.seekRoots(end)
}

// add appends a node that must be stored.
func (p *prover) add(nodes []Node, index uint64) ([]Node, error) {
	n, err := need(p.r, index)
	return append(nodes, n), err
}

// need returns a node, or cloudpal.NotExist.
func need(r Reader, index uint64) (Node, error) {
	n, ok, err := r.Node(index)
	if err == nil && !ok {
		err = cloudpal.E("read a node", cloudpal.NotExist, nil)
	}
	return n, err
}

// settle writes down what is proved.
func (p *prover) settle(out *Proof) {
	switch {
	case p.target == nil:
	case p.target.block:
		out.Block = &BlockProof{Index: p.target.index / 2, Nodes: p.targetNodes}
	default:
		out.Hash = &HashProof{Index: p.target.index, Nodes: p.targetNodes}
	}
	if p.seekNodes != nil {
		out.Seek = &SeekProof{Bytes: p.seek.Bytes, Nodes: p.seekNodes}
	}
	if p.upgrade != nil {
		out.Upgrade = &UpgradeProof{
			Start: p.upgrade.Start, Length: p.upgrade.Length,
			Nodes: p.upgradeNodes, Additional: p.additional,
			Signature: p.h.Signature,
		}
	}
}
