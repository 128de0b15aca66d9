package storage

import (
	"errors"

	"github.com/tradle/cloudpal/data/compact"
)

// A Head is where a core stands.
type Head struct {
	Fork       uint64
	Length     uint64 // in blocks
	Bytes      uint64 // of all blocks as they are stored
	Contiguous uint64 // blocks 0 to this are all here; at most Length
	Signature  []byte // over fork, length and tree; empty where Length was never signed
}

// maxSignature is more than a manifest's signers can need: 65,536 bytes.
const maxSignature = 1 << 16

func appendHead(b []byte, h Head) []byte {
	b = compact.AppendUint(b, h.Fork)
	b = compact.AppendUint(b, h.Length)
	b = compact.AppendUint(b, h.Bytes)
	b = compact.AppendUint(b, h.Contiguous)
	return compact.AppendBuffer(b, h.Signature)
}

func decodeHead(b []byte) (h Head, err error) {
	d := compact.NewDecoder(b)
	h = Head{Fork: d.Uint(), Length: d.Uint(), Bytes: d.Uint(), Contiguous: d.Uint(), Signature: d.Buffer()}
	if h.Contiguous > h.Length {
		d.Fail(errors.New("more is here than there is"))
	}
	if len(h.Signature) > maxSignature {
		d.Fail(errors.New("the signature is too long"))
	}
	h.Signature = append([]byte(nil), h.Signature...)
	return h, finish(&d)
}

// An Identity is what a core is, which never changes but for what is learnt:
// a reader may get the manifest from a peer.
type Identity struct {
	Key      [32]byte
	Compat   bool   // the key is the signer's own, and there is no manifest to ask for
	Manifest []byte // encoded; nil where it is not known yet
	Seed     []byte // of the key pair, 32 bytes; nil where the program keeps it elsewhere
}

// String hides the seed.
func (id Identity) String() string { return compact.Z32(id.Key[:]) }

// GoString hides the seed likewise.
func (id Identity) GoString() string { return id.String() }

const (
	compatFlag   = 1 << 0
	manifestFlag = 1 << 1
	seedFlag     = 1 << 2
)

func appendIdentity(b []byte, id Identity) []byte {
	var flags uint64
	if id.Compat {
		flags |= compatFlag
	}
	if id.Manifest != nil {
		flags |= manifestFlag
	}
	if id.Seed != nil {
		flags |= seedFlag
	}
	b = compact.AppendUint(b, flags)
	b = append(b, id.Key[:]...)
	if id.Manifest != nil {
		b = compact.AppendBuffer(b, id.Manifest)
	}
	if id.Seed != nil {
		b = compact.AppendBuffer(b, id.Seed)
	}
	return b
}

func decodeIdentity(b []byte) (id Identity, err error) {
	d := compact.NewDecoder(b)
	flags := d.Uint()
	id.Key = d.Fixed32()
	id.Compat = flags&compatFlag != 0
	if flags&manifestFlag != 0 {
		id.Manifest = append([]byte{}, d.Buffer()...)
	}
	if flags&seedFlag != 0 {
		if id.Seed = append([]byte{}, d.Buffer()...); len(id.Seed) != 32 {
			d.Fail(errors.New("the seed has another length"))
		}
	}
	if flags >= 1<<3 {
		d.Fail(errors.New("it has a part that is not known"))
	}
	return id, finish(&d)
}

// finish says whether a record was read to its end and no further.
func finish(d *compact.Decoder) error {
	if err := d.Err(); err != nil {
		return err
	}
	if d.Len() > 0 {
		return errors.New("the record is too long")
	}
	return nil
}
