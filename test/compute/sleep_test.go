package compute_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/test/world"
)

func TestNapAtEveryDepthKeepsTheGuestAndWakesOnAPacket(t *testing.T) {
	w := world.New(t, "--armed", "0")
	w.Image("web")
	w.Start(api.CreateRequest{Name: "web", Image: "web"})
	url := "http://" + world.Addr(w.VM("web"), 8080)
	for _, depth := range []api.Depth{api.Memory, api.Armed, api.Disk} {
		before := count(t, w, url)
		v, err := w.API.Suspend(t.Context(), "web", api.SuspendRequest{Depth: depth})
		if err != nil {
			t.Fatal(err)
		}
		if v.State != api.Asleep || v.Depth != depth {
			t.Errorf("suspended to %s: got %s %s", depth, v.State, v.Depth)
		}
		if depth != api.Armed && v.PID != 0 {
			t.Errorf("a nap of depth %s has a process, %d", depth, v.PID)
		}
		// The request itself is what wakes it.
		if got := count(t, w, url); got != before+1 {
			t.Errorf("after a nap of depth %s the guest counts %d requests, want %d: it is not the same guest", depth, got, before+1)
		}
		if v := w.VM("web"); v.State != api.Running {
			t.Errorf("after a request it is %s, want running", v.State)
		}
	}
}

