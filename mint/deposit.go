package mint

import (
	"context"
	"crypto/ed25519"
	"errors"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/mint/books"
	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/ledger"
)

// Deposit credits a payment to the center that asks.
func (m *Mint) Deposit(ctx context.Context, who ticket.CenterID, r api.DepositRequest) (api.Receipt, error) {
	p, err := payContract(r)
	if err != nil {
		return api.Receipt{}, err
	}
	if p.Center != who {
		return api.Receipt{}, refuse(cloudpal.Denied, "the payment is another center's")
	}
	in, err := m.input(ctx, r.Spend, p)
	if err != nil {
		return api.Receipt{}, err
	}
	d, err := m.Books.Deposited(ctx, in.spend.Serial())
	if err == nil && d.Contract == p.Digest() {
		return m.receipt(d)
	}
	if err != nil && !errors.Is(err, cloudpal.NotExist) {
		return api.Receipt{}, err
	}
	if err := m.due(ctx, in, p); err != nil {
		return api.Receipt{}, err
	}
	if err := m.spend(ctx, in, p); err != nil {
		return api.Receipt{}, err
	}
	d, err = m.credit(ctx, in, p)
	if err != nil {
		return api.Receipt{}, err
	}
	return m.receipt(d)
}

func payContract(r api.DepositRequest) (ticket.PayContract, error) {
	if len(r.Center) != 32 || len(r.Hidden) != 32 || len(r.Blank) != 32 || !r.Amount.Valid() || r.NotBefore.Nanosecond() != 0 {
		return ticket.PayContract{}, refuse(cloudpal.Invalid, "send the payment's contract: three parts of 32 bytes, an amount that is a denomination, and a time in whole seconds")
	}
	return ticket.PayContract{
		Center: ticket.CenterID(r.Center), Hidden: ticket.Hidden(r.Hidden), Amount: r.Amount, NotBefore: r.NotBefore, Blank: ticket.Digest(r.Blank),
	}, nil
}

// due checks that a payment can be deposited now. One that the ledger has already is
// as good as deposited.
func (m *Mint) due(ctx context.Context, in input, p ticket.PayContract) error {
	now := m.Now()
	if now.Before(p.NotBefore) {
		return refuse(cloudpal.Denied, "the payment is not due before "+p.NotBefore.UTC().Format(time.RFC3339))
	}
	if in.key.Epoch.Spends(now) {
		return nil
	}
	rows, err := m.Ledger.Look(ctx, in.key.Epoch, []ledger.Serial{ledger.SerialOf(in.spend.Serial())})
	if err != nil {
		return cloudpal.E("look for a spent ticket", "", err)
	}
	if rows[0].Serial != (ledger.Serial{}) {
		return nil // bound says to what
	}
	return refuse(cloudpal.Exhausted, "the ticket can no longer be paid with: its owner can swap it")
}

// credit writes into the books what the ledger has.
func (m *Mint) credit(ctx context.Context, in input, p ticket.PayContract) (books.Deposit, error) {
	return m.Books.Deposit(ctx, in.key, books.Deposit{
		Serial: in.spend.Serial(), Center: p.Center, Blank: p.Blank, Contract: p.Digest(), Hour: m.hour(), Epoch: ticket.EpochAt(m.Now()),
	})
}

// receipt signs what the books have of a deposit, always the same.
func (m *Mint) receipt(d books.Deposit) (api.Receipt, error) {
	key, err := m.Receipt(d.Epoch)
	if err != nil {
		return api.Receipt{}, err
	}
	r := receiptOf(d)
	r.Signature = ed25519.Sign(key, r.Text())
	return r, nil
}

// receiptOf returns a deposit's receipt before it is signed.
func receiptOf(d books.Deposit) api.Receipt {
	return api.Receipt{
		Serial: d.Serial[:], Key: d.Key[:], Center: d.Center[:], Amount: d.Amount, Contract: d.Contract[:],
		Credited: time.Unix(d.Hour*3600, 0).UTC(), Epoch: d.Epoch,
	}
}

// How many an Account has at most.
const (
	maxDeposits = 1000
	maxPayouts  = 100
)

