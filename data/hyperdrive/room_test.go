package hyperdrive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
)

// briefly is a context for what would wait for a peer.
func briefly(t testing.TB) context.Context {
	short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	t.Cleanup(cancel)
	return short
}

func TestReclaim(t *testing.T) {
	d := newTestDrive(t)
	must(t, d.Put(ctx, "/a", pattern(100000), Attr{}))
	must(t, d.Put(ctx, "/b", pattern(5), Attr{}))
	must(t, d.Put(ctx, "/gone", pattern(70000), Attr{}))
	first := d.Version()
	must(t, d.Put(ctx, "/a", pattern(200000), Attr{}))
	must(t, d.Delete(ctx, "/gone"))
	second := d.Version()
	b := d.Batch()
	for i := range 50 {
		must(t, b.Put(ctx, fmt.Sprintf("/many/%d", i), pattern(1000+i), Attr{}))
	}
	must(t, b.Put(ctx, "/a", pattern(300000), Attr{}))
	must(t, b.Flush(ctx))

	// A file that is half written has no name yet, and must stay.
	w, err := d.Writer(ctx, "/half", WriterOptions{})
	must(t, err)
	_, err = w.Write(pattern(2 << 20))
	must(t, err)

	has := func(version uint64, name string, want []byte) {
		t.Helper()
		old := d.Checkout(version)
		defer old.Close()
		got, err := old.Get(briefly(t), name)
		if want == nil && !errors.Is(err, cloudpal.Timeout) {
			t.Errorf("%s at version %d: got %d bytes, %v; it was to be reclaimed", name, version, len(got), err)
		}
		if want != nil && (err != nil || !bytes.Equal(got, want)) {
			t.Errorf("%s at version %d: got %d bytes, %v; want %d", name, version, len(got), err, len(want))
		}
	}
	must(t, d.Reclaim(ctx, second))
	has(first, "/a", nil)
	has(first, "/b", pattern(5))
	has(first, "/gone", nil)
	has(second, "/a", pattern(200000))
	must(t, d.Reclaim(ctx, d.Version()))
	has(second, "/a", nil)
	has(d.Version(), "/a", pattern(300000))
	has(d.Version(), "/many/7", pattern(1007))

	_, err = w.Write(pattern(1000))
	must(t, errors.Join(err, w.Close()))
	has(d.Version(), "/half", append(pattern(2<<20), pattern(1000)...))
}

func TestClearAndHas(t *testing.T) {
	d := newTestDrive(t)
	must(t, d.Put(ctx, "/dir/a", pattern(100000), Attr{}))
	must(t, d.Put(ctx, "/dir/b", pattern(10), Attr{}))
	has := func(name string, want bool) {
		t.Helper()
		if got, err := d.Has(ctx, name); got != want || err != nil {
			t.Errorf("Has(%s) = %v, %v; want %v", name, got, err, want)
		}
	}
	has("/dir", true)
	must(t, d.Clear(ctx, "/dir/a"))
	has("/dir", false)
	has("/dir/a", false)
	has("/dir/b", true)
	if err := d.Download(briefly(t), "/dir"); !errors.Is(err, cloudpal.Timeout) && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Download from nobody: %v", err)
	}
	must(t, d.ClearAll(ctx))
	has("/dir/b", false)
}

func TestTruncate(t *testing.T) {
	d := newTestDrive(t)
	must(t, d.Put(ctx, "/a", pattern(100), Attr{}))
	v := d.Version()
	core, err := d.Content(ctx)
	must(t, err)
	length := core.Length()
	b := d.Batch()
	for i := range 20 {
		must(t, b.Put(ctx, fmt.Sprintf("/%d", i), pattern(100+i), Attr{}))
	}
	must(t, b.Flush(ctx))
	if err := d.Truncate(ctx, v+7); !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("Truncate into a batch: %v, want Invalid", err)
	}
	w, err := d.Writer(ctx, "/w", WriterOptions{})
	must(t, err)
	_, err = w.Write(pattern(2 << 20))
	must(t, err)
	if err := d.Truncate(ctx, v); !errors.Is(err, cloudpal.Busy) {
		t.Errorf("Truncate beside a writer: %v, want Busy", err)
	}
	w.Cancel()
	must(t, d.Truncate(ctx, v))
	sameNames(t, "after Truncate", namesOf(t, d.List(ctx, ""), entryName), "/a")
	if core.Length() != length || d.Version() != v {
		t.Errorf("version %d with %d blocks of content, want %d with %d", d.Version(), core.Length(), v, length)
	}
	must(t, d.Put(ctx, "/b", pattern(77), Attr{}))
	if got, err := d.Get(ctx, "/b"); err != nil || !bytes.Equal(got, pattern(77)) {
		t.Errorf("Get = %d bytes, %v", len(got), err)
	}
	must(t, d.Truncate(ctx, 0))
	sameNames(t, "after Truncate(0)", namesOf(t, d.List(ctx, ""), entryName))
	put(t, d, "/again", "x")
	if got, err := d.Get(ctx, "/again"); err != nil || string(got) != "x" {
		t.Errorf("Get = %q, %v", got, err)
	}
}

// TestTruncateKeepsWhatOlderVersionsHave writes after a truncation to a version
// that no longer has what an older one has.
func TestTruncateKeepsWhatOlderVersionsHave(t *testing.T) {
	d := newTestDrive(t)
	put(t, d, "/a", "old")
	older := d.Version()
	must(t, d.Delete(ctx, "/a"))
	v := d.Version()
	put(t, d, "/b", "gone")
	must(t, d.Truncate(ctx, v))
	put(t, d, "/c", "new")
	old := d.Checkout(older)
	defer old.Close()
	if got, err := old.Get(ctx, "/a"); err != nil || string(got) != "old" {
		t.Errorf("the older version has %q, %v", got, err)
	}
}

func TestPurge(t *testing.T) {
	s := newStore(t)
	d, err := New(s, Options{})
	must(t, err)
	put(t, d, "/a", "1")
	must(t, d.Purge(ctx))
	d = newDriveIn(t, s, Options{})
	sameNames(t, "after Purge", namesOf(t, d.List(ctx, ""), entryName))
}
