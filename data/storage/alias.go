package storage

import (
	"iter"

	"github.com/tradle/cloudpal"
)

// Alias returns the discovery key that a name stands for in a namespace.
func (s *Store) Alias(namespace [32]byte, name string) (discovery [32]byte, found bool, err error) {
	v, err := s.record(aliasKey(namespace, name))
	if err != nil || v == nil {
		return discovery, false, err
	}
	if len(v) != 32 {
		return discovery, false, s.fail("read a name from", cloudpal.Corrupt)
	}
	return [32]byte(v), true, nil
}

// SetAlias notes what a name stands for.
func (b *Batch) SetAlias(namespace [32]byte, name string, discovery [32]byte) {
	b.set(aliasKey(namespace, name), discovery[:])
}

// RemoveAlias notes that a name stands for nothing.
func (b *Batch) RemoveAlias(namespace [32]byte, name string) { b.remove(aliasKey(namespace, name)) }

// An Alias is a name and what it stands for.
type Alias struct {
	Namespace [32]byte
	Name      string
	Discovery [32]byte
}

// Aliases yields all names of a namespace in their order, or those of all
// namespaces where it is nil.
func (s *Store) Aliases(namespace *[32]byte) iter.Seq2[Alias, error] {
	p := prefix(0, aliasKind)
	if namespace != nil {
		p = append(p, namespace[:]...)
	}
	skip := len(prefix(0, aliasKind))
	return func(yield func(Alias, error) bool) {
		err := s.scan(p, func(k, v []byte) (bool, error) {
			full := append(p[skip:len(p):len(p)], k...)
			if len(full) < 32 || len(v) != 32 {
				return false, cloudpal.Corrupt
			}
			return yield(Alias{[32]byte(full), string(full[32:]), [32]byte(v)}, nil), nil
		})
		if err != nil {
			yield(Alias{}, s.fail("list the names of", err))
		}
	}
}

// UserData returns what a program keeps with the store under a name, or nil.
func (s *Store) UserData(name string) ([]byte, error) {
	return s.record(append(prefix(0, storeUserKind), name...))
}

// SetStoreData notes what a program keeps with the store; nil removes it.
func (b *Batch) SetStoreData(name string, v []byte) {
	k := append(prefix(0, storeUserKind), name...)
	if v == nil {
		b.remove(k)
		return
	}
	b.set(k, v)
}
