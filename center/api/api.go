// Package api is the HTTPS interface of a center: its address, the JSON it
// speaks, and a client for it. Who asks is known by the key of a TLS client
// certificate and by nothing else: that key is the account. An account sees
// its own pals; another's pal and none at all look the same to it.
//
//	GET    /v1/center                          Center; needs no account
//	GET    /v1/pals                            []Pal
//	POST   /v1/pals                            CreateRequest -> Pal
//	GET    /v1/pals/{id}                       Pal
//	DELETE /v1/pals/{id}                       and all its data
//	POST   /v1/pals/{id}/wake                  -> Pal; boots one that is sealed or stopped
//	POST   /v1/pals/{id}/sleep                 SleepRequest -> Pal
//	POST   /v1/pals/{id}/stop                  -> Pal; only wake, lock and unlock start it again
//	GET    /v1/pals/{id}/lock                  Lock; wakes or boots the core
//	POST   /v1/pals/{id}/unlock                octets that only the core can open
//	GET    /v1/pals/{id}/events[?after=N][&wait=30s]  []Event, those after number N; waits so long for one
//
// A center that takes money has these besides, and answers what costs it
// something for a pal without any with cloudpal.Exhausted, and with challenges (RFC
// 9577) that name the tickets which it takes. The money of a pal is a tab, which is
// paid with tickets (package ticket):
//
//	GET    /v1/offer                           Signed Offer; needs no account
//	GET    /v1/receipts[?after=NEXT]           Receipts; to the center's own key alone
//	GET    /v1/tabs                            []Tab
//	POST   /v1/tabs                            TabRequest -> Tab
//	GET    /v1/tabs/{tab}                      Tab
//	POST   /v1/tabs/{tab}/pay                  PayRequest -> Signed Paid
//	GET    /v1/tabs/{tab}/meter                Meter
//	POST   /v1/tabs/{tab}/meter                CountersignRequest -> Meter
//	POST   /v1/tabs/{tab}/close                -> Signed Closed
//	GET    /v1/tabs/{tab}/events[?after=N][&wait=30s]  []Event, as of a pal
//
// Errors are problem+json (RFC 9457), type Problem: they say the kind of
// trouble and what to do, and never more.
package api

import (
	"net/netip"
	"time"
)

// Bounds of what a center takes and gives.
const (
	MaxUnlock = 1<<20 + 1<<17 // bytes of a sealed unlock
	MaxEvents = 1000          // events of a pal that are kept: the last
	MaxWait   = time.Minute   // that Events waits at most
)

// A Center describes a data center to who may become its customer.
type Center struct {
	Version string `json:"version"`
	Image   Image  `json:"image"` // of the core that new pals get
	Limits  Limits `json:"limits"`
	Paid    bool   `json:"paid,omitempty"` // pals need a tab with money: see Offer
}

// An Image is what cores are booted from.
type Image struct {
	ID string `json:"id"` // sha256:...
}

// Limits are what one account may have.
type Limits struct {
	Pals   int   `json:"pals"`
	Memory int64 `json:"memory"` // bytes of a core
	Disk   int64 `json:"disk"`   // bytes of a pal's volume
	Unlock int64 `json:"unlock"` // bytes of a sealed unlock
}

// A State is what a pal is doing.
type State string

// The states. A genuine packet, a timer of its own and Wake wake a Napping pal
// and boot a Sealed one; a Stopped pal starts by Wake, Lock and Unlock only.
const (
	Starting State = "starting"
	Awake    State = "awake"
	Napping  State = "napping" // its memory is kept, at Pal.Depth
	Sealed   State = "sealed"  // nothing but its encrypted volume is left: it boots locked
	Stopped  State = "stopped"
)

// A Depth is how deep a pal naps.
type Depth string

// The depths, from the fastest to wake to the cheapest to keep.
const (
	DepthArmed  Depth = "armed"
	DepthMemory Depth = "memory"
	DepthDisk   Depth = "disk"
	DepthSealed Depth = "sealed" // drops the memory
)

// A Pal is what a center says of one.
type Pal struct {
	ID        ID               `json:"id"`
	State     State            `json:"state"`
	Depth     Depth            `json:"depth,omitempty"`
	Since     time.Time        `json:"since"` // of State
	Reason    string           `json:"reason,omitempty"`
	Boots     int64            `json:"boots"`     // of the core, from nothing but its disks; each one locks it
	Wakes     int64            `json:"wakes"`     // boots among them
	WireGuard []byte           `json:"wireGuard"` // the public key it was made with, 32 bytes
	Endpoints []netip.AddrPort `json:"endpoints"` // UDP, of its WireGuard interface, the likeliest first
	Image     Image            `json:"image"`     // that its core was made of
	Created   time.Time        `json:"created"`
}

// A CreateRequest asks for a pal. The same account and key give the same pal,
// however often they are sent.
type CreateRequest struct {
	WireGuard []byte `json:"wireGuard"` // the core's public key, 32 bytes
}

// A SleepRequest puts a pal to sleep.
type SleepRequest struct {
	Depth Depth `json:"depth,omitempty"` // "": as the center thinks right
}

// A Lock is what a core says of its lock. The center passes it on; who cares
// whether it is true looks at the attestation.
type Lock struct {
	Locked      bool        `json:"locked"`
	Key         []byte      `json:"key,omitempty"` // HPKE public key to seal the unlock to; empty when unlocked
	WireGuard   []byte      `json:"wireGuard,omitempty"`
	Attestation Attestation `json:"attestation"`
}

// An Attestation is what the core's hardware says for Lock.Key.
type Attestation struct {
	Kind     string `json:"kind"` // "none": the hardware says nothing
	Evidence []byte `json:"evidence,omitempty"`
}

// What happened to a pal.
type What string

// What can happen.
const (
	Booted  What = "booted" // from nothing but its disks: it is locked
	Woke    What = "woke"
	Napped  What = "napped"
	Dropped What = "sealed" // its memory was dropped, as it was meant to be
	Lost    What = "lost"   // its memory was lost; the next wake boots it
	Ended   What = "stopped"
)

// What can happen to a tab besides Napped and Dropped, which it makes happen to
// its pal. What is due is told before, with the time in Event.Due; money that
// comes in the meantime averts it.
const (
	TicketPaid    What = "paid"
	TicketRefused What = "refused" // a ticket: it was spent before
	NapDue        What = "nap due"
	SealDue       What = "seal due"
	DeletionDue   What = "deletion due"
	PalDeleted    What = "deleted"
	TabEnded      What = "closed"
)

// An Event is one thing that happened to a pal.
type Event struct {
	N      int64         `json:"n"` // counts from 1; anew where the core was made anew
	Time   time.Time     `json:"time"`
	What   What          `json:"what"`
	Reason string        `json:"reason,omitempty"`
	Depth  Depth         `json:"depth,omitempty"`
	Slept  time.Duration `json:"slept,omitempty"` // before it woke, ns
	Due    time.Time     `json:"due,omitzero"`    // when it will come to that
}

// A Problem is an error as it crosses HTTP (RFC 9457).
type Problem struct {
	Title  string `json:"title"`  // a cloudpal.Kind
	Status int    `json:"status"` // HTTP status
	Hint   string `json:"hint,omitempty"`
}
