package protomux

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tradle/cloudpal"
)

// talk returns two Muxes that talk to each other.
func talk(t testing.TB, limits Limits) (a, b *peer) {
	wa, wb := wires(1 << 20)
	return run(t, NewLimited(wa, limits)), run(t, NewLimited(wb, limits))
}

func TestChannel(t *testing.T) {
	a, b := talk(t, Limits{})
	da, db := make(diary, 1000), make(diary, 1000)
	oa, ob := da.options("chat", 7), db.options("chat", 7)
	oa.Handshake, ob.Handshake = []byte("from a"), []byte("from b")
	ca := open(t, a.Mux, oa)
	send(t, ca, 0, "early") // before the peer has opened its side
	cb := open(t, b.Mux, ob)
	da.reads(t, "chat opened from b")
	db.reads(t, "chat opened from a", "chat 0 early")
	send(t, cb, 300, "hello")
	da.reads(t, "chat 300 hello")
	if err := ca.Send(1, []byte("in "), []byte("parts"), nil, []byte("!")); err != nil {
		t.Fatal(err)
	}
	db.reads(t, "chat 1 in parts!")
	ca.Close()
	da.reads(t, "chat closed: <nil>")
	db.reads(t, "chat closed: "+ErrClosed.Error())
	if err := ca.Send(0); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Send after Close: got %v, want %v", err, net.ErrClosed)
	}
	if err := cb.Send(0); err != ErrClosed {
		t.Errorf("Send to who has closed: got %v, want %v", err, ErrClosed)
	}
	again := open(t, a.Mux, oa)
	if again.id != 1 {
		t.Errorf("the next channel has id %d, want 1 again", again.id)
	}
}

func TestEnd(t *testing.T) {
	a, b := talk(t, Limits{})
	da, db := make(diary, 1000), make(diary, 1000)
	ca := open(t, a.Mux, da.options("x"))
	open(t, b.Mux, db.options("x"))
	da.reads(t, "x opened ")
	for range 100 {
		send(t, ca, 0, "said")
	}
	a.Close()
	if err := a.ended(); err != nil {
		t.Errorf("who closed: %v", err)
	}
	if err := b.ended(); err != nil {
		t.Errorf("who was left: %v", err)
	}
	da.reads(t, "x closed: "+ErrEnded.Error())
	db.reads(t, "x opened ")
	for range 100 {
		db.reads(t, "x 0 said")
	}
	db.reads(t, "x closed: "+ErrEnded.Error())
	if _, err := a.Open(ChannelOptions{Protocol: "y"}); !errors.Is(err, ErrEnded) {
		t.Errorf("Open after the end: got %v, want %v", err, ErrEnded)
	}
	if err := a.Run(context.Background()); !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("a second Run: got %v", err)
	}
}

// TestCloseInAnAnswer closes in a handler, between the answers to a batch: what
// was said before is said.
func TestCloseInAnAnswer(t *testing.T) {
	m, s := meet(t, Limits{})
	var c *Channel
	c = open(t, m.Mux, ChannelOptions{Protocol: "x", OnMessage: func(_ uint64, text []byte) error {
		if string(text) == "b" {
			m.Close()
		}
		return c.Send(0, text)
	}})
	s.says("000101017800", "000001"+"020061"+"020062"+"020063")
	s.hears("000101017800", "000001"+"020061")
	if b, err := s.ReadMessage(); err != io.EOF {
		t.Errorf("got %x, %v, want the end", b, err)
	}
	s.Close()
	if err := m.ended(); err != nil {
		t.Errorf("got %v", err)
	}
	if err := c.Send(0); err != ErrEnded {
		t.Errorf("after the end: got %v, want %v", err, ErrEnded)
	}
}

