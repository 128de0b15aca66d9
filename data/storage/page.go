package storage

import (
	"encoding/binary"
	"errors"

	"github.com/tradle/cloudpal/data/compact"
)

// PageBits is how many blocks a Page tells of.
const PageBits = 4096

// A Page has a bit for each of PageBits blocks: block n of the page is bit n&63
// of word n>>6.
type Page [PageBits / 64]uint64

// Has reports a bit.
func (p *Page) Has(n uint64) bool { return p[n>>6&63]>>(n&63)&1 == 1 }

// Fill sets, or clears, the bits from start to end, both at most PageBits.
func (p *Page) Fill(start, end uint64, v bool) {
	for start < end {
		n := min(end-start, 64-start&63)
		mask := (^uint64(0) >> (64 - n)) << (start & 63)
		if v {
			p[start>>6] |= mask
		} else {
			p[start>>6] &^= mask
		}
		start += n
	}
}

// Next returns the first bit from start on that is v, or PageBits.
func (p *Page) Next(start uint64, v bool) uint64 {
	for start < PageBits {
		if p.Has(start) == v {
			return start
		}
		if word := p[start>>6]; start&63 == 0 && (word == 0 && v || word == ^uint64(0) && !v) {
			start += 64
			continue
		}
		start++
	}
	return PageBits
}

// Forms of a page. Most have few runs of ones, so that a sparse log that grows
// writes a few bytes for each block, not the page.
const (
	rawPage  = 0
	runsPage = 1
)

// maxRuns is where the raw form is as short.
const maxRuns = 64

func appendPage(b []byte, p *Page) []byte {
	if runs := appendRuns(append(b, runsPage), p); runs != nil {
		return runs
	}
	b = append(b, rawPage)
	for _, w := range p {
		b = binary.LittleEndian.AppendUint64(b, w)
	}
	return b
}

// appendRuns appends the distances between changes, or returns nil where there
// are too many.
func appendRuns(b []byte, p *Page) []byte {
	at := uint64(0)
	for range maxRuns {
		start := p.Next(at, true)
		if start == PageBits {
			return b
		}
		end := p.Next(start, false)
		b = compact.AppendUint(b, start-at)
		b = compact.AppendUint(b, end-start)
		at = end
	}
	return nil
}

var errPage = errors.New("a page of the bitfield is not valid")

func decodePage(b []byte, p *Page) error {
	d := compact.NewDecoder(b)
	switch d.Uint() {
	case runsPage:
		return decodeRuns(&d, p)
	case rawPage:
		if d.Len() != len(p)*8 {
			return errPage
		}
		rest := d.Rest()
		for i := range p {
			p[i] = binary.LittleEndian.Uint64(rest[i*8:])
		}
		return d.Err()
	}
	return errPage
}

func decodeRuns(d *compact.Decoder, p *Page) error {
	*p = Page{}
	at := uint64(0)
	for d.Len() > 0 {
		skip, run := d.Uint(), d.Uint()
		if skip > PageBits || run > PageBits || at+skip+run > PageBits {
			return errPage
		}
		p.Fill(at+skip, at+skip+run, true)
		at += skip + run
	}
	return d.Err()
}
