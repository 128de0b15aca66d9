package keylog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"sync"
)

const maxAnswer = 16 << 10 // of a witness, in bytes

// asked asks witnesses, and remembers what each answered last, which the library that
// asks does not say.
type asked struct {
	names map[string]string // by URL
	mu    sync.Mutex
	last  map[string]error // by name; nil: it cosigned
}

func newAsked() *asked {
	return &asked{names: map[string]string{}, last: map[string]error{}}
}

// RoundTrip implements http.RoundTripper.
func (a *asked) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(r)
	var said error
	switch {
	case err != nil:
		said = errors.New("does not answer")
	case resp.StatusCode == http.StatusUnprocessableEntity:
		said = errors.New("says that the log is not the one that it saw before")
	case resp.StatusCode == http.StatusNotFound:
		said = errors.New("does not know the log")
	case resp.StatusCode == http.StatusConflict: // asked again with the size that it says
		said = errors.New("saw another size of the log")
	case resp.StatusCode != http.StatusOK:
		said = fmt.Errorf("answers %d", resp.StatusCode)
	}
	if !errors.Is(r.Context().Err(), context.Canceled) { // others were enough
		a.mu.Lock()
		a.last[a.names[r.URL.String()]] = said
		a.mu.Unlock()
	}
	if err != nil {
		return nil, err
	}
	resp.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(resp.Body, maxAnswer), resp.Body}
	return resp, nil
}

// err says which witnesses did not cosign, and why.
func (a *asked) err() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []error
	for _, name := range slices.Sorted(maps.Keys(a.last)) {
		if err := a.last[name]; err != nil {
			all = append(all, fmt.Errorf("witness %s %w", name, err))
		}
	}
	return errors.Join(all...)
}
