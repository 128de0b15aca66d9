package vault

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/mint/signing"
	"github.com/tradle/cloudpal/test/apart"
	"github.com/tradle/cloudpal/ticket"
)

// The test binary is the signer, and what attacks one, where this is set.
const role = "CLOUDPAL_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "signer":
		os.Exit(beSigner())
	case "stranger":
		os.Exit(beStranger())
	case "captive":
		os.Exit(beCaptive())
	case "tracer":
		os.Exit(beTracer())
	}
	os.Exit(m.Run())
}

// beSigner does what "cloudpal mint signer" does.
func beSigner() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	uid, _ := strconv.Atoi(os.Args[3])
	err := Serve(ctx, os.Args[1], os.Args[2], uid, slog.New(slog.NewTextHandler(os.Stderr, nil)), func() { fmt.Println("ready") })
	if err != nil && ctx.Err() == nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// beStranger connects and says what came of it.
func beStranger() int {
	conn, err := net.Dial("unix", os.Args[1])
	if err != nil {
		fmt.Print("cannot connect")
		return 0
	}
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	conn.Write([]byte{0, 0, 0, 1, 2})
	n, err := conn.Read(make([]byte, 100))
	fmt.Printf("%d bytes, %v", n, err)
	return 0
}

// beTracer tries to look into another process, and says what it could do.
func beTracer() int {
	pid, _ := strconv.Atoi(os.Args[1])
	if err := unix.PtraceAttach(pid); err == nil {
		fmt.Print("attached; ")
	}
	for _, file := range []string{"mem", "maps", "environ"} {
		if f, err := os.Open(fmt.Sprintf("/proc/%d/%s", pid, file)); err == nil {
			if _, err := f.Read(make([]byte, 1)); err == nil || file == "mem" {
				fmt.Print("opened ", file, "; ")
			}
			f.Close()
		}
	}
	if err := unix.Kill(pid, 0); err != nil {
		fmt.Print("is no user of the same name: ", err)
	}
	return 0
}

// beCaptive hardens itself, tries what a signer that was taken over would, and says
// what it could do.
func beCaptive() int {
	listener, err := net.Listen("unix", os.Args[1])
	if err != nil {
		return 2
	}
	defer listener.Close()
	if err := Harden(quiet); err != nil {
		fmt.Print(err)
		return 1
	}
	tried := map[string]error{}
	_, tried["tcp"] = net.Dial("tcp", "127.0.0.1:1")
	_, tried["udp"] = net.Dial("udp", "127.0.0.1:1")
	_, tried["unix"] = net.Dial("unix", os.Args[1])
	_, tried["netlink"] = unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, 0)
	tried["exec"] = exec.Command("/bin/true").Run()
	tried["ptrace"] = unix.PtraceAttach(os.Getppid())
	tried["unshare"] = unix.Unshare(unix.CLONE_NEWUSER)
	_, tried["uring"] = errnoOf(unix.Syscall(unix.SYS_IO_URING_SETUP, 1, 0, 0))
	tried["kill"] = unix.Kill(os.Getppid(), 0)
	for name, err := range tried {
		if !errors.Is(err, unix.EPERM) {
			fmt.Printf("%s: %v; ", name, err)
		}
	}
	var core unix.Rlimit
	if dumpable, err := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0); err == nil && dumpable != 0 {
		fmt.Print("dumpable; ")
	}
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &core); err == nil && core.Cur != 0 {
		fmt.Print("core dumps; ")
	}
	return 0
}

func errnoOf(r, _ uintptr, errno syscall.Errno) (uintptr, error) {
	if errno != 0 {
		return r, errno
	}
	return r, nil
}

// self is the test binary in a role, as another user where uid is not ours.
func self(ctx context.Context, as string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), role+"="+as)
	return cmd
}

// A house is where a signer lives.
type house struct {
	keys, socket string
	uid          int

	mu   sync.Mutex
	said bytes.Buffer
}

// Write collects all that the signers say.
func (h *house) Write(b []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.said.Write(b)
}

func newHouse(t *testing.T) *house {
	dir, err := os.MkdirTemp("", "signer") // shorter than t.TempDir: a socket's path has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return &house{keys: filepath.Join(dir, "keys"), socket: filepath.Join(dir, "s"), uid: os.Getuid()}
}

