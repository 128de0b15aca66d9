package protomux

import (
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"
)

// FuzzReceive has a Mux receive any frames, each after a byte that is its
// length, while channels of ours are open, paired by hooks, and closed. Its
// tables must be in order whatever comes.
func FuzzReceive(f *testing.F) {
	for _, frames := range seeds(f) {
		var b []byte
		for _, frame := range frames {
			b = append(append(b, byte(len(frame))), frame...)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m := fuzzed()
		for len(b) > 0 {
			n := min(int(b[0]), len(b)-1)
			frame := b[1 : 1+n]
			b = b[1+n:]
			if len(frame) == 0 {
				continue
			}
			if err := m.receive(frame); err != nil {
				break
			}
			checkTables(t, m)
		}
		m.Destroy(nil)
		m.closeAll()
		for i, s := range m.local {
			if s.channel != nil {
				t.Errorf("channel %d is open after the end", i+1)
			}
		}
	})
}

// fuzzed returns a Mux that is as if it ran: foo is open, pair is opened by a
// hook, and later by one that decides two frames later; echo answers.
func fuzzed() *Mux {
	a, _ := wires(1 << 30)
	m := NewLimited(a, Limits{Queue: 1 << 30, Backlog: 1 << 30, Unpaired: 1 << 20, Channels: 50})
	m.running = true
	options := func(protocol string, id []byte) ChannelOptions {
		var c *Channel
		return ChannelOptions{Protocol: protocol, ID: append([]byte(nil), id...), Aliases: []string{"alias"},
			OnMessage: func(typ uint64, payload []byte) error {
				if c != nil && typ == 7 {
					return c.Close()
				}
				return nil
			}}
	}
	m.Open(options("foo", nil))
	c, _ := m.Open(options("bar", []byte{1}))
	c.Close()
	m.Pair("pair", func(id []byte) error {
		_, err := m.Open(options("pair", id))
		return err
	})
	var later func()
	m.PairLater("later", func(id []byte, done func()) error {
		if later != nil {
			later()
		}
		later = done
		if len(id) > 0 && id[0] == 1 {
			m.Open(options("later", id))
		}
		return nil
	})
	return m
}

// checkTables checks what must hold between frames.
func checkTables(t *testing.T, m *Mux) {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	kept := 0
	for i, r := range m.remote {
		if r == nil {
			continue
		}
		kept += r.size
		if r.id != uint64(i)+1 || r.channel != nil && (r.channel.closed || r.channel.remote != r.id) {
			t.Fatalf("remote %d is %+v", i+1, r)
		}
	}
	if kept != m.unpaired {
		t.Fatalf("%d bytes are kept, and %d counted", kept, m.unpaired)
	}
	free := map[uint64]bool{}
	for _, id := range m.free {
		if free[id] || m.local[id-1] != (slot{}) {
			t.Fatalf("id %d is free, and %+v", id, m.local[id-1])
		}
		free[id] = true
	}
	for i, s := range m.local {
		if !free[uint64(i)+1] && s == (slot{}) {
			t.Fatalf("id %d is lost", i+1)
		}
	}
	for n, in := range m.infos {
		if in.opened+in.pairing+len(in.incoming)+len(in.outgoing) == 0 {
			t.Fatalf("%v is kept for nothing", n)
		}
	}
}

// seeds are the frames that the original sent, and some of ours.
func seeds(f *testing.F) (seeds [][][]byte) {
	b, err := os.ReadFile("testdata/protomux.json")
	if err != nil {
		f.Fatal(err)
	}
	var v struct{ Cases []struct{ Frames []string } }
	if err := json.Unmarshal(b, &v); err != nil {
		f.Fatal(err)
	}
	all := [][]string{
		{"000101047061697200", "01000a", "000301", "000101047061697200"},
		{"00010105" + "6c61746572" + "0101", "01000a0b", "00010205" + "6c61746572" + "00", "02000a", "000302", "000301"},
		{"00010105616c69617300", "0107"},
		{"000102" + "03626172" + "0101", "000202", "000201"},
		{"000001" + "020061" + "0000" + "020301" + "0001" + "0107"},
		{"00000006010104706169720001020761"},
	}
	for _, c := range v.Cases {
		all = append(all, c.Frames)
	}
	for _, texts := range all {
		var frames [][]byte
		for _, text := range texts {
			frame, err := hex.DecodeString(text)
			if err != nil {
				f.Fatal(err)
			}
			frames = append(frames, frame)
		}
		seeds = append(seeds, frames)
	}
	return seeds
}
