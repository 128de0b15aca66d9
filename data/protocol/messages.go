package protocol

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	"github.com/tradle/cloudpal/data/compact"
	"github.com/tradle/cloudpal/data/merkle"
)

// The message types of a hypercore channel.
const (
	typeSync = iota
	typeRequest
	typeCancel
	typeData
	typeNoData
	typeWant
	typeUnwant
	typeBitfield
	typeRange
	typeExtension
)

// Limits on what a peer may send. All are above what an honest one needs: a
// tree of 2^53 blocks is 53 levels high.
const (
	maxNodes     = 256      // in one list of a proof
	maxSignature = 64 << 10 // bytes; a signature of many signers with patches
	maxManifest  = 1 << 20  // bytes
	maxWords     = 1 << 16  // in one bitfield message: 2^21 blocks
	maxName      = 1 << 10  // bytes of an extension's name
	maxReach     = compact.MaxUint
)

var (
	errTooLong = errors.New("a field is longer than allowed")
	errReach   = errors.New("a range ends beyond 2^53")
)

// A handshake rides on the opening of a channel.
type handshake struct {
	seeks      bool     // answers to seeks are understood
	capability [32]byte // proves that the sender knows the core's key
}

func (h handshake) append(b []byte) []byte {
	return append(appendFlags(b, h.seeks), h.capability[:]...)
}

func decodeHandshake(b []byte) (h handshake, err error) {
	d := compact.NewDecoder(b)
	h.seeks = d.Uint()&1 != 0
	h.capability = d.Fixed32()
	return h, d.Err()
}

// A syncState is what one side is and knows of the other's length.
type syncState struct {
	fork         uint64
	length       uint64
	remoteLength uint64 // what the sender knows the receiver's length to be
	canUpgrade   bool   // the sender can prove its length from the receiver's
	uploading    bool
	downloading  bool
	hasManifest  bool
	allowPush    bool
}

func (s syncState) append(b []byte) []byte {
	b = appendFlags(b, s.canUpgrade, s.uploading, s.downloading, s.hasManifest, s.allowPush)
	b = compact.AppendUint(b, s.fork)
	b = compact.AppendUint(b, s.length)
	return compact.AppendUint(b, s.remoteLength)
}

func decodeSync(b []byte) (s syncState, err error) {
	d := compact.NewDecoder(b)
	flags := d.Uint()
	s.canUpgrade, s.uploading, s.downloading = flags&1 != 0, flags&2 != 0, flags&4 != 0
	s.hasManifest, s.allowPush = flags&8 != 0, flags&16 != 0
	s.fork, s.length, s.remoteLength = d.Uint(), d.Uint(), d.Uint()
	return s, d.Err()
}

// The parts that a request or an answer has.
const (
	partBlock = 1 << iota
	partHash
	partSeek
	partUpgrade
	partManifest
	partPriority // of a request only
)

// A request is a merkle.Request as plain values, so that many can wait in a
// queue without a heap object for each.
type request struct {
	parts    uint64
	id       uint64
	fork     uint64
	block    merkle.NodeRequest
	hash     merkle.NodeRequest
	seek     merkle.SeekRequest
	upgrade  merkle.UpgradeRequest
	priority uint64
}

func (r *request) has(part uint64) bool { return r.parts&part != 0 }

// tree returns r for merkle; it points into r.
func (r *request) tree() merkle.Request {
	m := merkle.Request{ID: r.id, Fork: r.fork, Manifest: r.has(partManifest), Priority: r.priority}
	if r.has(partBlock) {
		m.Block = &r.block
	}
	if r.has(partHash) {
		m.Hash = &r.hash
	}
	if r.has(partSeek) {
		m.Seek = &r.seek
	}
	if r.has(partUpgrade) {
		m.Upgrade = &r.upgrade
	}
	return m
}

