package hyperdrive

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/crypto/blake2b"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/corestore"
	"github.com/tradle/cloudpal/data/hyperbee"
	"github.com/tradle/cloudpal/data/hyperblobs"
	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/manifest"
)

// content is where the content of a drive and its checkouts is. Which core that
// is follows from the database's manifest, which a reader has from a peer only.
type content struct {
	store   *corestore.Store
	options Options
	db      *hypercore.Core
	bee     *hyperbee.Bee

	turn  chan struct{} // full while somebody finds out
	core  *hypercore.Core
	found atomic.Pointer[hyperblobs.Blobs] // set after core

	mu      sync.Mutex
	closed  bool
	writing map[*hold]struct{}
}

// blobs returns the blobs, once it is known where they are.
func (c *content) blobs(ctx context.Context) (*hyperblobs.Blobs, error) {
	if b := c.found.Load(); b != nil {
		return b, nil
	}
	select {
	case c.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, cloudpal.E("find a drive's content", cloudpal.Timeout, ctx.Err())
	}
	defer func() { <-c.turn }()
	if b := c.found.Load(); b != nil {
		return b, nil
	}
	o, err := c.which(ctx)
	if err != nil {
		return nil, cloudpal.E("find a drive's content", "", err)
	}
	return c.open(o)
}

func (c *content) open(o corestore.CoreOptions) (*hyperblobs.Blobs, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, cloudpal.E("find a drive's content", cloudpal.Invalid, errors.New("the drive is closed"))
	}
	o.Encryption = c.options.encryption()
	core, err := c.store.Core(o)
	if err != nil {
		return nil, cloudpal.E("open a drive's content", "", err)
	}
	b := hyperblobs.New(core)
	c.core = core
	c.found.Store(b)
	return b, nil
}

func (c *content) close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.core == nil {
		return nil
	}
	return c.core.Close()
}

// which finds out which core has the content: that which the header names, in
// drives from before manifests, or that whose manifest is made of the
// database's.
func (c *content) which(ctx context.Context) (o corestore.CoreOptions, err error) {
	if !c.db.Writable() || c.db.Length() > 0 {
		h, err := c.bee.Header(ctx)
		if err != nil {
			return o, err
		}
		if h.Metadata != nil && len(h.Metadata.ContentFeed) >= 32 {
			key := manifest.Key(h.Metadata.ContentFeed[:32])
			o.Key = &key
			return o, nil
		}
	}
	m, ok := c.db.Manifest()
	if !ok || c.db.Compat() || m.Version < 1 {
		return o, cloudpal.E("", cloudpal.Invalid, errors.New("neither header nor manifest says which core has it"))
	}
	m = ContentManifest(m, c.db.Key())
	o.Manifest = &m
	if c.db.Writable() {
		o.KeyPair = c.db.KeyPair()
	}
	return o, nil
}

// contentNamespace is hashed into the namespaces of those who sign content
// (SPEC 14).
var contentNamespace = manifest.Namespace("hyperdrive", 0)

// ContentManifest returns the manifest of the core that has the content of a
// drive, whose database has manifest m, of version 1 or later, and key. The
// same key pairs sign both.
func ContentManifest(m manifest.Manifest, key manifest.Key) manifest.Manifest {
	signers := slices.Clone(m.Signers)
	for i, s := range signers {
		signers[i].Namespace = blake2b.Sum256(slices.Concat(contentNamespace[:], key[:], s.Namespace[:]))
	}
	return manifest.Manifest{Version: m.Version, Quorum: m.Quorum, AllowPatch: m.AllowPatch, Signers: signers}
}

// A hold keeps Reclaim from content that is written already, but that no name
// leads to yet.
type hold struct{ from uint64 }

// hold begins to write. What is appended from now on is kept until release.
func (c *content) hold(from uint64) *hold {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.writing == nil {
		c.writing = map[*hold]struct{}{}
	}
	h := &hold{from}
	c.writing[h] = struct{}{}
	return h
}

func (c *content) release(h *hold) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.writing, h)
}

// settled returns up to which block nobody writes.
func (c *content) settled() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	end := c.core.Length()
	for h := range c.writing {
		end = min(end, h.from)
	}
	return end
}

// folderOf returns the folder that a clean name is in, "/" for the root.
func folderOf(name string) string { return max(name[:strings.LastIndexByte(name, '/')], "/") }
