package wallet

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"github.com/tradle/cloudpal"
)

// A Spread is how a wait is drawn: exponentially with a mean, which makes the end
// of one as likely in each moment as in the next, cut off at two bounds. The zero
// Spread is no wait.
type Spread struct {
	Least time.Duration `json:"least"`
	Mean  time.Duration `json:"mean"` // of what is drawn above Least, before Most cuts it off
	Most  time.Duration `json:"most"`
}

// Draw draws a wait of at least Least and at most Most.
func (s Spread) Draw(r *rand.Rand) time.Duration {
	if s.Most <= s.Least || s.Mean <= 0 {
		return s.Least
	}
	return s.quantile(r.Float64())
}

// quantile is the inverse of the distribution function of the exponential
// distribution given that it is below Most.
func (s Spread) quantile(u float64) time.Duration {
	room, mean := float64(s.Most-s.Least), float64(s.Mean)
	x := -mean * math.Log1p(-u*-math.Expm1(-room/mean))
	return s.Least + time.Duration(min(max(x, 0), room))
}

func (s Spread) check() error {
	if s.Least < 0 || s.Mean < 0 || s.Most < s.Least || s.Most > 30*24*time.Hour {
		return fmt.Errorf("a wait of %s to %s cannot be", s.Least, s.Most)
	}
	return nil
}

// A Policy says how a wallet hides when it does things: what happens at one moment
// belongs together, for whoever looks on.
type Policy struct {
	// Rest parts the making of tickets from their first use. A mint knows when it
	// sold, and when something is deposited.
	Rest Spread `json:"rest"`
	// Gap parts messages that have nothing to do with each other for the mint: it
	// sees one ticket in each.
	Gap Spread `json:"gap"`
	// Crowd is how many tickets a key must have signed before one of them is spent.
	Crowd uint64 `json:"crowd"`
}

// Careful is the policy of a wallet that is not told another: tickets rest for
// one hour to two days, ten hours more likely than not, messages are 2 seconds to
// 2 minutes apart, and there are a thousand others.
var Careful = Policy{
	Rest:  Spread{Least: time.Hour, Mean: 12 * time.Hour, Most: 48 * time.Hour},
	Gap:   Spread{Least: 2 * time.Second, Mean: 20 * time.Second, Most: 2 * time.Minute},
	Crowd: 1000,
}

// Now is the policy of who cannot wait: nothing is hidden.
var Now = Policy{}

func (p Policy) check() error {
	if err := errors.Join(p.Rest.check(), p.Gap.check()); err != nil {
		return cloudpal.E("read a timing policy", cloudpal.Invalid, err)
	}
	return nil
}

// A Clock is the time, and waiting for it.
type Clock interface {
	Now() time.Time
	// Wait returns after d, or the context's error when that ends.
	Wait(ctx context.Context, d time.Duration) error
}

// SystemClock is the machine's.
type SystemClock struct{}

// Now implements Clock.
func (SystemClock) Now() time.Time { return time.Now() }

// Wait implements Clock.
func (SystemClock) Wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
