package hypercore

import (
	"errors"
	"fmt"
	"math"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/compact"
	"github.com/tradle/cloudpal/data/manifest"
	"github.com/tradle/cloudpal/data/merkle"
	"github.com/tradle/cloudpal/data/storage"
)

// Append appends blocks and returns the new length. All of them are in the log
// when it returns, or none, also if the process is killed; they are on disk
// after Sync. The slices are not kept.
func (c *Core) Append(blocks ...[]byte) (length uint64, err error) {
	return c.append(nil, blocks)
}

// AppendSigned appends blocks under a signature that was made elsewhere, for
// what Draft returned. It is how a log with several signers grows, and how one
// gets its blocks that nobody signs, a static one: all of them at once, under any
// signature.
func (c *Core) AppendSigned(signature []byte, blocks ...[]byte) (length uint64, err error) {
	if len(signature) == 0 {
		return 0, cloudpal.E("append", cloudpal.Invalid, errors.New("there is no signature"))
	}
	return c.append(signature, blocks)
}

// Draft returns the head that the log would have with blocks appended, to be
// signed: Fork, Length and Hash() of it are what a signature is over. It changes
// nothing.
func (c *Core) Draft(blocks ...[]byte) (merkle.Head, error) {
	if err := c.checkBlocks("draft", blocks); err != nil {
		return merkle.Head{}, err
	}
	c.log.mu.RLock()
	defer c.log.mu.RUnlock()
	var tree merkle.Batch
	tree.Reset(c.log.head)
	for i, block := range blocks {
		tree.Append(c.encode(nil, c.log.head.Length+uint64(i), block))
	}
	return tree.Head(), nil
}

func (c *Core) append(signature []byte, blocks [][]byte) (length uint64, err error) {
	if err := c.checkBlocks("append", blocks); err != nil {
		return 0, err
	}
	if len(blocks) == 0 {
		return c.Length(), nil
	}
	l := c.log
	l.mu.Lock()
	length, err = l.append(c, signature, blocks)
	l.mu.Unlock()
	if err != nil {
		return 0, cloudpal.E("append", "", err)
	}
	l.events.deliver()
	return length, nil
}

func (c *Core) checkBlocks(op string, blocks [][]byte) error {
	if err := c.check(op); err != nil {
		return err
	}
	if c.snap != nil {
		return cloudpal.E(op, cloudpal.Denied, errSnapshot)
	}
	for _, block := range blocks {
		if len(block) > MaxBlock {
			return cloudpal.E(op, cloudpal.Invalid, fmt.Errorf("a block of %d bytes", len(block))).
				WithHint(fmt.Sprintf("a block may have %d bytes; cut larger data into several", MaxBlock))
		}
	}
	return nil
}

var errSnapshot = errors.New("the session is a snapshot")

// append does it; the caller holds mu. Of an error nothing is left.
func (l *log) append(c *Core, signature []byte, blocks [][]byte) (uint64, error) {
	b := l.begin()
	if err := l.stage(b, c, signature, blocks); err != nil {
		return 0, l.undo(err)
	}
	if err := b.Commit(); err != nil {
		return 0, l.undo(err)
	}
	l.grown()
	return l.head.Length, nil
}

// begin returns the batch of the log's own, empty.
func (l *log) begin() *storage.Batch {
	if l.batch == nil {
		l.batch = l.store.Begin()
	} else {
		l.batch.Reset()
	}
	return l.batch
}

// stage puts all that an append changes into a batch, and the tree.
func (l *log) stage(b *storage.Batch, c *Core, signature []byte, blocks [][]byte) error {
	start := l.head.Length
	if start+uint64(len(blocks)) > merkle.MaxLength {
		return cloudpal.E("", cloudpal.Exhausted, errors.New("the log has as many blocks as can be counted"))
	}
	bytes := len(blocks) * int(c.padding())
	for _, block := range blocks {
		bytes += len(block)
	}
	b.Grow(len(blocks), bytes)
	for i, block := range blocks {
		index := start + uint64(i)
		stored := b.Block(l.core, index, len(block)+int(c.padding()))
		c.encodeTo(stored, index, block)
		if c.cipher != nil {
			l.tree.Append(stored)
		}
	}
	if c.cipher == nil {
		l.tree.Append(blocks...) // as they are stored
	}
	for _, n := range l.tree.Nodes() {
		if err := b.Node(l.core, n); err != nil {
			return err
		}
	}
	h := l.tree.Head()
	signature, err := l.sign(c.pair, signature, h)
	if err != nil {
		return err
	}
	if err := l.bits.fill(start, l.tree.Length(), true); err != nil {
		return err
	}
	l.bits.save(b)
	b.SetHead(l.core, storage.Head{
		Fork: l.head.Fork, Length: l.tree.Length(), Bytes: l.tree.Bytes(),
		Contiguous: l.bits.contiguous, Signature: signature,
	})
	return nil
}

