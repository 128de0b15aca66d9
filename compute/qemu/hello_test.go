//go:build linux && amd64

package qemu

import (
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/tradle/cloudpal/compute"
	"github.com/tradle/cloudpal/compute/guest"
)

// What no agent may do: one snapshot runs twice. Each run has the time and the
// random numbers that it was given, and not those of the other.
func TestEachResumeHasItsOwnTimeAndRandomness(t *testing.T) {
	r := newRig(t, "web")
	r.kernel.Cmdline += " " + guest.MailboxCmdline
	m := r.boot()
	r.get("/random") // all that it needs is there
	state := r.suspend(m)
	memory := r.spec().MemoryFile
	kept := filepath.Join(t.TempDir(), "memory")
	clone(t, memory, kept)
	var seen []string
	for _, ahead := range []time.Duration{0, 24 * time.Hour} {
		clone(t, kept, memory)
		h := guest.NewHello(time.Second, "")
		h.Time = h.Time.Add(ahead)
		m := r.resume(state, h)
		seen = append(seen, r.get("/random"))
		ns, err := strconv.ParseInt(r.get("/time"), 10, 64)
		must(t, err)
		if off := time.Unix(0, ns).Sub(time.Now().Add(ahead)); off.Abs() > time.Second {
			t.Errorf("the guest's clock is off by %v", off)
		}
		must(t, m.Kill())
	}
	if seen[0] == seen[1] {
		t.Errorf("both runs drew %s", seen[0])
	}
}

// resume runs what is suspended, with a hello in its mailbox, and waits until it
// has taken that.
func (r *rig) resume(state *os.File, h *guest.Hello) compute.Machine {
	r.t.Helper()
	_, err := state.Seek(0, io.SeekStart)
	must(r.t, err)
	s := r.spec()
	m, err := r.driver.Arm(r.t.Context(), s)
	must(r.t, err)
	r.t.Cleanup(func() { m.Kill() })
	must(r.t, m.Load(r.t.Context(), state))
	mem, err := os.OpenFile(s.MemoryFile, os.O_RDWR, 0)
	must(r.t, err)
	defer mem.Close()
	must(r.t, h.Leave(mem))
	must(r.t, m.Run(r.t.Context()))
	ctx, cancel := context.WithTimeout(r.t.Context(), 10*time.Second)
	defer cancel()
	for !h.IsTaken(mem) {
		if ctx.Err() != nil {
			r.t.Fatalf("the guest does not look into its mailbox; console: %s", m.Console())
		}
	}
	// Its seed is wiped.
	left := make([]byte, guest.HelloSize)
	_, err = mem.ReadAt(left, guest.MailboxAddr)
	must(r.t, err)
	if _, err := guest.ParseHello(left); err == nil {
		r.t.Error("the hello is still in the mailbox")
	}
	return m
}

// clone copies a file that a machine's process may have.
func clone(t *testing.T, from, to string) {
	t.Helper()
	if out, err := exec.Command("cp", "--sparse=always", "--preserve=ownership", from, to).CombinedOutput(); err != nil {
		t.Fatalf("cp: %v %s", err, out)
	}
}
