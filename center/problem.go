package center

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
)

// A refusal is an error that who asked may know all of.
type refusal struct {
	kind   cloudpal.Kind
	hint   string
	wanted string // WWW-Authenticate: the tickets that would change it
}

func refuse(kind cloudpal.Kind, hint string) error { return refusal{kind: kind, hint: hint} }

func (r refusal) Error() string { return string(r.kind) + ": " + r.hint }

func (r refusal) Unwrap() error { return r.kind }

// problemOf is what a stranger is told of err: its kind, and a hint where it
// was written for them.
func problemOf(err error) api.Problem {
	p := api.ProblemOf(err)
	var r refusal
	if errors.As(err, &r) {
		p.Hint = r.hint
	}
	return p
}

func fail(w http.ResponseWriter, err error) {
	p := problemOf(err)
	var r refusal
	if errors.As(err, &r) && r.wanted != "" {
		w.Header().Set("WWW-Authenticate", r.wanted)
	}
	w.Header().Set("Content-Type", "application/problem+json")
	if p.Status == http.StatusTooManyRequests {
		w.Header().Set("Retry-After", "2")
	}
	w.WriteHeader(p.Status)
	json.NewEncoder(w).Encode(p)
}
