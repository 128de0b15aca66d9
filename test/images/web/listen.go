package main

import (
	"bufio"
	"fmt"
	"log"
	"net"
	"strconv"
	"sync/atomic"
)

var came, late atomic.Int64

// datagrams counts numbered datagrams, and those that came after a later one.
func datagrams() {
	conn, err := net.ListenPacket("udp", ":9090")
	if err != nil {
		log.Fatal(err)
	}
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
func echo() {
	l, err := net.Listen("tcp", ":7070")
	if err != nil {
		log.Fatal(err)
	}
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
