package manifest_test

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/manifest"
	"github.com/tradle/cloudpal/data/merkle"
)

// pairOf returns the key pair that vectors have under a number.
func pairOf(n byte) manifest.KeyPair {
	return manifest.NewKeyPair([32]byte(bytes.Repeat([]byte{n}, 32)))
}

func signer(n byte) manifest.Signer { return manifest.Signer{PublicKey: pairOf(n).Public} }

// batchOf has the blocks that vectors are made of, of which one may be another.
func batchOf(length, fork uint64, change int) *merkle.Batch {
	var b merkle.Batch
	b.Reset(merkle.Head{Fork: fork})
	for i := range length {
		word := "block"
		if int(i) == change {
			word = "other"
		}
		b.Append(fmt.Appendf(nil, "%s-%d", word, i))
	}
	return &b
}

func headOf(length, fork uint64, change int) merkle.Head { return batchOf(length, fork, change).Head() }

// partial is the signature of the n-th signer, whose seed is one more, of signed
// blocks, made to one of length blocks.
func partial(t testing.TB, m manifest.Manifest, n int, signed, length uint64) manifest.Partial {
	t.Helper()
	p, err := m.Partial(m.Key(), pairOf(byte(n+1)), headOf(signed, 0, -1))
	if err != nil {
		t.Fatal(err)
	}
	nodes := merkle.Nodes{}
	nodes.Add(batchOf(signed, 0, -1).Nodes()...)
	if p, err = p.Shorten(nodes, signed, length); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestSecretsAreNotShown formats key pairs in all ways there are.
func TestSecretsAreNotShown(t *testing.T) {
	pair := pairOf(0x5a)
	holder := struct {
		Pair   manifest.KeyPair
		hidden manifest.KeyPair
		ptr    *manifest.KeyPair
	}{pair, pair, &pair}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x", "%d", "%q"} {
		for _, v := range []any{pair, &pair, holder, []manifest.KeyPair{pair}} {
			text := fmt.Sprintf(verb, v)
			for _, secret := range []string{"5a5a5a", "ZZZ", "90 90 90", "0x5a, 0x5a", "90, 90"} {
				if strings.Contains(text, secret) {
					t.Errorf("%s shows the secret: %s", verb, text)
				}
			}
		}
	}
}

func TestGenerateKeyPair(t *testing.T) {
	a, b := manifest.GenerateKeyPair(), manifest.GenerateKeyPair()
	if a.Public == b.Public || !a.CanSign() || manifest.NewKeyPair(a.Seed()).Public != a.Public {
		t.Error("generated key pairs are not new ones")
	}
	if zero := (manifest.KeyPair{}); zero.CanSign() || zero.Seed() != [32]byte{} {
		t.Error("the zero key pair can sign")
	}
}

func TestWhoMaySign(t *testing.T) {
	one, two := manifest.Default(pairOf(1).Public), manifest.New(signer(1), signer(2))
	h := headOf(3, 0, -1)
	for _, c := range []struct {
		name string
		m    manifest.Manifest
		pair manifest.KeyPair
	}{
		{"a stranger", one, pairOf(2)},
		{"one without a secret", one, manifest.KeyPair{Public: pairOf(1).Public}},
		{"one of two", two, pairOf(1)},
		{"nobody", manifest.Static(merkle.Prologue{Length: 3}), pairOf(1)},
	} {
		if _, err := c.m.Sign(c.m.Key(), c.pair, h); !errors.Is(err, cloudpal.Denied) {
			t.Errorf("%s: got %v, want %v", c.name, err, cloudpal.Denied)
		}
	}
}

func TestBelongs(t *testing.T) {
	m := manifest.Default(pairOf(1).Public)
	if err := m.Belongs(m.Key()); err != nil {
		t.Error(err)
	}
	// A peer must not be able to make a core one that it cannot be, with a
	// manifest that has the core's key for a signer.
	for _, key := range []manifest.Key{{1}, m.Signers[0].PublicKey} {
		if err := m.Belongs(key); !errors.Is(err, cloudpal.Denied) {
			t.Errorf("%s: got %v, want %v", key, err, cloudpal.Denied)
		}
	}
}

