package secretstream

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/tradle/cloudpal"
)

func TestMessages(t *testing.T) {
	a, b := tcp(t)
	initiator, responder := pair(t, a, b, Config{}, Config{})
	sizes := []int{1, 2, 8, 100, 1000, 4 << 10, 64 << 10, 1 << 20, 1, 3 << 20, 5, MaxMessage}
	for range 2 * keepFrames {
		sizes = append(sizes, 16) // the large buffer is given back
	}
	both(t, func(from, to *Conn) error {
		for i, n := range sizes {
			if err := from.WriteMessage(bytes.Repeat([]byte{byte(i)}, n)); err != nil {
				return err
			}
		}
		return nil
	}, func(from, to *Conn) error {
		for i, n := range sizes {
			got, err := to.ReadMessage()
			if err != nil || !bytes.Equal(got, bytes.Repeat([]byte{byte(i)}, n)) {
				return errors.Join(err, errors.New("not what was sent"))
			}
		}
		return nil
	}, initiator, responder)
	if n := len(responder.frames.buf); n > shrinkOver {
		t.Errorf("after small messages a buffer of %d bytes is kept", n)
	}
	if err := initiator.WriteMessage(make([]byte, MaxMessage+1)); !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("a message that no frame holds: got %v", err)
	}
}

// both runs senders and receivers both ways at once.
func both(t *testing.T, send, receive func(from, to *Conn) error, a, b *Conn) {
	t.Helper()
	var all sync.WaitGroup
	for _, ends := range [][2]*Conn{{a, b}, {b, a}} {
		for _, f := range []func(from, to *Conn) error{send, receive} {
			all.Go(func() {
				if err := f(ends[0], ends[1]); err != nil {
					t.Error(err)
				}
			})
		}
	}
	all.Wait()
}

