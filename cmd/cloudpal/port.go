package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/tradle/cloudpal/compute/api"
)

var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// parsePort reads [[IP:]HOST:]GUEST[/tcp|/udp]. Without an IP the port is
// published to this machine only; without a HOST port, or with 0, the agent
// takes a free one. An IPv6 address stands in brackets.
func parsePort(text string) (api.Port, error) {
	p, err := splitPort(text)
	if err != nil {
		return api.Port{}, fmt.Errorf("port %.60q: %w; write it as 8080:80, 0.0.0.0:8080:80 or 5353:53/udp", text, err)
	}
	return p, nil
}

func splitPort(text string) (api.Port, error) {
	ports, proto, found := strings.Cut(text, "/")
	if !found {
		proto = "tcp"
	}
	if proto != "tcp" && proto != "udp" {
		return api.Port{}, errors.New("only tcp and udp can be published")
	}
	rest, guest := cutLast(ports, ":")
	ip, host := cutLast(rest, ":")
	addr, err := parseIP(ip)
	if err != nil {
		return api.Port{}, err
	}
	h, err := parseNumber(host)
	if err != nil && host != "" {
		return api.Port{}, err
	}
	g, err := parseNumber(guest)
	if err == nil && g == 0 {
		err = errors.New("a guest has no port 0")
	}
	return api.Port{Host: netip.AddrPortFrom(addr, h), Guest: g, Proto: proto}, err
}

// cutLast splits s at its last separator; without one all of s is after.
func cutLast(s, sep string) (before, after string) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):]
	}
	return "", s
}

func parseIP(s string) (netip.Addr, error) {
	if s == "" {
		return loopback, nil
	}
	inner, bracketed := strings.CutPrefix(s, "[")
	if bracketed {
		inner, bracketed = strings.CutSuffix(inner, "]")
	}
	addr, err := netip.ParseAddr(inner)
	if err != nil || bracketed != addr.Is6() || addr.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("%q is no address of this machine", s)
	}
	return addr, nil
}

func parseNumber(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || s[0] == '+' {
		return 0, fmt.Errorf("%q is no port number", s)
	}
	return uint16(n), nil
}

// formatPort says where a port is: "127.0.0.1:8080->80", "…->53/udp".
func formatPort(p api.Port) string {
	s := fmt.Sprintf("%s->%d", p.Host, p.Guest)
	if p.Proto == "udp" {
		s += "/udp"
	}
	return s
}

// portURL says where a port is, as a link where it may be one.
func portURL(p api.Port) string {
	at := p.Host
	if at.Addr().IsUnspecified() {
		at = netip.AddrPortFrom(loopback, at.Port())
	}
	if p.Proto == "udp" {
		return fmt.Sprintf("udp %s", at)
	}
	return "http://" + at.String()
}