// TestHandlerError has every channel hear why the connection ended.
func TestHandlerError(t *testing.T) {
	a, b := talk(t, Limits{})
	da, db := make(diary, 1000), make(diary, 1000)
	ca := open(t, a.Mux, da.options("bad"))
	open(t, a.Mux, da.options("other"))
	o := db.options("bad")
	wrong := errors.New("a proof that does not hold")
	o.OnMessage = func(uint64, []byte) error { return wrong }
	open(t, b.Mux, o)
	open(t, b.Mux, db.options("other"))
	da.reads(t, "bad opened ", "other opened ")
	db.reads(t, "bad opened ", "other opened ")
	send(t, ca, 0, "")
	if err := b.ended(); err != wrong {
		t.Errorf("got %v, want %v", err, wrong)
	}
	db.reads(t, "bad closed: "+wrong.Error(), "other closed: "+wrong.Error())
	a.ended()
}

func TestContext(t *testing.T) {
	wa, _ := wires(1 << 20)
	m := New(wa)
	ctx, cancel := context.WithCancelCause(t.Context())
	done := make(chan error)
	go func() { done <- m.Run(ctx) }()
	why := errors.New("enough")
	cancel(why)
	if err := <-done; err != why {
		t.Errorf("got %v, want %v", err, why)
	}
}

func TestPair(t *testing.T) {
	a, b := talk(t, Limits{})
	da, db := make(diary, 1000), make(diary, 1000)
	b.Pair("core", func(id []byte) error {
		switch id[0] {
		case 1:
			_, err := b.Open(db.options("core", id...))
			return err
		case 2:
			return nil
		}
		return errors.New("who is that?")
	})
	b.PairID("core", []byte{9}, func(id []byte) error {
		_, err := b.Open(db.options("core", 9))
		db <- "special"
		return err
	})
	one := open(t, a.Mux, da.options("core", 1))
	send(t, one, 0, "first")
	db.reads(t, "core opened ", "core 0 first")
	da.reads(t, "core opened ")
	open(t, a.Mux, da.options("core", 2))
	da.reads(t, "core closed: "+ErrRejected.Error())
	open(t, a.Mux, da.options("core", 9))
	db.reads(t, "special", "core opened ")
	da.reads(t, "core opened ")
	b.Unpair("core", []byte{9})
	open(t, a.Mux, da.options("core", 3))
	if err := b.ended(); err == nil || err.Error() != "who is that?" {
		t.Errorf("got %v", err)
	}
}

// TestOpenTwice offers a channel that is open: it is rejected, and the first
// stays.
func TestOpenTwice(t *testing.T) {
	m, s := meet(t, Limits{})
	d := make(diary, 1000)
	m.Pair("x", func([]byte) error {
		_, err := m.Open(d.options("x"))
		return err
	})
	s.says("000101017800", "000102017800", "0100"+"61", "0200"+"62")
	s.hears("000101017800", "000202")
	d.reads(t, "x opened ", "x 0 a")
	if _, err := m.Open(d.options("x")); !errors.Is(err, cloudpal.Exist) {
		t.Errorf("got %v, want %v", err, cloudpal.Exist)
	}
	o := d.options("x")
	o.Shared = true
	if open(t, m.Mux, o); !m.Opened("x", nil) {
		t.Error("it is not open")
	}
}

// TestAlias pairs a channel that the peer opens under an older name.
func TestAlias(t *testing.T) {
	for _, first := range []string{"ours", "theirs"} {
		t.Run(first+" first", func(t *testing.T) {
			m, s := meet(t, Limits{})
			d := make(diary, 1000)
			o := d.options("new")
			o.Aliases = []string{"old"}
			m.Pair("old", func([]byte) error {
				_, err := m.Open(o)
				return err
			})
			if first == "ours" {
				open(t, m.Mux, o)
				s.hears("000101036e657700")
			}
			s.says("000101036f6c6400")
			if first == "theirs" {
				s.hears("000101036e657700")
			}
			d.reads(t, "new opened ")
			s.says("000301")
			d.reads(t, "new closed: "+ErrClosed.Error())
			m.mu.Lock()
			defer m.mu.Unlock()
			if len(m.infos) > 0 {
				t.Errorf("left over: %v", m.infos)
			}
		})
	}
}

