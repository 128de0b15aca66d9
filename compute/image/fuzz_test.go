package image

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/tradle/cloudpal/compute/image/layer"
)

// small keeps the fuzzer from spending its time on size.
var small = Limits{Layer: layer.Limits{Bytes: 1 << 20, Entries: 1000}, JSON: 64 << 10, Layers: 8}

// anyBlob is a source that has one text under every digest.
type anyBlob []byte

func (b anyBlob) blob(context.Context, v1.Descriptor) (io.ReadCloser, error) {
	return nopCloser(b), nil
}
func (b anyBlob) manifest(context.Context, v1.Descriptor) (io.ReadCloser, error) {
	return nopCloser(b), nil
}

const fuzzHash = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// FuzzManifest reads manifests, indexes and configurations as they may come
// from a registry.
func FuzzManifest(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"schemaVersion":1}`, `{"schemaVersion":2,"manifests":[{"platform":{"os":"linux","architecture":"amd64"}}]}`,
		`{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":2,"digest":"` + fuzzHash + `","platform":{"os":"linux","architecture":"amd64"}}]}`,
		`{"schemaVersion":2,"config":{"mediaType":"application/vnd.oci.image.config.v1+json","size":2,"digest":"` + fuzzHash + `"},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","size":32,"digest":"` + fuzzHash + `"}]}`,
		`{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":["` + fuzzHash + `"]},"config":{"Env":["A=1"],"Volumes":{"/v":{}}}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		s := &Store{Limits: small}
		sum, size, err := v1.SHA256(bytes.NewReader(raw))
		if err != nil {
			t.Fatal(err)
		}
		d := v1.Descriptor{MediaType: types.OCIManifestSchema1, Digest: sum, Size: size}
		checkPlan(t, s, d, raw)
		p := plan{layers: make([]part, 1)}
		if s.configure(&p, raw) == nil {
			checkKeys(t, p)
		}
	})
}

func checkPlan(t *testing.T, s *Store, d v1.Descriptor, raw []byte) {
	t.Helper()
	p, err := s.resolve(t.Context(), anyBlob(raw), d)
	if err == nil {
		checkKeys(t, p)
	}
}

// checkKeys checks that what becomes the name of a file can be no other path.
func checkKeys(t *testing.T, p plan) {
	t.Helper()
	if p.id.Hex == "" {
		p.id = p.layers[0].diffID
	}
	for _, k := range p.keys() {
		if k = fileName(k); filepath.Base(k) != k || k == "." || k == ".." {
			t.Fatalf("%q is no name", k)
		}
	}
}

// FuzzImport takes in archives, as oci-archive, docker-archive and neither.
func FuzzImport(f *testing.F) {
	f.Add(fuzzTar(f, map[string]string{"index.json": `{"schemaVersion":2,"manifests":[]}`}))
	f.Add(fuzzTar(f, map[string]string{"manifest.json": `[{"Config":"c.json","Layers":["l.tar"]}]`,
		"c.json": `{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":["` + fuzzHash + `"]}}`, "l.tar": "x"}))
	f.Add(fuzzTar(f, map[string]string{"index.json": `{"schemaVersion":2,"manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","size":2,"digest":"` + fuzzHash + `"}]}`,
		"blobs/sha256/" + fuzzHash[7:]: "{}"}))
	f.Add([]byte("\x1f\x8b"))
	s, err := Open(f.TempDir())
	if err != nil {
		f.Fatal(err)
	}
	s.Limits = small
	at := filepath.Join(f.TempDir(), "fuzz.tar")
	f.Fuzz(func(t *testing.T, raw []byte) {
		if err := os.WriteFile(at, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Import(t.Context(), at, "fuzz", nil); err == nil {
			return
		}
		if left := s.Temporary(); len(left) > 0 {
			t.Fatalf("%q is left", left)
		}
	})
}

func fuzzTar(f *testing.F, files map[string]string) []byte {
	f.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, text := range files {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text))}); err != nil {
			f.Fatal(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			f.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		f.Fatal(err)
	}
	return b.Bytes()
}
