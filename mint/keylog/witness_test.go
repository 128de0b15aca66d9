package keylog

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/transparency-dev/formats/log"
	cosignature "github.com/transparency-dev/formats/note"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/merkle/testonly"
	"golang.org/x/mod/sumdb/note"
	"pgregory.net/rapid"

	"github.com/tradle/cloudpal"
)

// Trees are two branches of one log, which have their first entries in common.
type trees struct {
	branches [2]*testonly.Tree
	signer   note.Signer
	key      string
}

const (
	commonSize = 5
	treeSize   = 30
)

func newTrees(tb testing.TB) *trees {
	tb.Helper()
	private, public := newKeyPair(tb, issuer+"/keys")
	signer, err := note.NewSigner(private)
	if err != nil {
		tb.Fatal(err)
	}
	t := &trees{signer: signer, key: public}
	for b := range t.branches {
		t.branches[b] = testonly.New(rfc6962.DefaultHasher)
		for i := range treeSize {
			t.branches[b].AppendData(fmt.Appendf(nil, "%d %d", i, b*max(0, i-commonSize+1)))
		}
	}
	return t
}

// A head is a state of a log.
type head struct {
	branch int
	size   uint64
}

func (t *trees) checkpoint(h head, by ...note.Signer) string {
	c := log.Checkpoint{Origin: issuer + "/keys", Size: h.size, Hash: t.branches[h.branch].HashAt(h.size)}
	signed, err := note.Sign(&note.Note{Text: string(c.Marshal())}, by...)
	if err != nil {
		panic(err)
	}
	return string(signed)
}

// question asks for a cosignature of a head by who says that the witness cosigned
// old entries before.
func (t *trees) question(old uint64, h head) string {
	var b strings.Builder
	fmt.Fprintf(&b, "old %d\n", old)
	if 0 < old && old <= h.size {
		proof, err := t.branches[h.branch].ConsistencyProof(old, h.size)
		if err != nil {
			panic(err)
		}
		for _, p := range proof {
			b.WriteString(base64.StdEncoding.EncodeToString(p) + "\n")
		}
	}
	return b.String() + "\n" + t.checkpoint(h, t.signer)
}

