package seal

import (
	"crypto/rand"
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal"
)

// Permissions of a key in a keyring, from keyctl_setperm(3): who possesses it
// may see, find and read it; root may see that it is there; nobody can change
// it.
const (
	possessorView   = 0x01000000
	possessorRead   = 0x02000000
	possessorSearch = 0x08000000
	userView        = 0x00010000
	hostKeyPerm     = possessorView | possessorRead | possessorSearch | userView
)

// HostKey returns the key of that name that the kernel keeps for this user in
// memory, and makes it where there is none: it outlives the process, but never
// the machine's power, and is written nowhere. Where the kernel keeps no keys
// (not built in, or forbidden to a container) the error is cloudpal.Missing;
// NewKey then is a key for as long as the process lives.
func HostKey(name string) (*Key, error) {
	type result struct {
		key *Key
		err error
	}
	done := make(chan result)
	go func() {
		// Possession belongs to a thread. This one ends with the goroutine,
		// since it stays locked.
		runtime.LockOSThread()
		key, err := hostKey("cloudpal-nap:" + name)
		done <- result{key, err}
	}()
	r := <-done
	if r.err != nil {
		return nil, cloudpal.E("seal.HostKey", keyringKind(r.err), fmt.Errorf("the kernel's keyring: %w", r.err)).
			WithHint("without it, naps on disk are lost when the agent restarts")
	}
	return r.key, nil
}

func keyringKind(err error) cloudpal.Kind {
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		return cloudpal.Missing
	}
	return ""
}

func hostKey(description string) (*Key, error) {
	// A service's session may not have the user's keyring; without a way to
	// it from the thread the key would not be possessed.
	_, err := unix.KeyctlInt(unix.KEYCTL_LINK, unix.KEY_SPEC_USER_KEYRING, unix.KEY_SPEC_THREAD_KEYRING, 0, 0)
	if err != nil {
		return nil, err
	}
	id, err := unix.KeyctlSearch(unix.KEY_SPEC_USER_KEYRING, "user", description, 0)
	if errors.Is(err, unix.ENOKEY) {
		id, err = addKey(description)
	}
	if err != nil {
		return nil, err
	}
	return readKey(id)
}

// addKey makes the key. If another process was faster, it is that one's: a key
// that has its permissions cannot be overwritten.
func addKey(description string) (int, error) {
	secret := make([]byte, keySize)
	rand.Read(secret)
	id, err := unix.AddKey("user", description, secret, unix.KEY_SPEC_USER_KEYRING)
	clear(secret)
	if errors.Is(err, unix.EACCES) {
		return unix.KeyctlSearch(unix.KEY_SPEC_USER_KEYRING, "user", description, 0)
	}
	if err != nil {
		return 0, err
	}
	return id, unix.KeyctlSetperm(id, hostKeyPerm)
}

func readKey(id int) (*Key, error) {
	k := new(Key)
	n, err := unix.KeyctlBuffer(unix.KEYCTL_READ, id, k.secret[:], 0)
	if err != nil {
		return nil, err
	}
	if n != keySize {
		return nil, fmt.Errorf("key %d has %d bytes, not %d", id, n, keySize)
	}
	return k, nil
}
