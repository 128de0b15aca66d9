package api

import (
	"context"
	"net/http"
	"strconv"
	"time"
)

// What happened to a VM.
type What string

// What can happen.
const (
	Booted  What = "booted" // it runs, from nothing but its disks
	Woke    What = "woke"   // it runs on, from its snapshot
	Napped  What = "napped"
	Dropped What = "sealed" // its snapshot was dropped, as it was meant to be
	Lost    What = "lost"   // its memory was lost; the next wake boots it
	Ended   What = "stopped"
)

// MaxEvents is how many events of a VM are kept: the last.
const MaxEvents = 1000

// An Event is one thing that happened to a VM. Events are kept on the host's
// disk and name no one who spoke to the VM: who woke it last is in VM.Reason.
type Event struct {
	N      int64         `json:"n"` // counts from 1, in the VM's life
	Time   time.Time     `json:"time"`
	What   What          `json:"what"`
	Reason string        `json:"reason,omitempty"`
	Depth  Depth         `json:"depth,omitempty"` // that it napped to at first; it may have moved since
	Slept  time.Duration `json:"slept,omitempty"` // before it woke, ns
}

// MaxWait is the longest that Events waits.
const MaxWait = time.Minute

// Events returns what happened to a VM after event number after, the oldest
// first. Where that is nothing it waits, for at most wait, which is at most
// MaxWait, and then returns none. A number that was not yet reached is one of
// a VM that was there before, by the same name: all are returned.
func (c *Client) Events(ctx context.Context, name string, after int64, wait time.Duration) ([]Event, error) {
	q, err := vmQuestion(http.MethodGet, "events", name, nil)
	if err != nil {
		return nil, err
	}
	q.path += "?after=" + strconv.FormatInt(after, 10) + "&wait=" + wait.String()
	return ask[[]Event](ctx, c, q)
}
