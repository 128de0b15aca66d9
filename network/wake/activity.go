//go:build linux

package wake

import (
	"net/netip"
	"sync"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/network/route"
)

// fresh is how old what the kernel said of all VMs may be. Who watches many asks
// for each, and the kernel tells of all at once.
const fresh = 200 * time.Millisecond

// tick is how much earlier than it was the kernel may say that something was:
// it counts in ticks of 10 ms at most.
const tick = 20 * time.Millisecond

// An activity is when VMs last had traffic that is a reason to stay awake, as
// the rules noted it.
type activity struct {
	mu    sync.Mutex
	asked time.Time
	at    map[netip.Addr]time.Time
}

func (a *activity) of(r *route.Rules, addrs []netip.Addr) (time.Time, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if time.Since(a.asked) > fresh {
		at, err := r.Active()
		if err != nil {
			return time.Time{}, err
		}
		a.asked, a.at = time.Now(), at
	}
	var last time.Time
	for _, addr := range addrs {
		if t := a.at[addr]; t.After(last) {
			last = t
		}
	}
	return last, nil
}

// Activity tells when the VM last had traffic that is a reason to stay awake,
// either way; zero where it had none since it was plugged in. For a WireGuard
// peer only its sessions' data is; for others all that was let pass.
func (n *Network) Activity(name string) (time.Time, error) {
	v, err := n.find(name)
	if err != nil || v.plugged() == nil {
		return time.Time{}, err
	}
	at, err := n.activity.of(n.rules, v.Addrs)
	if err != nil {
		return time.Time{}, cloudpal.E("see whether vm "+name+" has traffic", "", err)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if at.After(v.last) && at.After(v.pluggedIn.Add(-tick)) {
		v.last = at
	}
	return v.last, nil
}