func (r *request) append(b []byte) []byte {
	parts := r.parts &^ partPriority
	if r.priority != 0 {
		parts |= partPriority
	}
	b = compact.AppendUint(b, parts)
	b = compact.AppendUint(b, r.id)
	b = compact.AppendUint(b, r.fork)
	if r.has(partBlock) {
		b = appendPair(b, r.block.Index, r.block.Nodes)
	}
	if r.has(partHash) {
		b = appendPair(b, r.hash.Index, r.hash.Nodes)
	}
	if r.has(partSeek) {
		b = appendPair(b, r.seek.Bytes, r.seek.Padding)
	}
	if r.has(partUpgrade) {
		b = appendPair(b, r.upgrade.Start, r.upgrade.Length)
	}
	if r.priority != 0 {
		b = compact.AppendUint(b, r.priority)
	}
	return b
}

func decodeRequest(b []byte) (r request, err error) {
	d := compact.NewDecoder(b)
	r.parts, r.id, r.fork = d.Uint(), d.Uint(), d.Uint()
	if r.has(partBlock) {
		r.block.Index, r.block.Nodes = d.Uint(), d.Uint()
	}
	if r.has(partHash) {
		r.hash.Index, r.hash.Nodes = d.Uint(), d.Uint()
	}
	if r.has(partSeek) {
		r.seek.Bytes, r.seek.Padding = d.Uint(), d.Uint()
	}
	if r.has(partUpgrade) {
		r.upgrade.Start, r.upgrade.Length = d.Uint(), d.Uint()
		if r.upgrade.Length > maxReach-r.upgrade.Start {
			d.Fail(errReach)
		}
	}
	if r.has(partPriority) {
		r.priority = d.Uint()
	}
	return r, d.Err()
}

// An answer is room for a merkle.Proof, used again and again.
type answer struct {
	proof   merkle.Proof
	block   merkle.BlockProof
	hash    merkle.HashProof
	seek    merkle.SeekProof
	upgrade merkle.UpgradeProof
}

// decode reads a data message into a. Values and signature are parts of b, and
// the nodes are appended to slab, which is returned.
func (a *answer) decode(b []byte, slab []merkle.Node) ([]merkle.Node, error) {
	d := compact.NewDecoder(b)
	parts := d.Uint()
	a.proof = merkle.Proof{ID: d.Uint(), Fork: d.Uint()}
	if parts&partBlock != 0 {
		a.block.Index, a.block.Value = d.Uint(), d.Buffer()
		a.block.Nodes, slab = decodeNodes(&d, slab)
		a.proof.Block = &a.block
	}
	if parts&partHash != 0 {
		a.hash.Index = d.Uint()
		a.hash.Nodes, slab = decodeNodes(&d, slab)
		a.proof.Hash = &a.hash
	}
	if parts&partSeek != 0 {
		a.seek.Bytes = d.Uint()
		a.seek.Nodes, slab = decodeNodes(&d, slab)
		a.proof.Seek = &a.seek
	}
	if parts&partUpgrade != 0 {
		slab = a.decodeUpgrade(&d, slab)
		a.proof.Upgrade = &a.upgrade
	}
	if parts&partManifest != 0 {
		if a.proof.Manifest = d.Rest(); len(a.proof.Manifest) > maxManifest {
			d.Fail(errTooLong)
		}
	}
	return slab, d.Err()
}

func (a *answer) decodeUpgrade(d *compact.Decoder, slab []merkle.Node) []merkle.Node {
	u := &a.upgrade
	u.Start, u.Length = d.Uint(), d.Uint()
	if u.Length > maxReach-u.Start {
		d.Fail(errReach)
	}
	u.Nodes, slab = decodeNodes(d, slab)
	u.Additional, slab = decodeNodes(d, slab)
	if u.Signature = d.Buffer(); len(u.Signature) > maxSignature {
		d.Fail(errTooLong)
	}
	return slab
}

