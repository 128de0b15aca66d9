package erofs

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// prefixes are the classes of attributes the format has a number for. An
// attribute of no class cannot be kept: Linux would not take it either.
var prefixes = []struct {
	text  string
	index uint8
}{
	{"user.", 1},
	{"system.posix_acl_access", 2},
	{"system.posix_acl_default", 3},
	{"trusted.", 4},
	{"security.", 6},
}

// CanKeep reports whether the format has a place for an extended attribute of
// that name.
func CanKeep(name string) bool {
	_, _, ok := splitXattr(name)
	return ok
}

// splitXattr returns the number of the name's class and the rest of the name.
func splitXattr(name string) (index uint8, rest string, ok bool) {
	for _, p := range prefixes {
		rest, ok := strings.CutPrefix(name, p.text)
		if ok && (rest == "") != strings.HasSuffix(p.text, ".") {
			return p.index, rest, true
		}
	}
	return 0, "", false
}

const (
	xattrHeader = 12 // erofs_xattr_ibody_header
	xattrEntry  = 4  // erofs_xattr_entry
)

func checkXattrs(attrs map[string]string) error {
	for name, value := range attrs {
		_, rest, ok := splitXattr(name)
		if !ok || len(rest) > MaxName {
			return fmt.Errorf("extended attribute %.300q cannot be kept", name)
		}
		if len(value) > MaxXattr {
			return fmt.Errorf("extended attribute %q has %d bytes, %d is the most", name, len(value), MaxXattr)
		}
	}
	if xattrSize(attrs) > MaxXattrs {
		return fmt.Errorf("extended attributes take more than %d bytes", MaxXattrs)
	}
	return nil
}

// xattrSize returns the bytes that attrs take beside their inode.
func xattrSize(attrs map[string]string) int {
	if len(attrs) == 0 {
		return 0
	}
	size := xattrHeader
	for name, value := range attrs {
		_, rest, _ := splitXattr(name)
		size += align(xattrEntry+len(rest)+len(value), 4)
	}
	return size
}

// appendXattrs appends attrs, sorted by name so that the same file gives the
// same bytes.
func appendXattrs(b []byte, attrs map[string]string) []byte {
	if len(attrs) == 0 {
		return b
	}
	b = append(b, zeros[:xattrHeader]...)
	for _, name := range slices.Sorted(maps.Keys(attrs)) {
		index, rest, _ := splitXattr(name)
		b = append(b, uint8(len(rest)), index)
		b = binary.LittleEndian.AppendUint16(b, uint16(len(attrs[name])))
		b = append(append(b, rest...), attrs[name]...)
		size := xattrEntry + len(rest) + len(attrs[name])
		b = append(b, zeros[:align(size, 4)-size]...)
	}
	return b
}

// align returns n rounded up to a multiple of unit.
func align[T int | int64](n, unit T) T {
	return (n + unit - 1) / unit * unit
}
