package hypercore_test

import (
	"errors"
	"sync"
	"testing"

	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/merkle"
	"github.com/tradle/cloudpal/data/storage"
)

// sparse returns a reader in a store of its own that has the even blocks of 200,
// and a snapshot of it that holds on to what was cut off since.
func sparse(t *testing.T) (s *storage.Store, c, snap *hypercore.Core) {
	t.Helper()
	pair := diskPair
	writer := create(t, newStore(t), hypercore.Options{KeyPair: &pair})
	var blocks []string
	for i := range uint64(200) {
		blocks = append(blocks, string(diskBlock(i, 2000)))
	}
	appendAll(t, writer, blocks...)
	s = storage.Memory()
	c, err := hypercore.Open(s, writer.Key(), hypercore.Options{KeyPair: &pair})
	if err != nil {
		t.Fatal(err)
	}
	fetch(t, writer, c, merkle.Request{Upgrade: &merkle.UpgradeRequest{Length: 200}, Manifest: true})
	for i := uint64(0); i < 200; i += 2 {
		missing, err := c.Missing(i)
		if err != nil {
			t.Fatal(err)
		}
		fetch(t, writer, c, merkle.Request{Block: &merkle.NodeRequest{Index: i, Nodes: missing}})
	}
	snap = c.Snapshot()
	if err := c.Truncate(190); err != nil {
		t.Fatal(err)
	}
	return s, c, snap
}

// all is what a program may ask of a core.
func all(t *testing.T, c, snap *hypercore.Core) map[string]func() error {
	return map[string]func() error{
		"local":     func() error { _, err := c.Local(2); return err },
		"get":       func() error { _, err := c.Get(t.Context(), 2); return err },
		"snapshot":  func() error { _, err := snap.Local(196); return err },
		"taken":     func() error { s := c.Snapshot(); defer s.Close(); _, err := s.Local(2); return err },
		"append":    func() error { _, err := c.Append([]byte("more")); return err },
		"truncate":  func() error { return c.Truncate(c.Length()) },
		"clear":     func() error { return c.Clear(100, 101) },
		"user data": func() error { _, err := c.UserData("name"); return err },
		"set":       func() error { return c.SetUserData("name", []byte("x")) },
		"sync":      c.Sync,
		"audit":     func() error { _, err := c.Audit(t.Context(), nil); return err },
		"prove": func() error {
			_, err := c.Prove(merkle.Request{Fork: c.Fork(), Block: &merkle.NodeRequest{Index: 2}})
			return err
		},
		"audit all": func() (err error) { return auditAll(t, c) },
		"new":       func() error { _, err := hypercore.Create(c.Store(), hypercore.Options{}); return err },
		"open": func() error {
			_, err := hypercore.OpenStored(c.Store(), [32]byte{1}, hypercore.Options{})
			return notMissing(err)
		},
		"not in use": func() error { return c.Store().Delete([32]byte{1}) },
	}
}

func auditAll(t *testing.T, c *hypercore.Core) (err error) {
	for _, e := range hypercore.AuditStore(t.Context(), c.Store()) {
		err = errors.Join(err, e)
	}
	return err
}

func notMissing(err error) error {
	if errors.Is(err, storage.ErrClosed) {
		return err
	}
	return nil
}

func TestClosedStore(t *testing.T) {
	s, c, snap := sparse(t)
	for name, do := range all(t, c, snap) {
		if name == "prove" || name == "taken" {
			continue // of what others do here
		}
		if err := do(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatalf("closing the store under its sessions: %v", err)
	}
	for name, do := range all(t, c, snap) {
		if err := do(); !errors.Is(err, storage.ErrClosed) {
			t.Errorf("%s when the store is closed: got %v, want %v", name, err, storage.ErrClosed)
		}
	}
	_, _ = c.Info(), c.Has(3)
	if err := errors.Join(snap.Close(), c.Close()); err != nil {
		t.Errorf("closing sessions after their store: %v", err)
	}
}

// TestStoreClosedInUse closes a store while many use its cores.
func TestStoreClosedInUse(t *testing.T) {
	for range 5 {
		s, c, snap := sparse(t)
		var users sync.WaitGroup
		begun := make(chan struct{}, 100)
		for name, do := range all(t, c, snap) {
			if name == "truncate" || name == "clear" {
				continue // it would end what the others read
			}
			users.Go(func() {
				for {
					err := do()
					if errors.Is(err, storage.ErrClosed) {
						return
					}
					if err != nil {
						t.Errorf("%s: %v", name, err)
						return
					}
					_ = c.Has(3)
					select {
					case begun <- struct{}{}:
					default:
					}
				}
			})
		}
		for range cap(begun) {
			<-begun
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		users.Wait()
	}
}
