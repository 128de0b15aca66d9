package protocol_test

import (
	"context"
	"fmt"
	"log"
	"net"

	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/protocol"
	"github.com/tradle/cloudpal/data/storage"
)

// One core over one connection.
func ExampleReplicate() {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()

	mine, yours := storage.Memory(), storage.Memory()
	defer mine.Close()
	defer yours.Close()
	writer, err := hypercore.Create(mine, hypercore.Options{})
	if err != nil {
		log.Fatal(err)
	}
	writer.Append([]byte("hello"), []byte("world"))
	reader, err := hypercore.Open(yours, writer.Key(), hypercore.Options{})
	if err != nil {
		log.Fatal(err)
	}

	a, b := net.Pipe()
	go protocol.Replicate(ctx, a, true, writer, protocol.Options{})
	go protocol.Replicate(ctx, b, false, reader, protocol.Options{})

	block, err := reader.Get(ctx, 1)
	fmt.Printf("%s %v\n", block, err)
	// Output: world <nil>
}
