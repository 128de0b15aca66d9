package main

import (
	"errors"
	"fmt"
)

// people is how many the last table is for.
const people = 100e6

// A habit is how a person's pal is paid for.
type habit struct {
	name    string
	tickets float64 // a day, one a slice
	peak    float64 // of the average: renewals come together
}

var habits = []habit{{"day tickets", 1, 5}, {"hour tickets", 24, 3}}

// What is assumed of all: as where the protocol was drawn up.
const (
	day      = 86400.0 // seconds
	moving   = 0.05    // of the people, each day, leave a center with a rest
	change   = 10      // tickets of it
	alive    = 122     // days that rows are kept
	replicas = 3
)

// benchPeople says what 100 million people need, from what was measured before in
// this run.
func (c *prices) benchPeople(b *run) error {
	if c.signature*c.openssl*c.payment*c.spend*c.row == 0 {
		return errors.New("it is computed from sign, pay and spent: measure them in the same run")
	}
	for _, h := range habits {
		rate := people * h.tickets / day
		signatures := rate + people*moving*change/day
		terabytes := people * h.tickets * alive * c.row / 1e12
		b.add(told("100 million people, "+h.name+": spends", "1/s", rate, rate*h.peak, fmt.Sprintf("the peak, %g times as many", h.peak)),
			told("  mints' cores that sign", "cores", signatures*c.signature, signatures*c.openssl, "as fast as OpenSSL"),
			told("  mints' cores that keep the spent set", "cores", rate*c.spend, rate*h.peak*c.spend, "at the peak"),
			told("  centers' cores that take payments", "cores", rate*c.payment, rate*h.peak*c.payment, "at the peak"),
			told("  spent set", "TB", terabytes, terabytes*replicas, fmt.Sprintf("%d replicas", replicas)))
	}
	return nil
}
