package cloudpal

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"
)

func TestErrorTellsTheStoryFromTheOutsideIn(t *testing.T) {
	cause := errors.New("disk on fire")
	for _, c := range []struct {
		err  error
		want string
	}{
		{E("stop notes", Busy, nil), "stop notes: busy"},
		{E("stop notes", Busy, cause), "stop notes: busy: disk on fire"},
		{E("stop notes", "", cause), "stop notes: disk on fire"},
		{E("stop notes", Other, nil), "stop notes: internal error"},
		{E("", Busy, nil), "busy"},
		{E("", "", cause), "disk on fire"},
		{E("stop notes", "", E("kill", Busy, cause)), "stop notes: kill: busy: disk on fire"},
		{E("stop notes", Busy, E("kill", Busy, nil)), "stop notes: kill: busy"},
		{E("stop notes", Busy, Busy), "stop notes: busy"},
		{E("stop notes", Busy, cause).WithHint("wait"), "stop notes: busy: disk on fire"},
		{E("stop notes", Timeout, E("kill", Busy, nil)), "stop notes: took too long: kill: busy"},
	} {
		if got := c.err.Error(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

func TestACauseLendsItsKindAndHint(t *testing.T) {
	inner := fmt.Errorf("in between: %w", E("open", NoSpace, fs.ErrNotExist).WithHint("buy a disk"))
	outer := E("pull", "", inner)
	if KindOf(outer) != NoSpace || HintOf(outer) != "buy a disk" {
		t.Errorf("got %v, %q", KindOf(outer), HintOf(outer))
	}
	own := E("pull", Busy, inner).WithHint("wait")
	if KindOf(own) != Busy || HintOf(own) != "wait" {
		t.Errorf("its own: got %v, %q", KindOf(own), HintOf(own))
	}
	if HintOf(inner) != "buy a disk" {
		t.Errorf("the cause's hint became %q", HintOf(inner))
	}
}

func TestIsAsksForKindsAndCauses(t *testing.T) {
	err := fmt.Errorf("around: %w", E("pull", Busy, E("open", NoSpace, fs.ErrNotExist)))
	for _, target := range []error{Busy, NoSpace, fs.ErrNotExist} {
		if !errors.Is(err, target) {
			t.Errorf("got false for %v", target)
		}
	}
	for _, target := range []error{Exist, Other, fs.ErrExist} {
		if errors.Is(err, target) {
			t.Errorf("got true for %v", target)
		}
	}
	if !errors.Is(error(Busy), Busy) {
		t.Error("a kind is not itself")
	}
}

func TestKindAndHintOfOtherErrors(t *testing.T) {
	for _, err := range []error{nil, errors.New("x"), errors.Join()} {
		if KindOf(err) != Other || HintOf(err) != "" {
			t.Errorf("%v: got %v, %q", err, KindOf(err), HintOf(err))
		}
	}
	joined := errors.Join(errors.New("x"), E("stop", Busy, nil).WithHint("wait"))
	if KindOf(joined) != Busy || HintOf(joined) != "wait" {
		t.Errorf("joined: got %v, %q", KindOf(joined), HintOf(joined))
	}
}

// TestAKindAloneIsAKind: a Kind is an error, so one that is returned as it is
// must sort like one in an Error.
func TestAKindAloneIsAKind(t *testing.T) {
	if got := KindOf(fmt.Errorf("x: %w", Busy)); got != Busy {
		t.Errorf("got %v, want %v", got, Busy)
	}
	if got := KindOf(E("stop", "", Busy)); got != Busy {
		t.Errorf("in an error: got %v, want %v", got, Busy)
	}
}
