//go:build linux

package ledger

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

// An event is one end of a question to a ledger, as a client writes it down.
type event struct {
	kind byte  // ask, got, lost or drop
	id   int64 // of the question
	at   int64 // on the machine's clock, which all processes share
	n    int   // the ticket
	tag  int   // asked: what it is spent for, none to look; got: what it is spent for, none if it is not
}

const (
	ask  = '?'
	got  = '='
	lost = '!' // it failed: what became of it nobody knows
	drop = '-' // epoch n is dropped
	none = 0
)

// now is a time that other processes' times compare with.
func now() int64 {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		panic(err)
	}
	return t.Nano()
}

// A client spends tickets and looks at them, and notes what it asks, before it
// does, and what it was answered, after.
type client struct {
	ledger Ledger
	note   func(event)
	asked  *atomic.Int64 // by all clients of a ledger's life: the tickets move on with it
	first  int64         // where their numbers begin, for tags are told apart by them
	oldest int           // the ticket that the first asks for
	r      *rand.Rand
}

// question asks for one or a few tickets at once, which are questions of their own.
func (c *client) question(ctx context.Context) error {
	count := 1 + c.r.IntN(3)
	id := c.first + c.asked.Add(int64(count)) - int64(count)
	var serials []Serial
	var rows []Row
	var open []event
	looks := c.r.IntN(4) == 0
	for _, d := range c.r.Perm(8)[:count] {
		e := event{kind: ask, id: id + int64(len(open)), at: now(), n: c.oldest + int(id-c.first)/12 + d}
		if !looks {
			e.tag = int(e.id) + 1
		}
		open = append(open, e)
		serials, rows = append(serials, serial(e.n)), append(rows, row(e.n, e.tag))
		c.note(e)
	}
	var there []Row
	var err error
	if looks {
		there, err = c.ledger.Look(ctx, epoch, serials)
	} else {
		there, err = c.ledger.Spend(ctx, epoch, rows)
	}
	at := now()
	for i, e := range open {
		if e.kind, e.at = lost, at; err == nil {
			e.kind, e.tag = got, tagOf(there[i])
			if e.tag != none && string(there[i].Evidence) != string(row(e.n, e.tag).Evidence) {
				return fmt.Errorf("ticket %d has other evidence: %q", e.n, there[i].Evidence)
			}
		}
		c.note(e)
	}
	return err
}

// A history is what clients of a ledger have noted, of all its lives.
type history struct {
	mu      sync.Mutex
	ops     map[int64]*porcupine.Operation
	dropped []ticket.Epoch
	got     int
}

func newHistory() *history { return &history{ops: map[int64]*porcupine.Operation{}} }

// asked and answer are what porcupine knows of a question.
type asked struct{ n, tag int }

type answer struct {
	known bool
	tag   int
}

func (h *history) note(e event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch e.kind {
	case ask:
		// Until it is answered, it may still come about, at any time.
		h.ops[e.id] = &porcupine.Operation{Input: asked{e.n, e.tag}, Call: e.at, Output: answer{}, Return: math.MaxInt64}
	case got:
		h.ops[e.id].Output, h.ops[e.id].Return = answer{true, e.tag}, e.at
		h.got++
	case drop:
		h.dropped = append(h.dropped, ticket.Epoch(e.n))
	}
}

func (h *history) answered() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.got
}

// oldest is the ticket at which a new life begins: one that the life before had just
// asked for.
func (h *history) oldest() (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, op := range h.ops {
		n = max(n, op.Input.(asked).n-10)
	}
	return n
}

