package oblivious

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

// keyLife is for how long a key is given out. It opens for as long again.
const keyLife = 24 * time.Hour

// A Gateway opens what relays bring, has a mint's handler answer it, and seals the
// answer. It answers at Path and KeysPath.
type Gateway struct {
	inner   http.Handler
	receipt func(ticket.Epoch) (ed25519.PrivateKey, error)
	now     func() time.Time

	mu   sync.Mutex
	keys []gatewayKey // the newest first
	next byte         // the next one's id
}

type gatewayKey struct {
	id      byte
	private hpke.PrivateKey
	born    time.Time
}

// NewGateway returns the gateway before inner, of which only what wallets ask is
// reached through it. Receipt returns the mint's receipt key of an epoch.
func NewGateway(inner http.Handler, receipt func(ticket.Epoch) (ed25519.PrivateKey, error), now func() time.Time) *Gateway {
	g := &Gateway{inner: inner, receipt: receipt, now: now}
	// Not always the same: an id is seldom another key's after a restart.
	var first [1]byte
	rand.Read(first[:])
	g.next = first[0]
	return g
}

// ServeHTTP implements http.Handler.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.URL.Path == KeysPath && r.Method == http.MethodGet:
		g.serveKeys(w)
	case r.URL.Path == Path && r.Method == http.MethodPost:
		g.serveSealed(w, r)
	default:
		refuse(w, http.StatusNotFound, cloudpal.NotExist)
	}
}

// current returns the keys that open now, the newest first, and makes one where the
// newest is old.
func (g *Gateway) current() ([]gatewayKey, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	g.keys = slices.DeleteFunc(g.keys, func(k gatewayKey) bool { return now.Sub(k.born) >= 2*keyLife })
	if len(g.keys) == 0 || now.Sub(g.keys[0].born) >= keyLife {
		private, err := kem().GenerateKey()
		if err != nil {
			return nil, err
		}
		g.keys = slices.Insert(g.keys, 0, gatewayKey{g.next, private, now})
		g.next++
	}
	return slices.Clone(g.keys), nil
}

func (g *Gateway) key(id byte) hpke.PrivateKey {
	keys, err := g.current()
	if err != nil {
		return nil
	}
	for _, k := range keys {
		if k.id == id {
			return k.private
		}
	}
	return nil
}

// serveKeys gives out the newest key alone: one that is about to go would make the
// wallets that have it a smaller crowd.
func (g *Gateway) serveKeys(w http.ResponseWriter) {
	keys, err := g.current()
	if err != nil {
		refuse(w, http.StatusInternalServerError, cloudpal.Other)
		return
	}
	k := Keys{
		Configs: Config{keys[0].id, keys[0].private.PublicKey()}.append(nil),
		Expires: keys[0].born.Add(keyLife).UTC().Truncate(time.Second),
		Epoch:   ticket.EpochAt(g.now()),
	}
	receipt, err := g.receipt(k.Epoch)
	if err != nil {
		refuse(w, http.StatusServiceUnavailable, cloudpal.Missing)
		return
	}
	k.Signature = ed25519.Sign(receipt, k.Text())
	body, err := json.Marshal(k)
	if err != nil {
		refuse(w, http.StatusInternalServerError, cloudpal.Other)
		return
	}
	left := max(0, k.Expires.Sub(g.now())/time.Second)
	w.Header().Set("Content-Type", keysType)
	w.Header().Set("Cache-Control", "public, max-age="+strconv.Itoa(int(left)))
	w.Write(body)
}

// serveSealed answers one question. What goes wrong before it is open is said to the
// relay; all else only to who asked.
func (g *Gateway) serveSealed(w http.ResponseWriter, r *http.Request) {
	sealed, ok := readSealed(w, r, requestType)
	if !ok {
		return
	}
	request, talk, err := openRequest(g.key, sealed)
	if errors.Is(err, cloudpal.NotExist) {
		refuseKey(w)
		return
	}
	if err != nil {
		refuse(w, http.StatusBadRequest, cloudpal.Invalid)
		return
	}
	response, err := g.answer(r, request)
	if err == nil {
		sealed, err = talk.sealResponse(response)
	}
	if err != nil {
		refuse(w, http.StatusInternalServerError, cloudpal.Other)
		return
	}
	w.Header().Set("Content-Type", responseType)
	w.Header().Set("Cache-Control", "no-store")
	w.Write(sealed)
}

// answer has the mint answer an open question. Nothing of the relay's connection
// goes with it but that it may end.
func (g *Gateway) answer(outer *http.Request, request []byte) ([]byte, error) {
	answer := &recorder{header: http.Header{}, status: http.StatusOK}
	inner, err := decodeRequest(request)
	switch {
	case err != nil:
		refuse(answer, http.StatusBadRequest, cloudpal.Invalid)
	case !isAllowed(inner.Method, inner.URL.Path):
		refuse(answer, http.StatusForbidden, cloudpal.Denied)
	default:
		g.inner.ServeHTTP(answer, inner.WithContext(outer.Context()))
	}
	if answer.tooLarge {
		answer.body.Reset()
		refuse(answer, http.StatusInternalServerError, cloudpal.Other)
	}
	return encodeResponse(answer.status, answer.header, answer.body.Bytes())
}

// A recorder keeps an answer until it is whole.
type recorder struct {
	header   http.Header
	status   int
	wrote    bool
	tooLarge bool
	body     bytes.Buffer
}

// Header implements http.ResponseWriter.
func (r *recorder) Header() http.Header { return r.header }

// WriteHeader implements http.ResponseWriter.
func (r *recorder) WriteHeader(status int) {
	if !r.wrote && status >= 200 {
		r.status, r.wrote = status, true
	}
}

// Write implements http.ResponseWriter.
func (r *recorder) Write(b []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	if r.body.Len()+len(b) > MaxMessage-maxFields-64 {
		r.tooLarge = true
		return 0, errors.New("the answer is too large to be sealed")
	}
	return r.body.Write(b)
}

// readSealed reads a body of a type, or says why not.
func readSealed(w http.ResponseWriter, r *http.Request, want string) ([]byte, bool) {
	if t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || t != want {
		refuse(w, http.StatusUnsupportedMediaType, cloudpal.Invalid)
		return nil, false
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxSealed))
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		refuse(w, http.StatusRequestEntityTooLarge, cloudpal.Invalid)
		return nil, false
	}
	if err != nil {
		refuse(w, http.StatusBadRequest, cloudpal.Invalid)
		return nil, false
	}
	return b, true
}

// refuse says the kind of trouble and no more.
func refuse(w http.ResponseWriter, status int, kind cloudpal.Kind) {
	problem(w, status, map[string]any{"title": string(kind), "status": status})
}

// refuseKey tells a wallet to get the keys again (RFC 9458, section 5.3).
func refuseKey(w http.ResponseWriter) {
	const status = http.StatusUnprocessableEntity
	problem(w, status, map[string]any{"type": keyProblem, "title": string(cloudpal.NotExist), "status": status})
}

func problem(w http.ResponseWriter, status int, p map[string]any) {
	if r, ok := w.(*recorder); ok {
		r.wrote = false
	}
	w.Header().Set("Content-Type", problemType)
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(p)
}
