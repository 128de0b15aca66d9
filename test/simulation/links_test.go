package simulation_test

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/person/wallet"
	"github.com/tradle/cloudpal/ticket"
)

// A matcher has the complete logs of the mint and of all centers, which work together,
// knows the policy that all wallets go by, and wants to know who bought the tickets
// that a pal is paid with. Of each pal's first tab it says who.
//
// It uses the times of all purchases and payments, how many tickets of which keys were
// bought and paid, and that each who bought has one first tab.
type matcher struct {
	policy wallet.Policy
	bought []issued // in their order
	tabs   []stayed // by their first payments
}

// A stayed is a tab, as a center knows it.
type stayed struct {
	id    api.TabID
	first time.Time
	times []time.Time
	keys  map[ticket.KeyID]int
}

// newMatcher reads the logs. Which tabs are first ones it is told: that is more than
// anybody knows.
func newMatcher(w *world) *matcher {
	m := &matcher{policy: w.policy}
	for _, i := range w.seen.issues {
		m.bought = append(m.bought, i)
	}
	slices.SortFunc(m.bought, func(a, b issued) int { return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.who, b.who)) })
	for _, t := range w.firsts {
		s := stayed{id: t.tab, keys: map[ticket.KeyID]int{}}
		seen := map[ticket.Serial]bool{}
		for _, p := range w.seen.paid[t.tab] {
			if !seen[p.serial] {
				seen[p.serial] = true
				s.times = append(s.times, p.at)
				s.keys[p.key]++
			}
		}
		s.first = s.times[0]
		m.tabs = append(m.tabs, s)
	}
	slices.SortFunc(m.tabs, func(a, b stayed) int { return cmp.Or(a.first.Compare(b.first), slices.Compare(a.id[:], b.id[:])) })
	return m
}

// slack is what the way may add: who loses an answer asks again.
const slack = 10 * time.Minute

// can reports whether a purchase can be what a tab is paid from.
func (m *matcher) can(i issued, s stayed) bool {
	wait := s.first.Sub(i.at)
	if wait < m.policy.Rest.Least || wait > m.policy.Rest.Most+slack {
		return false
	}
	for k := range s.keys {
		if i.keys[k] == 0 {
			return false
		}
	}
	return true
}

// Its ways of guessing. Each gives tabs, by their order, a purchase.
var ways = map[string]func(*matcher) []int{
	// Each tab, from the first, is the latest purchase's before it that is left.
	"nearest": func(m *matcher) []int {
		return m.inTurn(func(left []int) int { return left[len(left)-1] })
	},
	// It is the oldest one's that is left: who comes first goes first.
	"in order": func(m *matcher) []int {
		return m.inTurn(func(left []int) int { return left[0] })
	},
	// Of all pairs the likeliest is taken first, by how likely it is that the first
	// of the bought tickets is ready just then if each rested for itself.
	"likeliest": func(m *matcher) []int { return m.greedy(m.density) },
	// Of all pairs that is taken first whose payments come as tickets would that
	// become ready one after another.
	"as they ripen": func(m *matcher) []int { return m.greedy(m.ripening) },
}

func (m *matcher) inTurn(choose func(left []int) int) []int {
	guess := make([]int, len(m.tabs))
	used := make([]bool, len(m.bought))
	for t, s := range m.tabs {
		guess[t] = -1
		var left []int
		for b, i := range m.bought {
			if !used[b] && m.can(i, s) {
				left = append(left, b)
			}
		}
		if len(left) > 0 {
			guess[t] = choose(left)
			used[guess[t]] = true
		}
	}
	return guess
}

func (m *matcher) greedy(score func(issued, stayed) float64) []int {
	type pair struct {
		t, b  int
		score float64
	}
	var all []pair
	for t, s := range m.tabs {
		for b, i := range m.bought {
			if m.can(i, s) {
				all = append(all, pair{t, b, score(i, s)})
			}
		}
	}
	slices.SortStableFunc(all, func(a, b pair) int { return cmp.Compare(b.score, a.score) })
	guess, used := make([]int, len(m.tabs)), make([]bool, len(m.bought))
	for t := range guess {
		guess[t] = -1
	}
	for _, p := range all {
		if guess[p.t] < 0 && !used[p.b] {
			guess[p.t], used[p.b] = p.b, true
		}
	}
	return guess
}

