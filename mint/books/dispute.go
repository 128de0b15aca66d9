package books

import (
	"context"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

// A Dispute is about the last ticket that was paid on a tab.
type Dispute struct {
	ID      string
	Serial  ticket.Serial
	Center  ticket.CenterID
	Class   ticket.Class
	Tab     []byte
	Record  []byte       // the last that the center signed, or an answer; or none
	Paid    ticket.Units // on the tab, less what was given back
	Held    ticket.Units
	Outputs []byte // all of the ticket's blank ones, as the mint reads them
	Until   time.Time
	Settled bool
	Units   ticket.Units // claimed while it is open, then given back
}

const disputeColumns = `id, serial, center, class, tab, record, paid, held, outputs, until, state, units`

func readDispute(scan func(...any) error) (d Dispute, err error) {
	var serial, center []byte
	var until int64
	var state string
	if err := scan(&d.ID, &serial, &center, &d.Class, &d.Tab, &d.Record, &d.Paid, &d.Held, &d.Outputs, &until, &state, &d.Units); err != nil {
		return d, err
	}
	if len(serial) != 32 || len(center) != 32 {
		return d, refuse(cloudpal.Corrupt, "a dispute has a part of another size")
	}
	d.Serial, d.Center = ticket.Serial(serial), ticket.CenterID(center)
	d.Until, d.Settled = time.Unix(until, 0).UTC(), state != "open"
	return d, nil
}

// Dispute opens a dispute about a deposit, once, and holds what it claims of what the
// mint owes the center, as far as that goes. It returns the dispute as it is now.
func (b *Books) Dispute(ctx context.Context, d Dispute, hour int64) (Dispute, error) {
	const op = "open a dispute"
	err := b.change(ctx, op, func(t *tx) error {
		if t.exec(`insert into disputes (id, serial, center, class, tab, record, paid, held, outputs, until, state, units)
			values ($1, $2, $3, $4, $5, $6, $7, 0, $8, $9, 'open', $10) on conflict (serial) do nothing`,
			d.ID, d.Serial[:], d.Center[:], int64(d.Class), d.Tab, d.Record, int64(d.Paid), d.Outputs, d.Until.Unix(), int64(d.Units)) == 0 {
			return t.err
		}
		var given int64
		if t.find([]any{&given}, `select units from refunds where serial = $1`, d.Serial[:]) {
			return refuse(cloudpal.Exist, "%d units of the ticket were given back", given)
		}
		owes, unit := of(payable, d.Center[:]), d.Class.String()
		t.exec(`update accounts set balance = balance where unit = $1 and name = $2`, unit, owes) // locks it
		hold := min(int64(d.Units), max(0, t.balance(unit, owes)))
		t.post("dispute/"+d.ID, unit, hour, map[string]int64{owes: -hold, of(held, d.Center[:]): hold})
		t.exec(`update disputes set held = $2, units = $2 where id = $1`, d.ID, hold)
		return nil
	})
	if err != nil {
		return Dispute{}, err
	}
	return b.dispute(ctx, op, `serial = $1`, d.Serial[:])
}

// LookDispute returns a dispute.
func (b *Books) LookDispute(ctx context.Context, id string) (Dispute, error) {
	return b.dispute(ctx, "look at a dispute", `id = $1`, id)
}

func (b *Books) dispute(ctx context.Context, op, where string, arg any) (Dispute, error) {
	list, err := query(ctx, b, op, readDispute, `select `+disputeColumns+` from disputes where `+where, arg)
	if err == nil && len(list) == 0 {
		err = cloudpal.E(op, cloudpal.NotExist, nil)
	}
	if err != nil {
		return Dispute{}, err
	}
	return list[0], nil
}

// Disputes returns those that are open against a center.
func (b *Books) Disputes(ctx context.Context, c ticket.CenterID, most int) ([]Dispute, error) {
	return query(ctx, b, "list disputes", readDispute, `select `+disputeColumns+` from disputes where center = $1 and state = 'open' order by until, id limit $2`, c[:], most)
}

// Overdue returns open disputes that were not answered until then.
func (b *Books) Overdue(ctx context.Context, until time.Time, most int) ([]Dispute, error) {
	return query(ctx, b, "list disputes", readDispute, `select `+disputeColumns+` from disputes where state = 'open' and until <= $1 order by until, id limit $2`, until.Unix(), most)
}

// Settle ends a dispute: units of what is held are given back, into outputs, and the
// center has the rest. The record is the one that says so. A dispute that is ended
// stays as it is. It returns the dispute as it is then.
func (b *Books) Settle(ctx context.Context, id string, record []byte, units ticket.Units, outputs []Output, hour int64) (Dispute, error) {
	const op = "settle a dispute"
	record = append([]byte{}, record...) // SQLite has an empty one come back as nil, and takes that for null
	err := b.change(ctx, op, func(t *tx) error {
		if t.exec(`update disputes set state = 'settled', record = $2, units = $3 where id = $1 and state = 'open' and held >= $3`, id, record, int64(units)) == 0 {
			return t.err
		}
		var serial []byte
		var kept int64
		t.find([]any{&serial, &kept}, `select serial, held from disputes where id = $1`, id)
		if t.err != nil {
			return t.err
		}
		d, _ := t.deposit(ticket.Serial(serial))
		t.release(d, id, ticket.Units(kept), hour)
		if units == 0 {
			return t.err
		}
		if _, err := t.refunded(d.Serial, units, hour); err != nil {
			return err
		}
		return t.refund(d, payable, units, outputs, hour)
	})
	if err != nil {
		return Dispute{}, err
	}
	return b.LookDispute(ctx, id)
}

// open returns the open dispute about a ticket, if there is one.
func (t *tx) open(s ticket.Serial) (id string, kept ticket.Units, open bool) {
	open = t.find([]any{&id, &kept}, `select id, held from disputes where serial = $1 and state = 'open'`, s[:])
	return id, kept, open
}

// release gives a center back what was held.
func (t *tx) release(d Deposit, id string, kept ticket.Units, hour int64) {
	t.post("release/"+id, d.Class.String(), hour, map[string]int64{
		of(held, d.Center[:]): -int64(kept), of(payable, d.Center[:]): int64(kept),
	})
}
