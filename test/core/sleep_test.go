package core_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/compute/guest"
	"github.com/tradle/cloudpal/identity"
	"github.com/tradle/cloudpal/test/world"
)

// A palState is what a test reads of GET /v1/pal.
type palState struct {
	Awake    time.Time
	Unlocked time.Time
	Wake     *napState
	Naps     []napState
	Devices  []struct {
		Name           string
		Received, Sent int64
	}
}

type napState struct {
	From, To time.Time
	Reason   string
	Boot     bool
}

func (d *device) state() (p palState) {
	d.r.t.Helper()
	text, err := d.get("/v1/pal", 30*time.Second)
	d.r.must(err)
	d.r.must(json.Unmarshal([]byte(text), &p))
	return p
}

// nap puts the core to sleep for a time and wakes it, not by a packet.
func (r *rig) nap(depth api.Depth, d time.Duration) {
	r.t.Helper()
	_, err := r.API.Suspend(r.t.Context(), r.name, api.SuspendRequest{Depth: depth})
	r.must(err)
	time.Sleep(d)
	_, err = r.API.Resume(r.t.Context(), r.name)
	r.must(err)
}

// reached tells how long the core takes to answer the device's first ping, which
// nobody repeats.
func (d *device) reached(t *testing.T, timeout time.Duration) time.Duration {
	t.Helper()
	begun := time.Now()
	d.Run("ping", "-c1", fmt.Sprintf("-W%d", int(timeout.Seconds())), "10.77.88.1")
	return time.Since(begun)
}

func TestNapsAreTold(t *testing.T) {
	t.Parallel()
	r, ann := newRig(t), newPerson(t)
	r.start(ann)
	r.mustUnlock(ann)
	laptop := r.device(ann, "laptop", ann.laptop, false)
	if p := laptop.state(); p.Wake != nil || len(p.Naps) != 0 || !p.Awake.Equal(p.Unlocked) {
		t.Errorf("it has not slept, and says %+v", p)
	}
	for _, depth := range []api.Depth{api.Armed, api.Memory, api.Disk} {
		begun := time.Now()
		_, err := r.API.Suspend(t.Context(), r.name, api.SuspendRequest{Depth: depth})
		r.must(err)
		time.Sleep(2 * time.Second)
		laptop.reached(t, 10*time.Second)
		r.Eventually(10*time.Second, "it tells its nap", func() error {
			p := laptop.state()
			if p.Wake == nil || p.Wake.To.Before(begun) {
				return fmt.Errorf("it says %+v", p.Wake)
			}
			return nil
		})
		last := *laptop.state().Wake
		if slept := last.To.Sub(last.From); last.From.Before(begun.Add(-time.Second)) || slept < time.Second || slept > 30*time.Second || last.Reason == "" || last.Boot {
			t.Errorf("%s: it says of its nap %+v; it began at %v", depth, last, begun)
		}
	}
	if p := laptop.state(); len(p.Naps) != 3 {
		t.Errorf("after three naps it tells %+v", p.Naps)
	}
	// They are on its volume.
	r.reboot()
	r.mustUnlock(ann)
	p := laptop.state()
	if len(p.Naps) != 4 || !p.Naps[3].Boot || p.Naps[2].Boot {
		t.Errorf("after a boot it tells %+v", p.Naps)
	}
	if p.Wake != nil {
		t.Errorf("it has not slept since its boot, and says %+v", p.Wake)
	}
}

// A core that has lost its sessions, because it booted, speaks first to devices
// that still have theirs: else they would be heard by nobody for a quarter of a
// minute.
func TestABootedCoreSpeaksFirst(t *testing.T) {
	t.Parallel()
	r, ann := newRig(t), newPerson(t)
	r.start(ann)
	r.mustUnlock(ann)
	laptop := r.device(ann, "laptop", ann.laptop, false)
	laptop.reached(t, 10*time.Second)
	laptop.state()
	time.Sleep(3 * time.Second) // the core writes down where the laptop is when it has time, and tells nobody
	before := laptop.wg.Handshake()
	r.reboot()
	r.mustUnlock(ann)
	r.Eventually(8*time.Second, "the core speaks first", func() error {
		if h := laptop.wg.Handshake(); !h.After(before) {
			return fmt.Errorf("the last handshake was %v", h)
		}
		return nil
	})
	if took := laptop.reached(t, 5*time.Second); took > 4*time.Second {
		t.Errorf("the laptop's first ping took %v", took)
	}
}

