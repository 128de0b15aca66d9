package wallet

import (
	"errors"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

// The declared distribution is the one that is drawn from: an exponential one that is
// cut off. The largest distance of the two distribution functions (Kolmogorov and
// Smirnov) is below what chance does once in a million.
func TestSpreadIsAsDeclared(t *testing.T) {
	t.Parallel()
	for _, s := range []Spread{Careful.Rest, Careful.Gap, again, {Least: 0, Mean: time.Second, Most: 100 * time.Second}} {
		r := rand.New(rand.NewPCG(1, 2))
		const n = 20_000
		var below [201]int // of a fraction of the room
		for range n {
			d := s.Draw(r)
			if d < s.Least || d > s.Most {
				t.Fatalf("%v: drew %s", s, d)
			}
			below[int(200*float64(d-s.Least)/float64(s.Most-s.Least))]++
		}
		cdf := func(x float64) float64 {
			room, mean := float64(s.Most-s.Least), float64(s.Mean)
			return (1 - math.Exp(-x*room/mean)) / (1 - math.Exp(-room/mean))
		}
		sum, worst := 0, 0.0
		for i, b := range below[:200] {
			sum += b
			worst = max(worst, math.Abs(float64(sum)/n-cdf(float64(i+1)/200)))
		}
		if limit := 2.7 / math.Sqrt(n); worst > limit {
			t.Errorf("%v: the distance is %.4f, above %.4f", s, worst, limit)
		}
	}
	if d := (Spread{}).Draw(nil); d != 0 {
		t.Errorf("nothing draws %s", d)
	}
	if d := (Spread{Least: time.Hour}).Draw(nil); d != 0 && d != time.Hour {
		t.Errorf("an hour draws %s", d)
	}
}

// The policy is what it says that it is: a change of it is a change of what is
// promised.
func TestCarefulIsDeclared(t *testing.T) {
	t.Parallel()
	want := Policy{
		Rest:  Spread{time.Hour, 12 * time.Hour, 48 * time.Hour},
		Gap:   Spread{2 * time.Second, 20 * time.Second, 2 * time.Minute},
		Crowd: 1000,
	}
	if Careful != want || Now != (Policy{}) {
		t.Errorf("it is %+v", Careful)
	}
	for _, bad := range []Spread{{Least: -1}, {Least: 2, Most: 1}, {Mean: -1, Most: 1}, {Most: 1000 * 24 * time.Hour}} {
		mustBe(t, cloudpal.Invalid, Policy{Rest: bad}.check())
		mustBe(t, cloudpal.Invalid, Policy{Gap: bad}.check())
	}
}

// What was bought is not spent at once, and what has to be changed first rests again.
func TestTicketsRest(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	careful := Careful
	careful.Crowd = 0
	ann, dc := h.wallet("ann").with(careful), h.shop("center", 64)
	begun := h.Now()
	ann.buy("week")
	b, err := ann.Balance()
	h.must(err)
	for _, k := range b.Holdings {
		if k.Resting != k.Tickets || k.Ready.Before(begun.Add(time.Hour)) || k.Ready.After(h.Now().Add(48*time.Hour)) {
			t.Errorf("%+v rests until %s", k, k.Ready)
		}
	}
	// Each rests for a time of its own; but what was made together is ready together:
	// else the first of many would be, soon after all were bought.
	times := map[time.Time]bool{}
	first, last := h.Now().Add(100*time.Hour), begun
	for _, c := range mustLook(t, ann.Wallet).coins {
		times[c.Ready] = true
		if c.Ready.Before(first) {
			first = c.Ready
		}
		if c.Ready.After(last) {
			last = c.Ready
		}
	}
	if last.Sub(first) > careful.Gap.Most {
		t.Errorf("of one purchase, the first ticket is ready %s before the last", last.Sub(first))
	}
	if len(times) < 8 {
		t.Errorf("9 tickets rest until %d times", len(times))
	}
	tab, _ := ann.tab(dc, "pal")
	_, err = ann.Pay(t.Context(), dc, tab, ticket.Paid, h.Now())
	mustBe(t, cloudpal.Busy, err)
	var resting *Resting
	if !errors.As(err, &resting) || !strings.Contains(cloudpal.HintOf(err), "--now") {
		t.Fatalf("got %v (%s)", err, cloudpal.HintOf(err))
	}
	if len(dc.tabs[tab].paid) != 0 {
		t.Error("it was paid all the same")
	}
	h.set(resting.Until)
	_, err = ann.Pay(t.Context(), dc, tab, ticket.Paid, h.Now())
	h.must(err)
	// One of 64 has to be changed: what comes of it rests.
	h.set(begun.Add(49 * time.Hour))
	_, _, err = ann.Send(t.Context(), ticket.Paid, 298)
	h.must(err)
	small := h.shop("small center", 16)
	tab, _ = ann.tab(small, "small pal")
	for range 2 {
		_, err = ann.Pay(t.Context(), small, tab, ticket.Paid, h.Now())
		mustBe(t, cloudpal.Busy, err)
	}
	// With --now all of that is left out.
	now := ann.with(Now)
	_, err = now.Pay(t.Context(), small, tab, ticket.Paid, h.Now())
	h.must(err)
}

func TestRestingIsNotSplitTwice(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ann := h.wallet("ann")
	for range 3 {
		ann.buy("day")
	}
	careful := Careful
	careful.Crowd = 0
	slow := ann.with(careful)
	for range 3 {
		_, _, err := slow.Send(t.Context(), ticket.Paid, 20)
		mustBe(t, cloudpal.Busy, err)
	}
	whole := 0
	for _, c := range mustLook(t, slow.Wallet).coins {
		if c.Denomination == 64 {
			whole++
		}
	}
	if whole != 2 {
		t.Errorf("%d of 3 tickets are whole, want 2", whole)
	}
	h.set(h.Now().Add(49 * time.Hour))
	_, _, err := slow.Send(t.Context(), ticket.Paid, 20)
	h.must(err)
}

// A ticket that nobody hides with is not spent, where the mint is not one's own.
func TestCrowd(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ann, dc := h.wallet("ann"), h.shop("center", 64)
	ann.buy("twenty")
	h.set(h.Now().Add(3 * time.Hour)) // the hour is counted when it is over
	h.must(ann.Count(t.Context()))
	b, err := ann.Balance()
	h.must(err)
	if len(b.Holdings) != 1 || b.Holdings[0].Crowd.Issued != 20 || b.Holdings[0].Crowd.At.IsZero() {
		t.Fatalf("the crowd is %+v, want 20", b.Holdings)
	}
	tab, _ := ann.tab(dc, "pal")
	shy := ann.with(Policy{Crowd: 21})
	_, err = shy.Pay(t.Context(), dc, tab, ticket.Paid, h.Now())
	h.must(err)                        // a mint of one's own has no crowd to wait for
	_, err = shy.keys(t.Context(), 82) // which are good by what the trust was
	h.must(err)
	shy.Wallet.trust.Witnesses, shy.Wallet.trust.Quorum = []string{"a", "b"}, 2
	_, err = shy.Pay(t.Context(), dc, tab, ticket.Paid, h.Now())
	mustBe(t, cloudpal.Busy, err)
	if !strings.Contains(err.Error(), "only 20") || !strings.Contains(cloudpal.HintOf(err), "--now") {
		t.Errorf("got %v (%s)", err, cloudpal.HintOf(err))
	}
	other := ann.with(Policy{Crowd: 20})
	_, err = other.keys(t.Context(), 82)
	h.must(err)
	other.Wallet.trust.Witnesses, other.Wallet.trust.Quorum = []string{"a", "b"}, 2
	_, err = other.Pay(t.Context(), dc, tab, ticket.Paid, h.Now())
	h.must(err)
}
