package nested_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute/api"
)

// checks are what is tried inside the machine, in this order: later ones go on
// with the VM "web" that earlier ones have made.
var checks = []struct {
	name  string
	check func(*testing.T, *agent)
}{
	{"KVMIsChosen", checkKVMIsChosen},
	{"RunPrintsAndExits", checkRun},
	{"AVMRunsUnderKVM", checkKVMIsUsed},
	{"AVMIsWalledIn", checkWalls},
	{"NapsKeepWhatTheGuestKnows", checkNaps},
	{"ACrashedAgentsVMIsTakenOver", checkTakenOver},
	{"ProcessorTimeIsBoundedAndTold", checkProcessorTime},
	{"NoGroupIsLeft", checkNoGroupIsLeft},
}

func testInside(t *testing.T) {
	a := &agent{API: api.Dial("/run/cloudpal.sock")}
	a.start(t)
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) { c.check(t, a) })
	}
	log, err := os.ReadFile(agentLog)
	t.Logf("the agent's log: %s %v", log, err)
	a.kill(t)
}

const agentLog = "/run/agent.log"

// An agent is `cloudpal host`, with nothing asked of it.
type agent struct {
	*exec.Cmd
	API *api.Client
}

func (a *agent) start(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(agentLog, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(t, err)
	defer log.Close()
	a.Cmd = exec.Command("cloudpal", "host", "--socket", a.API.Socket())
	a.Stdout, a.Stderr = log, log
	must(t, a.Start())
	await(t, "the agent's answer", func() error {
		_, err := a.API.Host(t.Context())
		return err
	})
}

func (a *agent) kill(t *testing.T) {
	t.Helper()
	must(t, a.Process.Kill())
	_ = a.Wait() // that it was killed
}

// await waits for what to hold.
func await(t *testing.T, what string, holds func() error) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		err := holds()
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

func (a *agent) web(t *testing.T) api.VM {
	t.Helper()
	v, err := a.API.VM(t.Context(), "web")
	must(t, err)
	return v
}

// get asks the VM "web".
func (a *agent) get(t *testing.T, path string) string {
	t.Helper()
	body, err := a.ask(t, path)
	must(t, err)
	return body
}

func (a *agent) ask(t *testing.T, path string) (string, error) {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Minute}
	r, err := c.Get("http://" + netip.AddrPortFrom(a.web(t).Addresses[0], 8080).String() + path)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	return strings.TrimSpace(string(body)), err
}

// count asks the guest how many times it was asked.
func (a *agent) count(t *testing.T) int {
	t.Helper()
	n, err := strconv.Atoi(a.get(t, "/count"))
	must(t, err)
	return n
}

func checkKVMIsChosen(t *testing.T, a *agent) {
	if _, err := os.Stat("/dev/kvm"); err != nil {
		t.Fatalf("the machine has no KVM, so nothing can choose it: %v", err)
	}
	h, err := a.API.Host(t.Context())
	must(t, err)
	if h.Accelerator != "kvm" {
		t.Fatalf("got accelerator %s, want kvm", h.Accelerator)
	}
}

func checkRun(t *testing.T, a *agent) {
	_, err := a.API.Import(t.Context(), api.ImportRequest{Path: "/test/web", Name: "web"}, nil)
	must(t, err)
	cmd := exec.Command("cloudpal", "--socket", a.API.Socket(), "vm", "run", "--rm", "web", "exit", "7")
	var out, talk bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &talk
	var exit *exec.ExitError
	if err := cmd.Run(); !errors.As(err, &exit) || exit.ExitCode() != 7 {
		t.Errorf("got %v, want exit status 7", err)
	}
	if out.String() != "to stdout\n" || !strings.Contains(talk.String(), "to stderr\n") {
		t.Errorf("got %q and %q, want what the guest wrote to each", out.String(), talk.String())
	}
}

// limit is how many cores the VM "web" may use.
const limit = 0.5

