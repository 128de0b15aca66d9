//go:build linux

package jail

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal/test/apart"
)

// TestMain: jails mount.
func TestMain(m *testing.M) { apart.Main(m, unix.CLONE_NEWNS, nil) }

func require(t *testing.T) {
	t.Helper()
	apart.Root(t, "it makes jails")
	if _, err := os.Stat(Prlimit); err != nil {
		apart.Skip(t, "needs "+Prlimit+", of util-linux")
	}
}

const uid = 1_900_777_000

// cell is a jail whose process runs a line of shell. It sees the host's /usr,
// a directory of its own, "own", in memory, and an empty
// file where shells want /dev/null.
func cell(t *testing.T, line string) Config {
	t.Helper()
	require(t)
	root := t.TempDir()
	if err := unix.Mount("jail-test", root, "tmpfs", 0, "mode=0755,size=1g"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(root, unix.MNT_DETACH) })
	err := errors.Join(
		os.Mkdir(filepath.Join(root, "usr"), 0o755), os.Mkdir(filepath.Join(root, "own"), 0o700),
		os.Chown(filepath.Join(root, "own"), uid, uid),
		os.Mkdir(filepath.Join(root, "dev"), 0o755), os.WriteFile(filepath.Join(root, "dev/null"), nil, 0o444))
	for _, name := range []string{"bin", "lib", "lib64"} {
		err = errors.Join(err, os.Symlink("usr/"+name, filepath.Join(root, name)))
	}
	said, openErr := os.Create(filepath.Join(t.TempDir(), "said"))
	if err := errors.Join(err, openErr); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { said.Close() })
	name := fmt.Sprintf("jail-%d-%s", os.Getpid(), strings.ToLower(strings.NewReplacer("/", "-", "_", "-").Replace(t.Name())))
	return Config{
		Name: name, Root: root, UID: uid, Binds: []Bind{{From: "/usr", To: "usr"}},
		Path: "/usr/bin/sh", Args: []string{"-c", line}, Errors: said,
		Limits: Limits{Memory: 64 << 20, Tasks: 20, Files: 100},
	}
}

// patience is how long anything may take that should take no time.
const patience = 20 * time.Second

func started(t *testing.T, c Config) *Process {
	t.Helper()
	p, err := Start(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Kill(); err != nil {
			t.Error(err)
		}
		gone(t, c)
	})
	return p
}

// gone fails the test if the jail's cgroup is still there.
func gone(t *testing.T, c Config) {
	t.Helper()
	left, err := filepath.Glob("/sys/fs/cgroup/*" + parent + "/" + c.Name)
	if unified, _ := filepath.Glob("/sys/fs/cgroup" + parent + "/" + c.Name); err != nil || len(left)+len(unified) > 0 {
		t.Errorf("cgroups are left: %v %v %v", left, unified, err)
	}
}

// said returns what the process has written, once done says that it is all.
func said(t *testing.T, c Config, done func(text string) bool) string {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		data, err := os.ReadFile(c.Errors.Name())
		if err != nil {
			t.Fatal(err)
		}
		if done(string(data)) {
			return string(data)
		}
		if time.Now().After(end) {
			t.Fatalf("it said only %q", data)
		}
	}
}

func ready(text string) bool { return strings.Contains(text, "ready\n") }

func ended(t *testing.T, p *Process) End {
	t.Helper()
	select {
	case <-p.Done():
		return p.End()
	case <-time.After(patience):
		t.Fatal("it does not end")
		return End{}
	}
}

func status(t *testing.T, pid int) map[string]string {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]string{}
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(line, ":")
		fields[name] = strings.Join(strings.Fields(value), " ")
	}
	return fields
}

