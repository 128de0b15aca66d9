package compute_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/compute/guest"
	"github.com/tradle/cloudpal/compute/meter"
	"github.com/tradle/cloudpal/test/world"
)

func TestMeterAgreesWithTheGuest(t *testing.T) {
	w := world.New(t)
	w.Image("web")
	v := w.Start(api.CreateRequest{Name: "web", Image: "web"})
	url := "http://" + world.Addr(v, 8080)
	// Settle, so that the boot is in neither difference.
	w.MustGet(url + "/count")
	agreeOnCPU(t, w, url)
	before, guestBefore := stats(t, w, "web"), guestUsage(t, w, "web")
	const megabytes = 24
	w.MustGet(url + "/write?mb=" + itoa(megabytes))
	w.MustGet(url + "/send?mb=" + itoa(megabytes))
	<-time.After(1500 * time.Millisecond) // one interval of the meter
	after, guestAfter := stats(t, w, "web"), guestUsage(t, w, "web")
	for _, c := range []struct {
		what        string
		host, guest float64
	}{
		{"disk bytes written", float64(after.DiskWrite - before.DiskWrite), float64(guestAfter.DiskWrite - guestBefore.DiskWrite)},
		{"network bytes sent", float64(after.NetOut - before.NetOut), float64(guestAfter.NetOut - guestBefore.NetOut)},
	} {
		if off := apart(t, c.what, c.host, c.guest); off > 0.02 {
			t.Errorf("%s: the host counts %.6g, the guest %.6g: %.1f %% apart, want at most 2 %%", c.what, c.host, c.guest, off*100)
		}
	}
}

// agreeOnCPU holds both counts of CPU time against each other while the guest
// computes. A guest without a paravirtual clock takes the time that its
// processor is kept from it for its own, so on a busy machine it may take more
// than one try.
func agreeOnCPU(t *testing.T, w *world.World, url string) {
	t.Helper()
	off := 1.0
	for try := 0; try < 10 && off > 0.02; try++ {
		before, guestBefore := stats(t, w, "web"), guestUsage(t, w, "web")
		w.MustGet(url + "/cpu?ms=6000")
		after, guestAfter := stats(t, w, "web"), guestUsage(t, w, "web")
		off = apart(t, "CPU", (after.CPU - before.CPU).Seconds(), (guestAfter.CPU - guestBefore.CPU).Seconds())
	}
	if off > 0.02 {
		t.Errorf("CPU: %.1f %% apart, want at most 2 %%", off*100)
	}
}

func apart(t *testing.T, what string, host, guest float64) float64 {
	off := math.Abs(host-guest) / guest
	t.Logf("%s: host %.4g, guest %.4g, %.2f %% apart", what, host, guest, off*100)
	return off
}

func TestUsageRecordsVerifyAfterKills(t *testing.T) {
	w := world.New(t)
	w.Image("web")
	v := w.Start(api.CreateRequest{Name: "web", Image: "web"})
	url := "http://" + world.Addr(v, 8080)
	var last api.Stats
	for range 3 {
		w.MustGet(url + "/cpu?ms=500")
		<-time.After(1500 * time.Millisecond)
		last = stats(t, w, "web")
		w.KillAgent()
		w.StartAgent()
		now := stats(t, w, "web")
		if now.CPU < last.CPU-time.Second {
			t.Errorf("the CPU count went back from %v to %v: more than an interval lost", last.CPU, now.CPU)
		}
	}
	// Never double counted: the process itself knows how much it had in all.
	if total, truth := stats(t, w, "web").CPU, processCPU(t, w.VM("web").PID); total > truth+truth/20 {
		t.Errorf("counted %v of CPU, the process had %v", total, truth)
	}
	r, err := w.API.Usage(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	records, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := meter.Verify(bytes.NewReader(records)); err != nil {
		t.Errorf("the records do not verify: %v", err)
	}
	// The same by the command anyone can run.
	bin, err := world.Binaries()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(w.Dir, "state", "vms", "web", "usage.jsonl")
	if out, err := exec.Command(filepath.Join(bin, "cloudpal"), "usage", "verify", file).CombinedOutput(); err != nil {
		t.Errorf("cloudpal usage verify: %v\n%s", err, out)
	}
}

func TestBudgetStopsTheVM(t *testing.T) {
	w := world.New(t)
	w.Image("web")
	const budget = 8 * time.Second
	v := w.Start(api.CreateRequest{Name: "web", Image: "web", Limits: api.Limits{BudgetCPU: budget}})
	if _, err := w.Get("http://" + world.Addr(v, 8080) + "/spin"); err != nil {
		t.Fatal(err)
	}
	v = w.Await("web", api.Stopped)
	if used := stats(t, w, "web").CPU; used < budget || used > budget+time.Second {
		t.Errorf("stopped after %v of CPU, want within 1 s of %v", used, budget)
	}
	if !strings.Contains(v.Exit.Reason, "budget") {
		t.Errorf("the reason is %q", v.Exit.Reason)
	}
}

func TestRunawayIsThrottledThenStopped(t *testing.T) {
	w := world.New(t, "--plan-window", "3s", "--plan-grace", "5s")
	w.Image("web")
	v := w.Start(api.CreateRequest{Name: "web", Image: "web", Limits: api.Limits{PlanCPU: 0.25}})
	if _, err := w.Get("http://" + world.Addr(v, 8080) + "/spin"); err != nil {
		t.Fatal(err)
	}
	w.Eventually(60*time.Second, "it is throttled", func() error {
		if v := w.VM("web"); !v.Throttled && v.State == api.Running {
			return io.ErrNoProgress
		}
		return nil
	})
	v = w.Await("web", api.Stopped)
	if !strings.Contains(v.Exit.Reason, "plan") {
		t.Errorf("the reason is %q", v.Exit.Reason)
	}
	r, err := w.API.Usage(t.Context(), "web")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	records, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"throttled", "stopped"} {
		if !bytes.Contains(records, []byte(want)) {
			t.Errorf("the records do not say that it was %s", want)
		}
	}
}

