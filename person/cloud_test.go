package person

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/identity"
	"github.com/tradle/cloudpal/network/overlay"
	"github.com/tradle/cloudpal/network/tunnel"
)

// agentOf makes this test's program an agent, so that one can be killed.
const agentOf = "CLOUDPAL_TEST_AGENT_OF"

func TestMain(m *testing.M) {
	if dir := os.Getenv(agentOf); dir != "" {
		os.Exit(beAgent(dir))
	}
	runTests(m)
}

func beAgent(dir string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	h, err := OpenHome(dir)
	if err == nil {
		err = NewAgent(h, "test", slog.New(slog.NewTextHandler(os.Stderr, nil))).Run(ctx)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// patience is how long anything may take that should take no time.
const patience = 20 * time.Second

// A cloud is the other side of an agent, without VMs: a center that answers as
// package center does, and a core that speaks WireGuard and is unlocked as a
// real one is.
type cloud struct {
	t       *testing.T
	Address api.Address

	mu      sync.Mutex
	pals    int // that were ever made
	pal     *api.Pal
	changed chan struct{} // closed when there is another event
	events  []api.Event
	calls   map[string]int
	arrived func(call string) // is told of each request; may block
	refuse  error             // in place of every answer
	wanted  string            // with it, the challenges
	hasty   bool              // it waits for no events
	offer   *api.Signed       // where it takes money
	tab     *api.Tab          // what it says of every tab, but for those
	unpaid  map[api.TabID]bool
	poor    bool // tabs that are opened now are not paid

	lock   *identity.UnlockKey // nil: unlocked
	stored *identity.List      // on the core's disk
	exits  map[string]bool
	core   *tunnel.Tunnel
	port   uint16
	silent bool // nothing of the core's answers on the overlay
}

func newCloud(t *testing.T) *cloud {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := api.Certificate(key)
	if err != nil {
		t.Fatal(err)
	}
	c := &cloud{t: t, calls: map[string]int{}, exits: map[string]bool{}, unpaid: map[api.TabID]bool{}, changed: make(chan struct{}), port: freePort(t)}
	s := httptest.NewUnstartedServer(c.handler())
	s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13}
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	s.StartTLS()
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
		c.mu.Lock()
		defer c.mu.Unlock()
		c.powerOff()
	})
	at := s.Listener.Addr().(*net.TCPAddr).AddrPort()
	c.Address = api.Address{Host: at.Addr().String(), Port: at.Port(), Key: api.FingerprintOf(cert.Leaf)}
	return c
}

func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.LocalAddr().(*net.UDPAddr).AddrPort().Port()
}

func (c *cloud) handler() http.Handler {
	m := http.NewServeMux()
	on := func(pattern, call string, f func(r *http.Request) (any, error)) {
		m.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			c.mu.Lock()
			c.calls[call]++
			arrived := c.arrived
			c.mu.Unlock()
			if arrived != nil {
				arrived(call)
			}
			c.mu.Lock()
			v, err, wanted := any(nil), c.refuse, c.wanted
			if err == nil {
				v, err = f(r)
			}
			c.mu.Unlock()
			if err != nil {
				p := api.ProblemOf(err)
				if wanted != "" {
					w.Header().Set("WWW-Authenticate", wanted)
				}
				w.WriteHeader(p.Status)
				json.NewEncoder(w).Encode(p)
				return
			}
			if v != nil {
				json.NewEncoder(w).Encode(v)
			}
		})
	}
	on("GET /v1/center", "center", func(*http.Request) (any, error) { return api.Center{Paid: c.offer != nil}, nil })
	on("GET /v1/offer", "offer", func(*http.Request) (any, error) {
		if c.offer == nil {
			return nil, cloudpal.NotExist
		}
		return *c.offer, nil
	})
	tab := func(id api.TabID) (any, error) {
		switch {
		case c.tab == nil:
			return nil, cloudpal.NotExist
		case c.unpaid[id]:
			return api.Tab{Stage: api.Unpaid}, nil
		}
		return *c.tab, nil
	}
	on("POST /v1/tabs", "tab", func(r *http.Request) (any, error) {
		var q api.TabRequest
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			return nil, cloudpal.Invalid
		}
		c.unpaid[q.ID] = c.poor
		return tab(q.ID)
	})
	on("GET /v1/tabs/{tab}", "tab", func(r *http.Request) (any, error) {
		var id api.TabID
		if err := id.UnmarshalText([]byte(r.PathValue("tab"))); err != nil {
			return nil, cloudpal.Invalid
		}
		return tab(id)
	})
	on("GET /v1/tabs/{tab}/meter", "meter", func(*http.Request) (any, error) { return api.Meter{}, nil })
	on("GET /v1/pals", "pals", func(*http.Request) (any, error) {
		if c.pal == nil {
			return []api.Pal{}, nil
		}
		return []api.Pal{*c.pal}, nil
	})
	on("POST /v1/pals", "create", c.create)
	on("GET /v1/pals/{id}", "pal", c.find)
	on("DELETE /v1/pals/{id}", "destroy", func(*http.Request) (any, error) {
		c.pal = nil
		c.powerOff()
		return nil, nil
	})
	on("POST /v1/pals/{id}/wake", "wake", func(r *http.Request) (any, error) {
		c.wake("asked for")
		return c.find(r)
	})
	on("POST /v1/pals/{id}/sleep", "sleep", func(r *http.Request) (any, error) {
		c.to(api.Napping, api.Napped)
		return c.find(r)
	})
	on("GET /v1/pals/{id}/lock", "lock", func(*http.Request) (any, error) {
		c.wake("its lock was asked for")
		l := api.Lock{Locked: c.lock != nil, Attestation: api.Attestation{Kind: "none"}}
		if l.Locked {
			l.Key = c.lock.Public()
		}
		return l, nil
	})
	on("POST /v1/pals/{id}/unlock", "unlock", c.unlock)
	m.HandleFunc("GET /v1/pals/{id}/events", c.tellEvents)
	return m
}

