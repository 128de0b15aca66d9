package secretstream_test

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"io"
	"log"
	"net"

	"github.com/tradle/cloudpal/data/secretstream"
)

// A server that talks to everybody, and says who they are.
func Example() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer listener.Close()
	serverPublic, serverKey, err := ed25519.GenerateKey(nil)
	if err != nil {
		log.Fatal(err)
	}
	go serve(listener, serverKey)

	// The client knows the server's key, and talks to nobody else.
	tcp, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	conn, err := secretstream.Handshake(context.Background(), tcp, secretstream.Config{
		Initiator: true,
		Key:       ed25519.NewKeyFromSeed([]byte("the client's seed, of 32 bytes..")),
		Remote:    (*[32]byte)(serverPublic),
	})
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	for range 2 {
		message, err := conn.ReadMessage()
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s\n", message)
	}

	// Output:
	// hello, you are 53ffb879
	// good bye
}

func serve(listener net.Listener, key ed25519.PrivateKey) {
	tcp, err := listener.Accept()
	if err != nil {
		return
	}
	conn, err := secretstream.Handshake(context.Background(), tcp, secretstream.Config{Key: key})
	if err != nil {
		return
	}
	defer conn.Close()
	remote := conn.RemoteKey()
	conn.QueueMessage(fmt.Appendf(nil, "hello, you are %x", remote[:4]))
	conn.WriteMessage([]byte("good bye")) // both leave in one write
	conn.ReadMessage()                    // until the client is gone
}

// A connection whose borders of messages do not matter, as a stream.
func ExampleConn_Stream() {
	a, b := net.Pipe()
	go func() {
		conn, err := secretstream.Handshake(context.Background(), a, secretstream.Config{Initiator: true})
		if err != nil {
			log.Fatal(err)
		}
		go conn.ReadMessage() // takes what the peer begins with off the pipe, which holds nothing
		s := conn.Stream()
		fmt.Fprint(s, "to be read ")
		fmt.Fprint(s, "at once")
	}()
	conn, err := secretstream.Handshake(context.Background(), b, secretstream.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer conn.Close()
	text := make([]byte, 18)
	if _, err := io.ReadFull(conn.Stream(), text); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s\n", text)

	// Output:
	// to be read at once
}
