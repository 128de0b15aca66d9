package hypercore

import (
	"crypto/rand"
	"errors"
	"sync"
	"sync/atomic"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/manifest"
	"github.com/tradle/cloudpal/data/merkle"
	"github.com/tradle/cloudpal/data/storage"
)

// MaxBlock is the largest block that can be appended: 15 MiB, as in JavaScript.
const MaxBlock = 15 << 20

// Options say what a core is, or how it is opened.
type Options struct {
	// KeyPair signs what is appended. Where Create is given none, and no
	// manifest, it makes one and keeps its seed in the store; one that is
	// given is not kept there, and must be given to Open again.
	KeyPair *manifest.KeyPair

	// Manifest says whose signatures a core must bear. Nil is the default one
	// of KeyPair.
	Manifest *manifest.Manifest

	// Compat makes, or opens, a core as they were before manifests: its key is
	// its signer's public key. A reader need not know.
	Compat bool

	// Encryption encrypts blocks with a key that peers need not have.
	Encryption *Encryption

	// OnClose is called once, when the session is closed.
	OnClose func()
}

// A Core is a session on a hypercore. All methods may be used at the same time,
// by many goroutines, and many sessions may be open on one core. Close each.
type Core struct {
	log     *log
	pair    *manifest.KeyPair // nil where this session cannot sign
	cipher  *cipher           // nil where blocks are not encrypted, or stay so
	snap    *snapshot         // nil where the session is live
	options Options
	closed  atomic.Bool
	release func()
}

// A log is what all sessions on a core in one process share.
type log struct {
	store     *storage.Store
	core      *storage.Core
	key       manifest.Key
	discovery [32]byte
	compat    bool

	// Copies of what mu guards, for those who only look.
	length     atomic.Uint64
	bytes      atomic.Uint64
	fork       atomic.Uint64
	contiguous atomic.Uint64

	mu       sync.RWMutex
	identity storage.Identity
	manifest *manifest.Manifest // nil where it is not known yet
	head     merkle.Head
	bits     bitfield
	tree     merkle.Batch   // grown from head by the writer, and used again
	batch    *storage.Batch // likewise
	snaps    map[*snapshot]struct{}

	waiting waiters
	events  events
}

// Create makes a core in a store. Its key is that of its manifest. It fails with
// Exist where the store has the core. What it made is on disk after a Sync.
func Create(s *storage.Store, o Options) (*Core, error) {
	id, err := identify(&o)
	if err != nil {
		return nil, cloudpal.E("create a core", cloudpal.Invalid, err)
	}
	key := manifest.Key(id.Key)
	if _, err := s.Create(key.DiscoveryKey(), id); err != nil {
		return nil, cloudpal.E("create core "+key.String(), "", err)
	}
	return Open(s, key, o)
}

// identify makes what is kept of a new core, and fills in what o leaves open.
func identify(o *Options) (id storage.Identity, err error) {
	if o.KeyPair == nil && o.Manifest == nil {
		var seed [32]byte
		rand.Read(seed[:])
		pair := manifest.NewKeyPair(seed)
		o.KeyPair, id.Seed = &pair, seed[:]
	}
	if o.Manifest == nil {
		m := manifest.Default(o.KeyPair.Public)
		o.Manifest = &m
	}
	if o.Compat {
		if len(o.Manifest.Signers) != 1 {
			return id, errors.New("a core from before manifests has one signer")
		}
		id.Compat = true
		id.Key = o.Manifest.Signers[0].PublicKey
		return id, nil
	}
	if err := o.Manifest.Check(); err != nil {
		return id, err
	}
	id.Manifest = o.Manifest.Append(nil)
	id.Key = o.Manifest.Key()
	return id, nil
}

// Open opens a core by its key. A store that does not have it gets an empty
// one, to be filled from peers.
func Open(s *storage.Store, key manifest.Key, o Options) (*Core, error) {
	d := key.DiscoveryKey()
	v, release, err := s.Share(d, func() (any, error) { return open(s, d, &key, o) })
	if err != nil {
		return nil, cloudpal.E("open core "+key.String(), "", err)
	}
	return newSession(v.(*log), o, release)
}

