package hypercore

import (
	"errors"
	"fmt"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/compact"
	"github.com/tradle/cloudpal/data/manifest"
	"github.com/tradle/cloudpal/data/merkle"
	"github.com/tradle/cloudpal/data/storage"
)

// Prove answers a peer's request with what is here. The error is NotExist where
// a block is not here or the fork is another, and Invalid where nobody could
// answer.
func (c *Core) Prove(req merkle.Request) (merkle.Proof, error) {
	p := c.Prover()
	defer p.Close()
	var proof merkle.Proof
	err := p.Prove(req, &proof)
	return proof, err
}

// A Prover answers many requests of peers. It is for one goroutine.
type Prover struct {
	core *Core
	buf  []byte
}

// Prover returns one that answers for the core.
func (c *Core) Prover() *Prover { return &Prover{core: c} }

// Close ends the Prover.
func (p *Prover) Close() {}

// Prove is Core's, but what it puts into proof is valid only until the next
// call.
func (p *Prover) Prove(req merkle.Request, proof *merkle.Proof) error {
	l := p.core.log
	l.mu.RLock()
	defer l.mu.RUnlock()
	if req.Fork != l.head.Fork {
		if req.Manifest && l.identity.Manifest != nil {
			*proof = merkle.Proof{ID: req.ID, Fork: req.Fork, Manifest: l.identity.Manifest}
			return nil
		}
		return cloudpal.E("prove", cloudpal.NotExist, errOtherFork)
	}
	if req.Block != nil {
		var err error
		if p.buf, err = l.core.AppendBlock(p.buf[:0], req.Block.Index); err != nil {
			return notHere(req.Block.Index, err)
		}
	}
	out, err := merkle.Prove(l.core, l.head, req)
	if err != nil {
		return err
	}
	*proof = out
	if proof.Block != nil {
		proof.Block.Value = p.buf
	}
	if req.Manifest && !l.compat {
		proof.Manifest = l.identity.Manifest
	}
	return nil
}

var errOtherFork = errors.New("the log has another fork")

// Applied says what became of a proof.
type Applied struct {
	Err      error  // why nothing of it was stored; nil where all was
	Upgraded bool   // the log is longer
	HasBlock bool   // it had a block
	Block    uint64 // which
	New      bool   // that was not here before
}

// Apply verifies a proof and stores all that it has, or nothing.
func (c *Core) Apply(p merkle.Proof) (Applied, error) {
	var out [1]Applied
	if err := c.ApplyBatch([]merkle.Proof{p}, out[:]); err != nil {
		return Applied{}, err
	}
	return out[0], out[0].Err
}

// ApplyBatch verifies proofs in their order, each against what is stored and the
// good ones before it, and stores those that are good in one commit. out has as
// many places as there are proofs, and says for each what became of it. The
// error, where the disk fails, is that of all. Nothing of the proofs is kept.
func (c *Core) ApplyBatch(proofs []merkle.Proof, out []Applied) error {
	if err := c.check("apply"); err != nil {
		return err
	}
	l := c.log
	l.mu.Lock()
	err := l.apply(proofs, out)
	l.mu.Unlock()
	if err != nil {
		return cloudpal.E("apply", "", err)
	}
	l.events.deliver()
	return nil
}

func (l *log) apply(proofs []merkle.Proof, out []Applied) error {
	a := applier{log: l, b: l.begin(), head: l.head}
	var leaves [32]merkle.Node // of some proofs, hashed together
	for i := range proofs {
		at := i % len(leaves)
		if at == 0 {
			n := min(len(proofs)-i, len(leaves))
			merkle.Leaves(leaves[:n], proofs[i:i+n])
		}
		out[i] = Applied{}
		if out[i].Err = a.add(proofs[i], leaves[at], &out[i]); out[i].Err != nil && !blames(out[i].Err) {
			return l.undo(out[i].Err)
		}
	}
	if err := a.commit(); err != nil {
		return l.undo(err)
	}
	return nil
}

// blames reports whether an error is the proof's fault, not the store's.
func blames(err error) bool {
	switch cloudpal.KindOf(err) {
	case cloudpal.Invalid, cloudpal.Denied, cloudpal.NotExist:
		return true
	}
	return false
}

// An applier collects what good proofs have.
type applier struct {
	log  *log
	b    *storage.Batch
	head merkle.Head // as the proofs so far have made it
	got  []span      // blocks that arrived
	any  bool        // there is something to store
}

// A span is the blocks from start up to end.
type span struct{ start, end uint64 }

// add verifies a proof, whose block has that leaf, and notes what it has.
func (a *applier) add(p merkle.Proof, leaf merkle.Node, out *Applied) error {
	l := a.log
	if p.Manifest != nil {
		if err := a.learn(p.Manifest); err != nil {
			return err
		}
	}
	v, err := merkle.VerifyLeaf(l.core, a.head, p, leaf)
	if err != nil {
		return err
	}
	if v.Upgraded {
		if err := a.checkSignature(v.Head); err != nil {
			return err
		}
	}
	return a.store(p, v, out)
}

