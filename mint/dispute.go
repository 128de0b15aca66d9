package mint

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/mint/books"
	"github.com/tradle/cloudpal/ticket"
)

// Dispute opens a dispute, or returns it, and settles it once its time is up.
func (m *Mint) Dispute(ctx context.Context, r api.DisputeRequest) (api.Dispute, error) {
	if len(r.Center) != 32 || len(r.Tab) != 32 || len(r.Public) != 32 || len(r.Payments) == 0 || len(r.Payments) > api.MaxPayments {
		return api.Dispute{}, refuse(cloudpal.Invalid, "send a center's and a tab's key, a ticket's, and 1 to 1000 payments")
	}
	paid, last, err := m.paid(ctx, r)
	if err != nil {
		return api.Dispute{}, err
	}
	blank, digest, err := m.blank(ctx, last, r.Outputs)
	if err != nil {
		return api.Dispute{}, err
	}
	if ticket.SerialOf(r.Public) != last.Serial || !ed25519.Verify(r.Public, api.DisputeText(last.Serial, digest, r.Record), r.Payer) {
		return api.Dispute{}, refuse(cloudpal.Denied, "the last ticket's owner did not sign the dispute")
	}
	d, err := m.Books.LookDispute(ctx, disputeID(last.Serial))
	if errors.Is(err, cloudpal.NotExist) {
		d, err = m.claim(ctx, r, paid, last, blank)
	}
	if err != nil {
		return api.Dispute{}, err
	}
	if !d.Settled && !m.Now().Before(d.Until) {
		if d, err = m.settle(ctx, d, d.Record, d.Units, blank); err != nil {
			return api.Dispute{}, err
		}
	}
	return m.view(ctx, d, blank)
}

// claim opens a dispute for what is not used of a tab.
func (m *Mint) claim(ctx context.Context, r api.DisputeRequest, paid ticket.Units, last books.Deposit, blank []output) (books.Dispute, error) {
	var used ticket.Units
	if len(r.Record) > 0 {
		record, err := recordOf(r.Record, r.Tab, r.Center, r.Signature)
		if err != nil {
			return books.Dispute{}, err
		}
		used = record.Used
	}
	units := unused(paid, used, last.Amount)
	if units == 0 {
		return books.Dispute{}, refuse(cloudpal.Invalid, "by that record, all is used that was paid")
	}
	return m.Books.Dispute(ctx, books.Dispute{
		ID: disputeID(last.Serial), Serial: last.Serial, Center: last.Center, Class: last.Class, Tab: r.Tab, Record: append([]byte{}, r.Record...),
		Paid: paid, Outputs: pack(blank), Until: m.Now().Add(api.AnswerTime), Units: units,
	}, m.hour())
}

// disputeID names the dispute about a ticket.
func disputeID(s ticket.Serial) string {
	h := sha256.Sum256(append([]byte("cloudpal dispute id v1"), s[:]...))
	return hex.EncodeToString(h[:16])
}

// paid returns what was paid on a tab and not given back, and the last deposit. Each
// payment has to be one that the center deposited, for this tab.
func (m *Mint) paid(ctx context.Context, r api.DisputeRequest) (units ticket.Units, last books.Deposit, err error) {
	seen := map[ticket.Serial]bool{}
	for _, p := range r.Payments {
		if len(p.Serial) != 32 || len(p.Tariff) != 32 || len(p.Nonce) != 16 || len(p.Blank) != 32 || !p.Amount.Valid() || seen[ticket.Serial(p.Serial)] {
			return 0, last, refuse(cloudpal.Invalid, "a payment is not in order, or there twice")
		}
		seen[ticket.Serial(p.Serial)] = true
		last, err = m.Books.Deposited(ctx, ticket.Serial(p.Serial))
		if errors.Is(err, cloudpal.NotExist) {
			return 0, last, refuse(cloudpal.NotExist, "the center did not deposit one of the payments: leave it out, and swap its ticket")
		}
		if err != nil {
			return 0, last, err
		}
		terms := ticket.Terms{Tab: [32]byte(r.Tab), Tariff: ticket.Digest(p.Tariff), Nonce: [16]byte(p.Nonce)}
		contract := ticket.PayContract{
			Center: ticket.CenterID(r.Center), Hidden: terms.Hide(), Amount: p.Amount, NotBefore: p.NotBefore, Blank: ticket.Digest(p.Blank),
		}
		if contract.Digest() != last.Contract {
			return 0, last, refuse(cloudpal.Denied, "a payment is not one of this tab at this center")
		}
		units += ticket.Units(last.Amount) - last.Refunded
	}
	return units, last, nil
}

