//go:build linux

package wake

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/network/route"
)

// A nic is a VM's network device.
type nic struct {
	NIC
	n    *Network
	name string

	mu    sync.Mutex
	tap   *route.Tap // nil while it is not plugged in
	open  bool       // packets flow
	held  []held
	size  int       // bytes of held
	judge *judge    // nil where every packet wakes
	asked time.Time // when the VM was last asked to be woken

	gone      bool // it was removed
	pluggedIn time.Time
	last      time.Time // when it last had traffic that is a reason to stay awake
}

// take holds a packet, or delivers it where it is late: packets flow already,
// and this one had gone to wake0 before they did. It returns why the VM is to be
// woken, or "".
func (v *nic) take(p held, now time.Time) string {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.open {
		if err := v.inject(p); err != nil {
			v.n.cfg.Log.Warn("deliver a late packet", "vm", v.name, "err", err)
		}
		return ""
	}
	return v.consider(p, now)
}

// consider holds a packet that is for the VM. It returns why the VM is to be
// woken, or "". The caller holds mu.
func (v *nic) consider(p held, now time.Time) string {
	what := news
	if v.judge != nil {
		what = v.judge.judge(p.ip, now, now.Sub(v.asked) < asked)
	}
	if what == drop && !v.expects(p.ip) {
		return ""
	}
	v.keep(p)
	if what == drop || what == hold {
		return ""
	}
	v.asked = now
	return reason(what, p.ip)
}

// maxExpected is how much of what is held may be the host's own, in packets.
const maxExpected = 32

// expects reports whether a packet is the host's own to a VM that is about to
// run: the host waits for that, too, and knows no WireGuard.
func (v *nic) expects(ip []byte) bool {
	from, err := origin(ip)
	return err == nil && v.tap != nil && from == v.n.own(from) && len(v.held) < maxExpected
}

// reason tells why a packet wakes.
func reason(what verdict, ip []byte) string {
	if u, err := parseUDP(ip); err == nil && what == greeting {
		return "a WireGuard handshake from " + u.from.String()
	}
	from, err := origin(ip)
	if err != nil {
		return "a packet"
	}
	return "a packet from " + from.String()
}

// keep holds a copy of a packet; the newest are dropped when there is no room.
// The caller holds mu.
func (v *nic) keep(p held) {
	if len(v.held) >= maxHeldPackets || v.size+len(p.ip) > maxHeldBytes || !v.n.reserve(len(p.ip)) {
		return
	}
	p.ip = append([]byte(nil), p.ip...)
	v.held = append(v.held, p)
	v.size += len(p.ip)
}

// drop forgets what is held.
func (v *nic) drop() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.n.giveBack(v.size)
	v.held, v.size = nil, 0
}

// inject puts a packet into the tap, where the guest finds it. It is not routed
// again: for the kernel it has left by wake0 already. The caller holds mu.
func (v *nic) inject(p held) error {
	to := &unix.SockaddrLinklayer{Ifindex: v.tap.Index(), Halen: 6}
	copy(to.Addr[:], v.MAC)
	// A tap whose rate leaves no room must not keep the others waiting.
	return unix.Sendto(v.n.raw, p.frame(v.MAC, route.HostMAC), unix.MSG_DONTWAIT, to)
}