func (c *cloud) create(r *http.Request) (any, error) {
	var q api.CreateRequest
	if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
		return nil, cloudpal.E("", cloudpal.Invalid, err)
	}
	if c.pal == nil {
		c.pals++
		c.pal = &api.Pal{
			ID: api.NewID(), WireGuard: q.WireGuard, Image: api.Image{ID: "sha256:first"}, Created: time.Now(),
			Endpoints: []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), c.port)},
		}
		c.boot("it was made")
	}
	return *c.pal, nil
}

func (c *cloud) find(r *http.Request) (any, error) {
	if c.pal == nil || string(c.pal.ID) != r.PathValue("id") {
		return nil, cloudpal.NotExist
	}
	return *c.pal, nil
}

// The methods from here on are called with mu held.

func (c *cloud) to(s api.State, what api.What) {
	c.pal.State, c.pal.Since = s, time.Now()
	c.happen(what, "")
}

func (c *cloud) happen(what api.What, reason string) {
	c.events = append(c.events, api.Event{N: int64(len(c.events) + 1), Time: time.Now(), What: what, Reason: reason})
	close(c.changed)
	c.changed = make(chan struct{})
}

// boot starts the core from its disk: it is locked.
func (c *cloud) boot(why string) {
	c.powerOff()
	c.lock = identity.NewUnlockKey()
	c.pal.State, c.pal.Since = api.Awake, time.Now()
	c.pal.Boots++
	c.happen(api.Booted, why)
}

func (c *cloud) wake(why string) {
	switch c.pal.State {
	case api.Napping:
		c.pal.State = api.Awake
		c.pal.Wakes++
		c.happen(api.Woke, why)
	case api.Sealed, api.Stopped:
		c.boot(why)
	}
}

func (c *cloud) powerOff() {
	if c.core != nil {
		c.core.Close()
		c.core = nil
	}
	c.lock = nil
}

func (c *cloud) unlock(r *http.Request) (any, error) {
	sealed, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	if c.lock == nil {
		return nil, cloudpal.Exist
	}
	u, err := c.lock.Open(sealed, time.Now())
	if err != nil {
		return nil, err
	}
	list, err := u.Against(c.stored)
	if err != nil {
		return nil, err
	}
	c.stored, c.lock = list, nil
	return nil, c.listen(u.Secrets, list)
}

// listen has the core speak WireGuard with the first device of the list.
func (c *cloud) listen(secrets identity.Secrets, list *identity.List) error {
	first := list.Devices()[0]
	v4, v6 := list.Network()
	own := []netip.Addr{overlay.Addr(v4, identity.CoreIndex), overlay.Addr(v6, identity.CoreIndex)}
	core, err := tunnel.Open(tunnel.Config{
		PrivateKey: secrets.WireGuard(), Addrs: own, Peer: [32]byte(first.WireGuard), Port: c.port,
		Routes: []netip.Prefix{netip.PrefixFrom(overlay.Addr(v4, first.Index), 32), netip.PrefixFrom(overlay.Addr(v6, first.Index), 128)},
	})
	if err != nil {
		return err
	}
	c.core = core
	l, err := core.Listen(netip.AddrPortFrom(own[0], 80))
	if err != nil {
		return err
	}
	go http.Serve(l, c.inside())
	return nil
}

