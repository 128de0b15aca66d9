package person

import (
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/console"
)

// A browser keeps cookies, and does not follow to where it is sent.
type browser struct {
	t *testing.T
	http.Client
}

func newBrowser(t *testing.T) *browser {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	return &browser{t, http.Client{Jar: jar, Timeout: patience,
		Transport:     &http.Transport{DisableKeepAlives: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

func (b *browser) do(r *http.Request, err error) (status int, body string, h http.Header) {
	b.t.Helper()
	if err != nil {
		b.t.Fatal(err)
	}
	resp, err := b.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp.StatusCode, string(data), resp.Header
}

func (b *browser) get(at string) (int, string, http.Header) {
	b.t.Helper()
	return b.do(http.NewRequest(http.MethodGet, at, nil))
}

// post sends a form, from a page of that origin.
func (b *browser) post(at, origin string, form url.Values) (int, string) {
	b.t.Helper()
	r, err := http.NewRequest(http.MethodPost, at, strings.NewReader(form.Encode()))
	if err == nil {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		r.Header.Set("Origin", origin)
	}
	status, body, _ := b.do(r, err)
	return status, body
}

// opened is a way in, and the page's base.
func opened(t *testing.T, d *device) (way, base string) {
	t.Helper()
	o, err := d.Open(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(o.URL)
	if err != nil || u.Hostname() != "127.0.0.1" {
		t.Fatalf("the page is at %q, %v", o.URL, err)
	}
	return o.URL, "http://" + u.Host
}

func TestPageShowsThePal(t *testing.T) {
	d := newCloud(t).newDevice()
	d.up()
	way, base := opened(t, d)
	b := newBrowser(t)
	if status, body, _ := b.get(base); status != http.StatusForbidden || !strings.Contains(body, "cloudpal open") {
		t.Errorf("without a way in: %d %s", status, body)
	}
	status, _, h := b.get(way)
	if status != http.StatusSeeOther || h.Get("Location") != "/" {
		t.Fatalf("the way in: %d, to %q", status, h.Get("Location"))
	}
	cookie := h.Get("Set-Cookie")
	if !strings.Contains(cookie, "HttpOnly") || !strings.Contains(cookie, "SameSite=Strict") {
		t.Errorf("the cookie is %q", cookie)
	}
	status, body, _ := b.get(base + "/")
	for _, want := range []string{"Awake", "laptop", "this one", "It was made"} {
		if status != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("the first page: got %d without %q: %s", status, want, body)
		}
	}
	status, body, _ = b.get(base + "/notes")
	if want := `the pal's page, host pal, cookies ""`; status != http.StatusOK || body != want {
		t.Errorf("got %d %q, want %q", status, body, want)
	}

	// The way in works once.
	other := newBrowser(t)
	if status, body, _ := other.get(way); status != http.StatusForbidden || !strings.Contains(body, "cloudpal open") {
		t.Errorf("a second time: %d %s", status, body)
	}
	if status, _, _ := other.get(base + "/enter?token="); status != http.StatusForbidden {
		t.Errorf("no token: %d", status)
	}
	if status, _, _ := b.get(way); status != http.StatusSeeOther {
		t.Errorf("who is in goes back: %d", status)
	}
	way2, base2 := opened(t, d)
	if base2 != base {
		t.Errorf("the page has moved from %s to %s", base, base2)
	}
	if status, _, _ := other.get(way2); status != http.StatusSeeOther {
		t.Errorf("another way in: %d", status)
	}
}

// A page of the web that has its name lead to 127.0.0.1 gets nothing, whatever
// cookies it has.
func TestPageIsNotFoundByOtherNames(t *testing.T) {
	d := newCloud(t).newDevice()
	d.up()
	way, base := opened(t, d)
	b := newBrowser(t)
	b.get(way)
	for _, host := range []string{"evil.example", "evil.example:80", "localhost", "127.0.0.1", ""} {
		r, err := http.NewRequest(http.MethodGet, base+"/", nil)
		if err == nil && host != "" {
			r.Host = host
		}
		if status, body, _ := b.do(r, err); host != "" && status != http.StatusMisdirectedRequest {
			t.Errorf("%q: got %d %s", host, status, body)
		}
	}
}

func TestPageAddsADevice(t *testing.T) {
	c := newCloud(t)
	d := c.newDevice()
	d.up()
	way, base := opened(t, d)
	b := newBrowser(t)
	b.get(way)
	if _, body, _ := b.get(base + "/add"); !strings.Contains(body, "not confirmed") {
		t.Errorf("before the phrase is confirmed: %s", body)
	}
	d.confirm()
	_, body, h := b.get(base + "/add")
	if !strings.Contains(body, `value="phone"`) || !strings.Contains(h.Get("Content-Security-Policy"), "default-src 'none'") {
		t.Errorf("the form: %v %s", h, body)
	}
	form := url.Values{"name": {"phone"}}
	for _, origin := range []string{"http://evil.example", "http://127.0.0.1:1", "null"} {
		if status, _ := b.post(base+"/add", origin, form); status != http.StatusForbidden {
			t.Errorf("a form of %s: got %d", origin, status)
		}
	}
	if status, _ := newBrowser(t).post(base+"/add", base, form); status != http.StatusForbidden {
		t.Errorf("a browser without a cookie: got %d", status)
	}
	if d.names() != "laptop" {
		t.Fatalf("there are now %q", d.names())
	}
	status, body := b.post(base+"/add", base, form)
	if status != http.StatusOK || !strings.Contains(body, "data:image/png;base64,") || !strings.Contains(body, "PrivateKey") {
		t.Errorf("got %d %s", status, body)
	}
	if c.stores() != "laptop phone" {
		t.Errorf("the core knows %q", c.stores())
	}
	if _, body, _ := b.get(base + "/add"); !strings.Contains(body, `value="phone2"`) {
		t.Errorf("the next name: %s", body)
	}
	for _, name := range []string{"", "phone", "<b>x</b>", strings.Repeat("x", 1000)} {
		status, body := b.post(base+"/add", base, url.Values{"name": {name}})
		if status != http.StatusConflict || !strings.Contains(body, `role="alert"`) || strings.Contains(body, "<b>x") {
			t.Errorf("%.20q: got %d %s", name, status, body)
		}
	}
	if status, _ := b.post(base+"/add", base, url.Values{"name": {strings.Repeat("x", 1<<20)}}); status == http.StatusOK {
		t.Error("a huge form was taken")
	}
}

// A pal that does not answer is not waited for without a word.
func TestPageOfAPalThatIsAway(t *testing.T) {
	c := newCloud(t)
	d := c.newDevice()
	way, base := opened(t, d)
	b := newBrowser(t)
	b.get(way)
	if status, body, _ := b.get(base + "/"); status != http.StatusServiceUnavailable || !strings.Contains(body, "cannot say") {
		t.Errorf("the first page: got %d %s", status, body)
	}
	if status, body, _ := b.get(base + "/notes"); status != http.StatusBadGateway || !strings.Contains(body, "cloudpal up") {
		t.Errorf("got %d %s", status, body)
	}
}

// Looking at a pal that sleeps does not wake it.
func TestPageShowsASleepingPal(t *testing.T) {
	c := newCloud(t)
	d := c.newDevice()
	d.up()
	d.confirm()
	way, base := opened(t, d)
	b := newBrowser(t)
	b.get(way)
	var packets int64
	c.do(func() {
		c.to(api.Napping, api.Napped)
		c.wake("a packet from phone")
		c.to(api.Napping, api.Napped)
		packets = c.core.Stats().Received
	})
	status, body, _ := b.get(base + "/")
	for _, want := range []string{"Asleep", "a packet from phone", "laptop", `action="/add"`} {
		if status != http.StatusOK || !strings.Contains(strings.ToLower(body), strings.ToLower(want)) {
			t.Errorf("got %d without %q: %s", status, want, body)
		}
	}
	c.do(func() {
		if got := c.core.Stats().Received; got != packets || c.pal.State != api.Napping {
			t.Errorf("%d bytes were sent to the core, which is %s", got-packets, c.pal.State)
		}
	})
}

func TestDayOfEvents(t *testing.T) {
	at := func(minutes int) time.Time { return time.Unix(0, 0).Add(time.Duration(minutes) * time.Minute) }
	events := []api.Event{
		{N: 1, Time: at(0), What: api.Booted, Reason: "it was made"},
		{N: 2, Time: at(5), What: api.Napped},
		{N: 3, Time: at(7), What: api.Woke, Reason: "a packet"},
		{N: 4, Time: at(9), What: api.Napped},
		{N: 5, Time: at(20), What: api.Dropped}, // it slept already
		{N: 6, Time: at(30), What: api.Booted, Reason: "another"},
		{N: 7, Time: at(31), What: api.Napped},
	}
	naps, woke, from := dayOf(events, at(-1))
	want := []console.Nap{{From: at(5), To: at(7), Reason: "a packet"}, {From: at(9), To: at(30), Reason: "another"}}
	if !slices.Equal(naps, want) {
		t.Errorf("got %v, want %v", naps, want)
	}
	if woke == nil || woke.Reason != "another" || woke.Slept != 21*time.Minute || !from.Equal(at(-1)) {
		t.Errorf("woke %+v, known from %v", woke, from)
	}
	if _, _, from := dayOf(events[2:], at(-1)); !from.Equal(at(7)) {
		t.Errorf("of a part, all is known from %v", from)
	}
	if naps, woke, from := dayOf(nil, at(-1)); naps != nil || woke != nil || !from.IsZero() {
		t.Error("of no events something is known")
	}
}

func TestWaysInGrowOld(t *testing.T) {
	d := newCloud(t).newDevice()
	p := newPage(NewAgent(d.home, "test", nil))
	defer p.close()
	for range 3 * maxTokens {
		if _, err := p.open(); err != nil {
			t.Fatal(err)
		}
	}
	if len(p.tokens) > maxTokens {
		t.Errorf("%d ways in are kept", len(p.tokens))
	}
	o, err := p.open()
	if err != nil {
		t.Fatal(err)
	}
	p.mu.Lock()
	for token := range p.tokens {
		p.tokens[token] = time.Now().Add(-time.Second)
	}
	p.mu.Unlock()
	if status, _, _ := newBrowser(t).get(o.URL); status != http.StatusForbidden {
		t.Errorf("an old way in: got %d", status)
	}
}
