package api

import (
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"

	"github.com/tradle/cloudpal"
)

// DefaultPort is the TCP port of a center whose address names none.
const DefaultPort = 7443

// maxAddress bounds an address's text in bytes: a DNS name and some.
const maxAddress = 400

// A Fingerprint is the SHA-256 of a public key's SubjectPublicKeyInfo (RFC
// 5280). A center's is its identity: the rest of its address is only where it
// is to be found.
type Fingerprint [sha256.Size]byte

// FingerprintOf returns the fingerprint of a certificate's key.
func FingerprintOf(cert *x509.Certificate) Fingerprint {
	return sha256.Sum256(cert.RawSubjectPublicKeyInfo)
}

// Equal compares in constant time.
func (f Fingerprint) Equal(other Fingerprint) bool {
	return subtle.ConstantTimeCompare(f[:], other[:]) == 1
}

// String returns the fingerprint as it stands in addresses.
func (f Fingerprint) String() string { return base64.RawURLEncoding.EncodeToString(f[:]) }

// An Address says where a center is and by what key it is known. Its text is
// https://HOST:PORT#FINGERPRINT, where HOST is a DNS name or an IP address and
// FINGERPRINT is of 43 characters, base64url. Addresses of the same text are
// equal, and those of one center have the same Key.
type Address struct {
	Host string // a lower-case DNS name or an IP address, without brackets
	Port uint16
	Key  Fingerprint
}

// dnsName is stricter than DNS: what it lets through cannot be taken for
// anything else in a URL. It is at most 253 bytes.
var dnsName = regexp.MustCompile(`^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z]([a-z0-9-]{0,61}[a-z0-9])?$`)

// ParseAddress reads an address. The port may be left out. The error is
// cloudpal.Invalid and says what is wrong.
func ParseAddress(s string) (Address, error) {
	a, err := parseAddress(s)
	if err != nil {
		return Address{}, cloudpal.E("read a center's address", cloudpal.Invalid, err).
			WithHint("it looks like https://203.0.113.5:7443#..., as `cloudpal center` prints it; quote it in a shell")
	}
	return a, nil
}

func parseAddress(s string) (a Address, err error) {
	if len(s) > maxAddress {
		return a, fmt.Errorf("it is longer than %d bytes", maxAddress)
	}
	rest, ok := strings.CutPrefix(s, "https://")
	if !ok {
		return a, errors.New("it does not begin with https://")
	}
	where, fingerprint, ok := strings.Cut(rest, "#")
	if !ok {
		return a, errors.New("the center's key is missing, which stands behind a #")
	}
	if a.Key, err = parseFingerprint(fingerprint); err != nil {
		return a, err
	}
	a.Host, a.Port, err = parseHostPort(strings.TrimSuffix(where, "/"))
	return a, err
}

func parseFingerprint(s string) (f Fingerprint, err error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	// The decoder skips line ends.
	if err != nil || len(b) != len(f) || len(s) != base64.RawURLEncoding.EncodedLen(len(f)) {
		return f, errors.New("the key behind the # is not one of 43 characters")
	}
	return Fingerprint(b), nil
}

func parseHostPort(s string) (host string, port uint16, err error) {
	// Not by net/url, which takes much that is none: user names, escapes, zones.
	if !hasPort(s) {
		s += ":" + strconv.Itoa(DefaultPort)
	}
	host, text, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, errors.New("what stands between https:// and # is not HOST:PORT")
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 || text[0] == '+' {
		return "", 0, errors.New("its port is not one of 1 to 65535")
	}
	host, err = parseHost(host, s[0] == '[')
	return host, uint16(n), err
}

// hasPort looks for a colon that is none of an IPv6 address.
func hasPort(s string) bool {
	if i := strings.LastIndexByte(s, ']'); i >= 0 {
		s = s[i:]
	}
	return strings.Contains(s, ":")
}

func parseHost(s string, bracketed bool) (string, error) {
	if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" && addr.Is6() == bracketed {
		return addr.String(), nil
	}
	s = strings.ToLower(s)
	if bracketed || len(s) > 253 || !dnsName.MatchString(s) {
		return "", errors.New("its host is neither a DNS name nor an IP address")
	}
	return s, nil
}

// HostPort returns where to dial.
func (a Address) HostPort() string { return net.JoinHostPort(a.Host, strconv.Itoa(int(a.Port))) }

// URL returns the address without the key, as a base of requests.
func (a Address) URL() *url.URL { return &url.URL{Scheme: "https", Host: a.HostPort()} }

// String returns the address as ParseAddress reads it, always with the port.
func (a Address) String() string { return a.URL().String() + "#" + a.Key.String() }

// MarshalText is String.
func (a Address) MarshalText() ([]byte, error) { return []byte(a.String()), nil }

// UnmarshalText is ParseAddress.
func (a *Address) UnmarshalText(text []byte) error {
	parsed, err := ParseAddress(string(text))
	if err == nil {
		*a = parsed
	}
	return err
}

// MarshalText is String.
func (f Fingerprint) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (f *Fingerprint) UnmarshalText(text []byte) error {
	parsed, err := parseFingerprint(string(text))
	if err != nil {
		return cloudpal.E("read a key's fingerprint", cloudpal.Invalid, err)
	}
	*f = parsed
	return nil
}
