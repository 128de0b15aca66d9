package main

import (
	"bufio"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/tradle/cloudpal/compute/guest"
)

// tick is the unit of /proc/stat on every Linux there is.
const tick = 10 * time.Millisecond

// usage reads what the guest's kernel counts.
func usage() guest.Usage {
	var u guest.Usage
	eachLine("/proc/stat", func(f []string) {
		if f[0] == "cpu" && len(f) > 7 { // user nice system idle iowait irq softirq
			u.CPU = time.Duration(number(f[1])+number(f[2])+number(f[3])+number(f[6])+number(f[7])) * tick
		}
	})
	eachLine("/proc/diskstats", func(f []string) {
		if len(f) > 9 && strings.HasPrefix(f[2], "vd") {
			u.DiskRead += number(f[5]) * 512
			u.DiskWrite += number(f[9]) * 512
		}
	})
	eachLine("/proc/net/dev", func(f []string) {
		if f[0] == device+":" && len(f) > 9 {
			u.NetIn, u.NetOut = number(f[1]), number(f[9])
		}
	})
	eachLine("/proc/meminfo", func(f []string) {
		switch f[0] {
		case "MemTotal:":
			u.MemTotal = number(f[1]) << 10
		case "MemAvailable:":
			u.MemFree = number(f[1]) << 10
		}
	})
	return u
}

// countOOM returns how many processes the kernel has ended for memory.
func countOOM() (n int64) {
	eachLine("/proc/vmstat", func(f []string) {
		if f[0] == "oom_kill" {
			n = number(f[1])
		}
	})
	return n
}

// allListen reports whether all of the TCP ports are open (proc(5),
// /proc/net/tcp: the state of a listening socket is 0A).
func allListen(want map[uint16]bool) bool {
	open := map[uint16]bool{}
	for _, path := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		eachLine(path, func(f []string) {
			if len(f) < 4 || f[3] != "0A" {
				return
			}
			_, port, _ := strings.Cut(f[1], ":")
			if n, err := strconv.ParseUint(port, 16, 16); err == nil {
				open[uint16(n)] = true
			}
		})
	}
	for port := range want {
		if !open[port] {
			return false
		}
	}
	return true
}

func eachLine(path string, f func(fields []string)) {
	file, err := os.Open(path)
	if err != nil {
		return
	}
	defer file.Close()
	for s := bufio.NewScanner(file); s.Scan(); {
		if fields := strings.Fields(s.Text()); len(fields) > 1 {
			f(fields)
		}
	}
}

func number(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}

func linkIndex() (uint32, error) {
	ifc, err := net.InterfaceByName(device)
	if err != nil {
		return 0, err
	}
	return uint32(ifc.Index), nil
}
