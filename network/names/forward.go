package names

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// patience is how long one upstream is waited for before the next is asked,
// too.
const patience = 700 * time.Millisecond

// A forwarder asks upstreams and remembers what they say.
type forwarder struct {
	servers []*server
	cache   *cache
	log     *slog.Logger
	room    chan struct{} // one for each query that waits
	tasks   sync.WaitGroup
}

func newForwarder(upstreams []Upstream, roots *x509.CertPool, log *slog.Logger) *forwarder {
	f := &forwarder{cache: newCache(time.Now), log: log, room: make(chan struct{}, maxForwards)}
	sessions := tls.NewLRUClientSessionCache(2 * len(upstreams))
	for _, u := range upstreams {
		f.servers = append(f.servers, &server{Upstream: u, tls: &tls.Config{
			ServerName: u.TLS, RootCAs: roots, MinVersion: tls.VersionTLS12, ClientSessionCache: sessions,
		}})
	}
	return f
}

func (f *forwarder) flush() {
	f.cache.flush()
	for _, s := range f.servers {
		s.flush()
	}
}

func (f *forwarder) close() {
	f.tasks.Wait()
	f.flush()
}

// resolve returns the answer to a client's query, or nil where there is none to
// be had.
func (f *forwarder) resolve(ctx context.Context, query *dns.Msg) *dns.Msg {
	k := keyOf(query)
	if got, ok := f.cache.get(k); ok {
		return got
	}
	select {
	case f.room <- struct{}{}:
	default:
		return nil // the client asks again, or another server
	}
	defer func() { <-f.room }()
	got := f.ask(ctx, ours(k, query))
	if !errors.Is(ctx.Err(), context.Canceled) {
		f.cache.put(k, got)
	}
	return got
}

// ours is the query that upstreams get: of the client's, what is asked and no
// more, under another number.
func ours(k key, query *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion(k.name, k.kind)
	m.CheckingDisabled = query.CheckingDisabled
	m.SetEdns0(maxUDP, k.do)
	return m
}

// ask asks one upstream after the other, the next when one has failed or has
// taken too long, and returns the first answer, or nil.
func (f *forwarder) ask(ctx context.Context, m *dns.Msg) *dns.Msg {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	waiting := f.byHealth()
	answers := make(chan *dns.Msg, len(waiting))
	asked := 0
	next := func() {
		if asked < len(waiting) {
			s := waiting[asked]
			f.tasks.Go(func() { answers <- f.askOne(ctx, s, m.Copy()) })
			asked++
		}
	}
	next()
	slow := time.NewTicker(patience)
	defer slow.Stop()
	for failed := 0; failed < len(waiting); {
		select {
		case got := <-answers:
			if got != nil {
				return got
			}
			failed++
			next()
		case <-slow.C:
			next()
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

// askOne returns a server's answer, or nil. It says so once when a server stops
// to answer, and when it answers again.
func (f *forwarder) askOne(ctx context.Context, s *server, m *dns.Msg) *dns.Msg {
	m.Id = dns.Id()
	began := time.Now()
	got, err := s.ask(ctx, m)
	if errors.Is(ctx.Err(), context.Canceled) && time.Since(began) < patience {
		return nil // another was faster, or all ends: nothing is known of this one
	}
	switch changed := s.mark(err != nil); {
	case changed && err != nil:
		f.log.Warn("a name server does not answer", "server", s.Upstream, "err", err)
	case changed:
		f.log.Info("a name server answers again", "server", s.Upstream)
	}
	if err != nil || !useful(got) {
		return nil
	}
	clean(got)
	return got
}

// clean leaves of an answer what is for clients: no glue, and no records that
// have no data, or too little, which package dns reads as updates have them and
// writes as nobody can read them.
func clean(m *dns.Msg) {
	odd := func(rr dns.RR) bool {
		return rr.Header().Class != dns.ClassINET || rr.Header().Rdlength == 0 || !legible(rr)
	}
	m.Answer = slices.DeleteFunc(m.Answer, odd)
	m.Ns = slices.DeleteFunc(m.Ns, odd)
	m.Extra = nil
}

// legible reports whether a record can be read as it is written. Of one that ends
// too soon, what is missing is empty, and an empty name is written as nothing.
func legible(rr dns.RR) bool {
	b := make([]byte, dns.Len(rr)+1)
	n, err := dns.PackRR(rr, b, 0, nil, false)
	if err == nil {
		_, _, err = dns.UnpackRR(b[:n], 0)
	}
	return err == nil
}

// useful tells an answer from a server's own trouble.
func useful(m *dns.Msg) bool {
	return m.Rcode == dns.RcodeSuccess || m.Rcode == dns.RcodeNameError
}

// byHealth returns the servers that failed lately behind the others.
func (f *forwarder) byHealth() []*server {
	var good, bad []*server
	for _, s := range f.servers {
		if s.failing() {
			bad = append(bad, s)
		} else {
			good = append(good, s)
		}
	}
	return append(good, bad...)
}
