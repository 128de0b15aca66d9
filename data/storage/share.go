package storage

// A share is what all users of one core in a process have in common.
type share struct {
	value any
	users int
}

// Share returns what build made for the first of those that use a core now.
// Release says that the caller uses it no more; call it once.
func (s *Store) Share(discovery [32]byte, build func() (any, error)) (v any, release func(), err error) {
	s.mu.Lock()
	sh := s.shared[discovery]
	if sh != nil {
		sh.users++
	}
	s.mu.Unlock()
	if sh == nil {
		if sh, err = s.build(discovery, build); err != nil {
			return nil, nil, err
		}
	}
	return sh.value, func() { s.release(discovery, sh) }, nil
}

// build makes a share outside the lock, since it reads and may write. Of two
// that are made at once the first is kept.
func (s *Store) build(discovery [32]byte, build func() (any, error)) (*share, error) {
	v, err := build()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sh := s.shared[discovery]
	if sh == nil {
		sh = &share{value: v}
		s.shared[discovery] = sh
	}
	sh.users++
	return sh, nil
}

func (s *Store) release(discovery [32]byte, sh *share) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sh.users--; sh.users == 0 && s.shared[discovery] == sh {
		delete(s.shared, discovery)
	}
}
