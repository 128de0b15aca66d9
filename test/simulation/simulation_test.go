// Package simulation_test lets a mint, three centers and many people live for weeks, in a
// time of their own: each the real one with its real files, and between them a network
// that loses, doubles and delays what they say, while all of them are killed and some
// cheat.
package simulation_test

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/tradle/cloudpal/person/wallet"
)

// people are as many as live in the large simulation, each of whom pays about a hundred
// times: a thousand, and a tenth of that with -short.
func people() int {
	switch {
	case raced:
		return 25
	case testing.Short():
		return 105
	}
	return 1070
}

// home is a folder for a world. It is in memory where there is room for it: a process
// that is killed here takes nothing with it that it has written, since its machine lives
// on, so that this would prove nothing more on a disk. That what is said is synced
// before, the parties' own tests show, with disks that lose what is not.
func home(t *testing.T) string {
	const memory, room = "/dev/shm", 2 << 30
	var s syscall.Statfs_t
	if syscall.Statfs(memory, &s) != nil || s.Bavail*uint64(s.Bsize) < room {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp(memory, "cloudpal-simulation-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// seed is that of the simulations: what people do and when, and what happens to whom.
// Keys and nonces, the moments that tills draw, and who comes first of those that are at
// work at once, are not in it.
func seed(t *testing.T) uint64 {
	n := uint64(1)
	if text, ok := os.LookupEnv("CLOUDPAL_SEED"); ok {
		var err error
		if n, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("to see this again: CLOUDPAL_SEED=%d", n)
		}
	})
	return n
}

// declared is how wallets hide that are not told another way. That a thousand others
// have such tickets, these worlds are too small for.
var declared = wallet.Policy{Rest: wallet.Careful.Rest, Gap: wallet.Careful.Gap}

// One comes in each quarter of an hour.
const comesEvery = 15 * time.Minute

// unlikely is how seldom luck may look like knowledge: with four ways of guessing, one
// run in 25,000 fails for no reason.
const unlikely = 1e-5

func TestSimulation(t *testing.T) {
	t.Parallel()
	n := people()
	w := newWorld(t, home(t), setting{
		seed: seed(t), people: n, policy: declared, dies: 1.0 / 6000,
		faults: faults{lost: 0.02, twice: 0.02, late: 0.01, mortal: 0.005},
	})
	w.runs(n, time.Duration(n)*comesEvery, max(25, n/20), (*person).lives)
	w.settles()
	w.holds()
	v := w.judge()
	t.Log(v)
	if c := v.chance(v.right[v.best]); c < unlikely {
		t.Errorf("the matcher knows more than it should: who guesses is right so often with a chance of %.1e", c)
	}
	if n >= 100 && 4*v.right[v.best] > v.tabs {
		t.Error("too few wait at a time for anybody to hide among them")
	}
	if w.proven == 0 {
		t.Error("nobody was caught who spent twice")
	}
	w.close()
}

// The same matcher finds almost everybody who does not wait.
func TestWhoDoesNotWaitIsFound(t *testing.T) {
	t.Parallel()
	const n = 40
	w := newWorld(t, home(t), setting{seed: seed(t), people: n, policy: wallet.Now})
	w.runs(n, n*comesEvery, 0, func(p *person) error {
		if err := p.opens(); err != nil {
			return err
		}
		if err := p.buys(); err != nil {
			return err
		}
		p.bought.Add(1)
		return p.stay(p.centers[p.random.IntN(len(p.centers))], 2)
	})
	w.settles()
	w.holds()
	v := w.judge()
	t.Log(v)
	if v.right[v.best] < n*9/10 {
		t.Errorf("of %d who hid nothing the matcher found %d", n, v.right[v.best])
	}
	w.close()
}

func (v verdict) String() string {
	return fmt.Sprintf("of %d pals the matcher linked %d to who bought their tickets, at its best (%s; all ways: %v); who guesses among the %.1f that wait is right %.1f times, and as often as the matcher with a chance of %.2g",
		v.tabs, v.right[v.best], v.best, v.right, v.crowd, v.expected(), v.chance(v.right[v.best]))
}