func TestCheck(t *testing.T) {
	for name, change := range map[string]func(m *manifest.Manifest){
		"version":         func(m *manifest.Manifest) { m.Version = 4 },
		"quorum":          func(m *manifest.Manifest) { m.Quorum = 2 },
		"nobody":          func(m *manifest.Manifest) { m.Quorum = 0 },
		"linked":          func(m *manifest.Manifest) { m.Linked = [][32]byte{{}} },
		"user data":       func(m *manifest.Manifest) { m.UserData = []byte{} },
		"large user data": func(m *manifest.Manifest) { m.Version, m.UserData = 2, make([]byte, manifest.MaxUserData+1) },
		"old prologue":    func(m *manifest.Manifest) { m.Version, m.Prologue = 0, &merkle.Prologue{} },
		"signers":         func(m *manifest.Manifest) { m.Signers = make([]manifest.Signer, manifest.MaxSigners+1) },
	} {
		m := manifest.Default(pairOf(1).Public)
		change(&m)
		if err := m.Check(); !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("%s: got %v, want %v", name, err, cloudpal.Invalid)
		}
	}
	for _, m := range []manifest.Manifest{
		manifest.Default(pairOf(1).Public), manifest.New(signer(1), signer(2)), manifest.Static(merkle.Prologue{Length: 1}),
	} {
		if err := m.Check(); err != nil {
			t.Errorf("%+v: %v", m, err)
		}
	}
}

func TestDecodeRefuses(t *testing.T) {
	good := manifest.Default(pairOf(1).Public).Append(nil)
	change := func(at int, b byte) []byte {
		out := slices.Clone(good)
		out[at] = b
		return out
	}
	for name, b := range map[string][]byte{
		"nothing":           nil,
		"version 4":         change(0, 4),
		"another hash":      change(2, 1),
		"another signature": change(5, 1),
		"two signers":       change(4, 2),
		"many signers":      append(slices.Clone(good[:4]), 0xfe, 255, 255, 255, 127),
		"version 0, type 3": {0, 0, 3},
		"large user data":   append([]byte{2, 8, 0, 0, 0, 0xfe, 1, 0, 0x10, 0}, make([]byte, 1<<20+1)...),
		"many linked":       {2, 4, 0, 0, 0, 0xfe, 0, 0, 1, 0},
	} {
		if m, err := manifest.Decode(b); !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("%s: got %+v, %v, want %v", name, m, err, cloudpal.Invalid)
		}
	}
	if _, err := manifest.Decode(append(good, 1, 2, 3)); err != nil {
		t.Errorf("with more behind: %v", err)
	}
}

func TestAssembleRefuses(t *testing.T) {
	m := manifest.New(signer(1), signer(2), signer(3))
	a, b := partial(t, m, 0, 4, 4), partial(t, m, 1, 7, 4)
	outsider := a
	outsider.Signer = 3
	for name, partials := range map[string][]manifest.Partial{
		"too few":          {a},
		"one twice":        {a, a},
		"no patch allowed": {a, b},
		"no such signer":   {a, outsider},
	} {
		if s, err := m.Assemble(partials...); !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("%s: got %x, %v, want %v", name, s, err, cloudpal.Invalid)
		}
	}
	if _, err := b.Shorten(merkle.Nodes{}, 7, 3); !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("shorten twice: got %v, want %v", err, cloudpal.Invalid)
	}
	if _, err := a.Shorten(merkle.Nodes{}, 4, 3); !errors.Is(err, cloudpal.NotExist) {
		t.Errorf("shorten without nodes: got %v, want %v", err, cloudpal.NotExist)
	}
	if _, err := a.Shorten(merkle.Nodes{}, 4, 5); !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("make longer: got %v, want %v", err, cloudpal.Invalid)
	}
}

