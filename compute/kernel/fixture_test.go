package kernel

import (
	"bytes"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
)

// tinyKernel is the least that Extract takes for a kernel: an ELF whose only
// segment is a PVH note, and size bytes, half of them noise, that must come out
// as they went in.
func tinyKernel(size int) []byte {
	note := append(words(4, 8, noteEntry), "Xen\x00\x00\x00\x00\x01\x00\x00\x00\x00"...)
	var b bytes.Buffer
	put(&b, elf.Header64{
		Ident: ident(), Type: uint16(elf.ET_EXEC), Machine: uint16(elf.EM_X86_64), Version: 1,
		Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 1,
	})
	put(&b, elf.Prog64{Type: uint32(elf.PT_NOTE), Off: 120, Filesz: uint64(len(note))})
	b.Write(note)
	noise := rand.New(rand.NewPCG(1, 2))
	for i := range size {
		b.WriteByte(byte(noise.Uint32()) * byte(i>>6&1))
	}
	return b.Bytes()
}

func ident() [16]byte {
	return [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1}
}

func put(b *bytes.Buffer, v any) {
	if err := binary.Write(b, binary.LittleEndian, v); err != nil {
		panic(err)
	}
}

func words(w ...uint32) []byte {
	var b bytes.Buffer
	put(&b, w)
	return b.Bytes()
}

// bzImage wraps a payload as a kernel's build does: one sector of boot code,
// one of setup code, the payload some way into what follows, and something
// behind it.
func bzImage(payload []byte) []byte {
	const skip = 100
	image := make([]byte, 2*512+skip, 2*512+skip+len(payload)+512)
	image[setupSects] = 1
	copy(image[headerMagic:], "HdrS")
	binary.LittleEndian.PutUint16(image[headerVersion:], 0x20f)
	binary.LittleEndian.PutUint32(image[payloadOffset:], skip)
	binary.LittleEndian.PutUint32(image[payloadLength:], uint32(len(payload)))
	image = append(image, payload...)
	return append(image, make([]byte, 512)...)
}

// A packing is one way to compress a kernel.
type packing struct {
	name string
	pack func(tb testing.TB, data []byte) []byte
}

// packings are all that Extract undoes. All but gzip have the size behind the
// stream; gzip ends with it itself (Linux, scripts/Makefile.lib, size_append).
var packings = []packing{
	{"gzip", func(tb testing.TB, data []byte) []byte {
		return compress(tb, data, func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriter(w), nil })
	}},
	{"lz4", func(tb testing.TB, data []byte) []byte {
		return sized(data, compress(tb, data, func(w io.Writer) (io.WriteCloser, error) {
			z := lz4.NewWriter(w)
			return z, z.Apply(lz4.LegacyOption(true))
		}))
	}},
	{"zstd", func(tb testing.TB, data []byte) []byte {
		return sized(data, compress(tb, data, func(w io.Writer) (io.WriteCloser, error) { return zstd.NewWriter(w) }))
	}},
	{"xz", func(tb testing.TB, data []byte) []byte {
		return sized(data, compress(tb, data, func(w io.Writer) (io.WriteCloser, error) { return xz.NewWriter(w) }))
	}},
}

func compress(tb testing.TB, data []byte, open func(io.Writer) (io.WriteCloser, error)) []byte {
	tb.Helper()
	var b bytes.Buffer
	w, err := open(&b)
	if err != nil {
		tb.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		tb.Fatal(err)
	}
	if err := w.Close(); err != nil {
		tb.Fatal(err)
	}
	return b.Bytes()
}

func sized(data, packed []byte) []byte {
	return binary.LittleEndian.AppendUint32(packed, uint32(len(data)))
}

// module is a kernel module that says only what modinfo has: an ELF with the
// section of that name.
func module(modinfo string) []byte {
	const names = "\x00.modinfo\x00.shstrtab\x00"
	infoAt, namesAt := 64, 64+len(modinfo)
	var b bytes.Buffer
	put(&b, elf.Header64{
		Ident: ident(), Type: uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: 1,
		Shoff: uint64(namesAt + len(names)), Ehsize: 64, Shentsize: 64, Shnum: 3, Shstrndx: 2,
	})
	b.WriteString(modinfo + names)
	put(&b, elf.Section64{})
	put(&b, elf.Section64{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: uint64(infoAt), Size: uint64(len(modinfo))})
	put(&b, elf.Section64{Name: 10, Type: uint32(elf.SHT_STRTAB), Off: uint64(namesAt), Size: uint64(len(names))})
	return b.Bytes()
}

// signed appends a signature as scripts/sign-file.c does.
func signed(module []byte, signature string) []byte {
	trailer := make([]byte, 12)
	binary.BigEndian.PutUint32(trailer[8:], uint32(len(signature)))
	return append(append(append(bytes.Clone(module), signature...), trailer...), signatureMark...)
}
