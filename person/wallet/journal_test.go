package wallet

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

// written makes a journal of frames and returns its bytes, and where each frame ends.
func written(t testing.TB, dir string, plains ...string) (b []byte, ends []int) {
	t.Helper()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	j, err := replaceJournal(root, seedOf("ann"), purposeJournal, [][]byte{[]byte("first")})
	if err != nil {
		t.Fatal(err)
	}
	defer j.f.Close()
	ends = append(ends, int(j.size))
	for _, p := range plains {
		if err := j.append([]byte(p)); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, int(j.size))
	}
	b, err = os.ReadFile(filepath.Join(dir, journalName))
	if err != nil {
		t.Fatal(err)
	}
	return b, ends
}

// read reads a journal's frames.
func readJournal(t testing.TB, dir string, b []byte) (plains []string, err error) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, journalName), b, 0o600); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	j, err := openJournal(root, seedOf("ann"), purposeJournal, func(p []byte) error {
		plains = append(plains, string(p))
		return nil
	})
	if err == nil {
		j.f.Close()
	}
	return plains, err
}

// Cut anywhere, a journal has all frames that were whole, and is not called damaged.
func TestJournalCut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, ends := written(t, dir, "second", "third")
	for size := range len(b) + 1 {
		got, err := readJournal(t, dir, b[:size])
		want := 0
		for _, e := range ends {
			if size >= e {
				want++
			}
		}
		if want == 0 {
			if !errors.Is(err, cloudpal.Corrupt) {
				t.Fatalf("cut to %d bytes: got %v", size, err)
			}
			continue
		}
		if err != nil || len(got) != want {
			t.Fatalf("cut to %d bytes: got %q, %v; want %d frames", size, got, err, want)
		}
	}
}

// A byte that changed is noticed in every frame but the last, whose end a crash could
// have left so; that one is left out.
func TestJournalDamaged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, ends := written(t, dir, "second", "third", "fourth")
	for i := range b {
		bad := slices.Clone(b)
		bad[i] ^= 0x10
		got, err := readJournal(t, dir, bad)
		last := i >= ends[len(ends)-2]
		if last && (err != nil || len(got) != 3) {
			t.Fatalf("byte %d of the last frame: got %q, %v", i, got, err)
		}
		if !last && !errors.Is(err, cloudpal.Corrupt) {
			t.Fatalf("byte %d: got %q, %v; want %v", i, got, err, cloudpal.Corrupt)
		}
	}
}

// Frames cannot be dropped, repeated or put in another order.
func TestJournalOrder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, ends := written(t, dir, "second", "third", "fourth")
	frame := func(i int) []byte { return b[ends[i-1]:ends[i]] }
	head := b[:ends[0]]
	for name, frames := range map[string][][]byte{
		"dropped":  {head, frame(2), frame(3)},
		"repeated": {head, frame(1), frame(1), frame(2)},
		"swapped":  {head, frame(2), frame(1), frame(3)},
	} {
		got, err := readJournal(t, dir, slices.Concat(frames...))
		if err == nil && len(got) > 2 {
			t.Errorf("%s: got %q", name, got)
		}
	}
	other, _ := written(t, t.TempDir(), "second", "third")
	if got, err := readJournal(t, dir, append(slices.Clone(head), other[ends[0]:]...)); err == nil && len(got) != 1 {
		t.Errorf("another journal's frames were taken: %q", got)
	}
}

