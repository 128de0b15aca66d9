package wallet

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/tradle/cloudpal"
	mint "github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/ticket"
)

// Restoring looks at the branches of the seed, one after another, and asks the mint
// which of their outputs it ever signed. What is found may be spent since, so each is
// swapped: that succeeds for those that are not. For those that are, it goes on to
// what became of them.
//
//	buy/1/82/1/0 ──► A, B          A: swapped ──► ours
//	buy/1/82/1/1 ──► nothing       B: spent ──► swap/B ──► C ...
//	buy/1/82/1/2 ──► nothing                    change/B ──► D ...
//	buy/1/82/1/3 ──► nothing: the line ends
const (
	// Gap is how many branches of a line in a row have nothing before it ends, and
	// how many devices.
	Gap = 3
	// batchN is how many outputs of each denomination are asked for at once: of all
	// seven that makes 98.
	batchN = mint.MaxOutputs / 7
)

// A restored is what a restore has yet to look at. It is in the journal, so that one
// that was killed goes on.
type restored struct {
	Lines   []place         `json:"lines"`   // that are looked at, the first of them now; then the rest
	Devices []uint32        `json:"devices"` // that are to be looked at, in any case
	Device  uint32          `json:"device"`  // the last of those whose lines are in Lines
	Empty   int             `json:"empty"`   // devices in a row that had nothing
	Found   bool            `json:"found"`   // something of this device
	Most    uint32          `json:"most"`    // the highest number of a device that has something
	Coins   []ticket.Serial `json:"coins"`   // that are to be swapped
	Spent   []spentCoin     `json:"spent"`   // that are, and what they became is to be looked for
	Begun   bool            `json:"begun"`
	Looked  bool            `json:"looked"` // at all lines of all devices
	Done    bool            `json:"done"`
}

// A place is where a line of branches is looked at.
type place struct {
	What  string       `json:"what"`
	Dev   uint32       `json:"dev"`
	Epoch ticket.Epoch `json:"epoch"`
	Class ticket.Class `json:"class"`
	K     uint64       `json:"k"`
	Empty int          `json:"empty"`
}

func (p place) line() string { return fmt.Sprintf("%s/%d/%d/%d", p.What, p.Dev, p.Epoch, p.Class) }

// A spentCoin is one whose children are to be looked for.
type spentCoin struct {
	Serial       ticket.Serial       `json:"serial"`
	Class        ticket.Class        `json:"class"`
	Denomination ticket.Denomination `json:"denomination"`
	Epoch        ticket.Epoch        `json:"epoch"`
}

func serials(s *state) (all []ticket.Serial) {
	for serial := range s.coins {
		all = append(all, serial)
	}
	slices.SortFunc(all, func(a, b ticket.Serial) int { return slices.Compare(a[:], b[:]) })
	return all
}

// A Progress is how far a restore is.
type Progress struct {
	Asked int // questions that were asked
	Found int // tickets that the mint had signed
	Left  int // lines of branches and tickets that are known to be left
}

// Restore finds what the phrase is worth: all tickets that any of the person's
// devices ever made, of months whose tickets are worth something, those of devices
// with these numbers in any case. It may take long, since it asks for each branch
// over a connection of its own and takes its time between. Killed, it goes on when it
// is called again.
//
// The tickets of devices that are in use elsewhere become this one's, and their
// payments that are not due yet are cancelled: restore when the other device is gone.
func (w *Wallet) Restore(ctx context.Context, devices []uint32, progress func(Progress)) (Progress, error) {
	var p Progress
	if err := w.beginRestore(ctx, devices); err != nil {
		return p, err
	}
	for {
		s, err := w.look()
		if err != nil {
			return p, err
		}
		var r restored
		s.fact(factRestored, &r)
		p.Left = len(r.Lines) + len(r.Coins) + len(r.Spent)
		if progress != nil {
			progress(p)
		}
		if r.Done {
			return p, nil
		}
		if err := w.restoreStep(ctx, r, &p); err != nil {
			return p, err
		}
		if p.Asked > 0 {
			if err := w.pause(ctx); err != nil {
				return p, err
			}
		}
	}
}

func (w *Wallet) beginRestore(ctx context.Context, devices []uint32) error {
	return w.change(ctx, func(s *state, c *change) error {
		var r restored
		if s.fact(factRestored, &r) && r.Begun && !r.Done {
			return nil // one that was killed
		}
		if r.Done {
			r = restored{}
		}
		r.Begun = true
		r.Devices = append(r.Devices, devices...)
		var own uint32
		s.fact(factDevice, &own)
		r.Devices = append(r.Devices, own)
		r.Device = FirstDevice
		r.Lines = w.linesOf(FirstDevice)
		c.putFact(factRestored, r)
		return nil
	})
}

