//go:build linux

package route

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// A Listing is what the rules know of one VM. One that has neither WireGuard nor
// leave to speak to the world needs none.
type Listing struct {
	Addrs    []netip.Addr
	Port     uint16 // UDP, of the VM's WireGuard; 0: it has none
	HostPort uint16 // UDP, of the host, which leads there
	Outbound bool
}

// How long things are remembered that are not used.
const (
	activeFor = time.Hour
	heardFor  = 24 * time.Hour
)

// The most that dynamic sets have.
const (
	maxActive = 1 << 17
	maxHeard  = 1 << 16
	maxFlood  = 1 << 16
)

// set returns one of the sets, to fill or read it.
func (t *table) set(name string) *nftables.Set {
	for _, s := range t.sets() {
		if s.Name == name {
			return s
		}
	}
	panic("no set " + name)
}

// sets are all that VMs are put into, and those that rules fill.
func (t *table) sets() []*nftables.Set {
	peer4 := nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)
	peer6 := nftables.MustConcatSetType(nftables.TypeIP6Addr, nftables.TypeInetService)
	pair4 := nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeIPAddr, nftables.TypeInetService)
	v4, v6, port := nftables.TypeIPAddr, nftables.TypeIP6Addr, nftables.TypeInetService
	all := []*nftables.Set{
		{Name: "inward", IsMap: true, KeyType: port, DataType: peer4},
		{Name: "outward", IsMap: true, KeyType: peer4, DataType: port},
		{Name: "ports", KeyType: port},
		{Name: "peers4", KeyType: peer4}, {Name: "peers6", KeyType: peer6},
		{Name: "wireguard4", KeyType: v4}, {Name: "wireguard6", KeyType: v6},
		{Name: "outbound4", KeyType: v4}, {Name: "outbound6", KeyType: v6},
		{Name: "uplinks", KeyType: nftables.TypeIFName},
		{Name: "active4", KeyType: v4, Dynamic: true, HasTimeout: true, Timeout: activeFor, Size: maxActive},
		{Name: "active6", KeyType: v6, Dynamic: true, HasTimeout: true, Timeout: activeFor, Size: maxActive},
		{Name: "heard4", KeyType: pair4, Dynamic: true, HasTimeout: true, Timeout: heardFor, Size: maxHeard},
		{Name: "flood4", KeyType: v4, Dynamic: true, HasTimeout: true, Timeout: 10 * time.Second, Size: maxFlood},
		{Name: "flood6", KeyType: v6, Dynamic: true, HasTimeout: true, Timeout: 10 * time.Second, Size: maxFlood},
		{Name: "conns4", KeyType: v4, Dynamic: true, Size: maxActive},
		{Name: "conns6", KeyType: v6, Dynamic: true, Size: maxActive},
	}
	for _, s := range all {
		s.Table = t.Table
	}
	return all
}

// notPublic are IPv4 ranges that are not the world's (RFC 6890). Those of
// documentation are: tests have them.
var notPublic = []string{
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
	"192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/3",
}

func (t *table) private() *nftables.Set {
	return &nftables.Set{Table: t.Table, Name: "private", Interval: true, KeyType: nftables.TypeIPAddr}
}

func privateElements() (es []nftables.SetElement) {
	for _, r := range notPublic {
		p := netip.MustParsePrefix(r)
		es = append(es, nftables.SetElement{Key: p.Addr().AsSlice()})
		if end := after(p); end.IsValid() {
			es = append(es, nftables.SetElement{Key: end.AsSlice(), IntervalEnd: true})
		}
	}
	return es
}

// after returns the address behind a prefix, or none where it is the last.
func after(p netip.Prefix) netip.Addr {
	last := p.Addr().AsSlice()
	for i, m := range mask(p) {
		last[i] |= ^m
	}
	a, _ := netip.AddrFromSlice(last)
	return a.Next()
}

// elements returns what a VM has in each set.
func (l Listing) elements() map[string][]nftables.SetElement {
	es := map[string][]nftables.SetElement{}
	add := func(set string, key, value []byte) {
		es[set] = append(es[set], nftables.SetElement{Key: key, Val: value})
	}
	for _, a := range l.Addrs {
		n := "4"
		if a.Is6() {
			n = "6"
		}
		if l.Outbound {
			add("outbound"+n, a.AsSlice(), nil)
		}
		if l.Port == 0 {
			continue
		}
		add("wireguard"+n, a.AsSlice(), nil)
		add("peers"+n, service(a, l.Port), nil)
		if a.Is6() {
			continue
		}
		add("ports", big16(l.HostPort), nil)
		add("outward", service(a, l.Port), big16(l.HostPort))
		add("inward", big16(l.HostPort), service(a, l.Port))
	}
	return es
}

