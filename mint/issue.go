package mint

import (
	"bytes"
	"context"
	"crypto/ed25519"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/mint/books"
	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/ledger"
)

// Issue signs the tickets of a paid quote.
func (m *Mint) Issue(ctx context.Context, r api.IssueRequest) (api.Signatures, error) {
	q, err := m.Books.Look(ctx, r.Quote)
	if err != nil {
		return api.Signatures{}, err
	}
	outputs, digest, err := m.outputs(ctx, r.Outputs)
	if err != nil {
		return api.Signatures{}, err
	}
	if !ed25519.Verify(q.Lock, api.IssueText(q.ID, digest), r.Signature) {
		return api.Signatures{}, refuse(cloudpal.Denied, "the quote's lock did not sign these outputs")
	}
	if q.State != books.Issued {
		if err := m.fits(q, outputs); err != nil {
			return api.Signatures{}, err
		}
	}
	if err := m.Books.Issue(ctx, q.ID, digest, booked(outputs), m.hour()); err != nil {
		return api.Signatures{}, err
	}
	return m.sign(ctx, outputs)
}

// fits checks that outputs are what a quote bought.
func (m *Mint) fits(q books.Quote, outputs []output) error {
	if err := m.issuing(outputs); err != nil {
		return err
	}
	fits := len(outputs) == len(q.Tickets)
	for i := 0; fits && i < len(outputs); i++ {
		fits = outputs[i].key.Class == q.Class && outputs[i].key.Denomination == q.Tickets[i]
	}
	if !fits {
		return refuse(cloudpal.Invalid, "the outputs are not the quote's tickets, in their order and class")
	}
	return nil
}

func booked(outputs []output) []books.Output {
	list := make([]books.Output, 0, len(outputs))
	for _, o := range outputs {
		list = append(list, books.Output{Key: o.key, Hash: api.BlindedHash(o.Output)})
	}
	return list
}

// Restore signs again what was signed before, and nothing else.
func (m *Mint) Restore(ctx context.Context, r api.RestoreRequest) (api.Signatures, error) {
	outputs, _, err := m.outputs(ctx, r.Outputs)
	if err != nil {
		return api.Signatures{}, err
	}
	was, err := m.Books.Signed(ctx, booked(outputs))
	if err != nil {
		return api.Signatures{}, err
	}
	var again []output
	for i, o := range outputs {
		if was[i] {
			again = append(again, o)
		}
	}
	signed, err := m.sign(ctx, again)
	if err != nil {
		return api.Signatures{}, err
	}
	all := make([][]byte, len(outputs))
	for i := range all {
		if was[i] {
			all[i], signed.Signatures = signed.Signatures[0], signed.Signatures[1:]
		}
	}
	return api.Signatures{Signatures: all}, nil
}

// An input is a ticket that is put in.
type input struct {
	spend ticket.Spend
	key   *ticket.Key
}

// Swap changes tickets for others. What was swapped once is signed again for whoever
// has the outputs: only their owner can use that.
func (m *Mint) Swap(ctx context.Context, r api.SwapRequest) (api.Signatures, error) {
	outputs, digest, err := m.outputs(ctx, r.Outputs)
	if err != nil {
		return api.Signatures{}, err
	}
	contract := ticket.SwapContract{Outputs: digest}
	done, err := m.Books.Swapped(ctx, contract.Digest())
	if err != nil {
		return api.Signatures{}, err
	}
	if done {
		return m.sign(ctx, outputs)
	}
	inputs, err := m.inputs(ctx, r, contract)
	if err != nil {
		return api.Signatures{}, err
	}
	if err := m.swappable(ctx, inputs, outputs); err != nil {
		// Its outputs are signed: for the same, where that was asked twice at once.
		if done, looked := m.Books.Swapped(ctx, contract.Digest()); looked == nil && done {
			return m.sign(ctx, outputs)
		}
		return api.Signatures{}, err
	}
	if err := m.bind(ctx, inputs, contract); err != nil {
		return api.Signatures{}, err
	}
	in := make([]books.Input, 0, len(inputs))
	for _, i := range inputs {
		in = append(in, books.Input{Key: i.key, Serial: i.spend.Serial()})
	}
	if err := m.Books.Swap(ctx, contract.Digest(), in, booked(outputs), m.hour()); err != nil {
		return api.Signatures{}, err
	}
	return m.sign(ctx, outputs)
}

// inputs reads tickets and checks that their owners spend them for the contract.
func (m *Mint) inputs(ctx context.Context, r api.SwapRequest, c ticket.Contract) ([]input, error) {
	if len(r.Inputs) == 0 || len(r.Inputs) > api.MaxInputs || len(r.Seeds) > 0 && len(r.Seeds) != len(r.Inputs) {
		return nil, refuse(cloudpal.Invalid, "send 1 to 100 tickets, and a seed for each or none at all")
	}
	var list []input
	seen := map[ticket.Serial]bool{}
	for n, b := range r.Inputs {
		take := m.input
		if len(r.Seeds) > 0 && len(r.Seeds[n]) > 0 {
			take = func(ctx context.Context, b []byte, c ticket.Contract) (input, error) {
				return m.recouped(ctx, b, r.Seeds[n], c)
			}
		}
		i, err := take(ctx, b, c)
		if err != nil {
			return nil, err
		}
		if serial := i.spend.Serial(); seen[serial] {
			return nil, refuse(cloudpal.Invalid, "a ticket is there twice")
		} else {
			seen[serial] = true
		}
		list = append(list, i)
	}
	return list, nil
}

func (m *Mint) input(ctx context.Context, sent []byte, c ticket.Contract) (input, error) {
	return m.verified(sent, c, func(id ticket.KeyID) (*ticket.Key, error) { return m.key(ctx, id) })
}

