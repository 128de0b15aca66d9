package storage

import (
	"bytes"
	"reflect"
	"testing"
)

// FuzzRecords reads what a damaged disk may return for each kind of record: it is
// refused, or is one that is written again as one that reads the same.
func FuzzRecords(f *testing.F) {
	key := [32]byte{7}
	f.Add(uint8(0), appendHead(nil, Head{Fork: 1, Length: 1 << 40, Bytes: 1 << 50, Contiguous: 300, Signature: make([]byte, 68)}))
	f.Add(uint8(1), appendIdentity(nil, Identity{Key: key, Compat: true}))
	f.Add(uint8(1), appendIdentity(nil, Identity{Key: key, Manifest: []byte("manifest"), Seed: key[:]}))
	f.Add(uint8(2), appendPage(nil, &Page{0: 3, 9: ^uint64(0), 63: 1 << 63}))
	var scattered Page
	for i := range scattered {
		scattered[i] = 0x5555555555555555
	}
	f.Add(uint8(2), appendPage(nil, &scattered))
	tl := tile{root: 7, have: 0x7fff}
	full := make([]byte, tl.size())
	tl.encode(full)
	f.Add(uint8(3), full)
	f.Add(uint8(3), full[:2])
	ps := places{have: 1<<3 | 1<<4 | 1<<63}
	ps.list[3], ps.list[4], ps.list[63] = spot{100, 900}, spot{100 + 900 + sumSize, 512}, spot{7<<32 | 16, 1 << 20}
	f.Add(uint8(4), ps.append(nil))
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		switch kind % 5 {
		case 0:
			again(t, b, decodeHead, appendHead)
		case 1:
			again(t, b, decodeIdentity, appendIdentity)
		case 2:
			again(t, b, func(b []byte) (p Page, err error) { err = decodePage(b, &p); return p, err },
				func(dst []byte, p Page) []byte { return appendPage(dst, &p) })
		case 3:
			tl := tile{root: 7}
			if tl.decode(b) != nil {
				return
			}
			out := make([]byte, tl.size())
			tl.encode(out)
			if !bytes.Equal(out, b) {
				t.Errorf("%x was written again as %x", b, out)
			}
		case 4:
			again(t, b, func(b []byte) (p places, err error) {
				err = p.decode(b)
				for slot := range p.list {
					if p.have>>slot&1 == 0 {
						p.list[slot] = spot{}
					}
				}
				return p, err
			}, func(dst []byte, p places) []byte { return p.append(dst) })
		}
	})
}

func again[T any](t *testing.T, b []byte, decode func([]byte) (T, error), encode func([]byte, T) []byte) {
	v, err := decode(b)
	if err != nil {
		return
	}
	w, err := decode(encode(nil, v))
	if err != nil || !reflect.DeepEqual(v, w) {
		t.Errorf("%x is %+v, and written again %+v, %v", b, v, w, err)
	}
}
