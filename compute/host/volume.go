package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute/api"
)

// What volumes' files are called, by what is on them.
const (
	volumeExt = ".img" // ext4
	rawExt    = ".raw" // the guest knows
)

// newVolume begins the name of a volume that is being made.
const newVolume = ".new-"

// volumePath is where a named volume is kept.
func (h *Host) volumePath(m api.Mount) string {
	ext := volumeExt
	if m.Raw {
		ext = rawExt
	}
	return filepath.Join(h.cfg.StateDir, "volumes", m.Volume+ext)
}

// ensureVolume makes a named volume if there is none. A raw one is of the given
// size.
func (h *Host) ensureVolume(ctx context.Context, m api.Mount, size int64) error {
	file := h.volumePath(m)
	if exists(file) {
		return nil
	}
	if exists(h.volumePath(api.Mount{Volume: m.Volume, Raw: !m.Raw})) {
		return wrongVolume(m)
	}
	tmp := filepath.Join(filepath.Dir(file), newVolume+m.Volume)
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if m.Raw {
		if err := makeRaw(tmp, size); err != nil {
			return err
		}
	} else if err := makeVolume(ctx, tmp, defaultDisk); err != nil {
		return err
	}
	if err := os.Rename(tmp, file); err != nil {
		return err
	}
	return syncDir(filepath.Dir(file))
}

// wrongVolume refuses to take what one guest has written itself for a file
// system, and a file system for what may be written over.
func wrongVolume(m api.Mount) error {
	err := cloudpal.E("volume "+m.Volume, cloudpal.Invalid, errors.New("it is a raw one"))
	hint := fmt.Sprintf("write it as %s:%s:raw, or name another volume", m.Volume, m.Path)
	if m.Raw {
		err = cloudpal.E("volume "+m.Volume, cloudpal.Invalid, errors.New("it has a file system"))
		hint = fmt.Sprintf("write it as %s:%s, or name another volume", m.Volume, m.Path)
	}
	return err.WithHint(hint)
}

// makeRaw makes a sparse file with nothing in it.
func makeRaw(file string, size int64) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Sync(), f.Close())
}

// Volumes lists the named volumes.
func (h *Host) Volumes() ([]api.Volume, error) {
	entries, err := os.ReadDir(filepath.Join(h.cfg.StateDir, "volumes"))
	if err != nil {
		return nil, cloudpal.E("list volumes", "", err)
	}
	list := []api.Volume{}
	for _, e := range entries {
		ext := filepath.Ext(e.Name())
		name := strings.TrimSuffix(e.Name(), ext)
		info, err := e.Info()
		if err != nil || strings.HasPrefix(name, ".") || ext != volumeExt && ext != rawExt {
			continue
		}
		h.mu.Lock()
		user := h.volumes[name]
		h.mu.Unlock()
		list = append(list, api.Volume{
			Name: name, Size: info.Size(), Used: allocated(info), Raw: ext == rawExt, Created: created(info), UsedBy: user,
		})
	}
	return list, nil
}

// RemoveVolume removes a named volume that no VM has.
func (h *Host) RemoveVolume(name string) error {
	if err := checkName("volume", name); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if user := h.volumes[name]; user != "" {
		return cloudpal.E("remove volume "+name, cloudpal.Busy, errors.New("vm "+user+" has it")).
			WithHint("remove the VM first: cloudpal vm rm " + user)
	}
	err := os.Remove(h.volumePath(api.Mount{Volume: name}))
	if errors.Is(err, fs.ErrNotExist) {
		err = os.Remove(h.volumePath(api.Mount{Volume: name, Raw: true}))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return cloudpal.E("volume "+name, cloudpal.NotExist, nil).WithHint("cloudpal volume ls lists them")
	}
	if err != nil {
		return cloudpal.E("remove volume "+name, "", err)
	}
	return syncDir(filepath.Join(h.cfg.StateDir, "volumes"))
}

// allocated returns how many bytes a file really takes.
func allocated(info fs.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return info.Size()
}

// created returns the best the file system knows: the inode's last change is
// the mke2fs of a volume that was never attached, and no earlier than that.
func created(info fs.FileInfo) time.Time { return info.ModTime() }
