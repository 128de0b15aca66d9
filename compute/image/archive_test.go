package image_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"

	"github.com/tradle/cloudpal"
)

// archiveOf packs a layout directory into an oci-archive.
func archiveOf(t testing.TB, layout string) string {
	t.Helper()
	at := filepath.Join(t.TempDir(), "image.tar")
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.AddFS(os.DirFS(layout)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at, b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
	return at
}

// savedOf writes an image as docker save does.
func savedOf(t testing.TB, img v1.Image, tag string) string {
	t.Helper()
	ref, err := name.NewTag(tag)
	if err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(t.TempDir(), "saved.tar")
	if err := tarball.WriteToFile(at, ref, img); err != nil {
		t.Fatal(err)
	}
	return at
}

func TestEveryFormIsTheSameImage(t *testing.T) {
	needRoot(t)
	img := imageOf(t, layerOf(t, tarOf(t, base()...)), layerOf(t, tarOf(t, rich()...)))
	layout := layoutOf(t, img)
	want := readTree(t, umoci(t, layout, "test"))
	for form, path := range map[string]string{
		"layout": layout, "oci-archive": archiveOf(t, layout), "docker-archive": savedOf(t, img, "team/app:1"),
	} {
		t.Run(form, func(t *testing.T) {
			s := open(t)
			got, err := s.Import(t.Context(), path, "", nil)
			if err != nil {
				t.Fatal(err)
			}
			if form == "docker-archive" && got.Name != "team/app:1" {
				t.Errorf("its name is %q", got.Name)
			}
			compare(t, readTree(t, mountImage(t, got)), want)
			nothingLeft(t, s)
		})
	}
}

func TestEveryPackingIsTheSameLayer(t *testing.T) {
	t.Parallel()
	plain := tarOf(t, rich()...)
	z, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	var want string
	for packing, l := range map[string]v1.Layer{
		"gzip": layerOf(t, plain), "none": plainLayer(plain),
		"zstd": packedLayer{plainLayer(plain), z.EncodeAll(plain, nil), types.OCILayerZStd},
	} {
		img := imported(t, l)
		if want == "" {
			want = img.Layers[0].DiffID
		}
		if img.Layers[0].DiffID != want {
			t.Errorf("packed with %s it is %s, and otherwise %s", packing, img.Layers[0].DiffID, want)
		}
	}
}

// A packedLayer is a layer that is sent in another form.
type packedLayer struct {
	v1.Layer
	sent  []byte
	media types.MediaType
}

func (l packedLayer) Digest() (v1.Hash, error) {
	h, _, err := v1.SHA256(bytes.NewReader(l.sent))
	return h, err
}
func (l packedLayer) Size() (int64, error)                { return int64(len(l.sent)), nil }
func (l packedLayer) MediaType() (types.MediaType, error) { return l.media, nil }
func (l packedLayer) Compressed() (io.ReadCloser, error) {
	return io.NopCloser(bytes.NewReader(l.sent)), nil
}

// lyingLayer says that it unpacks to something else.
type lyingLayer struct{ v1.Layer }

func (lyingLayer) DiffID() (v1.Hash, error) { return v1.Hash{Algorithm: "sha256", Hex: sum64}, nil }

const sum64 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func TestTheConfigurationIsKept(t *testing.T) {
	t.Parallel()
	want := v1.Config{
		Entrypoint: []string{"/e", "a b"}, Cmd: []string{"c"}, Env: []string{"A=1 2"}, User: "app:staff", WorkingDir: "/w",
		StopSignal: "SIGQUIT", Volumes: map[string]struct{}{"/v2": {}, "/v1": {}},
		ExposedPorts: map[string]struct{}{"80/tcp": {}, "53/udp": {}}, Labels: map[string]string{"l": "x"},
	}
	made, err := mutate.Config(imageOf(t, layerOf(t, tarOf(t))), want)
	if err != nil {
		t.Fatal(err)
	}
	img, err := open(t).Import(t.Context(), layoutOf(t, made), "app", nil)
	if err != nil {
		t.Fatal(err)
	}
	c := img.Config
	equal(t, c.Entrypoint, []string{"/e", "a b"})
	equal(t, c.Cmd, []string{"c"})
	equal(t, c.Env, []string{"A=1 2"})
	equal(t, []string{c.User, c.WorkingDir, c.StopSignal, c.Labels["l"]}, []string{"app:staff", "/w", "SIGQUIT", "x"})
	equal(t, c.Volumes, []string{"/v1", "/v2"})
	equal(t, c.ExposedPorts, []string{"53/udp", "80/tcp"})
}

func equal(t *testing.T, got, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("got %q, want %q", got, want)
		return
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestBadFilesAreRefused(t *testing.T) {
	t.Parallel()
	good := imageOf(t, layerOf(t, tarOf(t, base()...)))
	for what, c := range map[string]struct {
		path string
		kind cloudpal.Kind
	}{
		"nothing there":       {filepath.Join(t.TempDir(), "none"), cloudpal.NotExist},
		"an empty directory":  {t.TempDir(), cloudpal.Invalid},
		"an empty file":       {fileOf(t, nil), cloudpal.Invalid},
		"text":                {fileOf(t, []byte("no image at all\n")), cloudpal.Invalid},
		"a packed archive":    {fileOf(t, packed(t, []byte("x"))), cloudpal.Invalid},
		"a cut archive":       {fileOf(t, half(t, archiveOf(t, layoutOf(t, good)))), cloudpal.Invalid},
		"a cut docker image":  {fileOf(t, half(t, savedOf(t, good, "a"))), cloudpal.Invalid},
		"a wrong digest":      {spoiled(t, layoutOf(t, good), flip), cloudpal.Corrupt},
		"a cut layer":         {spoiled(t, layoutOf(t, good), cut), cloudpal.Corrupt},
		"a lost layer":        {spoiled(t, layoutOf(t, good), func(p string) error { return os.Remove(p) }), cloudpal.Corrupt},
		"a link for a layer":  {spoiled(t, layoutOf(t, good), linkAway), cloudpal.Invalid},
		"a wrong diff ID":     {layoutOf(t, imageOf(t, lyingLayer{layerOf(t, tarOf(t, base()...))})), cloudpal.Corrupt},
		"no layers":           {layoutOf(t, imageOf(t)), cloudpal.Invalid},
		"index is no JSON":    {layoutWith(t, "{"), cloudpal.Invalid},
		"index without any":   {layoutWith(t, `{"schemaVersion":2,"manifests":[]}`), cloudpal.Invalid},
		"index of an index…":  {layoutWith(t, loopIndex), cloudpal.Corrupt},
		"digest climbs out":   {layoutWith(t, badDigest("../../../../etc/passwd")), cloudpal.Invalid},
		"digest unknown":      {layoutWith(t, badDigest("md5:d41d8cd98f00b204e9800998ecf8427e")), cloudpal.Invalid},
		"a huge index":        {layoutWith(t, string(bytes.Repeat([]byte(" "), 5<<20))), cloudpal.Invalid},
		"a layer of no kind":  {layoutOf(t, imageOf(t, packedLayer{layerOf(t, tarOf(t)), []byte("x"), "application/x-unknown"})), cloudpal.Invalid},
		"a layer of nonsense": {layoutOf(t, imageOf(t, plainLayer(bytes.Repeat([]byte("nonsense"), 1000)))), cloudpal.Invalid},
	} {
		t.Run(what, func(t *testing.T) {
			s := open(t)
			_, err := s.Import(t.Context(), c.path, "bad", nil)
			if err == nil {
				t.Fatal("taken in")
			}
			refused(t, s, err, c.kind, "")
			if list, err := s.List(t.Context()); len(list) > 0 || err != nil {
				t.Errorf("the store has %v, %v", list, err)
			}
		})
	}
}

const loopIndex = `{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[
{"mediaType":"application/vnd.oci.image.index.v1+json","size":10,"digest":"sha256:` + sum64 + `"}]}`

func badDigest(d string) string {
	return `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":10,"digest":"` + d + `"}]}`
}

func fileOf(t testing.TB, b []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file.tar")
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func packed(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := w.Write(b); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func half(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b[:len(b)/2]
}

func layoutWith(t testing.TB, index string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"oci-layout": `{"imageLayoutVersion":"1.0.0"}`, "index.json": index} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// spoiled changes the largest blob of a layout, which is the layer.
func spoiled(t testing.TB, layout string, change func(path string) error) string {
	t.Helper()
	largest, size := "", int64(0)
	err := filepath.WalkDir(layout, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Size() > size {
			largest, size = path, info.Size()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(largest, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := change(largest); err != nil {
		t.Fatal(err)
	}
	return layout
}

func flip(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	b[len(b)/2] ^= 1
	return os.WriteFile(path, b, 0o644)
}

func cut(path string) error { return os.Truncate(path, 100) }

func linkAway(path string) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return os.Symlink("/etc/passwd", path)
}
