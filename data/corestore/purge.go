package corestore

import (
	"errors"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/manifest"
)

// Purge removes a core from the store, with all that is kept of it and the
// names that stand for it. It fails with Busy where somebody has it open. A core
// of ours can be made again by its name, empty; peers that have the old one then
// see a log that contradicts itself, so purge what nobody else has, or never
// use the name again.
func (s *Store) Purge(key manifest.Key) error {
	e, err := s.claim(key.DiscoveryKey())
	if err != nil {
		return err
	}
	defer s.bury(e)
	if err := e.close(); err != nil {
		return err
	}
	return errors.Join(s.removeAliases(e.discovery), s.disk.Delete(e.discovery))
}

// claim takes a core that nobody uses out of use, until bury.
func (s *shared) claim(discovery [32]byte) (*entry, error) {
	for {
		s.mu.Lock()
		e := s.cores[discovery]
		if e == nil || e.gone == nil {
			break
		}
		s.mu.Unlock()
		<-e.gone
	}
	defer s.mu.Unlock()
	e := s.cores[discovery]
	switch {
	case s.ended:
		return nil, errClosed
	case e == nil:
		e = &entry{discovery: discovery, ready: closed, err: cloudpal.NotExist}
		s.cores[discovery] = e
	case e.users > 0:
		return nil, cloudpal.E("purge a core", cloudpal.Busy, errors.New("it is in use")).
			WithHint("close its sessions, and end the connections over which peers read it")
	}
	delete(s.idle, e)
	e.gone = make(chan struct{})
	s.working.Add(1)
	return e, nil
}

var closed = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// bury forgets a core that claim or due took, and that is closed.
func (s *shared) bury(e *entry) {
	s.mu.Lock()
	delete(s.cores, e.discovery)
	s.mu.Unlock()
	close(e.gone)
	s.working.Done()
}

// removeAliases removes all names that stand for a core.
func (s *shared) removeAliases(discovery [32]byte) error {
	b := s.disk.Begin()
	defer b.Close()
	for a, err := range s.disk.Aliases(nil) {
		if err != nil {
			return err
		}
		if a.Discovery == discovery {
			b.RemoveAlias(a.Namespace, a.Name)
		}
	}
	return b.Commit()
}
