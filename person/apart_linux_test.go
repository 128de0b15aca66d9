package person

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/network/tunnel"
	"github.com/tradle/cloudpal/test/apart"
)

// runTests runs root's in a network and mounts of their own.
func runTests(m *testing.M) {
	apart.Main(m, unix.CLONE_NEWNET|unix.CLONE_NEWNS, func() error {
		for _, path := range []string{"/etc/hosts", "/etc/resolv.conf"} {
			if err := mountFile(path); err != nil {
				return err
			}
		}
		return nil
	})
}

// mountFile has a path lead to an empty file of our own, which the mount keeps.
func mountFile(path string) error {
	f, err := os.CreateTemp("", "cloudpal-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	return unix.Mount(f.Name(), path, "", unix.MS_BIND, "")
}

func TestWholeMachineIsConnected(t *testing.T) {
	apart.Root(t, "it changes addresses and routes")
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		apart.Skip(t, "needs /dev/net/tun")
	}
	c := newCloud(t)
	d := c.newDevice()
	d.up()
	d.confirm()
	if err := d.Connect(t.Context(), ConnectRequest{}); err != nil {
		t.Fatal(err)
	}
	wantMode(t, d, Overlay, "")
	wantHosts(t, "pal", "laptop.pal")
	if _, err := d.Add(t.Context(), AddRequest{Name: "phone"}); err != nil {
		t.Fatal(err)
	}
	wantHosts(t, "pal", "laptop.pal", "phone.pal")
	if c.stores() != "laptop phone" {
		t.Errorf("the pal was not reached through the device: it knows %q", c.stores())
	}

	if err := d.Connect(t.Context(), ConnectRequest{Everything: true}); err != nil {
		t.Fatal(err)
	}
	wantMode(t, d, Everything, "nameserver")
	wantHosts(t)
	c.do(func() {
		if len(c.exits) != 1 {
			t.Errorf("the pal lets out %v, want this device", c.exits)
		}
	})
	if err := d.Disconnect(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantMode(t, d, OnlyAgent, "")
	if d.up(); d.names() != "laptop phone" {
		t.Errorf("there are now %q", d.names())
	}

	// The agent takes the tunnel with it.
	if err := d.Connect(t.Context(), ConnectRequest{}); err != nil {
		t.Fatal(err)
	}
	d.end()
	wantHosts(t)
	if out, err := exec.Command("ip", "link", "show", tunnel.LinkName).CombinedOutput(); err == nil {
		t.Errorf("the interface is still there: %s", out)
	}
}

func wantMode(t *testing.T, d *device, mode Mode, resolv string) {
	t.Helper()
	s, err := d.Agent(t.Context())
	if err != nil || s.Mode != mode {
		t.Errorf("got %+v, %v, want mode %q", s, err, mode)
	}
	text, err := os.ReadFile("/etc/resolv.conf")
	if err != nil || strings.Contains(string(text), "nameserver") != (resolv != "") {
		t.Errorf("names are asked for at %q, %v", text, err)
	}
}

// wantHosts wants just these names in /etc/hosts.
func wantHosts(t *testing.T, names ...string) {
	t.Helper()
	text, err := os.ReadFile("/etc/hosts")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) == 2 && f[0] != "#" {
			got[f[1]]++
		}
	}
	for _, name := range names {
		if got[name] != 2 {
			t.Errorf("%s has %d addresses", name, got[name])
		}
	}
	if len(got) != len(names) {
		t.Errorf("the names are %v, want %q", got, names)
	}
}

// nobody is a user who is not root, with nothing of their own.
var nobody = Owner{65534, 65534}

// The agent of a person who is not root may not touch the machine's network.
func TestOnlyRootConnects(t *testing.T) {
	c := newCloud(t)
	d := c.newDevice()
	d.end()
	if os.Getuid() == 0 {
		if err := os.Chown(d.home.Dir(), nobody.UID, nobody.GID); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(d.home.path(stateName), nobody.UID, nobody.GID); err != nil {
			t.Fatal(err)
		}
		os.Remove(d.home.path(lockName))
		os.Remove(d.home.path(agentLock))
	}
	d.startAs(nobody)
	if err := d.Connect(t.Context(), ConnectRequest{}); !errors.Is(err, cloudpal.Denied) || cloudpal.HintOf(err) == "" {
		t.Errorf("got %v, want %v", err, cloudpal.Denied)
	}
	d.up() // all else works
}

// startAs runs an agent as another user, where that can be.
func (d *device) startAs(who Owner) {
	d.t.Helper()
	dir := d.t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { // the parent is root's alone
		d.t.Fatal(err)
	}
	program := filepath.Join(dir, "agent")
	if err := exec.Command("cp", os.Args[0], program).Run(); err != nil {
		d.t.Fatal(err)
	}
	cmd := exec.Command(program, "-test.run=^$")
	cmd.Env = append(os.Environ(), agentOf+"="+d.home.Dir())
	cmd.Stderr = d.t.Output()
	if os.Getuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(who.UID), Gid: uint32(who.GID)}}
	}
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.stop = func() error {
		cmd.Process.Signal(syscall.SIGTERM)
		d.stop = func() error { return nil }
		return cmd.Wait()
	}
	eventually(d.t, "the agent answers", func() bool { _, err := d.Agent(d.t.Context()); return err == nil })
}