// grown makes the head that was committed the log's, and says so.
func (l *log) grown() {
	start := l.head.Length
	h := l.tree.Head()
	h.Signature = l.core.Head().Signature
	l.settle(h)
	l.events.add(Event{Kind: Appended, Start: start, End: h.Length})
	l.waiting.arrived(start, h.Length)
}

// undo brings the log back to what the store has, after err.
func (l *log) undo(err error) error {
	l.batch.Reset()
	id, restoring := l.core.Identity()
	if restoring == nil {
		restoring = l.identifyAs(id)
	}
	if restoring == nil {
		restoring = l.restore()
	}
	if restoring != nil {
		return errors.Join(err, restoring)
	}
	return err
}

// sign returns the signature of a head: the given one, if it is good, or one by
// pair.
func (l *log) sign(pair *manifest.KeyPair, given []byte, h merkle.Head) ([]byte, error) {
	if given != nil {
		h.Signature = append([]byte(nil), given...)
		return h.Signature, l.verify(h)
	}
	if !l.signs(pair) {
		return nil, l.cannotSign()
	}
	if p := l.manifest.Prologue; p != nil && (h.Length < p.Length || h.Length == p.Length && h.Hash() != p.Hash) {
		return nil, cloudpal.E("sign", cloudpal.Denied, errors.New("the core's manifest says how the log begins, and that is not it")).
			WithHint(fmt.Sprintf("append the first %d blocks as they are in the log that the manifest was made of, all at once", p.Length))
	}
	return l.manifest.Sign(l.key, *pair, h)
}

func (l *log) cannotSign() error {
	e := cloudpal.E("sign", cloudpal.Denied, errors.New("this session has no key pair that the core's manifest asks for"))
	switch {
	case l.manifest == nil:
		return e.WithHint("only who has the core's key pair can write it")
	case l.manifest.Quorum == 0:
		return e.WithHint("the core is static: nobody can change it")
	case len(l.manifest.Signers) > 1 || l.manifest.Quorum > 1:
		return e.WithHint("have Draft's head signed by the signers, and append with AppendSigned")
	}
	return e.WithHint("only who has the core's key pair can write it; give it in Options.KeyPair")
}

// padding is how many bytes encryption adds to a block.
func (c *Core) padding() uint64 {
	if c.cipher == nil {
		return 0
	}
	return paddingSize
}

// encodeTo fills dst with a block as it is stored.
func (c *Core) encodeTo(dst []byte, index uint64, block []byte) {
	if c.cipher == nil {
		copy(dst, block)
		return
	}
	c.cipher.seal(dst, index, c.log.head.Fork, block)
}

// encode appends a block to dst as it is stored.
func (c *Core) encode(dst []byte, index uint64, block []byte) []byte {
	n := len(dst)
	dst = append(dst, make([]byte, len(block)+int(c.padding()))...)
	c.encodeTo(dst[n:], index, block)
	return dst
}

// Truncate cuts the log to a length. The fork must be higher than the log's is;
// by default it is one more. Blocks from length on are gone, but for snapshots
// that are open.
func (c *Core) Truncate(length uint64, fork ...uint64) error {
	next := c.Fork() + 1
	if len(fork) > 0 {
		next = fork[0]
	}
	return c.truncate(nil, length, next)
}

// TruncateSigned truncates under a signature that was made elsewhere, for the
// head that DraftTruncate returned.
func (c *Core) TruncateSigned(signature []byte, length, fork uint64) error {
	if len(signature) == 0 {
		return cloudpal.E("truncate", cloudpal.Invalid, errors.New("there is no signature"))
	}
	return c.truncate(signature, length, fork)
}

