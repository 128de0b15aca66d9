package main

import (
	"fmt"
	"os"
)

// kib is the size of the blocks that most figures are of.
const kib = 1 << 10

// benchAppend holds appending against the original's. It does not wait for the
// disk, so ours does not either; what it costs to wait is told beside it.
func benchAppend(b *run) error {
	ours, theirs := b.turns(3, func(s side, round int) said {
		return b.do(s, "append", s.at(fmt.Sprint("single", round)), 20_000, kib, 1)
	})
	b.faster("append, single 1 KiB", "blocks/s", ours, theirs, 4)
	us, _ := b.sides()
	var synced told2
	for round := range 3 {
		synced = append(synced, b.do(us, "append-sync", us.at(fmt.Sprint("synced", round)), 2_000, kib))
	}
	b.add(told("append, single 1 KiB, each on disk (fsync)", "blocks/s", synced.perSecond(), theirs.perSecond(), original+", not on disk"))
	ours, theirs = b.turns(3, func(s side, round int) said {
		defer os.RemoveAll(s.at("batch"))
		return b.do(s, "append", s.at("batch"), 200_000, kib, 100)
	})
	b.faster("append, 1 KiB in batches of 100", "blocks/s", ours, theirs, 5)
	return nil
}

// benchGet holds reading what is there against the original's.
func benchGet(b *run) error {
	const written = 200_000
	us, them := b.sides()
	for _, s := range []side{us, them} {
		b.do(s, "append", s.at("log"), written, kib, 100)
	}
	for _, order := range []string{"random", "sequential"} {
		ours, theirs := b.turnsOf(us, them, 3, func(s side, _ int) said {
			return b.do(s, "get", s.at("log"), 100_000, order)
		})
		b.faster("get, "+order+" of 200,000 of 1 KiB", "blocks/s", ours, theirs, 5)
	}
	return nil
}

// benchReplicate holds the download of a log over TCP, from a process that has
// it into one that has nothing, against the original's, beside what the
// connection itself can carry.
func benchReplicate(b *run) error {
	us, them := b.sides()
	for _, c := range []struct {
		name               string
		count, size, batch int
		goal               float64
	}{
		{"1 KiB", 100_000, kib, 100, 5},
		{"64 KiB", 3_200, 64 * kib, 16, 3},
	} {
		for _, s := range []side{us, them} {
			b.do(s, "append", s.at(c.name), c.count, c.size, c.batch)
		}
		var servers [2]told2
		ours, theirs := b.turnsOf(us, them, 3, func(s side, _ int) said {
			served, fetched := b.download(s, s.at(c.name), c.count)
			which := 0
			if s.name == them.name {
				which = 1
			}
			servers[which] = append(servers[which], served)
			return fetched
		})
		b.faster("replicate blocks of "+c.name, "blocks/s", ours, theirs, c.goal)
		b.add(most("  peak memory of who serves", "MiB", servers[0].peak(), servers[1].peak(), original, 0.5))
		stream, bare := b.carried(us, "sink", "source", c.size), b.carried(us, "tcp-sink", "tcp-source", c.size)
		b.add(told("  the same", "MB/s", ours.megabytes(), theirs.megabytes(), original),
			told("  the same", "MB/s", ours.megabytes(), stream, "our secret-stream, messages of "+c.name),
			told("  our secret-stream", "MB/s", stream, b.carried(them, "sink", "source", c.size), "the original's"),
			told("  our secret-stream", "MB/s", stream, bare, "TCP, writes of "+c.name))
	}
	return nil
}

// download has one process of a side serve a log, and another fetch it.
func (b *run) download(s side, from string, count int) (served, fetched said) {
	to := s.at("fetched")
	defer os.RemoveAll(to)
	server := b.start(s, 0, "serve", from)
	ready, _ := server.line()
	fetched = b.do(s, "fetch", to, ready.Port, ready.Key, count)
	return server.end(), fetched
}

// carried is how many megabytes a second go from one process to another.
func (b *run) carried(s side, sink, source string, size int) float64 {
	const bytes = 400 << 20
	to := b.start(s, 0, sink, bytes)
	ready, _ := to.line()
	from := b.start(s, 1, source, ready.Port, bytes, size)
	got := to.end()
	from.end()
	return told2{got}.megabytes()
}