// verified reads a ticket, and checks it against a key of the mint's.
func (m *Mint) verified(sent []byte, c ticket.Contract, key func(ticket.KeyID) (*ticket.Key, error)) (input, error) {
	s, err := ticket.ParseSpend(sent)
	if err != nil {
		return input{}, refuse(cloudpal.Invalid, "what was sent is no payment with a ticket")
	}
	k, err := key(s.Token.Key)
	if err != nil {
		return input{}, err
	}
	if err := s.Verify(m.Issuer, k, c); err != nil {
		return input{}, refuse(cloudpal.KindOf(err), "the ticket is not this mint's, or its owner did not spend it for this")
	}
	return input{s, k}, nil
}

// recouped takes a ticket of a key that is revoked, since it was stolen, if its owner
// shows that the mint has signed it: who stole the key makes tickets that verify, and no
// message of which they follow that is in the books.
func (m *Mint) recouped(ctx context.Context, sent, seed []byte, c ticket.Contract) (input, error) {
	if len(seed) != len(ticket.BlindSeed{}) {
		return input{}, refuse(cloudpal.Invalid, "a seed has 32 bytes")
	}
	i, err := m.verified(sent, c, func(id ticket.KeyID) (*ticket.Key, error) { return m.revokedKey(ctx, id) })
	if err != nil {
		return i, err
	}
	o, err := ticket.OutputOf(i.key, i.spend.Token, ticket.BlindSeed(seed))
	if err != nil {
		return i, refuse(cloudpal.Invalid, "nothing is blinded with that seed")
	}
	was, err := m.Books.Signed(ctx, []books.Output{{Key: i.key, Hash: api.BlindedHash(o)}})
	if err == nil && !was[0] {
		err = refuse(cloudpal.Denied, "the ticket's key is revoked, and it is not among those that the mint has signed")
	}
	return i, err
}

// swappable checks all that can be known before a ticket is bound.
func (m *Mint) swappable(ctx context.Context, inputs []input, outputs []output) error {
	if err := m.issuing(outputs); err != nil {
		return err
	}
	var in, out []*ticket.Key
	for _, i := range inputs {
		if !i.key.Epoch.Swaps(m.Now()) {
			return refuse(cloudpal.Exhausted, "a ticket has expired: it is worth nothing any more")
		}
		in = append(in, i.key)
	}
	seen := map[[32]byte]bool{}
	for _, o := range outputs {
		out = append(out, o.key)
		if seen[api.BlindedHash(o.Output)] {
			return refuse(cloudpal.Invalid, "an output is there twice")
		}
		seen[api.BlindedHash(o.Output)] = true
	}
	if err := ticket.CheckSwap(in, out); err != nil {
		return refuse(cloudpal.Invalid, "what goes in is not worth what comes out, in one class")
	}
	was, err := m.Books.Signed(ctx, booked(outputs))
	if err != nil {
		return err
	}
	for _, signed := range was {
		if signed {
			return refuse(cloudpal.Exist, "an output was signed before, for something else: make new ones; no ticket was spent")
		}
	}
	return nil
}

// bind spends tickets for a contract, one after another. It first looks whether one
// is spent, so that only a race leaves some bound when another is refused.
func (m *Mint) bind(ctx context.Context, inputs []input, c ticket.Contract) error {
	for _, i := range inputs {
		rows, err := m.Ledger.Look(ctx, i.key.Epoch, []ledger.Serial{ledger.SerialOf(i.spend.Serial())})
		if err != nil {
			return cloudpal.E("look for spent tickets", "", err)
		}
		if err := bound(rows[0], c); err != nil {
			return err
		}
	}
	for _, i := range inputs {
		if err := m.spend(ctx, i, c); err != nil {
			return err
		}
	}
	return nil
}

// spend writes into the ledger that a ticket is spent for a contract.
func (m *Mint) spend(ctx context.Context, i input, c ticket.Contract) error {
	row := ledger.Row{
		Serial: ledger.SerialOf(i.spend.Serial()), Tag: ticket.TagOf(c), Evidence: api.Evidence{Contract: c, Spend: i.spend}.Append(nil),
	}
	rows, err := m.Ledger.Spend(ctx, i.key.Epoch, []ledger.Row{row})
	if err != nil {
		return cloudpal.E("spend a ticket", "", err)
	}
	return bound(rows[0], c)
}

// bound checks that a row is empty, or of the contract. Else it is the proof that the
// ticket was spent for another.
func bound(r ledger.Row, c ticket.Contract) error {
	if r.Serial == (ledger.Serial{}) || r.Tag == ticket.TagOf(c) {
		return nil
	}
	e, err := api.ParseEvidence(r.Evidence)
	if err != nil {
		return cloudpal.E("read the ledger", cloudpal.Corrupt, err)
	}
	return &api.Spent{Evidence: e}
}

// evidence returns what the ledger has of a ticket that is spent for a contract with
// this digest.
func (m *Mint) evidence(ctx context.Context, k *ticket.Key, s ticket.Serial, contract ticket.Digest) (api.Evidence, error) {
	rows, err := m.Ledger.Look(ctx, k.Epoch, []ledger.Serial{ledger.SerialOf(s)})
	if err != nil {
		return api.Evidence{}, cloudpal.E("look for a spent ticket", "", err)
	}
	e, err := api.ParseEvidence(rows[0].Evidence)
	if err != nil || !bytes.Equal(rows[0].Tag[:], contract[:len(rows[0].Tag)]) {
		return api.Evidence{}, cloudpal.E("read the ledger", cloudpal.Corrupt, err)
	}
	return e, nil
}
