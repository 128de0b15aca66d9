package api

import (
	"errors"
	"net/http"

	"github.com/tradle/cloudpal"
)

// statuses gives each kind the HTTP status that stands for it. A kind that is not
// here is the mint's own trouble.
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

// ProblemOf returns err as a stranger may see it: its kind, and no word of its text,
// nor of its hint, which may be for the mint's operator; and what proves that a
// ticket was spent.
func ProblemOf(err error) Problem {
	kind := cloudpal.KindOf(err)
	var spent *Spent
	if errors.As(err, &spent) {
		return Problem{Title: string(cloudpal.Exist), Status: http.StatusConflict, Evidence: spent.Evidence.Append(nil)}
	}
	status, ok := statuses[kind]
	if !ok {
		kind, status = cloudpal.Other, http.StatusInternalServerError
	}
	return Problem{Title: string(kind), Status: status}
}

// Err returns the error that p was made of: its kind, its hint, and *Spent in its
// trail where it has good evidence. A title that is no kind makes an error of kind
// cloudpal.Other.
func (p Problem) Err() *cloudpal.Error {
	kind := cloudpal.Kind(p.Title)
	if _, ok := statuses[kind]; !ok {
		kind = cloudpal.Other
	}
	e := &cloudpal.Error{Kind: kind, Err: refusal{kind}, Hint: p.Hint}
	if evidence, err := ParseEvidence(p.Evidence); err == nil {
		e.Err = &Spent{evidence}
	}
	return e
}

// refusal is what the mint said, which is its kind.
type refusal struct{ kind cloudpal.Kind }

func (r refusal) Error() string { return "the mint says: " + string(r.kind) }

func (r refusal) Is(target error) bool { return errors.Is(r.kind, target) }
