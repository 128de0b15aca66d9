package layer

import "fmt"

// A link is a hard link whose file has not come yet.
type link struct{ name, target string }

// link makes name another name of the file target. If the file is not there,
// it may come later in the archive.
func (b *Builder) link(name, target string) error {
	target, err := b.clean(target)
	if err != nil {
		return err
	}
	if b.find(target) == nil {
		b.links = append(b.links, link{name, target})
		return nil
	}
	return b.join(name, target)
}

// lateLinks makes the links whose file came after them. A file of the link's
// name that came in between is newer, and stays.
func (b *Builder) lateLinks() error {
	for _, l := range b.links {
		if b.find(l.target) == nil {
			return b.noTarget(l)
		}
		if n := b.find(l.name); n != nil && n.layer == b.layer {
			continue
		}
		if err := b.join(l.name, l.target); err != nil {
			return err
		}
	}
	return nil
}

func (b *Builder) noTarget(l link) error {
	if b.alone {
		return fmt.Errorf("%.300q to %.300q: %w", l.name, l.target, ErrBelow)
	}
	return invalid("hard link %.300q leads to %.300q, which is not there", l.name, l.target)
}

func (b *Builder) join(name, target string) error {
	inode := b.find(target).inode
	if inode.IsDir() {
		return invalid("hard link %.300q leads to the directory %.300q", name, target)
	}
	n, err := b.node(name)
	if err != nil {
		return err
	}
	if n == b.root {
		return invalid("the root is not a directory")
	}
	if n.inode == inode {
		return nil
	}
	b.refs[inode]++
	if err := b.replace(n, inode); err != nil {
		return err
	}
	n.layer = b.layer
	return nil
}
