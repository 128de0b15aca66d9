package person

import (
	"context"
	"net/netip"
	"os"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/identity"
)

// A Status is what there is to know of a pal without waking it.
type Status struct {
	Person  identity.ID    `json:"person"`
	Device  string         `json:"device"` // the name of this one
	Center  CenterStatus   `json:"center"`
	Pal     *api.Pal       `json:"pal"`            // null where it is not made, or the center does not answer
	Woke    *api.Event     `json:"woke,omitempty"` // the last wake or boot
	Network []netip.Prefix `json:"network"`        // the overlay
	Devices []Device       `json:"devices"`
	Agent   *AgentStatus   `json:"agent"`           // null where none runs
	Money   *Money         `json:"money,omitempty"` // where the pal is paid for
	Problem string         `json:"problem,omitempty"`
	Hint    string         `json:"hint,omitempty"`
}

// A CenterStatus is of the pal's center.
type CenterStatus struct {
	Address api.Address `json:"address"`
	Local   bool        `json:"local"` // on this machine, by cloudpal up
	Answers bool        `json:"answers"`
}

// An AgentStatus is of this device's agent and its tunnel.
type AgentStatus struct {
	Version   string         `json:"version"`
	PID       int            `json:"pid"`
	Root      bool           `json:"root"` // it may make a TUN device
	Mode      Mode           `json:"mode"` // what goes through the tunnel
	Endpoint  netip.AddrPort `json:"endpoint"`
	Handshake time.Time      `json:"handshake"` // the last; zero where there was none
	Received  int64          `json:"received"`  // bytes on the network
	Sent      int64          `json:"sent"`
}

// askTimeout bounds how long a status waits for the center.
const askTimeout = 5 * time.Second

// Status asks the center for what there is to know, without an agent.
func (h *Home) Status(ctx context.Context) (Status, error) {
	s, err := h.Read()
	if err != nil {
		return Status{}, err
	}
	c, err := s.Ask(nil)
	if err != nil {
		return Status{}, err
	}
	defer c.Close()
	st, err := status(ctx, c, s, true)
	if err != nil || !st.Center.Answers {
		return st, err
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	st.Money, err = h.money(ctx, c, s, st.Pal.State == api.Awake)
	st.trouble(err)
	return st, nil
}

// money tells how the pal is paid for: nil where its center is free of charge.
func (h *Home) money(ctx context.Context, c *api.Client, s State, awake bool) (*Money, error) {
	about, err := c.Center(ctx)
	if err != nil || !about.Paid {
		return nil, err
	}
	w, err := h.openPaying(ctx, c, s, nil)
	if err != nil {
		return nil, err
	}
	defer w.Close()
	return s.money(ctx, c, w, awake)
}

func status(ctx context.Context, c *api.Client, s State, events bool) (Status, error) {
	_, list, self, err := s.self()
	if list == nil {
		return Status{}, err
	}
	v4, v6 := list.Network()
	st := Status{
		Person: s.Person, Device: self.Name, Network: []netip.Prefix{v4, v6},
		Center: CenterStatus{Address: s.Center.Address, Local: s.Center.Local != nil},
	}
	st.trouble(err)
	if st.Devices, err = s.Devices(); err != nil {
		return st, err
	}
	if s.Pal == nil {
		st.trouble(errNoPal)
		return st, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	p, err := c.Pal(ctx, s.Pal.ID)
	st.trouble(err)
	if err != nil {
		return st, nil
	}
	st.Center.Answers, st.Pal = true, &p
	st.trouble(s.pinned(p))
	if events {
		list, err := c.Events(ctx, p.ID, 0, 0)
		st.trouble(err)
		st.Woke = lastWake(list)
	}
	return st, nil
}

// trouble keeps the first that there is.
func (st *Status) trouble(err error) {
	if err != nil && st.Problem == "" {
		st.Problem, st.Hint = err.Error(), cloudpal.HintOf(err)
	}
}

func lastWake(events []api.Event) *api.Event {
	for i := len(events) - 1; i >= 0; i-- {
		if e := events[i]; e.What == api.Woke || e.What == api.Booted {
			return &e
		}
	}
	return nil
}

// status adds what the agent knows.
func (a *Agent) status(ctx context.Context) (Status, error) {
	c, s, err := a.ask()
	if err != nil {
		return Status{}, err
	}
	a.mu.Lock()
	woke, problem, purse, poor := a.woke, a.problem, a.purse, a.poor
	a.mu.Unlock()
	st, err := status(ctx, c, s, woke.N == 0)
	if err != nil {
		return st, err
	}
	if woke.N != 0 {
		st.Woke = &woke
	}
	if poor != nil && s.Pal == nil {
		st.Problem = "" // that there is no pal yet follows from it
		st.trouble(poor)
	}
	st.trouble(problem)
	st.trouble(poor)
	if purse != nil && st.Center.Answers {
		ctx, cancel := context.WithTimeout(ctx, askTimeout)
		defer cancel()
		st.Money, err = s.money(ctx, c, purse, st.Pal.State == api.Awake)
		st.trouble(err)
	}
	st.Agent = a.self()
	return st, nil
}

// self is what the agent knows without asking anybody.
func (a *Agent) self() *AgentStatus {
	a.mu.Lock()
	tun, mode := a.tun, a.mode
	a.mu.Unlock()
	g := &AgentStatus{Version: a.version, PID: os.Getpid(), Root: os.Geteuid() == 0, Mode: mode}
	if tun != nil {
		t := tun.Stats()
		g.Endpoint, g.Handshake, g.Received, g.Sent = t.Endpoint, t.Handshake, t.Received, t.Sent
	}
	return g
}
