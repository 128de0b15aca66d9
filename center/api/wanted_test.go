package api

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/challenge"
)

// Of what a center wants only what can be a ticket is repeated, and only where it is
// about money.
func TestWanted(t *testing.T) {
	t.Parallel()
	paid := func(issuer string) challenge.Offer {
		return challenge.Offer{Challenge: ticket.Challenge(issuer, ticket.Paid)}
	}
	mint, other := challenge.Format(paid("mint.example")), challenge.Format(paid("other.example"))
	strange, err := challenge.Challenge{Type: challenge.BlindRSA, Issuer: "mint.example", Origins: []string{"center.example"}}.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	var many []challenge.Offer
	for n := range 2 * maxWanted {
		many = append(many, paid(fmt.Sprintf("mint-%d.example", n)))
	}
	for what, c := range map[string]struct {
		status int
		values []string
		want   int // tickets
	}{
		"one":                   {402, []string{mint}, 1},
		"two in a field":        {402, []string{mint + ", " + other}, 2},
		"two fields":            {402, []string{mint, other}, 2},
		"one twice":             {402, []string{mint, mint}, 1},
		"other schemes, too":    {402, []string{"Basic realm=\"x\", " + mint}, 1},
		"no other's challenge":  {402, []string{challenge.Format(challenge.Offer{Challenge: strange})}, 0},
		"no words for a screen": {402, []string{challenge.Format(paid("mint.example;rm"))}, 0},
		"none":                  {402, nil, 0},
		"no list":               {402, []string{mint + "="}, 0},
		"too many":              {402, []string{challenge.Format(many...)}, maxWanted},
		"too long":              {402, []string{challenge.Format(paid(strings.Repeat("m", maxIssuer+1)))}, 0},
		"not about money":       {403, []string{mint}, 0},
	} {
		kind := cloudpal.Exhausted
		if c.status == 403 {
			kind = cloudpal.Denied
		}
		_, err := serve(t, func(w http.ResponseWriter, r *http.Request) {
			w.Header()["Www-Authenticate"] = c.values
			w.WriteHeader(c.status)
			fmt.Fprintf(w, `{"title":%q}`, kind)
		}).Center(t.Context())
		var w *Wanted
		if errors.As(err, &w); !errors.Is(err, kind) || w == nil && c.want > 0 || w != nil && len(w.Tickets) != c.want {
			t.Errorf("%s: got %v, want %d tickets", what, err, c.want)
		}
	}
}

// Whatever a center sends, what is read of it is bounded, and fit for a terminal.
func FuzzWanted(f *testing.F) {
	for _, issuer := range []string{"mint.example", "x y", "\x1b[31m"} {
		offer := challenge.Offer{Challenge: ticket.Challenge(issuer, ticket.Free)}
		f.Add(challenge.Format(offer), challenge.Format(offer, offer))
	}
	f.Add(`PrivateToken challenge="`, "Basic x")
	f.Fuzz(func(t *testing.T, first, second string) {
		w := wanted(http.Header{"Www-Authenticate": {first, second}})
		if w == nil {
			return
		}
		if n := len(w.Tickets); n == 0 || n > maxWanted || len(w.Error()) > maxWanted*(maxIssuer+8) {
			t.Errorf("%d tickets: %q", n, w)
		}
		if i := strings.IndexFunc(w.Error(), func(r rune) bool { return r < ' ' || r > '~' }); i >= 0 || slices.Contains(w.Issuers(), "") {
			t.Errorf("%q is not fit for a terminal", w)
		}
	})
}
