package audit

import (
	"bytes"
	"errors"
	"slices"

	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/ticket"
)

// Counted proves that a deposit is among those that a mint counts: an inclusion proof of
// RFC 6962, section 2.1.1. Its center can show it to others, with the counters.
type Counted struct {
	Receipt api.Receipt  `json:"receipt"`
	Epoch   ticket.Epoch `json:"epoch"` // whose counters have it
	Index   uint64       `json:"index"`
	Size    uint64       `json:"size"`
	Path    [][]byte     `json:"path"`
}

// prove proves that a receipt is among the leaves of its hour, if it is.
func prove(r api.Receipt, e ticket.Epoch, leaves [][32]byte) (Counted, bool) {
	i := slices.Index(leaves, r.Leaf())
	if i < 0 {
		return Counted{}, false
	}
	c := Counted{Receipt: r, Epoch: e, Index: uint64(i), Size: uint64(len(leaves))}
	nodes, err := proof.Inclusion(c.Index, c.Size)
	if err != nil {
		return Counted{}, false
	}
	var hashes [][]byte
	for _, id := range nodes.IDs {
		sum := api.Root(leaves[id.Index<<id.Level : (id.Index+1)<<id.Level])
		hashes = append(hashes, sum[:])
	}
	c.Path, err = nodes.Rehash(hashes, rfc6962.DefaultHasher.HashChildren)
	return c, err == nil
}

// Verify checks the proof against the counters of its epoch. That both, and the receipt,
// are signed by keys that the mint's log has, is for the caller to check.
func (c Counted) Verify(counters api.Counters) error {
	const op = "check that a deposit was counted"
	bad := func(why string) error { return cloudpal.E(op, cloudpal.Denied, errors.New(why)) }
	if counters.Epoch != c.Epoch {
		return bad("the counters are of another epoch")
	}
	var root []byte
	for _, k := range counters.Keys {
		if !bytes.Equal(k.Key, c.Receipt.Key) {
			continue
		}
		for _, h := range k.Hours {
			if h.Hour == api.HourOf(c.Receipt.Credited) {
				root = h.Deposits
			}
		}
	}
	if len(root) == 0 {
		return bad("the counters do not say what was deposited in its hour")
	}
	leaf := c.Receipt.Leaf()
	if err := proof.VerifyInclusion(rfc6962.DefaultHasher, c.Index, c.Size, rfc6962.DefaultHasher.HashLeaf(leaf[:]), c.Path, root); err != nil {
		return cloudpal.E(op, cloudpal.Denied, err)
	}
	return nil
}
