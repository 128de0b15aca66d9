// Package layer turns the tar archives of OCI image layers (image-spec,
// layer.md) into one read-only file system that overlayfs can stack.
//
// A Builder makes it either from one layer, to be laid over others (NewLayer),
// or from the lowest layers of an image together (NewBottom). In the first, a
// whiteout becomes what overlayfs takes for one: a character device 0/0 for a
// file, the extended attribute trusted.overlay.opaque for a directory. In the
// second, whiteouts are carried out and leave no trace.
//
// The archive may come from a stranger. Its names mean places below the
// layer's root: an absolute name starts there, a name that climbs above it is
// refused, and a symbolic link on the way to a name is followed as if the root
// were the world's. What a link points to is otherwise only data. Of two
// entries with one name the last wins, and a missing parent is a directory of
// root with mode 0755. Limits bounds what an archive may ask for.
//
// Attributes of overlayfs itself (trusted.overlay.*) and those that Linux has
// no class for are left out.
package layer

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/tradle/cloudpal/compute/image/erofs"
)

// FS is the file system that is made.
const FS = "erofs"

// Limits bounds one Builder. A zero field means the default.
type Limits struct {
	Bytes   int64 // all files' sizes together, holes included; 64 GiB
	Entries int   // archive entries; 2,000,000
	Path    int   // bytes of one name; 4096
	Xattrs  int   // bytes of one entry's extended attributes; 128 KiB
}

func (l Limits) withDefaults() Limits {
	return Limits{
		Bytes:   orDefault(l.Bytes, 64<<30),
		Entries: orDefault(l.Entries, 2_000_000),
		Path:    orDefault(l.Path, 4096),
		Xattrs:  orDefault(l.Xattrs, 128<<10),
	}
}

func orDefault[T int | int64](v, def T) T {
	if v == 0 {
		return def
	}
	return v
}

// Errors that say an archive asks for too much, or for what cannot be.
var (
	ErrLimit   = errors.New("over the limit")
	ErrInvalid = errors.New("not a valid layer")
)

// ErrBelow says that a layer cannot be made alone, but only together with
// those below it: it has a hard link to a file of theirs, or hides all of them
// at once, which overlayfs has no way to say of a root.
var ErrBelow = errors.New("needs the layers below")

// A Builder makes one file system. It is used by one goroutine.
type Builder struct {
	limits Limits
	out    *erofs.Writer
	root   *node
	alone  bool // one layer, to lie over others
	layer  int  // the number of the layer being read, from 1
	links  []link
	refs   map[*erofs.Inode]int // names that a file has beside its first

	bytes   int64
	entries int
}

// NewLayer returns a Builder for one layer that lies over others. The file
// system goes to file, which must be empty; temp is a directory for what has
// to wait.
func NewLayer(file *os.File, temp string, l Limits) (*Builder, error) {
	b, err := NewBottom(file, temp, l)
	if err == nil {
		b.alone = true
	}
	return b, err
}

// NewBottom returns a Builder for the lowest layers of an image, which Apply
// reads one by one, lowest first.
func NewBottom(file *os.File, temp string, l Limits) (*Builder, error) {
	w, err := erofs.NewWriter(file, temp)
	if err != nil {
		return nil, err
	}
	root := &node{}
	root.inode = newDir()
	root.children = map[string]*node{}
	return &Builder{limits: l.withDefaults(), out: w, root: root, refs: map[*erofs.Inode]int{}}, nil
}

// Close lets go of what the builder holds, where Finish was not reached.
func (b *Builder) Close() error { return b.out.Close() }

// Apply reads the next layer, an uncompressed tar archive, up to its end mark.
func (b *Builder) Apply(r io.Reader) error {
	b.layer++
	if b.alone && b.layer > 1 {
		return errors.New("a second layer for a builder of one")
	}
	b.links = nil
	if err := b.read(r); err != nil {
		return err
	}
	if b.alone && b.root.opaque {
		return fmt.Errorf("everything below is hidden: %w", ErrBelow)
	}
	return b.lateLinks()
}

// Ties are what a file system takes for granted of the layers below it. Paths
// are without a slash at either end.
type Ties struct {
	// Implied are the directories that the layer has files in but does not
	// describe: their owner and mode were made up, and would hide those of
	// the same directory below.
	Implied []string
	// Hiding are the directories with whiteouts in them, save the root. If
	// there is no such directory below, overlayfs shows the whiteouts.
	Hiding []string
}

// Finish writes the file system. id becomes its UUID.
func (b *Builder) Finish(id [16]byte) (Ties, error) {
	defer b.Close()
	var t Ties
	b.root.implied("", &t)
	if b.alone {
		b.root.hiding("", &t)
	}
	b.root.settle(b.alone, false)
	return t, b.out.Finish(b.root.inode, id)
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrInvalid, fmt.Errorf(format, args...))
}

func limit(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrLimit, fmt.Errorf(format, args...))
}
