package hyperbee

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/tradle/cloudpal"
)

// A stage is one line that testdata/original.js reads.
type stage struct {
	Op      string         `json:"op"`
	Key     *string        `json:"key,omitempty"`
	Value   *string        `json:"value"`
	Allow   *bool          `json:"allow,omitempty"`
	Ops     []stage        `json:"ops,omitempty"`
	Name    string         `json:"name,omitempty"`
	Version uint64         `json:"version,omitempty"`
	Range   map[string]any `json:"range"`
	Span    map[string]any `json:"span"`
}

// original runs steps on the JavaScript hyperbee, and returns what it answered
// and its log.
func original(t *testing.T, options string, steps []stage) (answers []string, blocks [][]byte) {
	t.Helper()
	modules := needOriginals(t)
	var in bytes.Buffer
	for _, s := range steps {
		line, err := json.Marshal(s)
		must(t, err)
		in.Write(append(line, '\n'))
	}
	node := exec.CommandContext(t.Context(), "node", "testdata/original.js", t.TempDir(), options)
	node.Env = append(os.Environ(), "NODE_PATH="+modules)
	node.Stdin, node.Stderr = &in, os.Stderr
	out, err := node.Output()
	must(t, err)
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 64<<20)
	for lines.Scan() {
		if block, ok := strings.CutPrefix(lines.Text(), "block "); ok {
			b, err := hex.DecodeString(block)
			must(t, err)
			blocks = append(blocks, b)
			continue
		}
		answers = append(answers, lines.Text())
	}
	return answers, blocks
}

// perform does what original.js does.
func perform(t *testing.T, b *Bee, steps []stage) (answers []string) {
	t.Helper()
	for _, s := range steps {
		switch s.Op {
		case "put", "del":
			write(t, b, s)
		case "batch":
			batch := b.Batch()
			for _, o := range s.Ops {
				write(t, batch, o)
			}
			must(t, batch.Flush())
		case "get":
			e, err := b.Get(ctx, unhex(s.Key))
			if err != nil && !errors.Is(err, cloudpal.NotExist) {
				t.Fatal(err)
			}
			answers = append(answers, hexEntry(e))
		case "range":
			from := b
			if s.Version > 0 {
				from = b.Checkout(s.Version)
				defer from.Close()
			}
			answers = append(answers, rangeOf(t, from, s.Range))
		case "sub":
			answers = append(answers, rangeOf(t, b.Sub(s.Name), s.Range))
		case "diff":
			answers = append(answers, diffOf(t, b, s))
		case "history":
			answers = append(answers, historyOf(t, b, s.Span))
		}
	}
	return answers
}

type conditional interface { // Bee and Batch
	PutIf(context.Context, []byte, []byte, Swap) (bool, error)
	DeleteIf(context.Context, []byte, Swap) (bool, error)
}

func write(t *testing.T, w conditional, s stage) {
	t.Helper()
	var swap Swap
	if s.Allow != nil {
		swap = func(_, _ Entry) bool { return *s.Allow }
	}
	var err error
	if s.Op == "put" {
		_, err = w.PutIf(ctx, unhex(s.Key), unhex(s.Value), swap)
	} else {
		_, err = w.DeleteIf(ctx, unhex(s.Key), swap)
	}
	must(t, err)
}

func unhex(s *string) []byte {
	if s == nil {
		return nil
	}
	b, err := hex.DecodeString(*s)
	if err != nil {
		panic(err)
	}
	return present(b)
}

func hexOf(b []byte) string {
	switch {
	case b == nil:
		return "-"
	case len(b) == 0:
		return "."
	}
	return hex.EncodeToString(b)
}

func hexEntry(e Entry) string {
	if e.Seq == 0 {
		return "-"
	}
	return fmt.Sprint(e.Seq, " ", hexOf(e.Key), " ", hexOf(e.Value))
}

func toRange(m map[string]any) (r Range) {
	at := func(name string) []byte {
		if s, ok := m[name].(string); ok {
			return unhex(&s)
		}
		return nil
	}
	r.GT, r.GTE, r.LT, r.LTE = at("gt"), at("gte"), at("lt"), at("lte")
	r.Reverse, _ = m["reverse"].(bool)
	r.Limit, _ = m["limit"].(int)
	return r
}

func rangeOf(t *testing.T, b *Bee, m map[string]any) string {
	t.Helper()
	var all []string
	for e, err := range b.Range(ctx, toRange(m)) {
		must(t, err)
		all = append(all, hexEntry(e))
	}
	return strings.Join(all, ",")
}

func diffOf(t *testing.T, b *Bee, s stage) string {
	t.Helper()
	old := b.Checkout(s.Version)
	defer old.Close()
	var all []string
	for d, err := range b.Diff(ctx, old, toRange(s.Range)) {
		must(t, err)
		all = append(all, hexEntry(d.Left)+"|"+hexEntry(d.Right))
	}
	return strings.Join(all, ",")
}

func historyOf(t *testing.T, b *Bee, m map[string]any) string {
	t.Helper()
	s := Span{}
	since, _ := m["gte"].(int)
	until, _ := m["lt"].(int)
	s.Since, s.Until = uint64(since), uint64(until)
	s.Reverse, _ = m["reverse"].(bool)
	s.Limit, _ = m["limit"].(int)
	var all []string
	for o, err := range b.History(ctx, s) {
		must(t, err)
		what := "put "
		if o.Deleted {
			what = "del "
		}
		all = append(all, what+hexEntry(o.Entry))
	}
	return strings.Join(all, ",")
}

