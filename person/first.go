package person

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/console"
	"github.com/tradle/cloudpal/identity"
)

// first is the first page: how the pal is, as the center tells it. A pal that
// sleeps sleeps on.
func (p *page) first(r *http.Request) (console.Page, error) {
	v, err := p.agent.firstPage(r.Context())
	if err != nil {
		p.agent.log.Warn("cannot show the pal", "err", err)
		return v, err
	}
	if f, err := p.form(); err == nil {
		v.Add = &f
	}
	return v, nil
}

func (a *Agent) firstPage(ctx context.Context) (console.Page, error) {
	v := console.Page{Now: time.Now(), Location: time.Local}
	c, s, err := a.ask()
	if err != nil {
		return v, err
	}
	if s.Pal == nil {
		return v, errNoPal
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	p, err := c.Pal(ctx, s.Pal.ID)
	if err != nil {
		return v, err
	}
	events, err := c.Events(ctx, p.ID, 0, 0)
	if err != nil {
		return v, err
	}
	v.Awake, v.Since = p.State == api.Awake, p.Since
	v.Naps, v.Woke, v.From = dayOf(events, p.Created)
	v.Money = a.purseFor(ctx, c, s, v.Awake)
	devices, err := s.Devices()
	if err != nil {
		return v, err
	}
	var seen map[identity.DeviceID]sight
	if v.Awake {
		seen = a.sights(ctx)
	}
	for _, d := range devices {
		n := seen[d.ID]
		v.Devices = append(v.Devices, console.Device{
			Name: d.Name, Addresses: d.Addresses, This: d.This, Added: d.Added,
			Seen: n.Handshake, Received: n.Received, Sent: n.Sent,
		})
	}
	return v, nil
}

// purseFor is what the page shows of the pal's money; what it costs is not shown where
// the center does not say it.
func (a *Agent) purseFor(ctx context.Context, c *api.Client, s State, awake bool) *console.Money {
	a.mu.Lock()
	purse, poor := a.purse, a.poor
	a.mu.Unlock()
	if purse == nil && poor == nil {
		return nil
	}
	v := &console.Money{}
	if purse != nil {
		m, err := s.money(ctx, c, purse, awake)
		if err != nil && poor == nil {
			poor = err
		}
		if err == nil {
			v.Units, v.Tickets, v.Paid, v.Ahead = uint64(m.Units), m.Tickets, uint64(m.Left), uint64(m.Ahead)
			v.Hour, v.Days, v.Ended = m.Hour, m.Days, m.Stage != api.Funded
			for _, c := range m.Costs {
				v.Costs = append(v.Costs, console.Cost(c))
			}
		}
	}
	if poor != nil {
		v.Trouble = sentence(poor)
	}
	return v
}

// dayOf makes naps of events, and tells the last wake and from when on they are
// all known.
func dayOf(events []api.Event, created time.Time) (naps []console.Nap, woke *console.Wake, from time.Time) {
	if len(events) == 0 {
		return nil, nil, time.Time{}
	}
	from = created
	if events[0].N > 1 {
		from = events[0].Time
	}
	var asleep time.Time
	for _, e := range events {
		switch e.What {
		case api.Napped, api.Dropped, api.Lost, api.Ended:
			if asleep.IsZero() {
				asleep = e.Time
			}
		case api.Woke, api.Booted:
			woke = &console.Wake{Time: e.Time, Reason: e.Reason}
			if !asleep.IsZero() {
				woke.Slept = e.Time.Sub(asleep)
				naps = append(naps, console.Nap{From: asleep, To: e.Time, Reason: e.Reason})
			}
			asleep = time.Time{}
		}
	}
	return naps, woke, from
}

// A sight is what the core has seen of a device.
type sight struct {
	ID        identity.DeviceID `json:"id"`
	Handshake time.Time         `json:"handshake"`
	Received  int64             `json:"received"`
	Sent      int64             `json:"sent"`
}

const sightTimeout = 2 * time.Second

// sights asks the core what it has seen of the devices. One that does not
// answer has seen nothing.
func (a *Agent) sights(ctx context.Context) map[identity.DeviceID]sight {
	ctx, cancel := context.WithTimeout(ctx, sightTimeout)
	defer cancel()
	data, err := a.askPal(ctx, http.MethodGet, "/v1/pal", "", nil)
	var pal struct {
		Devices []sight `json:"devices"`
	}
	if err != nil || json.Unmarshal(data, &pal) != nil {
		return nil
	}
	seen := map[identity.DeviceID]sight{}
	for _, d := range pal.Devices {
		seen[d.ID] = d
	}
	return seen
}
