package identity

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"slices"
	"testing"

	"github.com/tradle/cloudpal"
)

// entriesOf cuts a list's bytes into its entries.
func entriesOf(t testing.TB, data []byte) (all [][]byte) {
	t.Helper()
	for len(data) > 0 {
		raw, rest, err := cut(data)
		if err != nil {
			t.Fatal(err)
		}
		all, data = append(all, raw), rest
	}
	return all
}

// forged returns a list and one more entry by a signer that the list need not
// accept: what append would not make.
func forged(l *List, by Signer, e entry) []byte {
	e.seq, e.prev, e.time, e.by = uint32(l.entries), l.head, noon, by.SignKey()
	return append(l.Bytes(), e.pack(by)...)
}

// TestEveryByteCounts changes each byte of a list in turn.
func TestEveryByteCounts(t *testing.T) {
	a := newAnn(t)
	l := must[*List](t)(a.list.Rename(a.laptop, a.phone.ID(), "mobile", noon))
	data := l.Bytes()
	for i := range data {
		bad := bytes.Clone(data)
		bad[i] ^= 1
		if _, err := ParseList(a.root.ID(), bad); !errors.Is(err, cloudpal.Invalid) {
			t.Fatalf("byte %d of %d: got error %v", i, len(data), err)
		}
	}
}

func TestEveryCutCounts(t *testing.T) {
	a := newAnn(t)
	data := a.list.Bytes()
	whole := map[int]bool{}
	for n, e := 0, entriesOf(t, data); len(e) > 0; e = e[1:] {
		n += len(e[0])
		whole[n] = true
	}
	for n := range data {
		if _, err := ParseList(a.root.ID(), data[:n]); (err == nil) != whole[n] {
			t.Fatalf("the first %d bytes of %d: got error %v", n, len(data), err)
		}
	}
}

func TestEntriesKeepTheirPlace(t *testing.T) {
	a := newAnn(t)
	l := must[*List](t)(a.list.Rename(a.laptop, a.phone.ID(), "mobile", noon))
	e := entriesOf(t, l.Bytes())
	bob := newAnn(t)
	b := entriesOf(t, bob.list.Bytes())
	for what, bad := range map[string][][]byte{
		"two exchanged":              {e[0], e[2], e[1], e[3]},
		"one left out":               {e[0], e[1], e[3]},
		"one twice":                  {e[0], e[1], e[2], e[3], e[3]},
		"the first left out":         e[1:],
		"the first twice":            {e[0], e[0], e[1]},
		"another person's list":      b,
		"another person's entry":     {e[0], e[1], b[2]},
		"another person's beginning": {b[0], e[1], e[2]},
		"nothing":                    nil,
	} {
		if _, err := ParseList(a.root.ID(), slices.Concat(bad...)); !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("%s: got error %v", what, err)
		}
	}
	if _, err := ParseList(a.root.ID(), append(l.Bytes(), 0)); !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("a byte more: got error %v", err)
	}
	if _, err := ParseList(a.root.ID(), make([]byte, MaxListSize+1)); !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("too large: got error %v", err)
	}
}

// TestACenterAddsADevice has somebody who holds the list and no key of the
// person's try to get a device into it.
func TestACenterAddsADevice(t *testing.T) {
	a := newAnn(t)
	mole, center := NewDeviceKey(), NewDeviceKey()
	gone := NewDeviceKey()
	l := must[*List](t)(a.list.Add(a.root, gone.Device("gone", true), noon))
	l = must[*List](t)(l.Revoke(a.root, gone.ID(), noon))
	add := entry{kind: kindAdd, device: mole.Device("mole", true)}
	add.device.Index = 9

	claims := func(who SignKey) []byte { // that somebody else has signed it
		e := add
		e.seq, e.prev, e.time, e.by = uint32(l.entries), l.head, noon, who
		return append(l.Bytes(), e.pack(center)...)
	}
	unlocking := func() []byte { // with a signature that the laptop made for another purpose
		e := add
		e.seq, e.prev, e.time, e.by = uint32(l.entries), l.head, noon, a.laptop.SignKey()
		raw := e.pack(a.laptop)
		body := raw[lengthSize : len(raw)-ed25519.SignatureSize]
		copy(raw[len(raw)-ed25519.SignatureSize:], a.laptop.sign(purposeUnlock, body))
		return append(l.Bytes(), raw...)
	}
	own := must[*List](t)(NewList(NewPhrase().Root(), testV4, testV6, noon))
	for what, bad := range map[string][]byte{
		"signed by itself":                 forged(l, center, add),
		"signed by the device itself":      forged(l, mole, add),
		"signed by a device without right": forged(l, a.phone, add),
		"signed by a revoked admin":        forged(l, gone, add),
		"in the root's name":               claims(a.root.SignKey()),
		"in the laptop's name":             claims(a.laptop.SignKey()),
		"in nobody's name":                 claims(SignKey{}),
		"by a signature for an unlock":     unlocking(),
		"by a list of its own":             own.Bytes(),
	} {
		if got, err := ParseList(a.root.ID(), bad); !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("%s: got %v, error %v", what, got, err)
		}
	}
	if _, err := ParseList(a.root.ID(), forged(l, a.laptop, add)); err != nil {
		t.Errorf("and the laptop may: got error %v", err)
	}
}

