package protocol

import (
	"encoding/binary"
	"errors"
	"math/bits"
	"slices"
	"sort"
)

// Limits on what is remembered of one peer's blocks: 8 MiB of bits, which is
// 67 million blocks of which some are there and some are not, and any number of
// blocks where all are there or none.
const (
	pageBits = 1 << 15
	maxPages = 2048
	maxRuns  = 1024
)

// errScattered ends a peer whose blocks cannot be remembered within the limits.
var errScattered = errors.New("what it has is too scattered to be remembered")

// have is the set of blocks that a peer has: a prefix, runs of whole pages, and
// pages of bits. Its size is bounded however large the numbers are that a peer
// sends. The zero have is empty.
type have struct {
	prefix uint64 // blocks from 0 that are all there
	runs   []run  // sorted, apart from each other
	pages  []page // sorted; none is inside a run
}

// A run is pages of which all blocks are there, from first up to end.
type run struct{ first, end uint64 }

type page struct {
	index uint64
	bits  *[pageBits / 64]uint64
}

// has reports whether block i is in the set.
func (h *have) has(i uint64) bool {
	if i < h.prefix {
		return true
	}
	index := i / pageBits
	if h.inRun(index) {
		return true
	}
	p := h.page(index)
	return p != nil && p[i%pageBits/64]>>(i%64)&1 != 0
}

// next returns the first block of the set in [i, end).
func (h *have) next(i, end uint64) (uint64, bool) {
	if i >= end {
		return 0, false
	}
	if i < h.prefix {
		return i, true
	}
	best := h.nextInRuns(i)
	for at := h.search(i / pageBits); at < len(h.pages); at++ {
		base := h.pages[at].index * pageBits
		if base >= min(best, end) {
			break
		}
		if bit, ok := nextBit(h.pages[at].bits, max(i, base)-base); ok {
			best = min(best, base+bit)
			break
		}
	}
	return best, best < end
}

// nextInRuns returns the first block at or after i that is in a run, or the
// largest number.
func (h *have) nextInRuns(i uint64) uint64 {
	at := sort.Search(len(h.runs), func(n int) bool { return h.runs[n].end*pageBits > i })
	if at == len(h.runs) {
		return ^uint64(0)
	}
	return max(i, h.runs[at].first*pageBits)
}

func nextBit(p *[pageBits / 64]uint64, from uint64) (uint64, bool) {
	word := p[from/64] &^ (1<<(from%64) - 1)
	for i := from / 64; ; {
		if word != 0 {
			return i*64 + uint64(bits.TrailingZeros64(word)), true
		}
		if i++; i == uint64(len(p)) {
			return 0, false
		}
		word = p[i]
	}
}

// contiguous returns how many blocks from the first are there, as far as that
// is cheap to say: up to a page with a hole, or a run's end.
func (h *have) contiguous() uint64 {
	n := h.prefix
	for {
		index := n / pageBits
		if at := h.runAt(index); at >= 0 {
			n = h.runs[at].end * pageBits
			continue
		}
		p := h.page(index)
		if p == nil {
			return n
		}
		ones := firstZero(p, n%pageBits)
		if n = index*pageBits + ones; ones < pageBits {
			return n
		}
	}
}

func firstZero(p *[pageBits / 64]uint64, from uint64) uint64 {
	word := ^p[from/64] &^ (1<<(from%64) - 1)
	for i := from / 64; ; {
		if word != 0 {
			return i*64 + uint64(bits.TrailingZeros64(word))
		}
		if i++; i == uint64(len(p)) {
			return pageBits
		}
		word = ^p[i]
	}
}

// add puts the blocks of [start, end) into the set.
func (h *have) add(start, end uint64) error {
	if start <= h.prefix {
		h.prefix = max(h.prefix, end)
		return nil
	}
	return h.fill(start, end, true)
}

// remove takes the blocks of [start, end) out.
func (h *have) remove(start, end uint64) error {
	if err := h.lower(start, end); err != nil {
		return err
	}
	return h.fill(start, end, false)
}

// lower makes start the end of the prefix where it reaches further. What lay
// beyond end is still there.
func (h *have) lower(start, end uint64) error {
	old := h.prefix
	if start >= old {
		return nil
	}
	h.prefix = start
	if end >= old {
		return nil
	}
	return h.fill(end, old, true)
}

// overwrite sets the blocks from start on to words.
func (h *have) overwrite(start uint64, words []byte) error {
	end := start + uint64(len(words))*8
	if err := h.lower(start, end); err != nil {
		return err
	}
	for len(words) > 0 {
		index, from := start/pageBits, start%pageBits/32
		n := min(uint64(len(words)/4), pageBits/32-from)
		if err := h.overwritePage(index, from, words[:4*n]); err != nil {
			return err
		}
		start, words = start+32*n, words[4*n:]
	}
	return nil
}

