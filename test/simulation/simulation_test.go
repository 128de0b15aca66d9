// Package simulation_test lets a mint, three centers and many people live for weeks, in a
// time of their own: each the real one with its real files, and between them a network
// that loses, doubles and delays what they say, while all of them are killed and some
// cheat.
package simulation_test

import (
	"os"
	"testing"
	"time"

	"github.com/tradle/cloudpal/person/wallet"
)

// people are as many as live in the large simulation: a tenth of what CLOUDPAL_SIMULATION=full
// says, which takes minutes.
func people() int {
	if os.Getenv("CLOUDPAL_SIMULATION") == "full" {
		return 1000
	}
	return 20
}

var policy = wallet.Policy{Rest: wallet.Careful.Rest, Gap: wallet.Careful.Gap}

func TestSimulation(t *testing.T) {
	n := people()
	w := newWorld(t, t.TempDir(), setting{
		seed: seed(), people: n, policy: policy, dies: 1.0 / 3000,
		faults: faults{lost: 0.02, twice: 0.02, late: 0.01, mortal: 0.005},
	})
	w.runs(n, time.Duration(n)*15*time.Minute, 25, (*person).lives)
	w.settles()
	w.holds()
	w.close()
}

func seed() uint64 { return 1 }

func (p *person) doubles() error { return nil }
