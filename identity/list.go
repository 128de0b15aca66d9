package identity

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/tradle/cloudpal"
)

// Bounds of a list. The last entries of it are the root's alone, so that a
// stolen admin device cannot fill it up and then be irrevocable.
const (
	MaxListSize = 1 << 20
	maxEntries  = 4096
	rootsOwn    = 64
)

// What is wrong with a list as against another. Both come in errors of kind
// cloudpal.Denied; ask with errors.Is.
var (
	ErrStale = errors.New("it is older than the list that is known")
	ErrFork  = errors.New("it contradicts the list that is known")
)

// A List says which devices are a person's: a log of entries, each signed and
// chained to the one before, which holds for whoever knows the root's ID. A
// List does not change: adding to it returns another. It is safe for
// concurrent use.
type List struct {
	root    ID
	v4, v6  netip.Prefix
	data    []byte
	head    hash // of the last entry
	entries int
	members []member // every device there ever was, in the order of their coming
}

type member struct {
	Device
	revoked int // the entry that revoked it; 0: none did
}

// NewList begins a list with the pal's network: an IPv4 /24 out of the private
// ranges and an IPv6 /64 out of fd00::/8, both for good. The error is
// cloudpal.Invalid.
func NewList(root Root, v4, v6 netip.Prefix, now time.Time) (*List, error) {
	const op = "begin a device list"
	if err := checkNetwork(v4, v6); err != nil {
		return nil, cloudpal.E(op, cloudpal.Invalid, err)
	}
	l := &List{root: root.ID()}
	return l.append(op, root, entry{kind: kindFirst, v4: v4, v6: v6}, now)
}

// ParseList reads and verifies a list of the person with this root. It reads
// at most MaxListSize bytes and 4096 entries. The error is cloudpal.Invalid
// and names the entry.
func ParseList(root ID, data []byte) (*List, error) {
	const op = "read the device list"
	if len(data) > MaxListSize {
		return nil, cloudpal.E(op, cloudpal.Invalid, errors.New("it is too large"))
	}
	l := &List{root: root}
	for rest := data; len(rest) > 0 || l.entries == 0; {
		raw, after, err := cut(rest)
		if err == nil {
			err = l.take(raw)
		}
		if err != nil {
			return nil, cloudpal.E(fmt.Sprintf("%s: entry %d", op, l.entries), cloudpal.Invalid, err)
		}
		rest = after
	}
	return l, nil
}

// Root returns whose list it is.
func (l *List) Root() ID { return l.root }

// Network returns the pal's address ranges. The core has the host part
// CoreIndex, a device its Index.
func (l *List) Network() (v4, v6 netip.Prefix) { return l.v4, l.v6 }

// Bytes returns the list as ParseList reads it. It may be changed.
func (l *List) Bytes() []byte { return bytes.Clone(l.data) }

// Len returns the number of entries.
func (l *List) Len() int { return l.entries }

// Head returns a hash that stands for all of the list.
func (l *List) Head() [32]byte { return l.head }

// Devices returns the devices that are not revoked, by their index.
func (l *List) Devices() []Device {
	var living []Device
	for _, m := range l.members {
		if m.revoked == 0 {
			living = append(living, m.Device)
		}
	}
	slices.SortFunc(living, func(a, b Device) int { return cmp.Compare(a.Index, b.Index) })
	return living
}

// Revoked returns the devices that are revoked, in the order of their coming,
// under the names that they had last.
func (l *List) Revoked() []Device {
	var gone []Device
	for _, m := range l.members {
		if m.revoked != 0 {
			gone = append(gone, m.Device)
		}
	}
	return gone
}

// Device returns the device of this name that is not revoked.
func (l *List) Device(name string) (Device, bool) {
	return l.living(func(d Device) bool { return d.Name == name })
}

// DeviceByID returns the device with this id that is not revoked.
func (l *List) DeviceByID(id DeviceID) (Device, bool) {
	return l.living(func(d Device) bool { return d.ID == id })
}

func (l *List) living(is func(Device) bool) (Device, bool) {
	for _, m := range l.members {
		if m.revoked == 0 && is(m.Device) {
			return m.Device, true
		}
	}
	return Device{}, false
}

// speaks reports whether the key is the root's, or of a device that is not
// revoked.
func (l *List) speaks(by SignKey) bool {
	_, ok := l.living(func(d Device) bool { return d.Sign == by && !by.IsZero() })
	return ok || ID(by) == l.root
}

// mayChange reports whether the key is the root's, or of an admin that is not
// revoked.
func (l *List) mayChange(by SignKey) bool {
	_, ok := l.living(func(d Device) bool { return d.Sign == by && d.Admin })
	return ok || ID(by) == l.root
}

