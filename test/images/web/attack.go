package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"syscall"
	"time"
)

// attackFor is how long an attack goes on in the background.
const attackFor = 10 * time.Second

// attack does one of the bad things that a hostile tenant would.
func attack(kind string) error {
	switch kind {
	case "disk":
		// Until it is full: the error is the point.
		if write("/filler", 1<<20) == nil {
			return fmt.Errorf("the disk has no end")
		}
		return nil
	case "fork":
		go forkBomb()
	case "memory":
		go exec.Command("/proc/self/exe", "eat").Run()
	case "console":
		go flood("/dev/console")
	case "logs":
		go flood("/proc/self/fd/1")
	case "packets":
		go packets()
	case "spoof":
		return spoof()
	case "control":
		return lie()
	default:
		return fmt.Errorf("no attack %q", kind)
	}
	return nil
}

func forkBomb() {
	for end := time.Now().Add(attackFor); time.Now().Before(end); {
		cmd := exec.Command("/proc/self/exe", "exit", "0")
		if cmd.Start() == nil {
			go cmd.Wait()
		}
	}
}

// eat takes memory until the kernel ends the process.
func eat() {
	var all [][]byte
	for {
		all = append(all, bytes.Repeat([]byte{1}, 1<<20))
		_ = all
	}
}

func flood(path string) {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return
	}
	defer f.Close()
	line := append(bytes.Repeat([]byte("\x1b[31mflood\xff"), 100), '\n')
	for end := time.Now().Add(attackFor); time.Now().Before(end); {
		f.Write(line)
	}
}

// packets sends as many as it can, to the host and past it.
func packets() {
	for _, to := range []string{"[fe80::1%eth0]:1", "[fe80::1%eth0]:53", "198.51.100.1:9"} {
		conn, err := net.Dial("udp", to)
		if err != nil {
			continue
		}
		go func() {
			defer conn.Close()
			payload := make([]byte, 1400)
			for end := time.Now().Add(attackFor); time.Now().Before(end); {
				conn.Write(payload)
			}
		}()
	}
}

// spoof sends raw frames that claim to be from others.
func spoof() error {
	fd, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW, 0x0300)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	ifc, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	to := &syscall.SockaddrLinklayer{Ifindex: ifc.Index, Protocol: 0x0008}
	frame := make([]byte, 60)
	for i := range 20000 {
		copy(frame, "\xff\xff\xff\xff\xff\xff\x02\xc1\x0d\x00\x00\x01\x08\x00\x45\x00\x00\x2e")
		frame[6+i%6] ^= byte(i)
		copy(frame[26:], []byte{10, byte(i >> 8), byte(i), 1})
		syscall.Sendto(fd, frame, 0, to)
	}
	return nil
}
