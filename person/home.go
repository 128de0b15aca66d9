package person

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/tradle/cloudpal"
)

const (
	lockName   = "lock"       // held while the state is changed
	agentLock  = "agent.lock" // held by the agent, all its life
	socketName = "agent.sock"
	logName    = "agent.log"
	tmpSuffix  = ".new"
	lockEvery  = 10 * time.Millisecond
)

// names are all that a home may have in it.
var names = []string{stateName, lockName, agentLock, socketName, logName, stateName + tmpSuffix}

// An Owner is whom a home and its files belong to.
type Owner struct{ UID, GID int }

// Me is who runs this process.
func Me() Owner { return Owner{os.Getuid(), os.Getgid()} }

// A Home is a directory of one person on one device. It is safe for concurrent
// use, also by many processes.
type Home struct {
	dir  string
	root *os.Root // so that no link in it leads a process of root's elsewhere
	own  Owner
}

// Make opens a home and makes the directory where it is missing, for that
// owner, with the directories above it.
func Make(dir string, own Owner) (*Home, error) {
	op := "make " + dir
	if err := makeAll(dir, own); err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	return OpenHome(dir)
}

// makeAll makes directories, all of them of this owner.
func makeAll(dir string, own Owner) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	if up := filepath.Dir(dir); up != dir {
		if err := makeAll(up, own); err != nil {
			return err
		}
	}
	err := os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil && own != Me() {
		err = os.Lchown(dir, own.UID, own.GID)
	}
	return err
}

// OpenHome opens a home. The error is cloudpal.NotExist where there is none,
// and cloudpal.Denied where it is somebody else's.
func OpenHome(dir string) (*Home, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, cloudpal.E("open "+dir, cloudpal.Invalid, err)
	}
	root, err := os.OpenRoot(abs)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, cloudpal.E("", cloudpal.NotExist, errors.New("there is no pal yet in "+abs)).
			WithHint("make one: cloudpal up")
	}
	if err != nil {
		return nil, cloudpal.E("open "+abs, "", err)
	}
	h := &Home{dir: abs, root: root}
	if err := h.check(); err != nil {
		root.Close()
		return nil, cloudpal.E("open "+abs, cloudpal.Denied, err).
			WithHint("it must be a directory of yours, with mode 0700; choose another with --home")
	}
	return h, nil
}

// check finds the owner, and refuses a directory that others may use.
func (h *Home) check() error {
	info, err := h.root.Stat(".")
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return errors.New("it has no owner")
	}
	h.own = Owner{int(st.Uid), int(st.Gid)}
	if me := os.Geteuid(); me != 0 && me != h.own.UID {
		return errors.New("it is another user's")
	}
	if info.Mode().Perm()&0o077 != 0 {
		return fmt.Errorf("its mode is %04o", info.Mode().Perm())
	}
	return nil
}

// Close lets go of the directory.
func (h *Home) Close() error { return h.root.Close() }

// Dir returns the directory.
func (h *Home) Dir() string { return h.dir }

// Owner returns whom it belongs to.
func (h *Home) Owner() Owner { return h.own }

func (h *Home) path(name string) string { return filepath.Join(h.dir, name) }

// Log opens the agent's log, empty.
func (h *Home) Log() (*os.File, error) {
	return h.open(logName, os.O_CREATE|os.O_RDWR|os.O_TRUNC)
}

// open opens a file of the home and sees to its owner.
func (h *Home) open(name string, flags int) (*os.File, error) {
	f, err := h.root.OpenFile(name, flags|syscall.O_NOFOLLOW, 0o600)
	if err == nil && flags&os.O_CREATE != 0 {
		err = h.give(f)
	}
	if err != nil && f != nil {
		f.Close()
	}
	return f, err
}

// give makes a file that root has made the owner's.
func (h *Home) give(f *os.File) error {
	if os.Geteuid() != 0 || h.own.UID == 0 {
		return nil
	}
	return f.Chown(h.own.UID, h.own.GID)
}

func (h *Home) read(name string, most int64) ([]byte, error) {
	f, err := h.open(name, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > most {
		return nil, errors.New("it is no file of a home")
	}
	return io.ReadAll(io.LimitReader(f, most))
}

// write replaces a file so that after a crash it is the old or the new one, and
// the new one once write has returned.
func (h *Home) write(name string, data []byte) error {
	tmp := name + tmpSuffix
	if err := h.root.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := h.open(tmp, os.O_CREATE|os.O_WRONLY|os.O_EXCL)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := h.root.Rename(tmp, name); err != nil {
		return err
	}
	return h.sync()
}

func (h *Home) sync() error {
	d, err := h.root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

var errLocked = errors.New("another process holds the lock")

// tryLock takes a lock that ends with this process, or with unlock.
func (h *Home) tryLock(name string) (unlock func(), err error) {
	f, err := h.open(name, os.O_CREATE|os.O_RDWR)
	if err != nil {
		return nil, err
	}
	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err != nil {
		f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = errLocked
		}
		return nil, err
	}
	return func() { f.Close() }, nil
}

// lock waits for a lock.
func (h *Home) lock(ctx context.Context, name string) (unlock func(), err error) {
	for {
		unlock, err = h.tryLock(name)
		if !errors.Is(err, errLocked) {
			return unlock, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", err, ctx.Err())
		case <-time.After(lockEvery):
		}
	}
}

// Running reports whether the home has an agent.
func (h *Home) Running() bool {
	unlock, err := h.tryLock(agentLock)
	if err == nil {
		unlock()
	}
	return errors.Is(err, errLocked)
}

// Remove removes all that a home has in it, and the directory, if nothing else
// is in it. No agent may run.
func (h *Home) Remove(ctx context.Context) error {
	const op = "remove the home"
	unlock, err := h.tryLock(agentLock)
	if err != nil {
		return cloudpal.E(op, cloudpal.Busy, err)
	}
	defer unlock()
	if err := h.wipe(stateName); err != nil {
		return cloudpal.E(op, "", err)
	}
	for _, name := range names {
		if err := h.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return cloudpal.E(op, "", err)
		}
	}
	os.Remove(h.dir) // what is there and not ours stays
	return nil
}

// wipe overwrites a file of secrets, which helps on some disks and harms on
// none.
func (h *Home) wipe(name string) error {
	f, err := h.open(name, os.O_WRONLY)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err == nil {
		_, err = f.Write(make([]byte, min(info.Size(), maxState)))
	}
	return errors.Join(err, f.Sync())
}
