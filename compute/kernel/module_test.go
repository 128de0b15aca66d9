package kernel

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/tradle/cloudpal"
)

// tree makes a directory of modules: files is the content by path, builtin what
// modules.builtin lists.
func tree(t *testing.T, builtin string, files map[string][]byte) string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "modules.builtin"), []byte(builtin))
	for name, data := range files {
		write(t, filepath.Join(dir, "kernel", name), data)
	}
	return dir
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o755); err != nil {
		t.Fatal(err)
	}
}

func TestModulesComeAfterWhatTheyNeed(t *testing.T) {
	dir := tree(t, "kernel/lib/crc16.ko\nkernel/drivers/virtio/virtio-ring.ko\n", map[string][]byte{
		"drivers/net/virtio_net.ko":      module("license=GPL\x00depends=net_failover,virtio-ring\x00"),
		"drivers/net/net_failover.ko":    module("depends=failover\x00name=net_failover\x00"),
		"net/core/failover.ko":           module("depends=\x00"),
		"drivers/char/virtio-rng.ko":     module("depends=\x00"),
		"fs/never-asked-for.ko":          module("depends=missing\x00"),
		"drivers/net/virtio_net.txt":     []byte("no module"),
		"drivers/net/modules.order":      []byte("no module"),
		"drivers/block/failover/Kconfig": []byte("no module"),
	})
	got, err := loadOrder(dir, []string{"virtio_net", "crc16", "virtio_rng", "failover", "virtio-net"})
	want := []string{"failover.ko", "net_failover.ko", "virtio_net.ko", "virtio-rng.ko"}
	if err != nil || !slices.Equal(bases(got), want) {
		t.Errorf("got %v, %v; want %v", bases(got), err, want)
	}
}

func bases(paths []string) []string {
	var names []string
	for _, p := range paths {
		names = append(names, filepath.Base(p))
	}
	return names
}

func TestModulesInACircleAreListedOnce(t *testing.T) {
	dir := tree(t, "", map[string][]byte{
		"a.ko": module("depends=b\x00"), "b.ko": module("depends=c\x00"), "c.ko": module("depends=a\x00"),
		"self.ko": module("depends=self\x00"),
	})
	got, err := loadOrder(dir, []string{"a", "self"})
	if want := []string{"c.ko", "b.ko", "a.ko", "self.ko"}; err != nil || !slices.Equal(bases(got), want) {
		t.Errorf("got %v, %v; want %v", bases(got), err, want)
	}
}

func TestModulesAreReadAsTheKernelLoadsThem(t *testing.T) {
	needed := module("depends=\x00")
	k := Kernel{Modules: tree(t, "kernel/lib/crc16.ko\n", map[string][]byte{
		"net/wire-guard.ko": signed(module("depends=udp-tunnel,crc16\x00"), "signature"),
		"net/udp_tunnel.ko": signed(needed, "signature"),
	})}
	got, err := k.ReadModules([]string{"wire_guard"})
	if err != nil || len(got) != 2 || got[0].Name != "udp_tunnel" || got[1].Name != "wire_guard" || !bytes.Equal(got[0].Data, needed) {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := k.ReadModules([]string{"none"}); !errors.Is(err, cloudpal.Missing) {
		t.Errorf("a module that is not there: %v", err)
	}
}

func TestLoadOrderRefuses(t *testing.T) {
	dir := tree(t, "", map[string][]byte{
		"needy.ko": module("depends=missing\x00"),
		"text.ko":  []byte("not a module"),
		"mute.ko":  tinyKernel(0),
		"cut.ko":   module("depends=\x00")[:70],
	})
	for _, c := range []struct {
		name string
		kind cloudpal.Kind
		says string
	}{
		{"gone", cloudpal.Missing, "gone"},
		{"needy", cloudpal.Missing, "missing"},
		{"text", cloudpal.Corrupt, "text"},
		{"mute", cloudpal.Corrupt, "does not say what it is"},
		{"cut", cloudpal.Corrupt, "cut"},
	} {
		_, err := loadOrder(dir, []string{c.name})
		if err == nil || cloudpal.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.says) || cloudpal.HintOf(err) == "" {
			t.Errorf("%s: got %v, hint %q; want %v with a hint", c.name, err, cloudpal.HintOf(err), c.kind)
		}
	}
	_, err := loadOrder(t.TempDir(), nil)
	if cloudpal.KindOf(err) != cloudpal.Missing || cloudpal.HintOf(err) == "" {
		t.Errorf("an empty directory: got %v, want %v with a hint", err, cloudpal.Missing)
	}
}

