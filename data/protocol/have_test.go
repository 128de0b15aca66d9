package protocol

import (
	"encoding/binary"
	"testing"

	"pgregory.net/rapid"
)

// A peer's blocks are what a plain set of them would be, whatever it says.
func TestHave(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const top = 5 * pageBits
		var h have
		model := make([]bool, top+1)
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				start, end := interval2(t, top)
				must(t, h.add(start, end))
				set(model, start, end, true)
			},
			"remove": func(t *rapid.T) {
				start, end := interval2(t, top)
				must(t, h.remove(start, end))
				set(model, start, end, false)
			},
			"overwrite": func(t *rapid.T) {
				start := rapid.Uint64Range(0, top/32-64).Draw(t, "start") * 32
				words := rapid.SliceOfN(rapid.SampledFrom([]uint32{0, ^uint32(0), 0xa5}), 1, 64).Draw(t, "words")
				var b []byte
				for i, w := range words {
					b = binary.LittleEndian.AppendUint32(b, w)
					for j := range uint64(32) {
						model[start+32*uint64(i)+j] = w>>j&1 != 0
					}
				}
				must(t, h.overwrite(start, b))
			},
			"": func(t *rapid.T) {
				i := rapid.Uint64Range(0, top).Draw(t, "i")
				if h.has(i) != model[i] {
					t.Fatalf("block %d: %v", i, h.has(i))
				}
				end := rapid.Uint64Range(i, top).Draw(t, "end")
				got, ok := h.next(i, end)
				want := i
				for want < end && !model[want] {
					want++
				}
				if ok != (want < end) || ok && got != want {
					t.Fatalf("next of %d before %d: %d %v, want %d", i, end, got, ok, want)
				}
				n := h.contiguous()
				for j := range min(n, top) {
					if !model[j] {
						t.Fatalf("contiguous is %d, but block %d is not there", n, j)
					}
				}
				if n < top && model[n] {
					t.Fatalf("contiguous is %d, but block %d is there", n, n)
				}
			},
		})
	})
}

func interval2(t *rapid.T, top uint64) (start, end uint64) {
	start = rapid.Uint64Range(0, top).Draw(t, "start")
	return start, rapid.Uint64Range(start, top).Draw(t, "end")
}

func set(model []bool, start, end uint64, v bool) {
	for i := start; i < end; i++ {
		model[i] = v
	}
}

// Ranges up to 2^53 cost no memory, and what cannot be remembered is an error.
func TestHaveIsBounded(t *testing.T) {
	var h have
	must(t, h.add(1, maxReach))
	must(t, h.remove(maxReach/2, maxReach/2+1))
	if len(h.pages) > 4 || len(h.runs) > 2 {
		t.Errorf("%d pages and %d runs", len(h.pages), len(h.runs))
	}
	if !h.has(maxReach-1) || h.has(maxReach/2) {
		t.Error("it is not as it was told")
	}
	var err error
	for i := uint64(0); err == nil && i < 1<<20; i++ {
		err = h.add(i*2*pageBits+5, i*2*pageBits+6)
		if err == nil {
			err = h.remove(1<<50+i*2*pageBits, 1<<50+i*2*pageBits+pageBits)
		}
	}
	if err == nil || len(h.pages) > maxPages || len(h.runs) > maxRuns+1 {
		t.Errorf("%v with %d pages and %d runs", err, len(h.pages), len(h.runs))
	}
}

type fataler interface {
	Helper()
	Fatal(...any)
}

func must(t fataler, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