// drawManifest draws manifests of all versions.
func drawManifest(t *rapid.T) manifest.Manifest {
	m := manifest.Manifest{
		Version:    rapid.Uint64Range(0, 3).Draw(t, "version"),
		Quorum:     rapid.Uint64Range(0, 5).Draw(t, "quorum"),
		AllowPatch: rapid.Bool().Draw(t, "patch"),
	}
	sum := rapid.Custom(func(t *rapid.T) [32]byte { return [32]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "sum")) })
	for range rapid.IntRange(0, 4).Draw(t, "signers") {
		m.Signers = append(m.Signers, manifest.Signer{Namespace: sum.Draw(t, "namespace"), PublicKey: sum.Draw(t, "key")})
	}
	if m.Version == 0 { // it can say little
		if len(m.Signers) == 0 && rapid.Bool().Draw(t, "static") {
			m.Quorum, m.AllowPatch, m.Prologue = 0, false, &merkle.Prologue{Hash: sum.Draw(t, "prologue")}
		}
		return m
	}
	if rapid.Bool().Draw(t, "prologue") {
		m.Prologue = &merkle.Prologue{Hash: sum.Draw(t, "hash"), Length: rapid.Uint64Range(0, merkle.MaxLength).Draw(t, "length")}
	}
	if rapid.Bool().Draw(t, "linked") {
		m.Linked = append([][32]byte{}, rapid.SliceOfN(sum, 0, 3).Draw(t, "linked")...)
	}
	if rapid.Bool().Draw(t, "user data") {
		m.UserData = append([]byte{}, rapid.SliceOf(rapid.Byte()).Draw(t, "user data")...)
	}
	return m
}

func TestEncoding(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawManifest(t)
		b := m.Append(nil)
		back, err := manifest.Decode(b)
		if err != nil || !reflect.DeepEqual(normal(back), normal(m)) {
			t.Fatalf("got %+v, %v, want %+v", back, err, m)
		}
		if _, err := manifest.Decode(b[:len(b)-1]); err == nil {
			t.Error("a manifest that is cut is one, too")
		}
	})
}

// TestChangedSignatures has random manifests and signers, and changes one bit of
// a signature, or the head: whatever is refused must be.
func TestChangedSignatures(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 4).Draw(rt, "signers")
		var signers []manifest.Signer
		for i := range n {
			signers = append(signers, signer(byte(i+1)))
		}
		m := manifest.New(signers...)
		m.Version = rapid.Uint64Range(0, 3).Draw(rt, "version")
		m.AllowPatch = rapid.Bool().Draw(rt, "patch")
		m.Quorum = rapid.Uint64Range(1, uint64(n)).Draw(rt, "quorum")
		key := m.Key()
		length := rapid.Uint64Range(0, 12).Draw(rt, "length")
		var partials []manifest.Partial
		for _, i := range rapid.Permutation([]int{0, 1, 2, 3}[:n]).Draw(rt, "order")[:m.Quorum] {
			signed := length
			if m.AllowPatch {
				signed += rapid.Uint64Range(0, 9).Draw(rt, "more")
			}
			partials = append(partials, partial(t, m, i, signed, length))
		}
		h := headOf(length, 0, -1)
		signature, err := m.Assemble(partials...)
		if m.Version == 0 && n == 1 && !m.AllowPatch {
			signature = partials[0].Signature[:]
		}
		h.Signature = signature
		if err != nil || m.Verify(key, h) != nil {
			rt.Fatalf("got %v, %v", err, m.Verify(key, h))
		}

		other := h
		switch rapid.IntRange(0, 3).Draw(rt, "change") {
		case 0:
			other.Fork++
		case 1:
			other.Length++
		case 2:
			other = headOf(length+1, 0, -1)
			other.Signature = signature
		default:
			at := rapid.IntRange(0, len(signature)-1).Draw(rt, "byte")
			if idle(m, partials, signature, at) {
				rt.Skip("this byte says nothing")
			}
			other.Signature = slices.Clone(signature)
			other.Signature[at] ^= 1 << rapid.IntRange(0, 7).Draw(rt, "bit")
		}
		if err := m.Verify(key, other); !errors.Is(err, manifest.ErrSignature) {
			rt.Errorf("got %v, want %v", err, manifest.ErrSignature)
		}
	})
}

// idle reports whether a byte of a signature may be changed without harm: how
// many have signed, if enough have; patches where none are allowed; and most of
// what version 0 says of patches.
func idle(m manifest.Manifest, partials []manifest.Partial, signature []byte, at int) bool {
	const each = 1 + 64 + 1 // signer, signature, patch
	if m.Version > 0 {
		return at == 0 || !m.AllowPatch && at < 1+each*len(partials) && at%each == 0
	}
	for _, p := range partials {
		if i := bytes.Index(signature, p.Signature[:]); i <= at && at < i+64 {
			return false
		}
	}
	return true
}

