package oblivious

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/crowd"
)

const (
	relayTime  = time.Minute      // that a gateway may take
	freshAgain = 30 * time.Second // before keys that a gateway calls gone are got anew once more
	maxAtOnce  = 256              // questions on their way

	perSecond = 5  // questions of one network
	burst     = 60 // of them at once: a wallet restores by many
)

// A Relay passes sealed questions on to one mint's gateway, and sealed answers back.
// It adds nothing of who asks, keeps nothing, and writes nothing down. It answers at
// Path and KeysPath.
//
// It shows the gateway's keys to all who ask, the same for as long as they are good:
// so the mint cannot give each wallet its own.
type Relay struct {
	gateway string
	by      http.RoundTripper
	now     func() time.Time
	room    chan struct{}
	rates   *crowd.Rates

	getting sync.Mutex // held while the keys are got
	keys    []byte
	expires time.Time // of keys
	got     time.Time
	gone    bool // the gateway says so
}

// NewRelay returns a relay for the gateway at https://HOST[:PORT], which is reached
// by a transport.
func NewRelay(gateway string, by http.RoundTripper, now func() time.Time) *Relay {
	return &Relay{gateway: strings.TrimSuffix(gateway, "/"), by: by, now: now,
		room: make(chan struct{}, maxAtOnce), rates: crowd.NewRates(perSecond, burst)}
}

// ServeHTTP implements http.Handler.
func (l *Relay) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	isKeys := r.URL.Path == KeysPath && r.Method == http.MethodGet
	if !isKeys && (r.URL.Path != Path || r.Method != http.MethodPost) {
		refuse(w, http.StatusNotFound, cloudpal.NotExist)
		return
	}
	if !l.rates.Allow(r.RemoteAddr, l.now()) {
		w.Header().Set("Retry-After", "10")
		refuse(w, http.StatusTooManyRequests, cloudpal.Busy)
		return
	}
	select {
	case l.room <- struct{}{}:
		defer func() { <-l.room }()
	default:
		refuse(w, http.StatusServiceUnavailable, cloudpal.Busy)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), relayTime)
	defer cancel()
	if isKeys {
		l.serveKeys(ctx, w)
		return
	}
	if sealed, ok := readSealed(w, r, requestType); ok {
		l.pass(ctx, w, sealed)
	}
}

// pass carries one question.
func (l *Relay) pass(ctx context.Context, w http.ResponseWriter, sealed []byte) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, l.gateway+Path, bytes.NewReader(sealed))
	if err != nil {
		refuse(w, http.StatusInternalServerError, cloudpal.Other)
		return
	}
	answer, status, kind, err := exchange(l.by, r)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		refuse(w, http.StatusGatewayTimeout, cloudpal.Timeout)
		return
	case err != nil:
		refuse(w, http.StatusBadGateway, cloudpal.Missing)
		return
	case status == http.StatusUnprocessableEntity:
		l.doubtKeys()
	}
	if kind != responseType && kind != problemType {
		refuse(w, http.StatusBadGateway, cloudpal.Corrupt)
		return
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	w.Write(answer)
}

// doubtKeys has the keys got anew when they are asked for next: the gateway may have
// been started again.
func (l *Relay) doubtKeys() {
	l.getting.Lock()
	defer l.getting.Unlock()
	if l.now().Sub(l.got) >= freshAgain { // else anybody could make the crowd small, by asking garbage
		l.gone = true
	}
}

// serveKeys shows the same keys to all.
func (l *Relay) serveKeys(ctx context.Context, w http.ResponseWriter) {
	keys, err := l.freshKeys(ctx)
	if err != nil {
		refuse(w, http.StatusBadGateway, cloudpal.Missing)
		return
	}
	w.Header().Set("Content-Type", keysType)
	w.Header().Set("Cache-Control", "no-store") // the gateway may be started again
	w.Write(keys)
}

func (l *Relay) freshKeys(ctx context.Context) ([]byte, error) {
	l.getting.Lock()
	defer l.getting.Unlock()
	if !l.gone && l.now().Before(l.expires) {
		return l.keys, nil
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, l.gateway+KeysPath, nil)
	if err != nil {
		return nil, err
	}
	answer, status, _, err := exchange(l.by, r)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK {
		return nil, refused(status, "", nil)
	}
	keys, err := parseKeys(answer)
	if err != nil {
		return nil, err
	}
	// Written anew, so that all get the same bytes, and no others than the keys'.
	if l.keys, err = json.Marshal(keys); err != nil {
		return nil, err
	}
	l.expires, l.got, l.gone = keys.Expires, l.now(), false
	return l.keys, nil
}
