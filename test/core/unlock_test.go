package core_test

import (
	"bytes"
	"crypto/rand"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/identity"
)

func TestALockedCoreIsUnlockedOnce(t *testing.T) {
	t.Parallel()
	r, ann := newRig(t), newPerson(t)
	begun := time.Now()
	r.start(ann)
	l := r.lock()
	t.Logf("it is locked %v after it was asked for", time.Since(begun).Round(time.Millisecond))
	if !l.Locked || len(l.Key) != 32 || l.WireGuard != nil {
		t.Fatalf("a core that has booted says %+v", l)
	}
	begun = time.Now()
	r.mustUnlock(ann)
	t.Logf("it was unlocked in %v", time.Since(begun).Round(time.Millisecond))
	if l := r.lock(); l.Locked || l.Key != nil || identity.WireGuardKey(l.WireGuard) != ann.secrets.WireGuardKey() {
		t.Errorf("an unlocked core says %+v", l)
	}
	if status := r.reunlock(ann); status != http.StatusConflict {
		t.Errorf("a second unlock: got %d, want 409", status)
	}
	laptop := r.device(ann, "laptop", ann.laptop, false)
	page, err := laptop.get("/", 30*time.Second)
	r.must(err)
	if !strings.Contains(page, "laptop") {
		t.Errorf("the page does not name the laptop:\n%s", page)
	}
	laptop.tryPages(t)
	// What the host keeps of what the core says names nobody.
	log := r.log()
	for _, secret := range []string{"laptop", "10.77.", "fd77:", "198.51.100."} {
		if strings.Contains(log, secret) {
			t.Errorf("the core has printed %q:\n%s", secret, log)
		}
	}
}

// tryPages asks as a page of somebody else's would have a browser ask.
func (d *device) tryPages(t *testing.T) {
	t.Helper()
	for name, c := range map[string]struct {
		method, path, host, origin string
		size                       int
		want                       int
	}{
		"by its name":            {"GET", "/v1/pal", "pal", "", 0, 200},
		"by its name in full":    {"GET", "/v1/pal", "pal.:80", "", 0, 200},
		"by its IPv6 address":    {"GET", "/v1/pal", "[fd77:1234:5678::1]", "", 0, 200},
		"a name that leads here": {"GET", "/v1/pal", "evil.example", "", 0, 421},
		"another page's post":    {"POST", "/v1/list", "pal", "http://evil.example", 10, 403},
		"nothing that is there":  {"GET", "/v1/secrets", "pal", "", 0, 404},
		"another method":         {"PUT", "/v1/list", "pal", "", 10, 405},
		"too much":               {"POST", "/v1/list", "pal", "", identity.MaxListSize + 1, 413},
		"a device of nobody's":   {"POST", "/v1/devices/cd" + strings.Repeat("a", 26) + "/exit", "pal", "", -1, 404},
		"no device":              {"POST", "/v1/devices/..%2f..%2flist/exit", "pal", "", -1, 400},
	} {
		body := make([]byte, max(c.size, 0))
		if c.size < 0 {
			body = []byte(`{"on":true}`)
		}
		q, err := http.NewRequest(c.method, "http://10.77.88.1"+c.path, bytes.NewReader(body))
		d.r.must(err)
		q.Host = c.host
		if c.origin != "" {
			q.Header.Set("Origin", c.origin)
		}
		resp, err := d.HTTP(20 * time.Second).Do(q)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		resp.Body.Close()
		if resp.StatusCode != c.want {
			t.Errorf("%s: got %d, want %d", name, resp.StatusCode, c.want)
		}
		if !resp.Close && resp.StatusCode < 400 {
			t.Errorf("%s: the core keeps the connection", name)
		}
	}
}

// reunlock seals to a key of nobody's: an unlocked core has none.
func (r *rig) reunlock(a *person) int {
	r.t.Helper()
	sealed, err := identity.SealUnlock(identity.NewUnlockKey().Public(), a.laptop, a.unlock())
	r.must(err)
	status, _ := r.ask("POST", "/v1/unlock", sealed)
	return status
}

