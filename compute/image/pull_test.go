package image_test

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute/image"
)

// A hub is a registry on loopback. spoil, where it is set, may change what a
// blob's download answers.
type hub struct {
	addr  string
	blobs atomic.Int64 // downloads
	spoil atomic.Pointer[func(http.ResponseWriter, *http.Request, http.Handler)]
}

func newHub(t testing.TB) *hub {
	t.Helper()
	h := &hub{}
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodGet && strings.Contains(r.URL.Path, "/blobs/sha256:") {
			h.blobs.Add(1)
			if f := h.spoil.Load(); f != nil {
				(*f)(w, r, inner)
				return
			}
		}
		inner.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	h.addr = strings.TrimPrefix(s.URL, "http://")
	return h
}

func (h *hub) ref(t testing.TB, repo string) name.Reference {
	t.Helper()
	ref, err := name.ParseReference(h.addr + "/" + repo)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

// push puts an image there and returns its reference.
func (h *hub) push(t testing.TB, repo string, img v1.Image) string {
	t.Helper()
	ref := h.ref(t, repo)
	if err := remote.Write(ref, img); err != nil {
		t.Fatal(err)
	}
	return ref.Name()
}

func TestPulledIsWhatUmociUnpacks(t *testing.T) {
	needRoot(t)
	l := layerOf(t, tarOf(t, rich()...))
	img, err := open(t).Pull(t.Context(), newHub(t).push(t, "team/app:1", imageOf(t, l)), image.PullOptions{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	compare(t, readTree(t, mountImage(t, img)), readTree(t, unpack(t, l)))
}

func TestPullTellsHowFarItIs(t *testing.T) {
	t.Parallel()
	ref := newHub(t).push(t, "app", imageOf(t, layerOf(t, tarOf(t, regular("big", pattern(5<<20)))), layerOf(t, tarOf(t, base()...))))
	last := map[string]image.Progress{}
	_, err := open(t).Pull(t.Context(), ref, image.PullOptions{}, func(p image.Progress) {
		if p.Done < last[p.Layer].Done {
			t.Errorf("%s goes back from %d to %d", p.Layer, last[p.Layer].Done, p.Done)
		}
		last[p.Layer] = p
	})
	if err != nil || len(last) != 2 {
		t.Fatalf("told of %d layers, and %v", len(last), err)
	}
	for _, p := range last {
		if p.Done != p.Total || p.Phase != image.Pulling {
			t.Errorf("the last news is %+v", p)
		}
	}
}

func TestPulledAgainFetchesNoLayer(t *testing.T) {
	t.Parallel()
	h, s := newHub(t), open(t)
	ref := h.push(t, "app", imageOf(t, layerOf(t, tarOf(t, base()...))))
	for range 2 {
		if _, err := s.Pull(t.Context(), ref, image.PullOptions{}, nil); err != nil {
			t.Fatal(err)
		}
	}
	if n := h.blobs.Load(); n != 3 { // two configurations, one layer
		t.Errorf("%d blobs were fetched, want 3", n)
	}
}

func TestManyPullsOfOneImageFetchItsLayersOnce(t *testing.T) {
	t.Parallel()
	h, s := newHub(t), open(t)
	ref := h.push(t, "app", imageOf(t, layerOf(t, tarOf(t, base()...)), layerOf(t, tarOf(t, rich()...))))
	const pulls = 8
	var wait sync.WaitGroup
	for range pulls {
		wait.Go(func() {
			if _, err := s.Pull(t.Context(), ref, image.PullOptions{}, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if n := h.blobs.Load(); n != pulls+2 { // a configuration each
		t.Errorf("%d blobs were fetched, want %d", n, pulls+2)
	}
	nothingLeft(t, s)
}

// forPlatforms makes an index with an image for each platform; each image's
// label tells for which.
func forPlatforms(t *testing.T, platforms ...string) v1.ImageIndex {
	t.Helper()
	var index v1.ImageIndex = empty.Index
	for _, p := range platforms {
		platform, err := v1.ParsePlatform(p)
		if err != nil {
			t.Fatal(err)
		}
		img := imageOf(t, layerOf(t, tarOf(t, regular("for", p))))
		c, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		c.OS, c.Architecture, c.Variant = platform.OS, platform.Architecture, platform.Variant
		c.Config.Labels = map[string]string{"for": p}
		if img, err = mutate.ConfigFile(img, c); err != nil {
			t.Fatal(err)
		}
		index = mutate.AppendManifests(index, mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: platform}})
	}
	return index
}

func TestOfManyArchitecturesTheHostsIsTaken(t *testing.T) {
	t.Parallel()
	h, mine := newHub(t), hostPlatform
	ref := h.ref(t, "many")
	index := forPlatforms(t, "linux/s390x", "windows/"+strings.TrimPrefix(mine, "linux/"), mine, "linux/riscv64")
	if err := remote.WriteIndex(ref, index); err != nil {
		t.Fatal(err)
	}
	img, err := open(t).Pull(t.Context(), ref.Name(), image.PullOptions{}, nil)
	if err != nil || img.Config.Labels["for"] != mine {
		t.Errorf("got the image for %q and %v", img.Config.Labels["for"], err)
	}
}

func TestAnImageForOthersIsRefused(t *testing.T) {
	t.Parallel()
	h := newHub(t)
	ref := h.ref(t, "others")
	if err := remote.WriteIndex(ref, forPlatforms(t, "linux/s390x", "linux/riscv64")); err != nil {
		t.Fatal(err)
	}
	s := open(t)
	_, err := s.Pull(t.Context(), ref.Name(), image.PullOptions{}, nil)
	refused(t, s, err, cloudpal.Invalid, "linux/s390x, linux/riscv64")
}

func TestPullTrouble(t *testing.T) {
	t.Parallel()
	img := imageOf(t, layerOf(t, tarOf(t, regular("big", pattern(3<<20)))))
	type spoiler = func(http.ResponseWriter, *http.Request, http.Handler)
	config, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	// layersOnly lets the configuration through.
	layersOnly := func(f spoiler) spoiler {
		return func(w http.ResponseWriter, r *http.Request, inner http.Handler) {
			if strings.HasSuffix(r.URL.Path, config.String()) {
				inner.ServeHTTP(w, r)
				return
			}
			f(w, r, inner)
		}
	}
	changed := func(change func([]byte) []byte) spoiler {
		return func(w http.ResponseWriter, r *http.Request, inner http.Handler) {
			rec := httptest.NewRecorder()
			inner.ServeHTTP(rec, r)
			w.Write(change(rec.Body.Bytes()))
		}
	}
	for what, c := range map[string]struct {
		spoil spoiler
		kind  cloudpal.Kind
	}{
		"a flipped bit":    {layersOnly(changed(func(b []byte) []byte { b[len(b)/2] ^= 4; return b })), cloudpal.Corrupt},
		"cut off":          {layersOnly(changed(func(b []byte) []byte { return b[:len(b)/2] })), cloudpal.Corrupt},
		"too long":         {layersOnly(changed(func(b []byte) []byte { return append(b, "more"...) })), cloudpal.Corrupt},
		"empty":            {layersOnly(changed(func(b []byte) []byte { return nil })), cloudpal.Corrupt},
		"another's config": {changed(func(b []byte) []byte { return []byte("{}") }), cloudpal.Corrupt},
		"gone":             {layersOnly(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(404) }), cloudpal.NotExist},
		"forbidden":        {layersOnly(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(403) }), cloudpal.Denied},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			h, s := newHub(t), open(t)
			ref := h.push(t, "app", img)
			h.spoil.Store(&c.spoil)
			_, err := s.Pull(t.Context(), ref, image.PullOptions{}, nil)
			refused(t, s, err, c.kind, "")
			h.spoil.Store(nil)
			if _, err := s.Pull(t.Context(), ref, image.PullOptions{}, nil); err != nil {
				t.Errorf("after the trouble: %v", err)
			}
		})
	}
}

func TestAConnectionThatBreaksIsTriedAgain(t *testing.T) {
	t.Parallel()
	h, s := newHub(t), open(t)
	ref := h.push(t, "app", imageOf(t, layerOf(t, tarOf(t, regular("big", random(3<<20))))))
	var broken atomic.Int64
	spoil := func(w http.ResponseWriter, r *http.Request, inner http.Handler) {
		rec := httptest.NewRecorder()
		inner.ServeHTTP(rec, r)
		b := rec.Body.Bytes()
		w.Header().Set("Content-Length", fmt.Sprint(len(b)))
		if len(b) > 1<<20 && broken.Add(1) == 1 {
			w.Write(b[:1<<20])
			panic(http.ErrAbortHandler)
		}
		w.Write(b)
	}
	h.spoil.Store(&spoil)
	if _, err := s.Pull(t.Context(), ref, image.PullOptions{}, nil); err != nil {
		t.Error(err)
	}
}

func TestNoRegistryThere(t *testing.T) {
	t.Parallel()
	s := open(t)
	_, err := s.Pull(t.Context(), "127.0.0.1:1/app", image.PullOptions{}, nil)
	refused(t, s, err, cloudpal.Missing, "")
	_, err = s.Pull(t.Context(), newHub(t).addr+"/nothing", image.PullOptions{}, nil)
	refused(t, s, err, cloudpal.NotExist, "")
	_, err = s.Pull(t.Context(), "No Name", image.PullOptions{}, nil)
	refused(t, s, err, cloudpal.Invalid, "")
}

func TestAPullThatIsGivenUpLeavesNothing(t *testing.T) {
	t.Parallel()
	h, s := newHub(t), open(t)
	ref := h.push(t, "app", imageOf(t, layerOf(t, tarOf(t, regular("big", random(2<<20))))))
	reached, ctx := make(chan struct{}), t.Context()
	spoil := func(w http.ResponseWriter, r *http.Request, inner http.Handler) {
		rec := httptest.NewRecorder()
		inner.ServeHTTP(rec, r)
		if b := rec.Body.Bytes(); len(b) > 1<<20 {
			w.Write(b[:1<<20])
			w.(http.Flusher).Flush()
			close(reached)
			<-r.Context().Done()
			return
		}
		w.Write(rec.Body.Bytes())
	}
	h.spoil.Store(&spoil)
	ctx, cancel := context.WithCancel(ctx)
	go func() { <-reached; cancel() }()
	start := time.Now()
	_, err := s.Pull(ctx, ref, image.PullOptions{}, nil)
	if err == nil || time.Since(start) > 20*time.Second {
		t.Errorf("got %v after %v", err, time.Since(start))
	}
	nothingLeft(t, s)
}

// refused checks that err is of that kind, is one sentence with a remedy, and
// that nothing of what was tried is left in the store.
func refused(t *testing.T, s *image.Store, err error, kind cloudpal.Kind, text string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("got error %v (%s), want kind %q", err, cloudpal.KindOf(err), kind)
		return
	}
	if cloudpal.HintOf(err) == "" {
		t.Errorf("no remedy for: %v", err)
	}
	if strings.Contains(err.Error(), "\n") || len(err.Error()) > 600 || !strings.Contains(err.Error(), text) {
		t.Errorf("not one clear sentence: %v", err)
	}
	nothingLeft(t, s)
}

// nothingLeft checks that nothing half-made is in the store.
func nothingLeft(t *testing.T, s *image.Store) {
	t.Helper()
	for _, dir := range s.Temporary() {
		t.Errorf("%s is left", dir)
	}
}

var hostPlatform = "linux/" + runtime.GOARCH

func random(n int) string {
	b := make([]byte, n)
	rand.Read(b)
	return string(b)
}
