package image_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute/image"
)

// keep imports an image of the files into s.
func keep(t testing.TB, s *image.Store, name string, layers ...v1.Layer) image.Image {
	t.Helper()
	img, err := s.Import(t.Context(), layoutOf(t, imageOf(t, layers...)), name, nil)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func there(img image.Image) bool {
	for _, l := range img.Layers {
		if _, err := os.Stat(l.Path); err != nil {
			return false
		}
	}
	return true
}

func TestCollectKeepsWhatIsNamedOrInUse(t *testing.T) {
	t.Parallel()
	s := open(t)
	common := layerOf(t, tarOf(t, base()...))
	named := keep(t, s, "named", common, layerOf(t, tarOf(t, regular("a", "a"))))
	used := keep(t, s, "used", common, layerOf(t, tarOf(t, regular("b", "b"))))
	gone := keep(t, s, "gone", common, layerOf(t, tarOf(t, regular("c", pattern(100_000)))))
	for _, name := range []string{"used", "gone"} {
		if err := s.Remove(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	freed, err := s.Collect(t.Context(), []string{used.ID})
	if err != nil || freed < 100_000 {
		t.Errorf("freed %d bytes, %v", freed, err)
	}
	if !there(named) || !there(used) {
		t.Error("a layer in use is gone")
	}
	if _, err := os.Stat(gone.Layers[1].Path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an unused layer is there: %v", err)
	}
	if _, err := s.Get(gone.ID); !errors.Is(err, cloudpal.NotExist) {
		t.Errorf("the image is still known: %v", err)
	}
	if img, err := s.Get(used.ID); err != nil || img.Name != "" {
		t.Errorf("the image in use: %+v, %v", img, err)
	}
	nothingLeft(t, s)
}

func TestCollectLeavesPullsAlone(t *testing.T) {
	t.Parallel()
	s := open(t)
	var wait sync.WaitGroup
	for i := range 6 {
		wait.Go(func() {
			img := keep(t, s, fmt.Sprintf("image%d", i), layerOf(t, tarOf(t, base()...)), layerOf(t, tarOf(t, regular("own", fmt.Sprint(i)))))
			if !there(img) {
				t.Error("a layer of a new image is gone")
			}
		})
		wait.Go(func() {
			if _, err := s.Collect(t.Context(), nil); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if list, err := s.List(t.Context()); len(list) != 6 || err != nil {
		t.Errorf("%d images, %v", len(list), err)
	}
}

func TestANameIsMoved(t *testing.T) {
	t.Parallel()
	s := open(t)
	old := keep(t, s, "app:1", layerOf(t, tarOf(t, regular("v", "1"))))
	now := keep(t, s, "app:1", layerOf(t, tarOf(t, regular("v", "2"))))
	if got, err := s.Get("app:1"); err != nil || got.ID != now.ID {
		t.Errorf("got %v, %v", got.ID, err)
	}
	if _, err := s.Collect(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if there(old) {
		t.Error("the layers of the old image are there")
	}
}

func TestGetFindsByNameAndID(t *testing.T) {
	t.Parallel()
	s := open(t)
	img := keep(t, s, "team/app:1", layerOf(t, tarOf(t, base()...)))
	for _, name := range []string{"team/app:1", "docker.io/team/app:1", img.ID, img.ID[7:19]} {
		if got, err := s.Get(name); err != nil || got.ID != img.ID {
			t.Errorf("%s: got %q, %v", name, got.ID, err)
		}
	}
	for _, name := range []string{"team/app", "app:1", "abc", "Not A Name", "../names"} {
		_, err := s.Get(name)
		if !errors.Is(err, cloudpal.NotExist) || cloudpal.HintOf(err) == "" {
			t.Errorf("%s: got %v with the remedy %q", name, err, cloudpal.HintOf(err))
		}
	}
}

func TestADamagedRecordHidesNoOther(t *testing.T) {
	t.Parallel()
	s := open(t)
	good := keep(t, s, "good", layerOf(t, tarOf(t, regular("a", "a"))))
	keep(t, s, "bad", layerOf(t, tarOf(t, regular("b", "b"))))
	names, err := filepath.Glob(filepath.Join(s.Dir(), "names", "*bad*"))
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	if err := os.WriteFile(names[0], []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get("bad"); !errors.Is(err, cloudpal.Corrupt) || cloudpal.HintOf(err) == "" {
		t.Errorf("got %v", err)
	}
	if got, err := s.Get("good"); err != nil || got.ID != good.ID {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := s.List(t.Context()); err != nil {
		t.Error(err)
	}
	keep(t, s, "bad", layerOf(t, tarOf(t, regular("b", "b"))))
	if _, err := s.Get("bad"); err != nil {
		t.Errorf("after another import: %v", err)
	}
}

func TestADamagedLayerIsMadeAgain(t *testing.T) {
	t.Parallel()
	s := open(t)
	layout := layoutOf(t, imageOf(t, layerOf(t, tarOf(t, base()...))))
	for what, damage := range map[string]func(path string) error{
		"cut":                     func(p string) error { return os.Truncate(p, 4096) },
		"gone":                    os.Remove,
		"gone with its directory": func(p string) error { return os.RemoveAll(filepath.Dir(p)) },
		"not described":           func(p string) error { return os.Remove(filepath.Join(filepath.Dir(p), "about.json")) },
	} {
		img, err := s.Import(t.Context(), layout, "app", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := damage(img.Layers[0].Path); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Get("app"); what != "not described" && (!errors.Is(err, cloudpal.Corrupt) || cloudpal.HintOf(err) == "") {
			t.Errorf("%s: got %v", what, err)
		}
		if _, err := s.Import(t.Context(), layout, "app", nil); err != nil {
			t.Errorf("%s: again: %v", what, err)
		}
		if _, err := s.Get("app"); err != nil {
			t.Errorf("%s: still %v", what, err)
		}
	}
}

// TestTwoStoresInOnePlace: two programs take in the same image at a time.
func TestTwoStoresInOnePlace(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	layout := layoutOf(t, imageOf(t, layerOf(t, tarOf(t, base()...)), layerOf(t, tarOf(t, rich()...))))
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			s, err := image.Open(dir)
			if err == nil {
				_, err = s.Import(t.Context(), layout, "same", nil)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
}

// dieIn, dieFrom and dieAt tell a second run of this program to take an image
// in and to be killed on the way.
const dieIn, dieFrom, dieAt = "IMAGE_TEST_DIE_IN", "IMAGE_TEST_DIE_FROM", "IMAGE_TEST_DIE_AT"

// TestDie is no test, but what TestKilledInTheMiddle runs and kills.
func TestDie(t *testing.T) {
	if os.Getenv(dieIn) == "" {
		t.Skip("only run by another test")
	}
	s, err := image.Open(os.Getenv(dieIn))
	if err != nil {
		t.Fatal(err)
	}
	var at int64
	if _, err := fmt.Sscan(os.Getenv(dieAt), &at); err != nil {
		t.Fatal(err)
	}
	var all int64
	s.Import(t.Context(), os.Getenv(dieFrom), "victim", func(image.Progress) {
		if all++; all == at {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	})
}

func TestKilledInTheMiddle(t *testing.T) {
	t.Parallel()
	layout := layoutOf(t, imageOf(t, layerOf(t, tarOf(t, regular("one", random(3<<20)))), layerOf(t, tarOf(t, regular("two", random(3<<20))))))
	for at := 1; at <= 10; at += 3 {
		t.Run(fmt.Sprintf("after %d steps", at), func(t *testing.T) {
			dir := t.TempDir()
			victim(t, dir, layout, fmt.Sprint(at)).Run()
			recovered(t, dir, layout)
		})
	}
	for _, sub := range []string{"temp", "layers", "images", "names"} {
		t.Run("when something is in "+sub, func(t *testing.T) {
			dir := t.TempDir()
			cmd := victim(t, dir, layout, "-1")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			awaitEntry(t, filepath.Join(dir, sub))
			cmd.Process.Kill()
			cmd.Wait()
			recovered(t, dir, layout)
		})
	}
}

func victim(t *testing.T, dir, layout, at string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestDie$")
	cmd.Env = append(os.Environ(), dieIn+"="+dir, dieFrom+"="+layout, dieAt+"="+at)
	return cmd
}

// awaitEntry waits until there is something in a directory.
func awaitEntry(t *testing.T, dir string) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for time.Now().Before(deadline) {
		if list, _ := os.ReadDir(dir); len(list) > 0 {
			return
		}
	}
	t.Fatalf("nothing came to %s", dir)
}

// recovered checks that the store is whole, whatever happened before, and
// takes the image in.
func recovered(t *testing.T, dir, layout string) {
	t.Helper()
	s, err := image.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	nothingLeft(t, s)
	list, err := s.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, img := range list {
		if !there(img) {
			t.Errorf("%s is known, but not whole", img.Name)
		}
	}
	if _, err := s.Collect(t.Context(), nil); err != nil {
		t.Error(err)
	}
	img, err := s.Import(t.Context(), layout, "victim", nil)
	if err != nil || !there(img) {
		t.Errorf("taken in again: %v", err)
	}
}

// TestSparseFilesAreSparse takes in a file of 5 GiB that is mostly a hole.
func TestSparseFilesAreSparse(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const size = 5 << 30
	places := []int64{0, 1 << 20, 4<<30 - 5, 4<<30 + 12345, size - 3}
	for _, at := range places {
		if _, err := f.WriteAt([]byte("abc"), at); err != nil {
			t.Fatal(err)
		}
	}
	archive := filepath.Join(t.TempDir(), "sparse.tar")
	run(t, "tar", "--create", "--sparse", "--format=pax", "--file", archive, "--directory", dir, "sparse")
	sparse, err := os.ReadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	img := imported(t, layerOf(t, sparse))
	if img.Size > 10<<20 {
		t.Errorf("it takes %d bytes", img.Size)
	}
	got, err := os.Open(filepath.Join(mountFile(t, img.Layers[0].Path), "sparse"))
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	if info, err := got.Stat(); err != nil || info.Size() != size {
		t.Fatalf("got %v, %v", info, err)
	}
	for _, at := range places {
		b := make([]byte, 7)
		want := "abc\x00\x00\x00\x00"
		n, _ := got.ReadAt(b, at)
		if string(b[:n]) != want[:n] || n < 3 {
			t.Errorf("at %d: got %q", at, b[:n])
		}
	}
}

func TestOpenRefusesAPlaceThatIsNone(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := image.Open(filepath.Join(file, "store"))
	if err == nil || cloudpal.HintOf(err) == "" || strings.Contains(err.Error(), "\n") {
		t.Errorf("got %v", err)
	}
}
