// Package manifest says who may write a hypercore, and checks that they have.
//
// The key of a core is the hash of its Manifest: which public keys sign for it,
// and how many of them must. So a key alone names the writers, and whoever is
// shown a manifest can tell whether it is the core's. Most cores have one
// signer, as Default makes it:
//
//	pair := manifest.NewKeyPair(seed)
//	m := manifest.Default(pair.Public)
//	key := m.Key()
//	head.Signature, err = m.Sign(key, pair, head)
//	err = m.Verify(key, head)
//
// What is signed is the tree hash, the length and the fork of the head (package
// merkle), together with the key, so that a signature is good for no other core.
//
// With many signers, each makes a Partial, and Assemble joins as many as the
// quorum asks for into the signature of the head. Where the manifest allows
// patches, a signer who has signed a longer log need not sign again for a
// shorter one: the Partial takes along the nodes that lead from one to the
// other.
//
//	a, err := m.Partial(key, annsPair, head)
//	b, err := m.Partial(key, bobsPair, longer)
//	b, err = b.Shorten(nodes, head.Length)
//	head.Signature, err = m.Assemble(a, b)
//
// A Prologue is a start of the log that the manifest fixes by its tree hash. A
// core without signers, all of which is its prologue, is static: nobody can
// ever write it again.
//
// Compat cores are those of earlier versions of hypercore. Their key is the
// public key of their only signer, whose signature does not cover the key, and
// they need no manifest. Manifests of version 0 were in use for a short time;
// they are read, checked and written as well. Signatures without any namespace,
// of the oldest cores, are not.
package manifest

import (
	"errors"
	"fmt"

	"golang.org/x/crypto/blake2b"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/compact"
	"github.com/tradle/cloudpal/data/merkle"
)

// What a manifest may have at most, so that checking a stranger's takes little
// time. The other implementation has no such limits but that of a message.
const (
	MaxSigners  = 1 << 10
	MaxLinked   = 1 << 12
	MaxUserData = 1 << 20 // bytes
	maxVersion  = 3
)

// A Signer is one who may sign. Version 0 puts the namespace into what is
// signed; later versions the key of the core, and the namespace only makes for
// another key.
type Signer struct {
	Namespace [32]byte
	PublicKey [32]byte
}

// A Manifest says who may write a core. Changed in any way, it is that of
// another core. The zero Manifest is of version 0, which is not what a new core
// should have: see New.
type Manifest struct {
	Version    uint64 // 0 to 3
	Quorum     uint64 // how many signers must sign; 0 if nobody can
	AllowPatch bool   // signatures of longer logs count, too
	Signers    []Signer
	Prologue   *merkle.Prologue // nil for none

	// Of version 2 and later; nil for none, which is not the same as empty.
	Linked   [][32]byte // the keys of cores that belong to this one
	UserData []byte
}

// Default returns the manifest of a core that one key pair writes: version 1,
// with DefaultNamespace.
func Default(public [32]byte) Manifest { return New(Signer{PublicKey: public}) }

// New returns a manifest of version 1 with these signers, more than half of
// whom must sign. The namespace of one that has none is DefaultNamespace.
func New(signers ...Signer) Manifest {
	m := Manifest{Version: 1, Signers: make([]Signer, len(signers))}
	copy(m.Signers, signers)
	for i := range m.Signers {
		if m.Signers[i].Namespace == ([32]byte{}) {
			m.Signers[i].Namespace = DefaultNamespace
		}
	}
	if len(signers) > 0 {
		m.Quorum = uint64(len(signers)/2 + 1)
	}
	return m
}

// Static returns the manifest of a core that consists of its prologue and can
// never be written.
func Static(prologue merkle.Prologue) Manifest {
	return Manifest{Version: 1, Prologue: &prologue}
}

// Check returns an error of cloudpal.Invalid where no core should be made with
// this manifest: none could be read by others, or none could be written.
func (m Manifest) Check() error {
	var trouble string
	switch {
	case m.Version > maxVersion:
		trouble = "its version is not known"
	case len(m.Signers) > MaxSigners || len(m.Linked) > MaxLinked || len(m.UserData) > MaxUserData:
		trouble = "it is too large"
	case m.Quorum > uint64(len(m.Signers)):
		trouble = "more must sign than can"
	case m.Version < 2 && (m.Linked != nil || m.UserData != nil):
		trouble = "linked cores and user data need version 2"
	case m.Quorum == 0 && m.Prologue == nil:
		trouble = "nobody can sign, and nothing is fixed"
	case m.Version == 0 && m.Prologue != nil && (len(m.Signers) > 0 || m.Prologue.Length != 0):
		trouble = "version 0 has a prologue without a length, or signers"
	default:
		return nil
	}
	return cloudpal.E("check a manifest", cloudpal.Invalid, errors.New(trouble))
}

// Key returns the key of the core that has this manifest, unless it is a
// compat core.
func (m Manifest) Key() Key {
	return hash(manifestNamespace[:], m.Append(nil))
}

// Compat reports whether the core with this key and manifest is a compat core.
func (m Manifest) Compat(key Key) bool {
	return len(m.Signers) == 1 && m.Signers[0].PublicKey == key
}

// Belongs returns nil where the manifest is that of the core with this key, or
// else an error of cloudpal.Denied. A stranger's manifest must not be used for
// anything before. No manifest that is sent is a compat core's: whether a core
// is one shows in the first signature, which Default(key) then verifies.
func (m Manifest) Belongs(key Key) error {
	if m.Key() == key {
		return nil
	}
	return cloudpal.E("check a manifest", cloudpal.Denied, errors.New("it is of another core"))
}

// What the flags of an encoded manifest say.
const (
	flagPatch = 1 << iota
	flagPrologue
	flagLinked
	flagUserData
)

