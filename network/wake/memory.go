//go:build linux

package wake

import (
	"errors"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// A memory keeps in files what was seen of VMs' sessions, so that another
// process can go on with it. Files are written aside: who learns, or wakes a VM,
// does not wait for them.
type memory struct {
	dir  string // "" where nothing is kept
	log  *slog.Logger
	wake chan struct{}
	stop chan struct{}

	mu    sync.Mutex
	dirty map[*nic]bool

	files sync.Mutex // held while files are changed
}

// settle is how long a file waits for more that may change.
const settle = 100 * time.Millisecond

func (m *memory) open(dir string, log *slog.Logger) error {
	m.log, m.wake, m.stop, m.dirty = log, make(chan struct{}, 1), make(chan struct{}), map[*nic]bool{}
	if dir == "" {
		return nil
	}
	m.dir = filepath.Join(dir, "sessions")
	return os.MkdirAll(m.dir, 0o700)
}

func (m *memory) file(vm string) string { return filepath.Join(m.dir, url.PathEscape(vm)+".json") }

// changed has what was seen of a VM kept, soon.
func (m *memory) changed(v *nic) {
	if m.dir == "" {
		return
	}
	m.mu.Lock()
	m.dirty[v] = true
	m.mu.Unlock()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// run writes what has changed until it is told to stop, and then the rest.
func (m *memory) run() {
	for {
		select {
		case <-m.wake:
		case <-m.stop:
			m.write()
			return
		}
		select {
		case <-time.After(settle):
		case <-m.stop:
		}
		m.write()
	}
}

func (m *memory) write() {
	m.mu.Lock()
	dirty := m.dirty
	m.dirty = map[*nic]bool{}
	m.mu.Unlock()
	m.files.Lock()
	defer m.files.Unlock()
	for v := range dirty {
		b, err := v.seen()
		if err == nil && b != nil {
			err = writeFile(m.file(v.name), b)
		}
		if err != nil {
			m.log.Warn("keep a vm's sessions", "vm", v.name, "err", err)
		}
	}
}

// seen returns what is kept of a VM: nil where it is gone.
func (v *nic) seen() ([]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.gone {
		return nil, nil
	}
	return v.judge.marshal()
}

// load brings back what an earlier process saw of a VM.
func (m *memory) load(v *nic, now time.Time) {
	if m.dir == "" || v.judge == nil {
		return
	}
	b, err := readFile(m.file(v.name), maxSeen)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err == nil {
		err = v.judge.unmarshal(b, now)
	}
	if err != nil {
		m.log.Warn("a vm's sessions are lost; they are made anew within minutes", "vm", v.name, "err", err)
	}
}

// forget removes what is kept of a VM.
func (m *memory) forget(v *nic) {
	v.mu.Lock()
	v.gone = true
	v.mu.Unlock()
	if m.dir == "" || v.judge == nil {
		return
	}
	m.files.Lock()
	defer m.files.Unlock()
	if err := os.Remove(m.file(v.name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		m.log.Warn("forget a vm's sessions", "vm", v.name, "err", err)
	}
}