func (s *witnessServer) ask(t *testing.T, body string) (status int, answer string) {
	t.Helper()
	resp, err := http.Post(s.server.URL+"/add-checkpoint", "text/plain", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

func TestWitness(t *testing.T) {
	t.Parallel()
	x := newTrees(t)
	s := newWitness(t, "witness.example", x.key)
	key := s.witness.Key()
	// Each is asked of a witness that saw the first 10 entries of the first branch.
	other, _ := note.NewSigner(func() string { k, _ := newKeyPair(t, issuer+"/keys"); return k }())
	for _, c := range []struct {
		name, body string
		want       int
	}{
		{"the first", x.question(0, head{0, 3}), 200},
		{"a longer one", x.question(3, head{0, 10}), 200},
		{"the same again", x.question(10, head{0, 10}), 200},
		{"what it says it saw", x.question(0, head{0, 12}), 409},
		{"one that it saw more of", x.question(3, head{0, 5}), 409},
		{"a shorter one", x.question(10, head{0, 9}), 400},
		{"another one of that size", x.question(10, head{1, 10}), 422},
		{"a longer one on another branch", x.question(10, head{1, 20}), 422},
		{"a longer one without proof", "old 10\n\n" + x.checkpoint(head{0, 20}, x.signer), 422},
		{"a longer one with another's proof", strings.Replace(x.question(10, head{0, 20}), "\n", "\n"+base64.StdEncoding.EncodeToString(make([]byte, 32))+"\n", 1), 422},
		{"another log's", strings.Replace(x.question(10, head{0, 12}), issuer+"/keys\n", "other.example\n", 1), 404},
		{"one that another signed", "old 10\n\n" + x.checkpoint(head{0, 12}, other), 403},
		{"one that nobody signed", strings.SplitAfter(x.question(10, head{0, 12}), "\n\n")[0], 404},
		{"nothing", "", 404},
		{"no old size", x.checkpoint(head{0, 12}, x.signer), 0},
		{"a megabyte", strings.Repeat("a", 1<<20), 0},
		{"a longer one, after all", x.question(10, head{0, 20}), 200},
	} {
		status, answer := s.ask(t, c.body)
		if status == 200 != (c.want == 200) || c.want != 0 && status != c.want {
			t.Errorf("%s: it answers %d, want %d", c.name, status, c.want)
		}
		if c.name == "what it says it saw" && answer != "10\n" {
			t.Errorf("it says that it saw %q", answer)
		}
		if status != 200 {
			continue
		}
		_, checkpoint, _ := strings.Cut(c.body, "\n\n")
		v, err := cosignature.NewVerifierForCosignatureV1(key)
		if err != nil {
			t.Fatal(err)
		}
		n, err := note.Open([]byte(checkpoint+answer), note.VerifierList(v))
		if err != nil || len(n.Sigs) != 1 {
			t.Errorf("%s: its cosignature is none: %v", c.name, err)
			continue
		}
		if at, err := cosignature.CoSigV1Timestamp(n.Sigs[0]); err != nil || !at.Equal(now()) {
			t.Errorf("it says that it cosigned at %v, %v", at, err)
		}
	}
	// Two of the other branch, and that without a proof, which it cosigned after all.
	if refused, err := s.witness.Refused(); err != nil || len(refused) != 3 {
		t.Errorf("it kept %q, %v", refused, err)
	}
}

func TestWitnessRemembers(t *testing.T) {
	t.Parallel()
	x := newTrees(t)
	s := newWitness(t, "witness.example", x.key)
	key := s.witness.Key()
	if status, _ := s.ask(t, x.question(0, head{0, 10})); status != 200 {
		t.Fatalf("it answers %d", status)
	}
	if _, err := OpenWitness(s.config); !errors.Is(err, cloudpal.Busy) {
		t.Errorf("a second one in its folder: %v", err)
	}
	if err := s.witness.Close(); err != nil {
		t.Fatal(err)
	}
	s.config.Name = "" // it has a key
	s.open(t)
	if s.witness.Key() != key {
		t.Error("it has another key")
	}
	if status, _ := s.ask(t, x.question(10, head{1, 20})); status != 422 {
		t.Errorf("opened again, it answers %d to another branch", status)
	}
	if status, _ := s.ask(t, x.question(0, head{1, 20})); status != 409 {
		t.Errorf("opened again, it answers %d as if it had seen nothing", status)
	}
	// What it saw is damaged: it must not take it for nothing.
	for _, b := range [][]byte{nil, []byte("x"), bytes.Repeat([]byte("\n"), 10)} {
		if err := os.WriteFile(filepath.Join(s.config.Folder, "log-"+log.ID(issuer+"/keys")), b, 0o600); err != nil {
			t.Fatal(err)
		}
		if status, _ := s.ask(t, x.question(0, head{1, 20})); status == 200 {
			t.Errorf("with %q for a memory, it cosigns", b)
		}
	}
}

func TestOpenWitnessRefuses(t *testing.T) {
	t.Parallel()
	_, log := newKeyPair(t, "log.example")
	_, same := newKeyPair(t, "log.example")
	damaged := t.TempDir()
	if err := os.WriteFile(filepath.Join(damaged, "key"), []byte("PRIVATE+KEY+secret"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		config WitnessConfig
		want   cloudpal.Kind
	}{
		"no name":           {WitnessConfig{Folder: t.TempDir(), Logs: []string{log}}, cloudpal.Invalid},
		"a name of two":     {WitnessConfig{Folder: t.TempDir(), Name: "a b", Logs: []string{log}}, cloudpal.Invalid},
		"a log without key": {WitnessConfig{Folder: t.TempDir(), Name: "w", Logs: []string{"log"}}, cloudpal.Invalid},
		"a log twice":       {WitnessConfig{Folder: t.TempDir(), Name: "w", Logs: []string{log, same}}, cloudpal.Invalid},
		"a damaged key":     {WitnessConfig{Folder: damaged, Logs: []string{log}}, cloudpal.Corrupt},
	} {
		_, err := OpenWitness(c.config)
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error shows the key", name)
		}
	}
}

// A history is what one who asks a witness over and over learns.
type history struct {
	trees             *trees
	last              head
	cosigned, refused int
}

var errLost = errors.New("the answer is lost")

// ask asks for a cosignature of a head, with a good proof where there is one, and
// fails where the witness cosigns what it must not.
func (h *history) ask(ctx context.Context, url string, next head) error {
	old := uint64(0)
	for range 3 {
		status, answer, err := post(ctx, url, h.trees.question(old, next))
		if err != nil {
			return fmt.Errorf("%w: %w", errLost, err)
		}
		switch status {
		case 200:
			return h.add(next)
		case 409:
			if old, err = strconv.ParseUint(strings.TrimSpace(answer), 10, 64); err != nil {
				return err
			}
			if old < h.last.size {
				return fmt.Errorf("it cosigned %d entries, and says %d", h.last.size, old)
			}
		case 400, 422:
			h.refused++
			return nil
		default:
			return fmt.Errorf("it answers %d", status)
		}
	}
	return nil
}

func (h *history) add(next head) error {
	h.cosigned++
	if next.size < h.last.size {
		return fmt.Errorf("it cosigned %v after %v", next, h.last)
	}
	if next.branch != h.last.branch && h.last.size > commonSize {
		return fmt.Errorf("it cosigned %v, which does not extend %v", next, h.last)
	}
	h.last = next
	return nil
}

func post(ctx context.Context, url, body string) (int, string, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, url+"/add-checkpoint", strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), err
}

// Whatever it is asked, in whatever order, and however often it starts again, a
// witness cosigns one branch, and goes only forward.
func TestWitnessNeverForks(t *testing.T) {
	t.Parallel()
	x := newTrees(t)
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "")
		if err != nil {
			t.Fatal(err)
		}
		s := &witnessServer{config: WitnessConfig{Folder: dir, Name: "witness.example", Logs: []string{x.key}, Now: now}}
		s.open(t)
		defer func() { _ = s.witness.Close() }()
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.witness.ServeHTTP(w, r) }))
		defer server.Close()
		seen := history{trees: x}
		for range rapid.IntRange(1, 25).Draw(rt, "questions") {
			if rapid.IntRange(0, 4).Draw(rt, "again") == 0 {
				if err := s.witness.Close(); err != nil {
					rt.Fatal(err)
				}
				s.open(t)
			}
			next := head{rapid.IntRange(0, 1).Draw(rt, "branch"), uint64(rapid.IntRange(1, treeSize).Draw(rt, "size"))}
			if err := seen.ask(t.Context(), server.URL, next); err != nil {
				rt.Fatal(err)
			}
		}
	})
}

func FuzzAddCheckpoint(f *testing.F) {
	x := newTrees(f)
	w, err := OpenWitness(WitnessConfig{Folder: f.TempDir(), Name: "witness.example", Logs: []string{x.key}, Now: now})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = w.Close() })
	ask := func(body string) int {
		rec := httptest.NewRecorder()
		w.ServeHTTP(rec, httptest.NewRequest(http.MethodPost, "/add-checkpoint", strings.NewReader(body)))
		return rec.Code
	}
	if status := ask(x.question(0, head{0, 10})); status != 200 {
		f.Fatalf("it answers %d", status)
	}
	f.Add(x.question(10, head{0, 10}))
	f.Add(x.question(10, head{1, 10}))
	f.Add(x.question(0, head{0, 20}))
	f.Add("old 18446744073709551615\n\n" + x.checkpoint(head{0, 10}, x.signer))
	f.Fuzz(func(t *testing.T, body string) {
		if ask(body) != 200 {
			return
		}
		_, checkpoint, _ := strings.Cut(body, "\n\n")
		if !strings.HasPrefix(checkpoint, strings.SplitAfter(x.checkpoint(head{0, 10}, x.signer), "\n\n")[0]) {
			t.Errorf("it cosigns %q", body)
		}
	})
}
