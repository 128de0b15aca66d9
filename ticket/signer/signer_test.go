package signer

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/cloudflare/circl/blindsign/blindrsa"

	"github.com/tradle/cloudpal"
)

var shared = sync.OnceValue(func() *Signer {
	s, err := Generate()
	if err != nil {
		panic(err)
	}
	return s
})

func hexInt(t *testing.T, s string) *big.Int {
	t.Helper()
	n, ok := new(big.Int).SetString(s, 0)
	if !ok {
		t.Fatalf("not a number: %q", s)
	}
	return n
}

// keyOf makes a key of 2048 bits of its numbers. Those of the RFC's example have
// 4096; see TestVectors.
func keyOf(n, e, d, p, q *big.Int) *rsa.PrivateKey {
	return &rsa.PrivateKey{PublicKey: rsa.PublicKey{N: n, E: int(e.Int64())}, D: d, Primes: []*big.Int{p, q}}
}

// TestVectors signs what RFC 9474, appendix A.3 signs. Its key has 4096 bits, which
// New refuses and the arithmetic does not mind.
func TestVectors(t *testing.T) {
	text, err := os.ReadFile("../testdata/rfc9474.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		P, Q, N, E, D string
		Blinded       string `json:"blinded_msg"`
		Signature     string `json:"blind_sig"`
	}
	if err := json.Unmarshal(text, &vectors); err != nil || len(vectors) == 0 {
		t.Fatalf("%d vectors, %v", len(vectors), err)
	}
	for _, v := range vectors {
		key := keyOf(hexInt(t, v.N), hexInt(t, v.E), hexInt(t, v.D), hexInt(t, v.P), hexInt(t, v.Q))
		if _, err := New(key); !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("a key of %d bits: got %v, want %v", key.N.BitLen(), err, cloudpal.Invalid)
		}
		s, err := precompute(key)
		if err != nil {
			t.Fatal(err)
		}
		blinded, _ := hex.DecodeString(v.Blinded)
		signed, err := s.power(blinded)
		if err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(signed.Bytes(s.n)); got != v.Signature {
			t.Errorf("got %s, want %s", got, v.Signature)
		}
	}
}

// TestSignsAsOthers compares with circl's signer, whichever prime is the larger.
func TestSignsAsOthers(t *testing.T) {
	key := shared().key
	n := key.N
	turned := &rsa.PrivateKey{PublicKey: key.PublicKey, D: key.D, Primes: []*big.Int{key.Primes[1], key.Primes[0]}}
	turned.Precompute()
	edges := []*big.Int{
		big.NewInt(1), big.NewInt(2), new(big.Int).Lsh(big.NewInt(1), bits/2), new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), bits/2), big.NewInt(1)),
		new(big.Int).Sub(n, big.NewInt(1)), key.Primes[0], key.Primes[1], new(big.Int).Sub(n, key.Primes[0]),
		new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), bits-1), big.NewInt(1)),
	}
	for _, key := range []*rsa.PrivateKey{key, turned} {
		s, err := New(key)
		if err != nil {
			t.Fatal(err)
		}
		other := blindrsa.NewSigner(key)
		for i := range 50 {
			m, err := rand.Int(rand.Reader, n)
			if err != nil {
				t.Fatal(err)
			}
			if i < len(edges) {
				m = edges[i]
			}
			blinded := m.FillBytes(make([]byte, Size))
			got, err := s.Sign(blinded)
			if err != nil {
				t.Fatal(err)
			}
			want := new(big.Int).Exp(m, key.D, n).FillBytes(make([]byte, Size))
			if i >= len(edges) { // circl refuses multiples of a prime
				if want, err = other.BlindSign(blinded); err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%x: got %x, want %x", blinded, got, want)
			}
		}
	}
}

