//go:build !linux

package tunnel

import (
	"context"
	"net"
	"time"
)

// watchEvery is how often this machine's addresses are looked at.
const watchEvery = 2 * time.Second

// watch says when this machine's addresses have changed.
func watch(ctx context.Context, changes chan<- struct{}) {
	t := time.NewTicker(watchEvery)
	defer t.Stop()
	for was := addresses(); ; {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if now := addresses(); now != was {
			was = now
			tell(changes)
		}
	}
}

func addresses() (all string) {
	addrs, _ := net.InterfaceAddrs()
	for _, a := range addrs {
		all += a.String() + " "
	}
	return all
}