// OpenStored opens a core by its discovery key, or fails with NotExist where
// the store does not have it.
func OpenStored(s *storage.Store, discovery [32]byte, o Options) (*Core, error) {
	v, release, err := s.Share(discovery, func() (any, error) { return open(s, discovery, nil, o) })
	if err != nil {
		return nil, cloudpal.E("open a stored core", "", err)
	}
	return newSession(v.(*log), o, release)
}

// open reads a log, and makes it where the store does not have it but the key is
// known.
func open(s *storage.Store, d [32]byte, key *manifest.Key, o Options) (*log, error) {
	core, err := s.Core(d)
	if errors.Is(err, cloudpal.NotExist) && key != nil {
		core, err = s.Create(d, storage.Identity{Key: *key, Compat: o.Compat})
		if errors.Is(err, cloudpal.Exist) { // by another, just now
			core, err = s.Core(d)
		}
	}
	if err != nil {
		return nil, err
	}
	return load(s, core, d)
}

// load reads where a log stands.
func load(s *storage.Store, core *storage.Core, d [32]byte) (*log, error) {
	id, err := core.Identity()
	if err != nil {
		return nil, err
	}
	l := &log{store: s, core: core, key: id.Key, discovery: d, snaps: map[*snapshot]struct{}{}}
	l.bits.core = core
	if err := l.identifyAs(id); err != nil {
		return nil, err
	}
	if err := l.restore(); err != nil {
		return nil, err
	}
	l.events.log = l
	return l, nil
}

// identifyAs takes what is known of the core.
func (l *log) identifyAs(id storage.Identity) error {
	var m *manifest.Manifest
	switch {
	case id.Compat:
		standard := manifest.Default(id.Key)
		m = &standard
	case id.Manifest != nil:
		decoded, err := manifest.Decode(id.Manifest)
		if err != nil {
			return cloudpal.E("read the manifest", cloudpal.Corrupt, err)
		}
		m = &decoded
	}
	l.identity, l.compat, l.manifest = id, id.Compat, m
	return nil
}

// restore makes the log in memory what the one in the store is. A writer that
// failed calls it, too.
func (l *log) restore() error {
	h := l.core.Head()
	roots, err := merkle.Roots(l.core, h.Length)
	if err != nil {
		return cloudpal.E("read the roots of the tree", cloudpal.Corrupt, err)
	}
	l.bits.reset(h.Contiguous)
	l.settle(merkle.Head{Fork: h.Fork, Length: h.Length, Roots: roots, Signature: h.Signature})
	return nil
}

// settle makes head the log's.
func (l *log) settle(h merkle.Head) {
	h.Prologue = l.prologue()
	l.head = h
	l.tree.Reset(h)
	l.length.Store(h.Length)
	l.bytes.Store(h.Bytes())
	l.fork.Store(h.Fork)
	l.contiguous.Store(l.bits.contiguous)
}

func (l *log) prologue() *merkle.Prologue {
	if l.manifest == nil {
		return nil
	}
	return l.manifest.Prologue
}

// newSession makes a session of its own.
func newSession(l *log, o Options, release func()) (*Core, error) {
	c := &Core{log: l, options: o, release: release, pair: o.KeyPair}
	l.mu.RLock()
	defer l.mu.RUnlock()
	if c.pair == nil && l.identity.Seed != nil {
		pair := manifest.NewKeyPair([32]byte(l.identity.Seed))
		c.pair = &pair
	}
	if o.Encryption != nil {
		c.cipher = newCipher(*o.Encryption, l.key, l.compat)
	}
	return c, nil
}

// Close ends the session. What it appended stays, whether synced or not; what
// waits in it is not told: end its context.
func (c *Core) Close() error {
	if c.closed.Swap(true) {
		return nil
	}
	if c.snap != nil {
		c.log.dropSnapshot(c.snap)
	}
	c.release()
	if c.options.OnClose != nil {
		c.options.OnClose()
	}
	return nil
}

var errSessionClosed = errors.New("the session is closed")

