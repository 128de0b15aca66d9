package books

import (
	"context"
	"encoding/hex"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

// A Deposit is a ticket that was paid to a center.
type Deposit struct {
	Serial   ticket.Serial
	Center   ticket.CenterID
	N        int64 // counts the center's, from 1
	Key      ticket.KeyID
	Class    ticket.Class
	Amount   ticket.Denomination
	Blank    ticket.Digest
	Contract ticket.Digest
	Hour     int64
	Epoch    ticket.Epoch // of the receipt
	Refunded ticket.Units
}

const depositColumns = `d.serial, d.center, d.n, d.key, d.class, d.amount, d.blank, d.contract, d.hour, d.epoch, coalesce(r.units, 0)`

const depositsFrom = ` from deposits d left join refunds r on r.serial = d.serial `

func readDeposit(scan func(...any) error) (d Deposit, err error) {
	var serial, center, key, blank, contract []byte
	if err := scan(&serial, &center, &d.N, &key, &d.Class, &d.Amount, &blank, &contract, &d.Hour, &d.Epoch, &d.Refunded); err != nil {
		return d, err
	}
	for _, b := range [][]byte{serial, center, key, blank, contract} {
		if len(b) != 32 {
			return d, refuse(cloudpal.Corrupt, "a deposit has a part of %d bytes", len(b))
		}
	}
	d.Serial, d.Center, d.Key = ticket.Serial(serial), ticket.CenterID(center), ticket.KeyID(key)
	d.Blank, d.Contract = ticket.Digest(blank), ticket.Digest(contract)
	return d, nil
}

func (t *tx) deposit(serial ticket.Serial) (d Deposit, found bool) {
	query := t.statement(`select ` + depositColumns + depositsFrom + `where d.serial = $1`)
	if query == nil {
		return d, false
	}
	rows, err := query.QueryContext(t.ctx, serial[:])
	if err != nil {
		t.err = err
		return d, false
	}
	defer rows.Close()
	if found = rows.Next(); found {
		d, t.err = readDeposit(rows.Scan)
	}
	if t.err == nil {
		t.err = rows.Err()
	}
	return d, found && t.err == nil
}

// Deposit credits a ticket, which the ledger has bound to the deposit's contract, to
// its center, once, and returns the deposit as it is written.
func (b *Books) Deposit(ctx context.Context, k *ticket.Key, d Deposit) (Deposit, error) {
	const op = "credit a deposit"
	var first bool
	err := b.change(ctx, op, func(t *tx) error {
		id, unit := k.ID(), k.Class.String()
		if first = t.spend(Input{k, d.Serial}, d.Contract, d.Hour); !first {
			return t.err
		}
		// The post first: it holds the center's account, and so its numbers.
		t.post("deposit/"+hex.EncodeToString(d.Serial[:]), unit, d.Hour, map[string]int64{
			of(outstanding, id[:]): -int64(k.Denomination), of(payable, d.Center[:]): int64(k.Denomination),
		})
		d.Key, d.Class, d.Amount, d.Refunded = id, k.Class, k.Denomination, 0
		t.find([]any{&d.N}, `select coalesce(max(n), 0) + 1 from deposits where center = $1`, d.Center[:])
		t.exec(`insert into deposits (serial, center, n, key, class, amount, blank, contract, hour, epoch) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
			d.Serial[:], d.Center[:], d.N, id[:], int64(d.Class), int64(d.Amount), d.Blank[:], d.Contract[:], d.Hour, int64(d.Epoch))
		return nil
	})
	switch {
	case err != nil:
		return Deposit{}, err
	case first:
		return d, nil
	}
	return b.Deposited(ctx, d.Serial)
}

// Deposited returns the deposit of a ticket.
func (b *Books) Deposited(ctx context.Context, s ticket.Serial) (Deposit, error) {
	const op = "look for a deposit"
	list, err := query(ctx, b, op, readDeposit, `select `+depositColumns+depositsFrom+`where d.serial = $1`, s[:])
	if err == nil && len(list) == 0 {
		err = cloudpal.E(op, cloudpal.NotExist, nil)
	}
	if err != nil {
		return Deposit{}, err
	}
	return list[0], nil
}

// Deposits returns a center's deposits after number after.
func (b *Books) Deposits(ctx context.Context, c ticket.CenterID, after int64, most int) ([]Deposit, error) {
	return query(ctx, b, "list deposits", readDeposit, `select `+depositColumns+depositsFrom+`where d.center = $1 and d.n > $2 order by d.n limit $3`, c[:], after, most)
}

// DepositsIn returns the deposits under a key in an hour.
func (b *Books) DepositsIn(ctx context.Context, id ticket.KeyID, hour int64) ([]Deposit, error) {
	return query(ctx, b, "list deposits", readDeposit, `select `+depositColumns+depositsFrom+`where d.key = $1 and d.hour = $2`, id[:], hour)
}

// Balance returns what the mint owes a center for tickets of a class, and what more
// is held for disputes.
func (b *Books) Balance(ctx context.Context, c ticket.CenterID, class ticket.Class) (owed, kept int64, err error) {
	const op = "look at a center's account"
	for name, n := range map[string]*int64{payable: &owed, held: &kept} {
		err := b.find(ctx, []any{n}, `select coalesce(sum(balance), 0) from accounts where unit = $1 and name = $2`, class.String(), of(name, c[:]))
		if err != nil {
			return 0, 0, failed(op, err)
		}
	}
	return owed, kept, nil
}

// Refund gives back units of a deposit, which are signed into outputs, from what the
// mint owes the center: once, and it can be repeated with the same units. It ends a
// dispute about it that is open.
func (b *Books) Refund(ctx context.Context, s ticket.Serial, units ticket.Units, outputs []Output, hour int64) error {
	return b.change(ctx, "refund a ticket", func(t *tx) error {
		d, found := t.deposit(s)
		if !found && t.err == nil {
			return refuse(cloudpal.NotExist, "the ticket was not deposited")
		}
		if done, err := t.refunded(s, units, hour); done || err != nil {
			return err
		}
		if id, kept, open := t.open(s); open {
			t.release(d, id, kept, hour)
			t.exec(`update disputes set state = 'settled', units = $2 where id = $1`, id, int64(units))
		}
		return t.refund(d, payable, units, outputs, hour)
	})
}

// refunded notes the refund, or reports that it was made before, of as much.
func (t *tx) refunded(s ticket.Serial, units ticket.Units, hour int64) (bool, error) {
	if t.exec(`insert into refunds (serial, units, hour) values ($1, $2, $3) on conflict (serial) do nothing`, s[:], int64(units), hour) == 1 {
		return false, nil
	}
	var was int64
	t.find([]any{&was}, `select units from refunds where serial = $1`, s[:])
	if t.err == nil && was != int64(units) {
		return false, refuse(cloudpal.Exist, "%d units of the ticket were given back", was)
	}
	return true, t.err
}

// refund takes units from a center's account and gives them to outputs.
func (t *tx) refund(d Deposit, account string, units ticket.Units, outputs []Output, hour int64) error {
	if err := t.sign(outputs, hour, true); err != nil {
		return err
	}
	from, unit := of(account, d.Center[:]), d.Class.String()
	t.post("refund/"+hex.EncodeToString(d.Serial[:]), unit, hour, worth(outputs, from))
	if left := t.balance(unit, from); left < 0 && t.err == nil {
		return refuse(cloudpal.Exhausted, "the center's account is %d units short", -left)
	}
	return t.err
}