// TestPairLater keeps what comes for a channel until it is decided on, and
// reads on meanwhile.
func TestPairLater(t *testing.T) {
	a, b := talk(t, Limits{})
	da, db := make(diary, 1000), make(diary, 1000)
	asked := make(chan func())
	b.PairLater("slow", func(id []byte, done func()) error {
		go func() { asked <- done }()
		return nil
	})
	open(t, b.Mux, db.options("quick"))
	quick := open(t, a.Mux, da.options("quick"))
	db.reads(t, "quick opened ")
	da.reads(t, "quick opened ")
	slow := open(t, a.Mux, da.options("slow"))
	send(t, slow, 0, "one")
	send(t, slow, 1, "two")
	send(t, quick, 0, "passes")
	db.reads(t, "quick 0 passes")
	done := <-asked
	open(t, b.Mux, db.options("slow"))
	done()
	done() // once more is nothing
	db.reads(t, "slow opened ", "slow 0 one", "slow 1 two")
	da.reads(t, "slow opened ")
	send(t, slow, 2, "three")
	db.reads(t, "slow 2 three")
}

// TestPairLaterPauses has reading pause while too much is kept, and go on when
// nobody decides.
func TestPairLaterPauses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := talk(t, Limits{})
		da, db := make(diary, 1000), make(diary, 1000)
		b.PairLater("slow", func([]byte, func()) error { return nil })
		open(t, b.Mux, db.options("quick"))
		quick := open(t, a.Mux, da.options("quick"))
		slow := open(t, a.Mux, da.options("slow"))
		begun := time.Now()
		for range 40 {
			send(t, slow, 0, strings.Repeat("x", 1<<10))
		}
		send(t, quick, 0, "waits")
		synctest.Wait()
		b.mu.Lock()
		if b.unpaired < 32<<10 || b.unpaired > 34<<10 {
			t.Errorf("%d bytes are kept, want little over 32 KiB", b.unpaired)
		}
		b.mu.Unlock()
		db.reads(t, "quick opened ", "quick 0 waits")
		if passed := time.Since(begun); passed != 30*time.Second {
			t.Errorf("reading went on after %v, want 30 s", passed)
		}
		da.reads(t, "quick opened ", "slow closed: "+ErrRejected.Error())
	})
}

// TestCloseEarly closes a channel before the peer has opened it, and again
// after the peer was asked to decide: the ids come back on both sides.
func TestCloseEarly(t *testing.T) {
	m, s := meet(t, Limits{})
	d := make(diary, 1000)
	open(t, m.Mux, d.options("x")).Close()
	d.reads(t, "x closed: <nil>")
	second := open(t, m.Mux, d.options("y"))
	if second.id != 2 {
		t.Errorf("id 1 was used again before the peer had answered")
	}
	s.hears("000101017800", "000301", "000102017900")
	s.says("000101017800") // crossed ours; is ignored
	s.says("000102017900")
	d.reads(t, "y opened ")
	if third := open(t, m.Mux, d.options("z")); third.id != 1 {
		t.Errorf("got id %d, want 1 again", third.id)
	}
	s.hears("000101017a00")
	asked := make(chan func(), 1)
	m.PairLater("w", func(_ []byte, done func()) error { asked <- done; return nil })
	s.says("000103017700", "000303")
	s.hears("000203")
	(<-asked)()
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.unpaired != 0 || m.remote[2] != nil {
		t.Error("something was kept of a channel that is gone")
	}
}

// TestBatchOfAnswers has the answers to a batch leave as one.
func TestBatchOfAnswers(t *testing.T) {
	m, s := meet(t, Limits{})
	var c *Channel
	o := ChannelOptions{Protocol: "x"}
	o.OnMessage = func(typ uint64, payload []byte) error { return c.Send(typ, payload, payload) }
	c = open(t, m.Mux, o)
	s.says("000101017800")
	s.hears("000101017800")
	s.says("000001" + "020561" + "020662") // types 5 and 6
	s.hears("000001" + "03056161" + "03066262")
	s.says("000001" + "020561") // of one item: no batch
	s.hears("01056161")
	s.says("000001" + "03057878" + "0000" + "020301" + "0001" + "020679")
	s.hears("000001" + "050578787878") // for the second, the channel is closed
}

