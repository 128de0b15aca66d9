package erofs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

const (
	inodeSize = 64 // erofs_inode_extended
	slot      = 32 // inodes are counted in units of this many bytes
	// firstInode is where the root lies: not at 0, because a file with the
	// number 0 is one that is not there, to some programs.
	firstInode = 64
)

// Finish writes the tree below root and the superblock, and closes the writer.
// All regular files in the tree must have been stored. The caller syncs the
// file. id becomes the file system's UUID.
func (w *Writer) Finish(root *Inode, id [16]byte) error {
	defer w.Close()
	if !root.IsDir() {
		return errors.New("root is not a directory")
	}
	t := &tree{end: firstInode}
	if err := errors.Join(t.add(root, root), w.spool.out.Flush()); err != nil {
		return err
	}
	if err := w.writeDirs(t); err != nil {
		return err
	}
	meta := w.next
	if err := w.writeInodes(t); err != nil {
		return err
	}
	return w.writeSuper(t, meta, id)
}

// A tree is all inodes in the order in which they lie.
type tree struct {
	inodes  []*Inode
	parents []*Inode // of the directories among them
	end     int64    // where the next inode can begin
}

// add finds a place for n and all below it.
func (t *tree) add(n, parent *Inode) error {
	n.place.links++
	if n.place.known {
		return nil
	}
	if err := t.settle(n, parent); err != nil {
		return err
	}
	for _, e := range n.Entries {
		if err := t.add(e.Inode, n); err != nil {
			return fmt.Errorf("%.300q: %w", e.Name, err)
		}
		if e.Inode.IsDir() {
			n.place.links++
		}
	}
	return nil
}

func (t *tree) settle(n, parent *Inode) error {
	if err := checkXattrs(n.Xattrs); err != nil {
		return err
	}
	n.place.known = true
	n.place.xattrs = xattrSize(n.Xattrs)
	t.inodes = append(t.inodes, n)
	t.parents = append(t.parents, parent)
	n.place.number = uint32(len(t.inodes))
	switch n.Mode & TypeMask {
	case TypeDir:
		n.place.links++ // its own "."
		if err := sortDir(n); err != nil {
			return err
		}
		n.place.size = dirSize(n)
	case TypeSymlink:
		if n.Target == "" || len(n.Target) >= BlockSize {
			return fmt.Errorf("symbolic link of %d bytes", len(n.Target))
		}
		n.place.size = int64(len(n.Target))
	case TypeRegular:
		n.place.size = n.data.size
	}
	t.lay(n)
	return nil
}

// lay puts n at the end. An inode does not cross a block, and neither do an
// inode and the contents beside it.
func (t *tree) lay(n *Inode) {
	head, beside := int64(inodeSize+n.place.xattrs), t.beside(n)
	whole := int64(inodeSize)
	if beside > 0 {
		whole = head + beside
	}
	if t.end%BlockSize+whole > BlockSize {
		t.end = align(t.end, BlockSize)
	}
	n.place.offset = t.end
	t.end = align(t.end+head+beside+4*int64(len(n.data.chunks)), slot)
}

// beside returns the bytes of n's contents that lie beside it.
func (t *tree) beside(n *Inode) int64 {
	if n.Mode&TypeMask == TypeRegular {
		return int64(n.data.tail)
	}
	n.place.inline = n.place.size > 0 && int64(inodeSize+n.place.xattrs)+n.place.size <= BlockSize
	if n.place.inline {
		return n.place.size
	}
	return 0
}

// writeDirs writes the contents of the directories and links that do not fit
// beside their inode.
func (w *Writer) writeDirs(t *tree) error {
	for i, n := range t.inodes {
		if n.Mode&TypeMask == TypeRegular || n.place.inline || n.place.size == 0 {
			continue
		}
		n.place.start = w.next
		if err := w.writeBlocks(contents(w.buffer(0), n, t.parents[i])); err != nil {
			return err
		}
	}
	return nil
}

// contents appends what a directory or a link holds.
func contents(b []byte, n, parent *Inode) []byte {
	switch n.Mode & TypeMask {
	case TypeDir:
		return appendDir(b, n, parent)
	case TypeSymlink:
		return append(b, n.Target...)
	}
	return b
}

