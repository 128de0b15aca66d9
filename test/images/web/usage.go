package main

import (
	"os"
	"strconv"
	"strings"
	"time"
)

// counters are named as in guest.Usage.
type counters struct {
	CPU       time.Duration `json:"cpu"`
	DiskRead  int64         `json:"diskRead"`
	DiskWrite int64         `json:"diskWrite"`
	NetIn     int64         `json:"netIn"`
	NetOut    int64         `json:"netOut"`
}

// usage reads what the guest's kernel counts.
func usage() counters {
	var c counters
	for _, f := range lines("/proc/stat") {
		if f[0] == "cpu" { // user nice system idle iowait irq softirq, in 1/100 s
			c.CPU = time.Duration(num(f[1])+num(f[2])+num(f[3])+num(f[6])+num(f[7])) * 10 * time.Millisecond
		}
	}
	for _, f := range lines("/proc/diskstats") {
		if len(f) > 9 && strings.HasPrefix(f[2], "vd") {
			c.DiskRead += num(f[5]) * 512
			c.DiskWrite += num(f[9]) * 512
		}
	}
	for _, f := range lines("/proc/net/dev") {
		if f[0] == "eth0:" {
			c.NetIn, c.NetOut = num(f[1]), num(f[9])
		}
	}
	return c
}

func lines(path string) [][]string {
	data, _ := os.ReadFile(path)
	var all [][]string
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 0 {
			all = append(all, f)
		}
	}
	return all
}

func num(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return n
}