func TestWhoMayUnlock(t *testing.T) {
	t.Parallel()
	r, ann, eve := newRig(t), newPerson(t), newPerson(t)
	phone := identity.NewDeviceKey()
	ann.add("phone", phone, true)
	old := *ann
	r.start(ann)
	r.mustUnlock(ann)
	laptop := r.device(ann, "laptop", ann.laptop, false)

	// The phone is stolen, and revoked. What the thief has is all that the
	// phone had: the secrets, its keys, and the list as it was.
	lost, _ := ann.list.Device("phone")
	ann.revoke(lost.ID)
	_, err := laptop.do("POST", "/v1/list", ann.list.Bytes(), 30*time.Second)
	r.must(err)
	r.reboot()

	forked := old
	forked.add("accomplice", identity.NewDeviceKey(), true)
	brand, err := identity.NewList(eve.root, v4, v6, time.Now())
	r.must(err)
	brand, err = brand.Add(eve.root, eve.laptop.Device("laptop", true), time.Now())
	r.must(err)
	for name, try := range map[string]struct {
		by   identity.Signer
		u    identity.Unlock
		want int
	}{
		"another person":                                {eve.laptop, eve.unlock(), 403},
		"another person, who has the secrets":           {eve.laptop, identity.Unlock{Secrets: ann.secrets, List: brand, Time: time.Now()}, 403},
		"a revoked device, with the list from before":   {phone, old.unlock(), 403},
		"a revoked device, with a list of its own make": {phone, forked.unlock(), 403},
		"a day that is over":                            {ann.laptop, identity.Unlock{Secrets: ann.secrets, List: ann.list, Time: time.Now().Add(-48 * time.Hour)}, 403},
	} {
		sealed, err := identity.SealUnlock(r.lock().Key, try.by, try.u)
		r.must(err)
		if status, _ := r.ask("POST", "/v1/unlock", sealed); status != try.want {
			t.Errorf("%s: got %d, want %d", name, status, try.want)
		}
		if !r.lock().Locked {
			t.Fatalf("%s has unlocked the core", name)
		}
		time.Sleep(time.Second) // the core does not take more
	}
	for name, body := range map[string][]byte{"nothing": nil, "garbage": bytes.Repeat([]byte{1}, 4000)} {
		if status, _ := r.ask("POST", "/v1/unlock", body); status != 403 && status != 400 {
			t.Errorf("%s: got %d", name, status)
		}
		time.Sleep(time.Second)
	}
	if status, _ := r.ask("POST", "/v1/unlock", make([]byte, identity.MaxUnlock+1)); status != 413 {
		t.Errorf("too much: got %d, want 413", status)
	}
	// Whoever tries without end is not heard any more, and does no harm.
	refused := 0
	for range 30 {
		if status, _ := r.ask("POST", "/v1/unlock", []byte("x")); status == http.StatusTooManyRequests {
			refused++
		}
	}
	if refused == 0 {
		t.Error("30 tries at once are all taken")
	}
	r.Eventually(30*time.Second, "who may unlocks it", func() error {
		// With an older list than the core's: the laptop was not there when
		// the phone was revoked.
		if status := r.unlock(&old, ann.laptop); status != http.StatusNoContent {
			return statusError(status)
		}
		return nil
	})
	got, err := laptop.get("/v1/list", 30*time.Second)
	r.must(err)
	if got != string(ann.list.Bytes()) {
		t.Error("the core has not the list that it had taken")
	}
}

// TestNothingOnTheHost looks for what only a person may know in all that a host
// keeps, whatever the pal does.
func TestNothingOnTheHost(t *testing.T) {
	t.Parallel()
	r, ann := newRig(t), newPerson(t)
	canary := "canary-" + strings.ToLower(rand.Text()[:16])
	ann.add(canary, identity.NewDeviceKey(), false)
	needles := map[string][]byte{
		"the device's name": []byte(canary), "the disk key": ann.secrets.Disk(), "half of it": ann.secrets.Disk()[32:],
		"the WireGuard key": ann.secrets.WireGuard(), "the corestore key": ann.secrets.Corestore(),
		"the device list": ann.list.Bytes()[100:200], "the person's ID": []byte(ann.root.ID().String()),
	}
	r.start(ann)
	r.mustUnlock(ann)
	laptop := r.device(ann, "laptop", ann.laptop, false)
	page, err := laptop.get("/", 30*time.Second)
	r.must(err)
	if !strings.Contains(page, canary) {
		t.Fatal("the page does not show the canary")
	}
	laptop.wg.Down()
	if found := search(t, r.Run, map[string][]byte{"the device's name": []byte(canary)}); len(found) == 0 {
		t.Error("the search does not find what is in the guest's memory: it is no search")
	}
	clean := func(state string) {
		t.Helper()
		for _, hit := range search(t, r.Dir, needles) {
			t.Errorf("%s: %s", state, hit)
		}
	}
	clean("awake")
	for _, depth := range []api.Depth{api.Armed, api.Memory, api.Disk, api.Sealed} {
		_, err := r.API.Suspend(t.Context(), r.name, api.SuspendRequest{Depth: depth})
		r.must(err)
		clean(string(depth))
		if depth != api.Sealed {
			_, err = r.API.Resume(t.Context(), r.name)
			r.must(err)
			clean("awake after " + string(depth))
		}
	}
	_, err = r.API.Resume(t.Context(), r.name)
	r.must(err)
	if !r.lock().Locked {
		t.Error("it was sealed and is not locked")
	}
	clean("locked")
	_, err = r.API.Stop(t.Context(), r.name, api.StopRequest{Timeout: 20 * time.Second})
	r.must(err)
	clean("stopped")
}

