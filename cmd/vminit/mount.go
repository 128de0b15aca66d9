package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal/compute/guest"
)

// root is where the image's root is put together, before it becomes /.
const root = "/root.new"

// mountKernel mounts the kernel's own file systems below dir.
func mountKernel(dir string) error {
	const quiet = unix.MS_NOSUID | unix.MS_NOEXEC
	for _, m := range []struct {
		fs, path string
		flags    uintptr
		data     string
	}{
		{"devtmpfs", "dev", unix.MS_NOSUID, "mode=0755"},
		{"proc", "proc", quiet | unix.MS_NODEV, ""},
		{"sysfs", "sys", quiet | unix.MS_NODEV, ""},
	} {
		if err := mountAt(m.fs, m.fs, filepath.Join(dir, m.path), m.flags, m.data); err != nil {
			return err
		}
	}
	return nil
}

// mountProcess mounts what else a process expects.
func mountProcess(dir string) error {
	const quiet = unix.MS_NOSUID | unix.MS_NOEXEC
	for _, m := range []struct{ fs, path, data string }{
		{"devpts", "dev/pts", "mode=0620,ptmxmode=0666,gid=5"},
		{"tmpfs", "dev/shm", "mode=1777"},
		{"cgroup2", "sys/fs/cgroup", ""},
	} {
		if err := mountAt(m.fs, m.fs, filepath.Join(dir, m.path), quiet, m.data); err != nil {
			return err
		}
	}
	for name, target := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(target, filepath.Join(dir, "dev", name)); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	return nil
}

func mountAt(source, fs, path string, flags uintptr, data string) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(source, path, fs, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", source, path, err)
	}
	return nil
}

// makeRoot stacks the image's layers and the volume at root. It returns the
// writable disks' mount points, to be synced and closed at the end.
func makeRoot(cfg guest.Config) (disks []*os.File, err error) {
	lower, err := mountLayers(cfg)
	if err != nil {
		return nil, err
	}
	if err := mountWritable(cfg.Volume); err != nil {
		return nil, err
	}
	for _, dir := range []string{"/volume/upper", "/volume/work", "/volume/mounts"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	if err := takeRootMode(lower[0], "/volume/upper"); err != nil {
		return nil, err
	}
	data := "lowerdir=" + strings.Join(lower, ":") + ",upperdir=/volume/upper,workdir=/volume/work"
	if err := mountAt("overlay", "overlay", root, 0, data); err != nil {
		return nil, err
	}
	if err := mountVolumes(cfg); err != nil {
		return nil, err
	}
	if err := errors.Join(mountKernel(root), mountProcess(root)); err != nil {
		return nil, err
	}
	// Last, for they may be in /dev.
	if err := placeDevices(cfg.Volumes); err != nil {
		return nil, err
	}
	return openDisks(cfg)
}

// mountWritable mounts what the image's root is written over: a disk, or where
// there is none, this guest's memory.
func mountWritable(dev string) error {
	if dev == "" {
		return mountAt("tmpfs", "tmpfs", "/volume", 0, "mode=0755")
	}
	return mountDisk(dev, "/volume", false)
}

// takeRootMode gives the overlay's root the owner and rights that the image's
// has: the upper directory's count.
func takeRootMode(layer, upper string) error {
	var st unix.Stat_t
	if err := unix.Stat(layer, &st); err != nil {
		return err
	}
	return errors.Join(unix.Chown(upper, int(st.Uid), int(st.Gid)), unix.Chmod(upper, st.Mode&0o7777))
}

// mountLayers mounts the image's layers and returns where, the topmost first.
func mountLayers(cfg guest.Config) ([]string, error) {
	lower := make([]string, len(cfg.Layers))
	for i, dev := range cfg.Layers {
		at := fmt.Sprintf("/l%d", i)
		if err := awaitDevice(dev); err != nil {
			return nil, err
		}
		if err := mountAt("/dev/"+dev, cfg.LayerFS, at, unix.MS_RDONLY, ""); err != nil {
			return nil, err
		}
		lower[len(lower)-1-i] = at
	}
	if len(lower) == 0 {
		return nil, errors.New("the image has no layers")
	}
	return lower, nil
}

func mountDisk(dev, at string, readOnly bool) error {
	if err := awaitDevice(dev); err != nil {
		return err
	}
	var flags uintptr
	if readOnly {
		flags = unix.MS_RDONLY
	}
	// What is deleted is a hole of the host's sparse file again.
	return mountAt("/dev/"+dev, "ext4", at, flags, "discard")
}

// deviceWait is how long a disk may take to appear.
const deviceWait = 10 * time.Second

func awaitDevice(dev string) error {
	for end := time.Now().Add(deviceWait); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat("/dev/" + dev); err == nil {
			return nil
		} else if time.Now().After(end) {
			return fmt.Errorf("disk %s does not appear: %w", dev, err)
		}
	}
}

