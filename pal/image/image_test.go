package image

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/layout"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute/kernel"
)

const mke2fs = "/sbin/mke2fs"

func guests(t *testing.T) kernel.Kernel {
	t.Helper()
	k, err := kernel.Find("../../bin/kernel")
	if err != nil {
		if os.Getenv("CLOUDPAL_MUST_RUN") != "" {
			t.Fatal(err)
		}
		t.Skip("needs the guests' kernel: make setup")
	}
	return k
}

// build makes a small static program.
func build(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	source := filepath.Join(dir, "main.go")
	if err := os.WriteFile(source, []byte("package main\n\nfunc main() {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(dir, "program"), source)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return filepath.Join(dir, "program")
}

// What mke2fs is linked with is there, and what is linked with those.
func TestLinkedWithAllThatItNeeds(t *testing.T) {
	a := newArchive()
	if err := addLinked(a, mke2fs, "/usr/sbin/mke2fs"); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("ldd", mke2fs).Output()
	if err != nil {
		t.Fatal(err)
	}
	for word := range strings.FieldsSeq(string(out)) {
		if strings.HasPrefix(word, "/") && !a.has(word) {
			t.Errorf("%s is not there", word)
		}
	}
	if _, err := a.close(); err != nil {
		t.Error(err)
	}
}

func TestModulesAreThereOnceAndInOrder(t *testing.T) {
	a := newArchive()
	if err := (Parts{Kernel: guests(t)}).addModules(a); err != nil {
		t.Fatal(err)
	}
	data, err := a.close()
	if err != nil {
		t.Fatal(err)
	}
	text := string(data)
	begin := strings.Index(text, "libcurve25519_generic\n")
	order := strings.Fields(text[begin : begin+strings.IndexByte(text[begin:], 0)])
	if sorted := slices.Sorted(slices.Values(order)); len(slices.Compact(sorted)) != len(order) {
		t.Errorf("a module is there twice: %v", order)
	}
	for _, pair := range [][2]string{{"udp_tunnel", "wireguard"}, {"dm_mod", "dm_crypt"}, {"nf_conntrack", "nft_ct"}, {"wireguard", "-aesni_intel"}} {
		if i, j := slices.Index(order, pair[0]), slices.Index(order, pair[1]); i < 0 || j < i {
			t.Errorf("%s is not before %s: %v", pair[0], pair[1], order)
		}
	}
	for _, name := range order {
		if !a.has("/lib/modules/" + strings.TrimPrefix(name, "-") + ".ko") {
			t.Errorf("%s is in the order and not there", name)
		}
	}
}

func TestTheImage(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "core")
	parts := Parts{Program: build(t), Kernel: guests(t), Mke2fs: mke2fs}
	if err := os.MkdirAll(filepath.Join(dir, "what was there"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Write(dir, parts); err != nil {
		t.Fatal(err)
	}
	p, err := layout.FromPath(dir)
	if err != nil {
		t.Fatal(err)
	}
	index, err := p.ImageIndex()
	if err != nil {
		t.Fatal(err)
	}
	m, err := index.IndexManifest()
	if err != nil || len(m.Manifests) != 1 {
		t.Fatalf("got %v, %v", m, err)
	}
	img, err := index.Image(m.Manifests[0].Digest)
	if err != nil {
		t.Fatal(err)
	}
	file, err := img.ConfigFile()
	if err != nil || !slices.Equal(file.Config.Entrypoint, []string{"/usr/bin/cloudpal", "pal"}) || !file.Created.Equal(date) {
		t.Errorf("got %+v, %v", file, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "what was there")); err == nil {
		t.Error("what was there is there still")
	}
}

func TestWhatCannotBeMade(t *testing.T) {
	k, static := guests(t), build(t)
	for name, c := range map[string]struct {
		parts Parts
		want  cloudpal.Kind
		hint  string
	}{
		"a program that needs libraries": {Parts{mke2fs, k, mke2fs}, cloudpal.Invalid, "make build"},
		"no mke2fs":                      {Parts{static, k, "/nowhere/mke2fs"}, cloudpal.Missing, "e2fsprogs"},
		"no modules":                     {Parts{static, kernel.Kernel{Modules: t.TempDir()}, mke2fs}, cloudpal.Missing, "make setup"},
	} {
		dir := filepath.Join(t.TempDir(), "core")
		err := Write(dir, c.parts)
		if !errors.Is(err, c.want) || !strings.Contains(cloudpal.HintOf(err), c.hint) {
			t.Errorf("%s: got %v (%s)", name, err, cloudpal.HintOf(err))
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("%s: something was made", name)
		}
	}
}