// size is how many bytes a clone has, about.
func (a *answer) size() (n int) {
	p := &a.proof
	if p.Block != nil {
		n += len(p.Block.Value) + 48*len(p.Block.Nodes)
	}
	if p.Hash != nil {
		n += 48 * len(p.Hash.Nodes)
	}
	if p.Seek != nil {
		n += 48 * len(p.Seek.Nodes)
	}
	if p.Upgrade != nil {
		n += 48*(len(p.Upgrade.Nodes)+len(p.Upgrade.Additional)) + len(p.Upgrade.Signature)
	}
	return n + len(p.Manifest) + 512
}

// clone copies a with all that it points to.
func (a *answer) clone() *answer {
	c := &answer{proof: a.proof}
	p := &c.proof
	p.Manifest = bytes.Clone(p.Manifest)
	if b := p.Block; b != nil {
		c.block = merkle.BlockProof{Index: b.Index, Value: bytes.Clone(b.Value), Nodes: slices.Clone(b.Nodes)}
		p.Block = &c.block
	}
	if h := p.Hash; h != nil {
		c.hash = merkle.HashProof{Index: h.Index, Nodes: slices.Clone(h.Nodes)}
		p.Hash = &c.hash
	}
	if s := p.Seek; s != nil {
		c.seek = merkle.SeekProof{Bytes: s.Bytes, Nodes: slices.Clone(s.Nodes)}
		p.Seek = &c.seek
	}
	if u := p.Upgrade; u != nil {
		c.upgrade = merkle.UpgradeProof{
			Start: u.Start, Length: u.Length,
			Nodes: slices.Clone(u.Nodes), Additional: slices.Clone(u.Additional), Signature: bytes.Clone(u.Signature),
		}
		p.Upgrade = &c.upgrade
	}
	return c
}

// decodeNodes reads a list of nodes to the end of slab.
func decodeNodes(d *compact.Decoder, slab []merkle.Node) (nodes, grown []merkle.Node) {
	first := len(slab)
	for range d.Count(maxNodes, 34) {
		slab = append(slab, merkle.Node{Index: d.Uint(), Size: d.Uint(), Hash: d.Fixed32()})
	}
	return slab[first:len(slab):len(slab)], slab
}

// appendProof appends p as a data message.
func appendProof(b []byte, p *merkle.Proof) []byte {
	b = appendHead(b, p)
	if p.Block != nil {
		b = append(b, p.Block.Value...)
	}
	return appendRest(b, p)
}

// appendHead appends what comes before a block's value, appendRest what comes
// after it.
func appendHead(b []byte, p *merkle.Proof) []byte {
	b = appendFlags(b, p.Block != nil, p.Hash != nil, p.Seek != nil, p.Upgrade != nil, p.Manifest != nil)
	b = compact.AppendUint(b, p.ID)
	b = compact.AppendUint(b, p.Fork)
	if p.Block != nil {
		b = appendPair(b, p.Block.Index, uint64(len(p.Block.Value)))
	}
	return b
}

func appendRest(b []byte, p *merkle.Proof) []byte {
	if p.Block != nil {
		b = appendNodes(b, p.Block.Nodes)
	}
	if p.Hash != nil {
		b = compact.AppendUint(b, p.Hash.Index)
		b = appendNodes(b, p.Hash.Nodes)
	}
	if p.Seek != nil {
		b = compact.AppendUint(b, p.Seek.Bytes)
		b = appendNodes(b, p.Seek.Nodes)
	}
	if p.Upgrade != nil {
		b = appendPair(b, p.Upgrade.Start, p.Upgrade.Length)
		b = appendNodes(b, p.Upgrade.Nodes)
		b = appendNodes(b, p.Upgrade.Additional)
		b = compact.AppendBuffer(b, p.Upgrade.Signature)
	}
	return append(b, p.Manifest...)
}

func appendNodes(b []byte, nodes []merkle.Node) []byte {
	b = compact.AppendUint(b, uint64(len(nodes)))
	for i := range nodes {
		b = appendPair(b, nodes[i].Index, nodes[i].Size)
		b = append(b, nodes[i].Hash[:]...)
	}
	return b
}

