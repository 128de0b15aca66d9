package layer

import (
	"maps"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/tradle/cloudpal/compute/image/erofs"
)

// A node is a name in the tree: a file, or only the wish that a lower layer's
// file of that name be hidden.
type node struct {
	name     string
	parent   *node
	inode    *erofs.Inode     // nil where there is only the wish
	children map[string]*node // of a directory
	layer    int              // the layer that described it last; 0 for a directory that none did
	touched  int              // the last layer that described it or anything below it
	whiteout bool             // hide what lower layers have under this name
	opaque   bool             // hide what lower layers have in this directory
}

func newDir() *erofs.Inode {
	return &erofs.Inode{Mode: erofs.TypeDir | 0o755, ModTime: time.Unix(0, 0)}
}

func (n *node) isDir() bool { return n.inode != nil && n.inode.IsDir() }

// touch marks n and all above it as changed by a layer.
func (n *node) touch(layer int) {
	for ; n != nil && n.touched < layer; n = n.parent {
		n.touched = layer
	}
}

// child returns n's child of that name, making an empty one where there is
// none.
func (n *node) child(name string) *node {
	c := n.children[name]
	if c == nil {
		c = &node{name: name, parent: n}
		n.children[name] = c
	}
	return c
}

// maxLinks is how many symbolic links lead to one name at most, as in Linux.
const maxLinks = 40

// dir returns the directory at a clean path like "usr/lib" ("" is the root).
// It follows symbolic links as if the root were the world's, and makes
// directories that are missing, or where something else is.
func (b *Builder) dir(name string) (*node, error) {
	at, todo, hops := b.root, split(name), 0
	for len(todo) > 0 {
		step := todo[0]
		todo = todo[1:]
		if step == ".." {
			at = at.up()
			continue
		}
		c := at.child(step)
		if c.isLink() {
			if hops++; hops > maxLinks {
				return nil, invalid("%.300q: too many symbolic links", name)
			}
			if path.IsAbs(c.inode.Target) {
				at = b.root
			}
			todo = append(split(c.inode.Target), todo...)
			if len(todo) > b.limits.Path {
				return nil, invalid("%.300q: symbolic links lead too far", name)
			}
			continue
		}
		if !c.isDir() {
			if err := b.replace(c, newDir()); err != nil {
				return nil, err
			}
		}
		at = c
	}
	at.touch(b.layer)
	return at, nil
}

func (n *node) isLink() bool {
	return n.inode != nil && n.inode.Mode&erofs.TypeMask == erofs.TypeSymlink
}

// up returns the parent; the root is its own.
func (n *node) up() *node {
	if n.parent == nil {
		return n
	}
	return n.parent
}

// split returns the steps of a path, without empty ones and dots.
func split(name string) []string {
	steps := strings.Split(name, "/")
	return slices.DeleteFunc(steps, func(s string) bool { return s == "" || s == "." })
}

// find returns the node at a clean path, or nil. It follows links in the
// directories on the way, and makes nothing.
func (b *Builder) find(name string) *node {
	at, todo, hops := b.root, split(name), 0
	for len(todo) > 0 {
		step := todo[0]
		todo = todo[1:]
		if step == ".." {
			at = at.up()
			continue
		}
		c := at.children[step]
		if c == nil || c.inode == nil {
			return nil
		}
		if c.isLink() && len(todo) > 0 {
			if hops++; hops > maxLinks {
				return nil
			}
			if path.IsAbs(c.inode.Target) {
				at = b.root
			}
			todo = append(split(c.inode.Target), todo...)
			continue
		}
		at = c
	}
	return at
}

// replace makes inode what n is, and lets go of what n was.
func (b *Builder) replace(n *node, inode *erofs.Inode) error {
	if err := b.release(n); err != nil {
		return err
	}
	n.inode, n.layer, n.opaque = inode, 0, false
	if inode != nil && inode.IsDir() {
		n.children = map[string]*node{}
	}
	return nil
}

// release lets go of n's file, and of all below it.
func (b *Builder) release(n *node) error {
	for _, c := range n.children {
		if err := b.release(c); err != nil {
			return err
		}
	}
	inode := n.inode
	n.inode, n.children = nil, nil
	if inode == nil || inode.IsDir() {
		return nil
	}
	if b.refs[inode]--; b.refs[inode] >= 0 {
		return nil
	}
	delete(b.refs, inode)
	return b.out.Discard(inode)
}

// hide carries out the whiteout of n: what lower layers have under its name
// goes, what this layer has there stays.
func (b *Builder) hide(n *node) error {
	if n.layer < b.layer {
		if n.touched < b.layer {
			delete(n.parent.children, n.name)
			return b.release(n)
		}
		n.inode, n.layer = newDir(), 0 // only what is below it is this layer's
	}
	return b.empty(n)
}

// empty takes from the directory n what lower layers have in it.
func (b *Builder) empty(n *node) error {
	for _, c := range n.children {
		if err := b.hide(c); err != nil {
			return err
		}
	}
	return nil
}

// implied notes the directories below n, and n itself, that no layer
// described.
func (n *node) implied(name string, t *Ties) {
	if !n.isDir() {
		return
	}
	if n.layer == 0 && n.parent != nil && !n.whiteout {
		t.Implied = append(t.Implied, name)
	}
	if n.hides() {
		return // nothing of a layer below shows there
	}
	for _, k := range slices.Sorted(maps.Keys(n.children)) {
		n.children[k].implied(path.Join(name, k), t)
	}
}

// hiding notes the directories below n, and n itself, that whiteouts will be
// in.
func (n *node) hiding(name string, t *Ties) {
	if !n.isDir() || n.hides() {
		return
	}
	noted := n.parent == nil
	for _, k := range slices.Sorted(maps.Keys(n.children)) {
		c := n.children[k]
		if c.inode == nil && !noted {
			t.Hiding = append(t.Hiding, name)
			noted = true
		}
		c.hiding(path.Join(name, k), t)
	}
}

// hides reports whether n shows nothing of what lower layers have in it.
func (n *node) hides() bool { return n.opaque || n.whiteout }

// settle fills in the entries of the directories below n. Where the layer lies
// over others, wishes become what overlayfs understands; below a directory
// that hides everything there is nothing more to hide.
func (n *node) settle(alone, hidden bool) {
	if alone && n.hides() && !hidden && n.isDir() {
		setXattr(n.inode, "trusted.overlay.opaque", "y")
	}
	hidden = hidden || n.hides()
	for name, c := range n.children {
		c.settle(alone, hidden)
		if c.inode == nil && alone && !hidden {
			c.inode = &erofs.Inode{Mode: erofs.TypeChar, ModTime: time.Unix(0, 0)}
		}
		if c.inode != nil {
			n.inode.Entries = append(n.inode.Entries, erofs.Entry{Name: name, Inode: c.inode})
		}
	}
}

func setXattr(n *erofs.Inode, name, value string) {
	if n.Xattrs == nil {
		n.Xattrs = map[string]string{}
	}
	n.Xattrs[name] = value
}
