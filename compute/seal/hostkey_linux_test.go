package seal

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal"
)

// hostKeyFor returns the host's key of a name of t's own, which goes with t.
func hostKeyFor(t *testing.T) (name string, key *Key) {
	t.Helper()
	name = fmt.Sprintf("test-%d-%s", os.Getpid(), t.Name())
	key, err := HostKey(name)
	if errors.Is(err, cloudpal.Missing) && os.Getenv("CLOUDPAL_MUST_RUN") == "" {
		t.Skipf("this kernel keeps no keys: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dropHostKey(t, name) })
	return name, key
}

// inThread runs f in a thread that possesses this user's keys, or not.
func inThread(t *testing.T, possess bool, f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		if err := possession(possess); err != nil {
			t.Error(err)
			return
		}
		f()
	}()
	<-done
}

func possession(want bool) error {
	if want {
		_, err := unix.KeyctlInt(unix.KEYCTL_LINK, unix.KEY_SPEC_USER_KEYRING, unix.KEY_SPEC_THREAD_KEYRING, 0, 0)
		return err
	}
	// A session of its own, without the user's keys, as systemd gives a
	// service.
	_, err := unix.KeyctlJoinSessionKeyring("seal-test")
	return err
}

func keyID(t *testing.T, name string) (id int) {
	t.Helper()
	inThread(t, true, func() {
		var err error
		if id, err = unix.KeyctlSearch(unix.KEY_SPEC_USER_KEYRING, "user", "cloudpal-nap:"+name, 0); err != nil {
			t.Error(err)
		}
	})
	return id
}

func dropHostKey(t *testing.T, name string) {
	id := keyID(t, name)
	if _, err := unix.KeyctlInt(unix.KEYCTL_UNLINK, id, unix.KEY_SPEC_USER_KEYRING, 0, 0); err != nil {
		t.Error(err)
	}
}

func TestHostKeyIsTheSameEachTime(t *testing.T) {
	t.Parallel()
	name, first := hostKeyFor(t)
	again, err := HostKey(name)
	if err != nil {
		t.Fatal(err)
	}
	if *again != *first || *first == (Key{}) {
		t.Error("two calls give two keys")
	}
	other, err := HostKey(name + "-other")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dropHostKey(t, name+"-other") })
	if *other == *first {
		t.Error("two names give one key")
	}
}

func TestHostKeyOutlivesItsProcess(t *testing.T) {
	if name := os.Getenv("SEAL_TEST_KEY"); name != "" {
		key, err := HostKey(name)
		fmt.Printf("key %s %v\n", fingerprint(key), err)
		return
	}
	t.Parallel()
	name := fmt.Sprintf("test-%d-other-process", os.Getpid())
	first := keyInProcess(t, name)
	key, err := HostKey(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dropHostKey(t, name) })
	if first != fingerprint(key) || keyInProcess(t, name) != first {
		t.Error("another process has another key")
	}
}

func fingerprint(k *Key) string {
	if k == nil {
		return "none"
	}
	return fmt.Sprintf("%x", sha256.Sum256(k.secret[:]))
}

func keyInProcess(t *testing.T, name string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestHostKeyOutlivesItsProcess$")
	cmd.Env = append(os.Environ(), "SEAL_TEST_KEY="+name)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := strings.Cut(string(out), "\n")
	if strings.Contains(line, string(cloudpal.Missing)) && os.Getenv("CLOUDPAL_MUST_RUN") == "" {
		t.Skip("this kernel keeps no keys")
	}
	var print string
	if _, err := fmt.Sscanf(line, "key %s <nil>", &print); err != nil {
		t.Fatalf("the other process said %q", out)
	}
	return print
}

func TestHostKeyIsReadByItsPossessorOnly(t *testing.T) {
	t.Parallel()
	name, key := hostKeyFor(t)
	id := keyID(t, name)
	buf := make([]byte, keySize)
	inThread(t, true, func() {
		if _, err := unix.KeyctlBuffer(unix.KEYCTL_READ, id, buf, 0); err != nil || string(buf) != string(key.secret[:]) {
			t.Errorf("its possessor cannot read it: %v", err)
		}
		if _, err := unix.KeyctlBuffer(unix.KEYCTL_UPDATE, id, make([]byte, keySize), 0); !errors.Is(err, unix.EACCES) {
			t.Errorf("its possessor can change it: %v", err)
		}
	})
	inThread(t, false, func() {
		if _, err := unix.KeyctlBuffer(unix.KEYCTL_READ, id, buf, 0); !errors.Is(err, unix.EACCES) {
			t.Errorf("without possession: got %v, want %v", err, unix.EACCES)
		}
	})
}

func TestHostKeyInAServicesSession(t *testing.T) {
	t.Parallel()
	name, key := hostKeyFor(t)
	inThread(t, false, func() {
		if got, err := hostKey("cloudpal-nap:" + name); err != nil || *got != *key {
			t.Errorf("a session without the user's keys does not get the key: %v", err)
		}
	})
}

// TestHostKeyIsNotForOtherUsers tries as another user what this one can do.
func TestHostKeyIsNotForOtherUsers(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		if os.Getenv("CLOUDPAL_MUST_RUN") != "" {
			t.Fatal("needs root to become another user")
		}
		t.Skip("needs root to become another user")
	}
	name, _ := hostKeyFor(t)
	id := keyID(t, name)
	inThread(t, false, func() { // this thread's own credentials, by the raw call
		if _, _, e := syscall.RawSyscall(syscall.SYS_SETRESUID, 65534, 65534, 65534); e != 0 {
			t.Error(e)
			return
		}
		if _, err := unix.KeyctlBuffer(unix.KEYCTL_READ, id, make([]byte, keySize), 0); !errors.Is(err, unix.EACCES) {
			t.Errorf("read: got %v, want %v", err, unix.EACCES)
		}
		if _, err := unix.KeyctlInt(unix.KEYCTL_LINK, id, unix.KEY_SPEC_THREAD_KEYRING, 0, 0); !errors.Is(err, unix.EACCES) {
			t.Errorf("take: got %v, want %v", err, unix.EACCES)
		}
		if _, err := unix.KeyctlSearch(unix.KEY_SPEC_USER_KEYRING, "user", "cloudpal-nap:"+name, 0); !errors.Is(err, unix.ENOKEY) {
			t.Errorf("find: got %v, want %v", err, unix.ENOKEY)
		}
	})
}
