package hyperdrive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/corestore"
	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/manifest"
)

// soon is a context for what peers are there for.
func soon(t testing.TB) context.Context {
	c, cancel := context.WithTimeout(ctx, 20*time.Second)
	t.Cleanup(cancel)
	return c
}

// connect joins two stores until the test ends, or the returned function is
// called.
func connect(t testing.TB, a, b *corestore.Store) (cut func()) {
	t.Helper()
	here, there := net.Pipe()
	joined, cancel := context.WithCancel(ctx)
	done := make(chan error, 2)
	go func() { done <- a.Replicate(joined, here, corestore.ReplicateOptions{Initiator: true}) }()
	go func() { done <- b.Replicate(joined, there, corestore.ReplicateOptions{}) }()
	cut = func() {
		if joined.Err() == nil {
			cancel()
			<-done
			<-done
		}
	}
	t.Cleanup(cut)
	return cut
}

func openIn(t testing.TB, s *corestore.Store, key manifest.Key, o Options) *Drive {
	t.Helper()
	d, err := Open(s, key, o)
	must(t, err)
	t.Cleanup(func() { must(t, d.Close()) })
	return d
}

// reaches waits until a drive has come to a version.
func reaches(t testing.TB, d *Drive, version uint64) {
	t.Helper()
	news := make(chan struct{}, 1)
	stop := d.Database().Watch(func(hypercore.Event) {
		select {
		case news <- struct{}{}:
		default:
		}
	})
	defer stop()
	limit := soon(t)
	for d.Version() < version {
		select {
		case <-news:
		case <-limit.Done():
			t.Fatalf("version %d has not become %d", d.Version(), version)
		}
	}
}