func (w *Writer) writeInodes(t *tree) error {
	var at int64
	var b []byte
	for i, n := range t.inodes {
		b = append(b[:0], make([]byte, n.place.offset-at)...)
		b = n.appendTo(b)
		if n.place.inline {
			b = contents(b, n, t.parents[i])
		}
		b, err := w.spool.appendTail(b, n)
		if err != nil {
			return err
		}
		if _, err := w.out.Write(b); err != nil {
			return err
		}
		at += int64(len(b))
	}
	return w.endBlock(at)
}

// endBlock fills up the last block of the inodes, which have size bytes.
func (w *Writer) endBlock(size int64) error {
	end := align(size, BlockSize)
	w.next += uint32(end / BlockSize)
	_, err := w.out.Write(zeros[:end-size])
	return errors.Join(err, w.out.Flush())
}

// appendTail appends the end of n that waited in the spool.
func (s *spool) appendTail(b []byte, n *Inode) ([]byte, error) {
	if n.data.tail == 0 {
		return b, nil
	}
	b = append(b, zeros[:n.data.tail]...)
	_, err := s.file.ReadAt(b[len(b)-n.data.tail:], n.data.spool)
	return b, err
}

// The layouts of an inode's contents (erofs_inode_datalayout).
const (
	flatPlain  = 0
	flatInline = 2
	chunkBased = 4
)

// appendTo appends the inode, its extended attributes and its table of chunks.
func (n *Inode) appendTo(b []byte) []byte {
	le := binary.LittleEndian
	layout, u := n.layout()
	b = le.AppendUint16(b, 1|layout<<1)
	b = le.AppendUint16(b, n.xattrCount())
	b = le.AppendUint16(b, n.Mode)
	b = le.AppendUint16(b, 0)
	b = le.AppendUint64(b, uint64(n.place.size))
	b = le.AppendUint32(b, u)
	b = le.AppendUint32(b, n.place.number)
	b = le.AppendUint32(b, n.UID)
	b = le.AppendUint32(b, n.GID)
	b = le.AppendUint64(b, uint64(n.ModTime.Unix()))
	b = le.AppendUint32(b, uint32(n.ModTime.Nanosecond()))
	b = le.AppendUint32(b, n.place.links)
	b = append(b, make([]byte, 16)...)
	b = appendXattrs(b, n.Xattrs)
	for _, block := range n.data.chunks {
		b = le.AppendUint32(b, block)
	}
	return b
}

// layout returns how the contents lie, and the field i_u that says where.
func (n *Inode) layout() (layout uint16, u uint32) {
	switch {
	case n.Mode&TypeMask == TypeChar || n.Mode&TypeMask == TypeBlock:
		return flatPlain, n.Device
	case n.data.chunks != nil:
		return chunkBased, uint32(n.data.shift)
	case n.place.inline:
		return flatInline, 0
	case n.data.tail > 0:
		return flatInline, n.data.start
	case n.Mode&TypeMask == TypeRegular:
		return flatPlain, n.data.start
	}
	return flatPlain, n.place.start
}

func (n *Inode) xattrCount() uint16 {
	if n.place.xattrs == 0 {
		return 0
	}
	return uint16(1 + (n.place.xattrs-xattrHeader)/4)
}

const (
	superOffset   = 1024
	superMagic    = 0xe0f5e1e2
	compatSum     = 0x1 // EROFS_FEATURE_COMPAT_SB_CHKSUM
	compatMTime   = 0x2
	incompatChunk = 0x4 // EROFS_FEATURE_INCOMPAT_CHUNKED_FILE
)

// writeSuper writes the superblock; the inodes begin at block meta.
func (w *Writer) writeSuper(t *tree, meta uint32, id [16]byte) error {
	le := binary.LittleEndian
	b := make([]byte, BlockSize-superOffset)
	le.PutUint32(b, superMagic)
	le.PutUint32(b[8:], compatSum|compatMTime)
	b[12] = 12 // log2 of the block size
	le.PutUint16(b[14:], uint16(t.inodes[0].place.offset/slot))
	le.PutUint64(b[16:], uint64(len(t.inodes)))
	le.PutUint32(b[36:], w.next)
	le.PutUint32(b[40:], meta)
	copy(b[48:], id[:])
	le.PutUint32(b[80:], incompatChunk)
	le.PutUint32(b[4:], ^crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	_, err := w.file.WriteAt(b, superOffset)
	return err
}
