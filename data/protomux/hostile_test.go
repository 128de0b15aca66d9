package protomux

import (
	"encoding/hex"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/compact"
)

// TestBrokenProtocol has strangers break it: the connection ends, with a
// reason.
func TestBrokenProtocol(t *testing.T) {
	for name, frames := range map[string][]string{
		"a frame of one byte":             {"01"},
		"a number that is cut":            {"fd01"},
		"a number too large":              {"ffffffffffffffffff00"},
		"an id that is not the next":      {"000102017800"},
		"an id in use":                    {"000101017800", "000101017900"},
		"a rejection of nothing":          {"000201"},
		"a rejection of channel 0":        {"000200"},
		"a rejection of an open channel":  {"000101017800", "000201"},
		"a batch in a batch":              {"000000" + "05" + "0000" + "020061"},
		"an item longer than its batch":   {"000001" + "ff0000000000000100" + "00"},
		"an item with no type":            {"000001" + "01fd"},
		"a batch that switches to no one": {"000001" + "00"},
		"an open without a protocol":      {"000101"},
		"a protocol longer than its open": {"0001017861"},
		"a protocol of 2 KiB":             {"000101" + "fd0008" + strings.Repeat("61", 2048) + "00"},
		"an id of 2 KiB":                  {"0001010178" + "fd0008" + strings.Repeat("61", 2048)},
		"a handshake of 65 KiB":           {"000101017800" + strings.Repeat("00", 65<<10)},
	} {
		t.Run(name, func(t *testing.T) {
			m, s := meet(t, Limits{})
			d := make(diary, 1000)
			m.Pair("x", func([]byte) error {
				_, err := m.Open(d.options("x"))
				return err
			})
			s.says(frames...)
			err := m.ended()
			if !errors.Is(err, cloudpal.Invalid) || strings.HasSuffix(err.Error(), string(cloudpal.Invalid)) {
				t.Errorf("got %v, want what was not valid", err)
			}
		})
	}
}

// TestIgnored has a peer say things that mean nothing to us, now or ever.
func TestIgnored(t *testing.T) {
	m, s := meet(t, Limits{})
	d := make(diary, 1000)
	open(t, m.Mux, d.options("x"))
	s.says("", // no bytes
		"0100", "7f00", // messages of channels that are not open
		"000300", "000301", "00037f", // closing them
		"0004", "007f00", // control messages of another version
		"000001", "000001"+"0002"+"0003", // batches of nothing
		"000101017800", "0100"+"61")
	d.reads(t, "x opened ", "x 0 a")
	s.says("000301", "0100"+"62", "000301", "000101017800")
	d.reads(t, "x closed: "+ErrClosed.Error())
}

// TestZero: opening the control channel is rejected, as by the original.
func TestZero(t *testing.T) {
	_, s := meet(t, Limits{})
	s.says("000100017800")
	s.hears("000200")
}

// openFrame opens a channel of a protocol by a number.
func openFrame(id uint64, protocol, key string) string {
	b := compact.AppendUint([]byte{0, controlOpen}, id)
	return hex.EncodeToString(compact.AppendString(compact.AppendString(b, protocol), key))
}

// TestMillionsOfChannels are rejected one by one, or end the connection: both
// in bounded memory.
func TestMillionsOfChannels(t *testing.T) {
	t.Run("rejected", func(t *testing.T) {
		m, s := meet(t, Limits{})
		go func() {
			for i := range 200_000 {
				s.says(openFrame(uint64(i%1000)+1, "nobody's", fmt.Sprint(i)))
			}
		}()
		for i := range 200_000 {
			id := uint64(i%1000) + 1
			s.hears(hex.EncodeToString(compact.AppendUint([]byte{0, controlReject}, id)))
		}
		m.mu.Lock()
		defer m.mu.Unlock()
		if len(m.infos) != 0 || m.unpaired != 0 || len(m.remote) > 1000 {
			t.Errorf("kept %d names, %d bytes, %d ids", len(m.infos), m.unpaired, len(m.remote))
		}
	})
	t.Run("too many", func(t *testing.T) {
		m, s := meet(t, Limits{Channels: 1000})
		m.Pair("x", func(id []byte) error {
			_, err := m.Open(ChannelOptions{Protocol: "x", ID: append([]byte(nil), id...)})
			return err
		})
		for i := range 1001 {
			s.says(openFrame(uint64(i)+1, "x", fmt.Sprint(i)))
		}
		if err := m.ended(); err == nil || !strings.Contains(err.Error(), "too many channels") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("undecided", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m, s := meet(t, Limits{})
			asked := 0
			m.PairLater("x", func([]byte, func()) error { asked++; return nil })
			go func() {
				for i := range 1000 {
					s.says(openFrame(uint64(i)+1, "x", fmt.Sprint(i)))
				}
			}()
			synctest.Wait()
			if asked < 60 || asked > 70 {
				t.Errorf("%d hooks decide at a time, want 64, which is 32 KiB", asked)
			}
			m.Destroy(nil)
			m.ended()
			time.Sleep(time.Hour) // for the hooks' timers
		})
	})
}