func memory(t testing.TB) *corestore.Store {
	s := corestore.Memory()
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

// TestOpenByKey reads somebody else's drive, by its key alone.
func TestOpenByKey(t *testing.T) {
	for name, o := range map[string]Options{"plain": {}, "encrypted": {EncryptionKey: &[32]byte{1}}} {
		t.Run(name, func(t *testing.T) {
			ann, bob := memory(t), memory(t)
			theirs := newDriveIn(t, ann, o)
			must(t, theirs.Put(ctx, "/a/large", pattern(3<<20), Attr{}))
			must(t, theirs.Put(ctx, "/a/small", []byte("x"), Attr{Executable: true}))
			must(t, theirs.Put(ctx, "/b", []byte("y"), Attr{}))

			d := openIn(t, bob, theirs.Key(), o)
			if d.Writable() {
				t.Error("a drive opened by its key can be written")
			}
			if _, err := d.Get(briefly(t), "/b"); !errors.Is(err, cloudpal.NotExist) {
				t.Errorf("Get before there is a peer: %v", err)
			}
			cut := connect(t, ann, bob)
			reaches(t, d, theirs.Version())
			if got, err := d.Get(soon(t), "/b"); err != nil || string(got) != "y" {
				t.Errorf("Get = %q, %v", got, err)
			}
			if has, err := d.Has(soon(t), "/a/large"); has || err != nil {
				t.Errorf("Has = %v, %v, though nobody read it", has, err)
			}
			r, err := d.Reader(soon(t), "/a/large")
			must(t, err)
			_, err = r.Seek(2<<20+5, 0)
			must(t, err)
			part := make([]byte, 10)
			if _, err := r.Read(part); err != nil || !bytes.Equal(part, pattern(3 << 20)[2<<20+5:2<<20+15]) {
				t.Errorf("a part: %v", err)
			}
			must(t, r.Close())
			must(t, d.Download(soon(t), "/a"))
			cut()
			if got, err := d.Get(briefly(t), "/a/large"); err != nil || !bytes.Equal(got, pattern(3<<20)) {
				t.Errorf("after Download, without a peer: %d bytes, %v", len(got), err)
			}
			if err := d.Put(ctx, "/x", nil, Attr{}); !errors.Is(err, cloudpal.Denied) {
				t.Errorf("Put into somebody else's: %v", err)
			}
		})
	}
}

// TestBlindPeer keeps and passes on an encrypted drive that it cannot read.
func TestBlindPeer(t *testing.T) {
	secret := Options{EncryptionKey: &[32]byte{1}}
	ann, blind, bob := memory(t), memory(t), memory(t)
	theirs := newDriveIn(t, ann, secret)
	put(t, theirs, "/diary", "dear diary")
	content, err := theirs.Content(ctx)
	must(t, err)

	cut := connect(t, ann, blind)
	for _, key := range []manifest.Key{theirs.Key(), content.Key()} {
		core, err := blind.GetKey(key)
		must(t, err)
		defer core.Close()
		for i := range uint64(2) {
			if key == content.Key() && i == 1 {
				break
			}
			block, err := core.Get(soon(t), i)
			must(t, err)
			if bytes.Contains(block, []byte("diary")) {
				t.Error("the blind peer can read")
			}
		}
	}
	cut()
	connect(t, blind, bob)
	d := openIn(t, bob, theirs.Key(), secret)
	reaches(t, d, theirs.Version())
	if got, err := d.Get(soon(t), "/diary"); err != nil || string(got) != "dear diary" {
		t.Errorf("Get = %q, %v", got, err)
	}
}

// TestMirrorFromAPeer makes a folder of a drive of which nothing is here.
func TestMirrorFromAPeer(t *testing.T) {
	ann, bob := memory(t), memory(t)
	from, to := newDisk(t), newDisk(t)
	for i := range 300 {
		from.write(fmt.Sprintf("/%d/%d", i%5, i), strings.Repeat("x", i*40))
	}
	from.write("/large", string(pattern(5<<20)))
	theirs := newDriveIn(t, ann, Options{})
	_, err := Mirror(ctx, from.folder(), theirs, MirrorOptions{})
	must(t, err)
	d := openIn(t, bob, theirs.Key(), Options{})
	connect(t, ann, bob)
	reaches(t, d, theirs.Version())
	sum, err := Mirror(soon(t), d, to.folder(), MirrorOptions{})
	must(t, err)
	if sum.Added != 301 {
		t.Errorf("%+v", sum)
	}
	sameNames(t, "the folder", to.state(), from.state()...)

	from.write("/0/0", "changed")
	_, err = Mirror(ctx, from.folder(), theirs, MirrorOptions{})
	must(t, err)
	reaches(t, d, theirs.Version())
	sum, err = Mirror(soon(t), d, to.folder(), MirrorOptions{})
	must(t, err)
	if want := (Summary{Files: 301, Changed: 1, Equal: 300, BytesAdded: 7}); sum != want {
		t.Errorf("again: %+v, want %+v", sum, want)
	}
}

// TestWatch hears of a peer's changes below a folder, and of no others.
func TestWatch(t *testing.T) {
	ann, bob := memory(t), memory(t)
	theirs := newDriveIn(t, ann, Options{})
	put(t, theirs, "/seen/old", "1")
	d := openIn(t, bob, theirs.Key(), Options{})
	connect(t, ann, bob)
	reaches(t, d, theirs.Version())

	watching := make(chan struct{}) // closed once Watch has begun
	done := make(chan error, 1)
	go func() {
		for {
			select {
			case <-watching:
				b := theirs.Batch()
				done <- errors.Join(theirs.Put(ctx, "/other", nil, Attr{}), b.Put(ctx, "/seen/new", nil, Attr{}), b.Delete("/seen/old"), b.Flush(ctx))
				return
			case <-time.After(2 * time.Millisecond):
				if err := theirs.Put(ctx, "/seen/begin", nil, Attr{}); err != nil {
					done <- err
					return
				}
			}
		}
	}()
	limit, begun := soon(t), false
	for w, err := range d.Watch(limit, "/seen") {
		must(t, err)
		var changes []string
		n := 0
		for c, err := range w.Changes(limit, "/seen") {
			must(t, err)
			if n++; c.Name != "/seen/begin" {
				changes = append(changes, fmt.Sprint(c.Name, " ", c.Before != nil, c.Now != nil))
			} else if !begun {
				close(watching)
				begun = true
			}
		}
		if n == 0 {
			t.Error("heard of a change elsewhere")
		}
		if changes != nil {
			sameNames(t, "the changes", changes, "/seen/new false true", "/seen/old true false")
			break
		}
	}
	must(t, <-done)
}