func TestAProcessIsNobodyAndHasNothing(t *testing.T) {
	c := cell(t, "echo ready; read never; sleep 1000")
	extra, err := os.Create(filepath.Join(t.TempDir(), "extra"))
	if err != nil {
		t.Fatal(err)
	}
	defer extra.Close()
	c.Files = []*os.File{extra}
	p := started(t, c)
	said(t, c, ready)
	me := fmt.Sprint(uid)
	who := strings.Join([]string{me, me, me, me}, " ")
	s := status(t, p.PID())
	for field, want := range map[string]string{
		"Uid": who, "Gid": who, "Groups": "", "CapInh": "0000000000000000", "CapPrm": "0000000000000000",
		"CapEff": "0000000000000000", "CapAmb": "0000000000000000",
	} {
		if s[field] != want {
			t.Errorf("%s: got %q, want %q", field, s[field], want)
		}
	}
	for _, ns := range []string{"mnt", "net", "ipc", "uts"} {
		ours, err1 := os.Readlink("/proc/self/ns/" + ns)
		its, err2 := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", p.PID(), ns))
		if err := errors.Join(err1, err2); err != nil || ours == its {
			t.Errorf("namespace %s: got %s, which is ours; %v", ns, its, err)
		}
	}
	dev, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", p.PID()))
	if err != nil || strings.Count(string(dev), ":") != 1 || !strings.Contains(string(dev), "lo:") {
		t.Errorf("got interfaces %s, %v; want lo alone", dev, err)
	}
	fds, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.PID()))
	if err != nil || len(fds) != 4 {
		t.Errorf("got descriptors %v, %v; want 0 to 3", fds, err)
	}
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", p.PID()))
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Join(strings.Fields(string(limits)), " ")
	for _, want := range []string{"Max open files 100 100", "Max core file size 0 0", "Max processes 80 80"} {
		if !strings.Contains(text, want) {
			t.Errorf("got limits %s, want %q", text, want)
		}
	}
}

func TestAProcessSeesOnlyItsOwnFiles(t *testing.T) {
	c := cell(t, `echo /*; echo $PATH $HOME; id -u; touch /own/mine && echo own;
		touch /usr/x || echo usr is read-only; touch /x || echo the root is another\'s;
		chroot / true || echo no chroot; mount -t tmpfs x /own || echo no mount; cd ../../..; echo $PWD /etc/*; echo ready`)
	p := started(t, c)
	text := said(t, c, ready)
	for _, want := range []string{
		"/bin /dev /lib /lib64 /own /usr\n", "/usr/bin /\n", fmt.Sprintln(uid), "own\n", "usr is read-only\n",
		"the root is another's\n", "no chroot\n", "no mount\n", "/ /etc/*\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("got %q, want it to have %q", text, want)
		}
	}
	if end := ended(t, p); end.Status == nil || end.Status.ExitStatus() != 0 {
		t.Errorf("got %+v, want exit status 0", end)
	}
	if entries, err := os.ReadDir(filepath.Join(c.Root, "usr")); err != nil || len(entries) > 0 {
		t.Errorf("the host sees %d of its files in the jail, %v", len(entries), err)
	}
}