// Why a request is not answered.
const (
	notAvailable   = 1 // the block is not here, or the fork is another
	invalidRequest = 2 // no proof of that kind exists
)

// A refusal is the answer to a request that gets no data.
type refusal struct {
	id     uint64
	reason uint64 // 0 where none is given
}

func (n refusal) append(b []byte) []byte {
	b = appendFlags(compact.AppendUint(b, n.id), n.reason != 0)
	if n.reason != 0 {
		b = compact.AppendUint(b, n.reason)
	}
	return b
}

func decodeRefusal(b []byte) (n refusal, err error) {
	d := compact.NewDecoder(b)
	n.id = d.Uint()
	if d.Len() > 0 && d.Uint()&1 != 0 {
		n.reason = d.Uint()
	}
	return n, d.Err()
}

func decodeCancel(b []byte) (id uint64, err error) {
	d := compact.NewDecoder(b)
	id = d.Uint()
	return id, d.Err()
}

// A want asks which blocks of an interval the other has, or withdraws that.
type want struct {
	start, length uint64
	any           bool // one block is enough to know
}

func (w want) append(b []byte) []byte {
	b = appendPair(b, w.start, w.length)
	if w.any {
		b = append(b, 1)
	}
	return b
}

func decodeWant(b []byte) (w want, err error) {
	d := compact.NewDecoder(b)
	w.start, w.length = d.Uint(), d.Uint()
	if d.Len() > 0 {
		w.any = d.Uint()&1 != 0
	}
	if w.length > maxReach-w.start {
		d.Fail(errReach)
	}
	return w, d.Err()
}

// A bitfield tells which blocks of an interval the sender has.
type bitfield struct {
	start uint64 // a multiple of 32
	words []byte // of 4 bytes, little endian; block start+n is bit n
}

func appendBitfield(b []byte, start uint64, words []uint32) []byte {
	return compact.AppendUint32Array(compact.AppendUint(b, start), words)
}

func decodeBitfield(b []byte) (f bitfield, err error) {
	d := compact.NewDecoder(b)
	f.start = d.Uint()
	f.words = d.Take(4 * d.Count(maxWords, 4))
	if f.start%32 != 0 {
		d.Fail(fmt.Errorf("a bitfield starts at %d, which is no multiple of 32", f.start))
	}
	if uint64(len(f.words))*8 > maxReach-f.start {
		d.Fail(errReach)
	}
	return f, d.Err()
}

// A span tells that the sender has, or has dropped, all blocks of an interval.
type span struct {
	start, length uint64
	drop          bool
}

func (s span) append(b []byte) []byte {
	b = compact.AppendUint(appendFlags(b, s.drop, s.length == 1), s.start)
	if s.length != 1 {
		b = compact.AppendUint(b, s.length)
	}
	return b
}

func decodeSpan(b []byte) (s span, err error) {
	d := compact.NewDecoder(b)
	flags := d.Uint()
	s.drop, s.start, s.length = flags&1 != 0, d.Uint(), 1
	if flags&2 == 0 {
		s.length = d.Uint()
	}
	if s.length > maxReach-s.start {
		d.Fail(errReach)
	}
	return s, d.Err()
}

// An extension carries an application's message. No name means that of the
// message before.
type extension struct {
	name    []byte
	message []byte
}

func (e extension) append(b []byte) []byte {
	return append(compact.AppendBuffer(b, e.name), e.message...)
}

func decodeExtension(b []byte) (e extension, err error) {
	d := compact.NewDecoder(b)
	if e.name = d.Buffer(); len(e.name) > maxName {
		d.Fail(errTooLong)
	}
	e.message = d.Rest()
	return e, d.Err()
}

func appendPair(b []byte, n, m uint64) []byte {
	return compact.AppendUint(compact.AppendUint(b, n), m)
}

// appendFlags appends a byte of which bit i is flags[i].
func appendFlags(b []byte, flags ...bool) []byte {
	var n byte
	for i, set := range flags {
		if set {
			n |= 1 << i
		}
	}
	return append(b, n)
}
