package pal

import (
	"context"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/identity"
	"github.com/tradle/cloudpal/pal/api"
)

// How often an unlock may be tried: each try costs the core, and the host,
// which passes them on, belongs to somebody else.
const (
	unlockEvery = time.Second
	unlockBurst = 10
)

// A lock is a core's state: it has a key, or what the key was for.
type lock struct {
	open  func(identity.Unlock) (*unlocked, error)
	tries *rate.Limiter
	turn  chan struct{} // holds one: whose turn it is to unlock

	mu  sync.Mutex
	key *identity.UnlockKey // nil: unlocked
	pal *unlocked
}

func newLock(open func(identity.Unlock) (*unlocked, error)) *lock {
	return &lock{
		open: open, key: identity.NewUnlockKey(), turn: make(chan struct{}, 1),
		tries: rate.NewLimiter(rate.Every(unlockEvery), unlockBurst),
	}
}

func (l *lock) state() (*identity.UnlockKey, *unlocked) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.key, l.pal
}

// describe is the answer to who asks for the lock.
func (l *lock) describe() api.Lock {
	a := api.Lock{Attestation: api.Attestation{Kind: "none"}}
	key, p := l.state()
	if p != nil {
		k := p.key
		a.WireGuard = k[:]
		return a
	}
	a.Locked, a.Key = true, key.Public()
	return a
}

// unlock opens what was sealed to this core. The error is cloudpal.Exist where
// the core is unlocked, cloudpal.Busy where it was tried too often,
// cloudpal.Denied and cloudpal.Invalid as identity has it.
func (l *lock) unlock(ctx context.Context, sealed []byte) error {
	if !l.tries.Allow() {
		return cloudpal.E("unlock", cloudpal.Busy, nil)
	}
	select {
	case l.turn <- struct{}{}:
		defer func() { <-l.turn }()
	case <-ctx.Done():
		return cloudpal.E("unlock", cloudpal.Timeout, ctx.Err())
	}
	key, p := l.state()
	if p != nil {
		return errUnlocked
	}
	u, err := key.Open(sealed, time.Now())
	if err != nil {
		return err
	}
	// WireGuard and the volume's cipher are the kernel's from now on.
	defer u.Secrets.Wipe()
	if p, err = l.open(u); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.key, l.pal = nil, p
	return nil
}

// close locks the core for good.
func (l *lock) close() error {
	l.turn <- struct{}{}
	if _, p := l.state(); p != nil {
		return p.close()
	}
	return nil
}
