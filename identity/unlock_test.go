package identity

import (
	"bytes"
	"crypto/hpke"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
)

func (a ann) unlock() Unlock {
	return Unlock{Secrets: a.root.PalSecrets(), List: a.list, Time: noon}
}

func TestUnlock(t *testing.T) {
	a := newAnn(t)
	core := NewUnlockKey()
	for who, by := range map[string]Signer{"an admin": a.laptop, "a device": a.phone, "the root": a.root} {
		sealed := must[[]byte](t)(SealUnlock(core.Public(), by, a.unlock()))
		u, err := core.Open(sealed, noon.Add(time.Minute))
		if err != nil {
			t.Fatalf("%s: %v", who, err)
		}
		if !u.Secrets.Equal(a.root.PalSecrets()) || u.List.Head() != a.list.Head() || u.List.Root() != a.root.ID() ||
			u.By != by.SignKey() || !u.Time.Equal(noon) {
			t.Errorf("%s: the core got something else", who)
		}
		if bytes.Contains(sealed, u.Secrets.Disk()[:8]) || bytes.Contains(sealed, []byte("laptop")) {
			t.Errorf("%s: the center can read it", who)
		}
	}
}

func TestUnlockIsRefused(t *testing.T) {
	a, bob := newAnn(t), newAnn(t)
	core := NewUnlockKey()
	sealed := must[[]byte](t)(SealUnlock(core.Public(), a.laptop, a.unlock()))
	refused := func(what string, k *UnlockKey, sealed []byte, now time.Time, kind cloudpal.Kind) {
		t.Helper()
		u, err := k.Open(sealed, now)
		wantKind(t, what, err, kind)
		if !u.Secrets.IsZero() || u.List != nil {
			t.Errorf("%s: an error, and an unlock", what)
		}
	}
	refused("sealed to another core", NewUnlockKey(), sealed, noon, cloudpal.Denied)
	refused("replayed to a later boot", NewUnlockKey(), sealed, noon.Add(time.Second), cloudpal.Denied)
	refused("held back for two days", core, sealed, noon.Add(48*time.Hour), cloudpal.Denied)
	refused("from the day after tomorrow", core, sealed, noon.Add(-48*time.Hour), cloudpal.Denied)
	refused("nothing", core, nil, noon, cloudpal.Denied)
	refused("too large", core, make([]byte, MaxUnlock+1), noon, cloudpal.Invalid)
	for _, i := range []int{0, 31, 32, len(sealed) / 2, len(sealed) - 1} {
		bad := bytes.Clone(sealed)
		bad[i] ^= 1
		refused("changed on the way", core, bad, noon, cloudpal.Denied)
	}
	refused("cut off", core, sealed[:len(sealed)-1], noon, cloudpal.Denied)

	// What somebody without the person's keys can make.
	for what, plain := range map[string][]byte{
		"signed by nobody":                  a.plain(core.Public(), a.laptop.SignKey(), NewDeviceKey()),
		"signed by a stranger":              a.plain(core.Public(), SignKey{}, NewDeviceKey()),
		"signed by another person's device": a.plain(core.Public(), SignKey{}, bob.laptop),
		"signed for another core":           a.plain(NewUnlockKey().Public(), SignKey{}, a.laptop),
		"of a device that the list has not": Unlock{Secrets: a.root.PalSecrets(), List: must[*List](t)(NewList(a.root, testV4, testV6, noon)), Time: noon, By: a.laptop.SignKey()}.plain(core.Public(), a.laptop),
		"an entry's signature":              a.plainFor(purposeEntry, core.Public(), a.laptop),
	} {
		refused(what, core, sealedTo(t, core, plain), noon, cloudpal.Denied)
	}
	good := a.plain(core.Public(), SignKey{}, a.laptop)
	if _, err := core.Open(sealedTo(t, core, good), noon); err != nil {
		t.Errorf("and the laptop's own: %v", err)
	}
	for what, plain := range map[string][]byte{
		"too short":      good[:minUnlock-1],
		"version 2":      append([]byte{2}, good[1:]...),
		"empty":          nil,
		"late":           append([]byte{1, 0xff}, good[2:]...),
		"no list":        Unlock{Secrets: a.root.PalSecrets(), List: &List{root: a.root.ID()}, Time: noon, By: a.root.SignKey()}.plain(core.Public(), a.root),
		"not a list":     Unlock{Secrets: a.root.PalSecrets(), List: &List{root: a.root.ID(), data: []byte("no list")}, Time: noon, By: a.root.SignKey()}.plain(core.Public(), a.root),
		"another's list": Unlock{Secrets: a.root.PalSecrets(), List: &List{root: a.root.ID(), data: bob.list.Bytes()}, Time: noon, By: a.root.SignKey()}.plain(core.Public(), a.root),
	} {
		refused(what, core, sealedTo(t, core, plain), noon, cloudpal.Invalid)
	}
}

