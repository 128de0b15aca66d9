package manifest

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/tradle/cloudpal"
)

// MaxBundle bounds a bundle as Marshal writes it, in bytes: a mint's log of more than
// fifty years.
const MaxBundle = 1 << 20

const (
	maxEntries    = 4096
	maxCheckpoint = 16 << 10 // bytes
)

// A Bundle is what a mint shows for the keys of one epoch: the keys, its whole log,
// and the checkpoint that says that this is the log. Nothing of it is true until
// Trust.Verify has said so.
type Bundle struct {
	Keys       [][]byte   `json:"keys"`       // ticket.Key.Public of the epoch's, by class, then by denomination
	Entries    []Entry    `json:"entries"`    // of the log, from its first
	Checkpoint Checkpoint `json:"checkpoint"` // of these entries
}

// A Checkpoint is a log's, as C2SP's tlog-checkpoint has it: a note signed by the log
// and cosigned by witnesses, which says how many entries the log has and what the
// root of their Merkle tree (RFC 6962) is.
type Checkpoint string

// Marshal returns the bundle as ParseBundle reads it.
func (b *Bundle) Marshal() ([]byte, error) {
	out, err := json.Marshal(b)
	if err != nil {
		return nil, cloudpal.E("write a bundle of keys", cloudpal.Invalid, err)
	}
	if len(out) > MaxBundle {
		return nil, cloudpal.E("write a bundle of keys", cloudpal.Exhausted, fmt.Errorf("it has %d bytes; %d are the most", len(out), MaxBundle))
	}
	return out, nil
}

// ParseBundle reads exactly one.
func ParseBundle(raw []byte) (*Bundle, error) {
	const op = "read a bundle of keys"
	if len(raw) > MaxBundle {
		return nil, cloudpal.E(op, cloudpal.Invalid, fmt.Errorf("it has %d bytes; %d are the most", len(raw), MaxBundle))
	}
	b := new(Bundle)
	if err := json.Unmarshal(raw, b); err != nil {
		return nil, cloudpal.E(op, cloudpal.Invalid, errors.New("it is not the JSON of one"))
	}
	if err := b.check(); err != nil {
		return nil, cloudpal.E(op, cloudpal.Invalid, err)
	}
	return b, nil
}

func (b *Bundle) check() error {
	switch {
	case len(b.Keys) != len(slots):
		return fmt.Errorf("it has %d keys, and not one for each of %d classes and denominations", len(b.Keys), len(slots))
	case len(b.Entries) > maxEntries:
		return fmt.Errorf("it has %d entries; %d are the most", len(b.Entries), maxEntries)
	case len(b.Checkpoint) > maxCheckpoint:
		return fmt.Errorf("its checkpoint has %d bytes; %d are the most", len(b.Checkpoint), maxCheckpoint)
	}
	return nil
}
