package network_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/test/world"
)

// TestADayOfAPal goes through what devices and centers do to a pal, one after
// the other, in one house.
func TestADayOfAPal(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	if _, err := h.udp(h.phone, 10*time.Second); err != nil {
		t.Fatalf("the phone's first question: %v", err)
	}
	for _, chapter := range []struct {
		name string
		test func(*testing.T, *house)
	}{
		{"NamesAndBothFamilies", namesAndBothFamilies},
		{"DevicesReachEachOther", devicesReachEachOther},
		{"OnlyGenuinePacketsWake", onlyGenuinePacketsWake},
		{"KeepalivesDoNotWake", keepalivesDoNotWake},
		{"DownloadGoesOnElsewhere", downloadGoesOnElsewhere},
		{"CenterIsKilledMeanwhile", centerIsKilledMeanwhile},
		{"UplinkIsGoneAndBack", uplinkIsGoneAndBack},
		{"NapOfMinutes", napOfMinutes},
		{"SealedPalIsUnlockedByItself", sealedPalIsUnlockedByItself},
		{"RevokedDeviceIsCutOff", revokedDeviceIsCutOff},
	} {
		if !t.Run(chapter.name, func(t *testing.T) {
			was := h.t
			h.t = t
			defer func() { h.t = was }()
			chapter.test(t, h)
		}) && h.VM(h.vm).State == api.Stopped {
			t.Fatal("the core is gone")
		}
	}
}

// namesAndBothFamilies reaches the core by name, IPv4 and IPv6.
func namesAndBothFamilies(t *testing.T, h *house) {
	h.phone.Run("ping", "-c1", "-W5", h.core.String())
	h.phone.Run("ping", "-c1", "-W5", h.core6.String())
	names := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return h.phone.Dial(ctx, network, net.JoinHostPort(h.core.String(), "53"))
	}}
	v4, v6 := h.laptop.Device("laptop")
	for name, want := range map[string][]netip.Addr{"pal": {h.core, h.core6}, "laptop.pal": {v4, v6}} {
		got, err := names.LookupNetIP(t.Context(), "ip", name+".")
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, a := range want {
			if !contains(got, a) {
				t.Errorf("%s is %v, want %v in it", name, got, a)
			}
		}
	}
	if err := h.page(h.phone, 10*time.Second); err != nil {
		t.Error(err)
	}
}

func contains(all []netip.Addr, a netip.Addr) bool {
	for _, b := range all {
		if a == b.Unmap() {
			return true
		}
	}
	return false
}