func (h *house) command(ctx context.Context) *exec.Cmd {
	cmd := self(ctx, "signer", h.keys, h.socket, strconv.Itoa(h.uid))
	cmd.Stdout, cmd.Stderr = h, h
	return cmd
}

// keep runs signers in the house until the test ends.
func (h *house) keep(t *testing.T) *signing.Client {
	ctx, cancel := context.WithCancel(context.Background())
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		signing.Keep(ctx, func(ctx context.Context) *exec.Cmd {
			return h.command(ctx)
		}, quiet)
	}()
	client := signing.NewClient(h.socket)
	t.Cleanup(func() { client.Close(); cancel(); <-kept })
	return client
}

// kill kills the signer that answers just now.
func (h *house) kill(t *testing.T) {
	t.Helper()
	conn, err := net.Dial("unix", h.socket)
	if err != nil {
		return // there is none just now
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err == nil && int(cred.Pid) != os.Getpid() {
			syscall.Kill(int(cred.Pid), syscall.SIGKILL)
		}
	})
}

// A signer is killed again and again while it signs, makes keys and starts: nobody
// notices but by the time that it takes, and each question has one answer for ever.
func TestSameAnswersWhateverIsKilled(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	client := h.keep(t)
	e := ticket.EpochAt(time.Now())
	k, err := client.Generate(t.Context(), ticket.Paid, 64, e)
	if err != nil {
		t.Fatal(err)
	}
	blinded, secrets := outputs(t, k, 40)
	want, err := client.Sign(t.Context(), k.ID(), blinded)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := secrets[39].Finish(want[39]); err != nil {
		t.Error(err)
	}

	const callers, rounds = 4, 5
	var all sync.WaitGroup
	for range callers {
		all.Go(func() {
			for range rounds {
				got, err := client.Sign(t.Context(), k.ID(), blinded)
				if err != nil || !slices.EqualFunc(got, want, bytes.Equal) {
					t.Errorf("got other signatures, or %v", err)
				}
				if again, err := client.Generate(t.Context(), ticket.Paid, 64, e); err != nil || again.ID() != k.ID() {
					t.Errorf("got another key, or %v", err)
				}
			}
		})
	}
	finished := make(chan struct{})
	go func() { all.Wait(); close(finished) }()
	kills := 0
	for tick := time.NewTicker(300 * time.Millisecond); ; {
		select {
		case <-tick.C:
			if kills < 6 {
				h.kill(t)
				kills++
			}
			continue
		case <-finished:
			tick.Stop()
		}
		break
	}
	if kills == 0 {
		t.Error("it was over before anything was killed")
	}
}

// What the signer says, anywhere, has nothing of its keys; nor have its answers.
func TestSaysNothingOfKeys(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	client := h.keep(t)
	e := ticket.EpochAt(time.Now())
	k, err := client.Generate(t.Context(), ticket.Free, 1, e)
	if err != nil {
		t.Fatal(err)
	}
	client.Sign(t.Context(), k.ID(), [][]byte{make([]byte, 256)})
	client.Sign(t.Context(), ticket.KeyID{}, nil)
	client.Drop(t.Context(), e)
	client.Generate(t.Context(), 7, 7, 7)
	if _, err := client.Public(t.Context()); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(h.keys, name{ticket.Free, 1, e}.file()))
	if err != nil {
		t.Fatal(err)
	}
	h.mu.Lock()
	said := h.said.String()
	h.mu.Unlock()
	if !strings.Contains(said, "made a ticket key") {
		t.Errorf("the log is not what was looked at: %q", said)
	}
	for _, secret := range secretsOf(t, text) {
		if strings.Contains(said, secret) {
			t.Error("the log has a part of a key")
		}
	}
}

// secretsOf are the ways in which a log could have a key.
func secretsOf(t *testing.T, text []byte) (list []string) {
	t.Helper()
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "-----") && len(line) > 20 {
			list = append(list, strings.TrimSpace(line))
		}
	}
	b, _ := pem.Decode(text)
	key, err := x509.ParsePKCS8PrivateKey(b.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	r := key.(*rsa.PrivateKey)
	for _, n := range []*big.Int{r.D, r.Primes[0], r.Primes[1]} {
		list = append(list, n.String(), hex.EncodeToString(n.Bytes()), fmt.Sprint(n.Bytes()))
	}
	return list
}

