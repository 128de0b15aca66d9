package compute_test

import (
	"bytes"
	"io"
	"math"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal/compute/api"
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
	before, guestBefore := stats(t, w, "web"), guestUsage(t, w, "web")
	const megabytes = 24
	w.MustGet(url + "/cpu?ms=8000")
	w.MustGet(url + "/write?mb=" + itoa(megabytes))
	w.MustGet(url + "/send?mb=" + itoa(megabytes))
	<-time.After(1500 * time.Millisecond) // one interval of the meter
	after, guestAfter := stats(t, w, "web"), guestUsage(t, w, "web")
	for _, c := range []struct {
		what        string
		host, guest float64
	}{
		{"CPU", (after.CPU - before.CPU).Seconds(), guestAfter.CPU.Seconds() - guestBefore.CPU.Seconds()},
		{"disk bytes written", float64(after.DiskWrite - before.DiskWrite), float64(guestAfter.DiskWrite - guestBefore.DiskWrite)},
		{"network bytes sent", float64(after.NetOut - before.NetOut), float64(guestAfter.NetOut - guestBefore.NetOut)},
	} {
		off := math.Abs(c.host-c.guest) / c.guest
		t.Logf("%s: host %.4g, guest %.4g, %.2f %% apart", c.what, c.host, c.guest, off*100)
		if off > 0.02 {
			t.Errorf("%s: the host counts %.6g, the guest %.6g: %.1f %% apart, want at most 2 %%", c.what, c.host, c.guest, off*100)
		}
	}
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