// Plug makes the VM's tap; only the control address works over it.
func (n *Network) Plug(name string) (*os.File, string, error) {
	v, err := n.find(name)
	if err != nil {
		return nil, "", err
	}
	op := "plug in vm " + name
	tap, err := route.NewTap(v.MAC)
	if err != nil {
		return nil, "", cloudpal.E(op, "", err)
	}
	if v.Rate > 0 {
		if err := tap.Limit(v.Rate); err != nil {
			return nil, "", cloudpal.E(op, "", errors.Join(err, tap.File.Close()))
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.tap, v.open, v.pluggedIn, v.last = tap, false, time.Now(), time.Time{}
	return tap.File, tap.Name, nil
}

// Adopt takes over the tap of a VM that another run of this program plugged
// in. Admitted says whether packets flow.
func (n *Network) Adopt(name string, f *os.File, ifname string, admitted bool) error {
	v, err := n.find(name)
	if err != nil {
		return err
	}
	tap, err := route.FindTap(f, ifname)
	if err != nil {
		return cloudpal.E("adopt the tap of vm "+name, "", err)
	}
	// The rules were made anew, without its bound.
	if v.Rate > 0 {
		if err := tap.Limit(v.Rate); err != nil {
			return cloudpal.E("adopt the tap of vm "+name, "", err)
		}
	}
	v.mu.Lock()
	v.tap, v.open = tap, false
	if v.judge != nil {
		v.judge.missed(time.Now())
	}
	v.mu.Unlock()
	if admitted {
		return n.Admit(name)
	}
	return n.Hold(name)
}

// Admit delivers what was held, in order, and lets packets flow.
//
// What is sent while it does so stays in order, too: first the kernel is told
// the new way, and keeps what it sends along it; then what is held goes into the
// tap; then what had still gone the old way is awaited and delivered; only then
// the kernel lets go of what it kept. The way comes first because the guest's
// answers are let in by it: their source is then routed to where they come from.
func (n *Network) Admit(name string) error {
	v, err := n.find(name)
	if err != nil {
		return err
	}
	op := "let packets flow to vm " + name
	tap := v.plugged()
	if tap == nil {
		return cloudpal.E(op, "", errors.New("it is not plugged in"))
	}
	for _, a := range v.reached() {
		if err := tap.Attract(a, n.own(a)); err != nil {
			return cloudpal.E(op, "", fmt.Errorf("route %v: %w", a, err))
		}
	}
	v.release()
	n.awaitPassing()
	for _, a := range v.reached() {
		if err := tap.Settle(a, v.MAC); err != nil {
			return cloudpal.E(op, "", fmt.Errorf("settle %v: %w", a, err))
		}
	}
	return nil
}

// reached are the VM's addresses that the host can reach.
func (v *nic) reached() []netip.Addr {
	return slices.DeleteFunc(slices.Clone(v.Addrs), func(a netip.Addr) bool { return a.Is6() && !v.n.six })
}

// plugged returns the tap, or nil where there is none.
func (v *nic) plugged() *route.Tap {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.tap
}

// release delivers what is held, and from now on at once what is late.
func (v *nic) release() {
	v.mu.Lock()
	defer v.mu.Unlock()
	for _, p := range v.held {
		// One that cannot be sent is one that the network lost.
		if err := v.inject(p); err != nil {
			v.n.cfg.Log.Warn("deliver a held packet", "vm", v.name, "err", err)
		}
		if v.judge == nil || carriesData(p.ip) {
			v.last = time.Now()
		}
	}
	v.n.giveBack(v.size)
	v.held, v.size, v.open, v.asked = nil, 0, true, time.Time{}
}

// Hold keeps packets from now on.
func (n *Network) Hold(name string) error {
	v, err := n.find(name)
	if err != nil {
		return err
	}
	v.mu.Lock()
	tap := v.tap
	v.open = false
	v.mu.Unlock()
	if tap == nil {
		return nil
	}
	var errs []error
	for _, a := range v.reached() {
		errs = append(errs, tap.Repel(a))
	}
	if err := errors.Join(errs...); err != nil {
		return cloudpal.E("hold the packets of vm "+name, "", err)
	}
	return nil
}

// Unplug puts what the VM's process never took at the head of what is held,
// and removes the tap. The process is gone.
func (n *Network) Unplug(name string) error {
	if err := n.Hold(name); err != nil {
		return err
	}
	v, err := n.find(name)
	if err != nil {
		return err
	}
	to, why := v.unplug()
	if why != "" {
		n.cfg.Wake(to, why)
	}
	return nil
}

// unplug is Unplug for what it holds. It returns why the VM is to be woken at
// once, by a packet to which address, or "".
func (v *nic) unplug() (netip.Addr, string) {
	n := v.n
	v.mu.Lock()
	defer v.mu.Unlock()
	tap := v.tap
	if tap == nil {
		return netip.Addr{}, ""
	}
	v.tap = nil
	to, why := v.takeBack(tap)
	// The kernel takes 21 ms to remove a tap (measured); nobody waits for it.
	n.tasks.Go(func() {
		var err error
		if v.Rate > 0 {
			err = tap.Unlimit()
		}
		if err := errors.Join(err, tap.File.Close()); err != nil {
			n.cfg.Log.Warn("close a tap", "vm", v.name, "err", err)
		}
	})
	return to, why
}

// takeBack reads what is left in the tap. What is there of a WireGuard's was let
// in when the VM ran, and is judged now: it may have to be woken for it. The
// caller holds mu.
func (v *nic) takeBack(tap *route.Tap) (to netip.Addr, why string) {
	later := v.held
	v.n.giveBack(v.size)
	v.held, v.size = nil, 0
	fd := int(tap.File.Fd())
	if err := unix.SetNonblock(fd, true); err != nil {
		return to, ""
	}
	header, err := unix.IoctlGetInt(fd, unix.TUNGETVNETHDRSZ)
	if err != nil {
		header = vnetSize
	}
	buf := make([]byte, header+etherSize+maxPacket)
	for {
		size, err := unix.Read(fd, buf)
		if err != nil {
			break
		}
		p, err := fromTap(buf[:size], header)
		if err != nil || !v.owns(p) {
			continue
		}
		if v.judge == nil {
			v.keep(p)
		} else if w := v.consider(p, time.Now()); w != "" && why == "" {
			to, _ = destination(p.ip)
			why = w
		}
	}
	for _, p := range later {
		v.keep(p)
	}
	return to, why
}

// owns reports whether a packet goes to one of the VM's addresses.
func (v *nic) owns(p held) bool {
	to, err := destination(p.ip)
	if err != nil {
		return false
	}
	return slices.Contains(v.Addrs, to)
}

// Stats returns how many bytes the VM has received and sent since it was
// plugged in.
func (n *Network) Stats(name string) (in, out int64, err error) {
	v, err := n.find(name)
	if err != nil {
		return 0, 0, err
	}
	tap := v.plugged()
	if tap == nil {
		return 0, 0, nil
	}
	return tap.Counts()
}