func (c *Core) check(op string) error {
	if c.closed.Load() {
		return cloudpal.E(op, cloudpal.Invalid, errSessionClosed)
	}
	return nil
}

// Key returns the core's public key: who has it can read from peers, and check
// what they send.
func (c *Core) Key() manifest.Key { return c.log.key }

// DiscoveryKey returns what peers find each other by: a hash of the key, which
// does not reveal it.
func (c *Core) DiscoveryKey() [32]byte { return c.log.discovery }

// Manifest returns whose signatures the core bears; ok is false for a reader
// that has not heard from a peer yet.
func (c *Core) Manifest() (m manifest.Manifest, ok bool) {
	c.log.mu.RLock()
	defer c.log.mu.RUnlock()
	if c.log.manifest == nil {
		return m, false
	}
	return *c.log.manifest, true
}

// Compat reports whether the core is one from before manifests.
func (c *Core) Compat() bool {
	c.log.mu.RLock()
	defer c.log.mu.RUnlock()
	return c.log.compat
}

// Writable reports whether this session can append without a signature from
// elsewhere.
func (c *Core) Writable() bool {
	c.log.mu.RLock()
	defer c.log.mu.RUnlock()
	return c.snap == nil && c.log.signs(c.pair)
}

// signs reports whether a key pair's signature is all that the manifest asks
// for.
func (l *log) signs(pair *manifest.KeyPair) bool {
	return pair != nil && l.manifest != nil && len(l.manifest.Signers) == 1 && l.manifest.Quorum == 1 &&
		l.manifest.Signers[0].PublicKey == pair.Public
}

// Length returns the number of blocks of the log, whether here or not.
func (c *Core) Length() uint64 {
	if c.snap != nil {
		return c.snap.head.Length
	}
	return c.log.length.Load()
}

// ByteLength returns the bytes of all blocks, as Get returns them.
func (c *Core) ByteLength() uint64 {
	bytes, length := c.log.bytes.Load(), c.log.length.Load()
	if c.snap != nil {
		bytes, length = c.snap.head.Bytes(), c.snap.head.Length
	}
	return bytes - c.padding()*length
}

// Fork returns how often the log was truncated, or what was given for it.
func (c *Core) Fork() uint64 {
	if c.snap != nil {
		return c.snap.head.Fork
	}
	return c.log.fork.Load()
}

// Contiguous returns how many blocks are here from the first on without a gap.
func (c *Core) Contiguous() uint64 {
	return min(c.log.contiguous.Load(), c.Length())
}

// Head returns where the log stands: what is signed, and the signature.
func (c *Core) Head() merkle.Head {
	if c.snap != nil {
		return c.snap.head
	}
	c.log.mu.RLock()
	defer c.log.mu.RUnlock()
	return c.log.head
}

// TreeHash returns the hash over the roots of the tree, which is what is
// signed.
func (c *Core) TreeHash() merkle.Hash { return c.Head().Hash() }

// Signature returns the signature over the log as it is; nil where it is empty
// and never was signed.
func (c *Core) Signature() []byte { return c.Head().Signature }

// State is what a replicator asks all the time.
type State struct {
	Fork, Length uint64
	Bytes        uint64 // as stored, with the padding of encryption
	Contiguous   uint64
	HasManifest  bool
	Compat       bool
}

// State returns where the log stands, without reading from disk.
func (c *Core) State() State {
	l := c.log
	l.mu.RLock()
	defer l.mu.RUnlock()
	return State{l.head.Fork, l.head.Length, l.bytes.Load(), l.bits.contiguous, l.identity.Manifest != nil, l.compat}
}

// Sync returns when all that was appended before, to any core of the store, is
// on disk: it survives kill -9 and a loss of power. Those who wait at the same
// time share one sync.
func (c *Core) Sync() error { return c.log.store.Sync() }

// Store returns the store that the core is in.
func (c *Core) Store() *storage.Store { return c.log.store }

// KeyPair returns what the session signs with, or nil.
func (c *Core) KeyPair() *manifest.KeyPair { return c.pair }
