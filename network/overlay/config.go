package overlay

import (
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/identity"
)

// MTU of the overlay's links: what is left of 1500 bytes when WireGuard, UDP
// and IPv6 have taken theirs.
const MTU = 1420

// A Config is what a device needs to join an overlay.
type Config struct {
	Name     string // the device's
	Key      identity.DeviceKey
	Index    uint8        // in the device list
	V4, V6   netip.Prefix // the overlay's
	Core     identity.WireGuardKey
	Endpoint netip.AddrPort // where the core is reached
	Full     bool           // all the device's traffic goes through the core
}

// Text returns the configuration as the WireGuard apps and wg-quick read it. It
// holds the device's private key. It has no persistent keepalive, which would
// keep the pal from its sleep. The error is cloudpal.Invalid.
func (c Config) Text() ([]byte, error) {
	if err := c.check(); err != nil {
		return nil, cloudpal.E("write a WireGuard configuration", cloudpal.Invalid, err)
	}
	allowed := []netip.Prefix{c.V4, c.V6}
	if c.Full {
		allowed = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	}
	b := []byte("# " + c.Name + "\n[Interface]\nPrivateKey = ")
	b = base64.StdEncoding.AppendEncode(b, c.Key.WireGuard())
	return fmt.Appendf(b, `
Address = %s
DNS = %v, %v, pal
MTU = %d

[Peer]
PublicKey = %v
AllowedIPs = %s
Endpoint = %v
`, list(single(Addr(c.V4, c.Index)), single(Addr(c.V6, c.Index))),
		Addr(c.V4, identity.CoreIndex), Addr(c.V6, identity.CoreIndex), MTU,
		c.Core, list(allowed...), c.Endpoint), nil
}

// check lets nothing into the text that could be read as another line of it.
func (c Config) check() error {
	if err := identity.CheckName(c.Name); err != nil {
		return err
	}
	switch {
	case c.Key.IsZero() || c.Core.IsZero():
		return errors.New("it has no key")
	case c.Index < identity.FirstIndex || c.Index > identity.LastIndex:
		return fmt.Errorf("index %d", c.Index)
	case !c.V4.Addr().Is4() || c.V4.Bits() != 24 || !c.V6.Addr().Is6() || c.V6.Addr().Is4In6() || c.V6.Bits() != 64:
		return errors.New("it has no IPv4 /24 or no IPv6 /64")
	case c.Endpoint.Port() == 0 || !c.Endpoint.IsValid() || c.Endpoint.Addr().Zone() != "" || c.Endpoint.Addr().IsUnspecified():
		return errors.New("its endpoint is no address and port that others could reach")
	}
	return nil
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func list(prefixes ...netip.Prefix) string {
	texts := make([]string, len(prefixes))
	for i, p := range prefixes {
		texts[i] = p.Masked().String()
	}
	return strings.Join(texts, ", ")
}
