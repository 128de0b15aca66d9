package merkle

import (
	"errors"

	"github.com/tradle/cloudpal"
)

// What is wrong with a proof. All are cloudpal.Invalid.
var (
	// ErrStale: it was made for another fork or length than the reader has
	// now. That is nobody's fault: ask again.
	ErrStale error = cloudpal.E("verify a proof", cloudpal.Invalid, errors.New("it is for another state of the log"))
	// ErrProof: nodes are missing, too many, or not in their order.
	ErrProof error = cloudpal.E("verify a proof", cloudpal.Invalid, errors.New("its nodes are not those it must have"))
	// ErrChecksum: it ends at another hash than the one known.
	ErrChecksum error = cloudpal.E("verify a proof", cloudpal.Invalid, errors.New("its hashes do not match"))
)

// ErrRequest says that a request cannot be answered by anybody with this head;
// it is cloudpal.Invalid.
var ErrRequest error = cloudpal.E("prove", cloudpal.Invalid, errors.New("there can be no such proof"))

// A Request asks a peer for a part of its log. Parts that are nil are not
// asked for; of Block and Hash at most one.
type Request struct {
	ID       uint64 // which request an answer is to; the replicator's
	Fork     uint64 // the log's fork as the asker knows it
	Block    *NodeRequest
	Hash     *NodeRequest
	Seek     *SeekRequest
	Upgrade  *UpgradeRequest
	Manifest bool   // send the manifest, too
	Priority uint64 // 0 is none; higher is sooner
}

// A NodeRequest asks for a block or a node of the tree. Nodes says how many
// nodes are not here, counted upwards from that one (see Missing): so many steps
// up is a node that the proof can end at. It is ignored where Index is in the
// part that an upgrade of the same request adds.
type NodeRequest struct {
	Index uint64 // of the block; or of the node in the tree
	Nodes uint64
}

// A SeekRequest asks which block has the byte at an offset from the start of
// the log. Padding is how many bytes of each block do not count: 8 where the
// log is encrypted and the asker can read it, else 0.
type SeekRequest struct{ Bytes, Padding uint64 }

// An UpgradeRequest asks for Length blocks more than the asker's Start.
type UpgradeRequest struct{ Start, Length uint64 }

// A Proof answers a Request.
type Proof struct {
	ID, Fork uint64
	Block    *BlockProof
	Hash     *HashProof
	Seek     *SeekProof
	Upgrade  *UpgradeProof
	Manifest []byte // encoded; as package manifest reads it
}

// A BlockProof is a block and the siblings on the way up, from the bottom.
type BlockProof struct {
	Index uint64
	Value []byte // as it is stored: encrypted where the log is
	Nodes []Node
}

// A HashProof has the node Index and then the siblings on the way up.
type HashProof struct {
	Index uint64
	Nodes []Node
}

// A SeekProof has the lowest node known to hold the byte, and then the siblings
// on the way up.
type SeekProof struct {
	Bytes uint64
	Nodes []Node
}

// An UpgradeProof has the nodes that grow the asker's tree to Start+Length
// blocks, and the additional ones that grow it further to what Signature is
// over.
type UpgradeProof struct {
	Start, Length uint64
	Nodes         []Node
	Additional    []Node
	Signature     []byte
}
