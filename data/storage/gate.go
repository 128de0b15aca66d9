package storage

import (
	"math"
	"sync/atomic"
)

// A gate lets readers in until it is shut, and tells who shuts it when the last
// one has left. Readers may enter while they are inside: once it is being shut
// they are turned away, and do not wait for each other.
type gate struct {
	inside atomic.Int64  // how many; from math.MinInt64 on where it is shut
	idle   chan struct{} // of one place: perhaps nobody is inside
}

// enter reports whether the caller is in. If so, it calls leave.
func (g *gate) enter() bool {
	if g.inside.Add(1) > 0 {
		return true
	}
	g.leave()
	return false
}

func (g *gate) leave() {
	if g.inside.Add(-1) == math.MinInt64 {
		select {
		case g.idle <- struct{}{}:
		default:
		}
	}
}

// shutting reports whether the gate is shut, or being shut.
func (g *gate) shutting() bool { return g.inside.Load() < 0 }

// shut turns readers away and returns when nobody is inside. It is called once.
func (g *gate) shut() {
	for n := g.inside.Add(math.MinInt64); n != math.MinInt64; n = g.inside.Load() {
		<-g.idle
	}
}
