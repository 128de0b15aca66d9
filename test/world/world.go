// Package world makes whole worlds for tests and benchmarks: a network
// namespace of its own, the real programs built from this tree, a host's agent
// with real VMs. Nothing in it stands in for anything.
package world

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/test/images"
)

// A World is one host in a network namespace of its own. It is gone, with all
// its VMs, when the test ends.
type World struct {
	TB    testing.TB
	Dir   string // state and logs
	Run   string // the agent's run directory
	API   *api.Client
	netns string
	agent *exec.Cmd
	ended chan struct{}
	verb  string // "host" or "center"
	args  []string
}

// New starts a host. It skips the test where there is no root or no
// hypervisor, unless CLOUDPAL_MUST_RUN is set: there a skip is a failure.
func New(tb testing.TB, agentArgs ...string) *World {
	tb.Helper()
	return start(tb, "host", nil, agentArgs)
}

// NewCenter starts a data center, on an Internet or, with nil, on none.
func NewCenter(tb testing.TB, i *Internet, centerArgs ...string) *World {
	tb.Helper()
	return start(tb, "center", i, centerArgs)
}

func start(tb testing.TB, verb string, i *Internet, args []string) *World {
	tb.Helper()
	Require(tb)
	w := &World{TB: tb, Dir: tb.TempDir(), verb: verb, args: args}
	w.netns = "cp-" + token()
	w.Run = filepath.Join("/run", w.netns)
	w.must(exec.Command("ip", "netns", "add", w.netns).Run())
	tb.Cleanup(w.end)
	w.must(w.Command("ip", "link", "set", "lo", "up").Run())
	if i != nil {
		w.Attach(i)
	}
	w.StartAgent()
	return w
}

// Require skips a test that this machine cannot run.
func Require(tb testing.TB) {
	tb.Helper()
	reason := ""
	switch {
	case os.Getuid() != 0:
		reason = "needs root: it makes network namespaces, taps and cgroups"
	case !exists("/dev/net/tun"):
		reason = "needs /dev/net/tun"
	}
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		reason = "needs qemu-system-x86_64: run make setup"
	}
	if reason == "" {
		return
	}
	if os.Getenv("CLOUDPAL_MUST_RUN") != "" {
		tb.Fatal("must not be skipped here, but it " + reason)
	}
	tb.Skip(reason)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func token() string {
	b := make([]byte, 4)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// binaries is the directory that build made, if it did.
var binaries string

var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "cloudpal-bin-")
	if err != nil {
		return "", err
	}
	binaries = dir
	for _, name := range []string{"cloudpal", "vminit"} {
		args, env := []string{"build", "-trimpath", "-ldflags=-s -w"}, "CGO_ENABLED=0"
		if name == "cloudpal" && os.Getenv("CLOUDPAL_TEST_RACE") != "" {
			args, env = []string{"build", "-race"}, "CGO_ENABLED=1"
		}
		cmd := exec.Command("go", append(args, "-o", filepath.Join(dir, name), "github.com/tradle/cloudpal/cmd/"+name)...)
		cmd.Env = append(os.Environ(), env)
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
	}
	// The guests' kernel is beside the program, as make setup has it.
	return dir, os.Symlink(filepath.Join(images.ModuleRoot(), "bin", "kernel"), filepath.Join(dir, "kernel"))
})

// Binaries returns the directory of the programs built from this tree. Main
// removes it.
func Binaries() (string, error) { return build() }

// Main runs a package's tests and removes what they shared.
func Main(m *testing.M) { os.Exit(Finish(m.Run())) }

// Finish removes what a package's tests shared, where they are not run by Main,
// and returns the exit status that it is given.
func Finish(code int) int {
	os.RemoveAll(binaries)
	return code
}

// Command runs a program in the world's network. nsenter rather than `ip netns
// exec`, which would also give it mounts of its own.
func (w *World) Command(name string, args ...string) *exec.Cmd {
	return exec.Command("nsenter", append([]string{"--net=/run/netns/" + w.netns, name}, args...)...)
}

