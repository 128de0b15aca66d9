package identity

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write testdata/vectors.json anew")

const vectorsFile = "testdata/vectors.json"

// vectors are for whoever writes this a second time: what is in docs/formats.md,
// with fixed keys. All but text is in hex.
type vectors struct {
	Phrase         string
	RootPrivate    string // the seed of RFC 8032
	RootID         string // text
	CenterKey      string
	AccountPrivate string // the account's at that center
	NetworkSeed    string
	WalletSeed     string
	Secrets        string // with their version byte
	PalWireGuard   string // public key, text
	LaptopKey      string // a device's keys, with their version byte
	LaptopID       string // text
	PhoneWireGuard string // public key, text
	List           string // first, add laptop (admin), add phone, rename it to mobile, revoke it
	ListHead       string
	UnlockPrivate  string // a core's HPKE key
	UnlockPublic   string
	UnlockSealed   string // by the laptop, at noon
}

// fixedAnn is ann with keys that are always the same.
func fixedAnn(t testing.TB) ann {
	t.Helper()
	entropy := new([entropySize]byte)
	for i := range entropy {
		entropy[i] = byte(i)
	}
	a := ann{root: Phrase{hide(entropy)}.Root(),
		laptop: deviceKeyFrom(bytes.Repeat([]byte{0x11}, 64)), phone: deviceKeyFrom(bytes.Repeat([]byte{0x22}, 64))}
	list := must[*List](t)
	a.list = list(NewList(a.root, testV4, testV6, noon))
	a.list = list(a.list.Add(a.root, a.laptop.Device("laptop", true), noon.Add(time.Second)))
	a.list = list(a.list.Add(a.laptop, Device{Name: "phone", WireGuard: a.phone.WireGuardKey()}, noon.Add(time.Minute)))
	return a
}

// fixedCore is a core's key that is always the same.
func fixedCore(t testing.TB) *UnlockKey {
	t.Helper()
	key, err := kem.NewPrivateKey(bytes.Repeat([]byte{0x33}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return newUnlockKey(key)
}

func vectorsNow(t *testing.T) vectors {
	t.Helper()
	text := hex.EncodeToString
	a := fixedAnn(t)
	phone, _ := a.list.Device("phone")
	list := must[*List](t)
	l := list(a.list.Rename(a.laptop, phone.ID, "mobile", noon.Add(time.Hour)))
	l = list(l.Revoke(a.root, phone.ID, noon.Add(2*time.Hour)))
	head := l.Head()
	center := bytes.Repeat([]byte{0x44}, 32)
	seed, wallet := a.root.NetworkSeed(), a.root.WalletSeed()
	secrets, bytes := a.root.PalSecrets(), must[[]byte](t)
	core := fixedCore(t)
	return vectors{
		Phrase:         strings.Join(Phrase{hide(&a.root.get().entropy)}.Words(), " "),
		RootPrivate:    text(a.root.get().key.Seed()),
		RootID:         a.root.ID().String(),
		CenterKey:      text(center),
		AccountPrivate: text(a.root.Account(center).Seed()),
		NetworkSeed:    text(seed[:]),
		WalletSeed:     text(wallet[:]),
		Secrets:        text(bytes(secrets.MarshalBinary())),
		PalWireGuard:   secrets.WireGuardKey().String(),
		LaptopKey:      text(bytes(a.laptop.MarshalBinary())),
		LaptopID:       a.laptop.ID().String(),
		PhoneWireGuard: phone.WireGuard.String(),
		List:           text(l.Bytes()),
		ListHead:       text(head[:]),
		UnlockPrivate:  text(bytes(core.get().key.Bytes())),
		UnlockPublic:   text(core.Public()),
		UnlockSealed:   text(bytes(SealUnlock(core.Public(), a.laptop, Unlock{Secrets: secrets, List: l, Time: noon}))),
	}
}

// TestVectors holds every byte to what it was.
func TestVectors(t *testing.T) {
	got := vectorsNow(t)
	if *update {
		b := must[[]byte](t)(json.MarshalIndent(got, "", "\t"))
		if err := os.WriteFile(vectorsFile, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var want vectors
	if err := json.Unmarshal(must[[]byte](t)(os.ReadFile(vectorsFile)), &want); err != nil {
		t.Fatal(err)
	}
	sealed := want.UnlockSealed
	got.UnlockSealed = sealed // each sealing is another
	if got != want {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	p := must[Phrase](t)(ParsePhrase(want.Phrase))
	u := must[Unlock](t)(fixedCore(t).Open(must[[]byte](t)(hex.DecodeString(sealed)), noon))
	if !u.Secrets.Equal(p.Root().PalSecrets()) || u.List.Root() != p.Root().ID() || !u.Time.Equal(noon) {
		t.Error("the sealed unlock opens to something else")
	}
}

func TestAccountsHaveNothingInCommon(t *testing.T) {
	r := NewPhrase().Root()
	one, two := r.Account([]byte("one")), r.Account([]byte("two"))
	if one.Equal(two) || !one.Equal(r.Account([]byte("one"))) || one.Equal(r.get().key) {
		t.Error("accounts must differ by center, and be the same for one")
	}
}

func TestIDs(t *testing.T) {
	id := NewPhrase().Root().ID()
	if back, err := ParseID(id.String()); back != id || err != nil {
		t.Errorf("got %v, error %v, want %v", back, err, id)
	}
	device := NewDeviceKey().ID()
	if back, err := ParseDeviceID(device.String()); back != device || err != nil {
		t.Errorf("got %v, error %v, want %v", back, err, device)
	}
	key := NewDeviceKey().WireGuardKey()
	var back WireGuardKey
	if err := back.UnmarshalText([]byte(key.String())); back != key || err != nil {
		t.Errorf("got %v, error %v, want %v", back, err, key)
	}
	s := id.String()
	for _, bad := range []string{"", "cp", s[2:], s + "a", s[:len(s)-1], strings.ToUpper(s), "cd" + s[2:], s[:10] + "1" + s[11:], s[:len(s)-1] + "b", device.String()} {
		if _, err := ParseID(bad); err == nil {
			t.Errorf("%q was read as an id", bad)
		}
	}
	for _, bad := range []string{"", "AAAA", key.String() + "=", " " + key.String(), key.String()[:43]} {
		if err := back.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q was read as a WireGuard key", bad)
		}
	}
}
