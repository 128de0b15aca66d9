package signing

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

// A question and an answer are frames: a length of 4 bytes, big-endian, and so
// many bytes, of which the first says what it is.
//
//	generate   class(1) denomination(4) epoch(4)    -> key
//	public                                          -> key...
//	sign       key id(32) blinded(256)...           -> signature(256)...
//	drop       epoch(4)                             ->
//
// where a key is class(1) denomination(4) epoch(4) length(2) and a
// SubjectPublicKeyInfo. An answer that begins with failed is a cloudpal.Kind.
const (
	generate byte = 1
	public   byte = 2
	sign     byte = 3
	drop     byte = 4

	done   byte = 0
	failed byte = 1
)

// maxFrame bounds a frame: the largest is a full batch to sign.
const maxFrame = 1 + 32 + MaxBatch*ticket.BlindSize

// keySize is that of a key in a frame, but for its SubjectPublicKeyInfo, which has
// at most maxPublic bytes.
const (
	keySize   = 1 + 4 + 4 + 2
	maxPublic = 512
)

var errFrame = errors.New("what came is none of this protocol's")

// writeFrame writes one frame at once.
func writeFrame(w io.Writer, kind byte, body []byte) error {
	if len(body) >= maxFrame {
		return cloudpal.E("", cloudpal.Invalid, fmt.Errorf("a message of %d bytes; %d are the most", len(body), maxFrame-1))
	}
	b := make([]byte, 0, 5+len(body))
	b = binary.BigEndian.AppendUint32(b, uint32(1+len(body)))
	_, err := w.Write(append(append(b, kind), body...))
	return err
}

// readFrame reads one frame. It returns io.EOF where there is none any more. What
// a stranger says of a length is believed up to maxFrame.
func readFrame(r io.Reader) (kind byte, body []byte, err error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > maxFrame {
		return 0, nil, errFrame
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		return 0, nil, io.ErrUnexpectedEOF
	}
	return b[0], b[1:], nil
}

// A keyName says which key.
type keyName struct {
	class        ticket.Class
	denomination ticket.Denomination
	epoch        ticket.Epoch
}

func appendName(b []byte, n keyName) []byte {
	b = append(b, byte(n.class))
	b = binary.BigEndian.AppendUint32(b, uint32(n.denomination))
	return binary.BigEndian.AppendUint32(b, uint32(n.epoch))
}

// parseName reads a name, and leaves what follows.
func parseName(b []byte) (n keyName, rest []byte, err error) {
	if len(b) < 9 {
		return n, nil, errFrame
	}
	n.class = ticket.Class(b[0])
	n.denomination = ticket.Denomination(binary.BigEndian.Uint32(b[1:]))
	n.epoch = ticket.Epoch(binary.BigEndian.Uint32(b[5:]))
	return n, b[9:], nil
}

func appendKey(b []byte, k *ticket.Key) []byte {
	der := k.Public()
	b = appendName(b, keyName{k.Class, k.Denomination, k.Epoch})
	b = binary.BigEndian.AppendUint16(b, uint16(len(der)))
	return append(b, der...)
}

// parseKeys reads keys up to the end.
func parseKeys(b []byte) (keys []*ticket.Key, err error) {
	for len(b) > 0 {
		n, rest, err := parseName(b)
		if err != nil || len(rest) < 2 || len(keys) == MaxKeys {
			return nil, errFrame
		}
		size := int(binary.BigEndian.Uint16(rest))
		if size > maxPublic || len(rest)-2 < size {
			return nil, errFrame
		}
		k, err := ticket.ParseKey(n.class, n.denomination, n.epoch, rest[2:2+size])
		if err != nil {
			return nil, err
		}
		keys, b = append(keys, k), rest[2+size:]
	}
	return keys, nil
}

// parseSign reads what is to be signed. The messages are parts of b.
func parseSign(b []byte) (id ticket.KeyID, blinded [][]byte, err error) {
	if len(b) < len(id) {
		return id, nil, errFrame
	}
	copy(id[:], b)
	blinded, err = parseBlocks(b[len(id):])
	return id, blinded, err
}

// parseBlocks reads blinded messages or signatures up to the end.
func parseBlocks(b []byte) (blocks [][]byte, err error) {
	if len(b)%ticket.BlindSize != 0 || len(b)/ticket.BlindSize > MaxBatch {
		return nil, errFrame
	}
	for len(b) > 0 {
		blocks, b = append(blocks, b[:ticket.BlindSize]), b[ticket.BlindSize:]
	}
	return blocks, nil
}

func appendBlocks(b []byte, blocks [][]byte) ([]byte, error) {
	if len(blocks) > MaxBatch {
		return nil, cloudpal.E("", cloudpal.Invalid, fmt.Errorf("%d at once; %d are the most", len(blocks), MaxBatch))
	}
	for _, block := range blocks {
		if len(block) != ticket.BlindSize {
			return nil, cloudpal.E("", cloudpal.Invalid, fmt.Errorf("one has %d bytes, not %d", len(block), ticket.BlindSize))
		}
		b = append(b, block...)
	}
	return b, nil
}