// Socket is where the agent listens.
func (w *World) Socket() string { return filepath.Join(w.Dir, "host.sock") }

// starting is held while an agent starts: the first fills the cache that all
// share.
var starting sync.Mutex

// StartAgent starts the host's agent and waits until it answers.
func (w *World) StartAgent() {
	w.TB.Helper()
	starting.Lock()
	defer starting.Unlock()
	bin, err := Binaries()
	w.must(err)
	log, err := os.OpenFile(filepath.Join(w.Dir, "agent.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	w.must(err)
	args := append([]string{
		w.verb, "--state", filepath.Join(w.Dir, "state"), "--run", w.Run, "--socket", w.Socket(),
		// What takes seconds to find out is the same for all worlds.
		"--cache", filepath.Join(bin, "cache"), "--kernel", filepath.Join(images.ModuleRoot(), "bin", "kernel"),
	}, w.args...)
	w.agent = w.Command(filepath.Join(bin, "cloudpal"), args...)
	w.agent.Stdout, w.agent.Stderr = log, log
	w.must(w.agent.Start())
	log.Close()
	w.ended = make(chan struct{})
	go func() {
		w.agent.Wait()
		close(w.ended)
	}()
	w.API = api.Dial(w.Socket())
	w.Eventually(60*time.Second, "the agent answers", func() error {
		select {
		case <-w.ended:
			w.TB.Fatalf("the agent ended:\n%s", w.AgentLog())
		default:
		}
		_, err := w.API.Host(context.Background())
		return err
	})
}

// AgentPID returns the agent's process.
func (w *World) AgentPID() int { return w.agent.Process.Pid }

// KillAgent ends the agent as a crash would.
func (w *World) KillAgent() {
	w.agent.Process.Kill()
	<-w.ended
}

// StopAgent ends the agent in good order.
func (w *World) StopAgent() {
	w.agent.Process.Signal(syscall.SIGTERM)
	select {
	case <-w.ended:
	case <-time.After(20 * time.Second):
		w.TB.Errorf("the agent does not end:\n%s", w.AgentLog())
		w.KillAgent()
	}
}

// AgentLog returns what the agent has said.
func (w *World) AgentLog() string {
	data, _ := os.ReadFile(filepath.Join(w.Dir, "agent.log"))
	if len(data) > 20000 {
		data = data[len(data)-20000:]
	}
	return string(data)
}

// end removes everything the world made, whatever state it is in.
func (w *World) end() {
	if strings.Contains(w.AgentLog(), "DATA RACE") {
		w.TB.Error("the agent has a data race")
	}
	if w.TB.Failed() {
		w.TB.Logf("agent's log:\n%s", w.AgentLog())
		w.logVMs()
	}
	if w.agent != nil {
		w.KillAgent()
	}
	w.killVMs()
	unix.Unmount(w.Run, unix.MNT_DETACH)
	os.RemoveAll(w.Run)
	exec.Command("ip", "netns", "del", w.netns).Run()
	w.removeGroups()
}

// logVMs tells what each VM is and was, for whoever looks for the reason of a
// failure.
func (w *World) logVMs() {
	if w.API == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	vms, err := w.API.VMs(ctx)
	if err != nil {
		w.TB.Logf("the agent does not tell of its VMs: %v", err)
	}
	for _, v := range vms {
		events, _ := w.API.Events(ctx, v.Name, 0, 0)
		console, _ := w.API.Console(ctx, v.Name)
		w.TB.Logf("VM %+v\nevents: %+v\nits console's end:\n%s", v, events, console[max(0, len(console)-4000):])
	}
}

// killVMs ends the processes that live in the world's run directory.
func (w *World) killVMs() { killBelow(w.Run) }

// killBelow ends the processes of the VMs that an agent with that run directory
// made: each VM's root is there. It returns how many there were.
func killBelow(run string) (n int) {
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		root, err := os.Readlink("/proc/" + e.Name() + "/root")
		if err != nil || !strings.HasPrefix(root, run+"/") {
			continue
		}
		var pid int
		if _, err := fmt.Sscan(e.Name(), &pid); err == nil {
			syscall.Kill(pid, syscall.SIGKILL)
			n++
		}
	}
	return n
}

// Image imports one of the test images.
func (w *World) Image(name string) string {
	w.TB.Helper()
	layout, err := images.Build(context.Background(), name, images.Cache())
	w.must(err)
	_, err = w.API.Import(context.Background(), api.ImportRequest{Path: layout, Name: name}, nil)
	w.must(err)
	return name
}

// Start makes a VM and waits until it runs.
func (w *World) Start(q api.CreateRequest) api.VM {
	w.TB.Helper()
	v, err := w.API.Create(context.Background(), q)
	w.must(err)
	return v
}

// VM asks for a VM's state.
func (w *World) VM(name string) api.VM {
	w.TB.Helper()
	v, err := w.API.VM(context.Background(), name)
	w.must(err)
	return v
}

// Await waits until a VM is in one of the states.
func (w *World) Await(name string, states ...api.State) api.VM {
	w.TB.Helper()
	var v api.VM
	w.Eventually(90*time.Second, fmt.Sprintf("%s is %v", name, states), func() error {
		v = w.VM(name)
		if slices.Contains(states, v.State) {
			return nil
		}
		return fmt.Errorf("it is %s (%s)", v.State, v.Reason)
	})
	return v
}

// Eventually waits for what to hold.
func (w *World) Eventually(timeout time.Duration, what string, check func() error) {
	w.TB.Helper()
	deadline := time.Now().Add(timeout)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			w.TB.Fatalf("%s: not within %v: %v", what, timeout, err)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// Dial connects to an address of the world's network.
func (w *World) Dial(ctx context.Context, network, addr string) (net.Conn, error) {
	var conn net.Conn
	err := w.inside(func() error {
		var d net.Dialer
		var err error
		conn, err = d.DialContext(ctx, network, addr)
		return err
	})
	return conn, err
}

// Listen opens a port of the world's host.
func (w *World) Listen(network, addr string) (net.Listener, error) {
	var l net.Listener
	err := w.inside(func() error {
		var err error
		l, err = net.Listen(network, addr)
		return err
	})
	return l, err
}

func (w *World) inside(f func() error) error { return inNetns(w.netns, f) }

// inNetns runs f on a thread that is in a network namespace: sockets belong to
// the network of the thread that makes them.
func inNetns(netns string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		// The thread is not unlocked, and so ends with the goroutine: it
		// must not serve others.
		runtime.LockOSThread()
		ns, err := os.Open("/run/netns/" + netns)
		if err == nil {
			defer ns.Close()
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// HTTP returns a client of the world's network that keeps no connections.
func (w *World) HTTP() *http.Client {
	return &http.Client{
		Transport: &http.Transport{DialContext: w.Dial, DisableKeepAlives: true},
		Timeout:   90 * time.Second,
	}
}

// Get fetches a URL and returns its body.
func (w *World) Get(url string) (string, error) {
	r, err := w.HTTP().Get(url)
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	var body bytes.Buffer
	if _, err := body.ReadFrom(r.Body); err != nil {
		return "", err
	}
	if r.StatusCode != http.StatusOK {
		return body.String(), errors.New(r.Status)
	}
	return body.String(), nil
}

// MustGet fetches a URL that must answer.
func (w *World) MustGet(url string) string {
	w.TB.Helper()
	body, err := w.Get(url)
	if err != nil {
		w.TB.Fatalf("get %s: %v %s", url, err, body)
	}
	return body
}

// Addr is the IPv4 address of a VM and a port of it.
func Addr(v api.VM, port uint16) string {
	return netip.AddrPortFrom(v.Addresses[0], port).String()
}

func (w *World) must(err error) {
	w.TB.Helper()
	if err != nil {
		w.TB.Fatal(err)
	}
}
