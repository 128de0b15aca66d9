package protocol

import (
	"errors"

	"github.com/tradle/cloudpal"
)

// An Extension carries an application's own messages to the peers of a core.
type Extension struct {
	r      *Replicator
	name   string
	handle func(from *Peer, message []byte)
}

// RegisterExtension makes handle take the messages that peers send under a name;
// a message is handle's only during the call, which must not wait. A name that is
// registered already is replaced.
func (r *Replicator) RegisterExtension(name string, handle func(from *Peer, message []byte)) *Extension {
	x := &Extension{r, name, handle}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.extensions[name] = x
	return x
}

// Close ends the taking of messages.
func (x *Extension) Close() {
	x.r.mu.Lock()
	defer x.r.mu.Unlock()
	if x.r.extensions[x.name] == x {
		delete(x.r.extensions, x.name)
	}
}

var errBacklog = errors.New("the peer does not read the messages that wait already")

// Send sends a message to a peer. It does not wait; it is Busy where 4 MiB wait to
// be sent to the peer.
func (x *Extension) Send(to *Peer, message []byte) error {
	x.r.mu.Lock()
	defer x.r.mu.Unlock()
	return x.sendLocked(to, message)
}

// Broadcast sends a message to all peers but those with too much of a backlog.
func (x *Extension) Broadcast(message []byte) {
	x.r.mu.Lock()
	defer x.r.mu.Unlock()
	for p := range x.r.peers {
		_ = x.sendLocked(p, message)
	}
}

func (x *Extension) sendLocked(to *Peer, message []byte) error {
	o := &to.out
	if o.bytes+len(message) > maxExtension {
		return cloudpal.E("protocol: send "+x.name, cloudpal.Busy, errBacklog)
	}
	e := extension{name: []byte(x.name), message: message}
	if o.name == x.name {
		e.name = nil
	}
	o.name = x.name
	o.messages = append(o.messages, e.append(nil))
	o.bytes += len(message)
	x.r.wake(to)
	return nil
}
