package corestore

import (
	"context"
	"iter"

	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/manifest"
)

// Lookup returns the key of the core that a name stands for in this view's
// namespace, and makes nothing.
func (s *Store) Lookup(name string) (key manifest.Key, found bool, err error) {
	if err := s.enter(); err != nil {
		return key, false, err
	}
	defer s.working.Done()
	discovery, found, err := s.disk.Alias(s.namespace, name)
	if err != nil || !found {
		return key, false, err
	}
	key, err = s.keyOf(discovery)
	return key, err == nil, err
}

// keyOf returns the key of a stored core, and opens nothing.
func (s *shared) keyOf(discovery [32]byte) (manifest.Key, error) {
	core, err := s.disk.Core(discovery)
	if err != nil {
		return manifest.Key{}, err
	}
	id, err := core.Identity()
	return id.Key, err
}

// SetAlias makes a name in this view's namespace stand for a core, ours or not,
// until it is set again: Get then opens that core. The core is made, empty,
// where it is not stored.
func (s *Store) SetAlias(name string, key manifest.Key) error {
	c, err := s.GetKey(key)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := s.enter(); err != nil {
		return err
	}
	defer s.working.Done()
	return s.setAlias(s.namespace, name, c.DiscoveryKey())
}

// RemoveAlias makes a name stand for nothing, but what is derived from it. The
// core stays.
func (s *Store) RemoveAlias(name string) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.working.Done()
	b := s.disk.Begin()
	defer b.Close()
	b.RemoveAlias(s.namespace, name)
	return b.Commit()
}

// An Alias is a name in a namespace, and the core that it stands for.
type Alias struct {
	Name      string
	Discovery [32]byte
}

// Aliases yields the names in this view's namespace, in their order.
func (s *Store) Aliases() iter.Seq2[Alias, error] {
	n := [32]byte(s.namespace)
	return during(s.shared, func(yield func(Alias, error) bool) {
		for a, err := range s.disk.Aliases(&n) {
			if !yield(Alias{a.Name, a.Discovery}, err) {
				return
			}
		}
	})
}

// during keeps the database open while a loop runs.
func during[T any](s *shared, loop iter.Seq2[T, error]) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		if err := s.enter(); err != nil {
			var none T
			yield(none, err)
			return
		}
		defer s.working.Done()
		loop(yield)
	}
}

// List yields the discovery keys of all cores that are stored, whatever their
// namespace, in their order. It opens none of them.
func (s *Store) List() iter.Seq2[[32]byte, error] { return during(s.shared, s.disk.Cores()) }

// Audit checks all cores that are stored, one after the other: every block
// against the tree, the tree against the signature. It yields an Audit for each
// core, also of one that is damaged; an error is that of a core, or of the disk,
// that could not be read.
func (s *Store) Audit(ctx context.Context) iter.Seq2[hypercore.Audit, error] {
	return during(s.shared, hypercore.AuditStore(ctx, s.disk))
}
