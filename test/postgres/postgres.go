//go:build linux

// Package postgres runs a PostgreSQL server for a test: a real one, of the
// distribution's package, in a folder of its own, on a unix socket only, and as
// careful with the disk as it is by itself. It can be killed as the kernel kills, and started again.
package postgres

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A Server is a database cluster, and the server that runs on it.
type Server struct {
	t      testing.TB
	bin    string // the folder of its programs
	dir    string // holds data/, and the socket
	runsAs *syscall.Credential
	cmd    *exec.Cmd // nil while it does not run
	told   *tail
}

// New makes a cluster and starts its server. At the end of the test both are gone,
// however the test ends.
func New(t testing.TB) *Server {
	t.Helper()
	s := &Server{t: t, bin: programs(t), runsAs: stranger(t)}
	dir, err := os.MkdirTemp("", "cloudpal-pg-") // a socket's path is short, unlike a test's name
	if err != nil {
		t.Fatal(err)
	}
	s.dir = dir
	t.Cleanup(s.remove)
	if s.runsAs != nil {
		if err := os.Chown(dir, int(s.runsAs.Uid), int(s.runsAs.Gid)); err != nil {
			t.Fatal(err)
		}
	}
	// Of a cluster that is just made, nothing need survive a power cut.
	out, err := s.command("initdb", "-D", s.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync").CombinedOutput()
	if err != nil {
		t.Fatalf("make a PostgreSQL cluster: %v\n%s", err, out)
	}
	s.Start()
	return s
}

// programs returns the folder of the newest PostgreSQL that is installed.
func programs(t testing.TB) string {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if len(found) == 0 {
		t.Fatal("PostgreSQL is not installed: run make setup-test")
	}
	version := func(path string) int {
		n, _ := strconv.Atoi(strings.Split(path, "/")[4])
		return n
	}
	return filepath.Dir(slices.MaxFunc(found, func(a, b string) int { return cmp.Compare(version(a), version(b)) }))
}

// stranger is whom the server runs as where the test is root's, whom PostgreSQL
// does not serve. It is nil where the test is another's.
func stranger(t testing.TB) *syscall.Credential {
	t.Helper()
	if os.Getuid() != 0 {
		return nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		u, err = user.Lookup("nobody")
	}
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	gid, err2 := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// command returns one of PostgreSQL's, run by its user, and ended with the test.
func (s *Server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.Dir = s.dir
	cmd.Env = []string{"PATH=" + s.bin + ":/usr/bin:/bin", "LC_ALL=C", "TZ=UTC", "HOME=" + s.dir}
	// A test that is killed cannot clean up, but leaves no server running.
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.runsAs, Setsid: true, Pdeathsig: unix.SIGQUIT}
	return cmd
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// Socket is the path of the socket at which it answers.
func (s *Server) Socket() string { return filepath.Join(s.dir, SocketName) }

// SocketName is that of a server's socket in a folder: clients are told the folder.
const SocketName = ".s.PGSQL.5432"

// URL is where clients find the database that every cluster has.
func (s *Server) URL() string { return URL(s.dir) }

// URL is where clients find the database of a server that has its socket in a
// folder.
func URL(dir string) string {
	return "postgres:///postgres?" + url.Values{"host": {dir}, "user": {"postgres"}}.Encode()
}

// Database makes an empty database in the cluster and returns where clients find
// it.
func (s *Server) Database(name string) string {
	s.t.Helper()
	if out, err := s.command("createdb", "-h", s.dir, "-U", "postgres", name).CombinedOutput(); err != nil {
		s.t.Fatalf("make the database %s: %v\n%s", name, err, out)
	}
	return strings.Replace(s.URL(), ":///postgres?", ":///"+url.PathEscape(name)+"?", 1)
}

// startTime bounds a start and a stop, with the recovery that may come first.
const startTime = time.Minute

// Start starts the server, which must not run, and returns when it answers.
func (s *Server) Start() {
	s.t.Helper()
	// What its processes share is in its folder: in /dev/shm it would outlive a kill.
	s.cmd = s.command("postgres", "-D", s.data(), "-k", s.dir, "-c", "listen_addresses=", "-c", "jit=off", "-c", "shared_buffers=32MB",
		"-c", "dynamic_shared_memory_type=mmap")
	said, err := s.cmd.StderrPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.told = &tail{ready: make(chan struct{}), ended: make(chan struct{})}
	go s.told.follow(said)
	select {
	case <-s.told.ready:
	case <-s.told.ended:
		s.cmd.Wait()
		s.cmd = nil
		s.t.Fatalf("PostgreSQL does not start:\n%s", s.told)
	case <-time.After(startTime):
		s.t.Fatalf("PostgreSQL does not start within %v:\n%s", startTime, s.told)
	}
}

// Kill kills the server and all its processes at once, as the kernel does when it
// is out of memory. What it has said it has written must be there at the next
// Start.
func (s *Server) Kill() {
	s.t.Helper()
	if s.cmd == nil {
		return
	}
	pid := s.cmd.Process.Pid
	unix.Kill(pid, unix.SIGSTOP) // it makes no more children
	var dying []int
	for _, child := range append(children(pid), pid) {
		// Killed through a pidfd, none can be taken for another that has its number.
		if fd, err := unix.PidfdOpen(child, 0); err == nil {
			defer unix.Close(fd)
			unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
			dying = append(dying, fd)
		}
	}
	for _, fd := range dying {
		if err := ends(fd, startTime); err != nil {
			s.t.Errorf("PostgreSQL is killed and runs: %v", err)
		}
	}
	s.reap()
	s.forgetMemory()
}

// Stop stops the server as a person does, and returns when it has ended.
func (s *Server) Stop() { s.stop(unix.SIGINT) }

func (s *Server) stop(how unix.Signal) {
	s.t.Helper()
	if s.cmd == nil {
		return
	}
	fd, err := unix.PidfdOpen(s.cmd.Process.Pid, 0)
	if err != nil {
		s.t.Fatal(err)
	}
	defer unix.Close(fd)
	s.cmd.Process.Signal(how)
	if err := ends(fd, startTime); err != nil {
		s.t.Errorf("PostgreSQL does not stop: %v\n%s", err, s.told)
		s.Kill()
		return
	}
	s.reap()
}

func (s *Server) reap() {
	<-s.told.ended
	s.cmd.Wait()
	s.cmd = nil
}

// remove is the end of it. What nobody needs any more need not be written.
func (s *Server) remove() {
	if s.t.Failed() && s.told != nil {
		s.t.Logf("PostgreSQL said last:\n%s", s.told)
	}
	s.stop(unix.SIGQUIT)
	if err := os.RemoveAll(s.dir); err != nil {
		s.t.Error(err)
	}
}

// children returns the processes that a stopped process has started.
func children(pid int) (found []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		// PID (NAME) STATE PARENT ..., where NAME may be anything.
		fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		if len(fields) > 1 && fields[1] == strconv.Itoa(pid) {
			child, _ := strconv.Atoi(strings.Split(path, "/")[2])
			found = append(found, child)
		}
	}
	return found
}

// ends waits until the process of a pidfd has ended.
func ends(pidfd int, within time.Duration) error {
	for end := time.Now().Add(within); time.Now().Before(end); {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, int(time.Until(end).Milliseconds())+1)
		if n > 0 {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
	return context.DeadlineExceeded
}

// forgetMemory removes the little shared memory by which a killed server would tell
// the next that it still runs: the system has only so many pieces of it.
func (s *Server) forgetMemory() {
	text, err := os.ReadFile(filepath.Join(s.data(), "postmaster.pid"))
	if err != nil {
		return
	}
	// Line 7 is its key and its number.
	lines := strings.Split(string(text), "\n")
	if len(lines) < 7 {
		return
	}
	if fields := strings.Fields(lines[6]); len(fields) == 2 {
		if id, err := strconv.Atoi(fields[1]); err == nil {
			unix.SysvShmCtl(id, unix.IPC_RMID, nil)
		}
	}
}

// A tail is what the server said last.
type tail struct {
	ready chan struct{} // closed when it answers
	ended chan struct{} // closed when it says no more

	mu    sync.Mutex
	lines []string
}

func (l *tail) follow(said io.Reader) {
	defer close(l.ended)
	ready := false
	for in := bufio.NewScanner(said); in.Scan(); {
		l.mu.Lock()
		l.lines = append(l.lines[max(0, len(l.lines)-50):], in.Text())
		l.mu.Unlock()
		if !ready && strings.Contains(in.Text(), "database system is ready to accept connections") {
			ready = true
			close(l.ready)
		}
	}
}

// String is for who looks for what went wrong.
func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return fmt.Sprintln(strings.Join(l.lines, "\n"))
}
