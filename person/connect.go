package person

import (
	"context"
	"errors"
	"os"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
)

// A SleepRequest puts the pal to sleep.
type SleepRequest struct {
	Depth api.Depth `json:"depth,omitempty"` // "": as the center thinks right
}

// sleep puts the pal to sleep. One that sleeps already sleeps on.
func (a *Agent) sleep(ctx context.Context, q SleepRequest) error {
	c, s, err := a.ask()
	if err != nil {
		return err
	}
	if s.Pal == nil {
		return nil
	}
	return s.Sleep(ctx, c, q.Depth)
}

// Sleep puts the pal to sleep, if it is awake.
func (s State) Sleep(ctx context.Context, c *api.Client, depth api.Depth) error {
	p, err := c.Pal(ctx, s.Pal.ID)
	if err != nil {
		return err
	}
	if p.State != api.Awake && p.State != api.Starting {
		return nil
	}
	_, err = c.Sleep(ctx, s.Pal.ID, depth)
	return err
}

// connect leads this machine's traffic into the tunnel.
func (a *Agent) connect(ctx context.Context, q ConnectRequest) error {
	const op = "connect this machine"
	if os.Geteuid() != 0 {
		return cloudpal.E(op, cloudpal.Denied, errors.New("only root may change this machine's network")).
			WithHint("run: sudo cloudpal connect")
	}
	a.work.Lock()
	defer a.work.Unlock()
	s, err := a.home.Read()
	if err != nil {
		return cloudpal.E(op, "", err)
	}
	mode := Overlay
	if q.Everything {
		mode = Everything
		if err := a.letOut(ctx, s); err != nil {
			return cloudpal.E(op, "", err)
		}
	}
	if err := a.openTunnel(mode); err != nil {
		return errors.Join(cloudpal.E(op, "", err), a.openTunnel(OnlyAgent))
	}
	return nil
}

// letOut has the pal let this device out to the internet, before all it sends
// goes there.
func (a *Agent) letOut(ctx context.Context, s State) error {
	_, _, self, err := s.self()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	a.mu.Lock()
	open := a.tun != nil && !isClosed(a.tun)
	a.mu.Unlock()
	if !open {
		if err := a.openTunnel(OnlyAgent); err != nil {
			return err
		}
	}
	return a.setExit(ctx, self.ID, true)
}

// disconnect undoes connect.
func (a *Agent) disconnect() error {
	a.work.Lock()
	defer a.work.Unlock()
	err := a.openTunnel(OnlyAgent)
	if errors.Is(err, errNoPal) {
		err = nil
	}
	return errors.Join(err, a.lower())
}
