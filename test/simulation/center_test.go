package simulation_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/center/till"
	mintapi "github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/manifest"
)

// A center is a till that people reach, with its folder. What its pals use, they say
// themselves.
type center struct {
	mortal
	folder
	net   *network
	way   *rand.Rand // luck on the way to the mint
	name  string
	key   ed25519.PrivateKey
	slice ticket.Denomination
	trust *manifest.Trust
	now   func() time.Time

	mu      sync.RWMutex // held for reading while it works
	till    *till.Till
	handler http.Handler
}

// A mortalMint is one that a center asks that may die of it.
type mortalMint struct {
	till.Mint
	*mortal
}

// Deposit implements till.Mint.
func (m mortalMint) Deposit(ctx context.Context, c ticket.PayContract, s ticket.Spend) (mintapi.Receipt, error) {
	if err := m.lives(); err != nil {
		return mintapi.Receipt{}, err
	}
	r, err := m.Mint.Deposit(ctx, c, s)
	return r, errors.Join(err, m.lives())
}

func (c *center) open() error {
	asked := mintapi.Over("https://"+issuer, line{network: c.net, from: ofCenters, luck: c.way}).As(c.key, c.now)
	t, err := till.Open(till.Config{
		Dir: c.dir, Key: c.key, Issuers: []till.Issuer{{Trust: c.trust, Mint: mortalMint{asked, &c.mortal}}},
		Terms: till.Terms{Tariff: api.Tariff{Core: 64}, Slice: c.slice}, Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Now: c.now,
	})
	if err != nil {
		return err
	}
	c.till, c.handler = t, desk(t)
	return nil
}

// desk is the part of a center's interface that has to do with money, in the same
// JSON. Who asks is in a header, and not in a certificate.
func desk(t *till.Till) http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, f func(r *http.Request, who api.Fingerprint, id api.TabID) (any, error)) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			var who api.Fingerprint
			hex.Decode(who[:], []byte(r.Header.Get("Account")))
			var id api.TabID
			if text := r.PathValue("tab"); text != "" {
				if err := id.UnmarshalText([]byte(text)); err != nil {
					w.WriteHeader(http.StatusNotFound)
					return
				}
			}
			v, err := f(r, who, id)
			if err != nil {
				p := api.ProblemOf(err)
				w.WriteHeader(p.Status)
				v = p
			}
			json.NewEncoder(w).Encode(v)
		})
	}
	handle("GET /v1/offer", func(*http.Request, api.Fingerprint, api.TabID) (any, error) { return t.Offer(), nil })
	handle("POST /v1/tabs", func(r *http.Request, who api.Fingerprint, _ api.TabID) (any, error) {
		var q api.TabRequest
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			return nil, cloudpal.Invalid
		}
		return t.OpenTab(who, q)
	})
	handle("GET /v1/tabs/{tab}", func(_ *http.Request, who api.Fingerprint, id api.TabID) (any, error) { return t.Tab(who, id) })
	handle("POST /v1/tabs/{tab}/pay", func(r *http.Request, who api.Fingerprint, id api.TabID) (any, error) {
		var q api.PayRequest
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			return nil, cloudpal.Invalid
		}
		return t.Pay(r.Context(), who, id, q)
	})
	handle("GET /v1/tabs/{tab}/meter", func(_ *http.Request, who api.Fingerprint, id api.TabID) (any, error) { return t.Meter(who, id) })
	handle("POST /v1/tabs/{tab}/meter", func(r *http.Request, who api.Fingerprint, id api.TabID) (any, error) {
		var q api.CountersignRequest
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			return nil, cloudpal.Invalid
		}
		return t.Countersign(who, id, q)
	})
	handle("POST /v1/tabs/{tab}/close", func(_ *http.Request, who api.Fingerprint, id api.TabID) (any, error) { return t.CloseTab(who, id) })
	return mux
}

// answer implements party.
func (c *center) answer(m message) (a *answer) {
	c.work(func() { a = serve(c.handler, m) })
	return a
}

// work has the center do something, unless it dies. It reports whether it lived.
func (c *center) work(f func()) bool {
	c.mu.RLock()
	dead := c.lives() != nil
	if !dead {
		f()
		dead = c.lives() != nil
	}
	c.mu.RUnlock()
	if !dead {
		return true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dead.Load() {
		c.move(c.till.Close)
		if err := c.open(); err != nil {
			panic(err)
		}
		c.dead.Store(false)
	}
	return false
}

const (
	depositEvery = 20 * time.Second
	choresEvery  = 6 * time.Hour
)

// starts lets the center live for as long as people do.
func (c *center) starts(w *world) {
	k := w.clock.actor()
	k.start(0, func() { c.live(k, func() bool { return w.left.Load() == 0 }) })
}

// live is the center's part in time, until it is told to stop.
func (c *center) live(k *actor, over func() bool) {
	ctx := context.Background()
	next := k.Now()
	for !over() {
		c.work(func() { c.till.Deposit(ctx) })
		if !k.Now().Before(next) {
			c.work(func() { c.till.Chores(ctx); c.till.Review() })
			next = k.Now().Add(choresEvery)
		}
		k.sleep(depositEvery)
	}
}

// A visitor is an account at a center: it implements wallet.Center.
type visitor struct {
	*center
	account api.Fingerprint
	by      http.RoundTripper
}

func visit[T any](ctx context.Context, v visitor, method, path string, body any) (answer T, err error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return answer, err
	}
	r, err := http.NewRequestWithContext(ctx, method, "https://"+v.name+path, bytes.NewReader(raw))
	if err != nil {
		return answer, err
	}
	r.Header.Set("Account", hex.EncodeToString(v.account[:]))
	resp, err := v.by.RoundTrip(r)
	if err != nil {
		return answer, cloudpal.E("ask a center", cloudpal.Other, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var p api.Problem
		if err := json.NewDecoder(resp.Body).Decode(&p); err != nil {
			return answer, err
		}
		return answer, cloudpal.E("ask a center", "", p.Err())
	}
	return answer, json.NewDecoder(resp.Body).Decode(&answer)
}

func onTab(id api.TabID, rest string) string { return fmt.Sprintf("/v1/tabs/%s%s", id, rest) }

// Offer implements wallet.Center.
func (v visitor) Offer(ctx context.Context) (api.Signed, error) {
	return visit[api.Signed](ctx, v, http.MethodGet, "/v1/offer", nil)
}

// OpenTab implements wallet.Center.
func (v visitor) OpenTab(ctx context.Context, r api.TabRequest) (api.Tab, error) {
	return visit[api.Tab](ctx, v, http.MethodPost, "/v1/tabs", r)
}

// Pay implements wallet.Center.
func (v visitor) Pay(ctx context.Context, id api.TabID, r api.PayRequest) (api.Signed, error) {
	return visit[api.Signed](ctx, v, http.MethodPost, onTab(id, "/pay"), r)
}

// CloseTab implements wallet.Center.
func (v visitor) CloseTab(ctx context.Context, id api.TabID) (api.Signed, error) {
	return visit[api.Signed](ctx, v, http.MethodPost, onTab(id, "/close"), struct{}{})
}

func (v visitor) meter(ctx context.Context, id api.TabID) (api.Meter, error) {
	return visit[api.Meter](ctx, v, http.MethodGet, onTab(id, "/meter"), nil)
}

func (v visitor) countersign(ctx context.Context, id api.TabID, r api.CountersignRequest) (api.Meter, error) {
	return visit[api.Meter](ctx, v, http.MethodPost, onTab(id, "/meter"), r)
}
