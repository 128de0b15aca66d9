package protomux_test

import (
	"context"
	"fmt"
	"log"
	"net"

	"github.com/tradle/cloudpal/data/protomux"
	"github.com/tradle/cloudpal/data/secretstream"
)

// Two peers over one connection. The first opens a channel for each question;
// the second opens its side when it is asked to.
func Example() {
	here, there := connect()

	there.Pair("upper", func(id []byte) error {
		var ch *protomux.Channel
		ch, err := there.Open(protomux.ChannelOptions{
			Protocol: "upper",
			ID:       append([]byte(nil), id...),
			OnMessage: func(typ uint64, text []byte) error {
				for i, b := range text {
					if 'a' <= b && b <= 'z' {
						text[i] = b - 'a' + 'A'
					}
				}
				return ch.Send(typ, text)
			},
		})
		return err
	})
	go there.Run(context.Background())

	ch, err := here.Open(protomux.ChannelOptions{
		Protocol: "upper",
		ID:       []byte("question 1"),
		OnMessage: func(_ uint64, answer []byte) error {
			fmt.Printf("%s\n", answer)
			return here.Close()
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	// Nothing has to be waited for: the peer gets it behind the opening.
	if err := ch.Send(0, []byte("is anybody "), []byte("there?")); err != nil {
		log.Fatal(err)
	}
	if err := here.Run(context.Background()); err != nil {
		log.Fatal(err)
	}

	// Output:
	// IS ANYBODY THERE?
}

// A protocol that the other side does not know is rejected.
func ExampleMux_Open() {
	here, there := connect()
	go there.Run(context.Background())
	if _, err := here.Open(protomux.ChannelOptions{
		Protocol: "unheard of",
		OnClose: func(reason error) {
			fmt.Println(reason)
			here.Close()
		},
	}); err != nil {
		log.Fatal(err)
	}
	if err := here.Run(context.Background()); err != nil {
		log.Fatal(err)
	}

	// Output:
	// protomux: does not exist: channel rejected by the other side
}

// connect returns two peers that are connected over loopback.
func connect() (a, b *protomux.Mux) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan *protomux.Mux)
	go func() {
		tcp, err := l.Accept()
		if err != nil {
			log.Fatal(err)
		}
		accepted <- mux(tcp, secretstream.Config{})
	}()
	tcp, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	return mux(tcp, secretstream.Config{Initiator: true}), <-accepted
}

func mux(tcp net.Conn, c secretstream.Config) *protomux.Mux {
	conn, err := secretstream.Handshake(context.Background(), tcp, c)
	if err != nil {
		log.Fatal(err)
	}
	return protomux.New(conn)
}
