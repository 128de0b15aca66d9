package kernel

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
)

// distribution lays out a kernel as the distribution's package does, with the
// modules that a guest needs, and returns it and a program for /init.
func distribution(t *testing.T) (dir, vminit string) {
	t.Helper()
	dir = t.TempDir()
	write(t, filepath.Join(dir, "boot/vmlinuz-6.1.0-1-cloud-amd64"), bzImage(packings[1].pack(t, tinyKernel(5000))))
	lib := filepath.Join(dir, "lib/modules/6.1.0-1-cloud-amd64")
	write(t, filepath.Join(lib, "modules.builtin"), []byte("kernel/drivers/char/hw_random/virtio-rng.ko\n"))
	for _, name := range []string{"virtio_mmio", "virtio_blk", "virtio_net", "erofs", "overlay"} {
		write(t, filepath.Join(lib, "kernel", name+".ko"), signed(module("name="+name+"\x00depends=virtio\x00"), "signature"))
	}
	write(t, filepath.Join(lib, "kernel/virtio.ko"), module("depends=\x00"))
	vminit = filepath.Join(dir, "vminit")
	write(t, vminit, []byte("the program"))
	return dir, vminit
}

func prepared(t *testing.T, dir, cache, vminit string) Prepared {
	t.Helper()
	k, err := Find(dir)
	if err != nil {
		t.Fatal(err)
	}
	p, err := k.Prepare(cache, vminit)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestPrepareMakesWhatAGuestBoots(t *testing.T) {
	dir, vminit := distribution(t)
	p := prepared(t, dir, filepath.Join(t.TempDir(), "not/there/yet"), vminit)
	vmlinux, err := os.ReadFile(p.VMLinux)
	if err != nil || !bytes.Equal(vmlinux, tinyKernel(5000)) {
		t.Errorf("got a kernel of %d bytes, %v", len(vmlinux), err)
	}
	want := []string{"virtio.ko", "virtio_mmio.ko", "virtio_blk.ko", "virtio_net.ko", "erofs.ko", "overlay.ko"}
	if !slices.Equal(p.Modules, want) {
		t.Errorf("got modules %v, want %v", p.Modules, want)
	}
	var initrd bytes.Buffer
	if err := p.Initrd(&initrd, []File{{Name: "config.json", Mode: 0o600, Data: []byte("{}")}}); err != nil {
		t.Fatal(err)
	}
	files := unpacked(t, initrd.Bytes())
	if got := string(files["init"].Data); got != "the program" || files["init"].Mode.Perm() != 0o755 {
		t.Errorf("/init: got %q, %v", got, files["init"].Mode)
	}
	if got := string(files["config.json"].Data); got != "{}" {
		t.Errorf("/config.json: got %q", got)
	}
	for _, m := range p.Modules {
		if data := files["modules/"+m].Data; len(data) == 0 || bytes.Contains(data, []byte(signatureMark)) {
			t.Errorf("/modules/%s: got %d bytes, want it without its signature", m, len(data))
		}
	}
	if c := files["dev/console"]; c.Major != 5 || c.Minor != 1 {
		t.Errorf("/dev/console: got %d:%d, want 5:1", c.Major, c.Minor)
	}
}

func TestPrepareTwiceMakesNothingNew(t *testing.T) {
	dir, vminit := distribution(t)
	cache := t.TempDir()
	first := prepared(t, dir, cache, vminit)
	before := listing(t, cache)
	second := prepared(t, dir, cache, vminit)
	if second.VMLinux != first.VMLinux || second.base != first.base {
		t.Errorf("got %v, want %v", second, first)
	}
	if after := listing(t, cache); after != before {
		t.Errorf("got %s, want %s", after, before)
	}
}

func TestPrepareFollowsAChange(t *testing.T) {
	dir, vminit := distribution(t)
	cache := t.TempDir()
	first := prepared(t, dir, cache, vminit)
	write(t, vminit, []byte("a newer program"))
	second := prepared(t, dir, cache, vminit)
	if second.base == first.base || second.VMLinux != first.VMLinux {
		t.Errorf("got %v after %v, want the same kernel and another initrd", second, first)
	}
}

// TestPrepareSurvivesAKill finds what a process leaves that was ended while it
// wrote.
func TestPrepareSurvivesAKill(t *testing.T) {
	dir, vminit := distribution(t)
	cache := t.TempDir()
	write(t, filepath.Join(cache, ".new-123"), []byte("half of it"))
	p := prepared(t, dir, cache, vminit)
	vmlinux, err := os.ReadFile(p.VMLinux)
	if err != nil || !bytes.Equal(vmlinux, tinyKernel(5000)) {
		t.Errorf("got a kernel of %d bytes, %v", len(vmlinux), err)
	}
}

func TestPrepareThatFailsLeavesNothing(t *testing.T) {
	dir, vminit := distribution(t)
	k, err := Find(dir)
	if err != nil {
		t.Fatal(err)
	}
	write(t, k.Image, []byte("not a kernel"))
	cache := t.TempDir()
	_, err = k.Prepare(cache, vminit)
	if cloudpal.KindOf(err) != cloudpal.Corrupt || cloudpal.HintOf(err) == "" {
		t.Errorf("got %v, want %v with a hint", err, cloudpal.Corrupt)
	}
	if got := listing(t, cache); got != "" {
		t.Errorf("got %s, want nothing", got)
	}
	dir, _ = distribution(t)
	if k, err = Find(dir); err != nil {
		t.Fatal(err)
	}
	_, err = k.Prepare(cache, filepath.Join(dir, "no-vminit"))
	if !strings.Contains(cloudpal.HintOf(err), "make build") || !strings.Contains(err.Error(), "no-vminit") {
		t.Errorf("without vminit: got %v, hint %q", err, cloudpal.HintOf(err))
	}
	if err := os.Remove(k.Image); err != nil {
		t.Fatal(err)
	}
	_, err = k.Prepare(cache, vminit)
	if !strings.Contains(cloudpal.HintOf(err), "make setup") {
		t.Errorf("without a kernel: got %v, hint %q", err, cloudpal.HintOf(err))
	}
}

// listing names the files in dir with their times.
func listing(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list strings.Builder
	for _, e := range entries {
		list.WriteString(e.Name() + " " + modified(filepath.Join(dir, e.Name())).Format(time.RFC3339Nano) + "\n")
	}
	return list.String()
}

func TestFindTakesTheNewest(t *testing.T) {
	dir, _ := distribution(t)
	old := filepath.Join(dir, "boot/vmlinuz-9.9.9-older")
	write(t, old, nil)
	if err := os.Chtimes(old, time.Time{}, time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	k, err := Find(dir)
	if want := "6.1.0-1-cloud-amd64"; err != nil || k.Release != want {
		t.Errorf("got %q, %v; want %q", k.Release, err, want)
	}
}

func TestFindSaysWhatIsMissing(t *testing.T) {
	empty := t.TempDir()
	withoutModules := t.TempDir()
	write(t, filepath.Join(withoutModules, "boot/vmlinuz-1"), nil)
	for _, dir := range []string{empty, withoutModules} {
		_, err := Find(dir)
		if cloudpal.KindOf(err) != cloudpal.Missing || cloudpal.HintOf(err) == "" {
			t.Errorf("got %v, want %v with a hint", err, cloudpal.Missing)
		}
	}
}
