package host

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal/compute/api"
)

const mib = 1 << 20

// sleeper is a nap as it stands in the tables below: its name, depth, what a
// person asked for, and MiB of RAM. The first has slept least.
type sleeper struct {
	name   string
	depth  api.Depth
	pinned api.Depth
	mib    int64
}

// sleepers makes naps out of a table, in an order that says nothing.
func sleepers(table []sleeper) []nap {
	var naps []nap
	for i, s := range table {
		naps = append(naps, nap{
			vm: &vm{name: s.name}, depth: s.depth, pinned: s.pinned, bytes: s.mib * mib,
			since: time.Unix(1_000_000-int64(i), 0),
		})
	}
	rand.Shuffle(len(naps), func(i, j int) { naps[i], naps[j] = naps[j], naps[i] })
	return naps
}

func TestPlan(t *testing.T) {
	t.Parallel()
	const (
		armed, memory, disk = api.Armed, api.Memory, api.Disk
	)
	for _, c := range []struct {
		what string
		naps []sleeper
		arms int
		room int64 // MiB
		want string
	}{
		{"nobody sleeps", nil, 2, 1000, ""},
		{"the most recent are armed", []sleeper{{"a", memory, "", 50}, {"b", memory, "", 50}, {"c", memory, "", 50}}, 2, 1000, "a:armed b:armed"},
		{"those armed already stay so", []sleeper{{"a", armed, "", 50}, {"b", memory, "", 50}}, 1, 1000, ""},
		{"a newer one takes an older one's process", []sleeper{{"a", memory, "", 50}, {"b", armed, "", 50}}, 1, 1000, "a:armed b:memory"},
		{"nobody is armed where none may be", []sleeper{{"a", armed, "", 50}}, 0, 1000, "a:memory"},
		{"the oldest spill", []sleeper{{"a", memory, "", 50}, {"b", memory, "", 50}, {"c", memory, "", 50}}, 0, 100, "c:disk"},
		{"armed ones spill too", []sleeper{{"a", armed, "", 50}, {"b", armed, "", 50}}, 2, 82, "b:disk"},
		{"a process is not started where there is room for the nap alone", []sleeper{{"a", memory, "", 50}}, 1, 81, ""},
		{"it is where there is room for both", []sleeper{{"a", memory, "", 50}}, 1, 82, "a:armed"},
		{"all spill when there is no room", []sleeper{{"a", armed, "", 50}, {"b", memory, "", 1}}, 1, 0, "a:disk b:disk"},
		{"all spill under pressure", []sleeper{{"a", memory, "", 1}}, 1, -500, "a:disk"},
		{"what is on disk stays there", []sleeper{{"a", disk, "", 0}, {"b", disk, memory, 0}, {"c", disk, disk, 0}, {"d", disk, armed, 0}}, 4, 1000, ""},
		{"what a person put somewhere stays", []sleeper{{"a", memory, memory, 50}, {"b", armed, armed, 50}}, 2, 1000, ""},
		{"and takes room from the others", []sleeper{{"a", memory, memory, 50}, {"b", memory, "", 50}}, 0, 99, "b:disk"},
		{"but not when memory runs out", []sleeper{{"a", memory, memory, 50}, {"b", armed, armed, 50}}, 2, 60, "b:disk"},
		{"with what its process takes", []sleeper{{"a", armed, armed, 50}, {"b", memory, "", 50}}, 0, 131, "b:disk"},
		{"and not when both just fit", []sleeper{{"a", armed, armed, 50}, {"b", memory, "", 50}}, 0, 132, ""},
		{"which goes first when memory runs out", []sleeper{{"a", armed, armed, 50}}, 0, 81, "a:memory"},
		{"a person's wish for disk is done", []sleeper{{"a", memory, disk, 50}, {"b", memory, "", 50}}, 0, 50, "a:disk"},
	} {
		var got []string
		for v, depth := range plan(sleepers(c.naps), c.arms, c.room*mib) {
			got = append(got, v.name+":"+string(depth))
		}
		if got := strings.Join(got, " "); got != c.want {
			t.Errorf("%s: got %q, want %q", c.what, got, c.want)
		}
	}
}

// TestPlanKeepsItsBounds carries out plans for any naps at all, and looks at
// what comes of it.
func TestPlanKeepsItsBounds(t *testing.T) {
	t.Parallel()
	depths := []api.Depth{api.Armed, api.Memory, api.Disk}
	pins := []api.Depth{"", "", "", api.Armed, api.Memory, api.Disk}
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 1))
		var table []sleeper
		for i := range r.IntN(12) {
			s := sleeper{name: fmt.Sprint(i), depth: depths[r.IntN(3)], pinned: pins[r.IntN(6)], mib: 1 + r.Int64N(200)}
			if s.depth == api.Disk {
				s.mib = 0
			}
			table = append(table, s)
		}
		arms, room := r.IntN(4), r.Int64N(800)-100
		carryOut(table, arms, room)
		used, processes := int64(0), 0
		for _, s := range table {
			used += s.mib
			if s.depth == api.Armed {
				used += armedProcess / mib
			}
			if s.depth == api.Armed && s.pinned == "" {
				processes++
			}
		}
		if used > max(room, 0) || processes > arms {
			t.Fatalf("seed %d: got %d MiB of %d, %d processes of %d: %v", seed, used, room, processes, arms, table)
		}
		if again := carryOut(table, arms, room); again > 0 {
			t.Fatalf("seed %d: %d more moves when all is as planned: %v", seed, again, table)
		}
	}
}

func carryOut(table []sleeper, arms int, room int64) (moves int) {
	byName := map[string]*sleeper{}
	for i := range table {
		byName[table[i].name] = &table[i]
	}
	for v, depth := range plan(sleepers(table), arms, room*mib) {
		s := byName[v.name]
		s.depth = depth
		if depth == api.Disk {
			s.mib = 0
		}
		moves++
	}
	return moves
}