func (h *have) overwritePage(index, from uint64, words []byte) error {
	if h.page(index) == nil && !h.inRun(index) && allZero(words) {
		return nil
	}
	p, err := h.edit(index)
	if err != nil {
		return err
	}
	for i := range uint64(len(words) / 4) {
		at, shift := (from+i)/2, (from+i)%2*32
		p[at] = p[at]&^(0xffffffff<<shift) | uint64(binary.LittleEndian.Uint32(words[4*i:]))<<shift
	}
	return nil
}

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// fill sets or clears [start, end): the pages at its ends bit by bit, those
// between as one run.
func (h *have) fill(start, end uint64, set bool) error {
	if start >= end {
		return nil
	}
	first, last := start/pageBits, end/pageBits
	if first == last {
		return h.fillPage(first, start%pageBits, end%pageBits, set)
	}
	if start%pageBits != 0 {
		if err := h.fillPage(first, start%pageBits, pageBits, set); err != nil {
			return err
		}
		first++
	}
	if err := h.fillPages(first, last, set); err != nil {
		return err
	}
	return h.fillPage(last, 0, end%pageBits, set)
}

func (h *have) fillPage(index, from, to uint64, set bool) error {
	if from == to {
		return nil
	}
	known := h.page(index) != nil
	if in := h.inRun(index); in == set && (in || !known) {
		return nil // already so
	}
	p, err := h.edit(index)
	if err != nil {
		return err
	}
	for at := from / 64; at <= (to-1)/64; at++ {
		mask := ^uint64(0)
		if at == from/64 {
			mask &= ^uint64(0) << (from % 64)
		}
		if at == (to-1)/64 {
			mask &= ^uint64(0) >> (63 - (to-1)%64)
		}
		if set {
			p[at] |= mask
		} else {
			p[at] &^= mask
		}
	}
	return nil
}

// fillPages makes [first, end) a run, or nothing.
func (h *have) fillPages(first, end uint64, set bool) error {
	if first >= end {
		return nil
	}
	h.pages = slices.Delete(h.pages, h.search(first), h.search(end))
	if !set {
		h.cutRun(first, end)
	} else {
		h.addRun(first, end)
	}
	if len(h.runs) > maxRuns {
		return errScattered
	}
	return nil
}

// addRun joins [first, end) with the runs that it touches.
func (h *have) addRun(first, end uint64) {
	from := sort.Search(len(h.runs), func(n int) bool { return h.runs[n].end >= first })
	to := sort.Search(len(h.runs), func(n int) bool { return h.runs[n].first > end })
	if from < to {
		first, end = min(first, h.runs[from].first), max(end, h.runs[to-1].end)
	}
	h.runs = slices.Replace(h.runs, from, to, run{first, end})
}

// cutRun takes [first, end) out of the runs.
func (h *have) cutRun(first, end uint64) {
	from := sort.Search(len(h.runs), func(n int) bool { return h.runs[n].end > first })
	to := sort.Search(len(h.runs), func(n int) bool { return h.runs[n].first >= end })
	var rest []run
	if from < to && h.runs[from].first < first {
		rest = append(rest, run{h.runs[from].first, first})
	}
	if from < to && h.runs[to-1].end > end {
		rest = append(rest, run{end, h.runs[to-1].end})
	}
	h.runs = slices.Replace(h.runs, from, max(from, to), rest...)
}

// edit returns a page's bits to be changed, out of a run where it is in one.
func (h *have) edit(index uint64) (*[pageBits / 64]uint64, error) {
	at := h.search(index)
	if at < len(h.pages) && h.pages[at].index == index {
		return h.pages[at].bits, nil
	}
	if len(h.pages) >= maxPages || len(h.runs) >= maxRuns {
		return nil, errScattered
	}
	p := page{index, new([pageBits / 64]uint64)}
	if h.inRun(index) {
		for i := range p.bits {
			p.bits[i] = ^uint64(0)
		}
		h.cutRun(index, index+1)
	}
	h.pages = slices.Insert(h.pages, at, p)
	return p.bits, nil
}

func (h *have) search(index uint64) int {
	return sort.Search(len(h.pages), func(n int) bool { return h.pages[n].index >= index })
}

func (h *have) page(index uint64) *[pageBits / 64]uint64 {
	if at := h.search(index); at < len(h.pages) && h.pages[at].index == index {
		return h.pages[at].bits
	}
	return nil
}

func (h *have) inRun(index uint64) bool { return h.runAt(index) >= 0 }

func (h *have) runAt(index uint64) int {
	at := sort.Search(len(h.runs), func(n int) bool { return h.runs[n].end > index })
	if at < len(h.runs) && h.runs[at].first <= index {
		return at
	}
	return -1
}