// TestOnBatch has a channel told when a frame's messages were all handled.
func TestOnBatch(t *testing.T) {
	m, s := meet(t, Limits{})
	d := make(diary, 1000)
	for _, p := range []string{"x", "y"} {
		o := d.options(p)
		o.OnBatch = func() error { d <- p + " batch"; return nil }
		open(t, m.Mux, o)
	}
	s.says("000101017800", "000102017900")
	d.reads(t, "x opened ", "y opened ")
	s.says("010061")
	d.reads(t, "x 0 a", "x batch")
	s.says("000001" + "020062" + "0002" + "020063" + "0001" + "020064" + "0000" + "020301")
	d.reads(t, "x 0 b", "y 0 c", "x 0 d", "x batch", "y batch", "x closed: "+ErrClosed.Error())
	o := d.options("z")
	o.OnBatch = func() error { d <- "z batch"; return nil }
	m.Pair("z", func([]byte) error { _, err := m.Open(o); return err })
	s.says("000000" + "06010301" + "7a00" + "ff" + "0003" + "020065" + "0000")
	d.reads(t, "z opened \xff", "z 0 e", "z batch")
}

// TestBatch sends messages of one channel as a frame of their own.
func TestBatch(t *testing.T) {
	m, s := meet(t, Limits{})
	c := open(t, m.Mux, ChannelOptions{Protocol: "x"})
	s.hears("000101017800")
	b := c.Batch()
	for range 2 { // the same again
		m.Cork()
		send(t, c, 9, "before")
		b.Add(0, []byte("a"), []byte("b"))
		b.Add(1)
		if b.Len() != 6 {
			t.Errorf("got %d bytes, want 6", b.Len())
		}
		if err := b.Send(); err != nil {
			t.Fatal(err)
		}
		m.Uncork()
		s.hears("0000010709"+hex.EncodeToString([]byte("before")), "000001"+"03006162"+"0101")
	}
	if err := b.Send(); err != nil {
		t.Errorf("an empty batch: %v", err)
	}
	b.Add(0, make([]byte, maxMessage))
	if err := b.Send(); !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("got %v, want %v", err, cloudpal.Invalid)
	}
	c.Close()
	b.Add(0)
	if err := b.Send(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("got %v, want %v", err, net.ErrClosed)
	}
}

// TestSwitch sends a batch of two channels, as in the original's vectors.
func TestSwitch(t *testing.T) {
	m, s := meet(t, Limits{})
	d := make(diary, 1000)
	open(t, m.Mux, d.options("foo"))
	open(t, m.Mux, d.options("bar"))
	s.says(vectors(t)["corked"]...)
	d.reads(t, "foo opened ", "foo 0 \x01x", "foo 0 \x01y", "bar opened ", "bar 0 \x01z", "foo 0 \x01w")
}

// TestLargeBatch is sent in parts of 8 MiB, and what fits in no batch alone.
func TestLargeBatch(t *testing.T) {
	m, s := meet(t, Limits{Queue: 64 << 20, Backlog: 64 << 20})
	c := open(t, m.Mux, ChannelOptions{Protocol: "x"})
	s.hears("000101017800")
	m.Cork()
	part := make([]byte, 3<<20)
	for range 4 {
		if err := c.Send(0, part); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Send(0, make([]byte, maxMessage-batchRoom-1)); err != nil {
		t.Fatal(err)
	}
	if err := c.Send(0, make([]byte, maxMessage-batchRoom)); !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("a message that no frame holds: got %v", err)
	}
	m.Uncork()
	item := 5 + 1 + 3<<20
	for _, want := range []int{3 + 3*item, 3 + item, 2 + maxMessage - batchRoom - 1} {
		b, err := s.ReadMessage()
		if err != nil || len(b) != want {
			t.Fatalf("got %d bytes, %v, want %d", len(b), err, want)
		}
	}
}

