package center

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
	host "github.com/tradle/cloudpal/compute/api"
)

// A place is a center that answers on loopback, by TLS.
type place struct {
	*Center
	t       *testing.T
	house   *house
	log     *lockedBuffer
	address api.Address
	end     func()
}

// A lockedBuffer is a log that may be read while it is written.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// open starts a center on a house; adjust may be nil.
func open(t *testing.T, h *house, dir string, adjust func(*Config)) *place {
	t.Helper()
	log := &lockedBuffer{}
	cfg := Config{
		Dir: dir, Host: h.client, Core: "/core", Version: "test", Log: slog.New(slog.NewTextHandler(log, nil)),
		Addrs: func() []netip.Addr {
			return []netip.Addr{netip.MustParseAddr("203.0.113.5"), netip.MustParseAddr("2001:db8::5")}
		},
	}
	if adjust != nil {
		adjust(&cfg)
	}
	c, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	served := make(chan error, 1)
	go func() { served <- c.Serve(ctx, l) }()
	p := &place{Center: c, t: t, house: h, log: log}
	p.address = c.Addresses([]netip.AddrPort{l.Addr().(*net.TCPAddr).AddrPort()})[0]
	p.end = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-served, c.Close()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(p.end)
	return p
}

func newPlace(t *testing.T) *place {
	t.Helper()
	return open(t, newHouse(t), t.TempDir(), nil)
}

