package books

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

// A Payout is money that a center got for paid tickets. Its reference is the
// operator's own, such as that of a bank's transfer, and names it.
type Payout struct {
	Reference string
	Center    ticket.CenterID
	N         int64 // counts the center's, from 1
	Units     ticket.Units
	At        time.Time // in whole seconds
}

// MaxReference bounds a payout's reference, in bytes.
const MaxReference = 200

// Payout notes that a center was paid, once for each reference, and returns the
// payout as it is written. What was deposited after an hour is not paid out yet: its
// payers may still get some of it back.
func (b *Books) Payout(ctx context.Context, p Payout, after int64) (Payout, error) {
	const op = "note a payout"
	if p.Reference == "" || len(p.Reference) > MaxReference || p.Units == 0 || p.Units > 1<<53 {
		return Payout{}, cloudpal.E(op, cloudpal.Invalid, fmt.Errorf("a payout is of some units, and has a reference of at most %d bytes", MaxReference))
	}
	err := b.change(ctx, op, func(t *tx) error {
		unit, units, hour := ticket.Paid.String(), int64(p.Units), p.At.Unix()/3600
		var was int64
		var to []byte
		if t.find([]any{&to, &was}, `select center, units from payouts where reference = $1`, p.Reference) {
			if ticket.CenterID(to) != p.Center || was != units {
				return refuse(cloudpal.Exist, "under this reference %d units were paid to %x", was, to)
			}
			return nil
		}
		// The post first: it holds the center's account, and so its numbers.
		owes := of(payable, p.Center[:])
		t.post("payout/"+p.Reference, unit, hour, map[string]int64{owes: -units, of(paidOut, p.Center[:]): units})
		var recent, n int64
		t.find([]any{&recent}, `select coalesce(sum(d.amount - coalesce(r.units, 0)), 0)`+depositsFrom+
			`where d.center = $1 and d.class = $2 and d.hour > $3`, p.Center[:], int64(ticket.Paid), after)
		if left := t.balance(unit, owes); t.err == nil && left < recent {
			return refuse(cloudpal.Exhausted, "the center is to be paid %d units now", max(0, left+units-recent))
		}
		t.find([]any{&n}, `select coalesce(max(n), 0) from payouts where center = $1`, p.Center[:])
		t.exec(`insert into payouts (reference, center, n, units, time) values ($1, $2, $3, $4, $5)`, p.Reference, p.Center[:], n+1, units, p.At.Unix())
		return nil
	})
	if err != nil {
		return Payout{}, err
	}
	list, err := query(ctx, b, op, readPayout, `select `+payoutColumns+` from payouts where reference = $1`, p.Reference)
	if err == nil && len(list) == 0 {
		err = cloudpal.E(op, cloudpal.NotExist, nil)
	}
	if err != nil {
		return Payout{}, err
	}
	return list[0], nil
}

const payoutColumns = `reference, center, n, units, time`

func readPayout(scan func(...any) error) (p Payout, err error) {
	var center []byte
	var at int64
	if err := scan(&p.Reference, &center, &p.N, &p.Units, &at); err != nil {
		return p, err
	}
	if len(center) != len(p.Center) {
		return p, refuse(cloudpal.Corrupt, "a payout is to a center of %d bytes", len(center))
	}
	p.Center, p.At = ticket.CenterID(center), time.Unix(at, 0).UTC()
	return p, nil
}

// Payouts returns a center's newest payouts, the newest first.
func (b *Books) Payouts(ctx context.Context, c ticket.CenterID, most int) ([]Payout, error) {
	return query(ctx, b, "list payouts", readPayout, `select `+payoutColumns+` from payouts where center = $1 order by n desc limit $2`, c[:], most)
}

// A Debt is what the mint owes a center for paid tickets.
type Debt struct {
	Center    ticket.CenterID
	Deposited ticket.Units
	Refunded  ticket.Units
	PaidOut   ticket.Units
	Held      ticket.Units // of what is left, for disputes
	Recent    ticket.Units // of what is left, that its payers may still get some of back
}

// Owed is what is left.
func (d Debt) Owed() ticket.Units { return d.Deposited - d.Refunded - d.PaidOut }

// Due is what can be paid out now.
func (d Debt) Due() ticket.Units {
	if kept := d.Held + d.Recent; d.Owed() > kept {
		return d.Owed() - kept
	}
	return 0
}

// Debts adds up what is owed to each center from its deposits, what was given back of
// them, and its payouts. It fails where the accounts have something else. Deposits
// after an hour are recent.
func (b *Books) Debts(ctx context.Context, after int64) ([]Debt, error) {
	const op = "add up what centers are owed"
	type part struct {
		center         []byte
		name           string
		a, back, fresh int64
	}
	// One statement, so that all of it is of one moment.
	parts, err := query(ctx, b, op, func(scan func(...any) error) (p part, err error) {
		return p, scan(&p.center, &p.name, &p.a, &p.back, &p.fresh)
	}, `select d.center as center, 'deposits' as name, sum(d.amount), coalesce(sum(r.units), 0), sum(case when d.hour > $2 then d.amount - coalesce(r.units, 0) else 0 end)`+
		depositsFrom+`where d.class = $3 group by d.center
		union all select center, 'payouts', sum(units), 0, 0 from payouts group by center
		union all select cast(null as bytea), name, balance, 0, 0 from accounts where unit = $1 and (name like 'payable/%' or name like 'held/%')
		order by center, name`, ticket.Paid.String(), after, int64(ticket.Paid))
	if err != nil {
		return nil, err
	}
	var debts []Debt
	accounts := map[string]int64{}
	at := map[string]int{}
	for _, p := range parts {
		if p.center == nil {
			accounts[p.name] = p.a
			continue
		}
		id := ticket.CenterID{}
		if copy(id[:], p.center) != len(id) || len(p.center) != len(id) {
			return nil, cloudpal.E(op, cloudpal.Corrupt, fmt.Errorf("a center's key has %d bytes", len(p.center)))
		}
		i, ok := at[string(p.center)]
		if !ok {
			i = len(debts)
			at[string(p.center)], debts = i, append(debts, Debt{Center: id})
		}
		if p.name == "payouts" {
			debts[i].PaidOut = ticket.Units(p.a)
			continue
		}
		debts[i].Deposited, debts[i].Refunded, debts[i].Recent = ticket.Units(p.a), ticket.Units(p.back), ticket.Units(p.fresh)
	}
	for i := range debts {
		d := &debts[i]
		owes, keeps := of(payable, d.Center[:]), of(held, d.Center[:])
		if got := accounts[owes] + accounts[keeps]; got != int64(d.Deposited)-int64(d.Refunded)-int64(d.PaidOut) {
			return nil, cloudpal.E(op, cloudpal.Corrupt, fmt.Errorf("the account of the center %x has %d units; %d were deposited, %d given back and %d paid out",
				d.Center, got, d.Deposited, d.Refunded, d.PaidOut))
		}
		d.Held = ticket.Units(accounts[keeps])
		delete(accounts, owes)
		delete(accounts, keeps)
	}
	for name, balance := range accounts {
		if balance != 0 {
			return nil, cloudpal.E(op, cloudpal.Corrupt, errors.New("the account "+name+" is of a center without deposits"))
		}
	}
	return debts, nil
}