// TestAnyBitOfASignature changes every bit of what one signer has signed.
func TestAnyBitOfASignature(t *testing.T) {
	m := manifest.Default(pairOf(1).Public)
	key, h := m.Key(), headOf(5, 2, -1)
	signature, err := m.Sign(key, pairOf(1), h)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 66 { // the two bytes after these say that nothing is patched
		for bit := range 8 {
			h.Signature = slices.Clone(signature)
			h.Signature[i] ^= 1 << bit
			if err := m.Verify(key, h); !errors.Is(err, manifest.ErrSignature) && !(i == 0 && err == nil) {
				t.Errorf("bit %d of byte %d: got %v, want %v", bit, i, err, manifest.ErrSignature)
			}
		}
	}
}

func FuzzManifest(f *testing.F) {
	f.Add(manifest.Default(pairOf(1).Public).Append(nil))
	f.Add(manifest.Manifest{Version: 2, UserData: []byte("x"), Linked: [][32]byte{{}}, Prologue: &merkle.Prologue{}}.Append(nil))
	f.Add(manifest.Manifest{Quorum: 2, AllowPatch: true, Signers: []manifest.Signer{signer(1), signer(2)}}.Append(nil))
	f.Add(manifest.Manifest{Prologue: &merkle.Prologue{}}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := manifest.Decode(b)
		if err != nil {
			if !errors.Is(err, cloudpal.Invalid) {
				t.Errorf("got %v, want %v", err, cloudpal.Invalid)
			}
			return
		}
		again := m.Append(nil)
		back, err := manifest.Decode(again)
		if err != nil || !reflect.DeepEqual(normal(back), normal(m)) || m.Belongs(m.Key()) != nil {
			t.Errorf("got %+v, %v, want %+v", back, err, m)
		}
		if len(again) > len(b) {
			t.Errorf("%d bytes have become %d", len(b), len(again))
		}
	})
}

// FuzzSignature verifies any signatures: it does not panic, and finds none good
// that was not made with the keys.
func FuzzSignature(f *testing.F) {
	h := headOf(5, 0, -1)
	many := manifest.New(signer(1), signer(2), signer(3))
	many.AllowPatch = true
	old := many
	old.Version = 0
	for _, m := range []manifest.Manifest{many, old} {
		s, err := m.Assemble(partial(f, m, 0, 5, 5), partial(f, m, 1, 9, 5))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(s)
	}
	strangers := manifest.New(signer(7), signer(8), signer(9))
	strangers.AllowPatch = true
	key := strangers.Key()
	f.Fuzz(func(t *testing.T, signature []byte) {
		h := h
		h.Signature = signature
		for _, version := range []uint64{0, 1} {
			strangers.Version = version
			if err := strangers.Verify(key, h); !errors.Is(err, manifest.ErrSignature) {
				t.Errorf("got %v, want %v", err, manifest.ErrSignature)
			}
		}
	})
}

func BenchmarkSign(b *testing.B) {
	pair := pairOf(1)
	m := manifest.Default(pair.Public)
	key, h := m.Key(), headOf(1000, 0, -1)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Sign(key, pair, h); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkVerify(b *testing.B) {
	pair := pairOf(1)
	m := manifest.Default(pair.Public)
	key, h := m.Key(), headOf(1000, 0, -1)
	h.Signature, _ = m.Sign(key, pair, h)
	b.ReportAllocs()
	for b.Loop() {
		if err := m.Verify(key, h); err != nil {
			b.Fatal(err)
		}
	}
}

func Example() {
	ann := manifest.NewKeyPair([32]byte{1})
	m := manifest.Default(ann.Public)
	key := m.Key()
	fmt.Println("core", key)

	var b merkle.Batch
	b.Append([]byte("hello"))
	head := b.Head()
	signature, err := m.Sign(key, ann, head)
	if err != nil {
		fmt.Println(err)
		return
	}

	// A reader who has only the key is sent the manifest and the head.
	sent, err := manifest.Decode(m.Append(nil))
	if err != nil || sent.Belongs(key) != nil {
		fmt.Println("this is another core's manifest")
		return
	}
	head.Signature = signature
	fmt.Println(sent.Verify(key, head))

	b.Append([]byte("not signed"))
	forged := b.Head()
	forged.Signature = signature
	fmt.Println(sent.Verify(key, forged))
	// Output:
	// core akeqm7gx8gxn5a397xed4qk1rno3416jfgbe6ugkj54qtnd4mi9y
	// <nil>
	// verify a signature: not allowed: it is not the writer's
}