// count asks the guest how many times it was asked.
func count(t *testing.T, w *world.World, url string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(w.MustGet(url + "/count")))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestResumedGuestHasTheTimeAndFreshRandomNumbers(t *testing.T) {
	w := world.New(t)
	w.Image("web")
	w.Start(api.CreateRequest{Name: "web", Image: "web"})
	url := "http://" + world.Addr(w.VM("web"), 8080)
	suspend(t, w, "web", api.Memory)
	// Long enough asleep to tell a clock that stood still from one that was
	// set.
	<-time.After(3 * time.Second)
	body := w.MustGet(url + "/time")
	ns, err := strconv.ParseInt(strings.TrimSpace(body), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	if off := time.Since(time.Unix(0, ns)); off.Abs() > time.Second {
		t.Errorf("after 3 s asleep the guest's clock is off by %v", off)
	}
}

func suspend(t *testing.T, w *world.World, name string, depth api.Depth) api.VM {
	t.Helper()
	v, err := w.API.Suspend(t.Context(), name, api.SuspendRequest{Depth: depth})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestManyWakesAtOnceAreOne(t *testing.T) {
	w := world.New(t)
	w.Image("web")
	w.Start(api.CreateRequest{Name: "web", Image: "web"})
	url := "http://" + world.Addr(w.VM("web"), 8080)
	wakes := suspend(t, w, "web", api.Memory).Wakes
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, err := w.Get(url + "/count"); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if _, err := w.API.Resume(t.Context(), "web"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if got := w.VM("web").Wakes; got != wakes+1 {
		t.Errorf("40 callers woke it %d times, want once", got-wakes)
	}
}

// A stream of datagrams goes on while the guest is put to sleep under it again
// and again: it gets every one of them, in order.
func TestPacketsThatComeMeanwhileAreDeliveredInOrder(t *testing.T) {
	w := world.New(t, "--armed", "0")
	w.Image("web")
	w.Start(api.CreateRequest{Name: "web", Image: "web"})
	v := w.VM("web")
	conn, err := w.Dial(t.Context(), "udp", world.Addr(v, 9090))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const packets = 1500
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		tick := time.NewTicker(2 * time.Millisecond)
		defer tick.Stop()
		for i := range packets {
			fmt.Fprintf(conn, "%d", i)
			<-tick.C
		}
	}()
	naps := 0
	for done := false; !done; {
		select {
		case <-sent:
			done = true
		default:
		}
		_, err := w.API.Suspend(t.Context(), "web", api.SuspendRequest{Depth: api.Memory})
		if err == nil {
			naps++
		} else if !errors.Is(err, cloudpal.Busy) && !errors.Is(err, cloudpal.Invalid) {
			t.Fatal(err)
		}
	}
	t.Logf("%d naps under %d datagrams", naps, packets)
	url := "http://" + world.Addr(v, 8080)
	w.Eventually(30*time.Second, "the guest has every datagram", func() error {
		// It answers with how many came and how many of them out of order.
		body, err := w.Get(url + "/datagrams")
		if err != nil {
			return err
		}
		if got, want := strings.TrimSpace(body), fmt.Sprintf("%d 0", packets); got != want {
			return fmt.Errorf("came and out of order: %s, want %s", got, want)
		}
		return nil
	})
}

func TestCanaryInGuestMemoryIsNowhereOnTheDisk(t *testing.T) {
	w := world.New(t, "--armed", "0")
	w.Image("web")
	w.Start(api.CreateRequest{Name: "web", Image: "web"})
	url := "http://" + world.Addr(w.VM("web"), 8080)
	// Only the guest ever has the canary whole: it makes it out of a seed,
	// so that the search is not for what the request carried.
	canary := []byte(strings.TrimSpace(w.MustGet(url + "/canary")))
	if len(canary) < 32 {
		t.Fatalf("canary %q", canary)
	}
	// The guest does have it in memory: else the search proves nothing.
	if !found(t, filepath.Join(w.Run, "vm", "web", "memory"), canary) {
		t.Fatal("the canary is not in the guest's memory file")
	}
	assertNotOnDisk(t, w, "awake", canary)
	for _, depth := range []api.Depth{api.Memory, api.Armed, api.Disk} {
		suspend(t, w, "web", depth)
		assertNotOnDisk(t, w, string(depth), canary)
		if w.MustGet(url+"/canary") == "" {
			t.Error("no canary after the nap")
		}
	}
}

func assertNotOnDisk(t *testing.T, w *world.World, when string, canary []byte) {
	t.Helper()
	err := filepath.WalkDir(w.Dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && found(t, path, canary) {
			t.Errorf("%s: the canary is in %s", when, path)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	mounts, err := os.ReadFile("/proc/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		if f[1] == w.Run && (f[2] != "tmpfs" || !strings.Contains(f[3], "noswap")) {
			t.Errorf("guest memory lives on %s, which may reach a disk", strings.TrimSpace(line))
		}
	}
}

// found reports whether a file holds needle. Holes are skipped.
func found(t *testing.T, path string, needle []byte) bool {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		return false // gone meanwhile
	}
	defer f.Close()
	const chunk = 1 << 20
	buf := make([]byte, chunk+len(needle))
	for at := int64(0); ; {
		data, err := f.Seek(at, 3) // SEEK_DATA
		if err != nil {
			return false
		}
		n, err := f.ReadAt(buf, data)
		if bytes.Contains(buf[:n], needle) {
			return true
		}
		if err != nil {
			return false
		}
		at = data + chunk
	}
}

func TestFlippedBitInASealedNapBootsAnew(t *testing.T) {
	w := world.New(t)
	w.Image("web")
	w.Start(api.CreateRequest{Name: "web", Image: "web"})
	url := "http://" + world.Addr(w.VM("web"), 8080)
	suspend(t, w, "web", api.Disk)
	nap := filepath.Join(w.Dir, "state", "vms", "web", "nap.sealed")
	data, err := os.ReadFile(nap)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(nap, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := count(t, w, url); got != 1 {
		t.Errorf("the guest counts %d requests, want 1: it was to boot anew", got)
	}
	if v := w.VM("web"); !strings.Contains(v.Reason, "damaged") {
		t.Errorf("the reason is %q; it does not say that the nap was damaged", v.Reason)
	}
}

func TestPolicySpillsTheLeastRecentlyUsed(t *testing.T) {
	// Room for about one nap in memory.
	w := world.New(t, "--armed", "0", "--nap-memory", "110M")
	w.Image("web")
	names := []string{"first", "second", "third"}
	for _, name := range names {
		w.Start(api.CreateRequest{Name: name, Image: "web"})
		suspend(t, w, name, "")
	}
	w.Eventually(30*time.Second, "the oldest naps are on disk", func() error {
		if v := w.VM("first"); v.Depth != api.Disk {
			return fmt.Errorf("the oldest is %s", v.Depth)
		}
		if v := w.VM("third"); v.Depth != api.Memory {
			return fmt.Errorf("the newest is %s", v.Depth)
		}
		return nil
	})
	// And it still wakes.
	if got := count(t, w, "http://"+world.Addr(w.VM("first"), 8080)); got != 1 {
		t.Errorf("the spilled guest counts %d requests, want 1", got)
	}
}

// A TCP connection that was open before the nap goes on after it.
func TestOpenConnectionOutlivesANap(t *testing.T) {
	w := world.New(t)
	w.Image("web")
	w.Start(api.CreateRequest{Name: "web", Image: "web"})
	conn, err := w.Dial(context.Background(), "tcp", world.Addr(w.VM("web"), 7070)) // echo
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	echo(t, conn, "before")
	suspend(t, w, "web", api.Memory)
	echo(t, conn, "after")
}

func echo(t *testing.T, conn net.Conn, word string) {
	t.Helper()
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	fmt.Fprintln(conn, word)
	buf := make([]byte, len(word)+1)
	for n := 0; n < len(buf); {
		m, err := conn.Read(buf[n:])
		if err != nil {
			t.Fatalf("echo %s: %v", word, err)
		}
		n += m
	}
	if got := strings.TrimSpace(string(buf)); got != word {
		t.Errorf("echo: got %q, want %q", got, word)
	}
}
