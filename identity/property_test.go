package identity

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// A ledger is what a list should say, kept in the plainest way.
type ledger struct {
	living map[DeviceID]Device
	ever   map[DeviceID]bool
}

func (l ledger) clone() ledger { return ledger{maps.Clone(l.living), maps.Clone(l.ever)} }

func (l ledger) may(by Signer, root Root) bool {
	if by.SignKey() == root.SignKey() {
		return true
	}
	return slices.ContainsFunc(slices.Collect(maps.Values(l.living)), func(d Device) bool {
		return d.Admin && d.Sign == by.SignKey()
	})
}

func (l ledger) named(name string) bool {
	return slices.ContainsFunc(slices.Collect(maps.Values(l.living)), func(d Device) bool { return d.Name == name })
}

// TestListFollowsItsRules has a handful of people do anything to a list, in any
// order, and compares it with the ledger after each step.
func TestListFollowsItsRules(t *testing.T) {
	root := NewPhrase().Root()
	var keys []DeviceKey
	for range 6 {
		keys = append(keys, NewDeviceKey())
	}
	signers := []Signer{root, NewPhrase().Root()}
	for _, k := range keys {
		signers = append(signers, k)
	}
	rapid.Check(t, func(t *rapid.T) {
		l, err := NewList(root, testV4, testV6, noon)
		if err != nil {
			t.Fatal(err)
		}
		want := ledger{map[DeviceID]Device{}, map[DeviceID]bool{}}
		history := []*List{l}
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			by := rapid.SampledFrom(signers).Draw(t, "by")
			k := rapid.SampledFrom(keys).Draw(t, "device")
			name := rapid.SampledFrom([]string{"a", "b", "c", "pal"}).Draw(t, "name")
			after := want.clone()
			ok := want.may(by, root)
			d, living := want.living[k.ID()]
			var next *List
			switch rapid.SampledFrom([]string{"add", "revoke", "rename"}).Draw(t, "what") {
			case "add":
				d = k.Device(name, rapid.Bool().Draw(t, "admin"))
				next, err = l.Add(by, d, noon)
				ok = ok && !want.ever[d.ID] && !want.named(name) && name != "pal"
				after.living[d.ID], after.ever[d.ID] = d, true
			case "revoke":
				next, err = l.Revoke(by, k.ID(), noon)
				ok = ok && living
				delete(after.living, k.ID())
			case "rename":
				next, err = l.Rename(by, k.ID(), name, noon)
				ok = ok && living && !want.named(name) && name != "pal"
				d.Name = name
				after.living[k.ID()] = d
			}
			if (err == nil) != ok {
				t.Fatalf("got error %v, want it done: %v", err, ok)
			}
			if err == nil {
				l, want = next, after
				history = append(history, l)
			}
			check(t, root.ID(), l, want)
		}
		for i, older := range history {
			if err := l.Extends(older); err != nil {
				t.Fatalf("list %d of %d: %v", i, len(history), err)
			}
			checkSince(t, l, older)
		}
	})
}

func check(t *rapid.T, root ID, l *List, want ledger) {
	t.Helper()
	back, err := ParseList(root, l.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(back.Devices(), back.Revoked()) != fmt.Sprint(l.Devices(), l.Revoked()) || back.Head() != l.Head() {
		t.Fatal("the list that was read is not the one that was written")
	}
	indexes := map[uint8]bool{}
	for _, d := range l.Devices() {
		w := want.living[d.ID]
		if w.Name != d.Name || w.Admin != d.Admin || w.WireGuard != d.WireGuard || indexes[d.Index] {
			t.Fatalf("got %v, want %v", d, w)
		}
		indexes[d.Index] = true
	}
	if len(indexes) != len(want.living) || len(l.Revoked()) != len(want.ever)-len(want.living) {
		t.Fatalf("got %d devices and %d revoked, want %d of %d", len(indexes), len(l.Revoked()), len(want.living), len(want.ever))
	}
}

// checkSince applies what has changed since an older list to it.
func checkSince(t *rapid.T, l, older *List) {
	t.Helper()
	have := map[DeviceID]Device{}
	for _, d := range older.Devices() {
		have[d.ID] = d
	}
	c := l.Since(older)
	for _, d := range c.Removed {
		delete(have, d.ID)
	}
	for _, d := range slices.Concat(c.Added, c.Renamed) {
		have[d.ID] = d
	}
	want := map[DeviceID]Device{}
	for _, d := range l.Devices() {
		want[d.ID] = d
	}
	if !maps.Equal(have, want) {
		t.Fatalf("since list of %d entries: got %v, want %v", older.Len(), have, want)
	}
}
