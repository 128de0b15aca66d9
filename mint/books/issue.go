package books

import (
	"bytes"
	"context"
	"encoding/hex"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

// An Output is one that is signed: under which key, and its hash.
type Output struct {
	Key  *ticket.Key
	Hash [32]byte
}

// Issue notes that a paid quote's tickets are signed. It can be repeated with the
// same outputs, whose digest that is, and with no others.
func (b *Books) Issue(ctx context.Context, id string, digest ticket.Digest, outputs []Output, hour int64) error {
	return b.change(ctx, "issue tickets", func(t *tx) error {
		if t.exec(`update quotes set state = 'issued', outputs = $2 where id = $1 and state = 'paid'`, id, digest[:]) == 0 {
			return t.issued(id, digest)
		}
		if err := t.sign(outputs, hour, false); err != nil {
			return err
		}
		t.post("issue/"+id, outputs[0].Key.Class.String(), hour, worth(outputs, sold))
		var price int64
		var currency string
		t.find([]any{&price, &currency}, `select price, currency from quotes where id = $1`, id)
		if price != 0 {
			t.post("sell/"+id, currency, hour, map[string]int64{prepaid: price, sales: -price})
		}
		return nil
	})
}

// issued is the answer to who asks for the tickets of a quote that is not paid, or
// issued.
func (t *tx) issued(id string, digest ticket.Digest) error {
	var state string
	var was []byte
	switch there := t.find([]any{&state, &was}, `select state, outputs from quotes where id = $1`, id); {
	case t.err != nil:
		return t.err
	case !there:
		return refuse(cloudpal.NotExist, "there is no such quote")
	case QuoteState(state) != Issued:
		return refuse(cloudpal.Exhausted, "the quote is not paid")
	case !bytes.Equal(was, digest[:]):
		return refuse(cloudpal.Exist, "the quote's tickets are issued already, into other outputs")
	}
	return nil
}

// worth returns amounts that give outputs to their keys and take their worth from an
// account.
func worth(outputs []Output, from string) map[string]int64 {
	amounts := map[string]int64{}
	for _, o := range outputs {
		id := o.Key.ID()
		amounts[of(outstanding, id[:])] += int64(o.Key.Denomination)
		amounts[from] -= int64(o.Key.Denomination)
	}
	return amounts
}

// sign notes outputs that are signed: each only ever once, for two would make one
// ticket.
func (t *tx) sign(outputs []Output, hour int64, change bool) error {
	var is int64
	if change {
		is = 1
	}
	for _, o := range outputs {
		id := o.Key.ID()
		if t.exec(`insert into outputs (key, hash, hour, change) values ($1, $2, $3, $4) on conflict (key, hash) do nothing`, id[:], o.Hash[:], hour, is) == 0 && t.err == nil {
			return refuse(cloudpal.Exist, "an output was signed before, for something else")
		}
	}
	return t.err
}

// Signed reports which outputs were signed.
func (b *Books) Signed(ctx context.Context, outputs []Output) ([]bool, error) {
	const op = "look for what was signed"
	signed := make([]bool, len(outputs))
	for i, o := range outputs {
		id := o.Key.ID()
		var n int64
		if err := b.find(ctx, []any{&n}, `select count(*) from outputs where key = $1 and hash = $2`, id[:], o.Hash[:]); err != nil {
			return nil, failed(op, err)
		}
		signed[i] = n > 0
	}
	return signed, nil
}

// An Input is a ticket that is swapped.
type Input struct {
	Key    *ticket.Key
	Serial ticket.Serial
}

// Swapped reports whether a contract was fulfilled: its outputs signed.
func (b *Books) Swapped(ctx context.Context, contract ticket.Digest) (bool, error) {
	var n int64
	if err := b.find(ctx, []any{&n}, `select count(*) from swaps where contract = $1`, contract[:]); err != nil {
		return false, failed("look for a swap", err)
	}
	return n > 0, nil
}

// Swap notes that inputs, which the ledger has bound to a contract, are swapped for
// its outputs. It can be repeated. Who brings another ticket for a contract that is
// fulfilled loses it: the outputs are one ticket each, however often they are
// signed.
func (b *Books) Swap(ctx context.Context, contract ticket.Digest, inputs []Input, outputs []Output, hour int64) error {
	return b.change(ctx, "swap tickets", func(t *tx) error {
		class := outputs[0].Key.Class.String()
		first := t.exec(`insert into swaps (contract, hour) values ($1, $2) on conflict (contract) do nothing`, contract[:], hour) == 1
		for _, in := range inputs {
			t.swap(in, contract, hour)
		}
		if !first {
			return t.err
		}
		if err := t.sign(outputs, hour, false); err != nil {
			return err
		}
		name := "swap/" + hex.EncodeToString(contract[:])
		t.post(name, class, hour, worth(outputs, swapped))
		return nil
	})
}

// TakeBack notes that a ticket, which the ledger has bound to a swap, came back, once.
// The swap's outputs are signed when its owner asks for them again.
func (b *Books) TakeBack(ctx context.Context, in Input, contract ticket.Digest, hour int64) error {
	return b.change(ctx, "take a ticket back", func(t *tx) error {
		t.swap(in, contract, hour)
		return t.err
	})
}

// SpentBetween returns which tickets of a key came back, of those with serials from
// first to last.
func (b *Books) SpentBetween(ctx context.Context, id ticket.KeyID, first, last ticket.Serial) (map[ticket.Serial]bool, error) {
	list, err := query(ctx, b, "list what was spent", readHash, `select serial from spent where key = $1 and serial >= $2 and serial <= $3`, id[:], first[:], last[:])
	spent := make(map[ticket.Serial]bool, len(list))
	for _, s := range list {
		spent[ticket.Serial(s)] = true
	}
	return spent, err
}

// swap notes that a ticket came back to be swapped, once. What it is worth goes
// where the outputs are taken from.
func (t *tx) swap(in Input, contract ticket.Digest, hour int64) {
	if !t.spend(in, contract, hour) {
		return
	}
	id, d := in.Key.ID(), int64(in.Key.Denomination)
	t.post("spend/"+hex.EncodeToString(in.Serial[:]), in.Key.Class.String(), hour, map[string]int64{of(outstanding, id[:]): -d, swapped: d})
}

// spend notes that a ticket came back, and reports whether that is new.
func (t *tx) spend(in Input, contract ticket.Digest, hour int64) bool {
	id := in.Key.ID()
	return t.exec(`insert into spent (key, serial, hour, contract) values ($1, $2, $3, $4) on conflict (key, serial) do nothing`, id[:], in.Serial[:], hour, contract[:]) == 1
}
