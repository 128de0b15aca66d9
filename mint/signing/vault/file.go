package vault

import (
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/tradle/cloudpal"
)

// temporary begins the name of a file that is not whole yet.
const temporary = ".new-"

// writeFile puts a file that others cannot read into the folder, whole or not at
// all, and returns when it is on the disk.
func writeFile(dir, file string, r io.Reader) error {
	f, err := os.CreateTemp(dir, temporary) // with the mode 0600
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if err := os.Rename(f.Name(), filepath.Join(dir, file)); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return syncFolder(dir)
}

// syncFolder makes renames and removals durable.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// errShared is of what others could read or have changed.
func errShared() error {
	return cloudpal.E("", cloudpal.Denied, errors.New("other users may read or change it")).
		WithHint("find out who did; then chown it to the signer's user and chmod go-rwx it")
}