// rested is how likely a ticket has rested to its end after a while.
func (m *matcher) rested(d time.Duration) float64 {
	r := m.policy.Rest
	if r.Mean == 0 {
		return 1
	}
	d = min(max(d-r.Least, 0), r.Most-r.Least)
	return -math.Expm1(-float64(d)/float64(r.Mean)) / -math.Expm1(-float64(r.Most-r.Least)/float64(r.Mean))
}

func (m *matcher) density(i issued, s stayed) float64 {
	n := 0
	for k := range s.keys {
		n = max(n, i.keys[k])
	}
	at := s.first.Sub(i.at)
	early, late := m.rested(at-time.Minute), m.rested(at+time.Minute)
	return math.Pow(1-early, float64(n)) - math.Pow(1-late, float64(n))
}

func (m *matcher) ripening(i issued, s stayed) float64 {
	n := 0
	for k := range s.keys {
		n = max(n, i.keys[k])
	}
	var off float64
	for j, t := range s.times[:min(len(s.times), n)] {
		off += math.Abs(m.rested(t.Sub(i.at)) - float64(j+1)/float64(n+1))
	}
	return -off
}

// A verdict is how well the matcher did, and how well one does who guesses.
type verdict struct {
	tabs  int
	right map[string]int // by the ways
	best  string
	crowd float64   // how many wait at a time, on average
	luck  []float64 // of who guesses at each tab
}

func (v verdict) expected() (sum float64) {
	for _, p := range v.luck {
		sum += p
	}
	return sum
}

// judge compares the matcher with who guesses. Who guesses is told, whenever a tab is
// first paid, which wallets' tickets still rest at that moment, for how long they have,
// and how the policy draws, and names the one that is the likeliest to be done just
// then. An exponential wait is as likely to end now for each who waits: so this is
// the best that anybody can do by time alone, even who has found out all that was
// before. It needs what only the simulation knows.
func (w *world) judge() verdict {
	m := newMatcher(w)
	v := verdict{tabs: len(m.tabs), right: map[string]int{}}
	who := map[api.TabID]string{}
	for _, t := range w.firsts {
		who[t.tab] = t.who
	}
	for name, way := range ways {
		for t, b := range way(m) {
			if b >= 0 && m.bought[b].who == who[m.tabs[t].id] {
				v.right[name]++
			}
		}
		if v.best == "" || v.right[name] > v.right[v.best] || v.right[name] == v.right[v.best] && name < v.best {
			v.best = name
		}
	}
	for _, t := range w.firsts {
		var all, most float64
		waiting := 0
		for _, other := range w.firsts {
			if other.at.Before(t.at) || t.at.Sub(other.began) < w.policy.Rest.Least {
				continue
			}
			h := hazard(w.policy.Rest, t.at.Sub(other.began))
			all, most = all+h, max(most, h)
			waiting++
		}
		v.luck = append(v.luck, most/all)
		v.crowd += float64(waiting) / float64(len(w.firsts))
	}
	return v
}

// hazard is how likely a wait is to end just now that has not ended yet, up to a
// factor.
func hazard(s wallet.Spread, age time.Duration) float64 {
	if s.Mean == 0 {
		return 1
	}
	left := max(s.Most-age, time.Minute)
	return 1 / -math.Expm1(-float64(left)/float64(s.Mean))
}

// chance is how likely who guesses is right so often, or more often: the upper tail of
// the sum of as many coins as there are tabs, each with its own luck.
func (v verdict) chance(right int) float64 {
	exactly := make([]float64, len(v.luck)+1)
	exactly[0] = 1
	for n, p := range v.luck {
		for k := n + 1; k > 0; k-- {
			exactly[k] = exactly[k]*(1-p) + exactly[k-1]*p
		}
		exactly[0] *= 1 - p
	}
	var sum float64
	for k := len(exactly) - 1; k >= right; k-- {
		sum += exactly[k]
	}
	return sum
}