// TestWaits has Send wait for a peer that does not read, and Queued tell.
func TestWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wa, wb := wires(1)
		m := run(t, NewLimited(wa, Limits{Queue: 1 << 10}))
		c := open(t, m.Mux, ChannelOptions{Protocol: "x"})
		var sent atomic.Int64
		go func() {
			for c.Send(0, make([]byte, 100)) == nil {
				sent.Add(1)
			}
		}()
		time.Sleep(time.Hour)
		before := sent.Load()
		if before < 8 || before > 30 {
			t.Errorf("%d messages were taken, want about 1 KiB", before)
		}
		if q := m.Queued(); q < 1<<10 || q > 1200 {
			t.Errorf("%d bytes are queued, want little over 1 KiB", q)
		}
		for range 100 {
			if _, err := wb.ReadMessage(); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if sent.Load() <= before {
			t.Error("nothing was sent when the peer read again")
		}
		m.Destroy(nil) // ends the goroutine, too
		synctest.Wait()
	})
}

// TestBothAnswer has both sides ask much more than the network and the queues
// hold, each with handlers that answer, and senders that hold a lock which
// the handlers want.
func TestBothAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const asks, size = 300, 1 << 10
		wa, wb := wires(4 << 10)
		limits := Limits{Queue: 8 << 10}
		muxes := []*Mux{NewLimited(wa, limits), NewLimited(wb, limits)}
		var all sync.WaitGroup
		for _, m := range muxes { // both open before either runs, who would reject the other's
			all.Add(asks)
			lock := make(chan bool, 1) // a mutex would not let time pass
			ready := make(chan bool)
			var c *Channel
			c = open(t, m, ChannelOptions{Protocol: "x",
				OnOpen: func([]byte) error { close(ready); return nil },
				OnMessage: func(typ uint64, payload []byte) error {
					lock <- true
					defer func() { <-lock }()
					if typ == 1 {
						all.Done()
						return nil
					}
					return c.Send(1, payload)
				}})
			go func() {
				<-ready
				for range asks {
					lock <- true
					c.Send(0, make([]byte, size))
					<-lock
				}
			}()
		}
		sides := []*peer{run(t, muxes[0]), run(t, muxes[1])}
		all.Wait()
		for _, side := range sides {
			side.Destroy(nil)
			side.ended()
		}
	})
}

// TestManyMuxUsers has many goroutines send, cork, open and close at a time.
func TestManyUsers(t *testing.T) {
	a, b := talk(t, Limits{})
	var got atomic.Int64
	b.Pair("x", func(id []byte) error {
		_, err := b.Open(ChannelOptions{Protocol: "x", ID: bytes.Clone(id),
			OnMessage: func(uint64, []byte) error { got.Add(1); return nil }})
		return err
	})
	var users sync.WaitGroup
	for u := range 8 {
		users.Go(func() {
			for i := range 50 {
				closed := make(chan error, 1)
				c, err := a.Open(ChannelOptions{Protocol: "x", ID: fmt.Append(nil, u, i),
					OnOpen: func([]byte) error { closed <- nil; return nil }})
				if err != nil {
					t.Error(err)
					return
				}
				a.Cork()
				for range 10 {
					c.Send(0, []byte("hello"))
				}
				a.Uncork()
				<-closed
				c.Close()
			}
		})
	}
	users.Wait()
	a.Close()
	a.ended()
	b.ended()
	if got.Load() != 8*50*10 {
		t.Errorf("%d messages arrived, want %d", got.Load(), 8*50*10)
	}
	if len(a.local) > 8*2 {
		t.Errorf("%d ids were used by 8 users", len(a.local))
	}
}
