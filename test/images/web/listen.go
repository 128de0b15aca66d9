package main

import (
	"bufio"
	"context"
	"fmt"
	"log"
	"net"
	"strconv"
	"sync/atomic"
	"syscall"
)

var came, late atomic.Int64

// listen opens the ports beside that of the pages.
func listen() (net.Listener, net.PacketConn) {
	lines, err := net.Listen("tcp", ":7070")
	if err != nil {
		log.Fatal(err)
	}
	// Room for what comes all at once after a nap: what is lost must not be
	// lost here.
	roomy := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) {
			syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUFFORCE, 16<<20)
		})
	}}
	packets, err := roomy.ListenPacket(context.Background(), "udp", ":9090")
	if err != nil {
		log.Fatal(err)
	}
	return lines, packets
}

// datagrams counts numbered datagrams, and those that came after a later one.
func datagrams(conn net.PacketConn) {
	buf := make([]byte, 2048)
	for next := 0; ; {
		n, _, err := conn.ReadFrom(buf)
		if err != nil {
			log.Fatal(err)
		}
		i, _ := strconv.Atoi(string(buf[:n]))
		if i < next {
			late.Add(1)
		}
		next = max(next, i+1)
		came.Add(1)
	}
}

// echo answers each line with the same line.
func echo(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go func() {
			defer conn.Close()
			for s := bufio.NewScanner(conn); s.Scan(); {
				fmt.Fprintln(conn, s.Text())
			}
		}()
	}
}
