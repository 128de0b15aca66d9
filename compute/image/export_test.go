package image

import "path/filepath"

// Temporary returns what is being made.
func (s *Store) Temporary() []string {
	list, err := filepath.Glob(s.path("temp", "*"))
	if err != nil {
		panic(err)
	}
	return list
}

// Dir is where the store is.
func (s *Store) Dir() string { return s.dir }
