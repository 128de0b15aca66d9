package manifest

import (
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/compact"
	"github.com/tradle/cloudpal/data/flat"
	"github.com/tradle/cloudpal/data/merkle"
)

// ErrSignature says that a head is not signed by those who must; it is
// cloudpal.Denied.
var ErrSignature error = cloudpal.E("verify a signature", cloudpal.Denied, errors.New("it is not the writer's"))

// A Partial is what one signer adds to a signature.
type Partial struct {
	Signer    uint64 // which of the manifest's signers, from 0
	Signature [ed25519.SignatureSize]byte
	Patch     uint64        // how many blocks longer the log was that they signed
	Nodes     []merkle.Node // what grows the shorter tree to the longer one; only with Patch
}

// Signable returns what a signer signs of a head: its tree hash, length and
// fork, for this core. Only version 0 has something else for each signer.
func (m Manifest) Signable(key Key, signer int, h merkle.Head) []byte {
	b := make([]byte, 0, 112)
	b = append(b, treeNamespace[:]...)
	switch {
	case m.Compat(key):
	case m.Version == 0:
		b = append(b, m.Signers[signer].Namespace[:]...)
	default:
		b = append(b, key[:]...)
	}
	sum := h.Hash()
	b = append(b, sum[:]...)
	b = binary.LittleEndian.AppendUint64(b, h.Length)
	return binary.LittleEndian.AppendUint64(b, h.Fork)
}

// Partial signs a head as one of the signers. The error is cloudpal.Denied where
// the key pair is none of them.
func (m Manifest) Partial(key Key, pair KeyPair, h merkle.Head) (Partial, error) {
	const op = "sign a log"
	i := slices.IndexFunc(m.Signers, func(s Signer) bool { return s.PublicKey == pair.Public })
	switch {
	case i < 0:
		return Partial{}, cloudpal.E(op, cloudpal.Denied, errors.New("the key pair is not that of a writer"))
	case !pair.CanSign():
		return Partial{}, cloudpal.E(op, cloudpal.Denied, errors.New("the secret key is not here"))
	}
	signature := ed25519.Sign(*pair.secret.key, m.Signable(key, i, h))
	return Partial{Signer: uint64(i), Signature: [ed25519.SignatureSize]byte(signature)}, nil
}

// Sign signs a head that one signer's signature is enough for, and returns the
// signature as it goes into the head. With more signers it is for Partial and
// Assemble. The error is cloudpal.Denied where the key pair is not the signer's,
// or not enough.
func (m Manifest) Sign(key Key, pair KeyPair, h merkle.Head) ([]byte, error) {
	switch {
	case m.Compat(key):
	case m.Quorum == 0:
		return nil, cloudpal.E("sign a log", cloudpal.Denied, errors.New("nobody can write it"))
	case m.Quorum > 1:
		return nil, cloudpal.E("sign a log", cloudpal.Denied, errors.New("one signature is not enough")).
			WithHint("Let the other writers sign it, too.")
	}
	p, err := m.Partial(key, pair, h)
	if err != nil {
		return nil, err
	}
	if m.bare(key) {
		return p.Signature[:], nil
	}
	return m.Assemble(p)
}

// bare reports whether the signature of a head is that of its signer, and
// nothing else.
func (m Manifest) bare(key Key) bool {
	return m.Compat(key) || m.Version == 0 && len(m.Signers) == 1 && !m.AllowPatch
}

// Shorten makes a signature of a longer log one of its first length blocks. The
// nodes are those of the signed log. The error is cloudpal.Invalid where p has
// been shortened before or is for fewer blocks, or that of merkle.Prove.
func (p Partial) Shorten(nodes merkle.Reader, signed, length uint64) (Partial, error) {
	if p.Patch != 0 || signed < length {
		return Partial{}, cloudpal.E("shorten a signature", cloudpal.Invalid, nil)
	}
	if signed == length {
		return p, nil
	}
	for _, i := range merkle.AppendUpgrade(nil, length, signed) {
		n, ok, err := nodes.Node(i)
		if err == nil && !ok {
			err = cloudpal.E(fmt.Sprint("read node ", i), cloudpal.NotExist, nil)
		}
		if err != nil {
			return Partial{}, err
		}
		p.Nodes = append(p.Nodes, n)
	}
	p.Patch = signed - length
	return p, nil
}

// CommonLength returns the largest length that as many signers as the quorum
// have signed, given the lengths that all of them have; 0 where there is none.
func CommonLength(lengths []uint64, quorum uint64) uint64 {
	quorum = max(quorum, 1)
	if quorum > uint64(len(lengths)) {
		return 0
	}
	sorted := slices.Sorted(slices.Values(lengths))
	return sorted[uint64(len(sorted))-quorum]
}

// Assemble joins the signatures of as many signers as the quorum asks for into
// the signature of one head. The error is cloudpal.Invalid where there are too
// few, or two of one signer.
func (m Manifest) Assemble(partials ...Partial) ([]byte, error) {
	seen := map[uint64]bool{}
	for _, p := range partials {
		if p.Signer >= uint64(len(m.Signers)) || seen[p.Signer] || p.Patch != 0 && !m.AllowPatch {
			return nil, cloudpal.E("join signatures", cloudpal.Invalid, fmt.Errorf("that of signer %d does not fit", p.Signer))
		}
		seen[p.Signer] = true
	}
	if uint64(len(partials)) < m.Quorum {
		return nil, cloudpal.E("join signatures", cloudpal.Invalid, fmt.Errorf("%d of %d signers have signed", len(partials), m.Quorum))
	}
	if m.Version == 0 {
		return assembleV0(partials), nil
	}
	return assemble(partials), nil
}

