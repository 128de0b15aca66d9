//go:build linux

package route

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
)

// Settings are values of the kernel's, by their path in /proc/sys/net.
type Settings map[string]string

const (
	forward4 = "ipv4/ip_forward"
	forward6 = "ipv6/conf/all/forwarding"
)

// Unforwarded returns the settings that Forward would change, as they are: none
// where the kernel forwards packets already, as it must for the world to reach
// VMs. IPv6 is only asked for where VMs have addresses of the world.
func Unforwarded(v6 bool) (Settings, error) {
	s := Settings{}
	if err := s.note(forward4, "0"); err != nil {
		return nil, err
	}
	if !v6 {
		return s, nil
	}
	if err := s.note(forward6, "0"); err != nil || s[forward6] == "" {
		return s, err
	}
	// A router does not listen to routers, unless it is told to: the host
	// would lose its own way to the world.
	links, err := netlink.LinkList()
	if err != nil {
		return nil, err
	}
	for _, l := range links {
		if err := s.note("ipv6/conf/"+l.Attrs().Name+"/accept_ra", "1"); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// note adds a setting that has the given value.
func (s Settings) note(path, value string) error {
	b, err := os.ReadFile("/proc/sys/net/" + path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if string(bytes.TrimSpace(b)) == value {
		s[path] = value
	}
	return err
}

// Forward has the kernel forward packets, where those are the settings with
// which it does not. A host that was no router becomes none: what comes in by one of
// its links goes to VMs and nowhere else.
func (r *Rules) Forward(s Settings) error {
	if len(s) == 0 {
		return nil
	}
	if err := r.listUplinks(); err != nil {
		return err
	}
	// accept_ra comes first: to forward lets go of what routers said.
	for _, path := range slices.SortedFunc(maps.Keys(s), forwardLast) {
		value := "1"
		if strings.HasSuffix(path, "/accept_ra") {
			value = "2"
		}
		if err := set(path, value); err != nil {
			return err
		}
	}
	return nil
}

func forwardLast(a, b string) int {
	rank := func(path string) int {
		if strings.HasSuffix(path, "/accept_ra") {
			return 0
		}
		return 1
	}
	return rank(a) - rank(b)
}

// Restore sets what the settings say.
func (s Settings) Restore() error {
	var errs []error
	for _, path := range slices.Sorted(maps.Keys(s)) {
		if err := set(path, s[path]); !errors.Is(err, fs.ErrNotExist) { // a link may be gone
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func set(path, value string) error {
	if err := os.WriteFile("/proc/sys/net/"+path, []byte(value), 0); err != nil {
		return fmt.Errorf("have the kernel forward packets: %w", err)
	}
	return nil
}

// Valid returns an error where the settings, which may be read from a file, are
// not those that Unforwarded returns.
func (s Settings) Valid() error {
	for path, value := range s {
		link, accept := strings.CutSuffix(path, "/accept_ra")
		link, six := strings.CutPrefix(link, "ipv6/conf/")
		ofLink := accept && six && value == "1" && !strings.Contains(link, "/") && link != "." && link != ".."
		ofAll := (path == forward4 || path == forward6) && value == "0"
		if !ofLink && !ofAll {
			return fmt.Errorf("%.60q is no setting of this program's, or %.20q no value of it", path, value)
		}
	}
	return nil
}

// listUplinks tells the rules which links the host has.
func (r *Rules) listUplinks() error {
	links, err := netlink.LinkList()
	if err != nil {
		return err
	}
	var es []nftables.SetElement
	for _, l := range links {
		if name := l.Attrs().Name; name != "lo" && name != Asleep && !strings.HasPrefix(name, Prefix) {
			es = append(es, nftables.SetElement{Key: ifname(name)})
		}
	}
	if len(es) == 0 {
		return nil
	}
	err = r.with(func(c *nftables.Conn) error {
		if err := c.SetAddElements(r.table.set("uplinks"), es); err != nil {
			return err
		}
		return c.Flush()
	})
	if err != nil {
		return fmt.Errorf("list the host's links in nftables: %w", err)
	}
	return nil
}
