package main

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"io"
	"os"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/compute/seal"
	"github.com/tradle/cloudpal/test/world"
)

// sealRates holds how fast a nap is put on disk, without the disk, against the
// two things that it cannot do without, each alone, on as many cores.
func (b *run) sealRates(memory string) {
	f, err := os.Open(memory)
	b.must(err)
	defer f.Close()
	pages := pagesOf(b, f)
	var sealed, packed, encrypted sample
	for range 5 {
		d, err := timed(func() error {
			_, err := seal.Seal(context.Background(), io.Discard, seal.NewKey(), "bench", f, []byte("state"))
			return err
		})
		b.must(err)
		sealed, packed, encrypted = append(sealed, d), append(packed, zstdAlone(b, pages)), append(encrypted, gcmAlone(b, pages))
	}
	mib := float64(len(pages)) / (1 << 20)
	rate := func(s sample) float64 { return mib / (s.at(0.5) / 1000) }
	b.add(told("suspend to disk: seal", "MiB/s", rate(sealed), rate(packed), "zstd alone, one core"),
		told("suspend to disk: seal", "MiB/s", rate(sealed), rate(encrypted), "AES-256-GCM alone, one core"))
}

// pagesOf returns the pages of a guest's memory that are not all zero.
func pagesOf(b *run, f *os.File) []byte {
	data, err := io.ReadAll(io.NewSectionReader(f, 0, vmMemory))
	b.must(err)
	zero := make([]byte, 4096)
	var pages []byte
	for i := 0; i < len(data); i += 4096 {
		if p := data[i : i+4096]; !bytes.Equal(p, zero) {
			pages = append(pages, p...)
		}
	}
	return pages
}

func zstdAlone(b *run, pages []byte) time.Duration {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	b.must(err)
	defer enc.Close()
	start := time.Now()
	enc.EncodeAll(pages, make([]byte, 0, len(pages)))
	return time.Since(start)
}

func gcmAlone(b *run, pages []byte) time.Duration {
	block, err := aes.NewCipher(make([]byte, 32))
	b.must(err)
	gcm, err := cipher.NewGCM(block)
	b.must(err)
	out := make([]byte, 0, len(pages)+gcm.Overhead())
	start := time.Now()
	gcm.Seal(out, make([]byte, gcm.NonceSize()), pages, nil)
	return time.Since(start)
}

// template tells what it would gain to keep of a nap only the pages that differ
// from a template's: another VM of the same image, just booted.
func (b *run) template(w *world.World) {
	other := web(w, "other")
	b.must(ask(w, other))
	b.suspend(w, "other", api.Memory)
	own, err := os.Open(b.filesOf(w, "web").memory)
	b.must(err)
	defer own.Close()
	base, err := os.ReadFile(b.filesOf(w, "other").memory)
	b.must(err)
	data, err := io.ReadAll(own)
	b.must(err)
	zero := make([]byte, 4096)
	var all, differ []byte
	for i := 0; i < len(data); i += 4096 {
		p := data[i : i+4096]
		if bytes.Equal(p, zero) {
			continue
		}
		all = append(all, p...)
		if !bytes.Equal(p, base[i:i+4096]) {
			differ = append(differ, p...)
		}
	}
	b.add(told("nap's pages that differ from a template of its image", "MiB", mib(len(differ)), mib(len(all)), "all its pages"),
		told("the same, compressed", "MiB", mib(len(packedBy(b, differ))), mib(len(packedBy(b, all))), "all its pages"))
}

func packedBy(b *run, pages []byte) []byte {
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest))
	b.must(err)
	defer enc.Close()
	return enc.EncodeAll(pages, nil)
}

func mib(n int) float64 { return float64(n) / (1 << 20) }
