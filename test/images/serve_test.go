package images_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal/compute/image"
	"github.com/tradle/cloudpal/test/images"
)

// The services are started in a root made of their layers, with a network of
// their own, and spoken to.

func TestNginxServes(t *testing.T) {
	s := serve(t, "nginx")
	if got := s.get("http://127.0.0.1/"); got != "hello from nginx\n" {
		t.Errorf("got %q", got)
	}
}

func TestNodeServes(t *testing.T) {
	s := serve(t, "node")
	if got := s.get("http://127.0.0.1:3000/"); !strings.Contains(got, `"hello":"from node"`) {
		t.Errorf("got %q", got)
	}
}

func TestWebServes(t *testing.T) {
	s := serve(t, "web")
	if got := s.get("http://127.0.0.1:8080/"); got != "hello from a microVM\n" {
		t.Errorf("got %q", got)
	}
	if got := s.get("http://127.0.0.1:8080/usage"); !strings.Contains(got, `"cpu":`) {
		t.Errorf("got %q", got)
	}
}

func TestRedisServes(t *testing.T) {
	s := serve(t, "redis")
	conn := s.dial("127.0.0.1:6379")
	defer conn.Close()
	fmt.Fprint(conn, "SET k v\r\nGET k\r\n")
	r := bufio.NewReader(conn)
	for _, want := range []string{"+OK", "$1", "v"} {
		if got, err := r.ReadString('\n'); strings.TrimSpace(got) != want || err != nil {
			t.Fatalf("got %q and %v, want %q", got, err, want)
		}
	}
}

func TestPostgresServes(t *testing.T) {
	s := serve(t, "postgresql")
	s.dial("127.0.0.1:5432").Close()
	out := ""
	s.eventually(func() (err error) {
		out, err = s.exec("psql", "-h", "127.0.0.1", "-U", "postgres", "-tAc", "select 6*7")
		return err
	})
	if strings.TrimSpace(out) != "42" {
		t.Errorf("got %q", out)
	}
}

func TestBusyboxStopsWhenTold(t *testing.T) {
	s := serve(t, "busybox")
	s.eventually(func() error {
		if log := s.log(); !strings.Contains(log, "started as 1000:1000 in /home/app with no arguments") {
			return fmt.Errorf("log: %s", log)
		}
		return nil
	})
	syscall.Kill(s.pid, syscall.SIGTERM)
	if err := s.cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, s.log())
	}
}

// A server is an image's process. It lives in namespaces of its own, and all
// that is mounted for it is mounted only there: nothing of this machine is in
// its root, and nothing is left when it ends.
type server struct {
	t    *testing.T
	img  image.Image
	temp string
	cmd  *exec.Cmd // unshare, whose child is the image's process
	pid  int       // the child
}

func serve(t *testing.T, name string) *server {
	if os.Getuid() != 0 {
		if os.Getenv("CLOUDPAL_MUST_RUN") != "" {
			t.Fatal("needs root: it mounts and makes a network namespace")
		}
		t.Skip("needs root: it mounts and makes a network namespace")
	}
	t.Parallel()
	dir, err := images.Build(t.Context(), name, images.Cache())
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, img: check(t, dir, 3), temp: t.TempDir()}
	s.start()
	return s
}

// begin is the script that stacks the layers, and becomes the image's process.
const begin = `set -e
temp=$1 user=$2; shift 2
ip link set lo up
mount -t tmpfs tmpfs "$temp"
cd "$temp"
mkdir upper work root
lower= n=0
while test "$1" != --; do
	n=$((n+1)); mkdir $n
	mount -t erofs -o ro,loop "$1" $n
	lower=$n${lower:+:$lower}; shift
done
shift
mount -t overlay overlay -o lowerdir=$lower,upperdir=upper,workdir=work root
mkdir -p root/proc root/dev
mount -t proc proc root/proc
mount -t tmpfs tmpfs root/dev
mknod -m 666 root/dev/null c 1 3
mknod -m 666 root/dev/zero c 1 5
mknod -m 666 root/dev/urandom c 1 9
mkdir -m 1777 root/dev/shm
ln -s /proc/self/fd root/dev/fd
ln -s fd/1 root/dev/stdout
ln -s fd/2 root/dev/stderr
exec env -i $(cat) "$(command -v chroot)" --userspec="$user" root "$@"
`