// TestOneSpelling has the root itself sign what is not in the one form there
// is.
func TestOneSpelling(t *testing.T) {
	a := newAnn(t)
	good := entry{kind: kindAdd, seq: uint32(a.list.entries), prev: a.list.head, time: noon, by: a.root.SignKey(),
		device: NewDeviceKey().Device("new", false)}
	good.device.Index = 9
	flagsAt := headSize + 2*32 + 1
	for what, change := range map[string]func([]byte) []byte{
		"version 2":        func(b []byte) []byte { b[0] = 2; return b },
		"an unknown kind":  func(b []byte) []byte { b[1] = 'x'; return b },
		"unknown flags":    func(b []byte) []byte { b[flagsAt] = 2; return b },
		"a time before":    func(b []byte) []byte { b[1+1+4+32] = 0x80; return b },
		"no name":          func(b []byte) []byte { return b[:flagsAt+1] },
		"half a key":       func(b []byte) []byte { return b[:headSize+40] },
		"only a head":      func(b []byte) []byte { return b[:headSize] },
		"a name with zero": func(b []byte) []byte { return append(b, 0) },
		"too long":         func(b []byte) []byte { return append(b, make([]byte, maxBody)...) },
	} {
		if _, err := ParseList(a.root.ID(), append(a.list.Bytes(), resigned(a.root, change(good.body()))...)); !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("%s: got error %v", what, err)
		}
	}
	if _, err := ParseList(a.root.ID(), append(a.list.Bytes(), resigned(a.root, good.body())...)); err != nil {
		t.Errorf("unchanged: got error %v", err)
	}
}

func resigned(by Signer, body []byte) []byte {
	b := append([]byte{byte(len(body) >> 8), byte(len(body))}, body...)
	return append(b, by.sign(purposeEntry, body)...)
}

// TestListsDoNotShare has two lists grow from one.
func TestListsDoNotShare(t *testing.T) {
	a := newAnn(t)
	list := must[*List](t)
	before := a.list.Bytes()
	left := list(a.list.Rename(a.laptop, a.phone.ID(), "left", noon))
	right := list(a.list.Rename(a.laptop, a.phone.ID(), "right", noon))
	left.Bytes()[0] = 99
	for want, l := range map[string]*List{"left": left, "right": right} {
		back := list(ParseList(a.root.ID(), l.Bytes()))
		if _, ok := back.Device(want); !ok || !bytes.HasPrefix(l.Bytes(), before) {
			t.Errorf("%s has %q", want, names(back.Devices()))
		}
	}
}

// FuzzParseList reads what anybody may have written, and the same as if the root
// had signed it.
func FuzzParseList(f *testing.F) {
	a := fixedAnn(f)
	f.Add(a.list.Bytes())
	for _, raw := range entriesOf(f, a.list.Bytes()) {
		f.Add(raw[lengthSize : len(raw)-ed25519.SignatureSize])
	}
	rename := entry{kind: kindRename, device: Device{ID: a.laptop.ID(), Name: "x"}, time: noon}
	f.Add(rename.body())
	f.Fuzz(func(t *testing.T, data []byte) {
		if l, err := ParseList(a.root.ID(), data); err == nil && !bytes.Equal(l.Bytes(), data) {
			t.Error("it was read as something else")
		}
		if len(data) < headSize || len(data) > maxBody {
			return
		}
		// As the next entry, or the first, by the root's own hand.
		for _, l := range []*List{a.list, {root: a.root.ID()}} {
			e := entry{seq: uint32(l.entries), prev: l.head, time: noon, by: a.root.SignKey()}
			body := append(data[:2:2], e.body()[2:headSize]...)
			body = append(body, data[headSize:]...)
			whole := append(l.Bytes(), resigned(a.root, body)...)
			if got, err := ParseList(a.root.ID(), whole); err == nil && !bytes.Equal(got.Bytes(), whole) {
				t.Error("it was read as something else")
			}
		}
	})
}
