// Package volume is a pal's disk: a raw block device on which a host finds
// ciphertext and a header that says nothing. The kernel's dm-crypt encrypts it,
// on top is ext4.
//
// The key of the cipher comes from the pal's disk key and a salt that is the
// volume's own: the same phrase on two volumes encrypts the same data
// differently. A wrong key is told by the header, before anything is written.
// A volume is formatted where it is empty, or where an earlier attempt did not
// come to its end, and never else.
//
// What it does not do: prove that the host gave back what was written last.
// XTS does not authenticate, and an old copy of the whole volume is as good as
// the newest.
package volume

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal"
)

// mapping is the name of the device that has the plaintext.
const mapping = "pal"

// formatTimeout bounds mke2fs.
const formatTimeout = 2 * time.Minute

// A Volume is one that is open: its files are at Dir.
type Volume struct {
	Dir    string
	mapped mapped
}

// Open opens the volume on a device with the pal's disk key and mounts it at
// dir. The error is cloudpal.NotExist where the device is empty,
// cloudpal.Denied for a key that is not the volume's, and cloudpal.Corrupt.
func Open(device string, key []byte, dir string) (*Volume, error) {
	const op = "open the pal's volume"
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return nil, cloudpal.E(op, cloudpal.Missing, err)
	}
	defer f.Close()
	h, err := readHeader(f)
	if err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	if !h.opens(key) {
		return nil, cloudpal.E(op, cloudpal.Denied, errors.New("the key is not this volume's"))
	}
	v := &Volume{Dir: dir}
	if v.mapped, err = mapCrypt(mapping, f, h.cipherKey(key)); err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	if err := v.mount(); err != nil {
		return nil, errors.Join(cloudpal.E(op, cloudpal.Corrupt, err), v.mapped.remove())
	}
	return v, nil
}

// Create makes a volume of an empty device, mounts it at dir and calls fill to
// put into dir what a volume must have. Only when that is on the disk there is
// a volume: where Create fails or the power does, the device is as good as
// empty. The error is cloudpal.Exist for a device that is not empty.
func Create(device string, key []byte, dir string, fill func() error) (*Volume, error) {
	const op = "make the pal's volume"
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return nil, cloudpal.E(op, cloudpal.Missing, err)
	}
	defer f.Close()
	if _, err := readHeader(f); !errors.Is(err, cloudpal.NotExist) {
		return nil, cloudpal.E(op, cloudpal.Exist, err)
	}
	h := newHeader(key)
	if err := writeNote(f, begun); err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	v := &Volume{Dir: dir}
	if v.mapped, err = mapCrypt(mapping, f, h.cipherKey(key)); err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	if err := v.populate(fill); err != nil {
		return nil, errors.Join(cloudpal.E(op, "", err), v.mapped.remove())
	}
	err = errors.Join(h.write(f), writeNote(f, make([]byte, len(begun))))
	if err != nil {
		return nil, errors.Join(cloudpal.E(op, "", err), v.Close())
	}
	return v, nil
}

func (v *Volume) populate(fill func() error) error {
	if err := format(v.mapped); err != nil {
		return err
	}
	if err := v.mount(); err != nil {
		return err
	}
	err := fill()
	if err == nil {
		err = v.Sync()
	}
	if err != nil {
		return errors.Join(err, unix.Unmount(v.Dir, 0))
	}
	return nil
}

// mount mounts the plaintext. What is deleted is given back to the host, which
// then knows how full the volume is; it could tell nearly as much from what is
// written.
func (v *Volume) mount() error {
	if err := os.MkdirAll(v.Dir, 0o700); err != nil {
		return err
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME
	if err := unix.Mount(v.mapped.path(), v.Dir, "ext4", flags, "discard,errors=remount-ro"); err != nil {
		return fmt.Errorf("mount it: %w", err)
	}
	return nil
}

// Sync returns when all that was written is on the disk.
func (v *Volume) Sync() error {
	d, err := os.Open(v.Dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Syncfs(int(d.Fd()))
}

// Close writes back what is not on the disk yet, and forgets the key. Nothing
// may use the volume's files any more.
func (v *Volume) Close() error {
	err := unix.Unmount(v.Dir, 0)
	if err == nil {
		err = v.mapped.remove()
	}
	if err != nil {
		return cloudpal.E("close the pal's volume", "", err)
	}
	return nil
}

// format makes an ext4 with few inodes, for a pal's store is few and large
// files, and a small journal: in time the host keeps all of both.
func format(m mapped) error {
	ctx, cancel := context.WithTimeout(context.Background(), formatTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/usr/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-i", "131072", "-m", "0",
		"-O", "^resize_inode", "-J", "size=8", "-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1", m.path())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mke2fs: %w: %.200s", err, out)
	}
	return nil
}

// Where what is on the device. The rest of the first MiB is zero.
const (
	headerAt = 0
	copyAt   = 64 << 10  // the same again: without the salt all is lost
	noteAt   = 128 << 10 // that formatting has begun
	dataAt   = 1 << 20   // a multiple of the cipher's sector
	looked   = dataAt + 64<<10
)

// begun says that a volume is being made here: what is on the device is
// nothing that anybody has relied on.
var begun = []byte("CloudPal makes a volume here\n")

// readHeader returns the header of the volume on f. The error is
// cloudpal.NotExist where there is room for a volume, cloudpal.Corrupt where
// there is something else.
func readHeader(f io.ReaderAt) (header, error) {
	b := make([]byte, looked)
	if _, err := f.ReadAt(b, 0); err != nil {
		return header{}, cloudpal.E("read the volume's header", cloudpal.Corrupt, err)
	}
	for _, at := range []int{headerAt, copyAt} {
		if h, err := parseHeader(b[at : at+headerSize]); err == nil {
			return h, nil
		}
	}
	blank := isZero(b[headerAt:headerSize]) && isZero(b[copyAt:copyAt+headerSize])
	if isZero(b) || blank && bytes.HasPrefix(b[noteAt:], begun) {
		return header{}, cloudpal.E("", cloudpal.NotExist, errors.New("the device is empty"))
	}
	return header{}, cloudpal.E("", cloudpal.Corrupt, errors.New("the device is not empty, and has no header of a volume"))
}

func isZero(b []byte) bool { return len(bytes.TrimLeft(b, "\x00")) == 0 }

// write makes f a volume. Once one of the two is there, it is.
func (h header) write(f *os.File) error {
	for _, at := range []int64{copyAt, headerAt} {
		if _, err := f.WriteAt(h.bytes(), at); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
	}
	return nil
}

func writeNote(f *os.File, note []byte) error {
	if _, err := f.WriteAt(note, noteAt); err != nil {
		return err
	}
	return f.Sync()
}

func newHeader(key []byte) header {
	var salt [saltSize]byte
	rand.Read(salt[:])
	return makeHeader(key, salt)
}
