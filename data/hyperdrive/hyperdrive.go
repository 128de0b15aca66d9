// Package hyperdrive is a file system in two hypercores, in the format of the
// JavaScript hyperdrive 13: a hyperbee has the names, and what is known of each
// file; a log of hyperblobs has the content.
//
//	drive, err := hyperdrive.New(store, hyperdrive.Options{})
//	err = drive.Put(ctx, "/photos/cat.jpg", picture)
//	picture, err = drive.Get(ctx, "/photos/cat.jpg")
//	for entry, err := range drive.List(ctx, "/photos") { ... }
//
// Who has a drive's key can read it, from whichever peer has the blocks, and
// check that they are the writer's:
//
//	theirs, err := hyperdrive.Open(store, key, hyperdrive.Options{})
//	picture, err := theirs.Get(ctx, "/photos/cat.jpg") // fetches what this needs
//
// Only what is read is fetched; Download fetches more. Reading waits for peers
// until its context ends, so give it one that does. What a drive has was
// written by somebody else: names that lead out of a drive, entries that make no
// sense, content that is not as long as it is said to be are errors, never
// surprises.
//
// # Names
//
// Names begin with / and have parts divided by it; whatever else a caller
// writes is made into that by Resolve, as the original does. Folders are not
// kept: there is one where there is a file below it. A symbolic link has a
// name, of which at most 16 are followed. A file may be executable and have any
// JSON as metadata.
//
// # Versions
//
// Every change makes a version, whose number is the length of the database's
// log. Checkout reads an old one, Diff compares two, and Watch waits for the
// next. A Batch, and each step of a Mirror, makes one version of many changes.
// Reclaim frees the room of content that only old versions have; Truncate goes
// back to an old version for good.
//
// # Crashes
//
// Content is written before the name that leads to it, into one database with
// one log of its own. So a power cut leaves a file as it was, or as it was to
// be. A change is safe from one when Sync has returned; Mirror syncs by itself.
//
// # For other programs
//
// FS makes a drive a file system of package io/fs; package dav below this
// one serves it to the file managers of phones and laptops; Mirror makes a
// folder equal to a drive or a drive to a folder.
package hyperdrive

import (
	"context"
	"errors"
	"iter"
	"strings"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/corestore"
	"github.com/tradle/cloudpal/data/hyperbee"
	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/manifest"
)

// Options are how to open a drive. The zero value is good for one that is not
// encrypted.
type Options struct {
	// EncryptionKey encrypts names and content, for peers who have the drive's
	// key to keep and pass on without reading. Nil leaves them as they are.
	EncryptionKey *[32]byte
	// CacheBytes bounds the memory for the database's tree; 0 is 16 MiB.
	CacheBytes int64
}

func (o Options) encryption() *hypercore.Encryption {
	if o.EncryptionKey == nil {
		return nil
	}
	return &hypercore.Encryption{Key: *o.EncryptionKey}
}

// A Drive is a file system, as it is now or as it was at a version. Its methods
// may be called by many goroutines at once.
type Drive struct {
	db      *hypercore.Core
	bee     *hyperbee.Bee // of db
	files   *hyperbee.Bee // the part of bee that has names as keys
	content *content
	old     bool   // a checkout
	unhint  func() // of a drive
}

// database is the name of a drive's database in its namespace of a store.
const database = "db"

// New opens the drive of a view of a store, which is ours, and makes it the
// first time. A store that has more than one drive has each in a namespace of
// its own.
func New(store *corestore.Store, o Options) (*Drive, error) {
	db, err := store.Core(corestore.CoreOptions{Name: database, Encryption: o.encryption()})
	if err != nil {
		return nil, cloudpal.E("open a drive", "", err)
	}
	return newDrive(store, db, o), nil
}

// Open opens a drive by its key. One that is not stored is empty until a peer has
// told of it, which Content waits for, and later Update asks for.
func Open(store *corestore.Store, key manifest.Key, o Options) (*Drive, error) {
	db, err := store.Core(corestore.CoreOptions{Key: &key, Encryption: o.encryption()})
	if err != nil {
		return nil, cloudpal.E("open a drive", "", err)
	}
	return newDrive(store, db, o), nil
}

