// Package core_test runs real cores in real VMs, with real devices: what a
// core keeps to itself, whom it lets in, and what a nap does to it.
package core_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/identity"
	"github.com/tradle/cloudpal/network/overlay"
	"github.com/tradle/cloudpal/test/world"
)

func TestMain(m *testing.M) { world.Main(m) }

const (
	memory = 160 << 20 // as a center gives it
	disk   = 256 << 20
)

// The overlay of all tests.
var (
	v4 = netip.MustParsePrefix("10.77.88.0/24")
	v6 = netip.MustParsePrefix("fd77:1234:5678::/64")
)

// A rig is a host on an internet, with one core.
type rig struct {
	*world.World
	t    *testing.T
	net  *world.Internet
	host *world.Place
	name string // of the VM
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{World: world.New(t), t: t, name: "pal"}
	t.Cleanup(func() {
		if t.Failed() {
			r.API.Kill(context.Background(), r.name, api.SignalRequest{Signal: "QUIT"}) // it tells what it does
			time.Sleep(2 * time.Second)
			t.Logf("the core says:\n%s\n%+v", r.log(), r.VM(r.name))
		}
	})
	r.net = world.NewInternet(t)
	r.host = r.Attach(r.net)
	_, err := r.API.Import(t.Context(), api.ImportRequest{Path: world.Core(t), Name: "core"}, nil)
	r.must(err)
	return r
}

