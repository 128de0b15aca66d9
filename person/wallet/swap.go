package wallet

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/tradle/cloudpal"
	mint "github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/ticket"
)

// swapBranch is where what a ticket was swapped for is derived: it is swapped once.
func swapBranch(s ticket.Serial) ticket.Branch {
	return ticket.Branch("swap/" + hex.EncodeToString(s[:]))
}

// changeBranch is where what comes back of a payment is derived: so, too.
func changeBranch(s ticket.Serial) ticket.Branch {
	return ticket.Branch("change/" + hex.EncodeToString(s[:]))
}

// begin puts a swap of coins in a change and returns its number. What the coins were
// before goes with it.
func (c *change) begin(sw swap) uint64 {
	n := c.number()
	for i := range sw.Inputs {
		if s := sw.Inputs[i].serial(); c.of.coins[s] != nil {
			c.dropCoin(s)
		}
	}
	c.put(kindSwap, numbered(n), sw)
	return n
}

// runSwap takes a swap to its end. It may be called again and again, also by others
// at once.
func (w *Wallet) runSwap(ctx context.Context, n uint64) error {
	for {
		s, err := w.look()
		if err != nil {
			return err
		}
		sw, ok := s.swaps[n]
		if !ok {
			return nil // it is done
		}
		again, err := w.trySwap(ctx, n, sw, sw.seeds(s.revoked()))
		if err != nil || !again {
			return err
		}
	}
}

// seeds returns what shows that inputs of keys that are revoked are the mint's own, nil
// for the others; nil where there are none.
func (sw *swap) seeds(revoked map[ticket.KeyID]bool) (seeds [][]byte) {
	for i := range sw.Inputs {
		if o := &sw.Inputs[i]; revoked[o.token.Key] {
			if seeds == nil {
				seeds = make([][]byte, len(sw.Inputs))
			}
			seeds[i] = o.seed[:]
		}
	}
	return seeds
}

func (w *Wallet) trySwap(ctx context.Context, n uint64, sw *swap, seeds [][]byte) (again bool, err error) {
	if short := sw.short(); short > 0 {
		return true, w.fill(ctx, n, short)
	}
	secrets, outputs, err := w.secrets(ctx, sw.Outputs)
	if err != nil {
		return false, err
	}
	spends, err := sw.spends(ticket.SwapContract{Outputs: ticket.OutputsDigest(outputs)})
	if err != nil {
		return false, err
	}
	signatures, err := ask(w, func(m Mint) ([][]byte, error) {
		if seeds != nil {
			return m.Recoup(ctx, spends, seeds, outputs)
		}
		return m.Swap(ctx, spends, outputs)
	})
	var spent *mint.Spent
	switch {
	case errors.As(err, &spent):
		return w.swapSpent(ctx, n, sw, outputs, spent)
	case err != nil && !passes(err) && !sw.Outputs[0].Epoch.Issues(w.clock.Now()):
		return true, w.replan(ctx, n)
	case errors.Is(err, cloudpal.Invalid) && seeds == nil:
		return w.revokedSince(ctx, sw, err)
	case err != nil:
		return false, err
	}
	coins, err := w.finish(ctx, sw.Outputs, secrets, signatures, sw.Origin)
	if err != nil {
		return false, err
	}
	return false, w.endSwap(ctx, n, coins)
}

// revokedSince looks at the mint's log anew after it refused a swap, and reports whether
// the key of an input was revoked: then there is another way.
func (w *Wallet) revokedSince(ctx context.Context, sw *swap, refused error) (again bool, err error) {
	if _, err := w.fetchKeys(ctx, sw.Inputs[0].Epoch); err != nil {
		return false, refused
	}
	s, err := w.look()
	if err != nil {
		return false, err
	}
	if sw.seeds(s.revoked()) == nil {
		return false, refused
	}
	return true, nil
}