func newDrive(store *corestore.Store, db *hypercore.Core, o Options) *Drive {
	bee := hyperbee.New(db, hyperbee.Options{
		Metadata:   &hyperbee.Metadata{}, // there and empty, as the original has it
		ReadOnly:   !db.Writable(),
		CacheBytes: o.CacheBytes,
	})
	d := &Drive{
		db: db, bee: bee, files: bee.Sub("files"), unhint: func() {},
		content: &content{store: store, options: o, db: db, bee: bee, turn: make(chan struct{}, 1)},
	}
	if r, ok := store.Replicator(db); ok {
		d.unhint = bee.ShareHints(r)
	}
	return d
}

// Close ends the use of a drive or a checkout. Checkouts are of no use after
// their drive is closed.
func (d *Drive) Close() error {
	if d.old {
		d.bee.Close()
		return nil
	}
	d.unhint()
	return errors.Join(d.content.close(), d.db.Close())
}

// Key returns the drive's key. Who has it can read the drive and pass it on.
func (d *Drive) Key() manifest.Key { return d.db.Key() }

// DiscoveryKey returns what peers find each other by.
func (d *Drive) DiscoveryKey() [32]byte { return d.db.DiscoveryKey() }

// Writable tells whether this drive can be changed here.
func (d *Drive) Writable() bool { return !d.old && d.db.Writable() }

// Version returns the number of this version, from 1 for a drive that never
// had anything.
func (d *Drive) Version() uint64 { return d.bee.Version() }

// Database returns the core that has the names.
func (d *Drive) Database() *hypercore.Core { return d.db }

// Content returns the core that has the content, for which a reader has to
// have heard of a peer: until ctx ends it waits for one.
func (d *Drive) Content(ctx context.Context) (*hypercore.Core, error) {
	if _, err := d.content.blobs(ctx); err != nil {
		return nil, err
	}
	return d.content.core, nil
}

// Sync returns when all changes before are on disk.
func (d *Drive) Sync() error { return d.db.Sync() }

// Update asks the peers that are connected whether there is a later version.
func (d *Drive) Update(ctx context.Context) (bool, error) { return d.db.Update(ctx) }

// Checkout returns the drive as it was at a version. Versions within a batch
// are none. It reads content as long as it is here or with a peer. Close it.
func (d *Drive) Checkout(version uint64) *Drive { return d.at(d.bee.Checkout(version)) }

// Snapshot returns the drive as it is now. Close it.
func (d *Drive) Snapshot() *Drive { return d.at(d.bee.Snapshot()) }

func (d *Drive) at(bee *hyperbee.Bee) *Drive {
	return &Drive{db: d.db, bee: bee, files: bee.Sub("files"), content: d.content, old: true}
}

// Entry returns what is known of a name; links are not followed.
func (d *Drive) Entry(ctx context.Context, name string) (Entry, error) {
	clean, err := cleanName(name)
	if err != nil {
		return Entry{}, err
	}
	return d.entry(ctx, clean)
}

func (d *Drive) entry(ctx context.Context, clean string) (Entry, error) {
	found, err := d.files.Get(ctx, []byte(clean))
	if err != nil {
		return Entry{}, cloudpal.E("look up a name", "", err)
	}
	return newEntry(found)
}

func newEntry(found hyperbee.Entry) (Entry, error) {
	e := Entry{Name: string(found.Key), Seq: found.Seq}
	return e, decodeEntry(found.Value, &e)
}

// Exists tells whether there is an entry of that name.
func (d *Drive) Exists(ctx context.Context, name string) (bool, error) {
	_, err := d.Entry(ctx, name)
	if errors.Is(err, cloudpal.NotExist) {
		return false, nil
	}
	return err == nil, err
}

// maxHops is how many links are followed, as the original does.
const maxHops = 16