// linesOf are all lines of a device whose tickets can be worth something.
func (w *Wallet) linesOf(device uint32) (all []place) {
	now := w.clock.Now()
	for e := range ticket.EpochAt(now) + 1 {
		if !e.Swaps(now) {
			continue
		}
		for _, class := range ticket.Classes {
			for _, what := range []string{"buy", "in"} {
				all = append(all, place{What: what, Dev: device, Epoch: e, Class: class})
			}
		}
	}
	return all
}

// restoreStep takes a restore one step further: first at all lines, which shows how
// many devices there are, then at each ticket.
func (w *Wallet) restoreStep(ctx context.Context, r restored, p *Progress) error {
	switch {
	case len(r.Lines) > 0:
		return w.restoreBranch(ctx, r, p)
	case !r.Looked:
		return w.restoreDevice(ctx, r)
	case len(r.Coins) > 0:
		return w.restoreCoin(ctx, r, p)
	case len(r.Spent) > 0:
		return w.restoreChildren(ctx, r, p)
	}
	return w.keepRestored(ctx, restored{Begun: true, Looked: true, Done: true}, nil)
}

// restoreBranch looks at one branch of a line.
func (w *Wallet) restoreBranch(ctx context.Context, r restored, p *Progress) error {
	at := r.Lines[0]
	coins, err := w.find(ctx, branchOf(at.line(), at.K), at.Class, []ticket.Epoch{at.Epoch}, ticket.Denominations, batchN)
	if errors.Is(err, cloudpal.NotExist) {
		r.Lines = r.Lines[1:] // the mint had no keys then
		return w.keepRestored(ctx, r, nil)
	}
	if err != nil {
		return err
	}
	p.Asked++
	p.Found += len(coins)
	if len(coins) > 0 {
		at.Empty, r.Found = 0, true
	} else {
		at.Empty++
	}
	at.K++
	r.Lines = slices.Clone(r.Lines)
	r.Lines[0] = at
	if at.Empty >= Gap {
		r.Lines = r.Lines[1:]
	}
	return w.keepRestored(ctx, r, coins)
}

// restoreDevice goes on to the next device, or ends.
func (w *Wallet) restoreDevice(ctx context.Context, r restored) error {
	if r.Found {
		r.Most, r.Empty = max(r.Most, r.Device), 0
	} else {
		r.Empty++
	}
	r.Found = false
	r.Devices = slices.DeleteFunc(slices.Clone(r.Devices), func(d uint32) bool { return d <= r.Device })
	switch {
	case r.Empty < Gap:
		r.Device++
	case len(r.Devices) > 0:
		r.Device = slices.Min(r.Devices)
	default:
		r.Looked = true
		return w.keepRestored(ctx, r, nil)
	}
	r.Lines = w.linesOf(r.Device)
	return w.keepRestored(ctx, r, nil)
}

// restoreCoin swaps the first ticket that was found for one on a branch that no
// device ever used: then it is this wallet's alone, and was not spent.
func (w *Wallet) restoreCoin(ctx context.Context, r restored, p *Progress) error {
	serial := r.Coins[0]
	s, err := w.look()
	if err != nil {
		return err
	}
	n := s.swapOfCoin(serial)
	if o := s.coins[serial]; o != nil && n == 0 {
		if n, err = w.beginRestored(ctx, *o); err != nil {
			return err
		}
	}
	if n != 0 {
		var taken *Taken
		if err := w.runSwap(ctx, n); err != nil && !errors.As(err, &taken) {
			return err
		}
		p.Asked++
	}
	return w.change(ctx, func(s *state, c *change) error {
		var r restored
		s.fact(factRestored, &r)
		r.Coins = slices.DeleteFunc(r.Coins, func(t ticket.Serial) bool { return t == serial })
		c.putFact(factRestored, r)
		return nil
	})
}

func (s *state) swapOfCoin(serial ticket.Serial) uint64 {
	for n, sw := range s.swaps {
		if holds(sw.Inputs, serial) {
			return n
		}
	}
	return 0
}

func (w *Wallet) beginRestored(ctx context.Context, o coin) (n uint64, err error) {
	e, err := w.issuing(ctx)
	if err != nil {
		return 0, err
	}
	sw := swap{Begun: w.now(), Inputs: []coin{o}, Maybe: true}
	if err := w.takeIn(ctx, &sw, e, Restored); err != nil {
		return 0, err
	}
	err = w.change(ctx, func(s *state, c *change) error {
		if s.coins[o.serial()] != nil {
			c.use(sw.Line, sw.K)
			n = c.begin(sw)
		}
		return nil
	})
	return n, err
}

