package simulation_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync"
)

// A message is a request as its bytes are.
type message struct {
	method, host, path, from string
	header                   http.Header
	body                     []byte
}

// An answer is what came of a message.
type answer struct {
	status int
	header http.Header
	body   []byte
}

// A party answers messages. It is nil from one that died meanwhile.
type party interface{ answer(message) *answer }

// faults are how often something goes wrong with a message.
type faults struct {
	lost   float64 // it, or its answer
	twice  float64 // it arrives twice, at once
	late   float64 // it arrives after others that were sent later, and whoever sent it has given up
	mortal float64 // who asks dies before it is sent, or after it was answered
}

// A network carries messages, and takes no care.
type network struct {
	faults  faults
	parties map[string]party

	// sees is told of each message that was answered, as whoever answered it would
	// write it down, also of several at once; changes is a liar's, who may answer
	// something else.
	sees    func(message, *answer)
	changes func(message, *answer) *answer

	mu                                 sync.Mutex // of what follows, and of lines' luck
	late                               []message
	sent, lost, twice, delayed, deaths int
	differs                            []string // what was answered two ways
}

// ofCenters is where centers ask from.
const ofCenters = "10.0.0.1:1"

var errLost = errors.New("nothing came back")

// A killed is what a process is ended with that dies while it asks.
type killed struct{}

func (n *network) count(what *int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	*what++
}

// A line is how one process reaches others. What happens on it is its own luck,
// whatever happens on others at the same time.
type line struct {
	*network
	from   string
	mortal bool // its process can die
	luck   *rand.Rand
}

func (l line) draw(p float64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return p > 0 && l.luck.Float64() < p
}

// RoundTrip implements http.RoundTripper.
func (l line) RoundTrip(r *http.Request) (*http.Response, error) {
	m := message{method: r.Method, host: r.URL.Host, path: r.URL.RequestURI(), from: l.from, header: r.Header.Clone()}
	if r.Body != nil {
		defer r.Body.Close()
		var err error
		if m.body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
	}
	a := l.send(m)
	if a == nil {
		return nil, errLost
	}
	return &http.Response{
		StatusCode: a.status, Header: a.header, Body: io.NopCloser(bytes.NewReader(a.body)), ContentLength: int64(len(a.body)),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
	}, nil
}

// CloseIdleConnections is for clients that are closed.
func (line) CloseIdleConnections() {}

// send delivers a message, or not, once or more.
func (l line) send(m message) *answer {
	l.count(&l.sent)
	if m.from != ofCenters { // whose work is under way: it cannot be asked meanwhile
		l.overtaken()
	}
	if l.mortal && l.draw(l.faults.mortal/2) {
		l.count(&l.deaths)
		panic(killed{})
	}
	switch {
	case l.draw(l.faults.lost / 2):
		l.count(&l.lost)
		return nil
	case l.draw(l.faults.late):
		l.mu.Lock()
		l.delayed++
		l.late = append(l.late, m)
		l.mu.Unlock()
		return nil
	}
	a := l.deliver(m)
	if a != nil && l.draw(l.faults.twice) {
		l.count(&l.twice)
		if b := l.deliver(m); b != nil && a.status == http.StatusOK && b.status == http.StatusOK && always(m) && !bytes.Equal(a.body, b.body) {
			l.mu.Lock()
			l.differs = append(l.differs, m.method+" "+m.path)
			l.mu.Unlock()
		}
	}
	if l.mortal && l.draw(l.faults.mortal/2) {
		l.count(&l.deaths)
		panic(killed{})
	}
	if a != nil && l.draw(l.faults.lost/2) {
		l.count(&l.lost)
		return nil
	}
	return a
}

// always reports whether a message has one answer, whenever it is asked.
func always(m message) bool {
	switch m.path {
	case "/v1/issue", "/v1/swap", "/v1/refunds", "/v1/deposits":
		return true
	}
	return false
}

// overtaken delivers some of the messages that were late.
func (l line) overtaken() {
	for l.draw(0.3) {
		l.mu.Lock()
		if len(l.late) == 0 {
			l.mu.Unlock()
			return
		}
		i := l.luck.IntN(len(l.late))
		m := l.late[i]
		l.late[i] = l.late[len(l.late)-1]
		l.late = l.late[:len(l.late)-1]
		l.mu.Unlock()
		l.deliver(m)
	}
}

func (n *network) deliver(m message) *answer {
	p := n.parties[m.host]
	if p == nil {
		return nil
	}
	a := p.answer(m)
	if a == nil {
		return nil
	}
	if n.sees != nil {
		n.sees(m, a)
	}
	if n.changes != nil {
		a = n.changes(m, a)
	}
	return a
}

// serve has a handler answer a message, as a server would.
func serve(h http.Handler, m message) *answer {
	r := httptest.NewRequestWithContext(context.Background(), m.method, m.path, bytes.NewReader(m.body))
	r.Header, r.Host, r.RemoteAddr = m.header.Clone(), m.host, m.from
	if m.method == http.MethodGet {
		r.Body = http.NoBody
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return &answer{w.Code, w.Header(), w.Body.Bytes()}
}
