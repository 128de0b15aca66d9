package compute_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/test/images"
	"github.com/tradle/cloudpal/test/world"
)

// Who asks for a VM and goes away while it boots has told nobody of it.
func TestNothingIsLeftOfAVMThatNobodyWaitsFor(t *testing.T) {
	w := world.New(t)
	w.Image("web")
	for _, late := range []bool{false, true} {
		ctx, leave := context.WithCancel(t.Context())
		asked := make(chan error, 1)
		go func() {
			_, err := w.API.Create(ctx, api.CreateRequest{Name: "web", Image: "web"})
			asked <- err
		}()
		w.Eventually(30*time.Second, "the VM boots", func() error {
			v, err := w.API.VM(t.Context(), "web")
			if err == nil && late && v.PID == 0 {
				err = errors.New("it has no process yet")
			}
			return err
		})
		leave()
		if err := <-asked; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want %v", err, context.Canceled)
		}
		begun := time.Now()
		w.Eventually(30*time.Second, "it is gone", func() error { return nothingOf(w, "web") })
		t.Logf("gone after %v", time.Since(begun))
	}
}

// nothingOf says what there is of a VM.
func nothingOf(w *world.World, name string) error {
	if _, err := w.API.VM(context.Background(), name); err == nil {
		return errors.New("the agent knows it")
	}
	for _, dir := range []string{
		filepath.Join(w.Dir, "state", "vms", name), filepath.Join(w.Run, "vm", name), filepath.Join(w.Run, "nap", name),
	} {
		if _, err := os.Stat(dir); err == nil {
			return fmt.Errorf("there is %s", dir)
		}
	}
	if pids := processesOf(w, name); len(pids) > 0 {
		return fmt.Errorf("%v run in its directory", pids)
	}
	return nil
}

// processesOf lists what runs in a VM's directory, even one that is gone.
func processesOf(w *world.World, name string) (pids []string) {
	roots, _ := filepath.Glob("/proc/[0-9]*/root")
	for _, link := range roots {
		if root, err := os.Readlink(link); err == nil && strings.HasPrefix(root, filepath.Join(w.Run, "vm", name)) {
			pids = append(pids, filepath.Base(filepath.Dir(link)))
		}
	}
	return pids
}