func TestExitStatusAndProcessorTimeAreTold(t *testing.T) {
	c := cell(t, "i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; exit 3")
	end := ended(t, started(t, c))
	if end.Status == nil || end.Status.ExitStatus() != 3 || end.Killed || end.OutOfRoom {
		t.Errorf("got %+v, want exit status 3", end)
	}
	if end.CPU < time.Millisecond || end.CPU > patience {
		t.Errorf("got %v of processor time", end.CPU)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	for what, line := range map[string]string{
		"its own":     "a=0123456789abcdef; while :; do a=$a$a; done",
		"in its file": "exec yes > /own/file",
	} {
		t.Run(what, func(t *testing.T) {
			c := cell(t, waitForGo+line)
			c.Limits.Memory = 32 << 20
			p := started(t, c)
			letGo(t, c)
			end := ended(t, p)
			if !end.OutOfRoom || end.Killed || end.Status == nil || end.Status.Signal() != syscall.SIGKILL {
				t.Errorf("got %+v, want it ended by the kernel for its memory", end)
			}
			if info, err := os.Stat(filepath.Join(c.Root, "own/file")); err == nil && info.Size() > 32<<20 {
				t.Errorf("it wrote %d bytes of memory", info.Size())
			}
		})
	}
}

func TestTasksAreBounded(t *testing.T) {
	c := cell(t, waitForGo+"while sleep 1000 & do echo one; done")
	p := started(t, c)
	letGo(t, c)
	end := ended(t, p)
	if end.Status == nil || end.Status.ExitStatus() == 0 {
		t.Errorf("got %+v, want a shell that could not fork", end)
	}
	text := said(t, c, func(string) bool { return true })
	if n := strings.Count(text, "one\n"); n == 0 || n > 19 {
		t.Errorf("got %d processes beside the first, want 1 to 19: %s", n, text)
	}
	gone(t, c) // with all of them
}

// waitForGo has a shell wait until letGo says that Start is done: under cgroup
// v1 a process is put into its group only after its first instructions.
const waitForGo = "while ! [ -e /own/go ]; do :; done; "

func letGo(t *testing.T, c Config) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(c.Root, "own/go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestProcessorTimeIsBounded says how long it takes at least: a slow machine
// makes no difference. One that is itself held back for a moment does, since
// that moment is counted as the process's: one bounded window of three is enough.
func TestProcessorTimeIsBounded(t *testing.T) {
	c := cell(t, "while :; do :; done")
	c.Limits.CPU = 0.2
	p := started(t, c)
	const use = 300 * time.Millisecond
	var used, took time.Duration
	for n := 0; n < 3 && took < 3*use; n++ {
		begin := time.Now()
		used = hasUsed(t, p, used+use)
		took = time.Since(begin)
	}
	if took < 3*use {
		t.Errorf("%v of processor time took %v, want some 1.5 s", use, took)
	}
	if err := p.SetCPU(0, false); err != nil {
		t.Error(err)
	}
	hasUsed(t, p, used+use)
	if err := p.SetCPU(-1, false); err != nil {
		t.Error(err)
	}
}

// Two that want one processor share it, unless one gives way; and again when it
// no longer does.
func TestOneThatGivesWay(t *testing.T) {
	cellA, cellB := cell(t, "while :; do :; done"), cell(t, "while :; do :; done")
	cellB.Name += "-b"
	a, b := started(t, cellA), started(t, cellB)
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	for n := 0; one.Count() == 0; n++ {
		if all.IsSet(n) {
			one.Set(n)
		}
	}
	for _, p := range []*Process{a, b} {
		if err := unix.SchedSetaffinity(p.PID(), &one); err != nil {
			t.Fatal(err)
		}
	}
	// share is the part of the processor that a has while b uses some of it.
	share := func(giveWay bool) float64 {
		if err := a.SetCPU(0, giveWay); err != nil {
			t.Fatal(err)
		}
		beginA, beginB := hasUsed(t, a, 0), hasUsed(t, b, 0)
		usedB := hasUsed(t, b, beginB+400*time.Millisecond) - beginB
		usedA := hasUsed(t, a, 0) - beginA
		return usedA.Seconds() / (usedA + usedB).Seconds()
	}
	for _, giveWay := range []bool{false, true, false} {
		// One that gave way may first have to wait for as much as its last turn
		// was worth when it counted little: a second or more, with slow clock ticks.
		got := share(giveWay)
		for n := 0; n < 10 && (got < 0.2) != giveWay; n++ {
			got = share(giveWay)
		}
		if (got < 0.2) != giveWay {
			t.Errorf("giving way: %v; its share is %.2f", giveWay, got)
		}
	}
}

// hasUsed waits until a process has used so much processor time, and returns how
// much that is by then.
func hasUsed(t *testing.T, p *Process, use time.Duration) time.Duration {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		got, err := p.CPU()
		if err != nil {
			t.Fatal(err)
		}
		if got >= use {
			return got
		}
		if time.Now().After(end) {
			t.Fatalf("got %v of processor time, want %v", got, use)
		}
	}
}

// One that may use less than a core keeps to one processor; the others, and this
// program, are not kept to it.
func TestASmallShareIsOfOneProcessor(t *testing.T) {
	var all unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		t.Fatal(err)
	}
	for _, bound := range []struct {
		cores float64
		want  int
	}{{0.5, 1}, {0, all.Count()}, {1.5, all.Count()}} {
		c := cell(t, "sleep 60")
		c.Limits.CPU = bound.cores
		p, err := Start(c)
		if err != nil {
			t.Fatal(err)
		}
		var may unix.CPUSet
		err = unix.SchedGetaffinity(p.PID(), &may)
		if err := errors.Join(err, p.Kill()); err != nil {
			t.Fatal(err)
		}
		if may.Count() != bound.want {
			t.Errorf("bound to %v cores it may use %d processors, want %d", bound.cores, may.Count(), bound.want)
		}
	}
	var now unix.CPUSet
	if err := unix.SchedGetaffinity(0, &now); err != nil || now != all {
		t.Errorf("this thread may now use %d processors (%v)", now.Count(), err)
	}
}

