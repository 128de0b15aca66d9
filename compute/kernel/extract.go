package kernel

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"

	"github.com/tradle/cloudpal"
)

// maxImage and maxKernel bound a compressed and an uncompressed kernel, in
// bytes. Debian's are 8 and 53 MiB.
const (
	maxImage  = 256 << 20
	maxKernel = 1 << 30
)

// Fields of the setup header (Linux, Documentation/arch/x86/boot.rst, "The
// real-mode kernel header").
const (
	setupSects    = 0x1f1 // byte: sectors of setup code, 0 means 4
	headerMagic   = 0x202 // "HdrS"
	headerVersion = 0x206 // 16 bits: payload fields are there from 2.08
	payloadOffset = 0x248 // 32 bits, from the start of the protected-mode code
	payloadLength = 0x24c // 32 bits
	headerEnd     = 0x250
)

// Extract returns the uncompressed kernel in a bzImage: an x86-64 ELF that can
// be entered by PVH. A kernel that is uncompressed already comes back as it
// is.
func Extract(image []byte) ([]byte, error) {
	const op = "extract the kernel"
	if len(image) > maxImage {
		return nil, cloudpal.E(op, cloudpal.Invalid, fmt.Errorf("an image of %d bytes", len(image))).
			WithHint("use the distribution's linux-image-cloud-amd64")
	}
	vmlinux := image
	if !bytes.HasPrefix(image, []byte(elf.ELFMAG)) {
		payload, err := payload(image)
		if err != nil {
			return nil, cloudpal.E(op, cloudpal.Corrupt, err).WithHint("fetch the kernel again: make setup")
		}
		if vmlinux, err = decompress(payload); err != nil {
			return nil, cloudpal.E(op, cloudpal.Corrupt, err).WithHint("fetch the kernel again: make setup")
		}
	}
	if err := bootable(vmlinux); err != nil {
		return nil, cloudpal.E(op, cloudpal.Invalid, err).WithHint("use the distribution's linux-image-cloud-amd64")
	}
	return vmlinux, nil
}

// payload finds the compressed kernel in a bzImage.
func payload(image []byte) ([]byte, error) {
	if len(image) < headerEnd || string(image[headerMagic:headerMagic+4]) != "HdrS" {
		return nil, errors.New("not a Linux bzImage")
	}
	if v := binary.LittleEndian.Uint16(image[headerVersion:]); v < 0x208 {
		return nil, fmt.Errorf("boot protocol %#x is older than 2.08", v)
	}
	sectors := uint64(image[setupSects])
	if sectors == 0 {
		sectors = 4
	}
	from := (sectors+1)*512 + uint64(binary.LittleEndian.Uint32(image[payloadOffset:]))
	length := uint64(binary.LittleEndian.Uint32(image[payloadLength:]))
	if from+length > uint64(len(image)) || length < 8 {
		return nil, errors.New("the image is cut short")
	}
	return image[from : from+length], nil
}

// decompress undoes whichever compression the kernel was built with. The last
// four bytes of a payload are the size of what comes out.
func decompress(data []byte) ([]byte, error) {
	size := binary.LittleEndian.Uint32(data[len(data)-4:])
	if size > maxKernel {
		return nil, fmt.Errorf("it says it is %d bytes uncompressed", size)
	}
	r, err := open(data)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	n, err := io.Copy(&out, io.LimitReader(r, int64(size)+1))
	// The size behind the stream can look to the decompressor like one more
	// frame; what counts is that all is there, and no more.
	switch {
	case n > int64(size):
		return nil, fmt.Errorf("more than the %d bytes uncompressed that it says it is", size)
	case n < int64(size):
		return nil, fmt.Errorf("%d bytes uncompressed, %d expected: %w", n, size, cmp.Or(err, io.ErrUnexpectedEOF))
	}
	return out.Bytes(), nil
}

func open(data []byte) (io.Reader, error) {
	magics := []struct {
		magic string
		open  func([]byte) (io.Reader, error)
	}{
		{"\x02\x21\x4c\x18", func(b []byte) (io.Reader, error) { return lz4.NewReader(bytes.NewReader(b[:len(b)-4])), nil }},
		{"\x1f\x8b", func(b []byte) (io.Reader, error) {
			z, err := gzip.NewReader(bytes.NewReader(b))
			if err == nil {
				z.Multistream(false)
			}
			return z, err
		}},
		{"\x28\xb5\x2f\xfd", func(b []byte) (io.Reader, error) {
			return zstd.NewReader(bytes.NewReader(b[:len(b)-4]), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxKernel))
		}},
		{"\xfd7zXZ\x00", func(b []byte) (io.Reader, error) {
			return xz.ReaderConfig{SingleStream: true}.NewReader(bytes.NewReader(b))
		}},
	}
	for _, m := range magics {
		if bytes.HasPrefix(data, []byte(m.magic)) {
			return m.open(data)
		}
	}
	return nil, fmt.Errorf("unknown compression % x", data[:4])
}

// noteEntry is XEN_ELFNOTE_PHYS32_ENTRY, which tells where a PVH loader jumps
// to (Linux, include/xen/interface/elfnote.h).
const noteEntry = 18

// bootable reports why vmlinux cannot be booted directly, if so.
func bootable(vmlinux []byte) error {
	f, err := elf.NewFile(bytes.NewReader(vmlinux))
	if err != nil {
		return fmt.Errorf("not an ELF kernel: %w", err)
	}
	if f.Machine != elf.EM_X86_64 {
		return fmt.Errorf("a kernel for %v, not x86-64", f.Machine)
	}
	for _, p := range f.Progs {
		if p.Type != elf.PT_NOTE || p.Filesz > 1<<20 {
			continue
		}
		notes := make([]byte, p.Filesz)
		if _, err := p.ReadAt(notes, 0); err == nil && hasNote(notes, "Xen", noteEntry) {
			return nil
		}
	}
	return errors.New("the kernel has no PVH entry (CONFIG_PVH)")
}

// hasNote walks ELF notes: name size, descriptor size, type, then both, each
// padded to four bytes.
func hasNote(notes []byte, name string, typ uint32) bool {
	for len(notes) >= 12 {
		nameSize := uint64(binary.LittleEndian.Uint32(notes))
		descSize := uint64(binary.LittleEndian.Uint32(notes[4:]))
		t := binary.LittleEndian.Uint32(notes[8:])
		notes = notes[12:]
		end := (nameSize+3)&^3 + (descSize+3)&^3
		if end > uint64(len(notes)) || nameSize > end {
			return false
		}
		if t == typ && string(bytes.TrimRight(notes[:nameSize], "\x00")) == name {
			return true
		}
		notes = notes[end:]
	}
	return false
}