// Add returns the list with one more device. Of d, its ID and Added are set by
// the list, and its Index where it is 0. The error is cloudpal.Exist for a name
// or a key that there is already, cloudpal.Denied for a signer that may not,
// cloudpal.NoSpace when there is no index or no room for the entry.
func (l *List) Add(by Signer, d Device, now time.Time) (*List, error) {
	op := fmt.Sprintf("add device %.40q", d.Name)
	if d.Index == 0 {
		d.Index = l.nextIndex()
	}
	if d.Index == 0 {
		return nil, cloudpal.E(op, cloudpal.NoSpace, fmt.Errorf("there are %d devices", LastIndex-FirstIndex+1)).
			WithHint("revoke a device that is not used any more")
	}
	return l.append(op, by, entry{kind: kindAdd, device: d}, now)
}

// Revoke returns the list without that device. Its keys never come back.
func (l *List) Revoke(by Signer, id DeviceID, now time.Time) (*List, error) {
	return l.append("revoke device", by, entry{kind: kindRevoke, device: Device{ID: id}}, now)
}

// Rename returns the list with another name for that device.
func (l *List) Rename(by Signer, id DeviceID, name string, now time.Time) (*List, error) {
	op := fmt.Sprintf("rename device to %.40q", name)
	return l.append(op, by, entry{kind: kindRename, device: Device{ID: id, Name: name}}, now)
}

// append signs one more entry and has it verified like one of a stranger.
func (l *List) append(op string, by Signer, e entry, now time.Time) (*List, error) {
	if s := now.Unix(); s < 0 || s > maxTime {
		return nil, cloudpal.E(op, cloudpal.Invalid, fmt.Errorf("the clock says %v", now.UTC()))
	}
	if len(e.device.Name) > maxBody/2 {
		return nil, cloudpal.E(op, "", CheckName(e.device.Name))
	}
	e.seq, e.prev, e.time, e.by = uint32(l.entries), l.head, now, by.SignKey()
	next := *l
	next.data = slices.Clip(l.data)
	next.members = slices.Clone(l.members)
	if err := next.take(e.pack(by)); err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	return &next, nil
}

// take verifies a whole entry and makes it the last of the list.
func (l *List) take(raw []byte) error {
	e, err := unpack(raw)
	if err != nil {
		return err
	}
	if err := l.admit(e, len(raw)); err != nil {
		return err
	}
	if err := l.apply(e); err != nil {
		return err
	}
	l.data = append(l.data, raw...)
	l.head = sha256.Sum256(raw)
	l.entries++
	return nil
}

// admit checks an entry's place and whether its signer may make it.
func (l *List) admit(e entry, size int) error {
	isRoot := ID(e.by) == l.root
	if e.seq != uint32(l.entries) || e.prev != l.head || (e.kind == kindFirst) != (l.entries == 0) {
		return errors.New("it does not follow the entry before")
	}
	if !l.mayChange(e.by) {
		return cloudpal.E("", cloudpal.Denied, errors.New("its signer is no admin of this list"))
	}
	last := maxEntries
	if !isRoot {
		last -= rootsOwn
	}
	if l.entries >= last || len(l.data)+size > MaxListSize {
		return cloudpal.E("", cloudpal.NoSpace, errors.New("the device list is full"))
	}
	return nil
}

func (l *List) apply(e entry) error {
	switch e.kind {
	case kindFirst:
		l.v4, l.v6 = e.v4, e.v6
		return checkNetwork(e.v4, e.v6)
	case kindAdd:
		return l.add(e.device)
	case kindRevoke:
		return l.change(e.device.ID, func(m *member) error {
			m.revoked = l.entries
			return nil
		})
	case kindRename:
		return l.change(e.device.ID, func(m *member) error {
			if err := l.checkName(e.device.Name); err != nil {
				return err
			}
			m.Name = e.device.Name
			return nil
		})
	}
	return errForm
}

// add makes d a member, if it is one that may be.
func (l *List) add(d Device) error {
	if err := l.checkName(d.Name); err != nil {
		return err
	}
	if d.WireGuard.IsZero() {
		return cloudpal.E("", cloudpal.Invalid, errors.New("it has no WireGuard key"))
	}
	if d.Admin && d.Sign.IsZero() {
		return cloudpal.E("", cloudpal.Invalid, errors.New("an admin needs a key to sign with"))
	}
	if l.knows(d) {
		return cloudpal.E("", cloudpal.Exist, errors.New("a device with this key is, or was, in the list"))
	}
	if err := l.checkIndex(d.Index); err != nil {
		return err
	}
	l.members = append(l.members, member{Device: d})
	return nil
}

// knows reports whether a key of d was ever in the list.
func (l *List) knows(d Device) bool {
	return ID(d.Sign) == l.root || slices.ContainsFunc(l.members, func(m member) bool {
		return m.WireGuard == d.WireGuard || m.Sign == d.Sign && !d.Sign.IsZero() || m.ID == d.ID
	})
}

func (l *List) change(id DeviceID, f func(*member) error) error {
	for i := range l.members {
		if m := &l.members[i]; m.ID == id && m.revoked == 0 {
			return f(m)
		}
	}
	return cloudpal.E("", cloudpal.NotExist, errors.New("there is no such device"))
}