// devicesReachEachOther goes from phone to laptop through the core. The laptop
// has no TUN device then; a second phone stands for it.
func devicesReachEachOther(t *testing.T, h *house) {
	tablet := h.net.Join()
	tablet.WireGuard(h.laptop.Add("tablet"))
	if err := h.page(tablet, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	v4, v6 := h.laptop.Device("tablet")
	h.phone.Run("ping", "-c1", "-W5", v4.String())
	h.phone.Run("ping", "-c1", "-W5", v6.String())
}

// onlyGenuinePacketsWake sends what is not meant for the pal to its port.
func onlyGenuinePacketsWake(t *testing.T, h *house) {
	h.sleep(api.Memory)
	stranger := h.net.Join()
	endpoint := h.VM(h.vm).WireGuard.HostPort
	center := h.place()
	for _, garbage := range [][]byte{
		nil, []byte("hello"), make([]byte, 148), append([]byte{1, 0, 0, 0}, make([]byte, 144)...),
		append([]byte{4, 0, 0, 0}, make([]byte, 124)...), append([]byte{2, 0, 0, 0}, make([]byte, 88)...),
	} {
		conn, err := stranger.Dial(t.Context(), "udp", netip.AddrPortFrom(center, endpoint).String())
		if err != nil {
			t.Fatal(err)
		}
		for range 20 {
			conn.Write(garbage)
		}
		conn.Close()
	}
	time.Sleep(500 * time.Millisecond)
	h.asleep("after garbage")
	if _, err := h.udp(h.phone, 10*time.Second); err != nil {
		t.Errorf("a genuine packet: %v", err)
	}
	if reason := h.VM(h.vm).Reason; !strings.Contains(reason, h.phone.V4.String()) {
		t.Errorf("it says that it woke for %q, which does not name the phone", reason)
	}
}

// place is the center's address on the internet.
func (h *house) place() netip.Addr {
	h.t.Helper()
	a, err := netip.ParseAddr(h.CenterAddress().Host)
	if err != nil {
		h.t.Fatal(err)
	}
	return a
}

// keepalivesDoNotWake leaves a phone with a keepalive of a second alone with a
// sleeping pal.
func keepalivesDoNotWake(t *testing.T, h *house) {
	if err := h.page(h.phone, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	h.wg.Set("peer", h.wg.Peer(), "persistent-keepalive", "1")
	defer h.wg.Set("peer", h.wg.Peer(), "persistent-keepalive", "off")
	time.Sleep(time.Second)
	h.sleep(api.Memory)
	before := h.wakes()
	time.Sleep(6 * time.Second)
	if n := h.wakes() - before; n != 0 {
		t.Errorf("six keepalives woke it %d times: %s", n, h.VM(h.vm).Reason)
	}
}

// A download is what a device gets from another through the core.
type download struct {
	done chan error
	got  int64
}

const downloadSize = 24 << 20

// download begins one from a tablet to the phone.
func (h *house) download(name string) (d *download, half chan struct{}) {
	h.t.Helper()
	tablet := h.net.Join()
	tablet.WireGuard(h.laptop.Add(name))
	v4, _ := h.laptop.Device(name)
	var l net.Listener
	err := tablet.Inside(func() (err error) {
		l, err = net.Listen("tcp", net.JoinHostPort(v4.String(), "8000"))
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.CopyN(w, zeros{}, downloadSize)
	})}
	go server.Serve(l)
	h.t.Cleanup(func() { server.Close() })
	// The tablet says hello first: the core must know where it is.
	if err := h.page(tablet, 15*time.Second); err != nil {
		h.t.Fatal(err)
	}
	d, half = &download{done: make(chan error, 1)}, make(chan struct{})
	go func() { d.done <- d.run(h.phone, "http://"+v4.String()+":8000/", half) }()
	return d, half
}

func (d *download) run(from *world.Place, url string, half chan struct{}) error {
	r, err := from.HTTP(2 * time.Minute).Get(url)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	buf := make([]byte, 64<<10)
	for d.got < downloadSize {
		n, err := r.Body.Read(buf)
		if was := d.got; was < downloadSize/4 && was+int64(n) >= downloadSize/4 {
			close(half)
		}
		d.got += int64(n)
		if err != nil && d.got < downloadSize {
			return fmt.Errorf("after %d bytes: %w", d.got, err)
		}
	}
	return nil
}

// zeros is a file without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// finishes waits for the download.
func (d *download) finishes(t *testing.T) {
	t.Helper()
	select {
	case err := <-d.done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(2 * time.Minute):
		t.Error("the download does not end")
	}
}

func (d *download) began(t *testing.T, half chan struct{}) {
	t.Helper()
	select {
	case <-half:
	case err := <-d.done:
		t.Fatalf("the download ends at once: %v", err)
	case <-time.After(time.Minute):
		t.Fatal("the download does not begin")
	}
}

// downloadGoesOnElsewhere has the phone leave the house while it downloads.
func downloadGoesOnElsewhere(t *testing.T, h *house) {
	d, half := h.download("camera")
	d.began(t, half)
	h.phone.Move()
	d.finishes(t)
}

// centerIsKilledMeanwhile kills the center while a device downloads through a
// pal of its: the pal does not notice, and the next center finds it.
func centerIsKilledMeanwhile(t *testing.T, h *house) {
	pid := h.VM(h.vm).PID
	d, half := h.download("printer")
	d.began(t, half)
	h.KillAgent()
	d.finishes(t)
	h.StartAgent()
	if v := h.VM(h.vm); v.State != api.Running || v.PID != pid {
		t.Errorf("the next center finds it %s with process %d, was %d", v.State, v.PID, pid)
	}
	// It sleeps and wakes as before: what is known of its sessions outlived
	// the center.
	if err := h.page(h.phone, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	h.KillAgent()
	h.StartAgent()
	h.sleep(api.Memory)
	h.KillAgent()
	h.StartAgent()
	if _, err := h.udp(h.phone, 10*time.Second); err != nil {
		t.Errorf("asleep while the center was killed: %v", err)
	}
}

// uplinkIsGoneAndBack cuts the phone off for a while.
func uplinkIsGoneAndBack(t *testing.T, h *house) {
	h.phone.Cut()
	if _, err := h.udp(h.phone, time.Second); err == nil {
		t.Error("the pal answers a phone that is cut off")
	}
	h.phone.Mend()
	h.Eventually(20*time.Second, "the phone reaches its pal again", func() error {
		_, err := h.udp(h.phone, 2*time.Second)
		return err
	})
}

// napOfMinutes lets a nap outlast the sessions (REJECT_AFTER_TIME, 180 s). Then
// the phone speaks first; and the next time the core's own sessions are old.
func napOfMinutes(t *testing.T, h *house) {
	if testing.Short() {
		t.Skip("takes three minutes")
	}
	if _, err := h.udp(h.phone, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	h.sleep(api.Disk)
	time.Sleep(185 * time.Second)
	h.asleep("after three minutes")
	took, err := h.udp(h.phone, 4*time.Second)
	if err != nil {
		t.Errorf("the first question after three minutes: %v", err)
	}
	t.Logf("answered after %v", took)
}

// sealedPalIsUnlockedByItself drops the pal's memory: the phone's packet boots
// it, locked, and the laptop's agent unlocks it without being asked. The phone,
// whose session the core knows nothing of, is not kept waiting until it
// notices.
func sealedPalIsUnlockedByItself(t *testing.T, h *house) {
	if _, err := h.udp(h.phone, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	boots := h.VM(h.vm).Boots
	h.sleep("sealed")
	if v := h.VM(h.vm); v.State != api.Cold {
		t.Fatalf("it is %s, want cold", v.State)
	}
	begun := time.Now()
	h.Eventually(60*time.Second, "the phone reaches its pal", func() error {
		_, err := h.udp(h.phone, 500*time.Millisecond)
		return err
	})
	t.Logf("booted, unlocked and reached after %v", time.Since(begun).Round(time.Millisecond))
	if n := h.VM(h.vm).Boots; n != boots+1 {
		t.Errorf("it booted %d times", n-boots)
	}
}

// revokedDeviceIsCutOff revokes the phone in the middle of a live session.
func revokedDeviceIsCutOff(t *testing.T, h *house) {
	if _, err := h.udp(h.phone, 10*time.Second); err != nil {
		t.Fatal(err)
	}
	h.laptop.Cloudpal("device", "revoke", "phone")
	if took, err := h.udp(h.phone, 2*time.Second); err == nil {
		t.Errorf("a revoked phone is answered, after %v", took)
	} else if !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, unix.ECONNREFUSED) {
		t.Error(err)
	}
	h.wg.Down()
	again := h.phone.WireGuard(h.laptop.Phone)
	if _, err := h.udp(h.phone, 3*time.Second); err == nil {
		t.Error("a revoked phone has a new session")
	}
	if !again.Handshake().IsZero() {
		t.Error("the core shook hands with a revoked phone")
	}
}
