package erofs

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

const direntSize = 12 // erofs_dirent

// sortDir sorts the directory's entries, as the kernel's binary search needs
// them, and refuses names that cannot be.
func sortDir(dir *Inode) error {
	slices.SortFunc(dir.Entries, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	for i, e := range dir.Entries {
		if err := checkName(e.Name); err != nil {
			return err
		}
		if i > 0 && dir.Entries[i-1].Name == e.Name {
			return fmt.Errorf("name %.300q is there twice", e.Name)
		}
	}
	return nil
}

func checkName(name string) error {
	switch {
	case name == "" || name == "." || name == ".." || strings.ContainsAny(name, "/\x00"):
		return fmt.Errorf("%.300q cannot be a name", name)
	case len(name) > MaxName:
		return fmt.Errorf("name %.300q... has %d bytes, %d is the most", name[:40], len(name), MaxName)
	}
	return nil
}

// withDots returns dir's entries with "." and ".." in their places: they are
// sorted like all others.
func withDots(dir, parent *Inode) []Entry {
	all := append([]Entry{{".", dir}, {"..", parent}}, dir.Entries...)
	slices.SortFunc(all, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	return all
}

// dirBlock returns how many of the entries fit into one block, and the bytes
// they take.
func dirBlock(entries []Entry) (n, size int) {
	for _, e := range entries {
		need := direntSize + len(e.Name)
		if size+need > BlockSize {
			break
		}
		size += need
		n++
	}
	return n, size
}

// dirSize returns the length of the directory's contents.
func dirSize(dir *Inode) int64 {
	entries := withDots(dir, dir)
	var total int64
	for len(entries) > 0 {
		n, size := dirBlock(entries)
		entries = entries[n:]
		if len(entries) > 0 {
			size = BlockSize
		}
		total += int64(size)
	}
	return total
}

// appendDir appends the directory's contents. All places must be known.
func appendDir(b []byte, dir, parent *Inode) []byte {
	entries := withDots(dir, parent)
	for len(entries) > 0 {
		n, size := dirBlock(entries)
		b = appendDirBlock(b, entries[:n])
		entries = entries[n:]
		if len(entries) > 0 {
			b = append(b, make([]byte, BlockSize-size)...)
		}
	}
	return b
}

func appendDirBlock(b []byte, entries []Entry) []byte {
	name := len(entries) * direntSize
	for _, e := range entries {
		b = binary.LittleEndian.AppendUint64(b, uint64(e.Inode.place.offset/slot))
		b = binary.LittleEndian.AppendUint16(b, uint16(name))
		b = append(b, fileType(e.Inode.Mode), 0)
		name += len(e.Name)
	}
	for _, e := range entries {
		b = append(b, e.Name...)
	}
	return b
}

// fileType returns the type that a directory entry tells (FT_REG_FILE and so
// on).
func fileType(mode uint16) uint8 {
	switch mode & TypeMask {
	case TypeRegular:
		return 1
	case TypeDir:
		return 2
	case TypeChar:
		return 3
	case TypeBlock:
		return 4
	case TypeFifo:
		return 5
	case TypeSocket:
		return 6
	case TypeSymlink:
		return 7
	}
	return 0
}
