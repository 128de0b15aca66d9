package person

import (
	"context"
	"errors"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
)

// An UpRequest asks for a pal that answers.
type UpRequest struct {
	AcceptCore string `json:"acceptCore,omitempty"` // an image of the core that is to be trusted from now on
}

// A Step is one of those that lead to a pal that answers. It is told when it
// begins, and again when it is done.
type Step struct {
	Name string        `json:"step"`
	Done bool          `json:"done,omitempty"`
	Took time.Duration `json:"took,omitempty"` // ns
}

// joinTimeout bounds how long the pal may take to answer on the overlay.
const joinTimeout = 60 * time.Second

// up does what is left to do. Each step may be done again, and finds what an
// earlier try has done.
func (a *Agent) up(ctx context.Context, r UpRequest, tell func(Step)) error {
	step := func(name string, f func() error) error {
		begun := time.Now()
		tell(Step{Name: name})
		err := f()
		if err == nil {
			tell(Step{Name: name, Done: true, Took: time.Since(begun)})
		}
		return err
	}
	err := a.fund(ctx, func(f func() error) error { return step("paying the center", f) })
	if err != nil {
		return err
	}
	a.work.Lock()
	defer a.work.Unlock()
	c, s, err := a.ask()
	if err != nil {
		return err
	}
	name := "making your pal"
	if s.Pal != nil {
		name = "finding your pal"
	}
	var p api.Pal
	if err := step(name, func() error { p, err = a.find(ctx, c, s, r); return err }); err != nil {
		return err
	}
	if s, err = a.home.Read(); err != nil {
		return err
	}
	if p.Boots != s.Pal.Boots || !mayBeLocked(p) {
		if err := a.boot(ctx, c, s, p, step); err != nil {
			return err
		}
	}
	err = step("joining this device", func() error { return a.join(ctx) })
	a.note(ctx, err)
	a.hasten()
	return err
}

// find returns the pal, and makes it where there is none.
func (a *Agent) find(ctx context.Context, c *api.Client, s State, r UpRequest) (p api.Pal, err error) {
	if s.Pal == nil {
		p, err = a.create(ctx, c, s)
	} else {
		p, err = c.Pal(ctx, s.Pal.ID)
	}
	if errors.Is(err, cloudpal.NotExist) {
		return p, cloudpal.E("find your pal", cloudpal.NotExist, errors.New("the center has none of yours")).
			WithHint("if it was destroyed, begin anew: cloudpal destroy --forget")
	}
	if err != nil {
		return p, err
	}
	if r.AcceptCore != "" {
		err = a.accept(ctx, p, r.AcceptCore)
	}
	if err == nil {
		err = a.saw(ctx, s, p)
	}
	return p, err
}

// create makes a pal. The center makes one for one key, however often it is
// asked.
func (a *Agent) create(ctx context.Context, c *api.Client, s State) (api.Pal, error) {
	secrets, err := s.secrets()
	if err != nil {
		return api.Pal{}, err
	}
	defer secrets.Wipe()
	key := secrets.WireGuardKey()
	p, err := c.Create(ctx, api.CreateRequest{WireGuard: key[:]})
	if err != nil {
		return p, err
	}
	return p, a.home.Change(ctx, func(s *State) error {
		s.Pal = &Pal{ID: p.ID, Image: p.Image.ID, Endpoints: endpoints(p)}
		return nil
	})
}

// accept trusts the image that the core is made of now, if it is the one that
// the person names.
func (a *Agent) accept(ctx context.Context, p api.Pal, image string) error {
	if p.Image.ID != image {
		return cloudpal.E("accept the core", cloudpal.Invalid, errors.New("it is made of "+p.Image.ID)).
			WithHint("give --accept-core that, if it is what you expect")
	}
	return a.home.Change(ctx, func(s *State) error {
		s.Pal.Image = image
		return nil
	})
}

// boot starts a core that does not run, and unlocks it.
func (a *Agent) boot(ctx context.Context, c *api.Client, s State, p api.Pal, step func(string, func() error) error) error {
	err := step("booting its core", func() (err error) {
		if err = s.pinned(p); err == nil {
			p, err = c.Wake(ctx, p.ID)
		}
		return err
	})
	if err != nil {
		return err
	}
	return step("unlocking", func() error { return a.unlock(ctx, c, s, p) })
}

// join opens the tunnel, and exchanges device lists with the core through it:
// the proof that it works.
func (a *Agent) join(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	a.mu.Lock()
	mode := a.mode
	a.mu.Unlock()
	if err := a.openTunnel(mode); err != nil {
		return err
	}
	err := a.exchange(ctx)
	if errors.Is(err, cloudpal.Timeout) {
		return cloudpal.E("reach your pal", cloudpal.Timeout, err).
			WithHint("does a firewall between here and the center drop UDP? cloudpal status shows where the pal should be")
	}
	return err
}
