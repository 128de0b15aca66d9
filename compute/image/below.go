package image

import (
	"io/fs"
	"os"

	"github.com/erofs/go-erofs"
)

// hides reports whether the upper layer uses a directory without describing it
// which a layer below describes as something other than an ordinary one: what
// was made up for it would hide what it is.
func (s *Store) hides(upper made, lower []stored) (bool, error) {
	if len(upper.Implied) == 0 {
		return false, nil
	}
	for i := len(lower) - 1; i >= 0; i-- {
		hides, err := s.hidesOne(upper.Implied, lower[i])
		if hides || err != nil {
			return hides, err
		}
	}
	return false, nil
}

// hidesOne looks into one layer. It does not ask whether a layer between hides
// the directory anyway: to be wrong that way costs only space.
func (s *Store) hidesOne(names [][]byte, lower stored) (bool, error) {
	f, err := os.Open(s.layerPath(lower.Key))
	if err != nil {
		return false, err
	}
	defer f.Close()
	image, err := erofs.Open(f)
	if err != nil {
		return false, err
	}
	for _, name := range names {
		if special(image, string(name)) {
			return true, nil
		}
	}
	return false, nil
}

// special reports whether there is something of that name that is not a
// directory of root with mode 0755 and no extended attributes.
func special(image fs.FS, name string) bool {
	if !fs.ValidPath(name) {
		return true // cannot be asked
	}
	info, err := fs.Lstat(image, name)
	if err != nil {
		return false
	}
	stat, ok := info.Sys().(*erofs.Stat)
	return !ok || !info.IsDir() || info.Mode() != fs.ModeDir|0o755 || stat.UID != 0 || stat.GID != 0 || len(stat.Xattrs) > 0
}