// A script makes random steps.
type script struct {
	*rand.Rand
	keys int
}

func (s script) key() *string {
	k := hex.EncodeToString(fmt.Appendf(nil, "%03x", s.IntN(s.keys)*7919%0xfff))
	switch s.IntN(200) {
	case 0:
		k = ""
	case 1:
		k = "00"
	case 2:
		k = hex.EncodeToString([]byte("s\x00")) + k
	}
	return &k
}

func (s script) value() *string {
	v := ""
	switch s.IntN(20) {
	case 0:
		return nil
	case 1:
	case 2:
		v = strings.Repeat("ab", 300)
	default:
		v = hex.EncodeToString([]byte{byte(s.IntN(3))})
	}
	return &v
}

func (s script) write(deletes int) stage {
	o := stage{Op: "put", Key: s.key(), Value: s.value()}
	if s.IntN(100) < deletes {
		o = stage{Op: "del", Key: o.Key}
	}
	if s.IntN(10) == 0 {
		allow := s.IntN(2) == 0
		o.Allow = &allow
	}
	return o
}

func (s script) rangeOf() map[string]any {
	m := map[string]any{}
	if s.IntN(3) > 0 {
		m[[]string{"gt", "gte"}[s.IntN(2)]] = *s.key()
	}
	if s.IntN(3) > 0 {
		m[[]string{"lt", "lte"}[s.IntN(2)]] = *s.key()
	}
	if s.IntN(2) == 0 {
		m["reverse"] = true
	}
	if s.IntN(3) == 0 {
		m["limit"] = 1 + s.IntN(20)
	}
	return m
}

// writes returns n writes and batches, of which deletes in a hundred are
// deletions.
func (s script) writes(n, deletes int) (steps []stage) {
	for range n {
		if s.IntN(4) > 0 {
			steps = append(steps, s.write(deletes))
			continue
		}
		batch := stage{Op: "batch"}
		for range 1 + s.IntN(40) {
			batch.Ops = append(batch.Ops, s.write(deletes))
		}
		steps = append(steps, batch)
	}
	return steps
}

// withReads mixes reads into writes. Versions that lie inside a batch are not
// asked for: which they are is found out by running the writes.
func (s script) withReads(t *testing.T, writes []stage, o Options) (steps []stage) {
	t.Helper()
	b := New(new(list), o)
	versions := []uint64{1}
	for _, w := range writes {
		steps = append(steps, w)
		perform(t, b, []stage{w})
		versions = append(versions, b.Version())
		steps = append(steps, s.read(versions))
	}
	return steps
}

func (s script) read(versions []uint64) stage {
	version := versions[s.IntN(len(versions))]
	switch s.IntN(6) {
	case 0:
		return stage{Op: "range", Range: s.rangeOf()}
	case 1:
		return stage{Op: "range", Range: s.rangeOf(), Version: version}
	case 2:
		return stage{Op: "sub", Name: "s", Range: s.rangeOf()}
	case 3:
		r := s.rangeOf()
		delete(r, "reverse")
		return stage{Op: "diff", Range: r, Version: version}
	case 4:
		return stage{Op: "history", Span: s.span(versions[len(versions)-1])}
	}
	return stage{Op: "get", Key: s.key()}
}

func (s script) span(version uint64) map[string]any {
	m := map[string]any{}
	if s.IntN(2) == 0 {
		m["gte"] = 1 + s.IntN(int(version))
	}
	if s.IntN(2) == 0 {
		m["lt"] = 1 + s.IntN(int(version))
	}
	if s.IntN(2) == 0 {
		m["reverse"] = true
	}
	m["limit"] = 1 + s.IntN(30)
	return m
}

func TestOriginalBlocks(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			s := script{rand.New(rand.NewPCG(seed, 4)), 10 << seed}
			steps := s.writes(300, 30)
			steps = append(steps, s.writes(150, 80)...)
			options := `{}`
			o := Options{}
			if seed%2 == 1 {
				options, o.SkipEqual = `{"alwaysDuplicate":false}`, true
			}
			_, want := original(t, options, steps)
			l := new(list)
			perform(t, New(l, o), steps)
			for i := range min(len(want), len(l.blocks)) {
				if !bytes.Equal(l.blocks[i], want[i]) {
					t.Fatalf("block %d is\n%x, want\n%x", i, l.blocks[i], want[i])
				}
			}
			if len(l.blocks) != len(want) {
				t.Errorf("log has %d blocks, want %d", len(l.blocks), len(want))
			}
			t.Logf("%d blocks", len(want))
		})
	}
}

func TestOriginalAnswers(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			t.Parallel()
			s := script{rand.New(rand.NewPCG(seed, 5)), 20 << seed}
			steps := s.withReads(t, append(s.writes(200, 30), s.writes(100, 70)...), Options{})
			want, _ := original(t, `{}`, steps)
			got := perform(t, New(new(list), Options{}), steps)
			if len(got) != len(want) {
				t.Fatalf("got %d answers, want %d", len(got), len(want))
			}
			reads := 0
			for _, step := range steps {
				if step.Op == "put" || step.Op == "del" || step.Op == "batch" {
					continue
				}
				if got[reads] != want[reads] {
					line, _ := json.Marshal(step)
					t.Fatalf("%s answers\n%s, want\n%s", line, got[reads], want[reads])
				}
				reads++
			}
		})
	}
}
