package main

import (
	"errors"
	"net"
	"syscall"

	"github.com/tradle/cloudpal"
)

// listenAll opens all ports, or none.
func listenAll(addrs []string) (list []net.Listener, err error) {
	for _, a := range addrs {
		l, err := net.Listen("tcp", a)
		if err != nil {
			closeAll(list)
			return nil, cannotListen(a, err)
		}
		list = append(list, l)
	}
	return list, nil
}

// cannotListen says why a port cannot be had, and what to do.
func cannotListen(addr string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return cloudpal.E("answer on "+addr, cloudpal.Busy, err).
			WithHint("another program has that port (ss -ltnp shows which); choose one: --listen :7444")
	case errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, syscall.EAFNOSUPPORT):
		return cloudpal.E("answer on "+addr, cloudpal.Missing, err).
			WithHint("this machine has no such address (ip addr shows them); with --listen 0.0.0.0:7443 it answers on all of IPv4")
	}
	return cloudpal.E("answer on "+addr, "", err)
}

func closeAll(list []net.Listener) {
	for _, l := range list {
		l.Close()
	}
}
