package api

import (
	"errors"
	"net/http"

	"github.com/tradle/cloudpal"
)

// statuses gives each kind the HTTP status that stands for it. A kind that is
// not here is the center's own trouble.
var statuses = map[cloudpal.Kind]int{
	cloudpal.NotExist:  http.StatusNotFound,
	cloudpal.Exist:     http.StatusConflict,
	cloudpal.Invalid:   http.StatusBadRequest,
	cloudpal.Denied:    http.StatusForbidden,
	cloudpal.Busy:      http.StatusTooManyRequests,
	cloudpal.Missing:   http.StatusServiceUnavailable,
	cloudpal.NoSpace:   http.StatusInsufficientStorage,
	cloudpal.NoMemory:  http.StatusServiceUnavailable,
	cloudpal.Exhausted: http.StatusPaymentRequired,
	cloudpal.Timeout:   http.StatusGatewayTimeout,
}

// ProblemOf returns err as a stranger may see it: its kind, and no word of its
// text, nor of its hint, which may be for the center's operator.
func ProblemOf(err error) Problem {
	kind := cloudpal.KindOf(err)
	status, ok := statuses[kind]
	if !ok {
		kind, status = cloudpal.Other, http.StatusInternalServerError
	}
	return Problem{Title: string(kind), Status: status}
}

// Err returns the error that p was made of: its kind and hint. A title that is
// no kind makes an error of kind cloudpal.Other.
func (p Problem) Err() *cloudpal.Error {
	kind := cloudpal.Kind(p.Title)
	if _, ok := statuses[kind]; !ok {
		kind = cloudpal.Other
	}
	return &cloudpal.Error{Kind: kind, Err: refusal{kind}, Hint: p.Hint}
}

// refusal is what the center said, which is its kind.
type refusal struct{ kind cloudpal.Kind }

func (r refusal) Error() string { return "the center says: " + string(r.kind) }

func (r refusal) Is(target error) bool { return errors.Is(r.kind, target) }
