package host

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute"
	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/compute/image"
)

func TestWriteFileReplacesWholeOrNotAtAll(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "vm.json")
	for _, want := range []string{"first", "second, longer", ""} {
		if err := writeFile(path, []byte(want)); err != nil {
			t.Fatal(err)
		}
		if got := string(content(t, path)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got %v, %v; want what only its owner reads", info.Mode(), err)
	}
	if err := writeFile(filepath.Join(dir, "gone", "x"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in no directory: got %v", err)
	}
	// A directory in its place cannot be replaced: nothing half-made stays.
	if err := os.Mkdir(filepath.Join(dir, "taken"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := writeFile(filepath.Join(dir, "taken"), []byte("x")); err == nil {
		t.Error("a directory was replaced")
	}
	onlyThese(t, dir, "taken", "vm.json")
}

// TestWriteFileOnAFullDiskKeepsWhatWas has room for the file that is there, and
// not for the next.
func TestWriteFileOnAFullDiskKeepsWhatWas(t *testing.T) {
	if os.Getuid() != 0 {
		if os.Getenv("CLOUDPAL_MUST_RUN") != "" {
			t.Fatal("must not be skipped here, but it needs root: it mounts a small tmpfs")
		}
		t.Skip("needs root: it mounts a small tmpfs")
	}
	dir := t.TempDir()
	if err := syscall.Mount("host-test", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Unmount(dir, syscall.MNT_DETACH) })
	path := filepath.Join(dir, "vm.json")
	if err := writeFile(path, []byte("what was")); err != nil {
		t.Fatal(err)
	}
	if err := writeFile(path, make([]byte, 1<<20)); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v, want %v", err, syscall.ENOSPC)
	}
	if got := string(content(t, path)); got != "what was" {
		t.Errorf("got %q, want what was", got)
	}
	onlyThese(t, dir, "vm.json")
}

func onlyThese(t *testing.T, dir string, want ...string) {
	t.Helper()
	found, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range found {
		names = append(names, e.Name())
	}
	if got := strings.Join(names, " "); got != strings.Join(want, " ") {
		t.Errorf("got %s in the directory, want %s", got, want)
	}
}

func TestRemoveDurablyTwice(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "x")
	if err := writeFile(path, nil); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := removeDurably(path); err != nil {
			t.Error(err)
		}
	}
}