func (a *applier) store(p merkle.Proof, v merkle.Verified, out *Applied) error {
	l := a.log
	for _, n := range v.Nodes {
		if err := a.b.Node(l.core, n); err != nil {
			return err
		}
		a.any = true
	}
	if v.Upgraded {
		a.head = v.Head
		a.head.Signature = append([]byte(nil), v.Head.Signature...)
		out.Upgraded, a.any = true, true
	}
	if p.Block == nil {
		return nil
	}
	out.HasBlock, out.Block = true, p.Block.Index
	if err := l.bits.load(); err != nil {
		return err
	}
	if l.bits.has(p.Block.Index) {
		return nil
	}
	out.New, a.any = true, true
	copy(a.b.Block(l.core, p.Block.Index, len(p.Block.Value)), p.Block.Value)
	if err := l.bits.fill(p.Block.Index, p.Block.Index+1, true); err != nil {
		return err
	}
	a.arrived(p.Block.Index)
	return nil
}

// arrived notes a block, joining those that follow each other.
func (a *applier) arrived(i uint64) {
	if n := len(a.got); n > 0 && a.got[n-1].end == i {
		a.got[n-1].end++
		return
	}
	a.got = append(a.got, span{i, i + 1})
}

// learn takes a manifest from a peer.
func (a *applier) learn(encoded []byte) error {
	if a.log.identity.Manifest != nil || a.log.compat {
		return nil
	}
	m, err := manifest.Decode(encoded)
	if err != nil {
		return err
	}
	if err := m.Belongs(a.log.key); err != nil {
		return err
	}
	id := a.log.identity
	id.Manifest = m.Append(nil) // not what was sent: anything may stand behind it
	return a.become(id)
}

// become makes id what the log is; undo takes it back.
func (a *applier) become(id storage.Identity) error {
	a.any = true
	a.b.SetIdentity(a.log.core, id)
	if err := a.log.identifyAs(id); err != nil {
		return err
	}
	a.head.Prologue = a.log.prologue()
	return nil
}

// checkSignature verifies a head. A reader that has no manifest, and was sent
// none, can only be one of a core that needs none.
func (a *applier) checkSignature(h merkle.Head) error {
	if err := a.log.verify(h); err != nil || a.log.manifest != nil {
		return err
	}
	id := a.log.identity
	id.Compat = true
	return a.become(id)
}

func (a *applier) commit() error {
	if !a.any {
		return nil
	}
	l := a.log
	l.bits.save(a.b)
	was := l.head.Length
	a.b.SetHead(l.core, storage.Head{
		Fork: a.head.Fork, Length: a.head.Length, Bytes: a.head.Bytes(),
		Contiguous: l.bits.contiguous, Signature: a.head.Signature,
	})
	if err := a.b.Commit(); err != nil {
		return err
	}
	l.settle(a.head)
	if a.head.Length > was {
		l.events.add(Event{Kind: Upgraded, Start: was, End: a.head.Length})
	}
	for _, s := range a.got {
		l.events.add(Event{Kind: Downloaded, Start: s.start, End: s.end})
		l.waiting.arrived(s.start, s.end)
	}
	return nil
}

// verify checks the signature of a head.
func (l *log) verify(h merkle.Head) error {
	if l.manifest == nil {
		compat := manifest.Default(l.key)
		return compat.Verify(l.key, h)
	}
	return l.manifest.Verify(l.key, h)
}

// ApplyManifest stores the manifest that a peer has sent, if it is the core's and
// none is known.
func (c *Core) ApplyManifest(encoded []byte) error {
	if err := c.check("apply a manifest"); err != nil {
		return err
	}
	l := c.log
	l.mu.Lock()
	defer l.mu.Unlock()
	a := applier{log: l, b: l.begin(), head: l.head}
	if err := a.learn(encoded); err != nil {
		return err
	}
	if err := a.commit(); err != nil {
		return cloudpal.E("apply a manifest", "", l.undo(err))
	}
	return nil
}

// VerifyHead checks the signature of a head, as of another fork. Where the
// manifest is not known yet, the head can only be that of a core from before
// manifests.
func (c *Core) VerifyHead(h merkle.Head) error {
	l := c.log
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.verify(h)
}

// Reorg makes the head of another fork the log's: common blocks and their nodes
// stay, all others go. Nodes are those of the new tree that are not stored, and
// fork is that of the log which the new tree was compared with: where the log has
// another by now, common says nothing of it, and Reorg refuses with
// merkle.ErrStale. The signature is checked here, that the nodes belong to the
// head by the caller (merkle.Verify, merkle.Fork).
func (c *Core) Reorg(h merkle.Head, nodes []merkle.Node, common, fork uint64) error {
	if err := c.check("reorg"); err != nil {
		return err
	}
	l := c.log
	l.mu.Lock()
	err := l.reorg(h, nodes, common, fork)
	l.mu.Unlock()
	if err != nil {
		return cloudpal.E("reorg", "", err)
	}
	l.events.deliver()
	return nil
}

func (l *log) reorg(h merkle.Head, nodes []merkle.Node, common, fork uint64) error {
	switch {
	case fork != l.head.Fork:
		return fmt.Errorf("%w: compared with fork %d, not %d", merkle.ErrStale, fork, l.head.Fork)
	case h.Fork <= l.head.Fork || h.Fork > compact.MaxUint:
		return cloudpal.E("", cloudpal.Invalid, fmt.Errorf("fork %d does not follow on %d", h.Fork, l.head.Fork))
	case common > min(h.Length, l.head.Length):
		return cloudpal.E("", cloudpal.Invalid, errors.New("more blocks in common than there are"))
	}
	if err := l.verify(h); err != nil {
		return err
	}
	h.Signature = append([]byte(nil), h.Signature...)
	h.Roots = append([]merkle.Node(nil), h.Roots...)
	return l.replace(h, nodes, common)
}
