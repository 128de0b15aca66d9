package hypercore_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"
	"time"

	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/manifest"
	"github.com/tradle/cloudpal/data/merkle"
	"github.com/tradle/cloudpal/data/storage"
)

var ctx = context.Background()

// A log in a folder, closed and opened again by its key.
func Example() {
	dir, err := os.MkdirTemp("", "log")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	store, err := storage.Open(dir, storage.Options{})
	if err != nil {
		log.Fatal(err)
	}
	notes, err := hypercore.Create(store, hypercore.Options{})
	if err != nil {
		log.Fatal(err)
	}
	length, err := notes.Append([]byte("buy milk"), []byte("call ann"))
	if err != nil {
		log.Fatal(err)
	}
	if err := notes.Sync(); err != nil {
		log.Fatal(err)
	}
	fmt.Println(length, "blocks are on disk")
	notes.Close()
	store.Close()

	if store, err = storage.Open(dir, storage.Options{}); err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	if notes, err = hypercore.Open(store, notes.Key(), hypercore.Options{}); err != nil {
		log.Fatal(err)
	}
	defer notes.Close()
	block, err := notes.Get(ctx, 1)
	fmt.Printf("%s %v\n", block, err)
	// Output:
	// 2 blocks are on disk
	// call ann <nil>
}

// memory is a new log in memory, with blocks.
func memory(o hypercore.Options, blocks ...string) *hypercore.Core {
	c, err := hypercore.Create(storage.Memory(), o)
	if err != nil {
		log.Fatal(err)
	}
	for _, b := range blocks {
		if _, err := c.Append([]byte(b)); err != nil {
			log.Fatal(err)
		}
	}
	return c
}

func ExampleCore_Blocks() {
	c := memory(hypercore.Options{}, "a", "b", "c", "d")
	for block, err := range c.Blocks(ctx, hypercore.Range{Start: 1, Reverse: true}) {
		fmt.Printf("%d %s %v\n", block.Index, block.Value, err)
	}
	// Output:
	// 3 d <nil>
	// 2 c <nil>
	// 1 b <nil>
}

// What is not here is waited for, until it comes or the context ends.
func ExampleCore_Get() {
	c := memory(hypercore.Options{}, "first")
	soon, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	_, err := c.Get(soon, 1)
	fmt.Println(err)

	go c.Append([]byte("second"))
	block, err := c.Get(ctx, 1)
	fmt.Printf("%s %v\n", block, err)
	// Output:
	// get block 1: took too long: context deadline exceeded
	// second <nil>
}

// A log as a file: bytes across blocks, in and out.
func ExampleCore_NewReader() {
	c := memory(hypercore.Options{})
	w := c.NewWriter()
	w.BlockSize = 4
	io.WriteString(w, "the quick brown fox")
	w.Close()

	r := c.NewReader(ctx, hypercore.ByteRange{Start: 4, Length: 11})
	defer r.Close()
	text, err := io.ReadAll(r)
	fmt.Printf("%d blocks: %s %v\n", c.Length(), text, err)
	// Output: 5 blocks: quick brown <nil>
}

// A snapshot stays as it is when the log is cut and grows anew.
func ExampleCore_Snapshot() {
	c := memory(hypercore.Options{}, "a", "b", "c")
	old := c.Snapshot()
	defer old.Close()
	c.Truncate(1)
	c.Append([]byte("B"))

	was, _ := old.Get(ctx, 1)
	is, _ := c.Get(ctx, 1)
	fmt.Printf("%s of %d, and %s of %d at fork %d\n", was, old.Length(), is, c.Length(), c.Fork())
	// Output: b of 3, and B of 2 at fork 1
}

func ExampleCore_Truncate() {
	c := memory(hypercore.Options{}, "a", "b", "c")
	if err := c.Truncate(1); err != nil {
		log.Fatal(err)
	}
	fmt.Println(c.Length(), c.Fork())
	// Output: 1 1
}

// Without the encryption key there are the same blocks, checked, and sealed.
func ExampleEncryption() {
	secret := hypercore.Encryption{Key: [32]byte{1, 2, 3}}
	c := memory(hypercore.Options{Encryption: &secret}, "for my eyes only")
	sealed := c.Session(hypercore.SessionOptions{Stored: true})
	defer sealed.Close()

	block, _ := c.Get(ctx, 0)
	stored, _ := sealed.Get(ctx, 0)
	fmt.Printf("%s, of %d bytes; %d as they are stored\n", block, c.ByteLength(), len(stored))
	// Output: for my eyes only, of 16 bytes; 24 as they are stored
}

// What package protocol does for two peers: the one proves what the other asks
// for, and that one checks it against the key.
func ExampleCore_Prove() {
	writer := memory(hypercore.Options{}, "hello", "world")
	reader, err := hypercore.Open(storage.Memory(), writer.Key(), hypercore.Options{})
	if err != nil {
		log.Fatal(err)
	}
	proof, err := writer.Prove(merkle.Request{
		Manifest: true,
		Upgrade:  &merkle.UpgradeRequest{Start: 0, Length: 2},
		Block:    &merkle.NodeRequest{Index: 1},
	})
	if err != nil {
		log.Fatal(err)
	}
	_, err = reader.Apply(proof)
	block, _ := reader.Local(1)
	fmt.Printf("%v: %d blocks, the second is %s\n", err, reader.Length(), block)

	proof, _ = writer.Prove(merkle.Request{Block: &merkle.NodeRequest{Index: 0}})
	proof.Block.Value = []byte("HELLO")
	_, err = reader.Apply(proof)
	fmt.Println(err)
	// Output:
	// <nil>: 2 blocks, the second is world
	// verify a proof: not valid: its hashes do not match: at node 0
}

// Of three signers two must sign what is appended.
func ExampleCore_AppendSigned() {
	pairs := []manifest.KeyPair{manifest.GenerateKeyPair(), manifest.GenerateKeyPair(), manifest.GenerateKeyPair()}
	m := manifest.New(
		manifest.Signer{PublicKey: pairs[0].Public},
		manifest.Signer{PublicKey: pairs[1].Public},
		manifest.Signer{PublicKey: pairs[2].Public},
	)
	c := memory(hypercore.Options{Manifest: &m})
	block := []byte("agreed")
	draft, err := c.Draft(block)
	if err != nil {
		log.Fatal(err)
	}
	first, _ := m.Partial(c.Key(), pairs[0], draft) // each where its key pair is
	third, _ := m.Partial(c.Key(), pairs[2], draft)

	_, err = m.Assemble(first)
	fmt.Println(err)
	both, _ := m.Assemble(first, third)
	length, err := c.AppendSigned(both, block)
	fmt.Println(length, err)
	// Output:
	// join signatures: not valid: 1 of 2 signers have signed
	// 1 <nil>
}

func ExampleCore_Watch() {
	c := memory(hypercore.Options{})
	stop := c.Watch(func(e hypercore.Event) {
		if e.Kind.Has(hypercore.Appended) {
			fmt.Printf("blocks %d to %d\n", e.Start, e.End)
		}
	})
	c.Append([]byte("a"), []byte("b"))
	stop()
	c.Append([]byte("c"))
	// Output: blocks 0 to 2
}

func ExampleCore_Audit() {
	c := memory(hypercore.Options{}, "a", "b", "c")
	c.Clear(1, 2)
	audit, err := c.Audit(ctx, nil)
	fmt.Println(audit.Good(), audit.Blocks, audit.Length, err)
	// Output: true 2 3 <nil>
}
