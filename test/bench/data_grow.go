package main

import (
	"fmt"
	"os"
	"strconv"
)

// mostBlocks is how long the log gets. CLOUDPAL_BENCH_BLOCKS takes another number:
// with 10000000 it takes 11 GB of disk.
func mostBlocks() int {
	if n, err := strconv.Atoi(os.Getenv("CLOUDPAL_BENCH_BLOCKS")); err == nil && n > 0 {
		return n
	}
	return 1_000_000
}

// benchGrow holds the cost of an operation on a long log against the same on a
// short one.
func benchGrow(b *run) error {
	us, _ := b.sides()
	kinds := []string{"append, single", "append, in batches of 100", "get, random"}
	rows := map[string]map[float64]told2{}
	for _, k := range append(kinds, systemRead) {
		rows[k] = map[float64]told2{}
	}
	longest := mostBlocks()
	for round := range 3 {
		w := b.start(us, 1, "grow", us.at(fmt.Sprint("log", round)), longest)
		for {
			s, more := w.line()
			if !more {
				break
			}
			rows[s.Sum][s.Bytes] = append(rows[s.Sum][s.Bytes], s)
		}
		w.end()
		b.must(os.RemoveAll(us.at(fmt.Sprint("log", round))))
	}
	for _, k := range kinds {
		short := rows[k][10_000].perSecond()
		for n := 100_000; n <= longest; n *= 10 {
			long := rows[k][float64(n)].perSecond()
			b.add(costs(fmt.Sprintf("%s, at %d blocks", k, n), long, short, "at 10000 blocks"))
		}
	}
	// Memory is slower the more of it is used, for whoever reads.
	times := func(n float64) float64 { return rows[systemRead][n].perSecond() / rows["get, random"][n].perSecond() }
	for n := 100_000; n <= longest; n *= 10 {
		long, short := rows[systemRead][float64(n)].perSecond(), rows[systemRead][10_000].perSecond()
		b.add(told(fmt.Sprintf("  %s, of a log of %d", systemRead, n), "µs", 1e6/long, 1e6/short, "of a log of 10000"),
			most(fmt.Sprintf("  get, random, at %d blocks", n), "times that", times(float64(n)), times(10_000), "at 10000 blocks", 1.5))
	}
	return nil
}

// costs is a row of what an operation takes, of two rates.
func costs(name string, rate, other float64, otherName string) figure {
	return most(name, "µs", 1e6/rate, 1e6/other, otherName, 1.5)
}

// benchCores holds the cost of an operation in a store of a thousand cores
// against the same in a store of one.
func benchCores(b *run) error {
	us, _ := b.sides()
	kinds := []string{"append, single", "get, random"}
	rows := map[string][2]told2{}
	for round := range 3 {
		for i, cores := range []int{1, 1000} {
			w := b.start(us, 1, "cores", us.at(fmt.Sprint("store", round, i)), cores)
			for {
				s, more := w.line()
				if !more {
					break
				}
				row := rows[s.Sum]
				row[i] = append(row[i], s)
				rows[s.Sum] = row
			}
			w.end()
		}
	}
	for _, k := range kinds {
		b.add(costs(k+", 1,000 cores in the store", rows[k][1].perSecond(), rows[k][0].perSecond(), "one core"))
	}
	return nil
}
