package tunnel

import (
	"context"
	"time"

	"github.com/vishvananda/netlink"
)

// watch says when this machine's addresses or routes have changed.
func watch(ctx context.Context, changes chan<- struct{}) {
	addrs := make(chan netlink.AddrUpdate, 16)
	routes := make(chan netlink.RouteUpdate, 16)
	if netlink.AddrSubscribe(addrs, ctx.Done()) != nil || netlink.RouteSubscribe(routes, ctx.Done()) != nil {
		return // then the peer learns of it from the next packet
	}
	const settle = 50 * time.Millisecond // an address comes with a handful of routes
	timer := time.NewTimer(settle)
	timer.Stop()
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case _, ok := <-addrs:
			if !ok {
				return
			}
			timer.Reset(settle)
		case _, ok := <-routes:
			if !ok {
				return
			}
			timer.Reset(settle)
		case <-timer.C:
			tell(changes)
		}
	}
}