// After a nap in which a session grew too old, the core, whose clock stood
// still, does not go on with it: whoever speaks first is heard.
func TestAfterALongNap(t *testing.T) {
	t.Parallel()
	r, laptop, phone := twoDevices(t)
	echo(t, laptop.Inside, laptop.Addr.String()+":9000")
	phone.reached(t, 10*time.Second)
	laptop.reached(t, 10*time.Second)
	was := laptop.state()
	before := laptop.wg.Handshake()
	r.nap(api.Memory, 185*time.Second)
	// The phone speaks, to the laptop, which has nothing to say: the core must
	// start the handshake.
	if got, err := phone.says("udp", laptop.Addr.String()+":9000", "hello", 8*time.Second); got != "hello" {
		t.Errorf("the first datagram through the core: %q, %v", got, err)
	}
	if h := laptop.wg.Handshake(); !h.After(before) {
		t.Error("the laptop has its session of before the nap")
	}
	now := laptop.state()
	for i, d := range now.Devices {
		if d.Received <= was.Devices[i].Received || d.Sent < was.Devices[i].Sent {
			t.Errorf("the traffic of %s was %+v and is %+v", d.Name, was.Devices[i], d)
		}
	}
}

// Days cannot be waited for. What a guest has of them can be had at once: the
// host tells it at the wake how long it slept and what time it is, and neither is
// as it was. So the guest's clock is put back by days before it naps, and the host's
// note of the nap after; the devices have sessions of before, or none.
func TestAfterDaysAsleep(t *testing.T) {
	t.Parallel()
	const days = 3 * 24 * time.Hour
	r, laptop, phone := twoDevices(t)
	echo(t, laptop.Inside, laptop.Addr.String()+":9000")
	r.tellTime(time.Now().Add(-days))
	phone.reached(t, 10*time.Second)
	laptop.reached(t, 10*time.Second)
	before := laptop.wg.Handshake()
	time.Sleep(time.Second) // in which the time of a handshake is told

	_, err := r.API.Suspend(t.Context(), r.name, api.SuspendRequest{Depth: api.Memory})
	r.must(err)
	r.StopAgent()
	r.napped(days)
	r.StartAgent()
	if v := r.VM(r.name); v.State != api.Asleep {
		t.Fatalf("it is %s", v.State)
	}
	phone.wg.Forget()
	if got, err := phone.says("udp", laptop.Addr.String()+":9000", "hello", 8*time.Second); got != "hello" {
		t.Errorf("the first datagram through the core: %q, %v", got, err)
	}
	if h := laptop.wg.Handshake(); !h.After(before) {
		t.Error("the laptop has its session of days ago")
	}
	p := laptop.state()
	if p.Wake == nil || p.Wake.To.Sub(p.Wake.From) < days || time.Since(p.Wake.To).Abs() > time.Minute {
		t.Errorf("it tells of its nap: %+v", p.Wake)
	}
}

// moment returns what the host notes of the VM, and where.
func (r *rig) moment() (m map[string]any, file string) {
	r.t.Helper()
	files, err := filepath.Glob(filepath.Join(r.Run, "*", "*", "run.json"))
	r.must(err)
	if len(files) != 1 {
		r.t.Fatalf("the notes of one VM are %v", files)
	}
	text, err := os.ReadFile(files[0])
	r.must(err)
	r.must(json.Unmarshal(text, &m))
	return m, files[0]
}

// napped makes the host, whose agent does not run, believe that the VM has slept
// so long.
func (r *rig) napped(d time.Duration) {
	r.t.Helper()
	m, file := r.moment()
	m["napped"] = time.Now().Add(-d)
	text, err := json.Marshal(m)
	r.must(err)
	r.must(os.WriteFile(file, text, 0o600))
}

