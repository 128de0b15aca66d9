// Package erofs writes EROFS file systems, the read-only file system of Linux
// (Documentation/filesystems/erofs.rst), from a stream of files: the data of a
// file goes to the image when it is handed over, and the inodes follow when the
// whole tree is known.
//
// What it writes, it writes plainly: blocks of 4 KiB, extended inodes (so that
// every file keeps its time), no compression, extended attributes beside their
// inode. The end of a small file lies beside its inode, and a long run of zeros
// takes no space. Every kernel since 5.15 that has EROFS reads it.
//
//	block 0         data of the files     directories   inodes
//	| 0 | super | 0 | block | block | ... | block | ... | inode xattrs tail | ... |
//
// The package knows nothing of images or layers. It leaves out compression,
// which costs the guest CPU time for each page it reads, and deduplication,
// which the layers already give.
package erofs

import (
	"math"
	"time"
)

// BlockSize is the unit in which files lie in the image, in bytes.
const BlockSize = 4096

// The limits of the format.
const (
	MaxName  = 255            // bytes of one name
	MaxXattr = math.MaxUint16 // bytes of one extended attribute's value
	// MaxXattrs bounds the bytes that all extended attributes of one file
	// take, with their names.
	MaxXattrs = 4 * (math.MaxUint16 - 4)
)

// The types of files, as st_mode has them.
const (
	TypeMask    = 0o170000
	TypeRegular = 0o100000
	TypeDir     = 0o040000
	TypeSymlink = 0o120000
	TypeChar    = 0o020000
	TypeBlock   = 0o060000
	TypeFifo    = 0o010000
	TypeSocket  = 0o140000
)

// An Inode is one file. An inode with two entries is a file with two hard
// links.
type Inode struct {
	Mode    uint16 // type and permissions, as st_mode has them
	UID     uint32
	GID     uint32
	ModTime time.Time
	Device  uint32            // of a char or block device; see Device
	Target  string            // of a symbolic link
	Xattrs  map[string]string // full names: "security.capability"
	Entries []Entry           // of a directory, without "." and ".."

	data  data
	place place
}

// An Entry is a name in a directory.
type Entry struct {
	Name  string
	Inode *Inode
}

// IsDir reports whether the inode is a directory.
func (n *Inode) IsDir() bool { return n.Mode&TypeMask == TypeDir }

// Size returns the length in bytes of the regular file that Writer.Store read.
func (n *Inode) Size() int64 { return n.data.size }

// Device returns the number of a device, as the kernel's new_encode_dev makes
// it. major has 12 bits, minor 20.
func Device(major, minor uint32) uint32 {
	return minor&0xff | major<<8 | minor&^0xff<<12
}

// data says where a regular file's bytes are.
type data struct {
	size   int64
	start  uint32   // the first of the blocks that follow each other
	blocks uint32   // how many
	tail   int      // bytes at the end that lie beside the inode
	spool  int64    // where the tail waits in the spool
	chunks []uint32 // instead of all that: each chunk's first block, or hole
	shift  uint8    // log2 of the chunks' size in blocks
}

// hole is the address of a chunk of zeros.
const hole = math.MaxUint32

// place says where the inode lies and what it needs there.
type place struct {
	known  bool
	number uint32 // in the order of the tree, from 1
	offset int64  // from the start of the inodes
	links  uint32
	inline bool   // the contents of a directory or link lie beside the inode
	start  uint32 // else their first block
	size   int64  // of the contents
	xattrs int    // bytes
}
