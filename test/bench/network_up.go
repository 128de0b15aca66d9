package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/test/world"
)

// ups is how often a person comes to a fresh machine.
const ups = 3

// benchUp measures `cloudpal up` where nothing is but what was built, and again
// where the pal naps.
func benchUp(b *run) error {
	i := world.NewInternet(b)
	var first, again, kernel, boot sample
	for range ups {
		u := b.machine(i)
		first = append(first, u.up(b))
		v := u.vm(b)
		kernel = append(kernel, steps(v, "kernel"))
		boot = append(boot, steps(v, "prepare", "process", "kernel", "process listens"))
		for range 3 {
			u.nap(b)
			again = append(again, u.up(b))
		}
		u.laptop.Cloudpal("destroy", "--yes")
		u.place.Sweep(u.run)
	}
	b.add(told("cloudpal up on a fresh state, p50", "s", first.at(0.5)/1000, boot.at(0.5)/1000, "the boot of the core in it"),
		told("share of the kernel's boot in it", "%", 100*kernel.at(0.5)/first.at(0.5), 0, ""),
		upTo("cloudpal up where the pal naps, the longest of 9", "s", again.at(1)/1000, 2))
	return nil
}

// A machine is one on which somebody says cloudpal up.
type machine struct {
	place  *world.Place
	laptop *world.Laptop
	run    string
	args   []string
	host   *api.Client
	pal    string // its VM
}

func (b *run) machine(i *world.Internet) *machine {
	place, dir := i.Join(), b.TempDir()
	u := &machine{place: place, laptop: place.Laptop(), run: "/run/" + place.Netns()}
	socket := filepath.Join(dir, "host.sock")
	u.args = []string{
		"--name", "laptop", "--state", filepath.Join(dir, "state"), "--run", u.run, "--socket", socket,
		"--", "--core", world.Core(b), "--pal-disk", "256M", "--idle", "1h",
	}
	u.host = api.Dial(socket)
	b.Cleanup(func() {
		if log, err := os.ReadFile(filepath.Join(dir, "state", "center.log")); err == nil && b.Failed() {
			b.Logf("the center said:\n%s", log)
		}
		place.Sweep(u.run)
	})
	return u
}

// up returns how long the command took.
func (u *machine) up(b *run) time.Duration {
	d, _ := timed(func() error {
		u.pal = "pal-" + string(u.laptop.Up(u.args...).Pal.ID)
		return nil
	})
	fmt.Fprintf(os.Stderr, "    up: %v\n", d.Round(time.Millisecond))
	return d
}

func (u *machine) vm(b *run) api.VM {
	v, err := u.host.VM(context.Background(), u.pal)
	b.must(err)
	return v
}

// nap puts the pal to sleep; a packet may come between.
func (u *machine) nap(b *run) {
	for end := time.Now().Add(patience); ; {
		v, err := u.host.Suspend(context.Background(), u.pal, api.SuspendRequest{Depth: api.Memory})
		if err == nil && v.State == api.Asleep {
			return
		}
		if time.Now().After(end) {
			b.Fatalf("the pal does not sleep: it is %s: %v", v.State, err)
		}
	}
}

// benchKeepalive leaves a pal alone with a phone that has WireGuard's persistent
// keepalive on: the phone makes a new session every two minutes.
func benchKeepalive(b *run) error {
	h := world.NewHouse(b, "--idle", "30s")
	_, err := h.Phone.AskCore(h.Core, patience)
	b.must(err)
	h.WG.Set("peer", h.WG.Peer(), "persistent-keepalive", "25")
	h.Await(h.Pal, api.Asleep)
	before := b.stats(h)
	time.Sleep(aloneFor)
	after := b.stats(h)
	awake, asleep := after.Awake-before.Awake, after.Asleep-before.Asleep
	if asleep < aloneFor/2 {
		return fmt.Errorf("it was asleep for %v of %v", asleep, aloneFor)
	}
	b.add(upTo(fmt.Sprintf("awake, alone with a phone's keepalives for %v", aloneFor), "%", 100*awake.Seconds()/(awake+asleep).Seconds(), 3),
		told("wakes meanwhile", "wakes", float64(after.Wakes-before.Wakes), 0, ""))
	return nil
}

const aloneFor = 6 * time.Minute

func (b *run) stats(h *world.House) api.Stats {
	s, err := h.API.Stats(context.Background(), h.Pal)
	b.must(err)
	return s
}
