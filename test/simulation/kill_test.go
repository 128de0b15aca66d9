package simulation_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/person/wallet"
	"github.com/tradle/cloudpal/ticket/signer"
)

// What TestSimulation kills, it kills in its own process: one party alone, just between
// two of its steps. Here a real process that has them all is killed by SIGKILL, at
// instants that nobody chose, also in the middle of a write; the next goes on with the
// same folders.

// childEnv tells this program to be such a process, and in which folder.
const childEnv = "CLOUDPAL_TEST_SIMULATION"

func TestMain(m *testing.M) {
	if dir, ok := os.LookupEnv(childEnv); ok {
		t := &inChild{}
		if err := loadKeys(dir); err != nil {
			panic(err)
		}
		w := openKilled(t, dir)
		fmt.Println("ready")
		w.goesOn()
		fmt.Println("done")
		select {} // until it is killed
	}
	debug.SetGCPercent(200) // of a thousand wallets, most of what is in memory stays
	os.Exit(m.Run())
}

// An inChild is where there is no test: what a test would be told ends the process.
type inChild struct{ testing.TB }

func (*inChild) Helper()                   {}
func (*inChild) Errorf(f string, v ...any) { panic(fmt.Sprintf(f, v...)) }
func (*inChild) Fatal(v ...any)            { panic(fmt.Sprint(v...)) }

const killedPeople = 12

// saveKeys and loadKeys are how all processes have the same.
func saveKeys(dir string) error {
	var list [][]byte
	for _, s := range made() {
		b, err := s.Marshal()
		if err != nil {
			return err
		}
		list = append(list, b)
	}
	b, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, "keys"), b, 0o600)
}

func loadKeys(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, "keys"))
	if err != nil {
		return err
	}
	var list [][]byte
	if err := json.Unmarshal(b, &list); err != nil {
		return err
	}
	var signers []*signer.Signer
	for _, b := range list {
		s, err := signer.Parse(b)
		if err != nil {
			return err
		}
		signers = append(signers, s)
	}
	made = func() []*signer.Signer { return signers }
	return nil
}

// openKilled opens the world of a folder, where it was left.
func openKilled(tb testing.TB, dir string) *world {
	w := newWorld(tb, dir, setting{
		seed: 1, people: 0, policy: wallet.Now, faults: faults{lost: 0.01, twice: 0.01, late: 0.01},
	})
	raw, err := os.ReadFile(filepath.Join(dir, "codes"))
	w.must(err)
	w.must(json.Unmarshal(raw, &w.codes))
	// Each process lives an hour later than the one before.
	runs, err := filepath.Glob(filepath.Join(dir, "run-*"))
	w.must(err)
	w.must(os.WriteFile(filepath.Join(dir, fmt.Sprintf("run-%d", len(runs))), nil, 0o600))
	w.clock.now = start.Add(time.Duration(len(runs)) * 12 * time.Hour)
	for i := range killedPeople {
		p := w.person(i, false)
		p.mortal, p.voucher = false, w.codes[i]
		p.random = rand.New(rand.NewPCG(uint64(len(runs)), uint64(i)))
		w.must(p.opens())
		w.people = append(w.people, p)
	}
	return w
}

// goesOn lets everybody do the next things, whatever was done before.
func (w *world) goesOn() {
	w.left.Store(int64(len(w.people)))
	for _, p := range w.people {
		p.clock.start(0, func() {
			defer w.left.Add(-1) // or time would go on for ever where this fails
			w.must(p.goesOn())
		})
	}
	for _, c := range w.centers {
		c.starts(w)
	}
	w.clock.run()
}

// goesOn is one person's: up to two stays, whose tabs have the names that they would
// have in any other process.
func (p *person) goesOn() error {
	if err := p.buys(); err != nil {
		return err
	}
	for i := range 2 {
		c := p.centers[(p.address[len(p.address)-3]+byte(i))%3]
		s, err := p.comes(c)
		if err != nil {
			return err
		}
		// The center may have closed the tab, and who asked was killed before they heard.
		over := false
		err = p.until("look at a tab", func(ctx context.Context) error {
			tab, err := s.at.OpenTab(ctx, s.tab)
			over = tab.Closed
			return err
		})
		if err != nil {
			return err
		}
		for n := 0; !over && n < 4; n++ { // of all processes the first tab leaves something for the second
			if err := p.pays(s, 0); errors.Is(err, cloudpal.Exhausted) {
				break // where all processes before came far
			} else if err != nil {
				return err
			}
			p.works(s)
			p.clock.sleep(30 * time.Minute)
		}
		if p.random.IntN(2) == 0 {
			continue // for the next process to close
		}
		if err := p.leaves(s); err != nil {
			return err
		}
	}
	return nil
}

func TestSigkill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := saveKeys(dir); err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, dir, setting{seed: 1, people: killedPeople})
	raw, err := json.Marshal(w.codes)
	w.must(err)
	w.must(os.WriteFile(filepath.Join(dir, "codes"), raw, 0o600))
	w.close()
	random := rand.New(rand.NewPCG(seed(t), 1))
	const kills = 12
	early := 0
	for range kills {
		if !killOne(t, dir, random) {
			early++
		}
	}
	w = openKilled(t, dir)
	w.net.faults = faults{}
	w.left.Store(int64(len(w.people)))
	for _, p := range w.people {
		p.clock.start(0, func() {
			defer w.left.Add(-1)
			w.must(p.goesOn())
			for _, s := range p.stays {
				w.must(p.leaves(s))
			}
		})
	}
	for _, c := range w.centers {
		c.starts(w)
	}
	w.clock.run()
	w.bought.Store(killedPeople)
	w.settles()
	w.holds()
	t.Logf("%d of %d processes were killed before they were done", early, kills)
	w.close()
}

// killOne lets a process run for a while, and reports whether it was done.
func killOne(t *testing.T, dir string, random *rand.Rand) (done bool) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "ready" {
		cmd.Process.Kill()
		cmd.Wait()
		t.Fatalf("a process did not start: %q", lines.Text())
	}
	time.AfterFunc(time.Duration(random.IntN(600))*time.Millisecond, func() { cmd.Process.Kill() })
	done = lines.Scan() && lines.Text() == "done"
	cmd.Process.Kill()
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() > 0 {
		t.Errorf("a process ended by itself: %v", err)
	}
	return done
}
