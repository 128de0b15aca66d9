package image

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute/image/layer"
)

// sent reads a layer as it is sent: it counts, hashes, and reads no more than
// what was announced.
type sent struct {
	ctx  context.Context
	r    io.Reader
	size int64
	done int64
	sum  hash.Hash
	tell func(done int64)
}

func (s *sent) Read(b []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := s.r.Read(b)
	s.done += int64(n)
	s.sum.Write(b[:n])
	s.tell(min(s.done, s.size))
	switch {
	case s.done > s.size:
		return 0, corrupt("more than the announced %d bytes came", s.size)
	case err == io.EOF && s.done < s.size:
		return n, fmt.Errorf("ended after %d of %d bytes: %w", s.done, s.size, io.ErrUnexpectedEOF)
	}
	return n, err
}

// finish reads what follows the packed data, and checks the digest.
func (s *sent) finish(want v1.Hash) error {
	if _, err := io.Copy(io.Discard, s); err != nil {
		return err
	}
	if want == (v1.Hash{}) {
		return nil
	}
	return checkSum(s.sum.Sum(nil), want)
}

func checkSum(sum []byte, want v1.Hash) error {
	if got := hex.EncodeToString(sum); got != want.Hex {
		return corrupt("digest is %s:%s, not %s", want.Algorithm, got, want)
	}
	return nil
}

var (
	gzipMagic = []byte{0x1f, 0x8b}
	zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}
)

// maxWindow bounds the memory that a zstd stream can ask for.
const maxWindow = 128 << 20

// unpacked returns the plain archive in r: packed with gzip, with zstd, or not
// at all. What it is, is seen from its first bytes; labels are often wrong.
func unpacked(r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(r, 256<<10)
	magic, err := b.Peek(len(zstdMagic))
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(magic, gzipMagic):
		return gzip.NewReader(b)
	case bytes.Equal(magic, zstdMagic):
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	}
	return io.NopCloser(b), nil
}

// guarded stops a stream that unpacks to much more than was sent. Zeros do not
// count: they take no space, and a file with holes is mostly zeros.
type guarded struct {
	r     io.Reader
	sent  *sent
	most  Limits
	heavy int64 // bytes that are not in a run of zeros
}

// Read reads a piece at a time, so that zeros among other bytes are seen.
func (g *guarded) Read(b []byte) (int, error) {
	n, err := g.r.Read(b[:min(len(b), len(noBytes))])
	if !bytes.Equal(b[:n], noBytes[:n]) {
		g.heavy += int64(n)
	}
	if g.heavy > g.most.RatioFrom && g.heavy/g.most.Ratio > g.sent.done {
		return n, fmt.Errorf("%w: %d bytes unpack to more than %d times as many", layer.ErrLimit, g.sent.done, g.most.Ratio)
	}
	return n, err
}

var noBytes [32 << 10]byte

// apply reads the layer into b and checks what it has read.
func (s *Store) apply(ctx context.Context, b *layer.Builder, p part, tell func(int64)) error {
	r, err := p.open(ctx)
	if err != nil {
		return err
	}
	defer r.Close()
	in := &sent{ctx: ctx, r: r, size: p.size, sum: sha256.New(), tell: tell}
	diff, err := s.pour(b, in)
	if err == nil {
		err = in.finish(p.digest)
	}
	if err == nil {
		err = checkSum(diff, p.diffID)
	}
	return blame(err, in, p)
}

// pour unpacks in into b, and returns the digest of what it unpacked to.
func (s *Store) pour(b *layer.Builder, in *sent) ([]byte, error) {
	plain, err := unpacked(in)
	if err != nil {
		return nil, err
	}
	sum := sha256.New()
	g := &guarded{r: plain, sent: in, most: s.Limits.withDefaults()}
	ahead := readAhead(io.TeeReader(g, sum), func() { plain.Close() })
	defer ahead.Close()
	if err := b.Apply(ahead); err != nil {
		return nil, err
	}
	_, err = io.Copy(io.Discard, ahead) // what follows the archive's end mark is part of its digest
	return sum.Sum(nil), err
}

// blame tells an archive that was damaged on the way from one that was made
// badly: the first has another digest.
func blame(err error, in *sent, p part) error {
	var known *cloudpal.Error
	if err == nil || errors.As(err, &known) || in.ctx.Err() != nil {
		return err
	}
	if errors.Is(err, layer.ErrInvalid) || unreadable(err) {
		if e := in.finish(p.digest); e != nil {
			return e
		}
	}
	if unreadable(err) {
		return cloudpal.E("", cloudpal.Corrupt, err).WithHint("the image was not made properly; build it again")
	}
	return err
}

// unreadable reports whether err says that packed data makes no sense.
func unreadable(err error) bool {
	for _, e := range []error{gzip.ErrHeader, gzip.ErrChecksum, zstd.ErrMagicMismatch, zstd.ErrCRCMismatch, zstd.ErrWindowSizeExceeded} {
		if errors.Is(err, e) {
			return true
		}
	}
	text := err.Error()
	return strings.Contains(text, "flate: ") || strings.Contains(text, "zstd: ") || strings.Contains(text, "corrupt")
}
