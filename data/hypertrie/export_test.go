package hypertrie

import "strings"

// Colliding makes a trie whose hash of a part is its last letter's, or one of
// four at least.
func Colliding(t *Trie) *Trie {
	t.shared.hash = func(part string) (h [8]byte) {
		for i := range h {
			if part != "" {
				h[i] = part[len(part)-1] & 3
			}
		}
		return h
	}
	return t
}

// DecodeNode decodes and encodes a block. It returns nil for an emptied trie, and for a
// key that none here writes: it keeps a slash at its start, and loses that the next time.
func DecodeNode(raw []byte, seq uint64) ([]byte, error) {
	n, err := decodeNode(raw, seq, hash)
	if err != nil || n == nil || strings.HasPrefix(n.key, "/") {
		return nil, err
	}
	return n.encode(), nil
}