// short is how much the inputs lack of what the outputs are worth.
func (sw *swap) short() ticket.Units {
	return sum(sw.Outputs) - worth(sw.Inputs)
}

func sum(all []want) (u ticket.Units) {
	for _, o := range all {
		u += ticket.Units(o.Denomination)
	}
	return u
}

func (sw *swap) spends(c ticket.Contract) ([]ticket.Spend, error) {
	spends := make([]ticket.Spend, 0, len(sw.Inputs))
	for i := range sw.Inputs {
		t, err := sw.Inputs[i].ticket()
		if err != nil {
			return nil, err
		}
		spends = append(spends, t.Sign(c))
	}
	return spends, nil
}

// endSwap keeps what a swap made.
func (w *Wallet) endSwap(ctx context.Context, n uint64, coins []coin) error {
	return w.change(ctx, func(s *state, c *change) error {
		sw, ok := s.swaps[n]
		if !ok {
			return nil
		}
		for _, o := range coins {
			c.putCoin(o)
		}
		c.drop(kindSwap, numbered(n))
		if p, ok := s.payments[sw.Pay]; ok {
			c.end(sw.Pay, p)
		}
		return c.unpack(s, sw, false)
	})
}

// unpack takes a swap's inputs out of the gift that they were sent in.
func (c *change) unpack(s *state, sw *swap, taken bool) error {
	g, ok := s.gifts[sw.Gift]
	if !ok {
		return nil
	}
	left := *g
	left.Coins = slices.DeleteFunc(slices.Clone(g.Coins), func(o coin) bool { return holds(sw.Inputs, o.serial()) })
	if taken {
		left.Taken++
	}
	if len(left.Coins) == 0 && left.Taken == 0 {
		c.drop(kindGift, numbered(sw.Gift))
		return nil
	}
	c.put(kindGift, numbered(sw.Gift), left)
	return nil
}

func holds(coins []coin, s ticket.Serial) bool {
	return slices.ContainsFunc(coins, func(o coin) bool { return o.serial() == s })
}

// replan chooses outputs anew in the month that it is now.
func (w *Wallet) replan(ctx context.Context, n uint64) error {
	e, err := w.issuing(ctx)
	if err != nil {
		return err
	}
	return w.change(ctx, func(s *state, c *change) error {
		old, ok := s.swaps[n]
		if !ok || old.Outputs[0].Epoch == e {
			return nil
		}
		sw := *old
		sw.Tried = append(slices.Clone(old.Tried), old.Outputs)
		sw.Outputs = slices.Clone(old.Outputs)
		for i := range sw.Outputs {
			sw.Outputs[i].Epoch = e
		}
		c.put(kindSwap, numbered(n), sw)
		return nil
	})
}

// swapSpent goes by the mint's word that an input was spent before, if it can prove
// it. Spent for outputs that were tried in an earlier month, it is ours still.
func (w *Wallet) swapSpent(ctx context.Context, n uint64, sw *swap, outputs []ticket.Output, spent *mint.Spent) (again bool, err error) {
	serial := spent.Evidence.Spend.Serial()
	i := slices.IndexFunc(sw.Inputs, func(o coin) bool { return o.serial() == serial })
	if i < 0 {
		return false, unproven(errors.New("its proof is about another ticket"))
	}
	for _, tried := range sw.Tried {
		_, old, err := w.secrets(ctx, tried)
		if err != nil {
			return false, err
		}
		if spent.Evidence.Contract.Digest() == (ticket.SwapContract{Outputs: ticket.OutputsDigest(old)}).Digest() {
			return true, w.goBack(ctx, n, tried)
		}
	}
	m, err := w.keys(ctx, sw.Inputs[i].Epoch)
	if err != nil {
		return false, err
	}
	k, err := m.AnyKey(sw.Inputs[i].Class, sw.Inputs[i].Denomination)
	if err != nil {
		return false, err
	}
	contract := ticket.SwapContract{Outputs: ticket.OutputsDigest(outputs)}
	if err := spent.Evidence.Proves(w.trust.Issuer, k, serial, contract); err != nil {
		return false, unproven(err)
	}
	return w.loseInput(ctx, n, i, spent)
}

