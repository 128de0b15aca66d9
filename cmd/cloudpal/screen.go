package main

import (
	"bytes"
	"io"
	"unicode/utf8"
)

// A screen takes what a guest says. A terminal gets no control characters of
// it: they could make it show, or send, what its owner never typed. What is no
// terminal gets every byte.
type screen struct {
	w        io.Writer
	terminal bool
	rest     []byte // the beginning of a character whose end is yet to come
}

func screenOf(w io.Writer) *screen {
	_, ok := terminal(w)
	return &screen{w: w, terminal: ok}
}

// Write shows data, which may end within a character: the next call has its
// other half.
func (s *screen) Write(data []byte) (int, error) {
	if !s.terminal {
		return s.w.Write(data)
	}
	all := append(s.rest, data...)
	whole := wholeCharacters(all)
	s.rest = bytes.Clone(all[whole:])
	text := bytes.ReplaceAll(all[:whole], []byte("\r\n"), []byte("\n"))
	if _, err := io.WriteString(s.w, plain(string(text))); err != nil {
		return 0, err
	}
	return len(data), nil
}

// wholeCharacters returns how many bytes of b are not the beginning of a
// character, or of a line end, that goes on.
func wholeCharacters(b []byte) int {
	if n := len(b); n > 0 && b[n-1] == '\r' {
		return n - 1
	}
	for i := 1; i <= min(len(b), utf8.UTFMax-1); i++ {
		at := len(b) - i
		if utf8.RuneStart(b[at]) {
			if utf8.FullRune(b[at:]) {
				break
			}
			return at
		}
	}
	return len(b)
}