// TestPrimesOfOneSize: the arithmetic halves what it is given.
func TestPrimesOfOneSize(t *testing.T) {
	p, err := rand.Prime(rand.Reader, bits/2-40)
	q, err2 := rand.Prime(rand.Reader, bits/2+40)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	one := big.NewInt(1)
	e := big.NewInt(exponent)
	d := new(big.Int).ModInverse(e, new(big.Int).Mul(new(big.Int).Sub(p, one), new(big.Int).Sub(q, one)))
	if d == nil {
		return // by chance, one of them less one is a multiple of the exponent
	}
	if _, err := New(keyOf(new(big.Int).Mul(p, q), e, d, p, q)); !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("got %v, want %v", err, cloudpal.Invalid)
	}
}

func TestRefuses(t *testing.T) {
	s := shared()
	n := s.key.N
	for name, b := range map[string][]byte{
		"nothing": nil, "zero": make([]byte, Size), "too short": make([]byte, Size-1), "too long": make([]byte, Size+1),
		"the modulus": n.FillBytes(make([]byte, Size)), "all ones": bytes.Repeat([]byte{0xff}, Size),
	} {
		if got, err := s.Sign(b); !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("%s: got %x, %v, want %v", name, got, err, cloudpal.Invalid)
		}
	}
}

// TestFaults: whatever half of the calculation goes wrong, nothing is given away.
func TestFaults(t *testing.T) {
	for name, spoil := range map[string]func(*Signer){
		"dp":   func(s *Signer) { s.dp[len(s.dp)-1] ^= 1 },
		"dq":   func(s *Signer) { s.dq[5] ^= 0x10 },
		"rp":   func(s *Signer) { s.rp.SetUint(3).ExpandFor(s.p) },
		"qInv": func(s *Signer) { s.qInv.SetUint(3).ExpandFor(s.p) },
	} {
		s, err := precompute(shared().key)
		if err != nil {
			t.Fatal(err)
		}
		spoil(s)
		blinded := bytes.Repeat([]byte{0x17}, Size)
		if got, err := s.Sign(blinded); err == nil || got != nil {
			t.Errorf("%s: got %x, %v", name, got, err)
		}
	}
}

func TestKeysAreKept(t *testing.T) {
	s := shared()
	text, err := s.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Parse(text)
	if err != nil || !again.key.Equal(s.key) {
		t.Fatalf("got another key, %v", err)
	}
	for name, text := range map[string]string{
		"nothing": "", "no PEM": "hello", "another block": strings.ReplaceAll(string(text), "PRIVATE KEY", "PUBLIC KEY"),
		"cut off": string(text[:len(text)/2]),
	} {
		if _, err := Parse([]byte(text)); err == nil {
			t.Errorf("%s is taken for a key", name)
		}
	}
	if shown := fmt.Sprintf("%v %+v %#v", s, s, s); strings.Contains(shown, s.key.D.String()[:20]) {
		t.Error("a printed signer shows its key")
	}
}

func FuzzParse(f *testing.F) {
	text, err := shared().Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		if s, err := Parse(text); err == nil && s.key.N.BitLen() != bits {
			t.Error("it takes a key of another size")
		}
	})
}

func blindedMessage(b *testing.B) []byte {
	m, err := rand.Int(rand.Reader, shared().key.N)
	if err != nil {
		b.Fatal(err)
	}
	return m.FillBytes(make([]byte, Size))
}

func BenchmarkSign(b *testing.B) {
	m := blindedMessage(b)
	for b.Loop() {
		if _, err := shared().Sign(m); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSignCircl(b *testing.B) {
	m, s := blindedMessage(b), blindrsa.NewSigner(shared().key)
	for b.Loop() {
		if _, err := s.BlindSign(m); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSignCryptoRSA(b *testing.B) {
	sum := sha512.Sum384([]byte("message"))
	for b.Loop() {
		if _, err := rsa.SignPSS(rand.Reader, shared().key, crypto.SHA384, sum[:], nil); err != nil {
			b.Fatal(err)
		}
	}
}
