//go:build linux

package wake

import (
	"encoding/binary"
	"log/slog"
	"net"
	"net/netip"
	"testing"

	"github.com/tradle/cloudpal"
)

// unopened is a network without a device: what it is told to take it takes, and
// holds.
func unopened(woken func(netip.Addr, string)) *Network {
	return newNetwork(Config{V4: DefaultV4, V6: DefaultV6, Wake: woken, Log: slog.New(slog.DiscardHandler)})
}

func ignore(netip.Addr, string) {}

// known adds a VM with the addresses of the given number.
func known(t *testing.T, n *Network, name string, number byte, rate int64) *nic {
	t.Helper()
	v4, v6 := addresses(number)
	mac := net.HardwareAddr{2, 0xc1, 0x0d, 0, 0, number}
	if err := n.Add(name, NIC{MAC: mac, Addrs: []netip.Addr{v4, v6}, Rate: rate}); err != nil {
		t.Fatal(err)
	}
	v, err := n.find(name)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func addresses(number byte) (v4, v6 netip.Addr) {
	return netip.AddrFrom4([4]byte{10, 201, 0, number}),
		netip.AddrFrom16([16]byte{0: 0xfd, 1: 0xc1, 2: 0x0d, 3: 0x00, 15: number})
}

// packet is the i-th packet to a VM, with size bytes of data.
func packet(number byte, i, size int) []byte {
	v4, _ := addresses(number)
	data := make([]byte, max(size, 4))
	binary.BigEndian.PutUint32(data, uint32(i))
	return datagram(somebody, netip.AddrPortFrom(v4, 7), data)
}

// numbers are the i-s of held packets.
func numbers(v *nic) []int {
	var is []int
	for _, p := range v.held {
		is = append(is, int(binary.BigEndian.Uint32(p.ip[28:])))
	}
	return is
}

func TestPacketsAreHeldInOrderUpToABound(t *testing.T) {
	n := unopened(ignore)
	v := known(t, n, "a", 16, 0)
	for i := range maxHeldPackets + 10 {
		n.take(packet(16, i, 0))
	}
	got := numbers(v)
	if len(got) != maxHeldPackets {
		t.Fatalf("got %d packets, want %d", len(got), maxHeldPackets)
	}
	for i := range got {
		if got[i] != i {
			t.Fatalf("got packet %d in place %d", got[i], i)
		}
	}
}

func TestBytesHeldForOneVMAreBounded(t *testing.T) {
	n := unopened(ignore)
	v := known(t, n, "a", 16, 0)
	for i := range 100 {
		n.take(packet(16, i, 60_000))
	}
	if v.size > maxHeldBytes || v.size < maxHeldBytes-60_100 {
		t.Errorf("got %d bytes, want a little less than %d", v.size, maxHeldBytes)
	}
	// A small one still fits.
	before := len(v.held)
	n.take(packet(16, 100, 0))
	if len(v.held) != before+1 {
		t.Errorf("got %d packets, want %d", len(v.held), before+1)
	}
}

func TestBytesHeldForAllAreBoundedAndGivenBack(t *testing.T) {
	n := unopened(ignore)
	var vms []*nic
	for number := byte(16); number < 16+80; number++ {
		vms = append(vms, known(t, n, string(rune(number)), number, 0))
		for i := range 20 {
			n.take(packet(number, i, 60_000))
		}
	}
	held := 0
	for _, v := range vms {
		held += v.size
	}
	if held > maxHeldTotal || held < maxHeldTotal-60_100 || n.room != maxHeldTotal-held {
		t.Errorf("got %d bytes held and %d of room, want %d in all", held, n.room, maxHeldTotal)
	}
	for _, v := range vms {
		n.Remove(v.name)
	}
	if n.room != maxHeldTotal {
		t.Errorf("got %d bytes of room, want all %d", n.room, maxHeldTotal)
	}
}

func TestHeldPacketsAreCopies(t *testing.T) {
	n := unopened(ignore)
	v := known(t, n, "a", 16, 0)
	p := packet(16, 1, 0)
	n.take(p)
	clear(p)
	if got := numbers(v); len(got) != 1 || got[0] != 1 {
		t.Errorf("got %v, want [1]", got)
	}
}

func TestOnlyPacketsToAKnownAddressWake(t *testing.T) {
	var woken []netip.Addr
	n := unopened(func(a netip.Addr, _ string) { woken = append(woken, a) })
	known(t, n, "a", 16, 0)
	v4, v6 := addresses(16)
	n.take(packet(17, 0, 0))
	n.take([]byte("no packet"))
	n.take(packet(16, 0, 0))
	n.take(datagram(somebody6, netip.AddrPortFrom(v6, 7), nil))
	if len(woken) != 2 || woken[0] != v4 || woken[1] != v6 {
		t.Errorf("got %v, want %v and %v", woken, v4, v6)
	}
	n.Remove("a")
	n.take(packet(16, 0, 0))
	if len(woken) != 2 {
		t.Errorf("a VM that is removed is woken: %v", woken)
	}
}

func TestAddRefusesAnAddressThatIsTaken(t *testing.T) {
	n := unopened(ignore)
	known(t, n, "a", 16, 0)
	v4, _ := addresses(16)
	err := n.Add("b", NIC{Addrs: []netip.Addr{v4}})
	if cloudpal.KindOf(err) != cloudpal.Exist {
		t.Errorf("got %v, want %v", err, cloudpal.Exist)
	}
	if _, err := n.find("b"); err == nil {
		t.Error("it is known all the same")
	}
	if err := n.Add("a", NIC{Addrs: []netip.Addr{v4}}); err != nil {
		t.Errorf("adding it again: got %v", err)
	}
}

func TestStrangersAreNotPluggedIn(t *testing.T) {
	n := unopened(ignore)
	_, _, plug := n.Plug("a")
	_, _, stats := n.Stats("a")
	for _, err := range []error{plug, n.Admit("a"), n.Hold("a"), n.Unplug("a"), stats} {
		if cloudpal.KindOf(err) != cloudpal.NotExist {
			t.Errorf("got %v, want %v", err, cloudpal.NotExist)
		}
	}
	known(t, n, "a", 16, 0)
	if err := n.Admit("a"); err == nil {
		t.Error("packets flow to a VM that is not plugged in")
	}
}

func FuzzTake(f *testing.F) {
	f.Add(packet(16, 1, 0))
	f.Add(datagram(somebody, netip.MustParseAddrPort("10.201.0.2:9"), make([]byte, 8)))
	f.Fuzz(func(t *testing.T, p []byte) {
		n := unopened(ignore)
		v := known(t, n, "a", 16, 0)
		n.take(p)
		if len(v.held) == 1 != (v.size == len(p) && len(p) > 0) {
			t.Errorf("got %d packets of %d bytes", len(v.held), v.size)
		}
	})
}
