package kernel

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/tradle/cloudpal"
)

func TestExtractEachCompression(t *testing.T) {
	for _, p := range packings {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			for _, size := range []int{0, 1000, 500_000} {
				want := tinyKernel(size)
				got, err := Extract(bzImage(p.pack(t, want)))
				if err != nil || !bytes.Equal(got, want) {
					t.Errorf("%d bytes: got %d bytes, %v; want %d as they were", size, len(got), err, len(want))
				}
			}
		})
	}
}

func TestExtractMoreThanOneBlockOfLZ4(t *testing.T) {
	want := tinyKernel(9 << 20) // a block has 8 MiB
	got, err := Extract(bzImage(packings[1].pack(t, want)))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, %v; want %d as they were", len(got), err, len(want))
	}
}

func TestExtractWhatIsUncompressedAlready(t *testing.T) {
	want := tinyKernel(10)
	if got, err := Extract(want); err != nil || !bytes.Equal(got, want) {
		t.Errorf("got %d bytes, %v; want the same %d", len(got), err, len(want))
	}
}

// TestExtractAsTheToolsOfAKernelBuildPack packs with the programs that Linux's
// build calls, where this machine has them.
func TestExtractAsTheToolsOfAKernelBuildPack(t *testing.T) {
	for _, command := range []string{
		"gzip -n -9", "lz4 -l -9 -", "zstd -22 --ultra", "xz --check=crc32 --lzma2=dict=8MiB",
	} {
		args := strings.Fields(command)
		if _, err := exec.LookPath(args[0]); err != nil {
			t.Logf("%s is not tried: it is not here", args[0])
			continue
		}
		want := tinyKernel(100_000)
		cmd := exec.Command(args[0], append(args[1:], "-c")...)
		if args[0] == "lz4" {
			cmd = exec.Command(args[0], append(args[1:], "-")...)
		}
		cmd.Stdin = bytes.NewReader(want)
		packed, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v", command, err)
		}
		if args[0] != "gzip" {
			packed = sized(want, packed)
		}
		got, err := Extract(bzImage(packed))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: got %d bytes, %v; want %d as they were", command, len(got), err, len(want))
		}
	}
}

func TestExtractRefuses(t *testing.T) {
	kernel := tinyKernel(10_000)
	whole := bzImage(packings[1].pack(t, kernel))
	changed := func(at int, with ...byte) []byte {
		b := bytes.Clone(whole)
		copy(b[at:], with)
		return b
	}
	pack := packings[1].pack
	withoutPVH := bytes.Replace(kernel, []byte("Xen"), []byte("Zen"), 1)
	forARM := bytes.Clone(kernel)
	binary.LittleEndian.PutUint16(forARM[18:], 183)
	for _, c := range []struct {
		what  string
		image []byte
		kind  cloudpal.Kind
		says  string
	}{
		{"nothing", nil, cloudpal.Corrupt, "not a Linux bzImage"},
		{"a script", bytes.Repeat([]byte("#!/bin/sh\n"), 100), cloudpal.Corrupt, "not a Linux bzImage"},
		{"only the header", whole[:headerEnd], cloudpal.Corrupt, "cut short"},
		{"half of it", whole[:len(whole)/2], cloudpal.Corrupt, "cut short"},
		{"an old boot protocol", changed(headerVersion, 7, 2), cloudpal.Corrupt, "older than 2.08"},
		{"a payload beyond the end", changed(payloadOffset, 0xff, 0xff, 0xff, 0xff), cloudpal.Corrupt, "cut short"},
		{"a payload of nothing", changed(payloadLength, 0, 0, 0, 0), cloudpal.Corrupt, "cut short"},
		{"a compression of its own", bzImage([]byte("BZh91AY&SY....")), cloudpal.Corrupt, "unknown compression"},
		{"no ELF inside", bzImage(pack(t, []byte("hello"))), cloudpal.Invalid, "not an ELF"},
		{"no PVH entry", bzImage(pack(t, withoutPVH)), cloudpal.Invalid, "PVH"},
		{"another processor's", bzImage(pack(t, forARM)), cloudpal.Invalid, "not x86-64"},
	} {
		refused(t, c.what, c.image, c.kind, c.says)
	}
}

// TestExtractRefusesCutAndGrownStreams lies in each compression about how long
// it is.
func TestExtractRefusesCutAndGrownStreams(t *testing.T) {
	kernel := tinyKernel(10_000)
	for _, p := range packings {
		packed := p.pack(t, kernel)
		refused(t, p.name+" cut in the middle", bzImage(packed[:len(packed)/2]), cloudpal.Corrupt, "")
		for _, size := range []uint32{0, 1, uint32(len(kernel)) - 1, uint32(len(kernel)) + 1, maxKernel, maxKernel + 1, 1<<32 - 1} {
			lie := bytes.Clone(packed)
			binary.LittleEndian.PutUint32(lie[len(lie)-4:], size)
			refused(t, p.name+" of another size", bzImage(lie), cloudpal.Corrupt, "bytes uncompressed")
		}
	}
}

