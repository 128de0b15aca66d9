package wallet

import (
	"testing"
	"time"

	center "github.com/tradle/cloudpal/center/api"
)

// What a tab lacks follows from how it stands, and a little that was used is not lacking
// yet.
func TestWhatATabLacks(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	offer := center.Offer{Slice: 64, Tariff: center.Tariff{Core: 64}}
	const no = -time.Second
	for what, c := range map[string]struct {
		tab   center.Tab
		ahead time.Duration
		want  time.Duration // from now on; no: nothing is lacking
	}{
		"nothing is paid":          {center.Tab{Stage: center.Unpaid}, DefaultAhead, 0},
		"it is used up":            {center.Tab{Stage: center.TabNapping, Paid: 64, Used: 64}, DefaultAhead, 0},
		"more is used than paid":   {center.Tab{Stage: center.TabNapping, Paid: 64, Used: 90, Ahead: 192}, DefaultAhead, 0},
		"a quarter is left":        {center.Tab{Stage: center.Funded, Paid: 64, Used: 48, Ahead: 192}, DefaultAhead, 0},
		"a day is paid":            {center.Tab{Stage: center.Funded, Paid: 64}, DefaultAhead, 12 * time.Hour},
		"a day, and one ahead":     {center.Tab{Stage: center.Funded, Paid: 64, Ahead: 64}, DefaultAhead, 36 * time.Hour},
		"three days":               {center.Tab{Stage: center.Funded, Paid: 64, Ahead: 128}, DefaultAhead, no},
		"three days, a little off": {center.Tab{Stage: center.Funded, Paid: 64, Used: 32, Ahead: 128}, DefaultAhead, no},
		"three days, half off":     {center.Tab{Stage: center.Funded, Paid: 64, Used: 33, Ahead: 128}, DefaultAhead, 47*time.Hour + 37*time.Minute + 30*time.Second},
		"nobody is to be ahead":    {center.Tab{Stage: center.Funded, Paid: 64, Used: 30}, 0, no},
		"it costs more than awake": {center.Tab{Stage: center.Funded, Paid: 64, Ahead: 128, Rate: 128}, DefaultAhead, 30 * time.Hour},
	} {
		due, lacks := lacking(c.tab, offer, now, c.ahead)
		got := due.Sub(now)
		if !lacks {
			got = no
		}
		if got.Round(time.Second) != c.want.Round(time.Second) {
			t.Errorf("%s: got %v, want %v", what, got, c.want)
		}
	}
	// What costs nothing awake is paid once.
	offer.Tariff.Core = 0
	if _, lacks := lacking(center.Tab{Stage: center.Funded, Paid: 64}, offer, now, MaxAhead); lacks {
		t.Error("a center that costs nothing is paid ahead")
	}
}
