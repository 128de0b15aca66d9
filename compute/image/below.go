package image

import (
	"errors"
	"io/fs"
	"os"
	"path"
	"strings"

	"github.com/erofs/go-erofs"
)

// tiesHold reports whether a layer can lie over the lower ones: what it does
// not describe is an ordinary directory there, or not there; and what it hides
// something in is there.
func (s *Store) tiesHold(a about, lower []stored) (bool, error) {
	if len(a.Implied) == 0 && len(a.Hiding) == 0 {
		return true, nil
	}
	b, err := s.openBelow(lower)
	if err != nil {
		return false, err
	}
	defer b.Close()
	for _, name := range a.Implied {
		if b.what(string(name)) == special {
			return false, nil
		}
	}
	for _, name := range a.Hiding {
		if w := b.what(string(name)); w != special && w != ordinary {
			return false, nil
		}
	}
	return true, nil
}

// below is the layers that another lies over, highest first.
type below struct {
	files  []*os.File
	layers []fs.FS
}

func (s *Store) openBelow(lower []stored) (*below, error) {
	b := &below{}
	for i := len(lower) - 1; i >= 0; i-- {
		if err := b.open(s.layerPath(lower[i].Key)); err != nil {
			return nil, errors.Join(err, b.Close())
		}
	}
	return b, nil
}

func (b *below) open(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	b.files = append(b.files, f)
	layer, err := erofs.Open(f)
	b.layers = append(b.layers, layer)
	return err
}

func (b *below) Close() (err error) {
	for _, f := range b.files {
		err = errors.Join(err, f.Close())
	}
	return err
}

// A kind is what a name means to those above.
type kind int

const (
	absent   kind = iota
	hidden        // and so is all that lies further below
	ordinary      // a directory of root with mode 0755 and no attributes
	special       // anything else
)

// what returns what the layers show under a name.
func (b *below) what(name string) kind {
	if !fs.ValidPath(name) {
		return special // cannot be asked
	}
	for _, layer := range b.layers {
		if k := whatIn(layer, name); k != absent {
			return k
		}
	}
	return absent
}

// whatIn returns what one layer has under a name, looking at each directory
// on the way.
func whatIn(layer fs.FS, name string) kind {
	opaque := false
	for at := ""; at != name; {
		rest := strings.TrimPrefix(name[len(at):], "/")
		step, _, _ := strings.Cut(rest, "/")
		at = path.Join(at, step)
		info, err := fs.Lstat(layer, at)
		switch {
		case err != nil && opaque:
			return hidden
		case err != nil:
			return absent
		case !info.IsDir():
			return whatFile(info)
		}
		stat, ok := info.Sys().(*erofs.Stat)
		if !ok {
			return special
		}
		opaque = opaque || stat.Xattrs["trusted.overlay.opaque"] == "y"
		if at == name {
			return whatDir(info, stat)
		}
	}
	return special
}

// whatFile tells a whiteout from a file.
func whatFile(info fs.FileInfo) kind {
	stat, ok := info.Sys().(*erofs.Stat)
	if ok && info.Mode()&fs.ModeCharDevice != 0 && stat.Rdev == 0 {
		return hidden
	}
	return special
}

func whatDir(info fs.FileInfo, stat *erofs.Stat) kind {
	plain := info.Mode() == fs.ModeDir|0o755 && stat.UID == 0 && stat.GID == 0
	for name := range stat.Xattrs {
		plain = plain && strings.HasPrefix(name, "trusted.overlay.")
	}
	if plain {
		return ordinary
	}
	return special
}
