package host

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// A VM that is removed when its process has ended may be gone before anybody
// can ask how that went. How, and what it wrote, is kept for a while: so many
// at most, each for so long.
const (
	goneMost = 32
	goneFor  = time.Minute
)

// goneDir is where the logs of VMs that are gone are.
func (h *Host) goneDir() string { return filepath.Join(h.cfg.RunDir, "gone") }

// remember keeps what there is to tell of a VM that is about to be removed.
func (h *Host) remember(v *vm) error {
	dir := filepath.Join(h.goneDir(), v.rec.ID)
	if err := errors.Join(os.MkdirAll(dir, 0o700), v.log.move(filepath.Join(dir, "log"))); err != nil {
		return err
	}
	h.mu.Lock()
	h.gone = append(h.gone, v)
	h.mu.Unlock()
	return h.forget(time.Now())
}

// recall is find, of VMs that are gone too.
func (h *Host) recall(name string) (*vm, error) {
	v, err := h.find(name)
	if err == nil {
		return v, nil
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, v := range slices.Backward(h.gone) {
		if v.name == name {
			return v, nil
		}
	}
	return nil, err
}

// forget drops those that were remembered for long enough, the first first.
func (h *Host) forget(now time.Time) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	var errs []error
	for len(h.gone) > goneMost || len(h.gone) > 0 && now.Sub(h.gone[0].rec.StopAt) > goneFor {
		errs = append(errs, os.RemoveAll(filepath.Join(h.goneDir(), h.gone[0].rec.ID)))
		h.gone = h.gone[1:]
	}
	return errors.Join(errs...)
}

// move takes the log's files to another path on the same file system.
func (l *logbook) move(path string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	to := logbook{path: path}
	for from, to := range map[string]string{l.older(): to.older(), l.path: to.path} {
		if err := os.Rename(from, to); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	l.path = path
	return nil
}
