package person

import (
	"bytes"
	"context"
	"errors"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/identity"
)

const (
	pollWait   = 30 * time.Second // the center holds the question for events so long
	firstRetry = time.Second
	lastRetry  = 15 * time.Second
)

// loop looks at the pal, unlocks it where that is needed, and waits until
// something happens to it, as the center tells. It never touches the overlay,
// but to bring a device list that the core has not had yet.
func (a *Agent) loop(ctx context.Context) {
	after, retry := int64(0), firstRetry
	for ctx.Err() == nil {
		err := a.home.explain(a.look(ctx))
		a.note(ctx, err)
		if err == nil {
			after, err = a.await(ctx, after)
		}
		if err == nil {
			retry = firstRetry
			continue
		}
		a.rest(ctx, retry)
		retry = min(2*retry, lastRetry)
	}
}

// note keeps a problem, for who asks for the status, and logs one that is new.
func (a *Agent) note(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	a.mu.Lock()
	was := a.problem
	a.problem = err
	a.mu.Unlock()
	if err != nil && (was == nil || was.Error() != err.Error()) && !errors.Is(err, errNoPal) {
		a.log.Warn("cannot look after the pal", "err", err)
	}
}

// rest waits, or until somebody is in a hurry.
func (a *Agent) rest(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-a.kick:
	case <-t.C:
	}
}

// look asks the center for the pal and does what is to be done.
func (a *Agent) look(ctx context.Context) error {
	a.work.Lock()
	defer a.work.Unlock()
	c, s, err := a.ask()
	if err != nil {
		return err
	}
	if s.Pal == nil {
		return errNoPal
	}
	a.mu.Lock()
	open := a.tun != nil && !isClosed(a.tun)
	a.mu.Unlock()
	if !open {
		if err := a.openTunnel(OnlyAgent); err != nil {
			return err
		}
	}
	p, err := c.Pal(ctx, s.Pal.ID)
	if err != nil {
		return err
	}
	if err := a.saw(ctx, s, p); err != nil {
		return err
	}
	if mayBeLocked(p) && p.Boots != s.Pal.Boots {
		if err := a.unlock(ctx, c, s, p); err != nil {
			return err
		}
	}
	if mayBeLocked(p) {
		return a.catchUp(ctx, s)
	}
	return nil
}

// catchUp brings the core a list that it has not had, once more if it did not
// get through. One that it refuses is not brought again.
func (a *Agent) catchUp(ctx context.Context, s State) error {
	list, err := identity.ParseList(s.Person, s.List)
	if err != nil {
		return err
	}
	head := list.Head()
	if bytes.Equal(s.Told, head[:]) || a.refused == head {
		return nil
	}
	err = a.tell(ctx)
	if errors.Is(err, cloudpal.Denied) || errors.Is(err, cloudpal.Invalid) || errors.Is(err, cloudpal.NotExist) {
		a.refused = head
	}
	return err
}

// mayBeLocked tells whether there is a core at all: one that is sealed or
// stopped is unlocked after it has booted.
func mayBeLocked(p api.Pal) bool {
	return p.State == api.Awake || p.State == api.Napping || p.State == api.Starting
}

// unlock unlocks the core, if it is locked, and keeps that this boot of it is.
// The caller holds work.
func (a *Agent) unlock(ctx context.Context, c *api.Client, s State, p api.Pal) error {
	if err := s.pinned(p); err != nil {
		return err
	}
	lock, err := c.Lock(ctx, p.ID)
	if err != nil {
		return err
	}
	boots := p.Boots
	if lock.Locked {
		// Asked for between Lock and Unlock: what is sealed to that boot's key
		// opens no other.
		if p, err = c.Pal(ctx, p.ID); err != nil {
			return err
		}
		if err := s.pinned(p); err != nil {
			return err
		}
		boots = p.Boots
		if err := open(ctx, c, s, p.ID, lock); err != nil {
			return err
		}
		a.log.Info("unlocked the pal", "boot", boots)
	}
	if err := a.saw(ctx, s, p); err != nil {
		return err
	}
	a.mu.Lock()
	tun := a.tun
	a.mu.Unlock()
	if lock.Locked && tun != nil && !tun.Stats().Handshake.IsZero() {
		tun.Renew() // the core that has booted does not know the old session
	}
	return a.home.Change(ctx, func(s *State) error {
		if s.Pal != nil && s.Pal.ID == p.ID {
			s.Pal.Boots = boots
		}
		return nil
	})
}

// open seals the pal's secrets to the core that showed this lock.
func open(ctx context.Context, c *api.Client, s State, pal api.ID, lock api.Lock) error {
	const op = "unlock the pal"
	if kind := lock.Attestation.Kind; kind != "none" && kind != "" {
		return cloudpal.E(op, cloudpal.Denied, errors.New("the core's hardware speaks for it in a way that is not known here")).
			WithHint("is this cloudpal older than the center's?")
	}
	key, list, _, err := s.self()
	if err != nil {
		return cloudpal.E(op, "", err)
	}
	defer key.Wipe()
	secrets, err := s.secrets()
	if err != nil {
		return cloudpal.E(op, "", err)
	}
	defer secrets.Wipe()
	sealed, err := identity.SealUnlock(lock.Key, key, identity.Unlock{Secrets: secrets, List: list, Time: time.Now()})
	if err != nil {
		return cloudpal.E(op, "", err)
	}
	err = c.Unlock(ctx, pal, sealed)
	if errors.Is(err, cloudpal.Exist) {
		return nil // another device was faster
	}
	return err
}

// await waits until something happens to the pal, or somebody is in a hurry. It
// returns the number of the last event.
func (a *Agent) await(ctx context.Context, after int64) (int64, error) {
	c, s, err := a.ask()
	if err != nil || s.Pal == nil {
		return after, errors.Join(err, errIf(s.Pal == nil, errNoPal))
	}
	waiting, stop := context.WithCancel(ctx)
	defer stop()
	hurried := make(chan struct{})
	go func() {
		defer close(hurried)
		select {
		case <-a.kick:
			stop()
		case <-waiting.Done():
		}
	}()
	asked := time.Now()
	events, err := c.Events(waiting, s.Pal.ID, after, pollWait)
	early := waiting.Err() != nil && ctx.Err() == nil
	stop()
	<-hurried
	if early {
		return after, nil
	}
	if err == nil && time.Since(asked) < firstRetry && (len(events) == 0 || events[len(events)-1].N == after) {
		a.rest(ctx, firstRetry) // a center that does not wait is not asked all the time
	}
	for _, e := range events {
		after = e.N
		if e.What == api.Woke || e.What == api.Booted {
			a.mu.Lock()
			a.woke = e
			a.mu.Unlock()
		}
	}
	return after, err
}

func errIf(bad bool, err error) error {
	if bad {
		return err
	}
	return nil
}
