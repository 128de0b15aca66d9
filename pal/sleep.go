package pal

import (
	"context"
	"time"

	"github.com/tradle/cloudpal/compute/guest"
	"github.com/tradle/cloudpal/network/overlay"
	"github.com/tradle/cloudpal/pal/api"
	"github.com/tradle/cloudpal/pal/hub"
)

const (
	lookEvery   = 10 * time.Second // after the devices' sessions and places, while awake
	markEvery   = time.Minute      // that the core is awake
	followAgain = time.Second      // after an error
	recordAfter = time.Second      // a nap, when the core has done what it was woken for
	// greetWithin is how long after a device's last handshake it may still
	// think that there is a session: hub.Lifetime, and what the core's own
	// record may be behind.
	greetWithin = 5 * time.Minute
)

// watch follows the core's sleep, and its devices, until close.
func (p *unlocked) watch() {
	var ctx context.Context
	ctx, p.cancel = context.WithCancel(context.Background())
	p.mu.Lock()
	p.greetLocked(func(pl place) bool { return p.since.Sub(pl.Handshake) < greetWithin })
	p.mu.Unlock()
	if p.core.Self != nil {
		p.tasks.Go(func() { p.followResumes(ctx) })
	}
	p.tasks.Go(func() { p.lookAround(ctx) })
}

// greetLocked speaks first to devices that may think that they have a session
// with this core, which knows of none: they would be heard by nobody for a
// quarter of a minute.
func (p *unlocked) greetLocked(who func(place) bool) {
	v4, _ := p.list.Network()
	for _, d := range p.list.Devices() {
		if pl, ok := p.places[hub.Key(d.WireGuard)]; ok && pl.Endpoint.IsValid() && who(pl) {
			if err := hub.Greet(overlay.Addr(v4, d.Index)); err != nil {
				p.log.Warn("a device was not greeted")
			}
		}
	}
}

func (p *unlocked) followResumes(ctx context.Context) {
	for ctx.Err() == nil {
		err := p.core.Self.Resumes(ctx, func(r guest.Resume) { p.resumed(ctx, r) })
		if ctx.Err() != nil {
			return
		}
		p.log.Warn("the VM's resumes are not told", "err", err)
		pause(ctx, followAgain)
	}
}

// resumed puts right what the nap has made wrong. After a long nap packets
// wait until it returns, but not for long: what can be done later is. After a
// short one the core has better to do than to look at what is most likely
// right.
func (p *unlocked) resumed(ctx context.Context, r guest.Resume) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !r.Time.After(p.awake) {
		return // it is known, or was before the unlock
	}
	p.awake = r.Time
	if r.Slept > guest.LongNap || p.mayBeOutlivedLocked(time.Now()) {
		p.renewLocked()
	}
	p.naps.add(api.Nap{From: r.Time.Add(-r.Slept), To: r.Time, Reason: r.Reason})
	p.names.Flush()
	p.tasks.Go(func() {
		p.greetRenewed()
		pause(ctx, recordAfter)
		p.record()
	})
}

// record writes down what has changed.
func (p *unlocked) record() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.naps.save(); err != nil {
		p.log.Warn("a nap was not written down", "err", err)
	}
	if !p.moved {
		return
	}
	if err := p.store.setPlaces(p.livingPlaces()); err != nil {
		p.log.Warn("the devices' places were not written down", "err", err)
		return
	}
	p.moved = false
}

// mayBeOutlivedLocked tells, without a look at the kernel, whether a session is
// likely over.
func (p *unlocked) mayBeOutlivedLocked(now time.Time) bool {
	for _, pl := range p.places {
		if outlived(pl.Handshake, p.awake, now) && now.Sub(pl.Handshake) < greetWithin {
			return true
		}
	}
	return false
}

// lookAround keeps what is known of the devices, and what the kernel knows of
// them, true.
func (p *unlocked) lookAround(ctx context.Context) {
	var marked time.Time
	for ctx.Err() == nil {
		if now := time.Now().Round(0); now.Sub(marked).Abs() >= markEvery {
			marked = now
			if err := p.store.noteAwake(); err != nil {
				p.log.Warn("the time was not written down", "err", err)
			}
		}
		p.mu.Lock()
		p.renewLocked()
		p.mu.Unlock()
		p.greetRenewed()
		p.record()
		select {
		case <-p.look:
		case <-time.After(lookEvery):
		case <-ctx.Done():
		}
	}
}

// renewLocked gives up sessions that devices have given up while the core
// slept: it has itself not noticed, for its clock stood still.
func (p *unlocked) renewLocked() {
	peers, err := p.hub.Peers()
	if err != nil {
		p.log.Warn("the devices were not looked at", "err", err)
		return
	}
	if err := p.hub.Renew(p.noteLocked(peers, time.Now())); err != nil {
		p.log.Warn("sessions were not renewed", "err", err)
	}
}

// greetRenewed speaks to devices whose sessions were given up: by a clock that
// is a little behind, they have not.
func (p *unlocked) greetRenewed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.greetLocked(func(pl place) bool { return pl.renewed && time.Since(pl.Handshake) < greetWithin })
	for k, pl := range p.places {
		pl.renewed = false
		p.places[k] = pl
	}
}

// noteLocked takes in what the kernel knows of the devices, and returns those
// with a session that is over.
func (p *unlocked) noteLocked(peers []hub.Status, now time.Time) (stale []hub.Peer) {
	for _, s := range peers {
		pl := p.places[s.Key]
		if s.Endpoint.IsValid() && s.Endpoint != pl.Endpoint {
			pl.Endpoint, p.moved = s.Endpoint, true
		}
		if s.Handshake.After(pl.Handshake) {
			pl.Handshake, p.moved = s.Handshake, true
		}
		d, known := p.device(s.Key)
		over := known && outlived(s.Handshake, p.awake, now)
		if over {
			pl.renewed = true
			pl.received, pl.sent = pl.received+s.Received, pl.sent+s.Sent
		}
		p.places[s.Key] = pl
		if over {
			stale = append(stale, p.peer(d))
		}
	}
	return stale
}

// outlived reports whether a session with this handshake is over although the
// kernel does not know: it was over before the time was up by its own clock,
// which stood still in a nap since then.
func outlived(handshake, awake, now time.Time) bool {
	return !handshake.IsZero() && handshake.Before(awake) && now.Round(0).Sub(handshake) > hub.Lifetime
}

// pause waits, or ends with ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