// plain is what is inside of a sealed unlock, signed by one who may say to be
// another.
func (a ann) plain(core []byte, says SignKey, by Signer) []byte {
	u := a.unlock()
	if u.By = says; says.IsZero() {
		u.By = by.SignKey()
	}
	return u.plain(core, by)
}

func (u Unlock) plain(core []byte, by Signer) []byte {
	payload := u.payload()
	return append(payload, by.sign(purposeUnlock, slices.Concat(core, payload))...)
}

func (a ann) plainFor(purpose string, core []byte, by Signer) []byte {
	u := a.unlock()
	u.By = by.SignKey()
	payload := u.payload()
	return append(payload, by.sign(purpose, slices.Concat(core, payload))...)
}

func sealedTo(t testing.TB, core *UnlockKey, plain []byte) []byte {
	t.Helper()
	return must[[]byte](t)(hpke.Seal(core.get().key.PublicKey(), kdf, aead, []byte(purposeUnlock), plain))
}

func TestSealRefuses(t *testing.T) {
	a := newAnn(t)
	core := NewUnlockKey().Public()
	_, err := SealUnlock(core[:31], a.laptop, a.unlock())
	wantKind(t, "half a core's key", err, cloudpal.Invalid)
	_, err = SealUnlock(make([]byte, 32), a.laptop, a.unlock())
	wantKind(t, "a key of low order", err, cloudpal.Invalid)
	_, err = SealUnlock(core, NewDeviceKey(), a.unlock())
	wantKind(t, "a stranger", err, cloudpal.Denied)
	_, err = SealUnlock(core, a.laptop, Unlock{Secrets: a.root.PalSecrets(), Time: noon})
	wantKind(t, "no list", err, cloudpal.Invalid)
	_, err = SealUnlock(core, a.laptop, Unlock{List: a.list, Time: noon})
	wantKind(t, "no secrets", err, cloudpal.Invalid)
	_, err = SealUnlock(core, a.laptop, Unlock{Secrets: a.root.PalSecrets(), List: a.list})
	wantKind(t, "no time", err, cloudpal.Invalid)
}

// TestAgainst is what the core decides when it has opened its volume with the
// secrets of an unlock and found a list there.
func TestAgainst(t *testing.T) {
	a, bob := newAnn(t), newAnn(t)
	list := must[*List](t)
	longer := list(a.list.Rename(a.laptop, a.phone.ID(), "mobile", noon))
	without := list(longer.Revoke(a.laptop, a.phone.ID(), noon))
	fork := list(a.list.Revoke(a.root, a.phone.ID(), noon))
	for _, c := range []struct {
		what         string
		by           Signer
		list, stored *List
		want         *List
		err          error
	}{
		{"a new volume", a.laptop, a.list, nil, a.list, nil},
		{"the same list", a.laptop, a.list, a.list, a.list, nil},
		{"a newer list", a.phone, longer, a.list, longer, nil},
		{"an older list", a.phone, a.list, longer, longer, nil},
		{"by a device that the core knows to be revoked", a.phone, a.list, without, nil, cloudpal.Denied},
		{"by the root, with an old list", a.root, a.list, without, without, nil},
		{"a fork", a.laptop, longer, fork, nil, ErrFork},
		{"another person's volume", bob.laptop, bob.list, a.list, nil, cloudpal.Denied},
	} {
		got, err := Unlock{List: c.list, By: c.by.SignKey()}.Against(c.stored)
		if got != c.want || !errors.Is(err, c.err) {
			t.Errorf("%s: got %v, error %v, want error %v", c.what, got != nil, err, c.err)
		}
	}
}

// FuzzOpen reads what may be inside of a sealed unlock: by then nothing is
// known of who sealed it.
func FuzzOpen(f *testing.F) {
	a, core := fixedAnn(f), fixedCore(f)
	f.Add(a.plain(core.Public(), SignKey{}, a.laptop))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, data []byte) {
		if u, err := readUnlock(core.Public(), data); err == nil && !u.List.speaks(u.By) {
			t.Error("an unlock by nobody")
		}
		// And as if a device had signed it.
		if u, err := readUnlock(core.Public(), append(bytes.Clone(data), a.laptop.sign(purposeUnlock, slices.Concat(core.Public(), data))...)); err == nil {
			if got := u.payload(); !bytes.Equal(got, data) {
				t.Errorf("it was read as something else: %x for %x", got, data)
			}
		}
		core.Open(data, noon)
	})
}