// TestManyWriters has goroutines write at once: no message is lost, and they
// share writes.
func TestManyWriters(t *testing.T) {
	a, b := tcp(t)
	counter := &counter{ReadWriteCloser: a}
	initiator, responder := pair(t, counter, b, Config{}, Config{})
	var writers sync.WaitGroup
	for w := range 16 {
		writers.Go(func() {
			for range 500 {
				if err := initiator.WriteMessage(bytes.Repeat([]byte{byte(w)}, 100)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	var seen [16]int
	for range 16 * 500 {
		m, err := responder.ReadMessage()
		if err != nil {
			t.Fatal(err)
		}
		seen[m[0]]++
	}
	writers.Wait()
	for w, n := range seen {
		if n != 500 {
			t.Errorf("%d messages of writer %d arrived, want 500", n, w)
		}
	}
	for range 1000 {
		if err := initiator.QueueMessage(make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
	}
	before := counter.writes
	if err := initiator.Flush(); err != nil {
		t.Fatal(err)
	}
	if n := counter.writes - before; n != 1 {
		t.Errorf("1000 queued messages took %d writes at the end, want 1", n)
	}
}

// A counter counts writes.
type counter struct {
	io.ReadWriteCloser
	writes int
}

func (c *counter) Write(b []byte) (int, error) {
	c.writes++
	return c.ReadWriteCloser.Write(b)
}

func TestStream(t *testing.T) {
	a, b := tcp(t)
	initiator, responder := pair(t, a, b, Config{}, Config{})
	sent := make([]byte, 1<<20+17)
	rand.Read(sent)
	go func() {
		initiator.Stream().Write(sent)
		initiator.CloseWrite()
	}()
	got, err := io.ReadAll(iotest.OneByteReader(io.LimitReader(responder.Stream(), 100)))
	if err != nil || !bytes.Equal(got, sent[:100]) {
		t.Fatalf("got %x, %v", got, err)
	}
	s := responder.Stream() // the rest of the message is the old Stream's
	if _, err := s.Read(nil); err != nil {
		t.Error(err)
	}
	rest, err := io.ReadAll(s)
	if want := sent[pieceSize:]; err != nil || !bytes.Equal(rest, want) {
		t.Errorf("got %d bytes, %v, want %d", len(rest), err, len(want))
	}
	if _, err := responder.Stream().Write([]byte("still")); err != nil {
		t.Errorf("after the other half was closed: %v", err)
	}
	want(t, initiator, []byte("still"))
}

// TestSlowArrival has frames arrive a byte at a time.
func TestSlowArrival(t *testing.T) {
	a, b := tcp(t)
	trickle := struct {
		io.Reader
		io.WriteCloser
	}{iotest.OneByteReader(b), b}
	initiator, responder := pair(t, a, trickle, Config{}, Config{})
	for n := range 300 {
		initiator.QueueMessage(bytes.Repeat([]byte{1}, n+1))
	}
	go initiator.Flush()
	for n := range 300 {
		want(t, responder, bytes.Repeat([]byte{1}, n+1))
	}
}

func TestEndAndClose(t *testing.T) {
	a, b := tcp(t)
	initiator, responder := pair(t, a, b, Config{}, Config{})
	responder.WriteMessage([]byte("first"))
	want(t, initiator, []byte("first"))
	initiator.WriteMessage([]byte("last"))
	initiator.Close()
	initiator.Close()
	want(t, responder, []byte("last"))
	if _, err := responder.ReadMessage(); err != io.EOF {
		t.Errorf("after the end: got %v, want %v", err, io.EOF)
	}
	for _, err := range []error{initiator.WriteMessage(nil), initiator.QueueMessage(nil), initiator.Flush()} {
		if !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Close: got %v, want %v", err, net.ErrClosed)
		}
	}
	if _, err := initiator.ReadMessage(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: got %v, want %v", err, net.ErrClosed)
	}
}

// TestCutInAFrame tells an end inside a frame from one between two.
func TestCutInAFrame(t *testing.T) {
	a, b := tcp(t)
	ta := &tap{ReadWriteCloser: a}
	initiator, responder := pair(t, ta, b, Config{}, Config{})
	initiator.WriteMessage([]byte("whole"))
	want(t, responder, []byte("whole"))
	a.Write([]byte{200, 0})
	a.(*net.TCPConn).CloseWrite()
	if _, err := responder.ReadMessage(); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("got %v, want an error", err)
	}
}

func TestWhoMayTalk(t *testing.T) {
	ann, bob, eve := key(1), key(2), key(3)
	only := func(k *[32]byte) func([32]byte) bool { return func(r [32]byte) bool { return r == *k } }
	for name, c := range map[string]struct {
		initiator, responder       Config
		initiatorErr, responderErr bool
	}{
		"both know each other":            {Config{Key: ann, Remote: public(bob)}, Config{Key: bob, Remote: public(ann)}, false, false},
		"the responder is another":        {Config{Key: ann, Remote: public(eve)}, Config{Key: bob}, true, true},
		"the initiator is another":        {Config{Key: eve, Remote: public(bob)}, Config{Key: bob, Remote: public(ann)}, false, true},
		"a responder who is not allowed":  {Config{Key: ann, Allow: only(public(eve))}, Config{Key: bob}, true, true},
		"an initiator who is not allowed": {Config{Key: eve}, Config{Key: bob, Allow: only(public(ann))}, false, true},
		"known":                           {Config{Key: ann, Remote: public(bob), Known: true}, Config{Key: bob, Known: true}, false, false},
		"known as another":                {Config{Key: ann, Remote: public(eve), Known: true}, Config{Key: bob, Known: true}, true, true},
		"known, and not allowed":          {Config{Key: ann, Remote: public(bob), Known: true}, Config{Key: bob, Known: true, Remote: public(eve)}, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := tcp(t)
			c.initiator.Initiator = true
			errs := make(chan error, 1)
			go func() {
				_, err := Handshake(t.Context(), b, c.responder)
				errs <- err
			}()
			conn, err := Handshake(t.Context(), a, c.initiator)
			if (err != nil) != c.initiatorErr {
				t.Errorf("initiator: got %v", err)
			}
			if err := <-errs; (err != nil) != c.responderErr {
				t.Errorf("responder: got %v", err)
			}
			if err == nil && c.responderErr {
				if m, err := conn.ReadMessage(); err == nil {
					t.Errorf("who was refused could read %q", m)
				}
			}
		})
	}
}

// TestDenied names the reason, and no key.
func TestDenied(t *testing.T) {
	a, b := tcp(t)
	go Handshake(t.Context(), b, Config{})
	_, err := Handshake(t.Context(), a, Config{Initiator: true, Remote: public(key(9))})
	if !errors.Is(err, cloudpal.Denied) {
		t.Errorf("got %v, want %v", err, cloudpal.Denied)
	}
}

func TestConfigs(t *testing.T) {
	for name, c := range map[string]Config{
		"a short key":           {Key: key(1)[:32]},
		"known but to whom":     {Initiator: true, Known: true},
		"larger than any frame": {MaxMessage: MaxMessage + 1},
	} {
		a, b := net.Pipe()
		if _, err := Handshake(t.Context(), a, c); !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("%s: got %v, want %v", name, err, cloudpal.Invalid)
		}
		if _, err := b.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("%s: the connection is not closed: %v", name, err)
		}
	}
}

func TestHandshakeTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer b.Close()
		begun := time.Now()
		_, err := Handshake(t.Context(), a, Config{})
		if passed := time.Since(begun); !errors.Is(err, cloudpal.Timeout) || passed != DefaultHandshakeTimeout {
			t.Errorf("after %v: %v", passed, err)
		}
	})
}