func TestReadModuleUndoesCompressionAndSignature(t *testing.T) {
	want := module("depends=\x00")
	plain := signed(want, "a signature")
	dir := t.TempDir()
	for name, data := range map[string][]byte{
		"m.ko":     plain,
		"u.ko":     want,
		"m.ko.xz":  compress(t, plain, func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) }),
		"m.ko.zst": compress(t, plain, func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) }),
	} {
		path := filepath.Join(dir, name)
		write(t, path, data)
		got, err := readModule(path)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: got %d bytes, %v; want %d as they were", name, len(got), err, len(want))
		}
		if strings.HasSuffix(name, ".ko") {
			continue
		}
		write(t, path, data[:len(data)/2])
		if _, err := readModule(path); err == nil {
			t.Errorf("half of %s is a module", name)
		}
	}
}

func TestReadModuleRefusesOneThatIsTooLarge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m.ko.zst")
	write(t, path, compress(t, make([]byte, maxModule+1), func(w io.Writer) (io.WriteCloser, error) {
		return zstd.NewWriter(w)
	}))
	if got, err := readModule(path); err == nil {
		t.Errorf("got %d bytes, want an error", len(got))
	}
}

func TestStripSignatureLeavesWhatIsNotOne(t *testing.T) {
	for _, b := range [][]byte{
		nil, []byte("module"), []byte(signatureMark), []byte("short" + signatureMark),
		append(append([]byte("module12345678"), 0xff, 0xff, 0xff, 0xff), signatureMark...),
		append(append([]byte("module12345678"), 0, 0, 0, 7), signatureMark...),
	} {
		if got := stripSignature(b); !bytes.Equal(got, b) {
			t.Errorf("got %q, want %q", got, b)
		}
	}
}

func FuzzStripSignature(f *testing.F) {
	f.Add(signed([]byte("module"), "signature"))
	f.Add(signed(nil, ""))
	f.Add([]byte("~~~~~~~~~~~~" + signatureMark))
	f.Fuzz(func(t *testing.T, b []byte) {
		got := stripSignature(b)
		if !bytes.HasPrefix(b, got) {
			t.Error("what is left is not how it began")
		}
		if again := stripSignature(signed(b, "signature")); !bytes.Equal(again, b) {
			t.Errorf("signed and stripped: got %d bytes, want %d", len(again), len(b))
		}
	})
}

func FuzzDependencies(f *testing.F) {
	f.Add(module("license=GPL\x00depends=a,b\x00"))
	f.Add(module("depends=,,\x00depends"))
	f.Add(tinyKernel(0))
	f.Fuzz(func(t *testing.T, b []byte) {
		needs, err := dependencies(b)
		if err != nil && needs != nil {
			t.Errorf("got %q beside %v", needs, err)
		}
		for _, n := range needs {
			if n == "" || strings.ContainsAny(n, ",\x00") {
				t.Errorf("got a module called %q", n)
			}
		}
	})
}

// FuzzModinfo spends the fuzzer's time on the strings.
func FuzzModinfo(f *testing.F) {
	f.Add("license=GPL\x00depends=a,b\x00", "c")
	f.Fuzz(func(t *testing.T, before, need string) {
		need = strings.Trim(strings.NewReplacer(",", "", "\x00", "").Replace(need), " ")
		if need == "" {
			return
		}
		needs, err := dependencies(module(before + "\x00depends=" + need + "\x00"))
		if err != nil || len(needs) == 0 || needs[len(needs)-1] != need {
			t.Errorf("got %q, %v; want %q last", needs, err, need)
		}
	})
}
