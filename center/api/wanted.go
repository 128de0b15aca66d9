package api

import (
	"bytes"
	"net/http"
	"slices"
	"strings"

	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/challenge"
)

// A Wanted is in the trail of the error of a center that is to be paid first: the
// tickets that it takes, as its challenges name them (RFC 9577, section 2.1). Nobody
// vouches for them. Whether a mint is to be believed is not the center's to say, and the
// keys that stand beside the challenges are not even read: a wallet takes keys from its
// mint's log.
type Wanted struct{ Tickets []WantedTicket }

// A WantedTicket is of a kind that a center takes.
type WantedTicket struct {
	Issuer string
	Class  ticket.Class
}

// Issuers returns the mints whose tickets are taken, each once.
func (w *Wanted) Issuers() (names []string) {
	for _, t := range w.Tickets {
		if !slices.Contains(names, t.Issuer) {
			names = append(names, t.Issuer)
		}
	}
	return names
}

// Error names the mints.
func (w *Wanted) Error() string { return "it takes tickets of " + strings.Join(w.Issuers(), " or ") }

const (
	maxWanted = 8   // tickets of one answer
	maxIssuer = 255 // bytes of a mint's name
)

// isName reports whether a mint can be called so that a person is told of: like a host.
func isName(s string) bool {
	other := func(c rune) bool { return !strings.ContainsRune("abcdefghijklmnopqrstuvwxyz0123456789-.", c) }
	return s != "" && len(s) <= maxIssuer && !strings.ContainsFunc(strings.ToLower(s), other)
}

// wanted reads an answer's challenges. Those that no ticket answers are left out; nil
// where that leaves none.
func wanted(h http.Header) *Wanted {
	offers, err := challenge.Offers(h.Values("WWW-Authenticate"))
	if err != nil {
		return nil
	}
	w := &Wanted{}
	for _, o := range offers {
		c, err := challenge.Parse(o.Challenge)
		if err != nil || !isName(c.Issuer) || len(w.Tickets) == maxWanted {
			continue
		}
		for _, class := range ticket.Classes {
			t := WantedTicket{c.Issuer, class}
			if bytes.Equal(o.Challenge, ticket.Challenge(c.Issuer, class)) && !slices.Contains(w.Tickets, t) {
				w.Tickets = append(w.Tickets, t)
			}
		}
	}
	if len(w.Tickets) == 0 {
		return nil
	}
	return w
}
