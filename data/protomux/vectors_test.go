package protomux

import (
	"bytes"
	"encoding/json"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// vectors are frames that the original has sent, by what it was asked to do.
func vectors(t *testing.T) map[string][]string {
	t.Helper()
	b, err := os.ReadFile("testdata/protomux.json")
	if err != nil {
		t.Fatal(err)
	}
	var v struct {
		Cases []struct {
			Name   string
			Frames []string
		}
	}
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	frames := map[string][]string{}
	for _, c := range v.Cases {
		name, _, _ := strings.Cut(c.Name, ":")
		frames[name] = c.Frames
	}
	return frames
}

// TestVectors does what the original was asked to do, and compares the frames.
func TestVectors(t *testing.T) {
	do := map[string]func(t *testing.T, m *Mux){
		`open channel 1, protocol "foo", id null, no handshake`: func(t *testing.T, m *Mux) {
			open(t, m, ChannelOptions{Protocol: "foo"})
		},
		`open channel 1, protocol "foo", id 0xaa*32, handshake string "hi"`: func(t *testing.T, m *Mux) {
			open(t, m, ChannelOptions{Protocol: "foo", ID: bytes.Repeat([]byte{0xaa}, 32), Handshake: []byte("\x02hi")})
		},
		`two channels, second gets id 2`: func(t *testing.T, m *Mux) {
			open(t, m, ChannelOptions{Protocol: "foo"})
			open(t, m, ChannelOptions{Protocol: "bar"})
		},
		`open, send message type 0 (string "a"), type 1 (uint 300), close`: func(t *testing.T, m *Mux) {
			c := open(t, m, ChannelOptions{Protocol: "foo"})
			send(t, c, 0, "\x01a")
			send(t, c, 1, "\xfd\x2c\x01")
			c.Close()
		},
		`corked`: func(t *testing.T, m *Mux) {
			m.Cork()
			m.Cork()
			foo := open(t, m, ChannelOptions{Protocol: "foo"})
			send(t, foo, 0, "\x01x")
			send(t, foo, 0, "\x01y")
			m.Uncork()
			bar := open(t, m, ChannelOptions{Protocol: "bar"})
			send(t, bar, 0, "\x01z")
			send(t, foo, 0, "\x01w")
			m.Uncork()
		},
		`corked with a single message (still a batch frame)`: func(t *testing.T, m *Mux) {
			c := open(t, m, ChannelOptions{Protocol: "foo"})
			m.Cork()
			send(t, c, 0, "\x01x")
			m.Uncork()
		},
	}
	for name, frames := range vectors(t) {
		if do[name] == nil {
			continue // TestReject has the one with an answer
		}
		t.Run(name, func(t *testing.T) {
			m, s := meet(t, Limits{})
			do[name](t, m.Mux)
			s.hears(frames...)
			m.Close()
			if b, err := s.ReadMessage(); err != io.EOF {
				t.Fatalf("after that: got %x, %v, want the end", b, err)
			}
			delete(do, name)
		})
	}
	if len(do) > 0 {
		t.Errorf("no vectors for %v", slices.Collect(maps.Keys(do)))
	}
}

func open(t testing.TB, m *Mux, o ChannelOptions) *Channel {
	t.Helper()
	c, err := m.Open(o)
	return must(t, c, err)
}

// TestReject is offered a channel that nobody has.
func TestReject(t *testing.T) {
	_, s := meet(t, Limits{})
	s.says("00010103666f6f00")
	s.hears(vectors(t)["remote opens id 1 protocol \"foo\" nobody handles"]...)
}