// unproven is what it means that a mint says that a ticket was spent and shows no
// proof.
func unproven(err error) error {
	return cloudpal.E("swap tickets", cloudpal.Denied, fmt.Errorf("the mint says that a ticket was spent before, and cannot prove it: %w", err)).
		WithHint("the ticket is kept: try again later, and tell the mint's operator")
}

// goBack makes outputs of an earlier month a swap's again: its inputs are bound to
// them.
func (w *Wallet) goBack(ctx context.Context, n uint64, tried []want) error {
	return w.change(ctx, func(s *state, c *change) error {
		if old, ok := s.swaps[n]; ok {
			sw := *old
			sw.Outputs = tried
			c.put(kindSwap, numbered(n), sw)
		}
		return nil
	})
}

// loseInput takes an input out of a swap that is spent for something else. With
// nothing left the swap is at an end; else another ticket takes its place, since the
// others may be bound to these outputs.
func (w *Wallet) loseInput(ctx context.Context, n uint64, i int, spent *mint.Spent) (again bool, err error) {
	proof := spent.Evidence.Append(nil)
	serial := spent.Evidence.Spend.Serial()
	err = w.change(ctx, func(s *state, c *change) error {
		old, ok := s.swaps[n]
		if !ok || i >= len(old.Inputs) || old.Inputs[i].serial() != serial {
			return nil
		}
		if old.Maybe {
			c.spentIsRestored(s, old.Inputs[i])
		} else if old.Gift == 0 && old.Pay == 0 {
			c.put(kindLoss, string(serial[:]), Loss{At: w.now(), Units: ticket.Units(old.Inputs[i].Denomination), Evidence: proof})
		}
		if len(old.Inputs) == 1 {
			c.drop(kindSwap, numbered(n))
			c.unuse(old)
			return c.unpack(s, old, true)
		}
		sw := *old
		sw.Inputs = slices.Delete(slices.Clone(old.Inputs), i, i+1)
		c.put(kindSwap, numbered(n), sw)
		again = true
		return nil
	})
	if err != nil || again {
		return again, err
	}
	return false, cloudpal.E("swap tickets", cloudpal.Exist, &Taken{Evidence: spent.Evidence})
}

// A Taken error says that a ticket was spent already, for something that its
// evidence proves.
type Taken struct{ Evidence mint.Evidence }

func (t *Taken) Error() string { return "the ticket is spent already" }

// fill puts another ticket in the place of one that was lost.
func (w *Wallet) fill(ctx context.Context, n uint64, short ticket.Units) error {
	return w.change(ctx, func(s *state, c *change) error {
		old, ok := s.swaps[n]
		if !ok || old.short() != short {
			return nil
		}
		for _, o := range s.choice(old.Outputs[0].Class, w.clock.Now(), true) {
			if ticket.Units(o.Denomination) != short {
				continue
			}
			sw := *old
			sw.Inputs = append(slices.Clone(old.Inputs), *o)
			c.dropCoin(o.serial())
			c.put(kindSwap, numbered(n), sw)
			return nil
		}
		return cloudpal.E("swap tickets", cloudpal.Exhausted, fmt.Errorf("one of them was spent already, and there is no other of %d units to take its place", short)).
			WithHint("the others are kept; when there is one, this goes on by itself")
	})
}

// choice returns the coins of a class that can be swapped now, for good keys, those first that are
// worth something for the shortest time. Without resting, it leaves out those that
// rest.
func (s *state) choice(class ticket.Class, now time.Time, resting bool) []*coin {
	var all []*coin
	revoked := s.revoked()
	for _, o := range s.coins {
		if o.Class == class && !revoked[o.token.Key] && o.Epoch.Swaps(now) && (resting || !now.Before(o.Ready)) {
			all = append(all, o)
		}
	}
	slices.SortFunc(all, func(a, b *coin) int {
		sa, sb := a.serial(), b.serial()
		return cmp.Or(cmp.Compare(a.Epoch, b.Epoch), a.Ready.Compare(b.Ready), slices.Compare(sa[:], sb[:]))
	})
	return all
}

