// Package ticket is prepaid value that cannot be followed: tickets that a mint
// signs without seeing them, and what is said when one is paid, changed and given
// back. It is pure: it knows no network, no file, no clock and no source of
// randomness; who calls it brings those.
//
// A ticket is a Privacy Pass token (RFC 9577, RFC 9578, type 0x0002) under a key that
// stands for its value: there is one key for each class, denomination and epoch.
// The token is signed blindly (RSABSSA-SHA384-PSS-Deterministic, RFC 9474), so that
// the mint cannot tell which of those that it signed comes back.
//
// What a bearer token lacks, a ticket has: its nonce commits to an Ed25519 key that
// only the wallet knows, and to pay is to sign a Contract with it. Who is shown a
// ticket can neither spend it elsewhere nor say that it was meant for something
// else, and each repetition of a payment has one meaning.
//
//	wallet                          mint                        center
//	Derive ── Output ────────────► signs
//	Finish ◄─ blind signature ────┘
//	Ticket.Sign(PayContract) ─────────────── Spend ────────────► Verify
//	                                ledger ◄─ Spend ─────────────┘ deposits
//
// Everything secret follows from a Seed: a wallet that lost an answer, or all but
// the seed, asks again and gets the same.
package ticket

import (
	"fmt"
	"math/bits"
	"time"
)

// A Class says what a ticket was given for. Each class is a crowd of its own, so
// there are few.
type Class uint8

const (
	Paid Class = 1 // bought
	Free Class = 2 // given; a center takes it for capacity that lies idle, and it cannot become a paid one
)

// Classes are all that there are.
var Classes = []Class{Paid, Free}

func (c Class) String() string {
	switch c {
	case Paid:
		return "paid"
	case Free:
		return "free"
	}
	return fmt.Sprintf("class %d", uint8(c))
}

// Units measure value. One is 22.5 minutes, 1/64 of a day, of the smallest VM.
type Units uint64

// A Denomination is what a ticket is worth, in units.
type Denomination uint32

// Denominations are all that there are, the smallest first. Each is four times the
// one before: three of each of the smaller ones change any ticket exactly.
var Denominations = []Denomination{1, 4, 16, 64, 256, 1024, 4096}

// Valid reports whether tickets of the denomination can be.
func (d Denomination) Valid() bool {
	return d >= 1 && d <= 4096 && bits.OnesCount32(uint32(d)) == 1 && bits.TrailingZeros32(uint32(d))%2 == 0
}

// An Epoch is the calendar month, in UTC, in which a key signs new tickets, counted
// from January 2020.
type Epoch uint32

// EpochAt returns the epoch of a time; times before 2020 are in the first.
func EpochAt(t time.Time) Epoch {
	t = t.UTC()
	return Epoch(max(0, (t.Year()-2020)*12+int(t.Month())-1))
}

// Begins returns the epoch's first instant. Epochs after the year 9999 begin with
// it.
func (e Epoch) Begins() time.Time {
	return time.Date(2020, time.January+time.Month(min(e, maxEpoch)), 1, 0, 0, 0, 0, time.UTC)
}

const maxEpoch = (9999 - 2020) * 12

// How long after its beginning an epoch's tickets can be paid with, and swapped, in
// months. Then the key, and the set of what was spent under it, is dropped.
const (
	spendMonths = 4
	swapMonths  = 5
)

// IssueEnds returns when the epoch's keys sign no more new tickets; change of its
// tickets they sign until SwapEnds.
func (e Epoch) IssueEnds() time.Time { return (e + 1).Begins() }

// SpendEnds returns when its tickets can no longer be paid with.
func (e Epoch) SpendEnds() time.Time { return (e + spendMonths).Begins() }

// SwapEnds returns when its tickets can no longer be swapped for newer ones: they are
// worth nothing then.
func (e Epoch) SwapEnds() time.Time { return (e + swapMonths).Begins() }

// Issues, Spends and Swaps report whether that can be done at a time.
func (e Epoch) Issues(t time.Time) bool { return !t.Before(e.Begins()) && t.Before(e.IssueEnds()) }
func (e Epoch) Spends(t time.Time) bool { return !t.Before(e.Begins()) && t.Before(e.SpendEnds()) }
func (e Epoch) Swaps(t time.Time) bool  { return !t.Before(e.Begins()) && t.Before(e.SwapEnds()) }
