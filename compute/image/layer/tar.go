package layer

import (
	"archive/tar"
	"errors"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/tradle/cloudpal/compute/image/erofs"
)

// The names of whiteouts (image-spec, layer.md, "Whiteouts").
const (
	whiteoutPrefix = ".wh."
	whiteoutOpaque = ".wh..wh..opq"
	whiteoutMeta   = ".wh..wh." // bookkeeping of old aufs, not files
)

func (b *Builder) read(r io.Reader) error {
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil && !(errors.Is(err, tar.ErrInsecurePath) && h != nil) {
			return tarError(err)
		}
		if err := b.entry(h, t); err != nil {
			return err
		}
	}
}

// tarError tells an archive that is not one from a stream that broke off.
func tarError(err error) error {
	if errors.Is(err, tar.ErrHeader) {
		return invalid("%w", err)
	}
	return err
}

func (b *Builder) entry(h *tar.Header, r io.Reader) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	if err := b.count(h); err != nil {
		return err
	}
	name, err := b.clean(h.Name)
	if err != nil {
		return err
	}
	if base := path.Base(name); strings.HasPrefix(base, whiteoutPrefix) {
		return b.whiteout(path.Dir("/" + name)[1:], base)
	}
	if h.Typeflag == tar.TypeLink {
		return b.link(name, h.Linkname)
	}
	inode, err := b.inode(h)
	if err != nil {
		return err
	}
	return b.put(name, inode, h, r)
}

// count holds the entry against the limits.
func (b *Builder) count(h *tar.Header) error {
	b.entries++
	if b.entries > b.limits.Entries {
		return limit("more than %d entries", b.limits.Entries)
	}
	if h.Size > b.limits.Bytes-b.bytes {
		return limit("more than %d bytes in files", b.limits.Bytes)
	}
	b.bytes += h.Size
	return nil
}

// clean returns the place that a name in the archive means, without a slash at
// either end; the root is "".
func (b *Builder) clean(name string) (string, error) {
	if len(name) > b.limits.Path {
		return "", limit("name %.100q... has more than %d bytes", name, b.limits.Path)
	}
	if strings.ContainsRune(name, 0) {
		return "", invalid("%.300q cannot be a name", name)
	}
	if rel := path.Clean(strings.TrimLeft(name, "/")); rel == ".." || strings.HasPrefix(rel, "../") {
		return "", invalid("name %.300q leads out of the image", name)
	}
	name = path.Clean("/" + name)[1:]
	for step := range strings.SplitSeq(name, "/") {
		if len(step) > erofs.MaxName {
			return "", limit("name %.100q... has more than %d bytes", step, erofs.MaxName)
		}
	}
	return name, nil
}

// put makes inode the file of that name.
func (b *Builder) put(name string, inode *erofs.Inode, h *tar.Header, r io.Reader) error {
	if err := b.out.Store(inode, r, fileSize(inode, h)); err != nil {
		return tarError(err)
	}
	n, err := b.node(name)
	if err != nil {
		return err
	}
	if n.isDir() && inode.IsDir() {
		n.inode, n.layer = inode, b.layer
		return nil
	}
	if n == b.root {
		return invalid("the root is not a directory")
	}
	if err := b.replace(n, inode); err != nil {
		return err
	}
	n.layer = b.layer
	return nil
}

// node returns the node of that name, ready to be described by this layer.
func (b *Builder) node(name string) (*node, error) {
	if name == "" {
		b.root.touch(b.layer)
		return b.root, nil
	}
	dir, err := b.dir(path.Dir("/" + name)[1:])
	if err != nil {
		return nil, err
	}
	n := dir.child(path.Base(name))
	n.touch(b.layer)
	return n, nil
}

func fileSize(inode *erofs.Inode, h *tar.Header) int64 {
	if inode.Mode&erofs.TypeMask != erofs.TypeRegular {
		return 0
	}
	return h.Size
}

// whiteout notes or carries out the whiteout base in the directory dir.
func (b *Builder) whiteout(dir, base string) error {
	if strings.HasPrefix(base, whiteoutMeta) && base != whiteoutOpaque {
		return nil
	}
	name := strings.TrimPrefix(base, whiteoutPrefix)
	if name == "" || name == "." || name == ".." {
		return invalid("whiteout %q hides nothing", base)
	}
	d, err := b.dir(dir)
	if err != nil {
		return err
	}
	if base == whiteoutOpaque {
		d.opaque = true
		return b.lower(d, b.empty)
	}
	n := d.child(name)
	n.whiteout = true
	return b.lower(n, b.hide)
}

// lower carries out f where lower layers are in the same tree. There the wish
// has then been granted.
func (b *Builder) lower(n *node, f func(*node) error) error {
	if b.alone {
		return nil
	}
	n.whiteout, n.opaque = false, false
	return f(n)
}

// inode returns the entry's file, without its contents.
func (b *Builder) inode(h *tar.Header) (*erofs.Inode, error) {
	kind, ok := kinds[h.Typeflag]
	if !ok {
		return nil, invalid("%.300q is of the unknown type %q", h.Name, h.Typeflag)
	}
	if !fits(h.Uid) || !fits(h.Gid) {
		return nil, invalid("%.300q has owner %d:%d", h.Name, h.Uid, h.Gid)
	}
	n := &erofs.Inode{Mode: kind | uint16(h.Mode&0o7777), UID: uint32(h.Uid), GID: uint32(h.Gid), ModTime: h.ModTime}
	switch kind {
	case erofs.TypeSymlink:
		if h.Linkname == "" || len(h.Linkname) >= 4096 || strings.ContainsRune(h.Linkname, 0) {
			return nil, invalid("symbolic link %.300q leads to %.300q", h.Name, h.Linkname)
		}
		n.Target = h.Linkname
	case erofs.TypeChar, erofs.TypeBlock:
		if h.Devmajor < 0 || h.Devmajor >= 1<<12 || h.Devminor < 0 || h.Devminor >= 1<<20 {
			return nil, invalid("device %.300q has number %d:%d", h.Name, h.Devmajor, h.Devminor)
		}
		n.Device = erofs.Device(uint32(h.Devmajor), uint32(h.Devminor))
	}
	return n, b.xattrs(n, h)
}

var kinds = map[byte]uint16{
	tar.TypeReg: erofs.TypeRegular, '\x00': erofs.TypeRegular, tar.TypeCont: erofs.TypeRegular,
	tar.TypeGNUSparse: erofs.TypeRegular,
	tar.TypeDir:       erofs.TypeDir,
	tar.TypeSymlink:   erofs.TypeSymlink,
	tar.TypeChar:      erofs.TypeChar,
	tar.TypeBlock:     erofs.TypeBlock,
	tar.TypeFifo:      erofs.TypeFifo,
}

// fits reports whether Linux can have such an owner; -1 means none.
func fits(id int) bool { return id >= 0 && id < 1<<32-1 }

const paxXattr = "SCHILY.xattr."

// xattrs gives n the extended attributes of the entry.
func (b *Builder) xattrs(n *erofs.Inode, h *tar.Header) error {
	size := 0
	for _, key := range slices.Sorted(maps.Keys(h.PAXRecords)) {
		name, ok := strings.CutPrefix(key, paxXattr)
		if !ok || !erofs.CanKeep(name) || strings.HasPrefix(name, "trusted.overlay.") {
			continue
		}
		value := h.PAXRecords[key]
		if size += len(name) + len(value); size > b.limits.Xattrs || len(value) > erofs.MaxXattr {
			return limit("%.300q has too large extended attributes", h.Name)
		}
		setXattr(n, name, value)
	}
	return nil
}