// search returns where the needles are in the files below dir.
func search(t *testing.T, dir string, needles map[string][]byte) (found []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return nil // it went meanwhile, or it is a socket
		}
		f, err := os.Open(path)
		if err != nil {
			return nil
		}
		defer f.Close()
		const overlap = 256
		buf := make([]byte, 4<<20)
		for kept := 0; ; {
			n, err := io.ReadFull(f, buf[kept:])
			for name, needle := range needles {
				if bytes.Contains(buf[:kept+n], needle) {
					found = append(found, name+" is in "+path)
				}
			}
			if err != nil {
				return nil
			}
			kept = copy(buf, buf[len(buf)-overlap:])
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// A thief of the disk has a device full of noise; the person, on another host,
// has their pal.
func TestAVolumeOnAnotherHost(t *testing.T) {
	t.Parallel()
	r, ann, eve := newRig(t), newPerson(t), newPerson(t)
	r.start(ann)
	r.mustUnlock(ann)
	ann.add("tablet", identity.NewDeviceKey(), false)
	laptop := r.device(ann, "laptop", ann.laptop, false)
	_, err := laptop.do("POST", "/v1/list", ann.list.Bytes(), 30*time.Second)
	r.must(err)
	taken, err := os.ReadFile(r.volume()) // while it runs, as a thief would
	r.must(err)

	other := newRig(t)
	other.start(ann)
	_, err = other.API.Stop(t.Context(), other.name, api.StopRequest{Timeout: 10 * time.Second})
	other.must(err)
	other.must(os.WriteFile(other.volume(), taken, 0o600))
	_, err = other.API.Start(t.Context(), other.name)
	other.must(err)
	if status := other.unlock(eve, eve.laptop); status != http.StatusForbidden {
		t.Errorf("a thief: got %d, want 403", status)
	}
	now, err := os.ReadFile(other.volume())
	other.must(err)
	if !bytes.Equal(now, taken) {
		t.Error("a thief's try has changed the volume")
	}
	other.mustUnlock(ann)
	laptop = other.device(ann, "laptop", ann.laptop, false)
	got, err := laptop.get("/v1/list", 30*time.Second)
	other.must(err)
	if got != string(ann.list.Bytes()) {
		t.Error("the pal has not the list that it was given on the other host")
	}
}

// TestNobodyElseAsksForTheLock: the port of the lock is the host's.
func TestNobodyElseAsksForTheLock(t *testing.T) {
	t.Parallel()
	r, ann := newRig(t), newPerson(t)
	v := r.start(ann)
	r.mustUnlock(ann)
	laptop := r.device(ann, "laptop", ann.laptop, true)
	_, err := laptop.get("/", 30*time.Second)
	r.must(err)
	laptop.lead(v.Addresses[0].String())
	for _, at := range []netip.AddrPort{
		netip.AddrPortFrom(v.Addresses[0], 7460), // by the tunnel
		netip.MustParseAddrPort("10.77.88.1:7460"),
		netip.MustParseAddrPort("10.77.88.1:1"),
	} {
		resp, err := laptop.HTTP(3 * time.Second).Get("http://" + at.String() + "/v1/lock")
		if err == nil {
			resp.Body.Close()
			t.Errorf("a device reaches %v: %s", at, resp.Status)
		}
	}
}
