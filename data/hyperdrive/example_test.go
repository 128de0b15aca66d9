package hyperdrive_test

import (
	"context"
	"fmt"
	"io/fs"
	"net"
	"os"

	"github.com/tradle/cloudpal/data/corestore"
	"github.com/tradle/cloudpal/data/hyperdrive"
)

var ctx = context.Background()

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// A drive is written, read, and looked at as it was before.
func Example() {
	store := corestore.Memory() // or corestore.Open("folder", corestore.Options{})
	defer store.Close()
	drive, err := hyperdrive.New(store, hyperdrive.Options{})
	check(err)
	defer drive.Close()

	check(drive.Put(ctx, "/notes/monday.txt", []byte("rain"), hyperdrive.Attr{}))
	version := drive.Version()
	check(drive.Put(ctx, "/notes/monday.txt", []byte("sun"), hyperdrive.Attr{}))
	check(drive.Symlink(ctx, "/today", "notes/monday.txt"))
	check(drive.Sync()) // from here on a power cut loses nothing

	now, err := drive.Get(ctx, "/today")
	check(err)
	old := drive.Checkout(version)
	defer old.Close()
	before, err := old.Get(ctx, "/notes/monday.txt")
	check(err)
	fmt.Printf("%s, before: %s\n", now, before)

	for change, err := range drive.Diff(ctx, version, "/") {
		check(err)
		fmt.Println(change.Name, "is new:", change.Before == nil)
	}
	// Output:
	// sun, before: rain
	// /notes/monday.txt is new: false
	// /today is new: true
}

// Somebody else reads a drive whose key they were given.
func ExampleOpen() {
	ann, bob := corestore.Memory(), corestore.Memory()
	defer ann.Close()
	defer bob.Close()
	drive, err := hyperdrive.New(ann, hyperdrive.Options{})
	check(err)
	check(drive.Put(ctx, "/cat.jpg", []byte("meow"), hyperdrive.Attr{}))

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	here, there := net.Pipe()
	go ann.Replicate(ctx, here, corestore.ReplicateOptions{Initiator: true})
	go bob.Replicate(ctx, there, corestore.ReplicateOptions{})

	theirs, err := hyperdrive.Open(bob, drive.Key(), hyperdrive.Options{})
	check(err)
	_, err = theirs.Content(ctx) // returns once a peer has told where the content is
	check(err)
	cat, err := theirs.Get(ctx, "/cat.jpg")
	fmt.Printf("%s %v\n", cat, err)
	// Output: meow <nil>
}

// A folder goes into a drive, and out of it again.
func ExampleMirror() {
	dir, err := os.MkdirTemp("", "example")
	check(err)
	defer os.RemoveAll(dir)
	check(os.WriteFile(dir+"/a.txt", []byte("a"), 0o666))
	check(os.WriteFile(dir+"/b.txt", []byte("b"), 0o666))

	store := corestore.Memory()
	defer store.Close()
	drive, err := hyperdrive.New(store, hyperdrive.Options{})
	check(err)
	folder, err := hyperdrive.OpenFolder(dir)
	check(err)
	defer folder.Close()

	done, err := hyperdrive.Mirror(ctx, folder, drive, hyperdrive.MirrorOptions{})
	fmt.Println(done.Added, "added", err)

	check(drive.Put(ctx, "/b.txt", []byte("changed"), hyperdrive.Attr{}))
	check(drive.Delete(ctx, "/a.txt"))
	_, err = hyperdrive.Mirror(ctx, drive, folder, hyperdrive.MirrorOptions{
		Progress: func(e hyperdrive.Event) { fmt.Println(e.Op, e.Name, e.BytesAdded) },
	})
	check(err)
	// Output:
	// 2 added <nil>
	// remove /a.txt 0
	// change /b.txt 7
}

// Whatever reads an fs.FS reads a drive.
func ExampleDrive_FS() {
	store := corestore.Memory()
	defer store.Close()
	drive, err := hyperdrive.New(store, hyperdrive.Options{})
	check(err)
	check(drive.Put(ctx, "/site/index.html", []byte("<h1>hello</h1>"), hyperdrive.Attr{}))

	matches, err := fs.Glob(drive.FS(ctx), "site/*.html")
	fmt.Println(matches, err)
	// Output: [site/index.html] <nil>
}
