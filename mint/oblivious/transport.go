package oblivious

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

// A Transport asks a mint through a relay. It is an http.RoundTripper for a client
// of the mint, and may be used by several goroutines at once. It carries what wallets
// ask and refuses all else.
type Transport struct {
	relay   string
	by      http.RoundTripper
	receipt func(context.Context, ticket.Epoch) (ed25519.PublicKey, error)
	now     func() time.Time

	mu      sync.Mutex
	config  Config
	expires time.Time // of config; zero: there is none
}

// NewTransport returns a transport through the relay at https://HOST[:PORT], which
// is reached by another one. Receipt returns the receipt key that the manifest of an
// epoch names.
func NewTransport(relay string, by http.RoundTripper, receipt func(context.Context, ticket.Epoch) (ed25519.PublicKey, error), now func() time.Time) *Transport {
	return &Transport{relay: strings.TrimSuffix(relay, "/"), by: by, receipt: receipt, now: now}
}

// RoundTrip implements http.RoundTripper.
func (t *Transport) RoundTrip(r *http.Request) (*http.Response, error) {
	const op = "ask the mint through a relay"
	request, err := readRequest(r)
	if err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	// A key that is gone is got anew, once.
	for again := false; ; again = true {
		config, err := t.key(r.Context())
		if err != nil {
			return nil, cloudpal.E(op, "", err)
		}
		response, err := t.ask(r.Context(), config, request)
		if errors.Is(err, errKey) && !again {
			t.forget(config)
			continue
		}
		if errors.Is(err, errKey) {
			err = cloudpal.E("", cloudpal.Busy, errors.New("the mint has no key any more that the relay shows")).WithHint("try again in a minute")
		}
		if err != nil {
			return nil, cloudpal.E(op, "", err)
		}
		response.Request = r
		return response, nil
	}
}

// readRequest reads what is asked, to its end, and closes it.
func readRequest(r *http.Request) ([]byte, error) {
	var body []byte
	if r.Body != nil {
		defer r.Body.Close()
		var err error
		if body, err = io.ReadAll(io.LimitReader(r.Body, MaxMessage+1)); err != nil {
			return nil, err
		}
	}
	if !isAllowed(r.Method, r.URL.Path) {
		return nil, cloudpal.E("", cloudpal.Denied, errors.New("no wallet asks this"))
	}
	return encodeRequest(r, body)
}

// ask seals one question, and opens its answer.
func (t *Transport) ask(ctx context.Context, c Config, request []byte) (*http.Response, error) {
	sealed, talk, err := sealRequest(c, request)
	if err != nil {
		return nil, err
	}
	answer, status, kind, err := t.fetch(ctx, http.MethodPost, Path, sealed)
	if err != nil {
		return nil, err
	}
	if status != http.StatusOK || kind != responseType {
		return nil, refused(status, kind, answer)
	}
	response, err := talk.openResponse(answer)
	if err != nil {
		return nil, cloudpal.E("", cloudpal.Corrupt, errors.New("the answer is not sealed for this question")).WithHint("use another relay")
	}
	return decodeResponse(response)
}

// refused is what a relay or a gateway says instead of an answer. Whoever it was, it
// is believed that nothing came of the question, which is repeated later.
func refused(status int, kind string, answer []byte) error {
	var p struct {
		Type string `json:"type"`
	}
	if status == http.StatusUnprocessableEntity && kind == problemType && json.Unmarshal(answer, &p) == nil && p.Type == keyProblem {
		return errKey
	}
	switch status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusBadGateway:
		return cloudpal.E("", cloudpal.Busy, fmt.Errorf("the relay answers with status %d", status)).WithHint("try again later")
	case http.StatusGatewayTimeout:
		return cloudpal.E("", cloudpal.Timeout, fmt.Errorf("the relay answers with status %d", status)).WithHint("try again later")
	}
	return cloudpal.E("", cloudpal.Other, fmt.Errorf("the relay answers with status %d", status)).WithHint("is it a relay of this mint? use another")
}

// key returns what to seal for.
func (t *Transport) key(ctx context.Context) (Config, error) {
	t.mu.Lock()
	defer t.mu.Unlock() // one asks, the others wait
	if !t.expires.IsZero() && t.now().Before(t.expires) {
		return t.config, nil
	}
	answer, status, _, err := t.fetch(ctx, http.MethodGet, KeysPath, nil)
	if err != nil {
		return Config{}, err
	}
	if status != http.StatusOK {
		return Config{}, refused(status, "", nil)
	}
	keys, err := parseKeys(answer)
	if err != nil {
		return Config{}, err
	}
	receipt, err := t.receipt(ctx, keys.Epoch)
	if err != nil {
		return Config{}, err
	}
	config, err := keys.best(receipt, t.now())
	if err != nil {
		return Config{}, err
	}
	t.config, t.expires = config, keys.Expires
	return config, nil
}

// forget forgets a key that is gone.
func (t *Transport) forget(c Config) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.config.ID == c.ID && t.config.Public == c.Public {
		t.expires = time.Time{}
	}
}

// fetch asks the relay. A relay is told nothing but what is sealed.
func (t *Transport) fetch(ctx context.Context, method, path string, body []byte) (answer []byte, status int, kind string, err error) {
	r, err := http.NewRequestWithContext(ctx, method, t.relay+path, bytes.NewReader(body))
	if err != nil {
		return nil, 0, "", err
	}
	return exchange(t.by, r)
}

// exchange sends a request without a name, and reads its answer to a limit.
func exchange(by http.RoundTripper, r *http.Request) (answer []byte, status int, kind string, err error) {
	r.Header["User-Agent"] = []string{""}
	if r.Method == http.MethodPost {
		r.Header.Set("Content-Type", requestType)
	}
	resp, err := by.RoundTrip(r)
	if err != nil {
		return nil, 0, "", err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(resp.Body, maxSealed+1))
	if err != nil {
		return nil, 0, "", err
	}
	if len(answer) > maxSealed {
		return nil, 0, "", cloudpal.E("", cloudpal.Corrupt, errors.New("the answer is too large"))
	}
	kind, _, _ = mime.ParseMediaType(resp.Header.Get("Content-Type"))
	return answer, resp.StatusCode, kind, nil
}