// When agent and process are killed together, the next agent removes the
// process's cgroup.
func TestNextAgentRemovesCgroupsOfTheDead(t *testing.T) {
	w := world.New(t)
	w.Image("web")
	v := w.Start(api.CreateRequest{Name: "web", Image: "web"})
	if len(w.Groups()) == 0 {
		t.Fatal("a VM that runs has no cgroup: this test cannot fail")
	}
	w.KillAgent()
	if err := syscall.Kill(v.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.StartAgent()
	w.Await("web", api.Cold)
	if left := w.Groups(); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// An agent without a kernel for its guests says so in a sentence, and what to do.
func TestAgentWithoutAKernel(t *testing.T) {
	world.Require(t)
	empty, cut := t.TempDir(), t.TempDir()
	whole := filepath.Join(images.ModuleRoot(), "bin", "kernel")
	for _, dir := range []string{"boot", "lib"} {
		if out, err := exec.Command("cp", "-r", filepath.Join(whole, dir), cut).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	kernels, err := filepath.Glob(filepath.Join(cut, "boot", "vmlinuz-*"))
	if err != nil || len(kernels) != 1 {
		t.Fatalf("got kernels %v, %v; want one", kernels, err)
	}
	if err := os.Truncate(kernels[0], 1<<20); err != nil {
		t.Fatal(err)
	}
	for what, dir := range map[string]string{"none": empty, "half of one": cut} {
		w := &world.World{Dir: t.TempDir()}
		run := filepath.Join(w.Dir, "run")
		got := cli(t, w, "", "host", "--state", filepath.Join(w.Dir, "state"), "--run", run, "--kernel", dir)
		lines := strings.Split(strings.TrimSpace(got.err), "\n")
		if got.code != 1 || len(lines) != 2 || !strings.HasPrefix(lines[0], "cloudpal: ") ||
			!strings.HasPrefix(lines[1], "hint: ") || !strings.Contains(lines[1], "make setup") {
			t.Errorf("%s: got status %d and\n%swant one sentence, and to run make setup", what, got.code, got.err)
		}
		for _, path := range []string{run, w.Socket()} {
			if _, err := os.Stat(path); err == nil {
				t.Errorf("%s: there is %s", what, path)
			}
		}
		if err := exec.Command("mountpoint", "-q", run).Run(); err == nil {
			t.Errorf("%s: %s is mounted", what, run)
		}
	}
}

// A layer's file that somebody has cut is refused, by a new VM and by one that
// there is.
func TestTruncatedLayerIsRefused(t *testing.T) {
	w := world.New(t)
	w.Image("web")
	w.Start(api.CreateRequest{Name: "old", Image: "web"})
	if _, err := w.API.Stop(t.Context(), "old", api.StopRequest{}); err != nil {
		t.Fatal(err)
	}
	cutOne(t, filepath.Join(w.Dir, "state", "images", "layers", "*", "*"))
	_, made := w.API.Create(t.Context(), api.CreateRequest{Name: "new", Image: "web"})
	_, started := w.API.Start(t.Context(), "old")
	for what, err := range map[string]error{"a new VM": made, "an old one": started} {
		if !errors.Is(err, cloudpal.Corrupt) || cloudpal.HintOf(err) == "" {
			t.Errorf("%s: got %v (hint %q), want %v and what to do", what, err, cloudpal.HintOf(err), cloudpal.Corrupt)
		}
	}
	if err := nothingOf(w, "new"); err != nil {
		t.Error(err)
	}
	if v := w.VM("old"); v.State != api.Stopped {
		t.Errorf("the old one is %s (%s), want it stopped", v.State, v.Reason)
	}
}

// cutOne halves the largest file of those that match.
func cutOne(t *testing.T, pattern string) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	largest, size := "", int64(0)
	for _, file := range files {
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() && info.Size() > size {
			largest, size = file, info.Size()
		}
	}
	if size == 0 {
		t.Fatalf("no file is like %s", pattern)
	}
	if err := os.Truncate(largest, size/2); err != nil {
		t.Fatal(err)
	}
}

// What a VM was doing is unreadable: it boots, and what it was doing has ended.
func TestCorruptRunStateEndsWhatRan(t *testing.T) {
	w := world.New(t)
	w.Image("web")
	v := w.Start(api.CreateRequest{Name: "web", Image: "web"})
	w.KillAgent()
	if err := os.WriteFile(filepath.Join(w.Run, "nap", "web", "run.json"), []byte("{\"phase\":"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.StartAgent()
	if got := w.VM("web"); got.State != api.Cold || !strings.Contains(got.Reason, "unreadable") {
		t.Errorf("got %s (%s), want cold and why", got.State, got.Reason)
	}
	if pids := processesOf(w, "web"); len(pids) > 0 {
		t.Errorf("its process goes on: %v", pids)
	}
	w.MustGet("http://" + world.Addr(v, 8080) + "/")
}

// A VM whose usage records are spoilt goes on, is counted on, and it is said.
func TestCorruptUsageRecordsLoseNoVM(t *testing.T) {
	w := world.New(t)
	w.Image("web")
	v := w.Start(api.CreateRequest{Name: "web", Image: "web"})
	w.StopAgent()
	usage := filepath.Join(w.Dir, "state", "vms", "web", "usage.jsonl")
	spoilt := []byte("{\"seq\":1}\nnot a record\n")
	if err := os.WriteFile(usage, spoilt, 0o600); err != nil {
		t.Fatal(err)
	}
	w.StartAgent()
	if got := w.VM("web"); got.State != api.Running || got.PID != v.PID {
		t.Errorf("got %s with process %d (%s), want running with %d", got.State, got.PID, got.Reason, v.PID)
	}
	if log := w.AgentLog(); !strings.Contains(log, "usage records are damaged") {
		t.Errorf("the agent does not say it:\n%s", log)
	}
	if kept, err := os.ReadFile(usage + ".damaged"); err != nil || string(kept) != string(spoilt) {
		t.Errorf("got %q, %v; want what was there", kept, err)
	}
	w.Eventually(10*time.Second, "it is counted", func() error {
		s := stats(t, w, "web")
		if s.Awake < time.Second {
			return fmt.Errorf("got %v awake", s.Awake)
		}
		return nil
	})
}
