package storage

import (
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"

	"github.com/tradle/cloudpal/data/merkle"
)

// A View is a core as it was when the View was taken, whatever happens to it
// after. While it is held, the store keeps what is removed. All methods may be
// used at the same time.
type View struct {
	core  *Core
	snap  *pebble.Snapshot
	users atomic.Int32
}

// View returns the core as it is in the database now.
func (c *Core) View() *View {
	v := &View{core: c, snap: c.store.db.NewSnapshot()}
	v.users.Store(1)
	return v
}

// Hold adds a user of v, who closes it, too.
func (v *View) Hold() *View {
	v.users.Add(1)
	return v
}

// Close lets v go, when all of its users have closed it.
func (v *View) Close() {
	if v.users.Add(-1) == 0 {
		v.snap.Close()
	}
}

// AppendBlock is that of Core, then.
func (v *View) AppendBlock(dst []byte, index uint64) ([]byte, error) {
	return v.core.appendBlock(v.snap, dst, index)
}

// Node is that of Core, then.
func (v *View) Node(index uint64) (n merkle.Node, ok bool, err error) {
	root, slot := place(index)
	t := tile{root: root}
	if err := v.core.readTile(v.snap, &t); err != nil {
		return merkle.Node{}, false, err
	}
	n, ok = t.get(slot)
	return n, ok, nil
}