// tellTime sets the core's clock, as its host does.
func (r *rig) tellTime(now time.Time) {
	r.t.Helper()
	m, _ := r.moment()
	tap := m["ifname"].(string)
	var guests []struct{ Dst string }
	text, err := r.Command("ip", "-6", "-json", "neigh", "show", "dev", tap).Output()
	r.must(err)
	r.must(json.Unmarshal(text, &guests))
	hello := guest.NewHello(0, "")
	hello.Time = now
	for _, g := range guests {
		if !strings.HasPrefix(g.Dst, "fe80:") {
			continue
		}
		c, err := r.Dial(r.t.Context(), "udp", fmt.Sprintf("[%s%%%s]:%d", g.Dst, tap, guest.Port))
		r.must(err)
		defer c.Close()
		c.SetDeadline(time.Now().Add(5 * time.Second))
		_, err = c.Write(hello.Marshal())
		r.must(err)
		buf := make([]byte, 100)
		n, err := c.Read(buf)
		r.must(err)
		if !hello.IsAnswer(buf[:n]) {
			r.t.Fatalf("it answers %x", buf[:n])
		}
		return
	}
	r.t.Fatalf("behind %s is no guest, only %v", tap, guests)
}

// What the core has taken it has after any power cut.
func TestNothingTakenIsLost(t *testing.T) {
	t.Parallel()
	r, ann := newRig(t), newPerson(t)
	r.start(ann)
	r.mustUnlock(ann)
	laptop := r.device(ann, "laptop", ann.laptop, false)
	first := *ann
	for round := range 4 {
		pid := r.VM(r.name).PID
		time.AfterFunc(time.Second+time.Duration(rand.IntN(2000))*time.Millisecond, func() { syscall.Kill(pid, syscall.SIGKILL) })
		taken := ann.list
		for n := 0; ; n++ {
			ann.add(fmt.Sprintf("device-%d-%d", round, n), identity.NewDeviceKey(), false)
			if _, err := laptop.do("POST", "/v1/list", ann.list.Bytes(), 4*time.Second); err != nil {
				break
			}
			taken = ann.list
		}
		r.boot(pid)
		r.mustUnlock(&first) // which knows of none of them
		text, err := laptop.get("/v1/list", 30*time.Second)
		r.must(err)
		kept, err := identity.ParseList(ann.root.ID(), []byte(text))
		r.must(err)
		if err := kept.Extends(taken); err != nil {
			t.Fatalf("round %d: it had taken %d entries and has %d: %v", round, taken.Len(), kept.Len(), err)
		}
		t.Logf("round %d: %d entries were taken, %d are kept", round, taken.Len(), kept.Len())
		ann.list = kept
	}
}

// A power cut while the volume is made leaves an empty one, or a whole one.
func TestCutOffWhileTheVolumeIsMade(t *testing.T) {
	t.Parallel()
	r, ann := newRig(t), newPerson(t)
	for round := range 4 {
		r.name = fmt.Sprintf("pal-%d", round)
		v := r.start(ann)
		sealed, err := identity.SealUnlock(r.lock().Key, ann.laptop, ann.unlock())
		r.must(err)
		answered := make(chan string, 1)
		ctx, giveUp := context.WithCancel(t.Context())
		q, err := http.NewRequestWithContext(ctx, "POST", "http://"+world.Addr(v, 7460)+"/v1/unlock", bytes.NewReader(sealed))
		r.must(err)
		go func() {
			resp, err := r.HTTP().Do(q)
			if err == nil {
				answered <- resp.Status
				resp.Body.Close()
			} else {
				answered <- "cut off"
			}
		}()
		time.Sleep(time.Duration(50+rand.IntN(500)) * time.Millisecond)
		r.reboot()
		giveUp()
		t.Logf("round %d: the first unlock: %s", round, <-answered)
		r.mustUnlock(ann)
		r.must(r.API.Remove(t.Context(), r.name, true))
	}
}