// checkKVMIsUsed looks at what QEMU has open: the host's devices, by their
// names in the jail, and the VM that KVM made of them.
func checkKVMIsUsed(t *testing.T, a *agent) {
	// A machine in a machine may need longer than the agent waits, for QEMU and
	// for the guest.
	var v api.VM
	await(t, "QEMU's start", func() (err error) {
		v, err = a.API.Create(t.Context(), api.CreateRequest{Name: "web", Image: "web", Limits: api.Limits{CPU: limit}})
		if err != nil && !errors.Is(err, cloudpal.Timeout) {
			t.Fatal(err)
		}
		return err
	})
	await(t, "the guest's answer", func() error {
		_, err := a.ask(t, "/count")
		return err
	})
	var open []string
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", v.PID))
	must(t, err)
	for _, fd := range fds {
		target, _ := os.Readlink(fd)
		open = append(open, target)
	}
	all := strings.Join(open, " ")
	for _, want := range []string{"/dev/kvm", "anon_inode:kvm-vm", "anon_inode:kvm-vcpu:0"} {
		if !strings.Contains(all, want) {
			t.Errorf("QEMU has open %s, want %s among them", all, want)
		}
	}
}

func checkWalls(t *testing.T, a *agent) {
	v := a.web(t)
	var host unix.Statfs_t
	must(t, unix.Statfs("/sys/fs/cgroup", &host))
	if host.Type != unix.CGROUP2_SUPER_MAGIC {
		t.Fatalf("/sys/fs/cgroup is of type %#x, want cgroup v2", host.Type)
	}
	status := fields(t, fmt.Sprintf("/proc/%d/status", v.PID), ":")
	if uid := status["Uid"]; uid == "" || strings.HasPrefix(uid, "0") {
		t.Errorf("got uid %q, want one of its own", uid)
	}
	for field, want := range map[string]string{"Seccomp": "2", "NoNewPrivs": "1", "CapEff": "0000000000000000", "Groups": ""} {
		if got := status[field]; got != want {
			t.Errorf("%s: got %q, want %q", field, got, want)
		}
	}
	// A thread of the kernel's, which works for KVM, may be in the group, too.
	if procs := strings.Fields(read(t, filepath.Join(group(t, v), "cgroup.procs"))); !slices.Contains(procs, strconv.Itoa(v.PID)) {
		t.Errorf("cgroup.procs: got %v, want %d among them", procs, v.PID)
	}
	for file, want := range map[string]string{"cpu.max": "50000 100000", "pids.max": "64"} {
		if got := read(t, filepath.Join(group(t, v), file)); got != want {
			t.Errorf("%s: got %q, want %q", file, got, want)
		}
	}
	most, err := strconv.ParseInt(read(t, filepath.Join(group(t, v), "memory.max")), 10, 64)
	if err != nil || most <= v.Memory || most > 4*v.Memory {
		t.Errorf("memory.max: got %d, %v; want the guest's %d and a little more", most, err, v.Memory)
	}
}

// group returns the directory of the VM's cgroup.
func group(t *testing.T, v api.VM) string {
	t.Helper()
	path, ok := strings.CutPrefix(read(t, fmt.Sprintf("/proc/%d/cgroup", v.PID)), "0::")
	if !ok || !strings.HasPrefix(path, "/cloudpal/web-") {
		t.Fatalf("got cgroup %q, want one of its own below /cloudpal", path)
	}
	return filepath.Join("/sys/fs/cgroup", path)
}

func read(t *testing.T, file string) string {
	t.Helper()
	data, err := os.ReadFile(file)
	must(t, err)
	return strings.TrimSpace(string(data))
}

// fields reads lines of a name and a value.
func fields(t *testing.T, file, between string) map[string]string {
	t.Helper()
	found := map[string]string{}
	for line := range strings.Lines(read(t, file)) {
		name, value, _ := strings.Cut(line, between)
		found[name] = strings.TrimSpace(value)
	}
	return found
}

