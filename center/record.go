package center

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
)

// A phase is where in its life a pal is. Each is written down before the step
// that it announces:
//
//	making ──► made ──► going ──► no record
//	   │                  ▲
//	   └── failed, or found at start
type phase string

const (
	making phase = "making" // there may be a VM and a volume
	made   phase = "made"
	going  phase = "going" // there may still be a VM and a volume
)

// A record is what a center keeps of a pal, and all that it keeps.
type record struct {
	ID        api.ID          `json:"id"`
	Owner     api.Fingerprint `json:"owner"` // of the account's key
	WireGuard []byte          `json:"wireGuard"`
	HostPort  uint16          `json:"hostPort"`
	Created   time.Time       `json:"created"`
	Phase     phase           `json:"phase"`
}

func (r *record) check() error {
	if _, err := api.ParseID(string(r.ID)); err != nil {
		return err
	}
	switch {
	case len(r.WireGuard) != 32:
		return errors.New("its WireGuard key is not one")
	case r.Phase != making && r.Phase != made && r.Phase != going:
		return fmt.Errorf("phase %.20q", r.Phase)
	}
	return nil
}

// records are the files of a directory, ID.json each.
type records struct{ dir string }

const recordExt = ".json"

// maxRecord bounds a record's file in bytes.
const maxRecord = 16 << 10

func (s records) path(id api.ID) string { return filepath.Join(s.dir, string(id)+recordExt) }

// load returns the records that can be read, and why others cannot. It removes
// files that were never finished.
func (s records) load() (list []record, errs []error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, []error{err}
	}
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), recordExt)
		if strings.HasPrefix(e.Name(), tempPrefix) {
			os.Remove(filepath.Join(s.dir, e.Name()))
			continue
		}
		if !ok {
			continue
		}
		r, err := s.read(api.ID(id))
		if err != nil {
			errs = append(errs, err)
			continue
		}
		list = append(list, r)
	}
	return list, errs
}

func (s records) read(id api.ID) (r record, err error) {
	data, err := readSmall(s.path(id), maxRecord)
	if err != nil {
		return r, err
	}
	if r, err = parseRecord(data); err == nil && r.ID != id {
		err = errors.New("it has another id than its name")
	}
	if err != nil {
		return r, cloudpal.E(s.path(id), cloudpal.Corrupt, err)
	}
	return r, nil
}

func parseRecord(data []byte) (r record, err error) {
	if err := decode(data, &r); err != nil {
		return r, err
	}
	return r, r.check()
}

// save makes the record durable.
func (s records) save(r record) error {
	data, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return writeFile(s.path(r.ID), append(data, '\n'))
}

// remove takes the record away for good. It is no error if there is none.
func (s records) remove(id api.ID) error {
	if err := os.Remove(s.path(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return syncDir(s.dir)
}

// tempPrefix begins the names of files that are being written.
const tempPrefix = ".new-"

// writeFile replaces path with data, for its owner's eyes only: a power cut
// leaves the old content or the new, never a mix.
func writeFile(path string, data []byte) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, tempPrefix+"*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes renames and removals in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
