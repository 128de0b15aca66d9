package guest

import (
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// Dial returns a client of the guest with the given MAC address behind the
// host's interface ifname. It connects when it needs to.
//
// The interface is not named in the address: package net remembers for a minute
// which number a name had, and a tap is made anew at each wake.
func Dial(ifname string, mac net.HardwareAddr) *Client {
	return dial(netip.AddrPortFrom(LinkLocal(mac), Port), net.Dialer{
		Control: func(_, _ string, c syscall.RawConn) error {
			var failed error
			err := c.Control(func(fd uintptr) { failed = unix.BindToDevice(int(fd), ifname) })
			if err == nil {
				err = failed
			}
			return err
		},
	})
}
