package person

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/console"
	"github.com/tradle/cloudpal/identity"
	"github.com/tradle/cloudpal/network/overlay"
)

// A page shows the pal to browsers of this machine, on a port of 127.0.0.1, to
// whoever came with a token from "cloudpal open": others of this machine, and
// pages of the web, can reach the port, too.
//
// The first page is made here, of what the center tells: so it shows a pal that
// sleeps without waking it. Devices are added here, where their keys are made.
// Everything else is the pal's own.
type page struct {
	agent *Agent
	proxy *httputil.ReverseProxy

	mu      sync.Mutex // guards what follows
	l       net.Listener
	stop    context.CancelFunc
	tasks   sync.WaitGroup
	tokens  map[string]time.Time // that open the page once, until then
	session string               // the cookie's value; of all browsers that came in
}

const (
	tokenLife = time.Minute
	maxTokens = 16
)

func newPage(a *Agent) *page {
	p := &page{agent: a, tokens: map[string]time.Time{}, session: rand.Text()}
	p.proxy = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(&url.URL{Scheme: "http", Host: "pal"})
			r.Out.Host = "pal"
			r.Out.Header.Del("Cookie")
			r.Out.Header.Del("Origin")
			r.Out.Header.Del("Referer")
		},
		Transport:    a.transport(),
		ErrorHandler: p.unreachable,
		ErrorLog:     slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	return p
}

// open opens the port, where it is not open, and returns a way in.
func (p *page) open() (Opened, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.l == nil {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return Opened{}, cloudpal.E("open the page", "", err)
		}
		ctx, stop := context.WithCancel(context.Background())
		p.l, p.stop = l, stop
		p.tasks.Go(func() { serve(ctx, l, p.handler(l.Addr().String())) })
	}
	now := time.Now()
	for t, until := range p.tokens {
		if now.After(until) || len(p.tokens) >= maxTokens {
			delete(p.tokens, t)
		}
	}
	token := rand.Text()
	p.tokens[token] = now.Add(tokenLife)
	return Opened{URL: "http://" + p.l.Addr().String() + "/enter?token=" + token}, nil
}

func (p *page) close() error {
	p.mu.Lock()
	stop := p.stop
	p.mu.Unlock()
	if stop != nil {
		stop()
		p.tasks.Wait()
	}
	return nil
}

// handler answers at that host and port, and under no other name.
func (p *page) handler(at string) http.Handler {
	inside := http.NewServeMux()
	inside.Handle("GET /{$}", console.Handler(p.first))
	inside.HandleFunc("GET "+addPath, p.showForm)
	inside.HandleFunc("POST "+addPath, p.add)
	inside.Handle("/", p.proxy)
	known := http.NewCrossOriginProtection().Handler(inside)
	m := http.NewServeMux()
	m.HandleFunc("GET /enter", p.enter)
	m.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if !p.knows(r) {
			console.Show(w, http.StatusForbidden, console.Notice{
				Title: "This browser is not known here.", Text: "To see your pal in it, run: cloudpal open",
			})
			return
		}
		known.ServeHTTP(w, r)
	})
	return console.Hosts(m, at)
}

const addPath = "/add"

// cookieName has the port in it: cookies of one host are sent to all its ports.
func cookieName(r *http.Request) string {
	_, port, _ := net.SplitHostPort(r.Host)
	return "cloudpal-" + port
}

// enter gives a browser that has a token the cookie.
func (p *page) enter(w http.ResponseWriter, r *http.Request) {
	token := r.URL.Query().Get("token")
	p.mu.Lock()
	until, ok := p.tokens[token]
	delete(p.tokens, token)
	p.mu.Unlock()
	switch {
	case ok && time.Now().Before(until):
		http.SetCookie(w, &http.Cookie{
			Name: cookieName(r), Value: p.session, Path: "/", HttpOnly: true, SameSite: http.SameSiteStrictMode,
		})
	case !p.knows(r): // else somebody went back
		console.Show(w, http.StatusForbidden, console.Notice{
			Title: "This way in was used already, or is too old.", Text: "To get another, run: cloudpal open",
		})
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, "/", http.StatusSeeOther)
}

func (p *page) knows(r *http.Request) bool {
	c, err := r.Cookie(cookieName(r))
	return err == nil && subtle.ConstantTimeCompare([]byte(c.Value), []byte(p.session)) == 1
}

// unreachable is shown in place of what a pal that does not answer would have
// shown.
func (p *page) unreachable(w http.ResponseWriter, r *http.Request, _ error) {
	if r.Context().Err() != nil {
		return // the browser is gone
	}
	p.agent.hasten()
	v := console.Notice{Title: "Your pal does not answer.", Text: "Look again in a moment."}
	p.agent.mu.Lock()
	problem := p.agent.problem
	p.agent.mu.Unlock()
	if problem != nil {
		v.Text = sentence(problem)
	}
	console.Show(w, http.StatusBadGateway, v)
}

// form is where a device is added, or says why that cannot be.
func (p *page) form() (console.Form, error) {
	s, err := p.agent.home.Read()
	if err != nil {
		return console.Form{}, err
	}
	if s.Confirm != nil {
		return console.Form{}, errUnconfirmed(s.Confirm)
	}
	devices, err := s.Devices()
	return console.Form{Action: addPath, Name: freeName(devices)}, err
}

func (p *page) showForm(w http.ResponseWriter, _ *http.Request) {
	f, err := p.form()
	if err != nil {
		console.Show(w, http.StatusConflict, console.Notice{Title: "No device can be added now.", Text: sentence(err)})
		return
	}
	console.Show(w, http.StatusOK, f)
}

// freeName proposes a name for the next phone.
func freeName(devices []Device) string {
	for n := 1; ; n++ {
		name := "phone"
		if n > 1 {
			name += strconv.Itoa(n)
		}
		if !slices.ContainsFunc(devices, func(d Device) bool { return d.Name == name }) {
			return name
		}
	}
}

const maxForm = 4 << 10 // bytes

func (p *page) add(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	q := AddRequest{Name: strings.TrimSpace(r.PostFormValue(console.FieldName)), Full: r.PostFormValue(console.FieldFull) != ""}
	err := identity.CheckName(q.Name)
	var d Changed
	if err == nil {
		d, err = p.agent.add(r.Context(), q)
	}
	if err != nil && d.Config == "" {
		console.Show(w, http.StatusConflict, console.Form{Action: addPath, Name: q.Name, Full: q.Full, Trouble: sentence(err)})
		return
	}
	v := console.Added{Name: d.Name, Config: []byte(d.Config)}
	if qr, err := overlay.NewQR(v.Config); err == nil {
		v.QR = qr.PNG()
	}
	switch {
	case err != nil:
		v.Trouble = sentence(err)
	case !d.Delivered:
		v.Trouble = "Your pal does not know of it yet. It will as soon as it answers."
	}
	console.Show(w, http.StatusOK, v)
}

func sentence(err error) string {
	text := err.Error()
	if hint := cloudpal.HintOf(err); hint != "" {
		text += ": " + hint
	}
	return text
}
