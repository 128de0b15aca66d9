package network_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	centerapi "github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/test/world"
)

// A bank is a mint as its operator runs it, on a machine of its own: the signer, which
// has the keys, and beside it what answers.
type bank struct {
	t      *testing.T
	at     *world.Place
	bin    string
	folder string
	trust  string // the mint.json that it gives away
	serve  *exec.Cmd
}

func newBank(t *testing.T, at *world.Place) *bank {
	t.Helper()
	bin, err := world.Binaries()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	b := &bank{t: t, at: at, bin: filepath.Join(bin, "cloudpal"), folder: dir + "/mint", trust: dir + "/mint/mint.json"}
	b.start(b.command("mint", "signer", "--keys", dir+"/keys", "--listen", dir+"/s"), "the signer answers")
	b.run("mint", "init", "--folder", b.folder, "--own", "--issuer", "mint.example", "--signer", dir+"/s", "--listen", at.V4.String()+":7445")
	b.serve = b.start(b.command("mint", "serve", "--folder", b.folder), "the mint answers")
	return b
}

func (b *bank) command(args ...string) *exec.Cmd {
	cmd := b.at.Command(b.bin, args...)
	cmd.Env = append(os.Environ(), "CLOUDPAL_HOME="+filepath.Dir(b.folder))
	return cmd
}

// run runs a command of the mint's operator, and returns what it printed.
func (b *bank) run(args ...string) []byte {
	b.t.Helper()
	var said strings.Builder
	cmd := b.command(args...)
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		b.t.Fatalf("cloudpal %v: %v\n%s", args, err, said.String())
	}
	return out
}

// start starts what runs until the test ends, and returns when it has said that it
// answers.
func (b *bank) start(cmd *exec.Cmd, answers string) *exec.Cmd {
	b.t.Helper()
	says, err := os.CreateTemp(b.t.TempDir(), "says")
	if err != nil {
		b.t.Fatal(err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		b.t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = write, write
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
	write.Close()
	ready, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		defer read.Close()
		told := false
		for lines := bufio.NewScanner(read); lines.Scan(); {
			fmt.Fprintln(says, lines.Text())
			if !told && strings.Contains(lines.Text(), answers) {
				told = true
				close(ready)
			}
		}
	}()
	b.t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		<-ended
		says.Close()
		if text, err := os.ReadFile(says.Name()); err == nil && b.t.Failed() {
			b.t.Logf("%v says:\n%s", cmd.Args, text)
		}
	})
	select {
	case <-ready:
	case <-ended:
		b.t.Fatalf("%v ended", cmd.Args)
	case <-time.After(time.Minute):
		b.t.Fatalf("%v does not say %q", cmd.Args, answers)
	}
	return cmd
}

// voucher returns a file with the code of one that is worth a pack.
func (b *bank) voucher(pack string) string {
	b.t.Helper()
	file := filepath.Join(b.t.TempDir(), "code")
	if err := os.WriteFile(file, b.run("mint", "vouchers", "make", pack, "1"), 0o600); err != nil {
		b.t.Fatal(err)
	}
	return file
}

// owed is what the mint owes to all centers, and of what was deposited.
func (b *bank) owed() (units, deposited int64) {
	b.t.Helper()
	var all []struct{ Owed, Deposited int64 }
	decode(b.t, b.run("mint", "payouts", "--folder", b.folder, "--json"), &all)
	for _, c := range all {
		units, deposited = units+c.Owed, deposited+c.Deposited
	}
	return units, deposited
}

// audit has the operator of a center look, with what that has of its own, whether the
// mint counts its deposits, and returns what they are worth.
func (b *bank) audit(center *world.World) (units int64) {
	b.t.Helper()
	receipts, err := center.Command(b.bin, "center", "receipts", "--json", "--socket", center.Socket()).Output()
	if err != nil {
		b.t.Fatal(err)
	}
	var own struct{ Receipts []struct{ Amount int64 } }
	decode(b.t, receipts, &own)
	for _, r := range own.Receipts {
		units += r.Amount
	}
	file := filepath.Join(b.t.TempDir(), "receipts.json")
	if err := os.WriteFile(file, receipts, 0o600); err != nil {
		b.t.Fatal(err)
	}
	if out := b.run("mint", "audit", b.trust, "--own", file); !strings.Contains(string(out), "nothing is wrong") {
		b.t.Errorf("the audit says %s", out)
	}
	return units
}

// center starts one that takes the bank's tickets, on a machine of its own. A slice of
// 64 units is two minutes awake there.
func (b *bank) center(i *world.Internet) *world.World {
	b.t.Helper()
	tariff := filepath.Join(b.t.TempDir(), "tariff.json")
	if err := os.WriteFile(tariff, []byte(`{"tariff": {"core": 36864}, "slice": 64, "classes": ["paid"]}`), 0o600); err != nil {
		b.t.Fatal(err)
	}
	return world.NewCenter(b.t, i, "--core", world.Core(b.t), "--pal-disk", "256M", "--idle", "1h", "--tickets", b.trust, "--tariff", tariff)
}