// Account returns what the mint owes a center, its deposits after number after, and
// its payouts.
func (m *Mint) Account(ctx context.Context, who ticket.CenterID, after int64) (api.Account, error) {
	a := api.Account{Deposits: []api.Deposit{}, Payouts: []api.Payout{}}
	for _, class := range ticket.Classes {
		owed, held, err := m.Books.Balance(ctx, who, class)
		if err != nil {
			return a, err
		}
		if class == ticket.Paid {
			a.Balance, a.Held = ticket.Units(owed+held), ticket.Units(held)
		} else {
			a.Free = ticket.Units(owed + held)
		}
	}
	list, err := m.Books.Deposits(ctx, who, after, maxDeposits)
	if err != nil {
		return a, err
	}
	for _, d := range list {
		r, err := m.receipt(d)
		if err != nil {
			return a, err
		}
		a.Deposits = append(a.Deposits, api.Deposit{N: d.N, Receipt: r, Refunded: d.Refunded})
	}
	a.Payouts, err = m.payouts(ctx, who)
	return a, err
}

func (m *Mint) payouts(ctx context.Context, who ticket.CenterID) ([]api.Payout, error) {
	list, err := m.Books.Payouts(ctx, who, maxPayouts)
	signed := make([]api.Payout, 0, len(list))
	for _, p := range list {
		s := api.Payout{Center: p.Center[:], N: p.N, Units: p.Units, Reference: p.Reference, At: p.At, Epoch: ticket.EpochAt(p.At)}
		key, err := m.Receipt(s.Epoch)
		if err != nil {
			return nil, err
		}
		s.Signature = ed25519.Sign(key, s.Text())
		signed = append(signed, s)
	}
	return signed, err
}

// Refund gives back what payer and center agree is not used of a ticket.
func (m *Mint) Refund(ctx context.Context, r api.RefundRequest) (api.Signatures, error) {
	if len(r.Serial) != 32 {
		return api.Signatures{}, refuse(cloudpal.Invalid, "a serial has 32 bytes")
	}
	d, err := m.Books.Deposited(ctx, ticket.Serial(r.Serial))
	if err != nil {
		return api.Signatures{}, err
	}
	outputs, digest, err := m.blank(ctx, d, r.Outputs)
	if err != nil {
		return api.Signatures{}, err
	}
	e, err := m.evidence(ctx, outputs[0].key, d.Serial, d.Contract)
	if err != nil {
		return api.Signatures{}, err
	}
	text := api.RefundText(d.Serial, r.Units, digest)
	if !ed25519.Verify(e.Spend.Public[:], text, r.Payer) || !ed25519.Verify(d.Center[:], text, r.Center) {
		return api.Signatures{}, refuse(cloudpal.Denied, "payer and center have to sign the same refund")
	}
	change, err := changeOf(d.Amount, r.Units, outputs)
	if err != nil {
		return api.Signatures{}, err
	}
	if err := m.Books.Refund(ctx, d.Serial, r.Units, booked(change), m.hour()); err != nil {
		return api.Signatures{}, err
	}
	return m.sign(ctx, change)
}

// blank reads the outputs that were fixed when a deposited ticket was paid with: all
// of them, under keys of its epoch and class.
func (m *Mint) blank(ctx context.Context, d books.Deposit, sent []api.Output) ([]output, ticket.Digest, error) {
	outputs, digest, err := m.outputs(ctx, sent)
	if err != nil {
		return nil, digest, err
	}
	if digest != d.Blank {
		return nil, digest, refuse(cloudpal.Denied, "the outputs are not those that the payment fixed")
	}
	k, _, err := m.anyKey(ctx, d.Key)
	if err != nil {
		return nil, digest, err
	}
	want := ticket.Blank(d.Amount)
	fits := len(want) == len(outputs)
	for i := 0; fits && i < len(outputs); i++ {
		o := outputs[i].key
		fits = o.Class == k.Class && o.Epoch == k.Epoch && o.Denomination == want[i]
	}
	if !fits {
		return nil, digest, refuse(cloudpal.Invalid, "the outputs that the payment fixed are not blank ones of the ticket's month and class")
	}
	return outputs, digest, nil
}

// changeOf returns those of the blank outputs that give back units.
func changeOf(d ticket.Denomination, units ticket.Units, blank []output) ([]output, error) {
	which, err := ticket.Change(d, units)
	if err != nil || units == 0 {
		return nil, refuse(cloudpal.Invalid, "at least one unit is given back, and less than the ticket was worth")
	}
	change := make([]output, 0, len(which))
	for _, i := range which {
		change = append(change, blank[i])
	}
	return change, nil
}