func TestKill(t *testing.T) {
	c := cell(t, "trap '' TERM; echo ready; sleep 1000; sleep 1000")
	p := started(t, c)
	said(t, c, ready)
	for range 2 {
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
	}
	end := p.End()
	if !end.Killed || end.OutOfRoom || end.Status == nil || end.Status.Signal() != syscall.SIGKILL {
		t.Errorf("got %+v, want it killed", end)
	}
	gone(t, c) // with the sleep that it began
}

func TestAttachFindsWhatAnotherRunStarted(t *testing.T) {
	c := cell(t, "echo ready; exec sleep 1000")
	p := started(t, c)
	said(t, c, ready)
	found, err := Attach(c, p.PID(), p.Started())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := found.CPU(); err != nil {
		t.Error(err)
	}
	if err := found.SetCPU(0.5, true); err != nil {
		t.Error(err)
	}
	if err := found.Kill(); err != nil {
		t.Fatal(err)
	}
	if end := found.End(); !end.Killed || end.Status != nil {
		t.Errorf("got %+v, want it killed, and no status", end)
	}
	if end := ended(t, p); end.Status == nil || end.Status.Signal() != syscall.SIGKILL {
		t.Errorf("who started it got %+v, want a signal", end)
	}
	if _, err := Attach(c, p.PID(), p.Started()); err == nil {
		t.Error("a process that is gone is found")
	}
}

func TestAttachRefusesAnotherProcess(t *testing.T) {
	require(t)
	self := os.Getpid()
	began, err := startTime(self)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Attach(Config{Name: "test-none"}, self, began+1); !errors.Is(err, unix.ESRCH) {
		t.Errorf("of another start time: got %v, want %v", err, unix.ESRCH)
	}
	if _, err := Attach(Config{Name: fmt.Sprintf("test-%d-none", self)}, self, began); err == nil {
		t.Error("a process without a jail is found")
	}
}

// TestANameIsUsedAgainAfterACrash leaves a cgroup with another process's counts
// behind.
func TestANameIsUsedAgainAfterACrash(t *testing.T) {
	c := cell(t, "echo ready; exec sleep 1000")
	g, err := newGroup(c.Name, Limits{Memory: 1 << 20, Tasks: 2})
	if err != nil {
		t.Fatal(err)
	}
	busy := exec.Command("sh", "-c", "read go; i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done")
	in, err := busy.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := startIn(g, busy); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(in, "go")
	if err := busy.Wait(); err != nil {
		t.Fatal(err)
	}
	left, err := g.cpu()
	if err != nil || left < 20*time.Millisecond {
		t.Fatalf("got %v of processor time, %v; too little to tell", left, err)
	}
	p := started(t, c)
	said(t, c, ready)
	if got, err := p.CPU(); err != nil || got >= left {
		t.Errorf("got %v of processor time, %v; that is the crashed one's %v too", got, err, left)
	}
}