// inside is what the core serves on the overlay.
func (c *cloud) inside() http.Handler {
	m := http.NewServeMux()
	m.HandleFunc("GET /v1/list", func(w http.ResponseWriter, _ *http.Request) {
		c.mu.Lock()
		defer c.mu.Unlock()
		w.Write(c.stored.Bytes())
	})
	m.HandleFunc("POST /v1/list", func(w http.ResponseWriter, r *http.Request) {
		data, _ := io.ReadAll(r.Body)
		c.mu.Lock()
		defer c.mu.Unlock()
		next, err := identity.ParseList(c.stored.Root(), data)
		if err == nil {
			err = next.Extends(c.stored)
		}
		if err != nil {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		c.stored = next
	})
	m.HandleFunc("POST /v1/devices/{id}/exit", func(_ http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.exits[r.PathValue("id")] = true
	})
	m.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "the pal's page, host %s, cookies %q", r.Host, r.Header.Get("Cookie"))
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.mu.Lock()
		c.calls["overlay"]++
		silent := c.silent
		c.mu.Unlock()
		if silent {
			<-r.Context().Done()
			return
		}
		m.ServeHTTP(w, r)
	})
}

func (c *cloud) tellEvents(w http.ResponseWriter, r *http.Request) {
	after, _ := strconv.Atoi(r.URL.Query().Get("after"))
	wait, _ := time.ParseDuration(r.URL.Query().Get("wait"))
	begun := time.Now()
	for {
		c.mu.Lock()
		events, changed, refuse := c.events, c.changed, c.refuse
		if c.hasty {
			wait = 0
		}
		c.calls["events"]++
		c.mu.Unlock()
		if refuse != nil {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		if after > len(events) {
			after = 0
		}
		if len(events) > after {
			json.NewEncoder(w).Encode(events[after:])
			return
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		case <-time.After(wait - time.Since(begun)):
			io.WriteString(w, "[]")
			return
		}
	}
}

// These are for tests.

// do changes the cloud.
func (c *cloud) do(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
}

func (c *cloud) count(call string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls[call]
}

func (c *cloud) locked() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lock != nil
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not after %v", what, patience)
		}
	}
}

// A device is a home with an agent.
type device struct {
	t     *testing.T
	cloud *cloud
	home  *Home
	*Client
	words []string // of the phrase
	stop  func() error
}

// newDevice makes a person, whose phrase was seen, and starts an agent.
func (c *cloud) newDevice() *device {
	c.t.Helper()
	d := &device{t: c.t, cloud: c, stop: func() error { return nil }}
	var err error
	if d.home, err = Make(c.t.TempDir()+"/home", Me()); err != nil {
		c.t.Fatal(err)
	}
	phrase, err := d.home.NewPerson(c.t.Context(), Center{Address: c.Address}, "laptop", nil)
	if err == nil {
		err = d.home.SetShown(c.t.Context())
	}
	if err != nil {
		c.t.Fatal(err)
	}
	d.words = phrase.Words()
	d.Client = d.home.Client()
	d.start()
	c.t.Cleanup(func() { d.end() })
	return d
}

// start runs an agent in this process.
func (d *device) start() {
	d.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	agent := NewAgent(d.home, "test", slog.New(slog.NewTextHandler(d.t.Output(), nil)))
	go func() { ended <- agent.Run(ctx) }()
	d.stop = func() error {
		cancel()
		d.stop = func() error { return nil }
		return <-ended
	}
	eventually(d.t, "the agent answers", func() bool { _, err := d.Agent(d.t.Context()); return err == nil })
}

func (d *device) end() {
	d.t.Helper()
	if err := d.stop(); err != nil {
		d.t.Error(err)
	}
}

// up brings the pal up and returns the steps.
func (d *device) up() (steps []string) {
	d.t.Helper()
	err := d.Up(d.t.Context(), UpRequest{}, func(s Step) {
		if s.Done {
			steps = append(steps, s.Name)
		}
	})
	if err != nil {
		d.t.Fatal(err)
	}
	return steps
}

func (d *device) state() State {
	d.t.Helper()
	s, err := d.home.Read()
	if err != nil {
		d.t.Fatal(err)
	}
	return s
}

// confirm proves that the phrase was written down.
func (d *device) confirm() {
	d.t.Helper()
	var words strings.Builder
	for _, p := range d.state().Confirm.Places {
		words.WriteString(d.words[p-1] + " ")
	}
	if err := d.home.Confirm(d.t.Context(), words.String()); err != nil {
		d.t.Fatal(err)
	}
}
