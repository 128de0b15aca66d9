// Package ledger is a mint's set of spent tickets: the one place that says whether
// a ticket was spent before.
//
// A row is a ticket's serial and what it was spent for. It is written once, by
// whoever comes first, and never changes: a ticket that comes again for the same
// contract is the same payment again, and gets the same answer, since a mint's
// answers can be computed anew from the contract. For another contract, it is spent
// twice, and the row's evidence is what its owner signed the first time. So the
// ledger keeps no answers, and a mint that is killed between the row and the answer
// loses nothing.
//
// Rows of one epoch are kept together and dropped together, when nobody can spend
// or swap its tickets any more.
package ledger

import (
	"context"
	"errors"
	"fmt"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

// A Serial is the first half of a ticket's: 128 bits tell any tickets apart that
// were not made to be taken for each other, and who makes two such (2^64 work) has
// only one of them honoured.
type Serial [16]byte

// SerialOf returns the ledger's serial of a ticket.
func SerialOf(s ticket.Serial) Serial { return Serial(s[:16]) }

// MaxEvidence bounds what is kept of a spending, in bytes.
const MaxEvidence = 1024

// A Row says that a ticket is spent, and for what.
type Row struct {
	Serial   Serial
	Tag      ticket.Tag
	Evidence []byte // what its owner signed
}

// A Ledger is a set of Rows, safe for use by many at once. What Spend has answered
// stays true: after a crash of the process, of the database and of the machine.
type Ledger interface {
	// Spend adds the rows of serials that are not there, each for itself, and
	// returns for every serial, in the order of rows, the row that is there now:
	// the given one, or another, which came first. Of two rows of one call with one
	// serial the first comes first. When it fails, some may have been added: the
	// caller asks again with the same. Rows of an epoch that was dropped are
	// refused with cloudpal.Exhausted.
	Spend(ctx context.Context, e ticket.Epoch, rows []Row) ([]Row, error)
	// Look returns the rows of serials that are there, and zero Rows for the
	// others.
	Look(ctx context.Context, e ticket.Epoch, serials []Serial) ([]Row, error)
	// Walk gives f all rows of an epoch, some at a time, in the order of their
	// serials, until f fails. Of rows that are added meanwhile it may give some. What
	// it gives is durable, as what Spend returns.
	Walk(ctx context.Context, e ticket.Epoch, f func([]Row) error) error
	// Drop forgets an epoch and those before it, for good.
	Drop(ctx context.Context, e ticket.Epoch) error
	Close() error
}

// maxRows bounds one call.
const maxRows = 10_000

// walkRows is how many Walk gives at a time.
const walkRows = 1000

// walk gives f page after page: each is of the rows whose serials are above the last one
// of the page before.
func walk(page func(above []byte) ([]Row, error), f func([]Row) error) error {
	above := []byte{}
	for {
		rows, err := page(above)
		if err != nil || len(rows) == 0 {
			return err
		}
		if err := f(rows); err != nil {
			return err
		}
		last := rows[len(rows)-1].Serial
		above = last[:]
	}
}

func check(rows []Row) error {
	if len(rows) > maxRows {
		return cloudpal.E("spend tickets", cloudpal.Invalid, fmt.Errorf("%d at once; %d are the most", len(rows), maxRows))
	}
	for _, r := range rows {
		if len(r.Evidence) > MaxEvidence {
			return cloudpal.E("spend tickets", cloudpal.Invalid, fmt.Errorf("evidence of %d bytes; %d are the most", len(r.Evidence), MaxEvidence))
		}
	}
	return nil
}

func closed() error {
	return cloudpal.E("use the ledger", cloudpal.Missing, errors.New("it is closed"))
}

func dropped(e ticket.Epoch) error {
	return cloudpal.E("spend tickets", cloudpal.Exhausted, fmt.Errorf("tickets of epoch %d are worth nothing any more", e))
}
