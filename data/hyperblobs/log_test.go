package hyperblobs_test

import (
	"bytes"
	"context"
	"sync"
	"testing"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hypercore"
)

// A memory is a log in a slice: the least that blobs need, and a way to see
// and to damage what was written.
type memory struct {
	mu      sync.Mutex
	blocks  [][]byte // nil where cleared
	bytes   uint64
	appends int
	full    bool // no more fits
	want    []span
}

type span struct{ start, end uint64 }

func (m *memory) Length() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return uint64(len(m.blocks))
}

func (m *memory) ByteLength() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.bytes
}

func (m *memory) Append(blocks ...[]byte) (uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.full {
		return 0, cloudpal.NoSpace
	}
	for _, b := range blocks {
		m.blocks = append(m.blocks, bytes.Clone(b))
		m.bytes += uint64(len(b))
	}
	m.appends++
	return uint64(len(m.blocks)), nil
}

func (m *memory) Get(ctx context.Context, index uint64) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if index >= uint64(len(m.blocks)) || m.blocks[index] == nil {
		return nil, cloudpal.NotExist
	}
	return m.blocks[index], ctx.Err()
}

func (m *memory) Has(index uint64) bool {
	_, err := m.Get(context.Background(), index)
	return err == nil
}

func (m *memory) Download(_ context.Context, r hypercore.Range) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.want = append(m.want, span{r.Start, r.End})
	return nil
}

func (m *memory) Seek(_ context.Context, at uint64) (uint64, uint64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, b := range m.blocks {
		if at < uint64(len(b)) {
			return uint64(i), at, nil
		}
		at -= uint64(len(b))
	}
	return 0, 0, cloudpal.NotExist
}

func (m *memory) Clear(start, end uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.blocks[start:end])
	return nil
}

// content is what the original's vectors are made of.
func content(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i*31 + 1)
	}
	return b
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