// DraftTruncate returns the head that the log would have when truncated, to be
// signed.
func (c *Core) DraftTruncate(length, fork uint64) (merkle.Head, error) {
	c.log.mu.RLock()
	defer c.log.mu.RUnlock()
	return c.log.cut(length, fork)
}

func (c *Core) truncate(signature []byte, length, fork uint64) error {
	if err := c.checkBlocks("truncate", nil); err != nil {
		return err
	}
	l := c.log
	l.mu.Lock()
	err := l.truncate(c.pair, signature, length, fork)
	l.mu.Unlock()
	if err != nil {
		return cloudpal.E("truncate", "", err)
	}
	l.events.deliver()
	return nil
}

// cut returns the head of a shorter log.
func (l *log) cut(length, fork uint64) (merkle.Head, error) {
	if length > l.head.Length {
		return merkle.Head{}, cloudpal.E("", cloudpal.Invalid, fmt.Errorf("the log has %d blocks, not %d", l.head.Length, length))
	}
	if fork <= l.head.Fork || fork > compact.MaxUint {
		return merkle.Head{}, cloudpal.E("", cloudpal.Invalid, fmt.Errorf("fork %d does not follow on %d", fork, l.head.Fork))
	}
	return merkle.Truncate(l.core, l.head, length, fork)
}

func (l *log) truncate(pair *manifest.KeyPair, signature []byte, length, fork uint64) error {
	h, err := l.cut(length, fork)
	if err != nil {
		return err
	}
	if h.Signature, err = l.sign(pair, signature, h); err != nil {
		return err
	}
	return l.replace(h, nil, length)
}

// replace makes h the head of the log, of which the first common blocks stay;
// nodes are those of h that are not stored.
func (l *log) replace(h merkle.Head, nodes []merkle.Node, common uint64) error {
	b := l.begin()
	if err := l.stageReplace(b, h, nodes, common); err != nil {
		return l.undo(err)
	}
	l.pinSnapshots(common)
	if err := b.Commit(); err != nil {
		return l.undo(err)
	}
	was := l.head.Length
	l.settle(h)
	l.events.add(Event{Kind: Truncated, Start: common, End: max(was, common)})
	if h.Length > common {
		l.events.add(Event{Kind: Upgraded, Start: common, End: h.Length})
	}
	return nil
}

func (l *log) stageReplace(b *storage.Batch, h merkle.Head, nodes []merkle.Node, common uint64) error {
	b.RemoveBlocks(l.core, common, math.MaxUint64)
	if err := b.Trim(l.core, common); err != nil {
		return err
	}
	for _, n := range nodes {
		if err := b.Node(l.core, n); err != nil {
			return err
		}
	}
	if err := l.bits.cut(common); err != nil {
		return err
	}
	l.bits.save(b)
	b.SetHead(l.core, storage.Head{
		Fork: h.Fork, Length: h.Length, Bytes: h.Bytes(), Contiguous: l.bits.contiguous, Signature: h.Signature,
	})
	return nil
}

// Clear removes blocks from start up to end from this store; their place in the
// tree stays, and they can be had from peers again.
func (c *Core) Clear(start, end uint64) error {
	if err := c.check("clear"); err != nil {
		return err
	}
	l := c.log
	l.mu.Lock()
	err := l.clear(start, end)
	l.mu.Unlock()
	if err != nil {
		return cloudpal.E("clear", "", err)
	}
	l.events.deliver()
	return nil
}

func (l *log) clear(start, end uint64) error {
	end = min(end, l.head.Length)
	if start >= end {
		return nil
	}
	b := l.begin()
	if err := l.bits.fill(start, end, false); err != nil {
		return l.undo(err)
	}
	b.RemoveBlocks(l.core, start, end)
	l.bits.save(b)
	h := l.core.Head()
	h.Contiguous = l.bits.contiguous
	b.SetHead(l.core, h)
	if err := b.Commit(); err != nil {
		return l.undo(err)
	}
	l.contiguous.Store(l.bits.contiguous)
	l.events.add(Event{Kind: Cleared, Start: start, End: end})
	return nil
}
