package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
)

// benchDrive holds the mirroring of folders into a drive, and out of it, against
// the original's.
func benchDrive(b *run) error {
	for _, c := range []struct {
		name   string
		count  int
		size   func(i int) int
		rounds int
	}{
		{"200 files of 1 MiB", 200, func(int) int { return 1 << 20 }, 3},
		{"20,000 small files", 20_000, func(i int) int { return 200 + i%1800 }, 2},
	} {
		folder := b.folder(c.count, c.size)
		us, them := b.sides()
		ours, theirs := b.turnsOf(us, them, c.rounds, func(s side, round int) said {
			return b.do(s, "mirror", s.at(fmt.Sprint("in", round)), folder)
		})
		b.faster("drive, mirror in "+c.name, "files/s", ours, theirs, 3)
		var batched told2
		for range c.rounds {
			batched = append(batched, b.do(them, "mirror", them.at("batched"), folder, "batch"))
			b.must(os.RemoveAll(them.at("batched")))
		}
		b.add(told("  the same", "files/s", ours.perSecond(), batched.perSecond(), original+", told to put all entries in one batch"),
			told("  the same", "MB/s", ours.megabytes(), theirs.megabytes(), original))
		ours, theirs = b.turnsOf(us, them, c.rounds, func(s side, round int) said {
			defer os.RemoveAll(s.at("out"))
			return b.do(s, "unmirror", s.at("in0"), s.at("out"))
		})
		b.faster("drive, mirror out "+c.name, "files/s", ours, theirs, 3)
	}
	return nil
}

// folder makes one of files that do not compress, in a hundred subfolders.
func (b *run) folder(count int, size func(i int) int) string {
	dir := b.TempDir()
	next := random(9)
	for i := range count {
		sub := filepath.Join(dir, fmt.Sprintf("folder-%02d", i%100))
		b.must(os.MkdirAll(sub, 0o755))
		data := make([]byte, size(i)+4)
		for at := 0; at+4 <= len(data); at += 4 {
			binary.LittleEndian.PutUint32(data[at:], next())
		}
		b.must(os.WriteFile(filepath.Join(sub, fmt.Sprintf("file-%05d", i)), data[:size(i)], 0o644))
	}
	return dir
}