// recordOf reads a meter's record of a tab that somebody signed.
func recordOf(b, tab, by, signature []byte) (ticket.Record, error) {
	record, err := ticket.ParseRecord(b)
	if err != nil || record.Tab != [32]byte(tab) {
		return record, refuse(cloudpal.Invalid, "the record is not one of this tab's meter")
	}
	if !record.Signed(by, signature) {
		return record, refuse(cloudpal.Denied, "the record's signature is not good")
	}
	return record, nil
}

// unused is what can be given back of the last ticket of a tab.
func unused(paid, used ticket.Units, last ticket.Denomination) ticket.Units {
	if used >= paid {
		return 0
	}
	return min(paid-used, ticket.Units(last)-1)
}

// pack and unpack are how the books keep outputs.
func pack(outputs []output) []byte {
	var b []byte
	for _, o := range outputs {
		b = append(append(b, o.Key[:]...), o.Blinded[:]...)
	}
	return b
}

func (m *Mint) unpack(ctx context.Context, b []byte) ([]output, error) {
	const size = len(ticket.KeyID{}) + ticket.BlindSize
	var sent []api.Output
	for part := range slices.Chunk(b, size) {
		if len(part) != size {
			return nil, cloudpal.E("read a dispute", cloudpal.Corrupt, nil)
		}
		sent = append(sent, api.Output{Key: part[:32], Blinded: part[32:]})
	}
	outputs, _, err := m.outputs(ctx, sent)
	return outputs, err
}

// settle ends a dispute: units are given back.
func (m *Mint) settle(ctx context.Context, d books.Dispute, record []byte, units ticket.Units, blank []output) (books.Dispute, error) {
	units = min(units, d.Held)
	var change []output
	if units > 0 {
		of, err := m.Books.Deposited(ctx, d.Serial)
		if err != nil {
			return d, err
		}
		if change, err = changeOf(of.Amount, units, blank); err != nil {
			return d, err
		}
	}
	return m.Books.Settle(ctx, d.ID, record, units, booked(change), m.hour())
}

// view returns a dispute as the payer sees it: with the signatures, once it is
// settled.
func (m *Mint) view(ctx context.Context, d books.Dispute, blank []output) (api.Dispute, error) {
	v := shownDispute(d)
	if !d.Settled || d.Units == 0 {
		return v, nil
	}
	of, err := m.Books.Deposited(ctx, d.Serial)
	if err != nil {
		return v, err
	}
	change, err := changeOf(of.Amount, d.Units, blank)
	if err != nil {
		return v, err
	}
	signed, err := m.sign(ctx, change)
	v.Signatures = signed.Signatures
	return v, err
}

func shownDispute(d books.Dispute) api.Dispute {
	v := api.Dispute{ID: d.ID, State: api.Open, Tab: d.Tab, Serial: d.Serial[:], Record: d.Record, Until: d.Until, Units: d.Units}
	if d.Settled {
		v.State = api.Settled
	}
	return v
}

// maxDisputes is how many a center is shown at once: those that end first.
const maxDisputes = 1000

// Disputes returns what is open against a center.
func (m *Mint) Disputes(ctx context.Context, who ticket.CenterID) ([]api.Dispute, error) {
	list, err := m.Books.Disputes(ctx, who, maxDisputes)
	shown := []api.Dispute{}
	for _, d := range list {
		shown = append(shown, shownDispute(d))
	}
	return shown, err
}

// Answer takes a center's answer to a dispute: a record that the tab's owner
// countersigned, later than the one that the dispute has. That ends it.
func (m *Mint) Answer(ctx context.Context, who ticket.CenterID, id string, r api.AnswerRequest) (api.Dispute, error) {
	d, err := m.Books.LookDispute(ctx, id)
	if err != nil {
		return api.Dispute{}, err
	}
	if d.Center != who {
		return api.Dispute{}, refuse(cloudpal.NotExist, "there is no such dispute with this center")
	}
	record, err := recordOf(r.Record, d.Tab, d.Tab, r.Countersigned)
	if err != nil {
		return api.Dispute{}, err
	}
	if d.Settled {
		return shownDispute(d), nil
	}
	if !m.Now().Before(d.Until) {
		return api.Dispute{}, refuse(cloudpal.Exhausted, "the answer comes too late: it had to come before "+d.Until.Format(time.RFC3339))
	}
	if was, err := ticket.ParseRecord(d.Record); err == nil && record.Seq <= was.Seq {
		return api.Dispute{}, refuse(cloudpal.Invalid, "the record is no later than the one that the dispute has")
	}
	of, err := m.Books.Deposited(ctx, d.Serial)
	if err != nil {
		return api.Dispute{}, err
	}
	blank, err := m.unpack(ctx, d.Outputs)
	if err != nil {
		return api.Dispute{}, err
	}
	if d, err = m.settle(ctx, d, r.Record, unused(d.Paid, record.Used, of.Amount), blank); err != nil {
		return api.Dispute{}, err
	}
	return shownDispute(d), nil
}
