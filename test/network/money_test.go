package network_test

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	centerapi "github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/test/world"
)

// running returns the processes of our program with all these words in their command
// lines.
func running(words ...string) (pids []int) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		data, err := os.ReadFile(file)
		argv := strings.Split(string(data), "\x00")
		if err != nil || slices.ContainsFunc(words, func(w string) bool { return !slices.Contains(argv, w) }) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// TestUpPaysForItself: a mint of the machine's own sells, the center demands, and the
// pal's life hangs on it; whoever of them is killed, nothing is lost.
func TestUpPaysForItself(t *testing.T) {
	t.Parallel()
	i := world.NewInternet(t)
	home := i.Join()
	l := home.Laptop()
	run := t.TempDir()
	flags := []string{
		"--name", "laptop", "--state", run + "/state", "--run", "/run/" + home.Netns(), "--socket", run + "/host.sock", "--",
		"--core", world.Core(t), "--pal-disk", "256M", "--idle", "1h",
	}
	t.Cleanup(func() {
		for _, name := range []string{"center.log", "own-mint.log"} {
			if log, err := os.ReadFile(filepath.Join(run, "state", name)); err == nil && t.Failed() {
				t.Logf("%s says:\n%s", name, log)
			}
		}
	})
	s := l.Up(flags...)
	t.Cleanup(func() { home.Sweep("/run/" + home.Netns()) })
	m := s.Money
	if m == nil || m.Stage != centerapi.Funded || m.Left != 64 || m.Ahead != 128 || m.Units != 256 || m.Tickets != 4 || m.Costs[0].Hour == 0 || m.Hour == 0 || s.Problem != "" {
		t.Fatalf("up leaves %+v, trouble %q", m, s.Problem)
	}
	folder := run + "/state/own-mint"
	mints, signers := running("mint", "serve", folder), running("mint", "signer", folder+"/keys")
	if len(mints) != 1 || len(signers) != 1 {
		t.Fatalf("there are mints %v and signers %v", mints, signers)
	}
	h := &house{t: t, phone: i.Join()}
	h.phone.WireGuard(l.Phone)
	for _, p := range s.Network {
		if p.Addr().Is4() {
			h.core = p.Addr().Next()
		}
	}

	// The mint is killed: the pal lives on, and up brings the mint back.
	kill(t, mints[0])
	if _, err := h.udp(h.phone, patience); err != nil {
		t.Errorf("without the mint the phone: %v", err)
	}
	if again := l.Up(flags...); again.Money.Units != 256 || again.Money.Left != 64 || again.Problem != "" {
		t.Errorf("after the mint was killed up leaves %+v, trouble %q", again.Money, again.Problem)
	}
	if now := running("mint", "serve", folder); len(now) != 1 || now[0] == mints[0] {
		t.Errorf("there are mints %v", now)
	}

	// The agent is killed, and the money ends: the pal naps, whatever wakes it.
	kill(t, s.Agent.PID)
	var paid struct{ Left, Ahead int }
	if decode(t, l.Cloudpal("wallet", "pay", "--ahead", "4d", "--json"), &paid); paid.Ahead != 192 {
		t.Errorf("paid four days ahead it says %+v", paid)
	}
	var tabs []struct{ ID string }
	decode(t, l.Cloudpal("wallet", "tabs", "--json"), &tabs)
	if len(tabs) != 1 {
		t.Fatalf("there are tabs %v", tabs)
	}
	host := api.Dial(run + "/host.sock")
	defer host.Close()
	name := "pal-" + string(s.Pal.ID)
	events, err := host.Events(t.Context(), name, 0, 0)
	if err != nil || len(events) == 0 {
		t.Fatal(events, err)
	}
	l.Cloudpal("wallet", "close", tabs[0].ID, "--now")
	napped := naps(t, host, name, events[len(events)-1].N)
	h.udp(h.phone, time.Second) // wakes it, for a moment
	naps(t, host, name, napped)
	if poor := l.Status(); poor.Money == nil || poor.Money.Stage == centerapi.Funded || poor.Money.Units < 440 {
		t.Errorf("without money the status is %+v", poor.Money)
	}

	// Paid again, all is as it was.
	back := l.Up(flags...)
	if back.Money.Stage != centerapi.Funded || back.Pal.Boots != s.Pal.Boots {
		t.Errorf("paid again: %+v, boots %d, were %d", back.Money, back.Pal.Boots, s.Pal.Boots)
	}
	if _, err := h.udp(h.phone, patience); err != nil {
		t.Errorf("paid again, the phone: %v", err)
	}

	// Down takes back what was not used, up goes on with the same wallet.
	var down struct{ Back int }
	decode(t, l.Cloudpal("down", "--json"), &down)
	if down.Back < 3*64-3 {
		t.Errorf("down took %d units back", down.Back)
	}
	if left := append(running("mint", folder), running("mint", folder+"/keys")...); len(left) > 0 {
		t.Errorf("after down there are processes %v", left)
	}
	if last := l.Up(flags...); last.Money.Issuer != m.Issuer || last.Money.Stage != centerapi.Funded || last.Money.Units+last.Money.Left+last.Money.Ahead < 448-6 {
		t.Errorf("up after down leaves %+v", last.Money)
	}
	l.Cloudpal("destroy", "--yes")
	var wallet struct{ Free int }
	decode(t, l.Cloudpal("wallet", "list", "--json"), &wallet)
	if wallet.Free < 448-9 {
		t.Errorf("after destroy the wallet has %d", wallet.Free)
	}
	if left := running("mint", folder); len(left) > 0 {
		t.Errorf("after destroy there are mints %v", left)
	}
}

func decode(t *testing.T, data []byte, v any) {
	t.Helper()
	if err := json.Unmarshal(data, v); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
}

// kill ends a process as a crash would, and returns when it is gone.
func kill(t *testing.T, pid int) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil {
		t.Fatal(err)
	}
	gone := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := 0, error(unix.EINTR)
	for err == unix.EINTR {
		n, err = unix.Poll(gone, int(patience.Milliseconds()))
	}
	if n != 1 {
		t.Fatalf("process %d is still there (%v)", pid, err)
	}
}

// naps waits until a VM naps, after one of its events, and returns the number of
// that.
func naps(t *testing.T, host *api.Client, name string, after int64) int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		events, err := host.Events(ctx, name, after, api.MaxWait)
		if err != nil {
			t.Fatalf("it does not nap: %v", err)
		}
		for _, e := range events {
			if after = e.N; e.What == api.Napped {
				return after
			}
		}
	}
}
