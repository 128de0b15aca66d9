package compute_test

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/compute/meter"
	"github.com/tradle/cloudpal/test/images"
	"github.com/tradle/cloudpal/test/world"
)

// An answer is what a command wrote and how it ended.
type answer struct {
	out, err string
	code     int
}

// command returns a command of this program that talks to the world's agent.
func command(t *testing.T, w *world.World, args ...string) *exec.Cmd {
	t.Helper()
	bin, err := world.Binaries()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), filepath.Join(bin, "cloudpal"), args...)
	cmd.Env = append(os.Environ(), "CLOUDPAL_SOCKET="+w.Socket())
	return cmd
}

// cli runs a command to its end.
func cli(t *testing.T, w *world.World, in string, args ...string) answer {
	t.Helper()
	cmd := command(t, w, args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(in), &out, &errs
	if err := cmd.Run(); cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return answer{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// must runs a command that has to work and returns what it printed.
func must(t *testing.T, w *world.World, args ...string) string {
	t.Helper()
	a := cli(t, w, "", args...)
	if a.code != 0 {
		t.Fatalf("%q: got %+v", args, a)
	}
	return a.out
}

// decoded runs a command with --json and decodes what it printed, all of it.
func decoded[T any](t *testing.T, w *world.World, args ...string) T {
	t.Helper()
	return decode[T](t, must(t, w, append(args, "--json")...))
}

func decode[T any](t *testing.T, text string) T {
	t.Helper()
	var v T
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		t.Fatalf("more than one value: %s", text)
	}
	return v
}

func wantNoVMs(t *testing.T, w *world.World) {
	t.Helper()
	if vms := decoded[[]api.VM](t, w, "vm", "ps"); len(vms) > 0 {
		t.Errorf("left behind: %+v", vms)
	}
}

func TestRunInTheForeground(t *testing.T) {
	w := world.New(t)
	w.Image("busybox")
	variables := filepath.Join(t.TempDir(), "variables")
	if err := os.WriteFile(variables, []byte("# two\nONE=from the file\nTWO=2\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Run("all is as asked for", func(t *testing.T) {
		got := cli(t, w, "", "vm", "run", "--rm", "--env-file", variables, "--env", "ONE=1",
			"--user", "root", "--workdir", "/tmp", "--hostname", "box", "--entrypoint", "sh", "busybox",
			"-c", `echo "$ONE $TWO $(pwd) $(whoami) $(hostname)"; echo trouble >&2; exit 7`)
		if want := (answer{"1 2 /tmp root box\n", "trouble\n", 7}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
		wantNoVMs(t, w)
	})
	t.Run("bytes come as they are", func(t *testing.T) {
		got := cli(t, w, "", "vm", "run", "--rm", "--entrypoint", "sh", "busybox", "-c", `printf '\033[31m\000\377\r\n'`)
		if want := "\x1b[31m\x00\xff\r\n"; got.out != want || got.code != 0 {
			t.Errorf("got %+v, want output %q", got, want)
		}
	})
	t.Run("json", func(t *testing.T) {
		got := cli(t, w, "", "vm", "run", "--rm", "--json", "--entrypoint", "sh", "busybox", "-c", "echo hello; exit 3")
		if exit := decode[api.Exit](t, got.out); exit.Code != 3 || got.code != 3 || got.err != "hello\n" {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("no such program", func(t *testing.T) {
		got := cli(t, w, "", "vm", "run", "--rm", "--entrypoint", "/no/such", "busybox")
		if got.code != 127 || !strings.Contains(got.err, "/no/such") {
			t.Errorf("got %+v, want status 127 and the program's name", got)
		}
		wantNoVMs(t, w)
	})
	t.Run("without --rm it stays", func(t *testing.T) {
		if got := cli(t, w, "", "vm", "run", "--name", "stays", "--entrypoint", "false", "busybox"); got.code != 1 {
			t.Errorf("got %+v, want status 1", got)
		}
		if v := decoded[api.VM](t, w, "vm", "inspect", "stays"); v.State != api.Stopped || v.Exit == nil || v.Exit.Code != 1 {
			t.Errorf("got %+v", v)
		}
		got := cli(t, w, "", "vm", "run", "--name", "stays", "busybox")
		if got.code != 125 || !strings.Contains(got.err, "already exists") || !strings.Contains(got.err, "hint: ") {
			t.Errorf("a name that is taken: got %+v", got)
		}
		must(t, w, "vm", "rm", "stays")
	})
}

// says what it is told, and goodbye.
const polite = `trap "echo goodbye; exit 3" TERM; echo up; while :; do sleep 0.1; done`

func TestSignalsStopAForegroundVM(t *testing.T) {
	w := world.New(t)
	w.Image("busybox")
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		t.Run(sig.String(), func(t *testing.T) {
			cmd := command(t, w, "vm", "run", "--rm", "--entrypoint", "sh", "busybox", "-c", polite)
			out, code := signalWhenUp(t, cmd, sig)
			if out != "up\ngoodbye\n" || code != 3 {
				t.Errorf("got %q and status %d, want goodbye and 3", out, code)
			}
			wantNoVMs(t, w)
		})
	}
}

// signalWhenUp starts cmd, sends it a signal as soon as it has written
// something, and returns all that it wrote.
func signalWhenUp(t *testing.T, cmd *exec.Cmd, sig os.Signal) (string, int) {
	t.Helper()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	first := make([]byte, len("up\n"))
	if _, err := io.ReadFull(out, first); err != nil {
		t.Fatal(err)
	}
	cmd.Process.Signal(sig)
	rest, err := io.ReadAll(out)
	if err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	return string(first) + string(rest), cmd.ProcessState.ExitCode()
}

func TestDetachedVM(t *testing.T) {
	w := world.New(t)
	w.Image("web")
	got := cli(t, w, "", "vm", "run", "--detach", "--name", "shop", "--publish", "8080", "--publish", "9090/udp", "web")
	if got.out != "shop\n" || got.code != 0 {
		t.Fatalf("got %+v, want the name", got)
	}
	v := w.VM("shop")
	url := "http://" + v.Ports[0].Host.String()
	if !strings.Contains(got.err, url) || !strings.Contains(got.err, "udp "+v.Ports[1].Host.String()) {
		t.Errorf("said %q, want where the ports are: %+v", got.err, v.Ports)
	}
	w.MustGet(url)

	t.Run("json of all that looks at it", func(t *testing.T) {
		if vms := decoded[[]api.VM](t, w, "vm", "ps"); len(vms) != 1 || vms[0].Name != "shop" || vms[0].State != api.Running {
			t.Errorf("ps: got %+v", vms)
		}
		if s := decoded[[]api.Stats](t, w, "vm", "stats"); len(s) != 1 || s[0].Name != "shop" || s[0].CPU <= 0 {
			t.Errorf("stats of all: got %+v", s)
		}
		if s := decoded[[]api.Stats](t, w, "vm", "stats", "shop"); len(s) != 1 || s[0].MemoryLimit != v.Memory {
			t.Errorf("stats of one: got %+v", s)
		}
		if i := decoded[[]api.Image](t, w, "image", "ls"); len(i) != 1 || len(i[0].UsedBy) != 1 || i[0].UsedBy[0] != "shop" {
			t.Errorf("images: got %+v", i)
		}
		if h := decoded[api.Host](t, w, "host", "status"); h.PID != w.AgentPID() || h.Running != 1 {
			t.Errorf("host: got %+v", h)
		}
		if list := decoded[[]api.Volume](t, w, "volume", "ls"); len(list) != 0 {
			t.Errorf("volumes: got %+v", list)
		}
	})
	t.Run("usage is whole and is checked", func(t *testing.T) {
		records := must(t, w, "vm", "usage", "shop", "--json")
		s, err := meter.Verify(strings.NewReader(records))
		if err != nil || s.Records == 0 || s.Total.Wakes != 1 {
			t.Errorf("got %+v, %v", s, err)
		}
		if got := cli(t, w, records, "usage", "verify", "-"); got.code != 0 || !strings.Contains(got.out, "wakes") {
			t.Errorf("verify: got %+v", got)
		}
		if got := cli(t, w, strings.Replace(records, `"wakes":1`, `"wakes":0`, 1), "usage", "verify", "-"); got.code != 1 {
			t.Errorf("verify of what was changed: got %+v", got)
		}
		if out := must(t, w, "vm", "usage", "shop"); !strings.Contains(out, "awake: started") {
			t.Errorf("usage shows no event: %s", out)
		}
	})
	t.Run("tables", func(t *testing.T) {
		for _, args := range [][]string{{"vm", "ps"}, {"vm", "stats"}, {"image", "ls"}} {
			if out := must(t, w, args...); !strings.HasPrefix(out, "NAME") || !strings.Contains(out, "shop") {
				t.Errorf("%q: got %s", args, out)
			}
		}
	})
	t.Run("TAB offers names", func(t *testing.T) {
		for line, want := range map[string]string{"vm stop": "shop\n", "vm start": ":4\n", "image rm": "web:latest\n", "vm run": "web:latest\n"} {
			if out := must(t, w, append([]string{"__complete"}, append(strings.Fields(line), "")...)...); !strings.HasPrefix(out, want) {
				t.Errorf("%s: got %q, want %q first", line, out, want)
			}
		}
	})
	t.Run("a detached VM removes itself", func(t *testing.T) {
		must(t, w, "vm", "run", "--detach", "--rm", "--name", "brief", "web", "exit", "0")
		w.Eventually(30*time.Second, "brief is gone", func() error {
			if vms := decoded[[]api.VM](t, w, "vm", "ps"); len(vms) > 1 {
				return fmt.Errorf("it is %s", vms[0].State)
			}
			return nil
		})
	})
}

func TestExec(t *testing.T) {
	w := world.New(t)
	w.Image("busybox")
	must(t, w, "vm", "run", "--detach", "--name", "box", "--env", "ONE=1", "--entrypoint", "sleep", "busybox", "100000")
	sh := func(script string, flags ...string) []string {
		return append(append([]string{"vm", "exec"}, flags...), "box", "sh", "-c", script)
	}
	for _, c := range []struct {
		name string
		in   string
		args []string
		want answer
	}{
		{"streams and status", "", sh("echo out; echo err >&2; exit 9"), answer{"out\n", "err\n", 9}},
		{"standard input", "hello\n", sh("cat; echo end", "-i"), answer{"hello\nend\n", "", 0}},
		{"none unless asked for", "hello\n", sh("cat; echo end"), answer{"end\n", "", 0}},
		{"empty input ends too", "", sh("cat; echo end", "-i"), answer{"end\n", "", 0}},
		{"environment, user, directory", "", sh(`echo "$ONE $TWO $(whoami) $(pwd)"`, "-e", "TWO=2", "-u", "root", "-w", "/tmp"),
			answer{"1 2 root /tmp\n", "", 0}},
		{"flags behind the VM", "", []string{"vm", "exec", "box", "echo", "-n", "--json"}, answer{"--json", "", 0}},
		{"ended by a signal", "", sh("kill -9 $$"), answer{"", "", 137}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := cli(t, w, c.in, c.args...); got != c.want {
				t.Errorf("got %+v, want %+v", got, c.want)
			}
		})
	}
	t.Run("a megabyte each way", func(t *testing.T) {
		in := strings.Repeat("\x00\xff\r\n\x04any byte ", 1<<20/14)
		if got := cli(t, w, in, "vm", "exec", "-i", "box", "cat"); got.out != in || got.code != 0 {
			t.Errorf("got %d bytes and status %d, want the same %d", len(got.out), got.code, len(in))
		}
	})
	t.Run("no such program", func(t *testing.T) {
		if got := cli(t, w, "", "vm", "exec", "box", "/no/such"); got.code != 127 || !strings.Contains(got.err, "/no/such") {
			t.Errorf("got %+v, want status 127 and the program's name", got)
		}
	})
	t.Run("no such VM", func(t *testing.T) {
		if got := cli(t, w, "", "vm", "exec", "none", "true"); got.code != 125 || !strings.Contains(got.err, "hint: ") {
			t.Errorf("got %+v, want status 125 and a hint", got)
		}
	})
	t.Run("json", func(t *testing.T) {
		got := cli(t, w, "", sh("echo out; exit 9", "--json")...)
		first, last, _ := strings.Cut(got.out, "\n")
		piece := decode[struct{ Time, Stream, Data string }](t, first)
		data, err := base64.StdEncoding.DecodeString(piece.Data)
		if exit := decode[api.Exit](t, last); err != nil || string(data) != "out\n" || piece.Stream != "stdout" || exit.Code != 9 || got.code != 9 {
			t.Errorf("got %+v", got)
		}
	})
	t.Run("a signal is passed on", func(t *testing.T) {
		cmd := command(t, w, sh(`trap "echo caught; exit 5" INT; echo up; while :; do sleep 0.1; done`)...)
		if out, code := signalWhenUp(t, cmd, syscall.SIGINT); out != "up\ncaught\n" || code != 5 {
			t.Errorf("got %q and status %d, want caught and 5", out, code)
		}
	})
	t.Run("a command that is killed takes its process along", func(t *testing.T) {
		cmd := command(t, w, sh("echo up; exec sleep 54321")...)
		signalWhenUp(t, cmd, syscall.SIGKILL)
		w.Eventually(20*time.Second, "the process is gone", func() error {
			if got := cli(t, w, "", sh("ps | grep -q '[s]leep 54321'")...); got.code != 1 {
				return fmt.Errorf("got %+v", got)
			}
			return nil
		})
	})
	t.Run("a sleeping VM is woken", func(t *testing.T) {
		suspend(t, w, "box", api.Memory)
		if got := cli(t, w, "", "vm", "exec", "box", "echo", "awake"); got.out != "awake\n" {
			t.Errorf("got %+v", got)
		}
	})
}

func TestRunFromFiles(t *testing.T) {
	w := world.New(t)
	dir, err := images.Build(t.Context(), "web", images.Cache())
	if err != nil {
		t.Fatal(err)
	}
	img := imageIn(t, dir)
	docker, oci := filepath.Join(t.TempDir(), "docker.tar"), filepath.Join(t.TempDir(), "oci.tar")
	tag, err := name.NewTag("shop:2")
	if err != nil {
		t.Fatal(err)
	}
	if err := tarball.WriteToFile(docker, tag, img); err != nil {
		t.Fatal(err)
	}
	writeTar(t, oci, dir)
	for kind, path := range map[string]string{"layout": dir, "docker-archive": docker, "oci-archive": oci} {
		t.Run(kind, func(t *testing.T) {
			got := cli(t, w, "", "vm", "run", "--rm", path, "exit", "6")
			if got.code != 6 || got.out != "to stdout\n" || !strings.HasSuffix(got.err, "to stderr\n") {
				t.Errorf("got %+v", got)
			}
		})
	}
	t.Run("relative", func(t *testing.T) {
		cmd := command(t, w, "vm", "run", "--rm", filepath.Base(filepath.Dir(oci))+"/oci.tar", "exit", "6")
		cmd.Dir = filepath.Dir(filepath.Dir(oci))
		if out, err := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != 6 {
			t.Errorf("%v: %s", err, out)
		}
	})
	t.Run("import prints its name", func(t *testing.T) {
		if out := must(t, w, "image", "import", docker); out != "shop:2\n" {
			t.Errorf("got %q, want shop:2", out)
		}
		if i := decoded[api.Image](t, w, "image", "import", "--name", "other", docker); i.Name != "other:latest" {
			t.Errorf("got %+v", i)
		}
		if gone := decoded[[]api.RemovedImage](t, w, "image", "rm", "other"); len(gone) != 1 || gone[0].Freed != 0 {
			t.Errorf("rm of one of two names: got %+v", gone)
		}
	})
	t.Run("no such file", func(t *testing.T) {
		got := cli(t, w, "", "vm", "run", "./no/such")
		if got.code != 125 || !strings.Contains(got.err, "does not exist") || !strings.Contains(got.err, "hint: ") {
			t.Errorf("got %+v", got)
		}
	})
}

// imageIn returns the only image of a layout.
func imageIn(t *testing.T, dir string) v1.Image {
	t.Helper()
	index, err := layout.ImageIndexFromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	list, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	img, err := index.Image(list.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func writeTar(t *testing.T, file, dir string) {
	t.Helper()
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	out := tar.NewWriter(f)
	if err := errors.Join(out.AddFS(os.DirFS(dir)), out.Close(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestPull(t *testing.T) {
	w := world.New(t)
	dir, err := images.Build(t.Context(), "web", images.Cache())
	if err != nil {
		t.Fatal(err)
	}
	ref := serveImage(t, w, imageIn(t, dir))
	got := cli(t, w, "", "vm", "run", "--rm", ref, "exit", "6")
	if got.code != 6 || got.out != "to stdout\n" || strings.Count(got.err, "pull ") != 3 {
		t.Errorf("got %+v, want status 6 and a line for each of 3 layers", got)
	}
	if i := decoded[[]api.Image](t, w, "image", "ls"); len(i) != 1 || i[0].Name != ref {
		t.Errorf("images: got %+v, want %s", i, ref)
	}
	if out := must(t, w, "image", "pull", ref); out != ref+"\n" {
		t.Errorf("pull again: got %q, want the name", out)
	}
	if gone := decoded[[]api.RemovedImage](t, w, "image", "rm", ref); len(gone) != 1 || gone[0].Freed <= 0 {
		t.Errorf("rm: got %+v, want bytes freed", gone)
	}
	if i := decoded[api.Image](t, w, "image", "pull", ref); i.Name != ref || i.Layers != 3 {
		t.Errorf("pull with --json: got %+v", i)
	}
	none := cli(t, w, "", "image", "pull", strings.Replace(ref, ":1", ":2", 1))
	if none.code != 1 || !strings.Contains(none.err, "does not exist") || !strings.Contains(none.err, "hint: ") {
		t.Errorf("no such tag: got %+v", none)
	}
}

// serveImage serves an image from a registry in the world's network and
// returns its reference.
func serveImage(t *testing.T, w *world.World, img v1.Image) string {
	t.Helper()
	l, err := w.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	ref, err := name.ParseReference(l.Addr().String() + "/web:1")
	if err != nil {
		t.Fatal(err)
	}
	inside := &http.Transport{DialContext: w.Dial, DisableKeepAlives: true}
	if err := remote.Write(ref, img, remote.WithTransport(inside)); err != nil {
		t.Fatal(err)
	}
	return ref.Name()
}

// A pty is a terminal with the person's end in this test.
type pty struct {
	person, program *os.File
	mu              sync.Mutex
	shown           []byte
}

// newPTY opens a terminal and keeps all that it is shown (pts(4)).
func newPTY(t *testing.T, rows, cols uint16) *pty {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { person.Close() })
	var number int
	p := &pty{person: person}
	control(t, person, func(fd int) error {
		if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
			return err
		}
		number, err = unix.IoctlGetInt(fd, unix.TIOCGPTN)
		return err
	})
	p.program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.program.Close() })
	p.resize(t, rows, cols)
	go p.keep()
	return p
}

// control does f to a file's descriptor without making it a blocking one.
func control(t *testing.T, file *os.File, f func(fd int) error) {
	t.Helper()
	raw, err := file.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failure error
	if err := errors.Join(raw.Control(func(fd uintptr) { failure = f(int(fd)) }), failure); err != nil {
		t.Fatal(err)
	}
}

func (p *pty) keep() {
	buf := make([]byte, 4096)
	for {
		n, err := p.person.Read(buf)
		p.mu.Lock()
		p.shown = append(p.shown, buf[:n]...)
		p.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (p *pty) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return string(p.shown)
}

func (p *pty) resize(t *testing.T, rows, cols uint16) {
	t.Helper()
	control(t, p.person, func(fd int) error {
		return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
	})
}

// lineMode reports whether the terminal edits lines and makes signals of keys.
func (p *pty) lineMode(t *testing.T) (on bool) {
	t.Helper()
	control(t, p.program, func(fd int) error {
		mode, err := unix.IoctlGetTermios(fd, unix.TCGETS)
		if err == nil {
			on = mode.Lflag&(unix.ICANON|unix.ISIG) != 0
		}
		return err
	})
	return on
}

// types writes keys and waits until the terminal shows text.
func (p *pty) types(w *world.World, keys, text string) {
	w.TB.Helper()
	before := len(p.text())
	if _, err := io.WriteString(p.person, keys); err != nil {
		w.TB.Fatal(err)
	}
	p.shows(w, before, text)
}

func (p *pty) shows(w *world.World, from int, text string) {
	w.TB.Helper()
	w.Eventually(20*time.Second, fmt.Sprintf("the terminal shows %q", text), func() error {
		if got := p.text()[from:]; !strings.Contains(got, text) {
			return fmt.Errorf("it shows %q", got)
		}
		return nil
	})
}

// on gives a command the terminal as its own.
func (p *pty) on(cmd *exec.Cmd) *exec.Cmd {
	cmd.Stdin, cmd.Stdout, cmd.Stderr = p.program, p.program, p.program
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	return cmd
}

func TestTerminals(t *testing.T) {
	w := world.New(t)
	w.Image("busybox")
	must(t, w, "vm", "run", "--detach", "--name", "box", "--entrypoint", "sleep", "busybox", "100000")
	t.Run("a shell", func(t *testing.T) {
		p := newPTY(t, 40, 100)
		cmd := p.on(command(t, w, "vm", "exec", "-it", "-e", "PS1=ready>", "box", "sh"))
		cmd.Env = append(cmd.Env, "TERM=vt220")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		p.shows(w, 0, "ready>")
		if p.lineMode(t) {
			t.Error("the terminal edits lines, which is the guest's to do")
		}
		p.types(w, "stty size\r", "40 100")
		p.types(w, "echo $TERM\r", "vt220\r\n")
		p.resize(t, 50, 120)
		w.Eventually(20*time.Second, "the guest hears of the new size", func() error {
			if got := cli(t, w, "", "vm", "exec", "-u", "root", "box", "sh", "-c", "stty size < /dev/pts/0"); got.out != "50 120\n" {
				return fmt.Errorf("got %+v", got)
			}
			return nil
		})
		// Ctrl-C is a key like others; the guest's terminal makes a signal of it, for
		// the program that has it: who says so is in the foreground already.
		p.types(w, "sh -c 'echo begun; exec sleep 1000'\r", "begun\r\n")
		p.types(w, "\x03", "ready>")
		p.types(w, `printf 'raw \033[31m\n'`+"\r", "raw \x1b[31m")
		if _, err := io.WriteString(p.person, "exit 42\r"); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 42 || !p.lineMode(t) {
			t.Errorf("got status %d, want 42; restored: %v", code, p.lineMode(t))
		}
	})
	t.Run("a signal leaves the terminal as it was", func(t *testing.T) {
		p := newPTY(t, 40, 100)
		cmd := p.on(command(t, w, "vm", "exec", "-it", "-e", "PS1=ready>", "box", "sh"))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		p.shows(w, 0, "ready>")
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		if code := cmd.ProcessState.ExitCode(); code != 143 || !p.lineMode(t) {
			t.Errorf("got status %d, want 143; restored: %v", code, p.lineMode(t))
		}
	})
	t.Run("what a guest says has no control characters", func(t *testing.T) {
		const script = `printf '\033[31mred \302\233 \303\244\r\n'; printf 'bad \007\n' >&2`
		for _, args := range [][]string{
			{"vm", "exec", "box", "sh", "-c", script},
			{"vm", "run", "--name", "rude", "--entrypoint", "sh", "busybox", "-c", script},
			{"vm", "logs", "rude"},
		} {
			p := newPTY(t, 40, 100)
			if err := p.on(command(t, w, args...)).Run(); err != nil {
				t.Errorf("%q: %v: %s", args, err, p.text())
			}
			p.shows(w, 0, "?[31mred ? ä\r\n")
			p.shows(w, 0, "bad ?\r\n")
			if strings.ContainsAny(p.text(), "\x1b\x07\u009b") {
				t.Errorf("%q: shown %q", args, p.text())
			}
		}
	})
	t.Run("bars", func(t *testing.T) {
		dir, err := images.Build(t.Context(), "web", images.Cache())
		if err != nil {
			t.Fatal(err)
		}
		p := newPTY(t, 40, 100)
		if err := p.on(command(t, w, "image", "import", "--name", "shop", dir)).Run(); err != nil {
			t.Fatalf("%v: %s", err, p.text())
		}
		p.shows(w, 0, "=====]")
		p.shows(w, 0, "shop:latest\r\n")
	})
}

// Of many commands that find no agent, one starts it and all are answered.
func TestCommandsStartTheAgent(t *testing.T) {
	w := world.New(t)
	w.StopAgent()
	inside := func(args ...string) *exec.Cmd {
		cmd := command(t, w, args...)
		cmd.Args = append([]string{"nsenter", "--net=/run/netns/" + filepath.Base(w.Run), cmd.Path}, args...)
		cmd.Path, cmd.Err = exec.LookPath("nsenter")
		cmd.Env = append(cmd.Env, "CLOUDPAL_STATE="+filepath.Join(w.Dir, "state"), "CLOUDPAL_RUN="+w.Run,
			"CLOUDPAL_KERNEL="+filepath.Join(images.ModuleRoot(), "bin", "kernel"))
		return cmd
	}
	// One that only looks does not.
	if err := inside("host", "status").Run(); err == nil {
		t.Fatal("the agent still runs")
	}
	var tasks sync.WaitGroup
	for range 4 {
		tasks.Go(func() {
			out, err := inside("vm", "ps", "--json").CombinedOutput()
			if err != nil || !strings.Contains(string(out), "[]") {
				t.Errorf("got %v: %s", err, out)
			}
		})
	}
	tasks.Wait()
	h := decoded[api.Host](t, w, "host", "status")
	if h.RunDir != w.Run || h.PID == w.AgentPID() {
		t.Errorf("got %+v", h)
	}
	must(t, w, "host", "stop")
	if err := syscall.Kill(h.PID, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the agent, pid %d, still runs: %v", h.PID, err)
	}
	os.Remove(w.Run + ".lock")
	os.Remove(w.Run + ".log")
}

// The command that waits for a VM goes with the agent; the VM does not, even
// with --rm.
func TestForegroundVMOutlivesItsCommand(t *testing.T) {
	w := world.New(t)
	w.Image("busybox")
	cmd := command(t, w, "vm", "run", "--rm", "--name", "goes-on", "--entrypoint", "sh", "busybox", "-c", polite)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(out, make([]byte, len("up\n"))); err != nil {
		t.Fatal(err)
	}
	w.StopAgent()
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 125 || !strings.Contains(errs.String(), "hint: the VM goes on without this command") {
		t.Errorf("got status %d and %q, want 125 and what to do", code, errs.String())
	}
	w.StartAgent()
	if v := decoded[api.VM](t, w, "vm", "inspect", "goes-on"); v.State != api.Running {
		t.Errorf("the VM is %s (%s)", v.State, v.Reason)
	}
}