// plan returns which coins are swapped to get parts, and for what: one that is worth
// more, the least of them; else several that are worth less, the most first.
func plan(coins []*coin, parts []ticket.Denomination) (in []coin, out []ticket.Denomination, err error) {
	need := ticket.Sum(parts)
	var larger *coin
	for _, o := range coins {
		if ticket.Units(o.Denomination) > need && (larger == nil || o.Denomination < larger.Denomination) {
			larger = o
		}
	}
	if larger != nil {
		out = append(slices.Clone(parts), ticket.Split(ticket.Units(larger.Denomination)-need)...)
		slices.Sort(out)
		return []coin{*larger}, out, nil
	}
	smaller := slices.Clone(coins)
	slices.SortStableFunc(smaller, func(a, b *coin) int { return cmp.Compare(b.Denomination, a.Denomination) })
	left := need
	for _, o := range smaller {
		if d := ticket.Units(o.Denomination); d <= left && len(in) < mint.MaxInputs {
			in, left = append(in, *o), left-d
		}
	}
	if left > 0 {
		return nil, nil, errors.New("there is not enough")
	}
	return in, slices.Sorted(slices.Values(parts)), nil
}

// make has tickets that are worth parts made of others.
func (w *Wallet) make(ctx context.Context, class ticket.Class, parts []ticket.Denomination) error {
	e, err := w.issuing(ctx)
	if err != nil {
		return err
	}
	m, err := w.keys(ctx, e)
	if err != nil {
		return err
	}
	var n uint64
	err = w.change(ctx, func(s *state, c *change) error {
		in, out, err := plan(s.choice(class, w.clock.Now(), w.hurries()), parts)
		if err != nil {
			return w.lacking(s, class, ticket.Sum(parts))
		}
		for _, d := range out {
			if _, err := m.Key(class, d); err != nil {
				return cloudpal.E("swap tickets", cloudpal.Busy, err).WithHint("nothing is lost: it is possible again with next month's keys")
			}
		}
		n = c.begin(swap{Begun: w.now(), Inputs: in, Outputs: wants(swapBranch(in[0].serial()), class, e, out), Origin: Swapped})
		return nil
	})
	if err != nil {
		return err
	}
	return w.runSwap(ctx, n)
}

// hurries reports whether tickets are used that rest.
func (w *Wallet) hurries() bool { return w.policy.Rest == Spread{} }

// lacking says why there are not so many units: they rest, or there are none.
func (w *Wallet) lacking(s *state, class ticket.Class, need ticket.Units) error {
	var have ticket.Units
	var ready time.Time
	for _, o := range s.choice(class, w.clock.Now(), true) {
		have += ticket.Units(o.Denomination)
		if o.Ready.After(ready) {
			ready = o.Ready
		}
	}
	if have < need {
		return cloudpal.E("", cloudpal.Exhausted, fmt.Errorf("the wallet has %d units in %s tickets, of %d", have, class, need)).
			WithHint("buy more: cloudpal wallet buy")
	}
	return resting(ready)
}

func resting(until time.Time) error {
	return cloudpal.E("", cloudpal.Busy, &Resting{Until: until}).
		WithHint("wait until then; or, where it does not matter who sees it: --now")
}

// A Resting error says that tickets are there, and rest: used right after they were
// made, they would show who made them.
type Resting struct{ Until time.Time }

func (r *Resting) Error() string {
	return "the tickets rest until " + r.Until.Local().Format(time.DateTime) + ", so that nobody sees that what is bought and what is paid belong together"
}
