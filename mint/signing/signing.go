// Package signing is how a mint has its tickets signed by another process, which
// has the private keys and nothing else: no network, no money, no names, no
// record of what was spent. Who breaks into the mint can have tickets signed as
// long as they are there, and takes no key away.
//
// The two talk over a Unix socket, on which the kernel tells who is at the other
// end: Serve answers the mint's user alone. What goes over it is small and
// has a limit, and to ask again is harmless: a Client does so by itself when the
// signer ends in the middle and another takes its place.
//
// The keys are in package vault, which a mint does not import.
package signing

import (
	"context"

	"github.com/tradle/cloudpal/ticket"
)

// MaxBatch is how many blinded messages can be signed at once.
const MaxBatch = 1000

// MaxKeys is how many keys a signer has at most: those of some epochs.
const MaxKeys = 500

// A Signer has the private keys of a mint. All that it does is the same when it
// is done again. Its methods may be called by several goroutines at once.
type Signer interface {
	// Generate makes the key of a class, a denomination and an epoch where there
	// is none yet, and returns its public half.
	Generate(context.Context, ticket.Class, ticket.Denomination, ticket.Epoch) (*ticket.Key, error)

	// Public returns the public halves of all keys.
	Public(context.Context) ([]*ticket.Key, error)

	// Sign signs blinded messages with one key, in their order, or none of them.
	Sign(ctx context.Context, id ticket.KeyID, blinded [][]byte) (signatures [][]byte, err error)

	// Drop destroys the keys of an epoch whose tickets are worth nothing any more.
	Drop(context.Context, ticket.Epoch) error
}
