package compute_test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/test/world"
)

func mountTmpfs(t *testing.T, dir, size string) {
	t.Helper()
	if err := unix.Mount("test", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
}

func TestProcessOfAVMIsWalledIn(t *testing.T) {
	w := world.New(t)
	w.Image("web")
	a := w.Start(api.CreateRequest{Name: "a", Image: "web"})
	b := w.Start(api.CreateRequest{Name: "b", Image: "web"})
	sa, sb := procStatus(t, a.PID), procStatus(t, b.PID)
	if sa["Uid"] == sb["Uid"] {
		t.Errorf("two VMs have one uid, %s", sa["Uid"])
	}
	for _, s := range []map[string]string{sa, sb} {
		for key, want := range map[string]string{
			"CapEff": "0000000000000000", "CapPrm": "0000000000000000", "CapInh": "0000000000000000",
			"CapAmb": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "2", "Groups": "",
		} {
			if s[key] != want {
				t.Errorf("%s is %q, want %q", key, s[key], want)
			}
		}
		if strings.HasPrefix(s["Uid"], "0") || strings.HasPrefix(s["Gid"], "0") {
			t.Errorf("a VM's process runs as uid %s gid %s", s["Uid"], s["Gid"])
		}
	}
	for _, ns := range []string{"mnt", "net", "ipc", "uts"} {
		self, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", w.AgentPID(), ns))
		vm, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", a.PID, ns))
		if err != nil || vm == self {
			t.Errorf("its %s namespace is the agent's (%v)", ns, err)
		}
	}
	// What it sees as / holds its own things and not its neighbour's.
	root := fmt.Sprintf("/proc/%d/root", a.PID)
	for _, path := range []string{"etc", "proc", "home", "root", w.Dir, filepath.Join(w.Run, "vm", "b")} {
		if _, err := os.Stat(filepath.Join(root, path)); err == nil {
			t.Errorf("it sees /%s", path)
		}
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", a.PID))
	if err != nil {
		t.Fatal(err)
	}
	for _, limit := range []string{"Max core file size        0 ", "Max open files", "Max processes"} {
		if !strings.Contains(string(limits), limit) {
			t.Errorf("limits lack %q:\n%s", limit, limits)
		}
	}
	// The agent's memory holds the key of naps.
	agent, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", w.AgentPID()))
	if err != nil || !strings.Contains(string(agent), "Max core file size        0                    0 ") {
		t.Errorf("the agent's memory may be dumped to a disk (%v):\n%s", err, agent)
	}
	for line := range strings.Lines(string(limits)) {
		if strings.HasPrefix(line, "Max open files") && strings.Contains(line, "unlimited") {
			t.Error("open files are not bounded")
		}
	}
}

func procStatus(t *testing.T, pid int) map[string]string {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]string{}
	for s := bufio.NewScanner(bytes.NewReader(data)); s.Scan(); {
		key, value, _ := strings.Cut(s.Text(), ":")
		fields[key] = strings.TrimSpace(value)
	}
	return fields
}

// The hostile guest does its worst, all at once; the host and a neighbour go
// on.
func TestHostileGuest(t *testing.T) {
	w := world.New(t)
	w.Image("web")
	neighbour := w.Start(api.CreateRequest{Name: "neighbour", Image: "web"})
	bad := w.Start(api.CreateRequest{Name: "bad", Image: "web", Disk: 64 << 20,
		Limits: api.Limits{CPU: 0.5, NetBytes: 1 << 20}})
	badURL := "http://" + world.Addr(bad, 8080)
	good := "http://" + world.Addr(neighbour, 8080)
	v4 := neighbour.Addresses[0].String()

	// From inside, neither the host nor the neighbour can be reached, at any
	// address, and not the internet.
	listener := hostListener(t, w)
	for _, target := range []string{
		v4 + ":8080", "[" + neighbour.Addresses[1].String() + "]:8080",
		gateway(neighbour) + ":" + listener, "[fe80::1%25eth0]:" + listener, "127.0.0.1:" + listener, "198.51.100.1:80",
	} {
		if body, err := w.Get(badURL + "/reach?addr=" + target); err != nil || strings.TrimSpace(body) != "no" {
			t.Errorf("a guest reaches %s: %q %v", target, body, err)
		}
	}
	for _, attack := range []string{"disk", "fork", "memory", "console", "logs", "packets", "spoof", "control"} {
		if _, err := w.Get(badURL + "/attack?kind=" + attack); err != nil {
			t.Logf("attack %s: %v (the guest may well have hurt itself)", attack, err)
		}
		for range 3 {
			start := time.Now()
			w.MustGet(good + "/count")
			if d := time.Since(start); d > 5*time.Second {
				t.Errorf("during %s the neighbour takes %v to answer", attack, d)
			}
		}
		if _, err := w.API.Host(t.Context()); err != nil {
			t.Fatalf("during %s the agent does not answer: %v", attack, err)
		}
	}
	// The disk it filled is its own.
	if used := stats(t, w, "bad").Storage; used > 80<<20 {
		t.Errorf("a 64 MiB disk takes %d MiB of the host", used>>20)
	}
	if rss := host(t, w).AgentRSS; rss > 300<<20 {
		t.Errorf("the agent has grown to %d MiB", rss>>20)
	}
	if err := w.API.Remove(t.Context(), "bad", true); err != nil {
		t.Errorf("the hostile VM cannot be removed: %v", err)
	}
	w.MustGet(good + "/count")
}

func stats(t *testing.T, w *world.World, name string) api.Stats {
	t.Helper()
	s, err := w.API.Stats(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func host(t *testing.T, w *world.World) api.Host {
	t.Helper()
	h, err := w.API.Host(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// gateway is the host's own address: the first of the prefix that the VM's is
// in.
func gateway(v api.VM) string {
	a := v.Addresses[0].As4()
	return fmt.Sprintf("%d.%d.%d.1", a[0], a[1], a[2])
}

// hostListener runs a service of the host's on all its addresses and returns
// its port.
func hostListener(t *testing.T, w *world.World) string {
	t.Helper()
	l, err := w.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	_, port, _ := strings.Cut(strings.TrimPrefix(l.Addr().String(), "[::]"), ":")
	return port
}

// What a VM is limited to it does not exceed, whatever it does.
func TestRatesAreKept(t *testing.T) {
	w := world.New(t)
	w.Image("web")
	const rate = 2 << 20 // bytes a second
	v := w.Start(api.CreateRequest{Name: "web", Image: "web", Limits: api.Limits{DiskBytes: rate, NetBytes: rate, CPU: 0.5}})
	url := "http://" + world.Addr(v, 8080)
	w.MustGet(url + "/count")
	for _, c := range []struct {
		what string
		ask  string
		used func(api.Stats) int64
	}{
		{"disk", "/write?mb=16", func(s api.Stats) int64 { return s.DiskWrite }},
		{"network", "/send?mb=12", func(s api.Stats) int64 { return s.NetOut }},
		{"CPU", "/cpu?ms=5000", func(s api.Stats) int64 { return int64(s.CPU.Seconds() * 4 * rate) }}, // half a core
	} {
		before, start := stats(t, w, "web"), time.Now()
		w.MustGet(url + c.ask)
		after, took := stats(t, w, "web"), time.Since(start)
		got := float64(c.used(after)-c.used(before)) / took.Seconds()
		t.Logf("%s: %.2f of its limit over %v", c.what, got/rate, took)
		// A burst of a second is allowed for.
		if most := rate * (1 + 1.5/took.Seconds()) * 1.1; c.what != "CPU" && got > most {
			t.Errorf("%s: %.0f a second, want at most %.0f", c.what, got, most)
		}
		if most := 2.0 * rate * 1.2; c.what == "CPU" && got > most {
			t.Errorf("%s: %.2f cores, want at most 0.5", c.what, got/rate/4)
		}
	}
}