// register is what a ledger is to each ticket: a tag that is written once. A
// question that nobody knows the end of may be thought to come last, where it
// changes nothing.
var register = porcupine.Model{
	Partition: func(all []porcupine.Operation) [][]porcupine.Operation {
		parts := map[int][]porcupine.Operation{}
		for _, op := range all {
			n := op.Input.(asked).n
			parts[n] = append(parts[n], op)
		}
		return slices.Collect(maps.Values(parts))
	},
	Init: func() any { return none },
	Step: func(state, input, output any) (bool, any) {
		after, out := state.(int), output.(answer)
		if after == none {
			after = input.(asked).tag
		}
		return !out.known || out.tag == after, after
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v -> %+v", input, output) },
}

// check asks porcupine whether what was answered could have been, one after the
// other.
func (h *history) check(t *testing.T) porcupine.CheckResult {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	var ops []porcupine.Operation
	unknown := 0
	for _, id := range slices.Sorted(maps.Keys(h.ops)) {
		ops = append(ops, *h.ops[id])
		if !h.ops[id].Output.(answer).known {
			unknown++
		}
	}
	result := porcupine.CheckOperationsTimeout(register, ops, time.Minute)
	t.Logf("%d questions, of which %d have no answer: %s", len(ops), unknown, result)
	return result
}

// kept holds a ledger to everything that was answered: it answers the same again, to
// who looks and to who spends.
func (h *history) kept(t *testing.T, l Ledger) (wrong int) {
	t.Helper()
	want := map[int]int{}
	for _, op := range h.ops {
		if out := op.Output.(answer); out.known && out.tag != none {
			n := op.Input.(asked).n
			if was, ok := want[n]; ok && was != out.tag {
				wrong++
			}
			want[n] = out.tag
		}
	}
	for n, tag := range want {
		for _, ask := range []func() ([]Row, error){
			func() ([]Row, error) { return l.Look(t.Context(), epoch, []Serial{serial(n)}) },
			func() ([]Row, error) { return l.Spend(t.Context(), epoch, []Row{row(n, math.MaxInt32)}) },
		} {
			rows, err := ask()
			if err != nil {
				t.Fatal(err)
			}
			if tagOf(rows[0]) != tag || string(rows[0].Evidence) != string(row(n, tag).Evidence) {
				wrong++
			}
		}
	}
	for _, e := range h.dropped {
		if _, err := l.Spend(t.Context(), e, []Row{row(1, 1)}); !errors.Is(err, cloudpal.Exhausted) {
			t.Errorf("epoch %d, which was dropped, is back: %v", e, err)
		}
	}
	return wrong
}

// ask has clients put questions until enough of them were answered.
func (h *history) ask(t *testing.T, seed uint64, life int, answers int, ledgers ...Ledger) {
	t.Helper()
	var all sync.WaitGroup
	var count atomic.Int64
	enough := h.answered() + answers
	for c := range clients {
		all.Go(func() {
			one := &client{ledgers[c%len(ledgers)], h.note, &count, int64(life) * perLife, h.oldest(), rand.New(rand.NewPCG(seed, uint64(c)))}
			for h.answered() < enough && t.Context().Err() == nil {
				if err := one.question(t.Context()); err != nil && cloudpal.KindOf(err) != cloudpal.Missing && cloudpal.KindOf(err) != cloudpal.Timeout {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
}

const (
	clients = 8
	perLife = 1_000_000 // questions, at most
)

// TestLinearizable without faults.
func TestLinearizable(t *testing.T) {
	t.Parallel()
	for _, seed := range []uint64{1, 2, 3} {
		h := newHistory()
		h.ask(t, seed, 0, 3000, openFor(t, t.TempDir(), vfs.Default))
		if got := h.check(t); got != porcupine.Ok {
			t.Errorf("seed %d: the ledger is %s", seed, got)
		}
	}
}

// A broken ledger is a Ledger with something wrong.
type broken struct {
	Ledger
	spend func(e ticket.Epoch, rows []Row) ([]Row, error)
	look  func(e ticket.Epoch, serials []Serial) ([]Row, error)
}

func (b broken) Spend(ctx context.Context, e ticket.Epoch, rows []Row) ([]Row, error) {
	if b.spend != nil {
		return b.spend(e, rows)
	}
	return b.Ledger.Spend(ctx, e, rows)
}

func (b broken) Look(ctx context.Context, e ticket.Epoch, serials []Serial) ([]Row, error) {
	if b.look != nil {
		return b.look(e, serials)
	}
	return b.Ledger.Look(ctx, e, serials)
}

// TestBrokenLedgersAreCaught: the check of histories tells what is wrong from what
// is not.
func TestBrokenLedgersAreCaught(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(l Ledger) Ledger{
		"answers before it has looked": func(l Ledger) Ledger {
			var calls atomic.Int64
			return broken{Ledger: l, spend: func(e ticket.Epoch, rows []Row) ([]Row, error) {
				if calls.Add(1)%20 == 0 {
					return rows, nil
				}
				return l.Spend(t.Context(), e, rows)
			}}
		},
		"looks, and then adds": func(l Ledger) Ledger {
			var mu sync.Mutex
			there := map[Serial]Row{}
			return broken{Ledger: l, spend: func(_ ticket.Epoch, rows []Row) ([]Row, error) {
				out := slices.Clone(rows)
				for i, r := range rows {
					mu.Lock()
					was, ok := there[r.Serial]
					mu.Unlock()
					runtime.Gosched() // others come between
					mu.Lock()
					if out[i] = was; !ok {
						out[i], there[r.Serial] = r, r
					}
					mu.Unlock()
				}
				return out, nil
			}, look: func(_ ticket.Epoch, serials []Serial) ([]Row, error) {
				mu.Lock()
				defer mu.Unlock()
				var out []Row
				for _, s := range serials {
					out = append(out, there[s])
				}
				return out, nil
			}}
		},
		"looks at an old copy": func(l Ledger) Ledger {
			var calls atomic.Int64
			return broken{Ledger: l, look: func(e ticket.Epoch, serials []Serial) ([]Row, error) {
				if calls.Add(1)%5 == 0 {
					return make([]Row, len(serials)), nil
				}
				return l.Look(t.Context(), e, serials)
			}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHistory()
			h.ask(t, 5, 0, 3000, spoil(openFor(t, "ledger", vfs.NewMem())))
			if got := h.check(t); got != porcupine.Illegal {
				t.Errorf("a ledger that %s is %s", name, got)
			}
		})
	}
}

// TestUnknownEnds: what has no answer may have come about, or not, but not both.
func TestUnknownEnds(t *testing.T) {
	t.Parallel()
	spends := func(id int64, tag int) event { return event{ask, id, id * 10, 1, tag} }
	answers := func(id int64, tag int) event { return event{got, id, id*10 + 5, 1, tag} }
	for _, c := range []struct {
		name   string
		events []event
		want   porcupine.CheckResult
	}{
		{"it came about", []event{spends(1, 7), spends(2, none), answers(2, 7)}, porcupine.Ok},
		{"it came about later", []event{spends(1, 7), spends(2, none), answers(2, none), spends(3, none), answers(3, 7)}, porcupine.Ok},
		{"it did not", []event{spends(1, 7), spends(2, 8), answers(2, 8), spends(3, none), answers(3, 8)}, porcupine.Ok},
		{"it did, and then it did not", []event{spends(1, 7), spends(2, none), answers(2, 7), spends(3, none), answers(3, none)}, porcupine.Illegal},
		{"it came about after another", []event{spends(1, 7), spends(2, 8), answers(2, 8), spends(3, none), answers(3, 7)}, porcupine.Illegal},
		{"what nobody asked for", []event{spends(1, 7), spends(2, none), answers(2, 9)}, porcupine.Illegal},
	} {
		h := newHistory()
		for _, e := range c.events {
			h.note(e)
		}
		if got := h.check(t); got != c.want {
			t.Errorf("%s: got %s, want %s", c.name, got, c.want)
		}
	}
}