// After a crash in the middle of a frame the next one takes its place.
func TestJournalGoesOnBehindATear(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	b, ends := written(t, dir, "second", "third")
	for _, size := range []int{ends[1] + 1, ends[1] + frameHead + 3, ends[2] - 1} {
		torn := append(slices.Clone(b[:size]), bytes.Repeat([]byte{0}, 4096)...)
		if got, err := readJournal(t, dir, torn); err != nil || len(got) != 2 {
			t.Fatalf("got %q, %v", got, err)
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		j, err := openJournal(root, seedOf("ann"), purposeJournal, func([]byte) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		if err := j.append([]byte("next")); err != nil {
			t.Fatal(err)
		}
		j.f.Close()
		root.Close()
		whole, _ := os.ReadFile(filepath.Join(dir, journalName))
		if got, err := readJournal(t, dir, whole); err != nil || !slices.Equal(got, []string{"first", "second", "next"}) {
			t.Errorf("got %q, %v", got, err)
		}
	}
}

// It shrinks when most of it is of the past, and loses nothing by that.
func TestCompaction(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ann := h.wallet("ann")
	ann.buy("week")
	other, err := Open(h.config(ann.dir, "ann", Now)) // another process, say
	h.must(err)
	defer other.Close()
	most := int64(0)
	for i := range 3000 {
		h.must(ann.change(t.Context(), func(_ *state, c *change) error {
			c.putFact("test", fmt.Sprintf("%0200d", i))
			return nil
		}))
		if info, err := os.Stat(filepath.Join(ann.dir, journalName)); err == nil {
			most = max(most, info.Size())
		}
	}
	if most > 2*compactFrom {
		t.Errorf("it grew to %d bytes", most)
	}
	for _, w := range []*Wallet{ann.Wallet, other} {
		s := mustLook(t, w)
		var text string
		if s.fact("test", &text); text != fmt.Sprintf("%0200d", 2999) || w.all() != 426 {
			t.Errorf("it has %q and %d units", text, w.all())
		}
	}
	h.must(other.change(t.Context(), func(_ *state, c *change) error {
		c.putFact("test", "theirs")
		return nil
	}))
	var text string
	if mustLook(t, ann.Wallet).fact("test", &text); text != "theirs" {
		t.Errorf("the other's change is %q", text)
	}
}

// Many write at once, each with a wallet of its own, as processes have: each change
// is there, once.
func TestManyWriters(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ann := h.wallet("ann")
	var all sync.WaitGroup
	var mu sync.Mutex
	numbers := map[uint64]bool{}
	for range 8 {
		w, err := Open(h.config(ann.dir, "ann", Now))
		h.must(err)
		t.Cleanup(func() { w.Close() })
		all.Go(func() {
			for range 25 {
				var n uint64
				err := w.change(t.Context(), func(_ *state, c *change) error {
					n = c.number()
					return nil
				})
				mu.Lock()
				if err != nil || numbers[n] {
					t.Errorf("number %d came twice, or %v", n, err)
				}
				numbers[n] = true
				mu.Unlock()
			}
		})
	}
	all.Wait()
	if len(numbers) != 200 {
		t.Errorf("there are %d numbers, want 200", len(numbers))
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ann := h.wallet("ann")
	if _, err := Open(h.config(filepath.Join(t.TempDir(), "none"), "ann", Now)); !errors.Is(err, cloudpal.NotExist) || cloudpal.HintOf(err) == "" {
		t.Errorf("none: got %v", err)
	}
	if _, err := Open(h.config(ann.dir, "eve", Now)); !errors.Is(err, cloudpal.Corrupt) {
		t.Errorf("another person's: got %v", err)
	}
	if _, err := Create(h.config(ann.dir, "ann", Now), h.trust, 1); !errors.Is(err, cloudpal.Exist) {
		t.Errorf("made twice: got %v", err)
	}
}

func TestSeedIsKept(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "some", "where")
	if _, err := ReadSeed(dir); !errors.Is(err, cloudpal.NotExist) {
		t.Errorf("none: got %v", err)
	}
	for range 2 {
		if err := KeepSeed(dir, seedOf("ann")); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := ReadSeed(dir); err != nil || got != seedOf("ann") {
		t.Errorf("got another, or %v", err)
	}
	mustBe(t, cloudpal.Exist, KeepSeed(dir, seedOf("eve")))
	for _, text := range []string{"", "x", seedPrefix, seedPrefix + "00", seedPrefix + string(bytes.Repeat([]byte{'g'}, 64))} {
		if err := os.WriteFile(filepath.Join(dir, seedName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := ReadSeed(dir)
		mustBe(t, cloudpal.Corrupt, err)
	}
}

// What is a secret shows nowhere.
func TestSecretsDoNotShow(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	ann := h.wallet("ann")
	ann.buy("day")
	_, text, err := ann.Send(t.Context(), ticket.Paid, 64)
	h.must(err)
	ann.buy("day")
	b, err := ann.Balance()
	h.must(err)
	var shown strings.Builder
	shown.WriteString(fmt.Sprintf("%v %+v %#v %s %s", ann.Wallet, b, b, asJSON(b), mustLook(t, ann.Wallet).coins))
	for _, c := range mustLook(t, ann.Wallet).coins {
		shown.WriteString(fmt.Sprintf("%v %+v %#v", *c, *c, c))
		if bytes.Contains([]byte(shown.String()), c.secret[:]) || bytes.Contains([]byte(shown.String()), fmt.Append(nil, c.secret)) {
			t.Error("a ticket's secret shows")
		}
	}
	raw, err := os.ReadFile(filepath.Join(ann.dir, journalName))
	h.must(err)
	for _, secret := range [][]byte{[]byte(text[20:60]), ann.seed[:]} {
		if bytes.Contains(raw, secret) || bytes.Contains([]byte(shown.String()), secret) {
			t.Error("a secret is in the clear")
		}
	}
}
