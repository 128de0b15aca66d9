package volume

import (
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// No library for the device mapper that needs no C is kept up, and what a
// volume needs of it is four requests: Linux, include/uapi/linux/dm-ioctl.h and
// Documentation/admin-guide/device-mapper/dm-crypt.rst.

const (
	control    = "/dev/mapper/" + unix.DM_CONTROL_NODE
	unit       = 512  // the bytes of a sector as the device mapper counts
	cipherUnit = 4096 // and as the cipher does
)

// A mapped device is the plaintext of another.
type mapped struct {
	name  string
	minor uint32
	size  int64
}

func (m mapped) path() string { return fmt.Sprintf("/dev/dm-%d", m.minor) }

// mapCrypt makes a device of what is on f from dataAt on, decrypted. It takes
// the key and clears it.
func mapCrypt(name string, f *os.File, key []byte) (m mapped, err error) {
	defer clear(key)
	size, err := sizeOf(f)
	if err != nil {
		return m, err
	}
	m = mapped{name: name, size: (size - dataAt) / cipherUnit * cipherUnit}
	if m.size <= 0 {
		return m, errors.New("the device is too small")
	}
	dev, err := ask(unix.DM_DEV_CREATE, name, 0, nil)
	if err != nil {
		return m, fmt.Errorf("make a mapping: %w", err)
	}
	m.minor = unix.Minor(dev)
	params := cryptParams(f.Name(), key)
	defer clear(params)
	err = m.load(params)
	if err == nil {
		err = awaitNode(m.path())
	}
	if err != nil {
		return m, errors.Join(err, m.remove())
	}
	return m, nil
}

// load gives the mapping its table, and begins with it.
func (m mapped) load(params []byte) error {
	t := table(m.size/unit, "crypt", params)
	defer clear(t)
	if _, err := ask(unix.DM_TABLE_LOAD, m.name, unix.DM_SECURE_DATA_FLAG, t); err != nil {
		return fmt.Errorf("load a mapping: %w", err)
	}
	if _, err := ask(unix.DM_DEV_SUSPEND, m.name, 0, nil); err != nil { // without its flag it resumes
		return fmt.Errorf("begin a mapping: %w", err)
	}
	return nil
}

// removeTimeout is how long a mapping may stay in use after its last user is
// gone: the kernel looks at a new disk for its own reasons.
const removeTimeout = 5 * time.Second

// remove ends the mapping. The kernel forgets the key.
func (m mapped) remove() error {
	for end := time.Now().Add(removeTimeout); ; time.Sleep(10 * time.Millisecond) {
		_, err := ask(unix.DM_DEV_REMOVE, m.name, 0, nil)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(end) {
			return fmt.Errorf("end a mapping: %w", err)
		}
	}
}

// cryptParams are a crypt target's: cipher, key, offset of the IV, device,
// offset on it in sectors, options. Without the work queues a request costs no
// change of thread, which on one processor is all that they could do.
func cryptParams(device string, key []byte) []byte {
	b := []byte("aes-xts-plain64 ")
	b = append(make([]byte, 0, 1024), b...) // so that append leaves no copies of the key behind
	b = hex.AppendEncode(b, key)
	return fmt.Appendf(b, " 0 %s %d 4 allow_discards sector_size:%d no_read_workqueue no_write_workqueue",
		device, dataAt/unit, cipherUnit)
}

// table is one target over all of the device: a struct dm_target_spec and its
// parameters as a C string, padded to eight bytes.
func table(length int64, kind string, params []byte) []byte {
	size := (unix.SizeofDmTargetSpec + len(params) + 1 + 7) &^ 7
	t := make([]byte, size)
	spec := (*unix.DmTargetSpec)(unsafe.Pointer(&t[0]))
	spec.Length, spec.Next = uint64(length), uint32(size)
	copy(spec.Target_type[:], kind)
	copy(t[unix.SizeofDmTargetSpec:], params)
	return t
}

// ask makes one request about the mapping of that name and returns its device
// number.
func ask(request uintptr, name string, flags uint32, data []byte) (dev uint64, err error) {
	c, err := os.OpenFile(control, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	b := make([]byte, unix.SizeofDmIoctl+len(data))
	defer clear(b)
	q := (*unix.DmIoctl)(unsafe.Pointer(&b[0]))
	q.Version = [3]uint32{unix.DM_VERSION_MAJOR, 0, 0} // the least that has all this
	q.Data_size, q.Data_start = uint32(len(b)), unix.SizeofDmIoctl
	q.Flags = flags
	copy(q.Name[:len(q.Name)-1], name)
	if data != nil {
		q.Target_count = 1
		copy(b[unix.SizeofDmIoctl:], data)
	}
	if _, _, no := unix.Syscall(unix.SYS_IOCTL, c.Fd(), request, uintptr(unsafe.Pointer(&b[0]))); no != 0 {
		return 0, no
	}
	return q.Dev, nil
}

// nodeTimeout is how long the kernel may take to make a device's node.
const nodeTimeout = 5 * time.Second

func awaitNode(path string) error {
	for end := time.Now().Add(nodeTimeout); ; time.Sleep(time.Millisecond) {
		if _, err := os.Stat(path); err == nil {
			return nil
		} else if time.Now().After(end) {
			return err
		}
	}
}

func sizeOf(f *os.File) (int64, error) {
	end, err := f.Seek(0, 2)
	if err != nil {
		return 0, fmt.Errorf("find how large the device is: %w", err)
	}
	return end, nil
}