// spentIsRestored has a restore look for what a ticket became that turned out to be
// spent.
func (c *change) spentIsRestored(s *state, o coin) {
	var r restored
	s.fact(factRestored, &r)
	r.Done = false
	r.Spent = append(r.Spent, spentCoin{o.serial(), o.Class, o.Denomination, o.Epoch})
	c.putFact(factRestored, r)
}

// restoreChildren looks for what a spent ticket became.
func (w *Wallet) restoreChildren(ctx context.Context, r restored, p *Progress) error {
	o := r.Spent[0]
	r.Spent = r.Spent[1:]
	var smaller []ticket.Denomination
	for _, d := range ticket.Denominations {
		if d < o.Denomination {
			smaller = append(smaller, d)
		}
	}
	coins, err := w.find(ctx, changeBranch(o.Serial), o.Class, []ticket.Epoch{o.Epoch}, smaller, 3)
	if err != nil {
		return err
	}
	p.Asked++
	if len(coins) == 0 {
		now := w.clock.Now()
		var epochs []ticket.Epoch
		for e := o.Epoch; e <= ticket.EpochAt(now); e++ {
			epochs = append(epochs, e)
		}
		if err := w.pause(ctx); err != nil {
			return err
		}
		if coins, err = w.find(ctx, swapBranch(o.Serial), o.Class, epochs, ticket.Denominations, 4); err != nil {
			return err
		}
		p.Asked++
	}
	p.Found += len(coins)
	return w.keepRestored(ctx, r, coins)
}

// find returns the tickets that were signed of a branch, asking for n of each
// denomination and epoch, and for more where the last of those was signed.
func (w *Wallet) find(ctx context.Context, b ticket.Branch, class ticket.Class, epochs []ticket.Epoch, parts []ticket.Denomination, n uint64) ([]coin, error) {
	var coins []coin
	type column struct {
		e ticket.Epoch
		d ticket.Denomination
	}
	var columns []column
	for _, e := range epochs {
		for _, d := range parts {
			columns = append(columns, column{e, d})
		}
	}
	for from := uint64(0); len(columns) > 0; from += n {
		var all []want
		for _, c := range columns {
			for i := range n {
				all = append(all, want{b, class, c.d, c.e, from + i})
			}
		}
		found, last, err := w.findAll(ctx, all, from+n-1)
		if err != nil {
			return nil, err
		}
		coins = append(coins, found...)
		columns = slices.DeleteFunc(columns, func(c column) bool {
			return !slices.ContainsFunc(last, func(o want) bool { return o.Epoch == c.e && o.Denomination == c.d })
		})
	}
	return coins, nil
}

// findAll returns the tickets of those outputs that were signed, and which of those
// have the number last.
func (w *Wallet) findAll(ctx context.Context, all []want, last uint64) (coins []coin, lasts []want, err error) {
	for some := range slices.Chunk(all, mint.MaxOutputs) {
		secrets, outputs, err := w.secrets(ctx, some)
		if err != nil {
			return nil, nil, err
		}
		signatures, err := w.signed(ctx, outputs)
		if err != nil {
			return nil, nil, err
		}
		var signed []int
		for i, s := range signatures {
			if s == nil {
				continue
			}
			signed = append(signed, i)
			if some[i].N == last {
				lasts = append(lasts, some[i])
			}
		}
		found, err := w.finish(ctx, pick(some, signed), pick(secrets, signed), pick(signatures, signed), Restored)
		if err != nil {
			return nil, nil, err
		}
		coins = append(coins, found...)
	}
	return coins, lasts, nil
}

// keepRestored keeps how far a restore is, and what it found: tickets of the wallet,
// and to be swapped. Where this device has no number, it gets the one above all that
// have made something.
func (w *Wallet) keepRestored(ctx context.Context, r restored, coins []coin) error {
	return w.change(ctx, func(s *state, c *change) error {
		for _, o := range coins {
			serial := o.serial()
			if s.moving(serial) || slices.Contains(r.Coins, serial) {
				continue
			}
			// One that the wallet has is swapped, too: an old copy of the disk has
			// tickets that were spent since.
			if s.coins[serial] == nil {
				c.putCoin(o)
			}
			r.Coins = append(r.Coins, serial)
		}
		var device uint32
		if s.fact(factDevice, &device); device == 0 && r.Looked {
			c.putFact(factDevice, r.Most+1)
		}
		c.putFact(factRestored, r)
		return nil
	})
}

// moving reports whether a ticket is in something that the wallet is doing, or did.
func (s *state) moving(serial ticket.Serial) bool {
	for _, sw := range s.swaps {
		if holds(sw.Inputs, serial) {
			return true
		}
	}
	for _, p := range s.payments {
		if p.Coin.serial() == serial {
			return true
		}
	}
	for _, g := range s.gifts {
		if holds(g.Coins, serial) {
			return true
		}
	}
	return false
}
