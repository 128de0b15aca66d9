package api

import (
	"cmp"
	"errors"
	"net/http"

	"github.com/tradle/cloudpal"
)

// statuses gives each kind the HTTP status that stands for it. A kind that is
// not here is the agent's own trouble.
var statuses = map[cloudpal.Kind]int{
	cloudpal.NotExist:  http.StatusNotFound,
	cloudpal.Exist:     http.StatusConflict,
	cloudpal.Invalid:   http.StatusBadRequest,
	cloudpal.Corrupt:   http.StatusUnprocessableEntity,
	cloudpal.Denied:    http.StatusForbidden,
	cloudpal.Busy:      http.StatusConflict,
	cloudpal.Missing:   http.StatusServiceUnavailable,
	cloudpal.NoSpace:   http.StatusInsufficientStorage,
	cloudpal.NoMemory:  http.StatusServiceUnavailable,
	cloudpal.Exhausted: http.StatusPaymentRequired,
	cloudpal.Timeout:   http.StatusGatewayTimeout,
}

// ProblemOf returns err as it crosses HTTP. Who reads it owns the host, so it
// tells the whole story.
func ProblemOf(err error) Problem {
	kind := cloudpal.KindOf(err)
	status, ok := statuses[kind]
	if !ok {
		kind, status = cloudpal.Other, http.StatusInternalServerError
	}
	return Problem{Title: string(kind), Status: status, Detail: err.Error(), Hint: cloudpal.HintOf(err)}
}

// Err returns the error that p was made of: its kind, text and hint. A title
// that is no kind makes an error of kind cloudpal.Other.
func (p Problem) Err() *cloudpal.Error {
	kind := cloudpal.Kind(p.Title)
	if _, ok := statuses[kind]; !ok {
		kind = cloudpal.Other
	}
	text := cmp.Or(p.Detail, p.Title, string(kind))
	return &cloudpal.Error{Kind: kind, Err: told{text, kind}, Hint: p.Hint}
}

// told is an error's text as the other side told it. It is of a kind, so that
// the kind is not said a second time.
type told struct {
	text string
	kind cloudpal.Kind
}

func (t told) Error() string { return t.text }

func (t told) Is(target error) bool { return errors.Is(t.kind, target) }
