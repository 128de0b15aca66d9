package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal/compute/guest"
)

func TestParseSignal(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]unix.Signal{
		"SIGTERM": 15, "TERM": 15, "term": 15, " sigquit\n": 3, "15": 15, "64": 64, "SIGRTMIN": 34, "RTMIN+3": 37, "SIGRTMIN+30": 64,
		"SIGRTMAX": 64, "RTMAX-0": 64, "sigrtmax-3": 61, "RTMAX-30": 34, "RTMAX-31": 0, "RTMAX+1": 0, "RTMAX-": 64, "RTMAX-99999999999999999999": 0,
		"": 0, "SIG": 0, "0": 0, "-1": 0, "65": 0, "RTMIN+31": 0, "RTMIN-1": 0, "RTMIN+99999999999999999999": 0, "HUH": 0, "SIGSIGTERM": 0,
	} {
		got, err := parseSignal(name)
		if got != want || (err == nil) != (want != 0) {
			t.Errorf("%q: got %d, %v; want %d", name, got, err, want)
		}
	}
}

func FuzzParseSignal(f *testing.F) {
	f.Add("SIGRTMIN+3")
	f.Add("9")
	f.Fuzz(func(t *testing.T, name string) {
		if sig, err := parseSignal(name); err == nil && (sig < 1 || sig > maxSignal) {
			t.Errorf("%q: got %d", name, sig)
		}
	})
}

func TestEnvironment(t *testing.T) {
	t.Parallel()
	env := []string{"A=1", "AB=2"}
	for _, c := range []struct{ got, want []string }{
		{withEntry(env, "A=3"), []string{"AB=2", "A=3"}},
		{withEntry(env, "C=3"), []string{"A=1", "AB=2", "C=3"}},
		{withEntry(nil, "C="), []string{"C="}},
		{withDefault(env, "A=3"), []string{"A=1", "AB=2"}},
		{withDefault(env, "C=3"), []string{"A=1", "AB=2", "C=3"}},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("got %q, want %q", c.got, c.want)
		}
	}
	if env[0] != "A=1" || len(env) != 2 {
		t.Errorf("what was there is changed: %q", env)
	}
}

func TestEtcSaysWhereTheImageIs(t *testing.T) {
	t.Parallel()
	cfg := guest.Config{Hostname: "notes", Net: guest.Net{
		Addresses: []netip.Addr{netip.MustParseAddr("10.201.0.16"), netip.MustParseAddr("fdc1:d00::10")},
		DNS:       []netip.Addr{netip.MustParseAddr("10.201.0.1")},
	}}
	want := "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n10.201.0.16\tnotes\nfdc1:d00::10\tnotes\n"
	if got := hosts(cfg); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := resolvConf(cfg.Net), "nameserver 10.201.0.1\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := resolvConf(guest.Net{}); got != "" {
		t.Errorf("without DNS: got %q", got)
	}
}

// programs makes a directory with one of each kind of file.
func programs(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, mode := range map[string]fs.FileMode{"a/run": 0o644, "b/run": 0o755, "a/text": 0o644, "b/dir/x": 0o755} {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, mode)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFindLooksAsExecvpDoes(t *testing.T) {
	t.Parallel()
	dir := programs(t)
	for _, c := range []struct {
		name, path, want string
		err              error
	}{
		{"run", dir + "/a:" + dir + "/b", dir + "/b/run", nil},
		{"run", "a:b", dir + "/b/run", nil},
		{"run", dir + "/a", "", fs.ErrPermission},
		{"dir", dir + "/b", "", fs.ErrPermission},
		{"gone", dir + "/a:" + dir + "/b", "", exec.ErrNotFound},
		{"run", "", "", exec.ErrNotFound},
		{"b/run", "", dir + "/b/run", nil},
		{"./b/run", "", dir + "/b/run", nil},
		{dir + "/b/run", "", dir + "/b/run", nil},
		{dir + "/a/text", "", "", fs.ErrPermission},
		{dir + "/gone", "", "", fs.ErrNotExist},
	} {
		got, err := find(c.name, dir, []string{"X=1", "PATH=" + c.path})
		if !errors.Is(err, c.err) || (c.err == nil && got != c.want) {
			t.Errorf("%s in %s: got %s, %v; want %s, %v", c.name, c.path, got, err, c.want, c.err)
		}
	}
}

func TestStartFailureHasAShellsStatus(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		want int
	}{
		{fs.ErrNotExist, exitNotFound},
		{&exec.Error{Name: "x", Err: exec.ErrNotFound}, exitNotFound},
		{fmt.Errorf("x: %w", fs.ErrPermission), exitNotExecutable},
		{unix.ENOEXEC, exitNotExecutable},
		{unix.ENOMEM, exitFailed},
	} {
		got := startFailure(guest.Process{Args: []string{"nginx"}}, c.err)
		if got.Code != c.want || !strings.HasPrefix(got.Error, "nginx: ") {
			t.Errorf("%v: got %+v, want %d", c.err, got, c.want)
		}
	}
}