// Types of an encoded manifest of version 0.
const (
	typeStatic = iota
	typeSingle
	typeMulti
)

// The only hash and the only signature scheme that there are.
const (
	blake2bHash      = 0
	ed25519Signature = 0
)

// Append appends the encoded manifest.
func (m Manifest) Append(b []byte) []byte {
	b = compact.AppendUint(b, m.Version)
	if m.Version == 0 {
		return m.appendV0(b)
	}
	b = compact.AppendUint(b, m.flags())
	b = compact.AppendUint(b, blake2bHash)
	b = compact.AppendUint(b, m.Quorum)
	b = appendSigners(b, m.Signers)
	if m.Prologue != nil {
		b = append(b, m.Prologue.Hash[:]...)
		b = compact.AppendUint(b, m.Prologue.Length)
	}
	if m.Linked != nil {
		b = compact.AppendUint(b, uint64(len(m.Linked)))
		for _, key := range m.Linked {
			b = append(b, key[:]...)
		}
	}
	if m.UserData != nil {
		b = compact.AppendBuffer(b, m.UserData)
	}
	return b
}

func (m Manifest) flags() (flags uint64) {
	if m.AllowPatch {
		flags |= flagPatch
	}
	if m.Prologue != nil {
		flags |= flagPrologue
	}
	if m.Linked != nil {
		flags |= flagLinked
	}
	if m.UserData != nil {
		flags |= flagUserData
	}
	return flags
}

func (m Manifest) appendV0(b []byte) []byte {
	b = compact.AppendUint(b, blake2bHash)
	switch {
	case m.Prologue != nil && len(m.Signers) == 0:
		return append(compact.AppendUint(b, typeStatic), m.Prologue.Hash[:]...)
	case m.Quorum == 1 && len(m.Signers) == 1 && !m.AllowPatch:
		return appendSigner(compact.AppendUint(b, typeSingle), m.Signers[0])
	}
	b = compact.AppendUint(b, typeMulti)
	b = compact.AppendUint(b, m.flags()&flagPatch)
	b = compact.AppendUint(b, m.Quorum)
	return appendSigners(b, m.Signers)
}

func appendSigners(b []byte, signers []Signer) []byte {
	b = compact.AppendUint(b, uint64(len(signers)))
	for _, s := range signers {
		b = appendSigner(b, s)
	}
	return b
}

func appendSigner(b []byte, s Signer) []byte {
	b = compact.AppendUint(b, ed25519Signature)
	return append(append(b, s.Namespace[:]...), s.PublicKey[:]...)
}

// minSignerLen is the length of an encoded Signer.
const minSignerLen = 1 + 32 + 32

// Decode reads an encoded manifest. What follows it is ignored. The error is
// cloudpal.Invalid. It is not yet known to be that of any core: see Belongs.
func Decode(b []byte) (Manifest, error) {
	d := compact.NewDecoder(b)
	m := decode(&d)
	if err := d.Err(); err != nil {
		return Manifest{}, cloudpal.E("decode a manifest", cloudpal.Invalid, err)
	}
	return m, nil
}

func decode(d *compact.Decoder) (m Manifest) {
	switch m.Version = d.Uint(); {
	case m.Version == 0:
		return decodeV0(d)
	case m.Version > maxVersion:
		d.Fail(unknown("version", m.Version))
		return m
	}
	flags := d.Uint()
	expect(d, "hash", blake2bHash)
	m.AllowPatch = flags&flagPatch != 0
	m.Quorum = d.Uint()
	m.Signers = decodeSigners(d)
	if flags&flagPrologue != 0 {
		m.Prologue = &merkle.Prologue{Hash: d.Fixed32(), Length: d.Uint()}
	}
	if flags&flagLinked != 0 {
		m.Linked = make([][32]byte, d.Count(MaxLinked, 32))
		for i := range m.Linked {
			m.Linked[i] = d.Fixed32()
		}
	}
	if flags&flagUserData != 0 {
		m.UserData = append([]byte{}, d.Buffer()...)
		if len(m.UserData) > MaxUserData {
			d.Fail(compact.ErrLarge)
		}
	}
	return m
}

func decodeV0(d *compact.Decoder) (m Manifest) {
	expect(d, "hash", blake2bHash)
	switch kind := d.Uint(); kind {
	case typeStatic:
		m.Prologue = &merkle.Prologue{Hash: d.Fixed32()}
	case typeSingle:
		m.Quorum = 1
		m.Signers = []Signer{decodeSigner(d)}
	case typeMulti:
		m.AllowPatch = d.Uint()&flagPatch != 0
		m.Quorum = d.Uint()
		m.Signers = decodeSigners(d)
	default:
		d.Fail(unknown("type", kind))
	}
	return m
}

func decodeSigners(d *compact.Decoder) []Signer {
	signers := make([]Signer, d.Count(MaxSigners, minSignerLen))
	for i := range signers {
		signers[i] = decodeSigner(d)
	}
	return signers
}

func decodeSigner(d *compact.Decoder) Signer {
	expect(d, "signature", ed25519Signature)
	return Signer{Namespace: d.Fixed32(), PublicKey: d.Fixed32()}
}

// expect reads a number of which only one is known.
func expect(d *compact.Decoder, what string, want uint64) {
	if got := d.Uint(); got != want {
		d.Fail(unknown(what, got))
	}
}

func unknown(what string, n uint64) error {
	return fmt.Errorf("%s %d is not known", what, n)
}

// hash is BLAKE2b over all parts, one after the other.
func hash(parts ...[]byte) (sum [32]byte) {
	var all []byte
	for _, p := range parts {
		all = append(all, p...)
	}
	return blake2b.Sum256(all)
}
