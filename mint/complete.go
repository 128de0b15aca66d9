package mint

import (
	"context"
	"errors"
	"fmt"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/mint/books"
	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/ledger"
)

// completeAll completes the books of each epoch that is worth something, once since the
// mint has started: what it was killed in the middle of is done then, even if nobody
// asks for it again.
func (m *Mint) completeAll(ctx context.Context) error {
	var errs []error
	now := ticket.EpochAt(m.Now())
	for e := now - min(now, epochsBack); e <= now; e++ {
		if m.whole[e] {
			continue
		}
		_, err := m.complete(ctx, e)
		m.whole[e] = err == nil
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// complete writes into the books what the ledger has of an epoch and they do not, and
// returns how many tickets that were. It reads all of the epoch: how far the books
// are behind, nobody could note who was killed.
func (m *Mint) complete(ctx context.Context, e ticket.Epoch) (int, error) {
	list, err := m.epochKeys(ctx, e)
	if errors.Is(err, cloudpal.NotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	keys := map[ticket.KeyID]*ticket.Key{}
	for _, k := range list {
		keys[k.ID()] = k
	}
	completed := 0
	err = m.Ledger.Walk(ctx, e, func(rows []ledger.Row) error {
		n, err := m.completeRows(ctx, keys, rows)
		completed += n
		return err
	})
	if completed > 0 {
		m.Logger.Warn("the books were behind the ledger, and are completed", "epoch", e, "tickets", completed)
	}
	if errors.Is(err, cloudpal.Exhausted) { // the epoch is dropped
		err = nil
	}
	return completed, err
}

func (m *Mint) completeRows(ctx context.Context, keys map[ticket.KeyID]*ticket.Key, rows []ledger.Row) (int, error) {
	spent := map[*ticket.Key][]api.Evidence{} // in the order of serials
	for _, r := range rows {
		if k, e, ok := m.spentUnder(keys, r); ok {
			spent[k] = append(spent[k], e)
		}
	}
	completed := 0
	for k, list := range spent {
		booked, err := m.Books.SpentBetween(ctx, k.ID(), list[0].Spend.Serial(), list[len(list)-1].Spend.Serial())
		if err != nil {
			return completed, err
		}
		for _, e := range list {
			if booked[e.Spend.Serial()] {
				continue
			}
			if err := m.completeOne(ctx, input{e.Spend, k}, e.Contract); err != nil {
				return completed, err
			}
			completed++
		}
	}
	return completed, nil
}

// spentUnder reads a row of the ledger. One that it cannot read is not what the mint
// wrote: the operator is told, and the others are completed.
func (m *Mint) spentUnder(keys map[ticket.KeyID]*ticket.Key, r ledger.Row) (*ticket.Key, api.Evidence, bool) {
	e, err := api.ParseEvidence(r.Evidence)
	if err == nil && e.Spend.Token.Key == (ticket.KeyID{}) {
		return nil, e, false // of before keys were kept: it is completed when it is asked for again
	}
	k := keys[e.Spend.Token.Key]
	switch {
	case err != nil:
	case ledger.SerialOf(e.Spend.Serial()) != r.Serial || ticket.TagOf(e.Contract) != r.Tag:
		err = errors.New("its evidence is of another ticket or contract")
	case k == nil:
		err = fmt.Errorf("it is of the key %x, which its epoch does not have", e.Spend.Token.Key)
	}
	if err != nil {
		m.Logger.Error("a row of the ledger is damaged", "err", err)
		return nil, e, false
	}
	return k, e, true
}

// completeOne does what is left of a spending: all of a deposit; of a swap that the
// ticket came back, since what it was changed into, its owner has yet to say again.
func (m *Mint) completeOne(ctx context.Context, in input, c ticket.Contract) error {
	if p, ok := c.(ticket.PayContract); ok {
		_, err := m.credit(ctx, in, p)
		return err
	}
	return m.Books.TakeBack(ctx, books.Input{Key: in.key, Serial: in.spend.Serial()}, c.Digest(), m.hour())
}
