package host

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute/api"
)

// volumePath is where a named volume is kept.
func (h *Host) volumePath(name string) string {
	return filepath.Join(h.cfg.StateDir, "volumes", name+".img")
}

// ensureVolume makes a named volume if there is none.
func (h *Host) ensureVolume(ctx context.Context, name string) error {
	file := h.volumePath(name)
	if _, err := os.Stat(file); err == nil {
		return nil
	}
	tmp := filepath.Join(filepath.Dir(file), ".new-"+name)
	if err := os.RemoveAll(tmp); err != nil {
		return err
	}
	if err := makeVolume(ctx, tmp, defaultDisk); err != nil {
		return err
	}
	if err := os.Rename(tmp, file); err != nil {
		return err
	}
	return syncDir(filepath.Dir(file))
}

// Volumes lists the named volumes.
func (h *Host) Volumes() ([]api.Volume, error) {
	entries, err := os.ReadDir(filepath.Join(h.cfg.StateDir, "volumes"))
	if err != nil {
		return nil, cloudpal.E("list volumes", "", err)
	}
	list := []api.Volume{}
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".img")
		info, err := e.Info()
		if !ok || err != nil {
			continue
		}
		h.mu.Lock()
		user := h.volumes[name]
		h.mu.Unlock()
		list = append(list, api.Volume{
			Name: name, Size: info.Size(), Used: allocated(info), Created: created(info), UsedBy: user,
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
	err := os.Remove(h.volumePath(name))
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