// TestSlowHandshake has a peer that sends a byte a second: what counts is the
// whole.
func TestSlowHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		go func() {
			for _, err := b.Write([]byte{32}); err == nil; _, err = b.Write([]byte{0}) {
				time.Sleep(time.Second)
			}
		}()
		begun := time.Now()
		_, err := Handshake(t.Context(), a, Config{HandshakeTimeout: 20 * time.Second})
		if passed := time.Since(begun); !errors.Is(err, cloudpal.Timeout) || passed != 20*time.Second {
			t.Errorf("after %v: %v", passed, err)
		}
		time.Sleep(2 * time.Second) // until the peer has noticed
	})
}

func TestCancelledHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer b.Close()
		why := errors.New("changed my mind")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(why) })
		if _, err := Handshake(ctx, a, Config{}); !errors.Is(err, why) {
			t.Errorf("got %v, want %v", err, why)
		}
	})
}

// TestNoHeader has a peer that shakes hands and then never begins.
func TestNoHeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pipes(1 << 20)
		_, responder := pair(t, &mute{ReadWriteCloser: a, after: 2*lengthSize + 32 + 64}, b, Config{}, Config{})
		begun := time.Now()
		_, err := responder.ReadMessage()
		if passed := time.Since(begun); !errors.Is(err, cloudpal.Timeout) || passed != DefaultHandshakeTimeout {
			t.Errorf("after %v: %v", passed, err)
		}
	})
}

// A mute drops what is written after so many bytes.
type mute struct {
	io.ReadWriteCloser
	after int
}

func (m *mute) Write(b []byte) (int, error) {
	says := b[:min(len(b), m.after)]
	m.after -= len(says)
	_, err := m.ReadWriteCloser.Write(says)
	return len(b), err
}

// TestKeepAlive has two quiet peers keep each other's connection.
func TestKeepAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pipes(1 << 10)
		initiator, responder := pair(t, a, b, Config{KeepAlive: time.Second, ReadTimeout: 7 * time.Second},
			Config{ReadTimeout: 3 * time.Second}) // the responder's keep-alive is 5 s
		got := make(chan string, 2)
		for _, c := range []*Conn{initiator, responder} {
			go func() {
				m, err := c.ReadMessage()
				got <- string(m)
				if err != nil {
					t.Error(err)
				}
				c.ReadMessage()
			}()
		}
		time.Sleep(time.Hour)
		initiator.WriteMessage([]byte("an hour later"))
		responder.WriteMessage([]byte("an hour later"))
		for range 2 {
			if m := <-got; m != "an hour later" {
				t.Errorf("got %q", m)
			}
		}
	})
}

func TestReadTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pipes(1 << 10)
		initiator, responder := pair(t, a, b, Config{KeepAlive: -1, ReadTimeout: time.Minute}, Config{KeepAlive: -1})
		go responder.ReadMessage()
		time.Sleep(time.Hour) // nobody listened, so nobody was silent
		begun := time.Now()
		_, err := initiator.ReadMessage()
		if passed := time.Since(begun); !errors.Is(err, cloudpal.Timeout) || passed != time.Minute {
			t.Errorf("after %v: %v", passed, err)
		}
	})
}

// TestWriteTimeout has a peer that stops reading.
func TestWriteTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := pipes(300)
		initiator, _ := pair(t, a, b, Config{}, Config{})
		time.Sleep(17 * time.Second) // keep-alives are not read either
		begun := time.Now()
		err := initiator.WriteMessage(make([]byte, 500))
		if passed := time.Since(begun); !errors.Is(err, cloudpal.Timeout) || passed != DefaultWriteTimeout {
			t.Errorf("after %v: %v", passed, err)
		}
	})
}

// TestMemoryOfStrangers has many connections that claim large frames.
func TestMemoryOfStrangers(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	const strangers = 1000
	var keep [strangers]frameReader
	for i := range keep {
		keep[i] = newFrameReader(io.MultiReader(bytes.NewReader([]byte{0xff, 0xff, 0xff, 1, 2, 3}), waiting{}))
		if _, err := keep[i].next(overhead, maxFrame); err != errCut {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if each := int64(after.HeapAlloc-before.HeapAlloc) / strangers; each > 2*smallRead {
		t.Errorf("a claim of 16 MiB costs %d bytes, want at most %d", each, 2*smallRead)
	}
	runtime.KeepAlive(&keep)
}

// waiting is where nothing comes from.
type waiting struct{}

func (waiting) Read([]byte) (int, error) { return 0, io.EOF }
