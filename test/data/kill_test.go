package data_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal/data/corestore"
	"github.com/tradle/cloudpal/data/hypercore"
)

// The tests of this file kill a process that writes, at a random instant, and
// look at what it left. The process is this test's own program, started again.
// It does steps that are random and told before they are done, and says when a
// Sync has returned. What is found must be what was there after one of the
// steps: after the last one that a Sync covers, or a later one. So nothing
// acknowledged is lost, and no step is half there.

// A step is what a killed process does to one lane: a log, a bee or a drive. The
// same step always does the same, to the same state.
type step struct {
	Lane int
	Do   string
	At   uint64 `json:",omitempty"`
	N    uint64 `json:",omitempty"`
	Seed uint64 `json:",omitempty"`
}

// A word is a line of a killed process: that it is ready, what it will do next,
// or that all it did to a lane is on disk.
type word struct {
	Ready  bool
	Step   *step
	Synced *int
	Have   *have
}

// content is made of a number: mostly short, sometimes long, sometimes nothing.
func content(id uint64) []byte {
	rng := rand.New(rand.NewPCG(id, 99))
	n := rng.IntN(300)
	switch rng.IntN(20) {
	case 0:
		n = 0
	case 1:
		n = 20_000 + rng.IntN(80_000)
	}
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// A kind of lane: how a killed process writes it, and what it must hold.
type kind struct {
	trials int
	lanes  int
	// write does random steps until the process is killed.
	write func(w *writer, lane int)
	// fresh returns what an empty lane must hold.
	fresh func() model
}

// A model is what a lane must hold.
type model interface {
	apply(s step)
	// check compares it with what a store has. It is called for many states, of
	// which one fits, so the error is only read when none does.
	check(s *corestore.Store, lane int) error
	clone() model
}

var kinds = map[string]kind{
	"log":   {trials: 200, lanes: 3, write: writeLog, fresh: func() model { return &logModel{} }},
	"bee":   {trials: 120, lanes: 1, write: writeBee, fresh: func() model { return &beeModel{} }},
	"drive": {trials: 100, lanes: 1, write: writeDrive, fresh: func() model { return &driveModel{} }},
}

// perStore is how often one store is killed before a new one is made.
const perStore = 12

func TestKilled(t *testing.T) {
	for name, k := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var left []model
			var dir string
			found := map[bool]int{}
			for trial := range trials(k.trials) {
				if trial%perStore == 0 {
					os.RemoveAll(dir)
					dir, left = filepath.Join(t.TempDir(), "store"), nil
					for range k.lanes {
						left = append(left, k.fresh())
					}
				}
				seed := uint64(trial) + 1
				words := kill(t, name, dir, seed, "")
				for lane := range left {
					lost := settle(t, dir, name, seed, lane, &left[lane], words)
					found[lost]++
				}
			}
			t.Logf("%d lanes were found at their last step, %d before it", found[false], found[true])
		})
	}
}

// trials is n, or what CLOUDPAL_TRIALS says for a longer or shorter run.
func trials(n int) int {
	if percent, err := strconv.Atoi(os.Getenv("CLOUDPAL_TRIALS")); err == nil {
		return n * percent / 100
	}
	return n
}

// kill starts the process on a store, kills it at a random instant, and returns
// what it said.
func kill(t *testing.T, scenario, dir string, seed uint64, extra string) []word {
	t.Helper()
	self, err := os.Executable()
	must(t, err)
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "CLOUDPAL_KILLED="+scenario, "CLOUDPAL_DIR="+dir, fmt.Sprint("CLOUDPAL_SEED=", seed), "CLOUDPAL_EXTRA="+extra)
	var trouble strings.Builder
	cmd.Stderr = &trouble
	out, err := cmd.StdoutPipe()
	must(t, err)
	rng := rand.New(rand.NewPCG(seed, 5))
	lines := bufio.NewReaderSize(out, 1<<16)
	must(t, cmd.Start())
	// One in eight is killed while it opens the store.
	if rng.IntN(8) == 0 {
		time.AfterFunc(time.Duration(rng.Int64N(int64(40*time.Millisecond))), func() { cmd.Process.Kill() })
	}
	var words []word
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			if err != io.EOF {
				t.Fatal(err)
			}
			break // the last line may be cut
		}
		var w word
		if err := json.Unmarshal(line, &w); err != nil {
			t.Fatalf("seed %d: %v: %s", seed, err, line)
		}
		if w.Ready {
			time.AfterFunc(time.Duration(rng.Int64N(int64(120*time.Millisecond))), func() { cmd.Process.Kill() })
			continue
		}
		words = append(words, w)
	}
	if err := cmd.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Fatalf("%s, seed %d: it was to be killed, and ended with %v\n%s", scenario, seed, err, trouble.String())
	}
	return words
}

// settle finds out after which of its steps a lane stands, and makes that the
// state from which the next process goes on. It reports whether steps were lost.
func settle(t *testing.T, dir, name string, seed uint64, lane int, left *model, words []word) (lost bool) {
	t.Helper()
	var steps []step
	synced := 0
	for _, w := range words {
		if w.Step != nil && w.Step.Lane == lane {
			steps = append(steps, *w.Step)
		}
		if w.Synced != nil && *w.Synced == lane {
			synced = len(steps)
		}
	}
	s, err := corestore.Open(dir, corestore.Options{})
	if err != nil {
		t.Fatalf("%s, seed %d: the store does not open: %v", name, seed, err)
	}
	defer s.Close()
	state := (*left).clone()
	var why []string
	for k := 0; ; k++ {
		if k >= synced {
			err := state.check(s, lane)
			if err == nil {
				*left = state
				return k < len(steps)
			}
			why = append(why, fmt.Sprintf("after step %d: %v", k, err))
		}
		if k == len(steps) {
			break
		}
		state.apply(steps[k])
	}
	t.Fatalf("%s, seed %d, lane %d: %d steps, %d of them on disk, and what is there is the state after none of them:\n%s",
		name, seed, lane, len(steps), synced, strings.Join(why, "\n"))
	return false
}

// intact verifies all of a log.
func intact(c *hypercore.Core) error {
	a, err := c.Audit(context.Background(), nil)
	if err != nil {
		return err
	}
	if a.Faulty > 0 {
		return fmt.Errorf("the audit found %d faults: %v", a.Faulty, a.Faults)
	}
	return nil
}