// TestOurChannels are as many as the limit at a time.
func TestOurChannels(t *testing.T) {
	m, _ := meet(t, Limits{Channels: 3})
	for i := range 3 {
		open(t, m.Mux, ChannelOptions{Protocol: fmt.Sprint(i)})
	}
	if _, err := m.Open(ChannelOptions{Protocol: "one more"}); !errors.Is(err, cloudpal.Exhausted) {
		t.Errorf("got %v, want %v", err, cloudpal.Exhausted)
	}
}

// TestAsksAndDoesNotRead has a peer ask for answers that it does not read: no
// more are made than Limits.Backlog and one.
func TestAsksAndDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wa, wb := wires(1 << 10)
		m := run(t, New(wa))
		var c *Channel
		answers := 0
		c = open(t, m.Mux, ChannelOptions{Protocol: "x", OnMessage: func(uint64, []byte) error {
			answers++
			return c.Send(0, make([]byte, 64<<10))
		}})
		go func() {
			s := stranger{t, wb}
			s.says("000101017800")
			for wb.WriteMessage([]byte{1, 0}) == nil {
			}
		}()
		time.Sleep(time.Hour)
		if q := m.Queued(); q < 4<<20 || q > 4<<20+300<<10 {
			t.Errorf("%d bytes are queued, want about 4 MiB", q)
		}
		if answers > 70 {
			t.Errorf("%d answers of 64 KiB were made", answers)
		}
		m.Destroy(nil)
		m.ended()
	})
}

// TestBatchOfOpens has one batch ask for very many rejections, and not read
// them.
func TestBatchOfOpens(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wa, wb := wires(1 << 10)
		m := run(t, NewLimited(wa, Limits{Queue: 1 << 10, Backlog: 64 << 10}))
		batch := []byte{0, controlBatch, 0}
		for range 1_000_000 {
			batch = append(batch, 5, controlOpen, 1, 1, 'x', 0)
		}
		go wb.WriteMessage(batch)
		time.Sleep(time.Hour)
		if q := m.Queued(); q > 256<<10 {
			t.Errorf("%d bytes are queued", q)
		}
		m.Destroy(nil)
		m.ended()
	})
}

// TestEmptyBatches cost nothing but their reading.
func TestEmptyBatches(t *testing.T) {
	m, s := meet(t, Limits{})
	d := make(diary, 1000)
	open(t, m.Mux, d.options("x"))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	long := "000001" + strings.Repeat("0001", 1<<20)
	for range 4 {
		s.says(long)
	}
	s.says("000101017800")
	d.reads(t, "x opened ")
	runtime.ReadMemStats(&after)
	if n := after.Mallocs - before.Mallocs; n > 1000 {
		t.Errorf("%d allocations", n)
	}
	if m.Queued() != 0 {
		t.Errorf("answered with %d bytes", m.Queued())
	}
}

// TestOpenAndClose has a peer open and close without end, before it is answered
// and after: nothing grows.
func TestOpenAndClose(t *testing.T) {
	m, s := meet(t, Limits{})
	m.Pair("x", func(id []byte) error {
		_, err := m.Open(ChannelOptions{Protocol: "x"})
		return err
	})
	go func() {
		for {
			if _, err := s.ReadMessage(); err != nil {
				return
			}
		}
	}()
	for range 50_000 {
		s.says("000101017800", "0100", "000301")
	}
	s.out.set(&s.out.ended)
	if err := m.ended(); err != nil {
		t.Fatal(err)
	}
	if len(m.local) > 1 || len(m.remote) > 1 || len(m.infos) > 0 {
		t.Errorf("kept %d of ours, %d of the peer's, %d names", len(m.local), len(m.remote), len(m.infos))
	}
}
