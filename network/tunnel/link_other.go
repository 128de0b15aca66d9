//go:build !linux

package tunnel

import (
	"errors"
	"net"
	"net/netip"
	"runtime"

	"github.com/tradle/cloudpal"
)

type link struct{}

func (*link) undo() error { return nil }

// OpenTUN is for Linux.
func OpenTUN(Config) (*Tunnel, error) {
	return nil, cloudpal.E("open a tunnel for the whole machine", cloudpal.Missing, errors.New("that is not made for "+runtime.GOOS+" yet")).
		WithHint("use the WireGuard app there: cloudpal device add makes its QR code")
}

// Restore is for Linux.
func Restore() error { return nil }

// Around returns a Dialer.
func (t *Tunnel) Around() *net.Dialer { return &net.Dialer{Timeout: dialTimeout} }

// InUse returns the networks that this machine is in.
func InUse() (list []netip.Prefix) {
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			list = append(list, p.Masked())
		}
	}
	return list
}

// SetHosts is for Linux.
func (t *Tunnel) SetHosts([]Host) error { return nil }