// mountVolumes lays the image's volumes and the named ones over the root.
func mountVolumes(cfg guest.Config) error {
	for _, path := range cfg.Mounts {
		dir := filepath.Join("/volume/mounts", strings.ReplaceAll(strings.Trim(filepath.Clean(path), "/"), "/", "-"))
		if err := layOver(dir, path); err != nil {
			return fmt.Errorf("volume at %s: %w", path, err)
		}
	}
	for i, v := range cfg.Volumes {
		if v.Raw {
			continue
		}
		disk := fmt.Sprintf("/disk%d", i)
		if err := mountDisk(v.Device, disk, v.ReadOnly); err != nil {
			return err
		}
		// Not the disk's own root: programs do not expect a lost+found.
		if err := layOver(disk+"/data", v.Path); err != nil {
			return fmt.Errorf("volume at %s: %w", v.Path, err)
		}
	}
	return nil
}

// layOver binds dir over path of the new root. A dir that is new starts with
// what the image has there, as with every container tool.
func layOver(dir, path string) error {
	at, err := inRoot(path)
	if err != nil {
		return err
	}
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		if err := copyTree(at, dir); err != nil {
			return err
		}
	}
	return unix.Mount(dir, at, "", unix.MS_BIND, "")
}

// inRoot makes the directory path in the new root and returns it as seen from
// outside. No symlink of the image leads out of the root.
func inRoot(path string) (string, error) {
	dir, err := os.OpenRoot(root)
	if err != nil {
		return "", err
	}
	defer dir.Close()
	rel := strings.Trim(filepath.Clean("/"+path), "/")
	if rel == "" {
		return "", errors.New("a volume cannot be the root")
	}
	if err := dir.MkdirAll(rel, 0o755); err != nil {
		return "", err
	}
	f, err := dir.Open(rel)
	if err != nil {
		return "", err
	}
	defer f.Close()
	return os.Readlink(fmt.Sprintf("/proc/self/fd/%d", f.Fd()))
}

// placeDevices gives the new root a node for each raw volume, for root alone.
func placeDevices(volumes []guest.Volume) error {
	for _, v := range volumes {
		if !v.Raw {
			continue
		}
		if err := awaitDevice(v.Device); err != nil {
			return err
		}
		if err := placeDevice("/dev/"+v.Device, v.Path); err != nil {
			return fmt.Errorf("device at %s: %w", v.Path, err)
		}
	}
	return nil
}

// placeDevice makes path of the new root the block device dev. What the image
// or an earlier boot has there goes, unless it is a directory.
func placeDevice(dev, path string) error {
	var st unix.Stat_t
	if err := unix.Stat(dev, &st); err != nil {
		return err
	}
	dir, name := filepath.Split(filepath.Clean("/" + path))
	at := root
	if dir != "/" {
		var err error
		if at, err = inRoot(dir); err != nil {
			return err
		}
	}
	node := filepath.Join(at, name)
	if err := unix.Unlink(node); err != nil && err != unix.ENOENT {
		return err
	}
	return unix.Mknod(node, unix.S_IFBLK|0o600, int(st.Rdev))
}

// enter makes dir the root of this process and all that come.
func enter(dir string) error {
	if err := os.Chdir(dir); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return err
	}
	return os.Chdir("/")
}

// openDisks opens the mount points of the writable disks: once the root is
// entered they have no name.
func openDisks(cfg guest.Config) ([]*os.File, error) {
	var paths []string
	if cfg.Volume != "" {
		paths = append(paths, "/volume")
	}
	for i, v := range cfg.Volumes {
		if !v.ReadOnly && !v.Raw {
			paths = append(paths, fmt.Sprintf("/disk%d", i))
		}
	}
	var disks []*os.File
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		disks = append(disks, f)
	}
	return disks, nil
}