func assemble(partials []Partial) []byte {
	var nodes []merkle.Node
	b := compact.AppendUint(nil, uint64(len(partials)))
	for _, p := range partials {
		b = compact.AppendUint(b, p.Signer)
		b = append(b, p.Signature[:]...)
		b = compact.AppendUint(b, p.Patch)
		for _, n := range p.Nodes {
			if !slices.ContainsFunc(nodes, func(m merkle.Node) bool { return m.Index == n.Index }) {
				nodes = append(nodes, n)
			}
		}
	}
	return merkle.AppendNodes(b, nodes)
}

// assembleV0 writes patches as version 0 has them: with the positions of their
// nodes in the common list.
func assembleV0(partials []Partial) []byte {
	var nodes []merkle.Node
	b := compact.AppendUint(nil, uint64(len(partials)))
	for _, p := range partials {
		b = compact.AppendUint(b, min(p.Patch, 1)) // flags
		b = compact.AppendUint(b, p.Signer)
		b = append(b, p.Signature[:]...)
		if p.Patch == 0 {
			continue
		}
		_, last := flat.Span(p.Nodes[len(p.Nodes)-1].Index)
		b = compact.AppendUint(b, last/2+1) // "start", which nobody reads
		b = compact.AppendUint(b, p.Patch)
		b = compact.AppendUint(b, uint64(len(p.Nodes)))
		for _, n := range p.Nodes {
			at := slices.Index(nodes, n)
			if at < 0 {
				at, nodes = len(nodes), append(nodes, n)
			}
			b = compact.AppendUint(b, uint64(at))
		}
	}
	return merkle.AppendNodes(b, nodes)
}

// maxPatchNodes is how many nodes a signature may have for all its patches.
const maxPatchNodes = MaxSigners * 16

// decodeSignature reads what assemble has written.
func decodeSignature(signature []byte, version uint64) (partials []Partial, nodes []merkle.Node, err error) {
	d := compact.NewDecoder(signature)
	partials = make([]Partial, d.Count(MaxSigners, 1+ed25519.SignatureSize))
	for i := range partials {
		if version == 0 {
			partials[i] = decodePartialV0(&d)
			continue
		}
		partials[i] = Partial{Signer: d.Uint(), Signature: decodeSum(&d), Patch: d.Uint()}
	}
	return partials, merkle.DecodeNodes(&d, maxPatchNodes), d.Err()
}

func decodePartialV0(d *compact.Decoder) Partial {
	flags := d.Uint()
	p := Partial{Signer: d.Uint(), Signature: decodeSum(d)}
	if flags&1 != 0 {
		d.Uint() // start
		p.Patch = d.Uint()
		for range d.Count(maxPatchNodes, 1) {
			d.Uint() // nodes are found by their index
		}
	}
	return p
}

func decodeSum(d *compact.Decoder) (s [ed25519.SignatureSize]byte) {
	copy(s[:], d.Take(len(s)))
	return s
}

// Verify returns nil where the signature of a head is that of the signers who
// must have signed it, or else ErrSignature. The manifest must be that of the
// core, see Belongs.
//
// As in the other implementation, only the first Quorum signatures are looked
// at, and blocks of the prologue need none.
func (m Manifest) Verify(key Key, h merkle.Head) error {
	var good bool
	switch {
	case m.bare(key):
		good = m.verifyOne(key, 0, h, h.Signature)
	case m.Version > 0 && m.Prologue != nil && h.Length <= m.Prologue.Length:
		good = h.Length == m.Prologue.Length && h.Hash() == m.Prologue.Hash
	default:
		good = m.verifyQuorum(key, h)
	}
	if !good {
		return ErrSignature
	}
	return nil
}

func (m Manifest) verifyQuorum(key Key, h merkle.Head) bool {
	partials, nodes, err := decodeSignature(h.Signature, m.Version)
	if err != nil || m.Quorum == 0 || m.Quorum > uint64(len(partials)) {
		return false
	}
	known := merkle.Nodes{}
	known.Add(nodes...)
	seen := map[uint64]bool{}
	for _, p := range partials[:m.Quorum] {
		if p.Signer >= uint64(len(m.Signers)) || seen[p.Signer] {
			return false
		}
		seen[p.Signer] = true
		signed, ok := h, true
		if p.Patch != 0 && m.AllowPatch {
			signed, ok = lengthen(h, p.Patch, known)
		}
		if !ok || !m.verifyOne(key, int(p.Signer), signed, p.Signature[:]) {
			return false
		}
	}
	return true
}

// lengthen returns the head that a signer has signed who had more blocks.
func lengthen(h merkle.Head, blocks uint64, nodes merkle.Nodes) (merkle.Head, bool) {
	if blocks > merkle.MaxLength || h.Length > merkle.MaxLength-blocks {
		return merkle.Head{}, false
	}
	var b merkle.Batch
	b.Reset(h)
	for _, i := range merkle.AppendUpgrade(nil, h.Length, h.Length+blocks) {
		if n, ok := nodes[i]; !ok || b.AppendNode(n) != nil {
			return merkle.Head{}, false
		}
	}
	return b.Head(), true
}

func (m Manifest) verifyOne(key Key, signer int, h merkle.Head, signature []byte) bool {
	public := m.Signers[signer].PublicKey
	return verify(public, m.Signable(key, signer, h), signature)
}
