package corestore

import (
	"crypto/ed25519"
	"errors"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/manifest"
	"github.com/tradle/cloudpal/data/merkle"
)

// An origin is where the key pair of a core comes from: a name in a namespace,
// or a seed that was given. The zero origin is that of others' cores.
//
// It is kept with the core, so that a core that is opened by its key, not its
// name, can be written all the same.
type origin struct {
	namespace Namespace
	name      string
	seed      []byte
}

// originRecord is the name of the core's user data that holds it.
const originRecord = "corestore/origin"

// The first byte says which of the two it is.
const (
	namedOrigin = 1
	givenOrigin = 2
)

func (o origin) encode() []byte {
	if o.seed != nil {
		return append([]byte{givenOrigin}, o.seed...)
	}
	return append(append([]byte{namedOrigin}, o.namespace[:]...), o.name...)
}

func decodeOrigin(b []byte) (o origin, err error) {
	switch {
	case len(b) == 1+ed25519.SeedSize && b[0] == givenOrigin:
		return origin{seed: b[1:]}, nil
	case len(b) > 1+len(o.namespace) && b[0] == namedOrigin:
		return origin{namespace: Namespace(b[1:33]), name: string(b[33:])}, nil
	}
	return o, cloudpal.E("read where a core's key pair comes from", cloudpal.Corrupt, nil)
}

// pairOf returns the key pair that the store has for a core, or nil.
func (s *shared) pairOf(c *hypercore.Core) (*manifest.KeyPair, error) {
	record, err := c.UserData(originRecord)
	if err != nil || record == nil {
		return nil, err
	}
	o, err := decodeOrigin(record)
	if err != nil {
		return nil, err
	}
	pair := s.derive(o)
	return &pair, nil
}

func (s *shared) derive(o origin) manifest.KeyPair {
	if o.seed != nil {
		return manifest.NewKeyPair([32]byte(o.seed))
	}
	return s.primary.KeyPair(o.namespace, o.name)
}

// complete notes what the caller knows of a core and the store does not: where
// its key pair comes from, its manifest, its name.
func (s *shared) complete(e *entry, w want) error {
	if w.pair == nil && w.manifest == nil && w.alias == "" {
		return nil
	}
	s.noting.Lock()
	defer s.noting.Unlock()
	var errs []error
	if _, known := e.core.Manifest(); !known && w.manifest != nil {
		errs = append(errs, learn(e.core, *w.manifest))
	}
	if w.pair != nil && e.pair.Load() == nil {
		errs = append(errs, e.core.SetUserData(originRecord, w.origin.encode()))
		e.pair.Store(w.pair)
	}
	if w.alias != "" {
		errs = append(errs, s.setAlias(w.origin.namespace, w.alias, e.discovery))
	}
	return errors.Join(errs...)
}

// learn tells a core whose it is, as a peer would: what does not belong to its
// key is refused.
func learn(c *hypercore.Core, m manifest.Manifest) error {
	_, err := c.Apply(merkle.Proof{Fork: c.Fork(), Manifest: m.Append(nil)})
	return err
}

func (s *shared) setAlias(n Namespace, name string, discovery [32]byte) error {
	b := s.disk.Begin()
	defer b.Close()
	b.SetAlias(n, name, discovery)
	return b.Commit()
}
