package hypercore

import (
	"fmt"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/manifest"
	"github.com/tradle/cloudpal/data/merkle"
)

// Info is what there is to say of a core.
type Info struct {
	Key          manifest.Key
	DiscoveryKey [32]byte
	Length       uint64 // in blocks
	ByteLength   uint64 // of the blocks as Get returns them
	Contiguous   uint64 // blocks here from the first on without a gap
	Blocks       uint64 // blocks here
	Fork         uint64
	TreeHash     merkle.Hash
	Writable     bool
	Encrypted    bool // and this session has the key
	Compat       bool
}

// Info returns what there is to say of the core.
func (c *Core) Info() Info {
	return Info{
		Key: c.Key(), DiscoveryKey: c.DiscoveryKey(),
		Length: c.Length(), ByteLength: c.ByteLength(), Contiguous: c.Contiguous(), Blocks: c.here(),
		Fork: c.Fork(), TreeHash: c.TreeHash(),
		Writable: c.Writable(), Encrypted: c.cipher != nil, Compat: c.Compat(),
	}
}

// here counts the blocks that are here.
func (c *Core) here() (n uint64) {
	end := c.Length()
	c.withBits(func(b *bitfield) {
		for i := b.next(0, end, true); i < end; {
			stop := b.next(i, end, false)
			n += stop - i
			i = b.next(stop, end, true)
		}
	})
	return n
}

// UserData returns what was kept with the core under a name, or nil. It is this
// store's own: peers do not see it.
func (c *Core) UserData(name string) ([]byte, error) {
	v, err := c.log.core.UserData(name)
	if err != nil {
		return nil, cloudpal.E(fmt.Sprintf("read user data %q", name), "", err)
	}
	return v, nil
}

// SetUserData keeps something with the core under a name; nil removes it.
func (c *Core) SetUserData(name string, v []byte) error {
	if err := c.check("set user data"); err != nil {
		return err
	}
	b := c.log.store.Begin()
	defer b.Close()
	b.SetUserData(c.log.core, name, v)
	if err := b.Commit(); err != nil {
		return cloudpal.E(fmt.Sprintf("set user data %q", name), "", err)
	}
	return nil
}
