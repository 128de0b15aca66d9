//go:build linux

package wake

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"sync"

	"github.com/tradle/cloudpal/network/route"
)

// A forwarding is what this program has changed for the kernel to forward
// packets, so that it can be changed back by whichever process is the last.
type forwarding struct {
	mu      sync.Mutex
	file    string // "" where it is not to outlive this process
	done    bool
	changed route.Settings // as they were
}

// maxForwarding bounds the file, in bytes.
const maxForwarding = 64 << 10

// load reads what an earlier process has changed.
func (f *forwarding) load(dir string, r *route.Rules, log *slog.Logger) error {
	if dir == "" {
		return nil
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make the network's directory: %w", err)
	}
	f.file = filepath.Join(dir, "forwarding")
	b, err := readFile(f.file, maxForwarding)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var was route.Settings
	if err == nil {
		err = json.Unmarshal(b, &was)
	}
	if err == nil {
		err = was.Valid()
	}
	if err != nil {
		log.Warn("what the kernel's settings were before is lost; they stay as they are", "file", f.file, "err", err)
		return nil
	}
	f.changed = was
	// The rules may have been made anew.
	return r.Forward(was)
}

// forward has the kernel forward packets, if nothing did so yet. It is not
// asked before there is a VM that needs it: it is the host's affair otherwise.
func (n *Network) forward() error {
	f := &n.forwarding
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.done {
		return nil
	}
	was, err := route.Unforwarded(n.six && !n.cfg.V6.Addr().IsPrivate())
	if err != nil {
		return err
	}
	maps.Copy(was, f.changed)
	if err := f.save(was); err != nil {
		return err
	}
	f.changed = was
	if err := n.rules.Forward(was); err != nil {
		return err
	}
	if len(was) > 0 {
		n.cfg.Log.Info("the kernel forwards packets now, to VMs and from them", "was", was)
	}
	f.done = true
	return nil
}

func (f *forwarding) save(s route.Settings) error {
	if f.file == "" || len(s) == 0 {
		return nil
	}
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return writeFile(f.file, b)
}

// undo changes back what was changed.
func (f *forwarding) undo() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.changed.Restore(); err != nil {
		return err
	}
	f.changed, f.done = nil, false
	if f.file == "" {
		return nil
	}
	if err := os.Remove(f.file); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