// guestUsage asks the guest's own program what it counts.
func guestUsage(t *testing.T, w *world.World, name string) guest.Usage {
	t.Helper()
	var u guest.Usage
	text := w.MustGet("http://" + world.Addr(w.VM(name), 8080) + "/usage")
	if err := json.Unmarshal([]byte(text), &u); err != nil {
		t.Fatalf("usage %q: %v", text, err)
	}
	return u
}

// processCPU returns the processor time that a process has had, of all its
// threads: fields 14 and 15 of /proc/PID/stat, in ticks of 10 ms (proc(5)).
func processCPU(t *testing.T, pid int) time.Duration {
	t.Helper()
	data, err := os.ReadFile("/proc/" + itoa(pid) + "/stat")
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
	var ticks time.Duration
	for _, f := range fields[11:13] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += time.Duration(n)
	}
	return ticks * 10 * time.Millisecond
}

// A boot is work; the time that a VM is stopped is nobody's.
func TestTimeIsCountedAsWhatItWas(t *testing.T) {
	w := world.New(t)
	w.Image("web")
	w.Start(api.CreateRequest{Name: "web", Image: "web"})
	if s := stats(t, w, "web"); s.Awake < 500*time.Millisecond || s.Asleep != 0 {
		t.Errorf("after a boot: awake %v, asleep %v; want the boot's time, and none", s.Awake, s.Asleep)
	}
	suspend(t, w, "web", api.Memory)
	<-time.After(2 * time.Second)
	asleep := stats(t, w, "web")
	if asleep.Asleep < 2*time.Second || asleep.Asleep > 4*time.Second {
		t.Errorf("after 2 s of sleep: asleep %v", asleep.Asleep)
	}
	if _, err := w.API.Stop(t.Context(), "web", api.StopRequest{}); err != nil {
		t.Fatal(err)
	}
	stopped := stats(t, w, "web")
	<-time.After(2 * time.Second)
	if later := stats(t, w, "web"); later.Asleep != stopped.Asleep || later.Awake != stopped.Awake {
		t.Errorf("while it is stopped its time goes from %+v to %+v", stopped, later)
	}
	if _, err := w.API.Start(t.Context(), "web"); err != nil {
		t.Fatal(err)
	}
	if again := stats(t, w, "web"); again.Asleep > stopped.Asleep+100*time.Millisecond {
		t.Errorf("the time it was stopped counts as sleep: %v, then %v", stopped.Asleep, again.Asleep)
	}
}

func TestBudgetOfBytesStopsTheVM(t *testing.T) {
	w := world.New(t)
	w.Image("web")
	const budget = 8 << 20
	v := w.Start(api.CreateRequest{Name: "web", Image: "web", Limits: api.Limits{BudgetNet: budget, NetBytes: 2 << 20}})
	conn, err := w.Dial(t.Context(), "tcp", world.Addr(v, 8080))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, "GET /send?mb=1000 HTTP/1.0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	go io.Copy(io.Discard, conn)
	w.Eventually(60*time.Second, "its bytes are used up", func() error {
		if s := stats(t, w, "web"); s.NetIn+s.NetOut < budget {
			return fmt.Errorf("%d of %d", s.NetIn+s.NetOut, budget)
		}
		return nil
	})
	exhausted := time.Now()
	v = w.Await("web", api.Stopped)
	if d := time.Since(exhausted); d > 1500*time.Millisecond {
		t.Errorf("stopped %v after its bytes were used up, want within a second", d)
	}
	if !strings.Contains(v.Exit.Reason, "budget") {
		t.Errorf("the reason is %q", v.Exit.Reason)
	}
	if _, err := w.API.Start(t.Context(), "web"); !errors.Is(err, cloudpal.Exhausted) {
		t.Errorf("it starts again: %v", err)
	}
}
