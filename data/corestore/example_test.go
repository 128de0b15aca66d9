package corestore_test

import (
	"context"
	"fmt"
	"net"

	"github.com/tradle/cloudpal/data/corestore"
)

// Two stores, one connection: what one appends the other reads, and checks.
func Example() {
	ann, bob := corestore.Memory(), corestore.Memory()
	defer ann.Close()
	defer bob.Close()

	notes, err := ann.Get("notes") // made the first time
	if err != nil {
		panic(err)
	}
	notes.Append([]byte("buy milk"))

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	here, there := net.Pipe()
	go ann.Replicate(ctx, here, corestore.ReplicateOptions{Initiator: true})
	go bob.Replicate(ctx, there, corestore.ReplicateOptions{})

	theirs, err := bob.GetKey(notes.Key())
	if err != nil {
		panic(err)
	}
	block, err := theirs.Get(ctx, 0) // fetched from ann
	fmt.Printf("%s %v\n", block, err)
	// Output: buy milk <nil>
}