func newAccount(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// as returns a client of an account; nil is a stranger.
func (p *place) as(account ed25519.PrivateKey) *api.Client {
	p.t.Helper()
	c, err := api.Dial(p.address, account, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(c.Close)
	return c
}

func key(n byte) []byte { return bytes.Repeat([]byte{n}, 32) }

func create(t *testing.T, c *api.Client, n byte) api.Pal {
	t.Helper()
	p, err := c.Create(t.Context(), api.CreateRequest{WireGuard: key(n)})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestThePalOfAKeyIsMadeOnce(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	account := newAccount(t)
	var all sync.WaitGroup
	ids := make(chan api.ID, 8)
	for range cap(ids) {
		c := p.as(account)
		all.Go(func() {
			got, err := c.Create(t.Context(), api.CreateRequest{WireGuard: key(1)})
			if err != nil {
				t.Error(err)
			}
			ids <- got.ID
		})
	}
	all.Wait()
	first := <-ids
	for range cap(ids) - 1 {
		if id := <-ids; id != first {
			t.Errorf("got pals %s and %s for one key", first, id)
		}
	}
	other := create(t, p.as(newAccount(t)), 1)
	if other.ID == first {
		t.Error("another account got the same pal")
	}
	if got, want := p.house.took(), "POST images/import, POST vms, POST vms"; got != want {
		t.Errorf("the host was asked %q, want %q", got, want)
	}
}

func TestAPalIsAsTheHostSays(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	c := p.as(newAccount(t))
	made := create(t, c, 1)
	if len(made.Endpoints) != 2 || made.Endpoints[0].Addr() != netip.MustParseAddr("203.0.113.5") ||
		made.Endpoints[1] != netip.MustParseAddrPort("[2001:db8::17]:51820") {
		t.Errorf("endpoints %v, want the host's IPv4 and the VM's own IPv6", made.Endpoints)
	}
	for state, want := range map[host.State]api.State{
		host.Starting: api.Starting, host.Running: api.Awake, host.Asleep: api.Napping, host.Cold: api.Sealed, host.Stopped: api.Stopped,
	} {
		p.house.set(func(v *host.VM) { v.State = state })
		if got, err := c.Pal(t.Context(), made.ID); err != nil || got.State != want {
			t.Errorf("a VM that is %s is a pal that is %s (%v), want %s", state, got.State, err, want)
		}
	}
	// Whatever it does, Wake makes it run.
	for state, want := range map[host.State]string{
		host.Running: "", host.Asleep: "POST vms/resume", host.Cold: "POST vms/resume", host.Stopped: "POST vms/start",
	} {
		p.house.set(func(v *host.VM) { v.State = state })
		p.house.took()
		got, err := c.Wake(t.Context(), made.ID)
		if asked := p.house.took(); err != nil || got.State != api.Awake || asked != want {
			t.Errorf("woken when %s: %s, %v, the host was asked %q, want %q", state, got.State, err, asked, want)
		}
	}
	events, err := c.Events(t.Context(), made.ID, 0, 0)
	if err != nil || len(events) != 1 || events[0].What != api.Booted {
		t.Errorf("events %v (%v)", events, err)
	}
}

func TestOutward(t *testing.T) {
	t.Parallel()
	for reason, want := range map[string]string{
		"a WireGuard handshake from [2001:db8::5]:4711": "a WireGuard handshake from [2001:db8::5]:4711",
		"a packet from 203.0.113.5":                     "a packet from 203.0.113.5",
		"no traffic for 30s":                            "no traffic for 30s",
		"":                                              "",
		"its nap could not be used: open /var/lib/cloudpal/vms/pal-x/nap.sealed: damaged": "its nap could not be used",
		"open /var/lib/cloudpal/vms/pal-x: not allowed":                                   "",
		"boot pal-x: the guest does not answer\nconsole: secret":                          "boot pal-x",
		"stopped\nconsole":       "stopped",
		strings.Repeat("x", 200): "",
	} {
		if got := outward(reason); got != want {
			t.Errorf("of %q the owner is told %q, want %q", reason, got, want)
		}
	}
}

// A VM that an operator took away comes back when its pal is asked for.
func TestAPalWithoutVM(t *testing.T) {
	t.Parallel()
	p := newPlace(t)
	c := p.as(newAccount(t))
	made := create(t, c, 1)
	p.house.mu.Lock()
	clear(p.house.vms)
	p.house.mu.Unlock()
	if got, err := c.Pal(t.Context(), made.ID); err != nil || got.State != api.Stopped {
		t.Errorf("it is %s (%v), want stopped", got.State, err)
	}
	if _, err := c.Sleep(t.Context(), made.ID, ""); !errors.Is(err, cloudpal.Missing) || cloudpal.HintOf(err) == "" {
		t.Errorf("sleep: %v, want %v and what to do", err, cloudpal.Missing)
	}
	got, err := c.Wake(t.Context(), made.ID)
	if err != nil || got.State != api.Awake || got.Endpoints[0] != made.Endpoints[0] {
		t.Errorf("woken it is %+v (%v), want it where it was", got, err)
	}
}

func TestPortsOfOthersAreNotTaken(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.busy[7000] = true
	p := open(t, h, t.TempDir(), func(c *Config) { c.Ports = Ports{7000, 7001} })
	for n := range 4 {
		account := newAccount(t)
		made := create(t, p.as(account), 1)
		if got := made.Endpoints[0].Port(); got != 7001 {
			t.Errorf("round %d: port %d, want the free one", n, got)
		}
		if err := p.as(account).Destroy(t.Context(), made.ID); err != nil {
			t.Fatal(err)
		}
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	p := open(t, h, t.TempDir(), func(c *Config) { c.MaxOwned, c.MaxPals = 2, 3 })
	ann, bob := p.as(newAccount(t)), p.as(newAccount(t))
	create(t, ann, 1)
	second := create(t, ann, 2)
	if _, err := ann.Create(t.Context(), api.CreateRequest{WireGuard: key(3)}); !errors.Is(err, cloudpal.Exhausted) {
		t.Errorf("a third pal: %v, want %v", err, cloudpal.Exhausted)
	}
	create(t, bob, 1)
	if _, err := bob.Create(t.Context(), api.CreateRequest{WireGuard: key(2)}); !errors.Is(err, cloudpal.NoSpace) {
		t.Errorf("one more than there may be: %v, want %v", err, cloudpal.NoSpace)
	}
	if err := ann.Destroy(t.Context(), second.ID); err != nil {
		t.Fatal(err)
	}
	create(t, bob, 2)
	about, err := p.as(nil).Center(t.Context())
	if err != nil || about.Limits.Pals != 2 || about.Image.ID != "sha256:first" || about.Version != "test" {
		t.Errorf("the center says %+v (%v)", about, err)
	}
}

// What a record holds is all that a center knows of a pal.
func TestRecordsHoldNothingElse(t *testing.T) {
	t.Parallel()
	h, dir := newHouse(t), t.TempDir()
	p := open(t, h, dir, nil)
	account := newAccount(t)
	made := create(t, p.as(account), 1)
	data, err := os.ReadFile(filepath.Join(dir, "pals", string(made.ID)+".json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, field := range []string{"id", "owner", "wireGuard", "hostPort", "created", "phase"} {
		if !strings.Contains(string(data), `"`+field+`":`) {
			t.Errorf("the record has no %s:\n%s", field, data)
		}
	}
	if n := strings.Count(string(data), `":`); n != 6 {
		t.Errorf("the record has %d fields, want 6:\n%s", n, data)
	}
	filepath.WalkDir(dir, func(path string, d os.DirEntry, _ error) error {
		info, err := d.Info()
		if err == nil && !d.IsDir() && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v, want 0600", path, info.Mode())
		}
		return err
	})
	if log := p.log.String(); strings.Contains(log, "127.0.0.1") || strings.Contains(log, p.address.Key.String()) {
		t.Errorf("the log has addresses or keys:\n%s", log)
	}
}

// The center is killed in each call to the host, before it takes effect and
// after; the next one finds a pal that is whole, or nothing of it.
func TestKilledInEachCall(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ doing, call string }{
		{"create", "POST vms"},
		{"wake", "POST vms/start"},
		{"anew", "DELETE vms/"},
		{"anew", "POST vms"},
		{"destroy", "DELETE vms/"},
		{"destroy", "DELETE volumes/"},
	} {
		for _, when := range []string{"before", "after"} {
			t.Run(c.doing+" "+when+" "+c.call, func(t *testing.T) {
				t.Parallel()
				killed(t, c.doing, c.call, when)
			})
		}
	}
}

func killed(t *testing.T, doing, call, when string) {
	h, dir, account := newHouse(t), t.TempDir(), newAccount(t)
	p := open(t, h, dir, nil)
	var made api.Pal
	if doing != "create" {
		made = create(t, p.as(account), 1)
		h.set(func(v *host.VM) { v.State = host.Stopped })
	}
	if doing == "anew" {
		p.end()
		h.mu.Lock()
		h.image = "sha256:second"
		h.mu.Unlock()
		p = open(t, h, dir, nil)
	}
	// The center gets no answer: it stands still there until its end.
	reached, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	stand := func(got string) {
		if got == call {
			once.Do(func() { close(reached); <-release })
		}
	}
	if when == "before" {
		h.before = stand
	} else {
		h.after = stand
	}
	client := p.as(account)
	done := make(chan struct{})
	go func() {
		defer close(done)
		switch doing {
		case "create":
			client.Create(t.Context(), api.CreateRequest{WireGuard: key(1)})
		case "destroy":
			client.Destroy(t.Context(), made.ID)
		default:
			client.Wake(t.Context(), made.ID)
		}
	}()
	select {
	case <-reached:
	case <-time.After(20 * time.Second):
		t.Fatalf("the host was never asked %q but %q", call, h.took())
	}
	p.end()
	close(release)
	<-done

	p = open(t, h, dir, nil)
	client = p.as(account)
	switch doing {
	case "create", "destroy":
		eventually(t, "nothing is left", func() bool { return h.left() == "" })
		if list, err := client.Pals(t.Context()); err != nil || len(list) != 0 {
			t.Errorf("it has %v (%v), want none", list, err)
		}
	default:
		got, err := client.Wake(t.Context(), made.ID)
		if err != nil || got.State != api.Awake || got.Image.ID != h.image || h.left() != "1 VMs and 1 volumes" {
			t.Errorf("it is %+v (%v), of %s", got, err, h.left())
		}
	}
	if entries, err := os.ReadDir(filepath.Join(dir, "pals")); err != nil || (made.ID == "") != (len(entries) == 0) && doing != "destroy" {
		t.Errorf("records %v (%v)", entries, err)
	}
}

// One broken record keeps nobody else down.
func TestBrokenRecords(t *testing.T) {
	t.Parallel()
	h, dir, account := newHouse(t), t.TempDir(), newAccount(t)
	p := open(t, h, dir, nil)
	made := create(t, p.as(account), 1)
	p.end()
	good, err := os.ReadFile(filepath.Join(dir, "pals", string(made.ID)+".json"))
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{
		"empty": "", "garbage": "\x00\xff{", "large": strings.Repeat(" ", maxRecord+1),
		string(api.NewID()): string(good), // another's content
		string(api.NewID()): strings.Replace(string(good), `"made"`, `"lost"`, 1),
	} {
		if err := os.WriteFile(filepath.Join(dir, "pals", name+".json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	half := filepath.Join(dir, "pals", tempPrefix+"123")
	if err := os.WriteFile(half, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	p = open(t, h, dir, nil)
	if list, err := p.as(account).Pals(t.Context()); err != nil || len(list) != 1 || list[0].ID != made.ID {
		t.Errorf("pals %v (%v)", list, err)
	}
	if n := strings.Count(p.log.String(), "cannot be read"); n != 5 {
		t.Errorf("the log tells of %d broken records, want 5:\n%s", n, p.log)
	}
	if _, err := os.Stat(half); !errors.Is(err, os.ErrNotExist) {
		t.Error("what was never finished is still there")
	}
}

func TestTheKeyStays(t *testing.T) {
	t.Parallel()
	h, dir := newHouse(t), t.TempDir()
	first := open(t, h, dir, nil)
	first.end()
	if second := open(t, h, dir, nil); second.Key() != first.Key() {
		t.Error("after a restart it has another key")
	}
	if other := open(t, h, t.TempDir(), nil); other.Key() == first.Key() {
		t.Error("another center has the same key")
	}
	if err := os.WriteFile(filepath.Join(dir, "key.pem"), []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := New(t.Context(), Config{Dir: dir, Host: h.client, Log: slog.New(slog.DiscardHandler)})
	if !errors.Is(err, cloudpal.Corrupt) || cloudpal.HintOf(err) == "" {
		t.Errorf("a broken key: %v, want %v and what to do", err, cloudpal.Corrupt)
	}
}

// The relay takes the core's answers for what they are: a stranger's.
func TestRelay(t *testing.T) {
	t.Parallel()
	p, answerWith := withCore(t, "127.77.0.1")
	c := p.as(newAccount(t))
	id := create(t, c, 1).ID

	answerWith(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `{"locked":true,"key":"AQID","attestation":{"kind":"none"},"more":1}`)
	})
	lock, err := c.Lock(t.Context(), id)
	if err != nil || !lock.Locked || !bytes.Equal(lock.Key, []byte{1, 2, 3}) || lock.Attestation.Kind != "none" {
		t.Errorf("lock %+v (%v)", lock, err)
	}
	var got []byte
	var header http.Header
	answerWith(func(w http.ResponseWriter, r *http.Request) {
		got, _ = io.ReadAll(r.Body)
		header = r.Header
		w.WriteHeader(http.StatusNoContent)
	})
	big := bytes.Repeat([]byte("x"), api.MaxUnlock)
	if err := c.Unlock(t.Context(), id, big); err != nil || !bytes.Equal(got, big) {
		t.Errorf("%d bytes came through (%v), want %d", len(got), err, len(big))
	}
	for name := range header {
		if name != "Content-Type" && name != "Content-Length" && name != "Connection" && name != "User-Agent" {
			t.Errorf("the core is told the device's %s: %v", name, header[name])
		}
	}
	if err := c.Unlock(t.Context(), id, append(big, 0)); !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("one byte more: %v, want %v", err, cloudpal.Invalid)
	}
	for status, want := range map[int]cloudpal.Kind{
		403: cloudpal.Denied, 409: cloudpal.Exist, 400: cloudpal.Invalid, 429: cloudpal.Busy, 500: cloudpal.Other, 302: cloudpal.Other, 200: "",
	} {
		answerWith(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Location", "http://127.0.0.1/")
			w.WriteHeader(status)
			io.WriteString(w, "a word of the core's own")
		})
		err := c.Unlock(t.Context(), id, []byte("x"))
		if want == "" && err != nil || want != "" && !errors.Is(err, want) || err != nil && strings.Contains(err.Error(), "own") {
			t.Errorf("the core's %d is %v, want %v", status, err, want)
		}
	}
	for what, f := range map[string]http.HandlerFunc{
		"no JSON":        func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "<html>") },
		"endless JSON":   func(w http.ResponseWriter, r *http.Request) { endless(w, `{"key":"`) },
		"endless header": func(w http.ResponseWriter, r *http.Request) { w.Header().Set("X", strings.Repeat("x", 100<<10)) },
		"hangs up":       func(w http.ResponseWriter, r *http.Request) { panic(http.ErrAbortHandler) },
	} {
		answerWith(f)
		if _, err := c.Lock(t.Context(), id); !errors.Is(err, cloudpal.Other) {
			t.Errorf("%s: %v, want %v", what, err, cloudpal.Other)
		}
	}
}

// A core that naps while it is asked is woken for it, and one that does not
// listen yet is waited for.
func TestRelayHoldsACoreAwake(t *testing.T) {
	t.Parallel()
	p, answerWith := withCore(t, "127.77.0.2")
	c := p.as(newAccount(t))
	id := create(t, c, 1).ID
	answerWith(func(w http.ResponseWriter, r *http.Request) {
		p.house.set(func(v *host.VM) { v.State = host.Asleep })
		eventually(t, "it is woken", func() bool {
			p.house.mu.Lock()
			defer p.house.mu.Unlock()
			return p.house.vms["pal-"+string(id)].State == host.Running
		})
		io.WriteString(w, `{"locked":true,"key":"AQID","attestation":{"kind":"none"}}`)
	})
	if _, err := c.Lock(t.Context(), id); err != nil {
		t.Error(err)
	}
	p.house.mu.Lock()
	p.house.vms["pal-"+string(id)].Addresses[0] = netip.MustParseAddr("127.77.0.3")
	p.house.mu.Unlock()
	asked := make(chan error, 1)
	go func() {
		_, err := c.Lock(t.Context(), id)
		asked <- err
	}()
	time.Sleep(3 * redialEvery) // it finds nobody at first
	late, err := net.Listen("tcp", "127.77.0.3:7460")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `{"locked":false,"attestation":{"kind":"none"}}`)
	})}
	go s.Serve(late)
	defer s.Close()
	if err := <-asked; err != nil {
		t.Errorf("a core that listens late: %v", err)
	}
}