func TestSweepRemovesWhatIsLeftOfOurs(t *testing.T) {
	lives := cell(t, "exec sleep 1000")
	p := started(t, lives)
	for _, name := range []string{lives.Name + "-left", lives.Name + "-other"} {
		g, err := newGroup(name, Limits{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { g.remove() })
	}
	err := Sweep(func(name string) bool { return name == lives.Name || name == lives.Name+"-left" })
	if err != nil {
		t.Fatal(err)
	}
	gone(t, Config{Name: lives.Name + "-left"})
	if _, err := loadGroup(lives.Name + "-other"); err != nil {
		t.Errorf("another's: %v", err)
	}
	if _, err := p.CPU(); err != nil {
		t.Errorf("the group of a process that runs: %v", err)
	}
}

func TestStartThatFailsLeavesNothing(t *testing.T) {
	for what, change := range map[string]func(c *Config){
		"as root":             func(c *Config) { c.UID = 0 },
		"without prlimit":     func(c *Config) { c.Binds = nil },
		"a bind to nowhere":   func(c *Config) { c.Binds = append(c.Binds, Bind{From: "/usr", To: "gone"}) },
		"a bind of nothing":   func(c *Config) { c.Binds = append(c.Binds, Bind{From: "/gone", To: "own"}) },
		"a root that is gone": func(c *Config) { c.Root += "/gone"; c.Binds = nil },
	} {
		t.Run(what, func(t *testing.T) {
			c := cell(t, "echo ready")
			root := c.Root
			change(&c)
			if p, err := Start(c); err == nil {
				p.Kill()
				t.Error("it is started")
			}
			gone(t, c)
			entries, err := os.ReadDir(filepath.Join(root, "usr"))
			if err != nil || len(entries) > 0 {
				t.Errorf("a bind is left: %d files, %v", len(entries), err)
			}
		})
	}
}

func TestAProgramThatIsNotThereIsTold(t *testing.T) {
	c := cell(t, "")
	c.Path = "/usr/bin/no-such-program"
	end := ended(t, started(t, c))
	if end.Status == nil || end.Status.ExitStatus() == 0 {
		t.Errorf("got %+v, want an exit status that is not 0", end)
	}
	if text := said(t, c, func(text string) bool { return text != "" }); !strings.Contains(text, "no-such-program") {
		t.Errorf("it said %q, want the program's name", text)
	}
}

// TestV2ProcessIsInItsGroupFromTheStart needs a mounted cgroup2, not the
// controllers: where v1 has them, the rest of v2 cannot be tried.
func TestV2ProcessIsInItsGroupFromTheStart(t *testing.T) {
	require(t)
	mount := t.TempDir()
	if err := unix.Mount("jail-test", mount, "cgroup2", 0, ""); err != nil {
		apart.Skip(t, "needs cgroup2 in the kernel: "+err.Error())
	}
	t.Cleanup(func() { unix.Unmount(mount, unix.MNT_DETACH) })
	dir := filepath.Join(mount, fmt.Sprintf("jail-test-%d", os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(dir) })
	var out strings.Builder
	cmd := exec.Command("cat", "/proc/self/cgroup")
	cmd.Stdout = &out
	if err := errors.Join(startIn(v2{dir: dir}, cmd), cmd.Wait()); err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(strings.Split(out.String(), "\n"), func(line string) bool {
		return strings.HasPrefix(line, "0::") && strings.HasSuffix(line, "/"+filepath.Base(dir))
	}) {
		t.Errorf("got %s, want it in %s", out.String(), filepath.Base(dir))
	}
	if _, err := (v2{dir: dir + "-gone"}).enter(cmd.SysProcAttr); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of no group: got %v", err)
	}
}

// startIn starts cmd in a group.
func startIn(g group, cmd *exec.Cmd) error {
	return onThread(func() error {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
		done, err := g.enter(cmd.SysProcAttr)
		if err != nil {
			return err
		}
		defer done()
		return cmd.Start()
	})
}

// TestProcessIsInItsGroupFromTheStart asks a process where it is before anybody
// could move it, and this one's threads, which must not be there.
func TestProcessIsInItsGroupFromTheStart(t *testing.T) {
	require(t)
	name := fmt.Sprintf("jail-test-%d", os.Getpid())
	g, err := newGroup(name, Limits{Memory: 64 << 20, Tasks: 10, CPU: 1})
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	cmd := exec.Command("cat", "/proc/self/cgroup")
	cmd.Stdout = &out
	if err := errors.Join(startIn(g, cmd), cmd.Wait()); err != nil {
		t.Fatal(err)
	}
	dirs, err := parents()
	if err != nil || len(dirs) == 0 {
		t.Fatalf("groups are in %v, %v", dirs, err)
	}
	hierarchies := map[string]bool{}
	for _, dir := range dirs {
		if real, err := filepath.EvalSymlinks(dir); err == nil { // cpu and cpuacct are often one
			hierarchies[real] = true
		}
	}
	if got := strings.Count(out.String(), ":"+filepath.Join(parent, name)+"\n"); got != len(hierarchies) {
		t.Errorf("the process is in\n%swant it in %s, %d times", out.String(), name, len(hierarchies))
	}
	threads, err := filepath.Glob("/proc/self/task/*/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range threads {
		if where, err := os.ReadFile(file); err == nil && strings.Contains(string(where), name) {
			t.Errorf("%s:\n%swant it out of %s", file, where, name)
		}
	}
	if err := g.remove(); err != nil {
		t.Errorf("remove it: %v", err)
	}
	gone(t, Config{Name: name})
}
