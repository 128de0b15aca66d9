package identity

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
)

const redacted = "[secret]"

var errSecret = errors.New("identity: a secret is not to be shown")

// A secret is a handle of a secret value; its methods are promoted to the types
// that embed it. The value is behind a function and not a pointer: fmt does
// follow pointers that are in unexported fields of others' structs, for a verb
// like %s. A function cannot be compared with == either, which would take a time
// that depends on the secret.
type secret[T any] struct {
	get func() *T
}

func hide[T any](p *T) secret[T] { return secret[T]{func() *T { return p }} }

// IsZero reports whether there is no secret in it.
func (s secret[T]) IsZero() bool { return s.get == nil }

// String tells nothing.
func (secret[T]) String() string { return redacted }

// Format tells nothing, whatever the verb.
func (secret[T]) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// LogValue tells nothing.
func (secret[T]) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText fails: a secret is written on purpose or not at all.
func (secret[T]) MarshalText() ([]byte, error) { return nil, errSecret }

// MarshalJSON fails, likewise.
func (secret[T]) MarshalJSON() ([]byte, error) { return nil, errSecret }