// Follow returns the entry to which a name leads, which is no link.
//
// A link's name is seen from the folder that the link is in, as in all file
// systems, and in the folder that a mirror makes of a drive. The original sees
// it from the link itself, as if that were a folder; where there is nothing at
// the one name, the other counts. They differ only for names that do not begin
// with a slash.
func (d *Drive) Follow(ctx context.Context, name string) (Entry, error) {
	e, err := d.Entry(ctx, name)
	for range maxHops - 1 {
		if err != nil || !e.IsLink() {
			return e, err
		}
		e, err = d.hop(ctx, e)
	}
	if err == nil && e.IsLink() {
		return Entry{}, errTooManyLinks
	}
	return e, err
}

var errTooManyLinks = cloudpal.E("follow a link", cloudpal.Invalid, errors.New("it leads to a link that leads to a link, 16 times"))

// hop follows one link.
func (d *Drive) hop(ctx context.Context, link Entry) (Entry, error) {
	next, err := d.from(ctx, folderOf(link.Name), link.Linkname)
	if errors.Is(err, cloudpal.NotExist) || errors.Is(err, cloudpal.Invalid) {
		if other, err := d.from(ctx, link.Name, link.Linkname); err == nil {
			return other, nil
		}
	}
	return next, err
}

func (d *Drive) from(ctx context.Context, base, name string) (Entry, error) {
	to, err := Resolve(base, name)
	if err != nil {
		return Entry{}, err
	}
	return d.Entry(ctx, to)
}

// List yields the entries below a folder, at any depth, ordered by the bytes
// of their names. It lists one version, whatever is changed meanwhile.
func (d *Drive) List(ctx context.Context, folder string) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		clean, err := cleanFolder(folder)
		if err != nil {
			yield(Entry{}, err)
			return
		}
		d.list(ctx, below(clean), yield)
	}
}

// below returns the range of names below a folder: '0' comes after '/'.
func below(folder string) hyperbee.Range {
	return hyperbee.Range{GT: []byte(folder + "/"), LT: []byte(folder + "0")}
}

func (d *Drive) list(ctx context.Context, r hyperbee.Range, yield func(Entry, error) bool) {
	for found, err := range d.files.Range(ctx, r) {
		if err != nil {
			yield(Entry{}, cloudpal.E("list a folder", "", err))
			return
		}
		if !isClean(string(found.Key)) {
			continue
		}
		e, err := newEntry(found)
		if !yield(e, err) || err != nil {
			return
		}
	}
}

// A Child is what a folder has: a file, a link, or a folder with files below.
type Child struct {
	Name   string // the last part of its name
	Folder bool
	Entry  Entry // of a file or a link
}

// ReadDir yields what a folder has, each once, ordered by name as if a
// folder's ended with a slash. It passes over what is below the folders in it
// without reading it. Where a name is both a file's and a folder's, which no
// other file system allows, it is the file's.
func (d *Drive) ReadDir(ctx context.Context, folder string) iter.Seq2[Child, error] {
	return func(yield func(Child, error) bool) {
		clean, err := cleanFolder(folder)
		if err != nil {
			yield(Child{}, err)
			return
		}
		s := d.Snapshot()
		defer s.Close()
		s.readDir(ctx, clean, yield)
	}
}

func (d *Drive) readDir(ctx context.Context, folder string, yield func(Child, error) bool) {
	files := map[string]bool{} // that a folder of the same name may follow
	r, more := below(folder), true
	for more {
		more = false
		d.list(ctx, r, func(e Entry, err error) bool {
			if err != nil {
				return yield(Child{}, err)
			}
			name, _, deeper := strings.Cut(e.Name[len(folder)+1:], "/")
			if !deeper {
				files[name] = true
				return yield(Child{Name: name, Entry: e}, nil)
			}
			if files[name] || yield(Child{Name: name, Folder: true}, nil) {
				// List on from behind it. The original leaves out a file whose
				// name is a folder's with a 0 behind; it is here.
				r, more = hyperbee.Range{GTE: []byte(folder + "/" + name + "0"), LT: r.LT}, true
			}
			return false
		})
	}
}