// start makes the VM as a center does.
func (r *rig) start(a *person) api.VM {
	r.t.Helper()
	key := a.secrets.WireGuardKey()
	return r.Start(api.CreateRequest{
		Name: r.name, Host: "core", Image: "core", Memory: memory, Disk: disk, ReadOnly: true, Outbound: true,
		Volumes:   []api.Mount{{Volume: r.name, Path: "/dev/pal", Raw: true}},
		WireGuard: &api.WireGuard{PublicKey: key[:], Port: 51820},
	})
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// log is what the core has printed, and the console's end.
func (r *rig) log() string {
	var b bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	r.API.Logs(ctx, r.name, false, func(e api.LogEntry) error {
		b.Write(e.Data)
		return nil
	})
	console, _ := r.API.Console(ctx, r.name)
	b.WriteString("---\n")
	b.Write(console)
	return b.String()
}

// A lock is what GET /v1/lock answers.
type lock struct {
	Locked    bool
	Key       []byte
	WireGuard []byte
}

// ask asks the core as its host.
func (r *rig) ask(method, path string, body []byte) (status int, answer []byte) {
	r.t.Helper()
	url := "http://" + world.Addr(r.VM(r.name), 7460) + path
	r.Eventually(60*time.Second, "the core answers its host", func() error {
		q, err := http.NewRequest(method, url, bytes.NewReader(body))
		if err != nil {
			return err
		}
		resp, err := r.HTTP().Do(q)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		status = resp.StatusCode
		answer, err = io.ReadAll(resp.Body)
		return err
	})
	return status, answer
}

func (r *rig) lock() (l lock) {
	r.t.Helper()
	status, answer := r.ask("GET", "/v1/lock", nil)
	if status != http.StatusOK {
		r.must(fmt.Errorf("lock: %d %s", status, answer))
	}
	r.must(json.Unmarshal(answer, &l))
	return l
}

// unlock seals to the core as a device does and returns the answer's status.
func (r *rig) unlock(a *person, by identity.Signer) int {
	r.t.Helper()
	sealed, err := identity.SealUnlock(r.lock().Key, by, a.unlock())
	r.must(err)
	status, _ := r.ask("POST", "/v1/unlock", sealed)
	return status
}

func (r *rig) mustUnlock(a *person) {
	r.t.Helper()
	if status := r.unlock(a, a.laptop); status != http.StatusNoContent {
		r.must(fmt.Errorf("unlock: %d", status))
	}
}

// volume is the file of the pal's volume.
func (r *rig) volume() string { return filepath.Join(r.Dir, "state", "volumes", r.name+".raw") }

// reboot ends the VM as a power cut would, and boots it.
func (r *rig) reboot() {
	r.t.Helper()
	pid := r.VM(r.name).PID
	r.must(syscall.Kill(pid, syscall.SIGKILL))
	r.boot(pid)
}

// boot boots the VM after the end of its process, unless a packet has done so
// already.
func (r *rig) boot(ended int) {
	r.t.Helper()
	r.Eventually(30*time.Second, "the VM's end is noticed", func() error {
		if v := r.VM(r.name); v.PID == ended {
			return fmt.Errorf("it is %s", v.State)
		}
		return nil
	})
	_, err := r.API.Resume(context.Background(), r.name)
	r.must(err)
	if !r.lock().Locked {
		r.t.Fatal("it has booted and is not locked")
	}
}

type statusError int

func (s statusError) Error() string { return fmt.Sprintf("status %d", int(s)) }

// A person has a phrase, a list, and a laptop that is an admin.
type person struct {
	t       *testing.T
	root    identity.Root
	secrets identity.Secrets
	list    *identity.List
	laptop  identity.DeviceKey
}

func newPerson(t *testing.T) *person {
	t.Helper()
	phrase := identity.NewPhrase()
	p := &person{t: t, root: phrase.Root(), secrets: phrase.Root().PalSecrets(), laptop: identity.NewDeviceKey()}
	var err error
	if p.list, err = identity.NewList(p.root, v4, v6, time.Now()); err != nil {
		t.Fatal(err)
	}
	p.add("laptop", p.laptop, true)
	return p
}

func (p *person) add(name string, key identity.DeviceKey, admin bool) identity.Device {
	p.t.Helper()
	var err error
	if p.list, err = p.list.Add(p.root, key.Device(name, admin), time.Now()); err != nil {
		p.t.Fatal(err)
	}
	d, _ := p.list.Device(name)
	return d
}

func (p *person) revoke(id identity.DeviceID) {
	p.t.Helper()
	var err error
	if p.list, err = p.list.Revoke(p.root, id, time.Now()); err != nil {
		p.t.Fatal(err)
	}
}

// unlock is what the person's devices know.
func (p *person) unlock() identity.Unlock {
	return identity.Unlock{Secrets: p.secrets, List: p.list, Time: time.Now()}
}

// A device is one with Debian's WireGuard, somewhere on the internet.
type device struct {
	*world.Place
	r           *rig
	wg          *world.WireGuard
	Addr, Addr6 netip.Addr
}

// lead routes what is sent to somewhere through the pal.
func (d *device) lead(to ...string) {
	d.r.t.Helper()
	for _, p := range to {
		d.Run("ip", "route", "replace", p, "dev", d.wg.Name)
	}
}

// twoDevices brings up a core that is unlocked, and two devices of its owner.
func twoDevices(t *testing.T) (r *rig, laptop, phone *device) {
	t.Helper()
	r, ann := newRig(t), newPerson(t)
	key := identity.NewDeviceKey()
	ann.add("phone", key, false)
	r.start(ann)
	r.mustUnlock(ann)
	return r, r.device(ann, "laptop", ann.laptop, false), r.device(ann, "phone", key, false)
}

// device brings up a person's device by the name.
func (r *rig) device(a *person, name string, key identity.DeviceKey, full bool) *device {
	r.t.Helper()
	d, ok := a.list.Device(name)
	if !ok {
		r.t.Fatalf("no device %s", name)
	}
	at := netip.AddrPortFrom(r.host.V4, r.VM(r.name).WireGuard.HostPort)
	c := overlay.Config{Name: name, Key: key, Index: d.Index, V4: v4, V6: v6, Core: a.secrets.WireGuardKey(), Endpoint: at, Full: full}
	text, err := c.Text()
	r.must(err)
	p := r.net.Join()
	dev := &device{Place: p, r: r, wg: p.WireGuard(string(text)), Addr: overlay.Addr(v4, d.Index), Addr6: overlay.Addr(v6, d.Index)}
	if full { // where only the overlay is led into it so far
		dev.lead(v4.String(), v6.String())
	}
	return dev
}

// get fetches a path of the core's, over the overlay.
func (d *device) get(path string, timeout time.Duration) (string, error) {
	return d.do("GET", path, nil, timeout)
}

func (d *device) do(method, path string, body []byte, timeout time.Duration) (string, error) {
	q, err := http.NewRequest(method, "http://"+overlay.Addr(v4, identity.CoreIndex).String()+path, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	resp, err := d.HTTP(timeout).Do(q)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode/100 != 2 {
		err = errors.New(resp.Status)
	}
	return string(data), err
}
