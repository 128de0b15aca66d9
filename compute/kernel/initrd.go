package kernel

import (
	"fmt"
	"io"
	"io/fs"
)

// A File goes into an initrd.
type File struct {
	Name         string // without a leading slash
	Mode         fs.FileMode
	Major, Minor int // of a device node
	Data         []byte
}

// writeArchive writes one cpio archive in the format that the kernel unpacks
// (Linux, Documentation/driver-api/early-userspace/buffer-format.rst, "newc").
// Archives may follow one another, each padded to four bytes. Libraries for
// cpio read the standard format of several Unixes; for the twenty lines that a
// guest needs none is worth its weight.
func writeArchive(w io.Writer, files []File) error {
	for i, f := range files {
		if err := writeEntry(w, i+1, f); err != nil {
			return fmt.Errorf("initrd: %s: %w", f.Name, err)
		}
	}
	return writeEntry(w, 0, File{Name: "TRAILER!!!"})
}

func writeEntry(w io.Writer, inode int, f File) error {
	name := f.Name + "\x00"
	_, err := fmt.Fprintf(w, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s%s",
		inode, unixMode(f.Mode), 0, 0, 1, 0, len(f.Data), 0, 0, f.Major, f.Minor, len(name), 0,
		name, padding(110+len(name)))
	if err != nil {
		return err
	}
	if _, err := w.Write(f.Data); err != nil {
		return err
	}
	_, err = io.WriteString(w, padding(len(f.Data)))
	return err
}

func padding(n int) string { return "\x00\x00\x00"[:-n&3] }

// unixMode returns the mode as stat(2) has it.
func unixMode(m fs.FileMode) uint32 {
	mode := uint32(m.Perm())
	switch {
	case m.IsDir():
		return mode | 0o040000
	case m&fs.ModeCharDevice != 0:
		return mode | 0o020000
	case m&fs.ModeSymlink != 0:
		return mode | 0o120000
	default:
		return mode | 0o100000
	}
}