// TestExtractStopsAtTheSizeThatIsPromised unpacks a bomb. That it costs little
// is what the test is about.
func TestExtractStopsAtTheSizeThatIsPromised(t *testing.T) {
	for _, p := range packings[:3] { // xz would take a second to make it
		packed := p.pack(t, make([]byte, 64<<20))
		binary.LittleEndian.PutUint32(packed[len(packed)-4:], 1000)
		image := bzImage(packed)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		refused(t, p.name, image, cloudpal.Corrupt, "bytes uncompressed")
		runtime.ReadMemStats(&after)
		most := after.TotalAlloc - before.TotalAlloc
		if most > 48<<20 {
			t.Errorf("%s: a bomb of 64 MiB that promises 1000 bytes takes %d MiB", p.name, most>>20)
		}
	}
}

func TestExtractRefusesAnImageThatIsTooLarge(t *testing.T) {
	refused(t, "an image of 256 MiB and a byte", make([]byte, maxImage+1), cloudpal.Invalid, "bytes")
}

func refused(tb testing.TB, what string, image []byte, kind cloudpal.Kind, says string) {
	tb.Helper()
	got, err := Extract(image)
	if err == nil {
		tb.Fatalf("%s: got %d bytes, want an error", what, len(got))
	}
	if k := cloudpal.KindOf(err); k != kind {
		tb.Errorf("%s: got %v (%v), want %v", what, k, err, kind)
	}
	if !strings.Contains(err.Error(), says) {
		tb.Errorf("%s: got %q, want it to say %q", what, err, says)
	}
	if cloudpal.HintOf(err) == "" {
		tb.Errorf("%s: got no hint for %v", what, err)
	}
}

// TestExtractDebians takes the distribution's kernel, where make setup puts it.
func TestExtractDebians(t *testing.T) {
	dir := filepath.Join("..", "..", "bin", "kernel")
	if _, err := os.Stat(dir); err != nil && os.Getenv("CLOUDPAL_MUST_RUN") == "" {
		t.Skip("needs the distribution's kernel: make setup")
	}
	k, err := Find(dir)
	if err != nil {
		t.Fatal(err)
	}
	vminit := filepath.Join(t.TempDir(), "vminit")
	if err := os.WriteFile(vminit, []byte("init"), 0o755); err != nil {
		t.Fatal(err)
	}
	p, err := k.Prepare(t.TempDir(), vminit)
	if err != nil {
		t.Fatal(err)
	}
	if at := strings.Join(p.Modules, " "); !strings.Contains(at, "virtio_net.ko") {
		t.Errorf("got modules %s, want virtio_net among them", at)
	}
}

func FuzzExtract(f *testing.F) {
	kernel := tinyKernel(300)
	for _, p := range packings {
		f.Add(bzImage(p.pack(f, kernel)))
	}
	f.Add(kernel)
	f.Add([]byte("MZ"))
	f.Fuzz(func(t *testing.T, image []byte) {
		vmlinux, err := Extract(image)
		if err != nil {
			if k := cloudpal.KindOf(err); k != cloudpal.Corrupt && k != cloudpal.Invalid {
				t.Errorf("got kind %v: %v", k, err)
			}
			return
		}
		if again, err := Extract(vmlinux); err != nil || !bytes.Equal(again, vmlinux) {
			t.Errorf("what was extracted is not a kernel: %v", err)
		}
	})
}

// FuzzDecompress spends the fuzzer's time behind the header, on each
// decompressor.
func FuzzDecompress(f *testing.F) {
	for _, p := range packings {
		f.Add(p.pack(f, tinyKernel(300)))
		f.Add(p.pack(f, nil))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) < 8 || binary.LittleEndian.Uint32(data[len(data)-4:]) > 16<<20 {
			return
		}
		out, err := decompress(data)
		if want := binary.LittleEndian.Uint32(data[len(data)-4:]); err == nil && uint32(len(out)) != want {
			t.Errorf("got %d bytes, want %d", len(out), want)
		}
	})
}

func FuzzHasNote(f *testing.F) {
	f.Add(append(words(4, 8, noteEntry), "Xen\x00\x00\x00\x00\x01\x00\x00\x00\x00"...))
	f.Add(append(words(1<<32-1, 4, noteEntry), "Xen\x00"...))
	f.Fuzz(func(t *testing.T, notes []byte) {
		if hasNote(notes, "Xen", noteEntry) && !bytes.Contains(notes, []byte("Xen")) {
			t.Error("a note is found that is not there")
		}
	})
}
