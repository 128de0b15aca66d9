package center

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Ports are a range of UDP ports, both ends included.
type Ports struct{ First, Last uint16 }

// DefaultPorts begin with WireGuard's usual one.
var DefaultPorts = Ports{51820, 52819}

// ParsePorts reads FIRST-LAST, or one port.
func ParsePorts(s string) (Ports, error) {
	first, last, ok := strings.Cut(s, "-")
	if !ok {
		last = first
	}
	f, err := strconv.ParseUint(first, 10, 16)
	l, err2 := strconv.ParseUint(last, 10, 16)
	if errors.Join(err, err2) != nil || f == 0 || l < f {
		return Ports{}, fmt.Errorf("%.40q is no range of ports; write it as %v", s, DefaultPorts)
	}
	return Ports{uint16(f), uint16(l)}, nil
}

// String returns the range as ParsePorts reads it.
func (p Ports) String() string { return fmt.Sprintf("%d-%d", p.First, p.Last) }

// MarshalText is String.
func (p Ports) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText is ParsePorts.
func (p *Ports) UnmarshalText(text []byte) (err error) {
	*p, err = ParsePorts(string(text))
	return err
}

// Count is how many there are.
func (p Ports) Count() int { return int(p.Last) - int(p.First) + 1 }