func TestOneAgentHasTheState(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, err := lockState(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = lockState(dir)
	if cloudpal.KindOf(err) != cloudpal.Exist || cloudpal.HintOf(err) == "" {
		t.Errorf("got %v, want %v with a hint", err, cloudpal.Exist)
	}
	first.Close()
	again, err := lockState(dir)
	if err != nil {
		t.Fatalf("when the first is gone: %v", err)
	}
	again.Close()
}

// quiet is a network that no packet is on.
type quiet struct{}

func (quiet) Activity(string) (time.Time, error) { return time.Time{}, nil }
func (quiet) Prefixes() (v4, v6 netip.Prefix) {
	return netip.MustParsePrefix("10.201.0.0/16"), netip.MustParsePrefix("fdc1:d00::/64")
}
func (quiet) HostMAC() net.HardwareAddr                  { return net.HardwareAddr{2, 0, 0, 0, 0, 1} }
func (quiet) Add(string, NIC) error                      { return nil }
func (quiet) Remove(string)                              {}
func (quiet) Plug(string) (*os.File, string, error)      { return nil, "", errors.ErrUnsupported }
func (quiet) Adopt(string, *os.File, string, bool) error { return errors.ErrUnsupported }
func (quiet) Admit(string) error                         { return nil }
func (quiet) Hold(string) error                          { return nil }
func (quiet) Unplug(string) error                        { return nil }
func (quiet) Stats(string) (NetStats, error)             { return NetStats{}, nil }
func (quiet) Sweep() error                               { return nil }
func (quiet) Close() error                               { return nil }
func (quiet) Publish(string, netip.AddrPort, netip.AddrPort) (Published, error) {
	return nil, errors.ErrUnsupported
}

func quietly(func(netip.Addr, string)) (Network, error) { return quiet{}, nil }

// hostOf is a host that finds the given files when it starts: those of a VM
// called a. It is closed when the test ends.
func hostOf(t *testing.T, vmJSON, runJSON []byte) (*Host, error) {
	t.Helper()
	images, err := image.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{
		StateDir: t.TempDir(), RunDir: t.TempDir(), Images: images,
		Network: quietly, Log: slog.New(slog.DiscardHandler),
	}
	for path, data := range map[string][]byte{
		filepath.Join(cfg.StateDir, "vms", "a", "vm.json"): vmJSON,
		filepath.Join(cfg.RunDir, "nap", "a", "run.json"):  runJSON,
	} {
		if data == nil {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h, err := New(context.Background(), cfg)
	if err == nil {
		t.Cleanup(func() {
			if err := h.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	return h, err
}

// recordOf is the least that vm.json must have.
func recordOf(t testing.TB, change func(r *record)) []byte {
	t.Helper()
	r := record{ID: "1", Request: api.CreateRequest{Name: "a"}}
	if change != nil {
		change(&r)
	}
	data, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestRecoverTakesNoVMThatIsNotWhole(t *testing.T) {
	t.Parallel()
	whole := recordOf(t, nil)
	for what, vmJSON := range map[string][]byte{
		"nothing":              {},
		"half of it":           whole[:len(whole)/2],
		"not JSON":             []byte("<html>"),
		"another VM's":         recordOf(t, func(r *record) { r.Request.Name = "b" }),
		"one without identity": recordOf(t, func(r *record) { r.ID = "" }),
		"an index below zero":  recordOf(t, func(r *record) { r.Index = -1 }),
		"one that is too high": recordOf(t, func(r *record) { r.Index = 1<<20 + 1 }),
	} {
		h, err := hostOf(t, vmJSON, nil)
		if err != nil {
			t.Errorf("%s keeps the agent down: %v", what, err)
			continue
		}
		if got := h.all(); len(got) != 0 {
			t.Errorf("%s is a VM", what)
		}
		if got := content(t, h.paths("a").record()); string(got) != string(vmJSON) {
			t.Errorf("%s is not left as it was", what)
		}
	}
}

func TestRecoverFindsWhatAVMWasDoing(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		change  func(r *record)
		runJSON []byte
		want    api.State
	}{
		"the machine was restarted":       {nil, nil, api.Cold},
		"the moment is unreadable":        {nil, []byte("{"), api.Cold},
		"a phase that is none":            {nil, []byte(`{"phase":"dancing"}`), api.Cold},
		"it was booting":                  {nil, []byte(`{"phase":"booting"}`), api.Cold},
		"it was waking":                   {nil, []byte(`{"phase":"waking"}`), api.Cold},
		"it ran and its process is gone":  {nil, []byte(`{"phase":"running"}`), api.Cold},
		"it fell asleep; process is gone": {nil, []byte(`{"phase":"suspending"}`), api.Cold},
		"it slept and the nap is gone":    {nil, []byte(`{"phase":"asleep"}`), api.Cold},
		"it had ended":                    {func(r *record) { r.Stopped = &api.Exit{Code: 3, Reason: "x"} }, []byte(`{"phase":"running"}`), api.Stopped},
	} {
		h, err := hostOf(t, recordOf(t, c.change), c.runJSON)
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		v, err := h.find("a")
		if err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if got, _ := v.now(); got != c.want {
			t.Errorf("%s: got %s, want %s", what, got, c.want)
		}
	}
}

func TestRecoverRemovesWhatWasBeingMadeOrRemoved(t *testing.T) {
	t.Parallel()
	h, err := hostOf(t, recordOf(t, nil), []byte(`{"phase":"booting"}`))
	if err != nil {
		t.Fatal(err)
	}
	vms, naps := filepath.Dir(h.paths("a").disk), filepath.Dir(h.paths("a").nap)
	for _, dir := range []string{filepath.Join(vms, ".new-b"), filepath.Join(vms, ".gone-c"), filepath.Join(naps, "d")} {
		if err := os.MkdirAll(filepath.Join(dir, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	volumes := filepath.Join(h.cfg.StateDir, "volumes")
	for _, name := range []string{"v.img", newVolume + "half"} {
		if err := os.WriteFile(filepath.Join(volumes, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	onlyThese(t, vms, "a")
	onlyThese(t, naps, "a")
	onlyThese(t, volumes, "v.img")
}

func TestRecoverRemovesAVMThatWasToGoWithItsProcess(t *testing.T) {
	t.Parallel()
	h, err := hostOf(t, recordOf(t, func(r *record) { r.Request.Remove, r.Stopped = true, &api.Exit{} }), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := h.all(); len(got) != 0 {
		t.Errorf("got %s, which had ended", got[0].name)
	}
	onlyThese(t, filepath.Dir(h.paths("a").disk))
}

// TestRecoverEndsTheProcessOfAStoppedVM is of an agent that was killed when it
// had noted the end and had not made it.
func TestRecoverEndsTheProcessOfAStoppedVM(t *testing.T) {
	t.Parallel()
	process := exec.Command("sleep", "1000")
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { process.Process.Kill() })
	ended := make(chan error, 1)
	go func() { ended <- process.Wait() }()
	start, err := startTime(process.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	was, err := json.Marshal(moment{Phase: running, Process: compute.Process{PID: process.Process.Pid, Start: start}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := hostOf(t, recordOf(t, func(r *record) { r.Stopped = &api.Exit{} }), was); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("the process goes on")
	}
}

// FuzzRecover starts a host on any files at all.
func FuzzRecover(f *testing.F) {
	f.Add(recordOf(f, nil), []byte(`{"phase":"asleep","since":"2026-01-01T00:00:00Z"}`))
	f.Add(recordOf(f, func(r *record) { r.Stopped = &api.Exit{} }), []byte("{"))
	f.Add([]byte(`{"id":"1","index":1048576,"request":{"name":"a","ports":[{"host":"","guest":1}]},"addrs":[""]}`), []byte(`[]`))
	f.Fuzz(func(t *testing.T, vmJSON, runJSON []byte) {
		var m moment
		if json.Unmarshal(runJSON, &m); m.Process.PID != 0 {
			return // it names one of this machine's processes
		}
		h, err := hostOf(t, vmJSON, runJSON)
		if err != nil {
			t.Fatal(err)
		}
		for _, v := range h.all() {
			if got, _ := v.now(); got != api.Cold && got != api.Stopped {
				t.Errorf("got %s of a VM that has neither process nor nap", got)
			}
			if r := v.rec; r.ID == "" || r.Index < 0 || len(r.Addrs) != 2 {
				t.Errorf("got %+v", r)
			}
		}
	})
}