// service is an address and a port as a concatenation has them: each in whole
// words.
func service(a netip.Addr, port uint16) []byte {
	return append(append(a.AsSlice(), big16(port)...), 0, 0)
}

// Rules are the nftables table, being filled. Its methods may be called from many
// goroutines.
//
// They keep one connection: when one is closed after something was deleted, the
// kernel waits until nobody can be using that, some 20 ms (measured).
type Rules struct {
	table *table

	mu sync.Mutex
	c  *nftables.Conn // nil after an error
}

// batch is how many VMs are listed by one message to the kernel, which may have
// no more than some 200 KiB.
const batch = 200

// List makes VMs known to the rules. It may be said again.
func (r *Rules) List(ls ...Listing) error {
	for some := range slices.Chunk(ls, batch) {
		if err := r.change(some, (*nftables.Conn).SetAddElements); err != nil {
			return fmt.Errorf("list vms in nftables: %w", err)
		}
	}
	return nil
}

// Unlist undoes List.
func (r *Rules) Unlist(l Listing) error {
	if err := r.change([]Listing{l}, (*nftables.Conn).SetDeleteElements); err != nil {
		return fmt.Errorf("forget a vm in nftables: %w", err)
	}
	return nil
}

func (r *Rules) change(ls []Listing, f func(*nftables.Conn, *nftables.Set, []nftables.SetElement) error) error {
	all := map[string][]nftables.SetElement{}
	for _, l := range ls {
		for set, es := range l.elements() {
			all[set] = append(all[set], es...)
		}
	}
	if len(all) == 0 {
		return nil
	}
	return r.with(func(c *nftables.Conn) error {
		for set, es := range all {
			if err := f(c, r.table.set(set), es); err != nil {
				return err
			}
		}
		return c.Flush()
	})
}

// with runs f with the connection, which is made anew after an error: what else
// is under way on it would be taken for the next answer.
func (r *Rules) with(f func(*nftables.Conn) error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.c == nil {
		c, err := nftables.New(nftables.AsLasting())
		if err != nil {
			return err
		}
		r.c = c
	}
	if err := f(r.c); err != nil {
		return errors.Join(err, r.closeLocked())
	}
	return nil
}

func (r *Rules) closeLocked() error {
	c := r.c
	if c == nil {
		return nil
	}
	r.c = nil
	return c.CloseLasting()
}

// Close lets go of the rules, which stay.
func (r *Rules) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closeLocked()
}

// listed are the sets that List fills.
var listed = []string{"inward", "outward", "ports", "peers4", "peers6", "wireguard4", "wireguard6", "outbound4", "outbound6"}

// Only forgets all VMs but those that are given: what an earlier process listed
// and had no time to forget.
func (r *Rules) Only(ls []Listing) error {
	want := map[string]map[string]bool{}
	for _, set := range listed {
		want[set] = map[string]bool{}
	}
	for _, l := range ls {
		for set, es := range l.elements() {
			for _, e := range es {
				want[set][string(e.Key)] = true
			}
		}
	}
	for set, keys := range want {
		if err := r.with(func(c *nftables.Conn) error { return keep(c, r.table.set(set), keys) }); err != nil {
			return fmt.Errorf("forget vms in the nftables set %s: %w", set, err)
		}
	}
	return nil
}

// keep deletes from a set all but some keys.
func keep(c *nftables.Conn, s *nftables.Set, keys map[string]bool) error {
	have, err := c.GetSetElements(s)
	if err != nil {
		return err
	}
	have = slices.DeleteFunc(have, func(e nftables.SetElement) bool { return keys[string(e.Key)] })
	for some := range slices.Chunk(have, batch) {
		if err := c.SetDeleteElements(s, some); err != nil {
			return err
		}
		if err := c.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// Active tells when VMs last had traffic that is a reason to stay awake, of
// those that had some within the last hour.
func (r *Rules) Active() (map[netip.Addr]time.Time, error) {
	at := map[netip.Addr]time.Time{}
	for _, name := range []string{"active4", "active6"} {
		var es []nftables.SetElement
		err := r.with(func(c *nftables.Conn) (err error) {
			es, err = c.GetSetElements(r.table.set(name))
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("read the nftables set %s: %w", name, err)
		}
		now := time.Now()
		for _, e := range es {
			if a, ok := netip.AddrFromSlice(e.Key); ok {
				at[a] = now.Add(e.Expires - activeFor)
			}
		}
	}
	return at, nil
}

// Forget removes the rules and all that they know.
func (r *Rules) Forget() error {
	err := r.with(func(c *nftables.Conn) error {
		c.DelTable(r.table.Table)
		return c.Flush()
	})
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove the nftables rules: %w", err)
	}
	return nil
}