// checkNaps wakes the VM by its packets, and when it is told to.
func checkNaps(t *testing.T, a *agent) {
	for _, depth := range []api.Depth{api.Memory, api.Disk, api.Armed} {
		before, count := a.web(t), a.count(t)
		v, err := a.API.Suspend(t.Context(), "web", api.SuspendRequest{Depth: depth})
		if err != nil || v.State != api.Asleep || v.Depth != depth {
			t.Fatalf("suspend to %s: got %s %s, %v", depth, v.State, v.Depth, err)
		}
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", before.PID)); err == nil {
			t.Errorf("%s: the VM's process is still there", depth)
		}
		switch depth {
		case api.Disk:
			_, err := a.API.Resume(t.Context(), "web")
			must(t, err)
		case api.Memory:
			checkClock(t, a)
		}
		if got := a.count(t); got != count+1 {
			t.Errorf("after a nap at depth %s: got count %d, want %d", depth, got, count+1)
		}
		if after := a.web(t); after.State != api.Running || after.PID == before.PID {
			t.Errorf("after a nap at depth %s: it is %s as process %d, want another than %d", depth, after.State, after.PID, before.PID)
		}
	}
}

// checkClock lets the VM sleep long enough to tell a clock that stood still from
// one that was set.
func checkClock(t *testing.T, a *agent) {
	t.Helper()
	<-time.After(3 * time.Second)
	ns, err := strconv.ParseInt(a.get(t, "/time"), 10, 64)
	must(t, err)
	if off := time.Since(time.Unix(0, ns)); off.Abs() > time.Second {
		t.Errorf("after 3 s asleep the guest's clock is off by %v", off)
	}
}

func checkTakenOver(t *testing.T, a *agent) {
	before, count := a.web(t), a.count(t)
	a.kill(t)
	a.start(t)
	if v := a.web(t); v.State != api.Running || v.PID != before.PID {
		t.Errorf("it is %s as process %d, want running as %d", v.State, v.PID, before.PID)
	}
	if got := a.count(t); got != count+1 {
		t.Errorf("got count %d, want %d", got, count+1)
	}
}

// checkProcessorTime has the guest burn what it gets. A slow machine makes no
// difference: that it takes long is what is wanted.
func checkProcessorTime(t *testing.T, a *agent) {
	file := filepath.Join(group(t, a.web(t)), "cpu.stat")
	stat := func(name string) int64 {
		n, err := strconv.ParseInt(fields(t, file, " ")[name], 10, 64)
		must(t, err)
		return n
	}
	a.get(t, "/spin")
	begin, held, from := time.Now(), stat("nr_throttled"), stat("usage_usec")
	const use = 2_000_000
	await(t, "the guest's use of the processor", func() error {
		if used := stat("usage_usec") - from; used < use {
			return fmt.Errorf("%d us", used)
		}
		return nil
	})
	if took := time.Since(begin).Seconds(); took < 0.9*use/1e6/limit {
		t.Errorf("2 s of processor time took %.2f s, want about %.2f s", took, 2/limit)
	}
	if now := stat("nr_throttled"); now <= held {
		t.Errorf("the kernel has held it back %d times before and %d after", held, now)
	}
	used := time.Duration(stat("usage_usec")) * time.Microsecond
	if told := a.cpu(t); told < used {
		t.Errorf("the agent tells of %v of processor time, the kernel had %v before", told, used)
	}
}

func (a *agent) cpu(t *testing.T) time.Duration {
	t.Helper()
	s, err := a.API.Stats(t.Context(), "web")
	must(t, err)
	return s.CPU
}

func checkNoGroupIsLeft(t *testing.T, a *agent) {
	dir := group(t, a.web(t))
	must(t, a.API.Remove(t.Context(), "web", true))
	await(t, "the end of "+dir, func() error {
		if _, err := os.Stat(dir); err == nil {
			return errors.New("it is there")
		}
		return nil
	})
	if left, err := filepath.Glob("/sys/fs/cgroup/cloudpal/*-*"); err != nil || len(left) > 0 {
		t.Errorf("cgroups are left: %v %v", left, err)
	}
}
