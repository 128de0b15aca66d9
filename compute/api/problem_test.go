package api

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/tradle/cloudpal"
)

var kinds = []cloudpal.Kind{
	cloudpal.Other, cloudpal.NotExist, cloudpal.Exist, cloudpal.Invalid, cloudpal.Corrupt, cloudpal.Denied, cloudpal.Busy,
	cloudpal.Missing, cloudpal.NoSpace, cloudpal.NoMemory, cloudpal.Exhausted, cloudpal.Timeout,
}

// TestErrorsComeOutAsTheyWentIn sends one of each kind through an agent.
func TestErrorsComeOutAsTheyWentIn(t *testing.T) {
	t.Parallel()
	for _, kind := range kinds {
		want := cloudpal.E("stop notes", kind, errors.New("the cause")).WithHint("do this")
		c := agent(t, func(w http.ResponseWriter, r *http.Request) {
			p := ProblemOf(want)
			w.WriteHeader(p.Status)
			json.NewEncoder(w).Encode(p)
		})
		_, got := c.VM(t.Context(), "notes")
		if got == nil || got.Error() != want.Error() || cloudpal.KindOf(got) != kind || cloudpal.HintOf(got) != "do this" {
			t.Errorf("got %v (%v, %q), want %v", got, cloudpal.KindOf(got), cloudpal.HintOf(got), want)
		}
		if kind != cloudpal.Other && !errors.Is(got, kind) {
			t.Errorf("%v is not %v", got, kind)
		}
		// Another hop says the same.
		if p := ProblemOf(got); p != ProblemOf(want) {
			t.Errorf("again: got %+v, want %+v", p, ProblemOf(want))
		}
	}
}

func TestProblemOfAnErrorWithoutKind(t *testing.T) {
	t.Parallel()
	for _, err := range []error{errors.New("x"), cloudpal.E("", "of my own making", errors.New("x"))} {
		p := ProblemOf(err)
		if p.Title != string(cloudpal.Other) || p.Status != 500 {
			t.Errorf("%v: got %+v, want an internal error", err, p)
		}
	}
}

func FuzzProblem(f *testing.F) {
	data, err := json.Marshal(ProblemOf(cloudpal.E("stop notes", cloudpal.Busy, nil).WithHint("wait")))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"title":"no kind","status":-1}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var p Problem
		if json.Unmarshal(data, &p) != nil {
			return
		}
		got := p.Err()
		if k := cloudpal.KindOf(got); k != cloudpal.Other && string(k) != p.Title {
			t.Errorf("%+v: got %v", p, k)
		}
		if got.Hint != p.Hint || (p.Detail != "" && got.Error() != p.Detail) {
			t.Errorf("%+v: got %v, %q", p, got, got.Hint)
		}
		again := ProblemOf(got).Err()
		if again.Error() != got.Error() || again.Kind != got.Kind || again.Hint != got.Hint {
			t.Errorf("again: got %+v, want %+v", again, got)
		}
	})
}

// FuzzLines reads any stream, and holds it against the lines that are in it.
func FuzzLines(f *testing.F) {
	f.Add([]byte(`{"phase":"pull","done":1}` + "\n\n" + `{"image":{"name":"a"}}`))
	f.Add([]byte("{}\n{"))
	f.Add([]byte("null\n[]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		count := 0
		err := lines(bytes.NewReader(data), func(Progress) error {
			count++
			return nil
		})
		whole := 0
		for line := range bytes.SplitSeq(data, []byte("\n")) {
			if line = bytes.TrimSuffix(line, []byte("\r")); len(line) == 0 {
				continue
			}
			if json.Unmarshal(line, new(Progress)) != nil {
				break
			}
			whole++
		}
		if count != whole || (err == nil) != (whole == nonEmpty(data)) {
			t.Errorf("got %d lines, %v; want %d", count, err, whole)
		}
	})
}

func nonEmpty(data []byte) (n int) {
	for line := range bytes.SplitSeq(data, []byte("\n")) {
		if len(bytes.TrimSuffix(line, []byte("\r"))) > 0 {
			n++
		}
	}
	return n
}

func TestLinesStopWhereTheyAreTold(t *testing.T) {
	t.Parallel()
	enough := errors.New("enough")
	count := 0
	err := lines(strings.NewReader("{}\n{}\n{}\n"), func(Progress) error {
		count++
		if count == 2 {
			return enough
		}
		return nil
	})
	if err != enough || count != 2 {
		t.Errorf("got %d lines, %v; want 2, %v", count, err, enough)
	}
}

func TestPullEndsWithAnImageOrAnError(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		body string
		want string // of the error
		kind cloudpal.Kind
	}{
		{`{"phase":"pull","done":1}` + "\n" + `{"image":{"name":"nginx"}}` + "\n", "", ""},
		{`{"phase":"pull","done":1}` + "\n", "the agent went away", cloudpal.Other},
		{`{"error":{"title":"no space left","detail":"unpack: no space left"}}` + "\n", "unpack: no space left", cloudpal.NoSpace},
		{`{"image":{"name":"nginx"}}` + "\n{", "", cloudpal.Other},
	} {
		client := agent(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, c.body) })
		reports := 0
		img, err := client.Pull(t.Context(), PullRequest{Ref: "nginx"}, func(Progress) { reports++ })
		if c.kind == "" {
			if err != nil || img.Name != "nginx" || reports != 1 {
				t.Errorf("%s: got %+v, %d reports, %v", c.body, img, reports, err)
			}
			continue
		}
		if err == nil || cloudpal.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %v: %s", c.body, err, c.kind, c.want)
		}
	}
}
