// Package api is the HTTP interface of a pal's core: the JSON it speaks.
//
// To its host, and to nobody else, on TCP port LockPort of the core's own
// address, and through the host's center to the person's devices:
//
//	GET  /v1/healthz   204
//	GET  /v1/lock      Lock
//	POST /v1/unlock    octets that identity.SealUnlock made -> 204;
//	                   403 where they are not for this core or from nobody who may,
//	                   409 where it is unlocked already, 429 where it was tried too often
//
// And to the host alone:
//
//	POST /v1/countersign  CountersignRequest -> Countersigned; 403 where more is claimed
//	                      than the core has measured, or under another offer than its
//	                      person agreed to, 429 where it is locked
//
// To the devices on the overlay, on TCP port 80 of the core's addresses there,
// under the name Name:
//
//	GET  /                       a page for people
//	GET  /v1/pal                 Pal
//	GET  /v1/list                the device list's octets
//	POST /v1/list                a list that extends the core's -> 204; it holds at once.
//	                             409 where it is older or contradicts the core's
//	POST /v1/devices/{id}/exit   Exit -> 204; admins only
//
// Errors are problem+json (RFC 9457), type Problem.
package api

import (
	"net/netip"
	"time"

	"github.com/tradle/cloudpal/identity"
)

const (
	LockPort = 7460
	Name     = "pal" // the core's on the overlay
)

// A Lock is what a core says of its lock.
type Lock struct {
	Locked      bool        `json:"locked"`
	Key         []byte      `json:"key,omitempty"`       // HPKE public key to seal the unlock to; empty when unlocked
	WireGuard   []byte      `json:"wireGuard,omitempty"` // the core's public key; empty when locked
	Attestation Attestation `json:"attestation"`
}

// An Attestation is what the core's hardware says for Lock.Key.
type Attestation struct {
	Kind     string `json:"kind"` // "none": the hardware says nothing
	Evidence []byte `json:"evidence,omitempty"`
}

// A CountersignRequest asks a core to agree with a record of its center's meter.
type CountersignRequest struct {
	Nonce     []byte `json:"nonce"`     // that the tab was opened with
	Offer     []byte `json:"offer"`     // its text, as the center signed it
	Record    []byte `json:"record"`    // a ticket.Record
	Signature []byte `json:"signature"` // the center's
}

// Countersigned is a core's agreement, by the tab's key.
type Countersigned struct {
	Signature []byte `json:"signature"`
}

// A Pal is what a core says of itself to the pal's devices.
type Pal struct {
	ID       identity.ID  `json:"id"`
	Name     string       `json:"name"`
	V4       netip.Prefix `json:"v4"` // the overlay's
	V6       netip.Prefix `json:"v6"`
	Now      time.Time    `json:"now"`           // by the core's clock
	Unlocked time.Time    `json:"unlocked"`      // by a device, after its last boot
	Awake    time.Time    `json:"awake"`         // since when
	Wake     *Nap         `json:"wake,omitzero"` // the nap that it last woke from; none since it was unlocked: missing
	Naps     []Nap        `json:"naps"`          // the last MaxNaps, the oldest first
	Entries  int          `json:"entries"`       // of the device list
	Devices  []Device     `json:"devices"`
	DiskUsed int64        `json:"diskUsed"` // bytes of the volume
	DiskSize int64        `json:"diskSize"`
}

// MaxNaps is how many naps a Pal tells at most.
const MaxNaps = 200

// A Nap is one that is over.
type Nap struct {
	From   time.Time `json:"from"`
	To     time.Time `json:"to"`
	Reason string    `json:"reason"`         // why it ended
	Boot   bool      `json:"boot,omitempty"` // it ended with a boot, and the core was locked: From is when it was last known to be awake
}

// A Device is what the core knows of one.
type Device struct {
	ID        identity.DeviceID `json:"id"`
	Name      string            `json:"name"`
	V4        netip.Addr        `json:"v4"`
	V6        netip.Addr        `json:"v6"`
	Admin     bool              `json:"admin,omitempty"`
	Exit      bool              `json:"exit,omitempty"`     // it may reach the internet through the core
	Handshake time.Time         `json:"handshake,omitzero"` // the last
	Endpoint  netip.AddrPort    `json:"endpoint,omitzero"`  // where it spoke from last
	Received  int64             `json:"received"`           // bytes since the core was unlocked
	Sent      int64             `json:"sent"`
}

// Exit lets a device reach the internet through the core, or not.
type Exit struct {
	On bool `json:"on"`
}

// A Problem is an error as it crosses HTTP (RFC 9457).
type Problem struct {
	Title  string `json:"title"`  // a cloudpal.Kind
	Status int    `json:"status"` // HTTP status
	Hint   string `json:"hint,omitempty"`
}
