package hyperdrive

import (
	"crypto/rand"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/tradle/cloudpal"
)

// What is half written has a name of this form, and is no part of the folder:
// tempPrefix, the folder's tag, the run that writes it, its number, tempSuffix.
const (
	tempPrefix = ".cloudpal-"
	tempSuffix = ".tmp"
	tempAge    = time.Hour // one that is older is what a mirror that was killed left
)

func isTemp(name string) bool {
	return strings.HasPrefix(name, tempPrefix) && strings.HasSuffix(name, tempSuffix)
}

// A run is one mirror into a folder. There is one at a time: while it lasts it
// holds a lock on the folder, which a process that is killed gives up.
type run struct {
	prefix string   // of the names of what it writes
	others string   // of those of what runs into this folder write, this one among them
	lock   *os.File // nil where the file system has no locks
	n      int
}

// temp returns a name that nothing else has.
func (r *run) temp() string {
	r.n++
	return fmt.Sprint(r.prefix, r.n, tempSuffix)
}

// begin begins to write into the folder.
func (f *Folder) begin() (*run, error) {
	dir, err := f.root.Open(".")
	if err != nil {
		return nil, folderError("mirror", err)
	}
	locked, err := lockFolder(dir)
	if err != nil {
		dir.Close()
		return nil, cloudpal.E("mirror", cloudpal.Busy, err).WithHint("wait until it is done, or end it")
	}
	tag := fnv.New32a()
	tag.Write([]byte(f.path))
	r := &run{others: fmt.Sprintf("%s%08x-", tempPrefix, tag.Sum32())}
	r.prefix = r.others + strings.ToLower(rand.Text()) + "-"
	if locked {
		r.lock = dir
	} else {
		dir.Close()
	}
	f.run.Store(r)
	return r, nil
}

var errMirrored = errors.New("another mirror writes into the folder")

func (f *Folder) end(r *run) {
	f.run.CompareAndSwap(r, nil)
	if r.lock != nil {
		r.lock.Close()
		r.lock = nil
	}
}

// sweep removes what a run into the folder left that was killed. Other folders
// may be in this one, and have runs of their own: what those left has to be old.
func (f *Folder) sweep(name string, info fs.FileInfo) {
	r := f.run.Load()
	if r == nil {
		return // nothing of a folder that is only read is changed
	}
	dead := r.lock != nil && strings.HasPrefix(info.Name(), r.others) && !strings.HasPrefix(info.Name(), r.prefix)
	if dead || time.Since(info.ModTime()) > tempAge {
		_ = f.root.Remove(local(name)) // if it stays, it is found again next time
	}
}
