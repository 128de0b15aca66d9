package main

import (
	"bytes"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/compute/guest"
)

// shown returns what a terminal gets of pieces.
func shown(pieces ...string) string {
	var out bytes.Buffer
	s := &screen{w: &out, terminal: true}
	for _, p := range pieces {
		if n, err := s.Write([]byte(p)); n != len(p) || err != nil {
			panic(err)
		}
	}
	return out.String()
}

func TestTerminalGetsNoControlCharacters(t *testing.T) {
	for text, want := range map[string]string{
		"plain\ttext\n":        "plain\ttext\n",
		"a\r\nb\r\n":           "a\nb\n",
		"50%\r60%\n":           "50%?60%\n",
		"\x1b[31mred\x1b[0m\n": "?[31mred?[0m\n",
		"\x1b]0;title\x07\n":   "?]0;title?\n",
		"\u009b31m\n":          "?31m\n", // CSI as one character
		"\x9b31m\n":            "?31m\n", // or as one byte
		"del\x7f nul\x00\n":    "del? nul?\n",
		"käse 猫 \U0001F638\n":  "käse 猫 \U0001F638\n",
		"bad \xff\xfe utf-8\n": "bad ? utf-8\n",
	} {
		if got := shown(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

// A character in two pieces is still that character.
func TestPiecesEndAnywhere(t *testing.T) {
	const text = "käse 猫 \U0001F638\r\nend\n"
	for cut := range len(text) {
		if got, want := shown(text[:cut], text[cut:]), shown(text); got != want {
			t.Errorf("cut at %d: got %q, want %q", cut, got, want)
		}
	}
}

func TestOthersGetEveryByte(t *testing.T) {
	var out bytes.Buffer
	const text = "\x1b[31m\xff\x00\r\n\xe7"
	if _, err := screenOf(&out).Write([]byte(text)); err != nil || out.String() != text {
		t.Errorf("got %q, %v, want %q", out.String(), err, text)
	}
}

func FuzzScreen(f *testing.F) {
	f.Add("a\x1b[0m", "\x9b\r", "\n猫")
	f.Add("\xe7\x8c", "\xab", "\xf0\x9f\x98")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		got := shown(a, b, c)
		if !utf8.ValidString(got) || strings.ContainsFunc(got, func(r rune) bool {
			return unicode.IsControl(r) && r != '\n' && r != '\t'
		}) {
			t.Fatalf("%q %q %q: shown %q", a, b, c, got)
		}
	})
}

func TestLogsKeepStreamsApart(t *testing.T) {
	entries := []api.LogEntry{
		{Time: time.Unix(0, 0).UTC(), Stream: guest.Stdout, Data: []byte("one\n")},
		{Time: time.Unix(1, 0).UTC(), Stream: guest.Stderr, Data: []byte("two\n")},
	}
	for _, c := range []struct {
		name      string
		times     bool
		out, errs string
	}{
		{"plain", false, "one\n", "two\n"},
		{"times", true, "1970-01-01T00:00:00.000Z one\n", "1970-01-01T00:00:01.000Z two\n"},
	} {
		w, out, errs := newWorld("")
		show := (&cli{world: w}).logPrinter(c.times)
		for _, e := range entries {
			if err := show(e); err != nil {
				t.Fatal(err)
			}
		}
		if out.String() != c.out || errs.String() != c.errs {
			t.Errorf("%s: got %q and %q, want %q and %q", c.name, out, errs, c.out, c.errs)
		}
	}
}
