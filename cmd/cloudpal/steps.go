package main

import (
	"fmt"
	"io"
	"time"

	"github.com/tradle/cloudpal/person"
)

// steps show on standard error what is being done, and how long each step
// took: on a terminal as it begins, elsewhere when it is done.
type steps struct {
	w    io.Writer
	live bool
	open bool // a line has no end yet
}

func (c *cli) steps() *steps {
	_, live := terminal(c.err)
	return &steps{w: c.err, live: live}
}

const stepWidth = 24 // columns of a step's name

func (s *steps) tell(p person.Step) {
	switch {
	case p.Done && s.live:
		fmt.Fprintf(s.w, "\r\x1b[K%-*s %s\n", stepWidth, plain(p.Name), formatTime(p.Took))
	case p.Done:
		fmt.Fprintf(s.w, "%-*s %s\n", stepWidth, plain(p.Name), formatTime(p.Took))
	case s.live:
		fmt.Fprintf(s.w, "\r\x1b[K%s ...", plain(p.Name))
	}
	s.open = s.live && !p.Done
}

// do is one step.
func (s *steps) do(name string, f func() error) error {
	begun := time.Now()
	s.tell(person.Step{Name: name})
	err := f()
	if err != nil {
		s.end()
		return err
	}
	s.tell(person.Step{Name: name, Done: true, Took: time.Since(begun)})
	return nil
}

// end leaves the line of a step that was not done.
func (s *steps) end() {
	if s.open {
		fmt.Fprintln(s.w)
		s.open = false
	}
}