// withCore is a center whose VMs are all at an address of loopback, where the
// core's port is answered by what the returned function is given.
func withCore(t *testing.T, addr string, adjust ...func(*Config)) (*place, func(http.HandlerFunc)) {
	t.Helper()
	h := newHouse(t)
	h.addr = netip.MustParseAddr(addr)
	l, err := net.Listen("tcp", net.JoinHostPort(addr, "7460"))
	if err != nil {
		if runtime.GOOS == "linux" {
			t.Fatal(err)
		}
		t.Skipf("this system's loopback has no %s: %v", addr, err)
	}
	var answer atomic.Pointer[http.HandlerFunc]
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*answer.Load())(w, r) })}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return open(t, h, t.TempDir(), func(c *Config) {
		for _, f := range adjust {
			f(c)
		}
	}), func(f http.HandlerFunc) { answer.Store(&f) }
}

func endless(w io.Writer, head string) {
	io.WriteString(w, head)
	for {
		if _, err := w.Write(bytes.Repeat([]byte("A"), 64<<10)); err != nil {
			return
		}
	}
}

// A client that goes away does not leave a pal half made.
func TestMadeToTheEnd(t *testing.T) {
	t.Parallel()
	h, account := newHouse(t), newAccount(t)
	reached, release := make(chan struct{}), make(chan struct{})
	h.before = func(call string) {
		if call == "POST vms" {
			close(reached)
			<-release
		}
	}
	p := open(t, h, t.TempDir(), nil)
	ctx, cancel := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() {
		_, err := p.as(account).Create(ctx, api.CreateRequest{WireGuard: key(1)})
		gone <- err
	}()
	<-reached
	cancel()
	if err := <-gone; err == nil {
		t.Error("it was made before the host was asked")
	}
	list, err := p.as(account).Pals(t.Context())
	if err != nil || len(list) != 1 || list[0].State != api.Starting {
		t.Fatalf("meanwhile there is %v (%v), want one that starts", list, err)
	}
	if _, err := p.as(account).Wake(t.Context(), list[0].ID); !errors.Is(err, cloudpal.Busy) {
		t.Errorf("woken meanwhile: %v, want %v", err, cloudpal.Busy)
	}
	close(release)
	if made := create(t, p.as(account), 1); made.ID != list[0].ID {
		t.Errorf("asked again it is %s, want %s", made.ID, list[0].ID)
	}
}
