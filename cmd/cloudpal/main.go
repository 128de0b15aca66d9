// Cloudpal runs microVMs on this machine: OCI images in, processes behind
// walls out, which sleep when nobody talks to them and wake on the first
// packet.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	w := &world{
		in: os.Stdin, out: os.Stdout, err: os.Stderr,
		getenv:  os.LookupEnv,
		signals: signals,
		unhand:  func() { signal.Reset(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP) },
	}
	os.Exit(run(context.Background(), w, os.Args[1:]))
}
