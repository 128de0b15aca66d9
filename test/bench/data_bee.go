package main

import (
	"fmt"
	"os"
)

// benchBee holds the B-tree against the original's, and batches against plain
// puts of the same into the database that is below it.
func benchBee(b *run) error {
	us, them := b.sides()
	ours, theirs := b.turnsOf(us, them, 3, func(s side, _ int) said {
		defer os.RemoveAll(s.at("single"))
		return b.do(s, "bee-put", s.at("single"), 10_000, 1)
	})
	b.faster("bee put, single", "puts/s", ours, theirs, 5)
	const written, rounds = 100_000, 3
	last := fmt.Sprint("batch", rounds-1)
	ours, theirs = b.turnsOf(us, them, rounds, func(s side, round int) said {
		return b.do(s, "bee-put", s.at(fmt.Sprint("batch", round)), written, 1000)
	})
	b.faster("bee put, in batches of 1000", "puts/s", ours, theirs, 6)
	var plain told2
	for round := range rounds {
		plain = append(plain, b.do(us, "pebble-put", us.at(fmt.Sprint("plain", round)), written, 1000))
	}
	b.add(least("  the same", "puts/s", ours.perSecond(), plain.perSecond(), "Pebble alone, batches of 1000", 0.25))
	ours, theirs = b.turnsOf(us, them, 3, func(s side, _ int) said {
		return b.do(s, "bee-get", s.at(last), 20_000, written)
	})
	b.faster("bee get, random of 100,000", "gets/s", ours, theirs, 8)
	ours, theirs = b.turnsOf(us, them, 3, func(s side, _ int) said {
		return b.do(s, "bee-scan", s.at(last))
	})
	b.faster("bee scan", "entries/s", ours, theirs, 5)
	return nil
}