func (s *server) start() {
	args := []string{"--net", "--mount", "--pid", "--fork", "--kill-child", "/bin/sh", "-c", begin, "begin", s.temp, s.user()}
	for _, l := range s.img.Layers {
		args = append(args, l.Path)
	}
	s.cmd = exec.Command("unshare", slices.Concat(args, []string{"--"}, s.args())...)
	log, err := os.Create(s.logName())
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	s.cmd.Stdin = strings.NewReader(strings.Join(s.env(), "\n"))
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if err := s.cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.eventually(s.findChild)
	s.t.Cleanup(s.stop)
}

func (s *server) logName() string { return s.temp + ".log" }

// user returns the numbers of the image's user.
func (s *server) user() string {
	known := map[string]string{"": "0:0", "app": "1000:1000", "node": "1000:1000", "redis": "999:999", "postgres": "70:70"}
	return known[s.img.Config.User]
}

// args returns the command, in the image's directory: chroot starts in the root.
func (s *server) args() []string {
	c := s.img.Config
	args := slices.Concat(c.Entrypoint, c.Cmd)
	if c.WorkingDir == "/" {
		return args
	}
	return append([]string{"/bin/sh", "-c", `cd "$0" && exec "$@"`, c.WorkingDir}, args...)
}

// env returns the variables that pass through a shell unharmed.
func (s *server) env() []string {
	return slices.DeleteFunc(slices.Clone(s.img.Config.Env), func(e string) bool { return strings.Contains(e, " ") })
}

func (s *server) findChild() error {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%[1]d/children", s.cmd.Process.Pid))
	if err != nil {
		return err
	}
	_, err = fmt.Sscan(string(text), &s.pid)
	return err
}

// stop ends the service and all that it started.
func (s *server) stop() {
	if s.t.Failed() {
		s.t.Logf("log:\n%s", s.log())
	}
	if s.cmd.ProcessState == nil {
		// The first process takes all others in its namespace with it, and
		// unshare ends when it does.
		syscall.Kill(s.pid, syscall.SIGKILL)
		s.cmd.Wait()
	}
	os.Remove(s.logName())
}

func (s *server) log() string {
	text, _ := os.ReadFile(s.logName())
	return string(text)
}

// exec runs another program in the image.
func (s *server) exec(args ...string) (string, error) {
	all := []string{fmt.Sprintf("--target=%d", s.pid), "--net", "--mount", "--pid", "/usr/sbin/chroot", "--userspec=" + s.user(), s.temp + "/root"}
	cmd := exec.Command("nsenter", append(all, args...)...)
	cmd.Env = s.env()
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%w: %s", err, out)
	}
	return string(out), err
}

// eventually polls until f returns no error.
func (s *server) eventually(f func() error) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), 40*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			s.t.Fatal(err)
		case <-tick.C:
		}
	}
}

// dial connects to an address of the service's network.
func (s *server) dial(addr string) (conn net.Conn) {
	s.t.Helper()
	s.eventually(func() (err error) {
		conn, err = s.dialOnce(s.t.Context(), "tcp", addr)
		return err
	})
	return conn
}

// dialOnce dials on a thread that has joined the network, and ends with the
// goroutine.
func (s *server) dialOnce(ctx context.Context, network, addr string) (conn net.Conn, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		var ns *os.File
		if ns, err = os.Open(fmt.Sprintf("/proc/%d/ns/net", s.pid)); err != nil {
			return
		}
		defer ns.Close()
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			return
		}
		conn, err = new(net.Dialer).DialContext(ctx, network, addr)
	}()
	<-done
	return conn, err
}

func (s *server) get(url string) (body string) {
	s.t.Helper()
	client := &http.Client{Transport: &http.Transport{DialContext: s.dialOnce, DisableKeepAlives: true}}
	s.eventually(func() error {
		r, err := client.Get(url)
		if err != nil {
			return err
		}
		defer r.Body.Close()
		b, err := io.ReadAll(r.Body)
		body = string(b)
		return err
	})
	return body
}