func TestRingGivesAllInOrder(t *testing.T) {
	t.Parallel()
	r := newRing()
	const count, size = 500, 5000 // more than the ring holds: the writer waits
	go func() {
		for i := range count {
			r.write(guest.Stdout, bytes.Repeat([]byte{byte(i)}, size))
		}
		r.finish()
	}()
	next := 0
	err := r.from(t.Context(), 0, func(e guest.LogEntry) error {
		if e.Offset != int64(next*size) || e.Data[0] != byte(next) {
			return fmt.Errorf("entry %d: got offset %d of %d", next, e.Offset, e.Data[0])
		}
		next++
		return nil
	})
	if err != nil || next != count {
		t.Errorf("got %d entries, %v; want %d", next, err, count)
	}
}

func TestRingIsReadAgainFromWhereItWas(t *testing.T) {
	t.Parallel()
	r := newRing()
	for i := range 5 {
		r.write(guest.Stderr, fmt.Appendf(nil, "line %d\n", i))
	}
	lost := errors.New("the connection broke")
	count := 0
	if err := r.from(t.Context(), 0, func(guest.LogEntry) error {
		if count++; count == 3 {
			return lost
		}
		return nil
	}); err != lost {
		t.Fatalf("got %v, want %v", err, lost)
	}
	r.finish()
	var text string
	if err := r.from(t.Context(), 14, func(e guest.LogEntry) error {
		text += string(e.Data)
		return nil
	}); err != nil || text != "line 2\nline 3\nline 4\n" {
		t.Errorf("got %q, %v", text, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := newRing().from(ctx, 0, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("of an empty ring: got %v", err)
	}
}

// TestRingForgetsTheOldestAndNotMore writes after the end, when nobody waits.
func TestRingForgetsTheOldestAndNotMore(t *testing.T) {
	t.Parallel()
	r := newRing()
	r.finish()
	for range 300 {
		r.write(guest.Stdout, make([]byte, 10_000))
	}
	kept, last := int64(0), int64(0)
	if err := r.from(t.Context(), 0, func(e guest.LogEntry) error {
		kept += int64(len(e.Data))
		last = e.Offset + int64(len(e.Data))
		return nil
	}); err != nil || last != 3_000_000 || kept < ringSize || kept > 2*ringSize {
		t.Errorf("got %d bytes to offset %d, %v", kept, last, err)
	}
}

func TestUsageCountsThisMachine(t *testing.T) {
	t.Parallel()
	u := usage()
	if u.CPU <= 0 || u.MemTotal <= 0 || u.MemFree <= 0 || u.MemFree > u.MemTotal {
		t.Errorf("got %+v", u)
	}
}

func TestAllListen(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	if !allListen(map[uint16]bool{port: true}) {
		t.Error("a port that is open is not")
	}
	if allListen(map[uint16]bool{port: true, 1: true}) {
		t.Error("a port that is not open is")
	}
	l.Close()
	if allListen(map[uint16]bool{port: true}) {
		t.Error("a port that is closed is open")
	}
}

func TestOnlyTheHostIsServed(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		"fe80::1%eth0": true, "fe80::1%lo": false, "fe80::1": false, "fe80::2%eth0": false, "::1": false, "10.201.0.1": false,
	} {
		if got := fromHost(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: got %v, want %v", text, got, want)
		}
	}
}

// ran runs a line of shell as a VM's process, to its end.
func ran(t *testing.T, p guest.Process) (guest.Exit, string) {
	t.Helper()
	requireRoot(t)
	m := newMainProcess(shared(t), newRing())
	m.start(p)
	var text strings.Builder
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := m.log.from(ctx, 0, func(e guest.LogEntry) error {
		text.WriteString(e.Stream + ":" + string(e.Data))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	<-m.ended
	return *m.status().Exit, text.String()
}

// theReaper collects all children of this test: there can be but one.
var theReaper *reaper

func shared(tb testing.TB) *reaper {
	tb.Helper()
	if theReaper == nil {
		theReaper = newReaper()
	}
	return theReaper
}

func TestAProcessRunsAndItsEndIsTold(t *testing.T) {
	shell := func(line string) []string { return []string{"sh", "-c", line} }
	for _, c := range []struct {
		p    guest.Process
		code int
		says string
	}{
		{guest.Process{Args: shell("echo hello")}, 0, "stdout:hello\n"},
		{guest.Process{Args: shell("echo no >&2; exit 7")}, 7, "stderr:no\n"},
		{guest.Process{Args: shell("kill -TERM $$")}, 128 + 15, ""},
		{guest.Process{Args: shell("id -u; id -g; id -G"), User: "1234:5678"}, 0, "stdout:1234\n"},
		{guest.Process{Args: shell("pwd; echo $A $HOME"), Dir: "/usr", Env: []string{"A=b", "PATH=/usr/bin:/bin"}}, 0, "/usr\n"},
		{guest.Process{Args: []string{"no-such-program"}}, exitNotFound, ""},
		{guest.Process{Args: []string{"/etc"}}, exitNotExecutable, ""},
		{guest.Process{}, exitFailed, ""},
		{guest.Process{Args: shell("true"), User: "nobody-knows"}, exitFailed, ""},
		{guest.Process{Args: shell("test -t 0 && test -t 1 && echo a terminal"), TTY: true}, 0, "a terminal"},
		{guest.Process{Args: shell("test -t 0 || read line || echo no input")}, 0, "no input\n"},
	} {
		exit, text := ran(t, c.p)
		if exit.Code != c.code || !strings.Contains(text, c.says) {
			t.Errorf("%q: got %+v, %q; want %d, %q", c.p.Args, exit, text, c.code, c.says)
		}
		if c.code >= exitFailed && c.code <= exitNotFound && exit.Error == "" {
			t.Errorf("%q: got no reason", c.p.Args)
		}
	}
}

// TestAnOrphanThatHoldsTheOutputIsNotWaitedFor for longer than settleTime.
func TestAnOrphanThatHoldsTheOutputIsNotWaitedFor(t *testing.T) {
	begin := time.Now()
	exit, text := ran(t, guest.Process{Args: []string{"sh", "-c", "sleep 15 & echo $!"}})
	if took := time.Since(begin); exit.Code != 0 || took > 10*time.Second {
		t.Errorf("got %+v after %v", exit, took)
	}
	var pid int
	if _, err := fmt.Sscanf(text, "stdout:%d", &pid); err != nil {
		t.Fatal(err)
	}
	unix.Kill(pid, unix.SIGKILL)
}

func TestSignalsGoOnlyToWhatRuns(t *testing.T) {
	requireRoot(t)
	m := newMainProcess(shared(t), newRing())
	m.start(guest.Process{Args: []string{"sleep", "1000"}})
	if got := m.status(); !got.Running {
		t.Fatalf("got %+v, want it to run", got)
	}
	if err := m.signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	<-m.ended
	if err := m.signal(unix.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("got %v, want %v", err, os.ErrProcessDone)
	}
	if got := m.status(); got.Running || got.Exit.Signal != "SIGTERM" {
		t.Errorf("got %+v", got)
	}
}

func TestBadQuestionsAreRefused(t *testing.T) {
	t.Parallel()
	s := &service{reaper: &reaper{wait: map[int]chan<- unix.WaitStatus{}}, log: newRing()}
	s.main = newMainProcess(s.reaper, s.log)
	for question, want := range map[string]int{
		"GET /logs": 400, "GET /logs?from=x": 400, "GET /listening?ports=": 400, "GET /listening?ports=99999": 400,
		"POST /signal?name=HUH": 400, "POST /signal?name=TERM": 409, "POST /stop?timeout=x": 400, "POST /exec": 400,
		"GET /exec": 405, "GET /else": 404, "GET /status": 200,
	} {
		method, path, _ := strings.Cut(question, " ")
		w := httptest.NewRecorder()
		s.handler().ServeHTTP(w, httptest.NewRequest(method, path, nil))
		if w.Code != want {
			t.Errorf("%s: got %d, want %d", question, w.Code, want)
		}
	}
	w := httptest.NewRecorder()
	s.handler().ServeHTTP(w, httptest.NewRequest("POST", "/exec", strings.NewReader("{}")))
	if w.Code != http.StatusUpgradeRequired {
		t.Errorf("an exec without upgrade: got %d, want %d", w.Code, http.StatusUpgradeRequired)
	}
}

// TestADescriptorThatIsNotThereCostsNone has room for some of what a process is
// given, and not for all.
func TestADescriptorThatIsNotThereCostsNone(t *testing.T) {
	s := &service{reaper: shared(t)}
	whole := map[string]guest.ExecRequest{"pipes": {Stdin: true}, "no input": {}, "a terminal": {TTY: true}}
	for what, q := range whole {
		for most := range 10 {
			left, err := withRoomFor(t, most, func() error {
				e := &execution{s: s}
				inner, err := e.open(q)
				for _, f := range inner {
					f.Close()
				}
				e.close()
				e.output.Wait()
				return err
			})
			if most == 0 && err == nil || most == 9 && err != nil {
				t.Errorf("%s of %d descriptors: got %v", what, most, err)
			}
			if left != most {
				t.Errorf("%s of %d descriptors, which ended with %v: %d are left", what, most, err, left)
			}
		}
	}
}

// withRoomFor calls f when no more than most files can be opened, and returns
// how many can be then.
func withRoomFor(t *testing.T, most int, f func() error) (left int, err error) {
	t.Helper()
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 100, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	var taken []int
	take := func() (n int) {
		for ; ; n++ {
			fd, err := unix.Open(os.DevNull, unix.O_CLOEXEC, 0)
			if err != nil {
				return n
			}
			taken = append(taken, fd)
		}
	}
	defer func() {
		for _, fd := range taken {
			unix.Close(fd)
		}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
			t.Fatal(err)
		}
	}()
	take()
	for range most {
		unix.Close(taken[len(taken)-1])
		taken = taken[:len(taken)-1]
	}
	err = f()
	return take(), err
}

// FuzzObey has an exec's frames be anything; what is for the process's input
// must come to it as it was, and nothing else.
func FuzzObey(f *testing.F) {
	frame := func(kind guest.FrameKind, data string) []byte {
		var b bytes.Buffer
		if err := guest.WriteFrame(&b, kind, []byte(data)); err != nil {
			f.Fatal(err)
		}
		return b.Bytes()
	}
	f.Add(slices.Concat(frame(guest.FrameStdin, "hello"), frame(guest.FrameResize, `{"rows":1}`), frame(guest.FrameSignal, "KILL"), frame(guest.FrameStdinEOF, ""), frame(guest.FrameStdinEOF, "")))
	f.Add([]byte{'i', 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 32<<10 {
			return // the pipe would be full
		}
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		s := &service{reaper: &reaper{wait: map[int]chan<- unix.WaitStatus{}}}
		e := &execution{s: s, in: bytes.NewReader(data), stdin: w}
		e.obey()
		w.Close()
		got := make([]byte, 64<<10)
		n, _ := r.Read(got)
		if want := stdin(data); !bytes.Equal(got[:n], want) {
			t.Errorf("got %q, want %q", got[:n], want)
		}
	})
}

// stdin is what frames hold for a process's input, to its end.
func stdin(data []byte) (all []byte) {
	for r := bytes.NewReader(data); ; {
		kind, payload, err := guest.ReadFrame(r, nil)
		if err != nil || kind == guest.FrameStdinEOF {
			return all
		}
		if kind == guest.FrameStdin {
			all = append(all, payload...)
		}
	}
}

func TestCopyTreeKeepsOwnersRightsAndLinks(t *testing.T) {
	requireRoot(t)
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	if err := errors.Join(
		os.Mkdir(from, 0o750), os.WriteFile(filepath.Join(from, "su"), []byte("x"), 0o755), os.Chown(filepath.Join(from, "su"), 12, 34),
		unix.Chmod(filepath.Join(from, "su"), 0o6755), os.Symlink("/nowhere", filepath.Join(from, "link")),
		os.Lchown(filepath.Join(from, "link"), 56, 78), unix.Mkfifo(filepath.Join(from, "fifo"), 0o620),
		os.Mkdir(filepath.Join(from, "sub"), 0o1777), unix.Chmod(filepath.Join(from, "sub"), 0o1777),
		os.Mkdir(to+".new", 0o700), os.WriteFile(to+".new/half", nil, 0o600), // of a power cut
	); err != nil {
		t.Fatal(err)
	}
	if err := copyTree(from, to); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "su", "link", "fifo", "sub"} {
		var a, b unix.Stat_t
		if err := errors.Join(unix.Lstat(filepath.Join(from, name), &a), unix.Lstat(filepath.Join(to, name), &b)); err != nil {
			t.Error(err)
		}
		if a.Mode != b.Mode || a.Uid != b.Uid || a.Gid != b.Gid {
			t.Errorf("%s: got %o %d:%d, want %o %d:%d", name, b.Mode, b.Uid, b.Gid, a.Mode, a.Uid, a.Gid)
		}
	}
	if target, err := os.Readlink(filepath.Join(to, "link")); err != nil || target != "/nowhere" {
		t.Errorf("got %q, %v", target, err)
	}
	if _, err := os.Stat(filepath.Join(to, "half")); err == nil {
		t.Error("what was half-made is in it")
	}
}

func TestExitIsJSONThatTheHostReads(t *testing.T) {
	t.Parallel()
	var status unix.WaitStatus = 11 | 0x80 // SIGSEGV, with a core
	data, err := json.Marshal(describe(status))
	if want := `{"code":139,"signal":"SIGSEGV"}`; err != nil || string(data) != want {
		t.Errorf("got %s, %v; want %s", data, err, want)
	}
	if got := describe(7 << 8); got.Code != 7 || got.Signal != "" {
		t.Errorf("got %+v, want 7", got)
	}
}
