package cloudpal

import (
	"errors"
	"strings"
)

// A Kind sorts errors by what the caller can do about them. A Kind is itself
// an error, so that errors.Is(err, cloudpal.NotExist) asks for one.
type Kind string

// The kinds. Their texts are also what a server tells a stranger, so they are
// part of the HTTP interfaces and do not change.
const (
	Other     Kind = "internal error"
	NotExist  Kind = "does not exist"
	Exist     Kind = "already exists"
	Invalid   Kind = "not valid"
	Corrupt   Kind = "damaged"
	Denied    Kind = "not allowed"
	Busy      Kind = "busy"
	Missing   Kind = "something this needs is missing"
	NoSpace   Kind = "no space left"
	NoMemory  Kind = "not enough memory"
	Exhausted Kind = "budget used up"
	Timeout   Kind = "took too long"
)

// Error makes a Kind an error.
func (k Kind) Error() string { return string(k) }

// An Error says what was being done, what kind of trouble it met, what caused
// it, and what a person can do next.
type Error struct {
	Op   string // what was tried, on what: "pull nginx:latest"
	Kind Kind
	Err  error  // the cause; nil where the kind says it all
	Hint string // the next step, as a sentence; may be empty
}

// E returns an Error. A cause that is itself an Error, or a Kind, lends its kind
// where kind is empty, and its hint.
func E(op string, kind Kind, cause error) *Error {
	e := &Error{Op: op, Kind: kind, Err: cause}
	var inner *Error
	if errors.As(cause, &inner) {
		e.Hint = inner.Hint
	}
	if e.Kind == "" {
		e.Kind = KindOf(cause)
	}
	return e
}

// WithHint sets the next step a person can take and returns e.
func (e *Error) WithHint(hint string) *Error {
	e.Hint = hint
	return e
}

// Error tells the story from the outside in, without the hint.
func (e *Error) Error() string {
	parts := make([]string, 0, 3)
	if e.Op != "" {
		parts = append(parts, e.Op)
	}
	if e.Err == nil || (e.Kind != Other && !errors.Is(e.Err, e.Kind)) {
		parts = append(parts, string(e.Kind))
	}
	if e.Err != nil {
		parts = append(parts, e.Err.Error())
	}
	return strings.Join(parts, ": ")
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is e's kind.
func (e *Error) Is(target error) bool {
	k, ok := target.(Kind)
	return ok && k == e.Kind
}

// KindOf returns err's kind, or Other where it has none.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	var k Kind
	if errors.As(err, &k) {
		return k
	}
	return Other
}

// HintOf returns the next step that err suggests, or "".
func HintOf(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Hint
	}
	return ""
}