func TestCaptiveCanDoNothing(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	out, err := self(t.Context(), "captive", h.socket).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("a signer that was taken over can still: %s (%v)", out, err)
	}
}

// Only the mint's user is answered: not another, and not root either.
func TestStrangersAreNotAnswered(t *testing.T) {
	t.Parallel()
	apart.Root(t, "it is several users")
	binary := copyOfSelf(t)
	for _, c := range []struct {
		mint, who int
		want      string
	}{
		{mint: 0, who: 12345, want: "cannot connect"},
		{mint: 12346, who: 12345, want: "0 bytes"},
		{mint: 12346, who: 0, want: "0 bytes"},
		{mint: 12346, who: 12346, want: "5 bytes, <nil>"},
	} {
		h := newHouse(t)
		h.uid = c.mint
		if err := os.Chmod(filepath.Dir(h.socket), 0o755); err != nil {
			t.Fatal(err)
		}
		running := start(t, h)
		cmd := exec.CommandContext(t.Context(), binary, h.socket)
		cmd.Env = append(os.Environ(), role+"=stranger")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(c.who), Gid: uint32(c.who)}}
		out, err := cmd.Output()
		if err != nil || !strings.HasPrefix(string(out), c.want) {
			t.Errorf("user %d at a signer of user %d's: got %q (%v), want %q", c.who, c.mint, out, err, c.want)
		}
		running()
	}
}

// copyOfSelf is a test binary that others can run.
func copyOfSelf(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(newHouse(t).socket)
	path := filepath.Join(dir, "test")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(path, data, 0o755)); err != nil {
		t.Fatal(err)
	}
	return path
}

// start runs one signer, and returns when it answers.
func start(t *testing.T, h *house) (stop func()) {
	t.Helper()
	cmd := h.command(t.Context())
	cmd.Stdout = nil
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 10)); err != nil {
		t.Fatalf("the signer does not start: %v, %s", err, h.said.String())
	}
	return func() {
		cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			t.Errorf("the signer ended with %v: %s", err, h.said.String())
		}
	}
}

// A second signer takes neither the keys nor the socket of one that runs, which
// leaves both to the next.
func TestOneSignerForASocket(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	stop := start(t, h)
	client := signing.NewClient(h.socket)
	defer client.Close()
	if _, err := client.Public(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := second(Open(h.keys, time.Now, quiet)); !errors.Is(err, cloudpal.Busy) {
		t.Errorf("another opens its keys: %v", err)
	}
	other := newHouse(t)
	other.socket = h.socket
	if err := other.command(t.Context()).Run(); err == nil {
		t.Error("another signer takes its socket")
	} else if said := other.said.String(); !strings.Contains(said, "another signer answers") {
		t.Errorf("a second signer says %q", said)
	}
	stop()
	if _, err := os.Stat(h.socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its socket is left: %v", err)
	}
	start(t, h)()
}

// Nobody of the same user can look into it.
func TestNotTraceable(t *testing.T) {
	t.Parallel()
	apart.Root(t, "it is several users")
	binary := copyOfSelf(t)
	as := &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 12347, Gid: 12347}}
	h := newHouse(t)
	h.uid = 12347
	if err := os.Chown(filepath.Dir(h.socket), 12347, 12347); err != nil {
		t.Fatal(err)
	}
	signer := h.command(t.Context())
	signer.Path, signer.SysProcAttr, signer.Stdout = binary, as, nil
	out, err := signer.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := signer.Start(); err != nil {
		t.Fatal(err)
	}
	defer signer.Wait()
	defer signer.Process.Kill()
	if _, err := out.Read(make([]byte, 10)); err != nil {
		t.Fatalf("the signer does not start: %v, %s", err, h.said.String())
	}
	tracer := exec.CommandContext(t.Context(), binary, strconv.Itoa(signer.Process.Pid))
	tracer.Env, tracer.SysProcAttr = append(os.Environ(), role+"=tracer"), as
	if got, err := tracer.CombinedOutput(); err != nil || len(got) > 0 {
		t.Errorf("a process of the same user: %s (%v)", got, err)
	}
}
