package storage_test

import (
	"fmt"
	"log"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tradle/cloudpal/data/storage"
)

// What package hypercore does with a store: all that belongs together goes into
// one batch, and one sync brings it to disk.
func Example() {
	fs := vfs.NewMem() // nil is the machine's own
	store, err := storage.Open("data", storage.Options{FS: fs})
	if err != nil {
		log.Fatal(err)
	}
	discovery := [32]byte{1}
	core, err := store.Create(discovery, storage.Identity{Key: [32]byte{2}})
	if err != nil {
		log.Fatal(err)
	}
	b := store.Begin()
	defer b.Close()
	copy(b.Block(core, 0, 5), "hello")
	b.SetHead(core, storage.Head{Length: 1, Bytes: 5, Contiguous: 1})
	b.SetUserData(core, "title", []byte("notes"))
	if err := b.Commit(); err != nil {
		log.Fatal(err)
	}
	if err := store.Close(); err != nil { // which syncs
		log.Fatal(err)
	}

	store, err = storage.Open("data", storage.Options{FS: fs, ReadOnly: true})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	core, err = store.Core(discovery)
	if err != nil {
		log.Fatal(err)
	}
	block, _ := core.AppendBlock(nil, 0)
	title, _ := core.UserData("title")
	fmt.Printf("%d block of %s: %s\n", core.Head().Length, title, block)
	// Output: 1 block of notes: hello
}
