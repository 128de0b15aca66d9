package ticket

import (
	"errors"
	"fmt"
	"slices"

	"github.com/tradle/cloudpal"
)

// Split returns tickets that are worth units together, as few as can be, the
// smallest first: an order that says nothing of what is paid and what is change.
func Split(units Units) []Denomination {
	var parts []Denomination
	for _, d := range slices.Backward(Denominations) {
		for ; units >= Units(d); units -= Units(d) {
			parts = append(parts, d)
		}
	}
	slices.Reverse(parts)
	return parts
}

// Sum returns what tickets are worth together.
func Sum(parts []Denomination) (u Units) {
	for _, d := range parts {
		u += Units(d)
	}
	return u
}

// Blank returns the outputs that are made when a ticket is paid with, to be signed
// in part when it is not used up: three of each smaller denomination, the smallest
// first, which give any rest exactly. Each is blind, so that how many a mint signed
// is all that it learns.
func Blank(d Denomination) []Denomination {
	var parts []Denomination
	for _, s := range Denominations {
		if s < d {
			parts = append(parts, s, s, s)
		}
	}
	return parts
}

// Change returns which of Blank(d), by index, are signed to give back units, fewer
// than d is worth.
func Change(d Denomination, units Units) ([]int, error) {
	if !d.Valid() || units >= Units(d) {
		return nil, cloudpal.E("give change", cloudpal.Invalid, fmt.Errorf("of %d units, %d cannot be given back", d, units))
	}
	var signed []int
	for i := range Blank(d) {
		digit, of := i/3, i%3 // of the rest's digits to the base 4 the i/3-th says how many
		if Units(of) < units>>(2*digit)&3 {
			signed = append(signed, i)
		}
	}
	return signed, nil
}

// CheckSwap checks that the value of what is put in is that of what comes out, in
// one class. A free ticket never becomes a paid one, nor the other way.
func CheckSwap(in, out []*Key) error {
	const op = "swap tickets"
	if len(in) == 0 || len(out) == 0 {
		return cloudpal.E(op, cloudpal.Invalid, errors.New("there is nothing to swap"))
	}
	var have, want Units
	for _, k := range in {
		have += Units(k.Denomination)
	}
	for _, k := range out {
		want += Units(k.Denomination)
	}
	for _, k := range append(slices.Clone(in), out...) {
		if k.Class != in[0].Class {
			return cloudpal.E(op, cloudpal.Invalid, errors.New("they are of two classes"))
		}
	}
	if have != want {
		return cloudpal.E(op, cloudpal.Invalid, fmt.Errorf("%d units go in and %d come out", have, want))
	}
	return nil
}
