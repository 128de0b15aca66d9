package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/compute/guest"
)

// A frame is what a guest sends.
type frame struct {
	kind guest.FrameKind
	data string
}

func stream(t *testing.T, frames ...frame) io.Reader {
	t.Helper()
	var b bytes.Buffer
	for _, f := range frames {
		if err := guest.WriteFrame(&b, f.kind, []byte(f.data)); err != nil {
			t.Fatal(err)
		}
	}
	return &b
}

func TestExecKeepsStreamsApart(t *testing.T) {
	w, out, errs := newWorld("")
	in := stream(t, frame{'o', "one\n"}, frame{'e', "two\n"}, frame{'o', "three\x1b"}, frame{'x', `{"code":7}`}, frame{'o', "late"})
	exit, err := (&cli{world: w}).passOutput(in, guest.ExecRequest{})
	if err != nil || exit.Code != 7 || out.String() != "one\nthree\x1b" || errs.String() != "two\n" {
		t.Errorf("got %+v, %v, output %q and %q", exit, err, out, errs)
	}
}

// A guest may send anything. None of it is an exit status, or a panic.
func TestExecRefusesNonsense(t *testing.T) {
	for name, c := range map[string]struct {
		in   io.Reader
		want string
	}{
		"nothing at all":       {stream(t), "went away"},
		"output and no end":    {stream(t, frame{'o', "x"}), "went away"},
		"a frame cut short":    {strings.NewReader("o\x00\x00\x00\x05ab"), "unexpected EOF"},
		"a frame without end":  {strings.NewReader("o\xff\xff\xff\xff"), "at most"},
		"a kind there is not":  {stream(t, frame{'?', "x"}), "there is not"},
		"what only hosts send": {stream(t, frame{'i', "x"}), "there is not"},
		"an exit that is none": {stream(t, frame{'x', "7"}), "cannot unmarshal"},
	} {
		w, _, _ := newWorld("")
		exit, err := (&cli{world: w}).passOutput(c.in, guest.ExecRequest{})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %+v, %v, want an error with %q", name, exit, err, c.want)
		}
	}
}

func TestInputIsPassedOnToItsEnd(t *testing.T) {
	want := strings.Repeat("any byte \x00\xff", guest.MaxFrame/4)
	var sent bytes.Buffer
	passInput(&sent, strings.NewReader(want))
	var got strings.Builder
	buf := make([]byte, guest.MaxFrame)
	for {
		kind, data, err := guest.ReadFrame(&sent, buf)
		if err != nil {
			t.Fatal(err)
		}
		if kind == guest.FrameStdinEOF {
			break
		}
		got.Write(data)
	}
	if got.String() != want || sent.Len() > 0 {
		t.Errorf("got %d bytes, want %d; %d behind the end", got.Len(), len(want), sent.Len())
	}
}

func TestExecSaysWhyItDidNotStart(t *testing.T) {
	w, out, errs := newWorld("")
	err := (&cli{world: w}).execEnded("web", guest.Exit{Code: 127, Error: "no \x1b[31msuch"})
	if got := errs.String(); got != "cloudpal: vm web: no ?[31msuch\n" || out.Len() > 0 || !errors.Is(err, status(127)) {
		t.Errorf("got %v and %q", err, got)
	}
}

func TestExitStatus(t *testing.T) {
	for code, want := range map[int]error{0: nil, 1: status(1), 137: status(137), 255: status(255)} {
		if got := statusOf(code); got != want {
			t.Errorf("%d: got %v, want %v", code, got, want)
		}
	}
	// The kernel would make 256 a success.
	for _, code := range []int{256, -1, 1 << 40} {
		var s status
		if err := statusOf(code); err == nil || errors.As(err, &s) {
			t.Errorf("%d: got %v, want an error of our own", code, err)
		}
	}
}

// Why a process ended is said only where it could not say it itself.
func TestExitIsExplained(t *testing.T) {
	for _, c := range []struct {
		exit api.Exit
		want string
	}{
		{api.Exit{Code: 0, Reason: "exit status 0"}, ""},
		{api.Exit{Code: 7, Reason: "exit status 7"}, ""},
		{api.Exit{Code: 139, Reason: "ended by SIGSEGV"}, "cloudpal: vm web: ended by SIGSEGV\n"},
		{api.Exit{Code: 1, OOM: true, Reason: "out of memory"}, "cloudpal: vm web: out of memory\n"},
		{api.Exit{Code: 125, Reason: "lost", Console: "Kernel\x1b[0m panic"}, "cloudpal: vm web: lost\nKernel?[0m panic\n"},
	} {
		w, _, errs := newWorld("")
		(&cli{world: w}).exit("web", c.exit)
		if got := errs.String(); got != c.want {
			t.Errorf("%+v: said %q, want %q", c.exit, got, c.want)
		}
	}
}

func TestExecJSON(t *testing.T) {
	w, out, _ := newWorld("")
	c := &cli{world: w, json: true}
	exit, err := c.passOutput(stream(t, frame{'e', "two\n"}, frame{'x', `{"code":7}`}), guest.ExecRequest{})
	if err != nil {
		t.Fatal(err)
	}
	c.execEnded("web", exit)
	d := json.NewDecoder(out)
	var piece api.LogEntry
	if err := d.Decode(&piece); err != nil || string(piece.Data) != "two\n" || piece.Stream != guest.Stderr {
		t.Errorf("got %+v, %v", piece, err)
	}
	var last guest.Exit
	if err := d.Decode(&last); err != nil || last.Code != 7 {
		t.Errorf("got %+v, %v", last, err)
	}
}
