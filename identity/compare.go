package identity

import (
	"bytes"
	"errors"

	"github.com/tradle/cloudpal"
)

// Extends returns nil where l is the older list, or that list and more
// entries; nil for older means that none is known. The error is
// cloudpal.Denied, with ErrStale where older has more entries, and with
// ErrFork where they have parted: then an admin has signed two lists, or
// signed by a list that was not the last.
func (l *List) Extends(older *List) error {
	const op = "compare device lists"
	switch {
	case older == nil:
		return nil
	case l.root != older.root:
		return cloudpal.E(op, cloudpal.Denied, errors.New("they are of different people"))
	case bytes.HasPrefix(l.data, older.data):
		return nil
	case bytes.HasPrefix(older.data, l.data):
		return cloudpal.E(op, cloudpal.Denied, ErrStale)
	}
	return cloudpal.E(op, cloudpal.Denied, ErrFork)
}

// Newest returns the longer of two lists of which one extends the other; either
// may be nil. The error is that of Extends.
func Newest(a, b *List) (*List, error) {
	if a == nil {
		return b, nil
	}
	err := a.Extends(b)
	if errors.Is(err, ErrStale) {
		return b, nil
	}
	if err != nil {
		return nil, err
	}
	return a, nil
}

// Changes are what a list has that an older one has not. A device that came and
// went in between is in none of them.
type Changes struct {
	Added, Removed []Device
	Renamed        []Device // under their new names
}

// Since returns what has changed since the older list, which l must extend;
// against nil, all devices are added. Apply what is removed first: an index may
// have gone from one device to another.
func (l *List) Since(older *List) Changes {
	var c Changes
	if older == nil {
		c.Added = l.Devices()
		return c
	}
	for _, d := range l.Devices() {
		was, ok := older.DeviceByID(d.ID)
		switch {
		case !ok:
			c.Added = append(c.Added, d)
		case was.Name != d.Name:
			c.Renamed = append(c.Renamed, d)
		}
	}
	for _, d := range older.Devices() {
		if _, ok := l.DeviceByID(d.ID); !ok {
			c.Removed = append(c.Removed, d)
		}
	}
	return c
}