// TestPayARemoteCenter: a person buys tickets by voucher, and their pal lives on them at
// a center that does not know them, while the phone is off and the center is killed. They
// leave, and pay another center with what is left. No unit is lost.
func TestPayARemoteCenter(t *testing.T) {
	t.Parallel()
	const week = 7 * 64 // units
	i := world.NewInternet(t)
	b := newBank(t, i.Join())
	center := b.center(i)
	l := i.Join().Laptop()
	to := []string{"--center", center.CenterAddress().String(), "--name", "laptop"}

	// Who has no tickets is told how to get some.
	out, err := l.Try(append([]string{"up", "--json"}, to...)...)
	if err == nil || !strings.Contains(err.Error(), "hint: buy some") || !strings.Contains(string(out), `"phrase": "`) {
		t.Fatalf("without a wallet: %v, and it prints %s", err, out)
	}
	l.Cloudpal("wallet", "buy", "week", "--mint", b.trust, "--voucher", b.voucher("week"), "--now")
	s := l.Up(to...)
	m := s.Money
	if m == nil || m.Issuer != "mint.example" || m.Stage != centerapi.Funded || m.Left+m.Ahead != week || m.Ahead != week-64 || m.Units != 0 || s.Problem != "" {
		t.Fatalf("up leaves %+v, trouble %q", m, s.Problem)
	}

	// No device is there, and the center is killed: the pal goes on when its first slice
	// is used up.
	kill(t, s.Agent.PID)
	center.KillAgent()
	center.StartAgent()
	center.CenterAddress()
	vm, woken := "pal-"+string(s.Pal.ID), s.Pal.Wakes
	every(t, 2*time.Second, 10*time.Minute, "the second slice is used", func() bool {
		s = l.Status()
		return s.Money != nil && s.Money.Stage == centerapi.Funded && week-s.Money.Left-s.Money.Ahead > 64
	})
	if v := center.VM(vm); v.State != api.Running || s.Pal.Boots != 1 || s.Pal.Wakes != woken || s.Problem != "" {
		t.Errorf("paid ahead the pal is %+v (%s), trouble %q", s.Pal, v.State, s.Problem)
	}
	h := &house{t: t, phone: i.Join()}
	h.phone.WireGuard(l.Phone)
	for _, p := range s.Network {
		if p.Addr().Is4() {
			h.core = p.Addr().Next()
		}
	}
	if _, err := h.udp(h.phone, patience); err != nil {
		t.Errorf("the phone is on again: %v", err)
	}

	// They close the tab: the pal naps, and all that was not used is back.
	var tabs []struct{ ID string }
	decode(t, l.Cloudpal("wallet", "tabs", "--json"), &tabs)
	if len(tabs) != 1 {
		t.Fatalf("there are tabs %v", tabs)
	}
	events, err := center.API.Events(t.Context(), vm, 0, 0)
	if err != nil || len(events) == 0 {
		t.Fatal(events, err)
	}
	l.Cloudpal("wallet", "close", tabs[0].ID, "--now")
	naps(t, center.API, vm, events[len(events)-1].N)
	got := purse(t, l)
	if owed, deposited := b.owed(); got+owed != week || owed <= 64 || owed > 3*64 || b.audit(center) != deposited {
		t.Errorf("of %d units %d are back, and the mint owes %d of %d", week, got, owed, deposited)
	}

	// They leave for another center, with the same wallet.
	l.Cloudpal("destroy", "--yes")
	other := b.center(i)
	s = l.Up("--center", other.CenterAddress().String(), "--name", "laptop")
	if m := s.Money; m == nil || m.Stage != centerapi.Funded || m.Left == 0 || m.Ahead == 0 || s.Problem != "" {
		t.Fatalf("at another center up leaves %+v, trouble %q", m, s.Problem)
	}
	l.Cloudpal("destroy", "--yes")

	// What came back just now rests: up says so, and how to go on all the same.
	l.Cloudpal("wallet", "sync")
	to = []string{"--center", other.CenterAddress().String(), "--name", "laptop"}
	if _, err := l.Try(append([]string{"up", "--json"}, to...)...); err == nil || !strings.Contains(err.Error(), "rest until") || !strings.Contains(err.Error(), "cloudpal wallet pay --now") {
		t.Errorf("with tickets that rest: %v", err)
	}
	l.Cloudpal("wallet", "pay", "--now", "--ahead", "0h")
	if m := l.Up(to...).Money; m == nil || m.Stage != centerapi.Funded || m.Ahead != 0 || m.Units == 0 {
		t.Errorf("paid by hand, up leaves %+v", m)
	}
	l.Cloudpal("destroy", "--yes")
	l.Cloudpal("wallet", "sync", "--now")
	got = purse(t, l)
	if owed, _ := b.owed(); got+owed != week {
		t.Errorf("of %d units there are %d, and the mint owes %d", week, got, owed)
	}
}

// purse is what a laptop's wallet has, in units.
func purse(t *testing.T, l *world.Laptop) int64 {
	t.Helper()
	var b struct{ Paid, Moving int64 }
	decode(t, l.Cloudpal("wallet", "list", "--json"), &b)
	return b.Paid + b.Moving
}

// every looks again and again, so long apart, until something is so.
func every(t *testing.T, d, timeout time.Duration, what string, is func() bool) {
	t.Helper()
	tick, end := time.NewTicker(d), time.After(timeout)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("%s: not within %v", what, timeout)
		}
	}
}
