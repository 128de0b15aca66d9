package api

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/signer"
)

// spent makes a ticket, and spends it for a contract.
func spent(t *testing.T, c ticket.Contract) (ticket.Ticket, *ticket.Key, ticket.Spend) {
	t.Helper()
	s, err := signer.Generate()
	if err != nil {
		t.Fatal(err)
	}
	k, err := ticket.NewKey(ticket.Paid, 64, 82, s.Public())
	if err != nil {
		t.Fatal(err)
	}
	secret, err := ticket.Derive(ticket.Seed{1}, "test", "mint.example", k, 0)
	if err != nil {
		t.Fatal(err)
	}
	o := secret.Output()
	blind, err := s.Sign(o.Blinded[:])
	if err != nil {
		t.Fatal(err)
	}
	one, err := secret.Finish(blind)
	if err != nil {
		t.Fatal(err)
	}
	return one, k, one.Sign(c)
}

func TestEvidence(t *testing.T) {
	t.Parallel()
	pay := ticket.PayContract{Center: ticket.CenterID{1}, Hidden: ticket.Hidden{2}, Amount: 64, NotBefore: time.Unix(1_800_000_000, 0), Blank: ticket.Digest{3}}
	one, k, spend := spent(t, pay)
	other := ticket.SwapContract{Outputs: ticket.Digest{9}}
	e, err := ParseEvidence(Evidence{pay, spend}.Append(nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Proves("mint.example", k, one.Serial(), other); err != nil {
		t.Errorf("good evidence: %v", err)
	}
	for name, check := range map[string]func() error{
		"for just this":  func() error { return e.Proves("mint.example", k, one.Serial(), pay) },
		"another mint":   func() error { return e.Proves("other.example", k, one.Serial(), other) },
		"another ticket": func() error { return e.Proves("mint.example", k, ticket.Serial{4}, other) },
		"none":           func() error { return Evidence{}.Proves("mint.example", k, one.Serial(), other) },
		"another signature": func() error {
			e := e
			e.Spend.Signature[9] ^= 1
			return e.Proves("mint.example", k, one.Serial(), other)
		},
		"another contract": func() error {
			return Evidence{ticket.SwapContract{}, e.Spend}.Proves("mint.example", k, one.Serial(), other)
		},
	} {
		if err := check(); !errors.Is(err, cloudpal.Denied) {
			t.Errorf("%s: got %v, want a refusal", name, err)
		}
	}
	p := ProblemOf(&Spent{e})
	text, _ := json.Marshal(p)
	var read Problem
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatal(err)
	}
	var s *Spent
	if err := read.Err(); !errors.As(err, &s) || !errors.Is(err, cloudpal.Exist) || s.Evidence.Proves("mint.example", k, one.Serial(), other) != nil {
		t.Errorf("over HTTP the evidence became %v", read.Err())
	}
}

// What is signed for one purpose is no text of another, and each part counts.
func TestTexts(t *testing.T) {
	t.Parallel()
	seen := map[string]string{}
	hour := time.Unix(1_800_000_000, 0)
	for name, text := range map[string][]byte{
		"issue":           IssueText("a", ticket.Digest{1}),
		"issue b":         IssueText("b", ticket.Digest{1}),
		"issue others":    IssueText("a", ticket.Digest{2}),
		"refund":          RefundText(ticket.Serial{1}, 1, ticket.Digest{1}),
		"refund 2":        RefundText(ticket.Serial{1}, 2, ticket.Digest{1}),
		"dispute":         DisputeText(ticket.Serial{1}, ticket.Digest{1}, nil),
		"dispute record":  DisputeText(ticket.Serial{1}, ticket.Digest{1}, []byte{0}),
		"receipt":         Receipt{Serial: []byte{1}, Credited: hour}.Text(),
		"receipt moved":   Receipt{Key: []byte{1}, Credited: hour}.Text(),
		"receipt 4":       Receipt{Serial: []byte{1}, Credited: hour, Amount: 4}.Text(),
		"centers":         Directory{Time: hour, Centers: []Center{{Name: "ab", URL: "c"}}}.Text(),
		"centers moved":   Directory{Time: hour, Centers: []Center{{Name: "a", URL: "bc"}}}.Text(),
		"counters":        Counters{Time: hour, Keys: []KeyCounter{{Issued: 1}}}.Text(),
		"counters moved":  Counters{Time: hour, Keys: []KeyCounter{{Redeemed: 1}}}.Text(),
		"counters hourly": Counters{Time: hour, Keys: []KeyCounter{{Issued: 1, Hours: []Hour{{Hour: 1}}}}}.Text(),
	} {
		if was, ok := seen[string(text)]; ok {
			t.Errorf("%s and %s are one text", name, was)
		}
		seen[string(text)] = name
	}
	key := ed25519.NewKeyFromSeed(make([]byte, 32))
	r := Receipt{Serial: []byte{1}, Credited: hour}
	r.Signature = ed25519.Sign(key, r.Text())
	if err := r.Verify(key.Public().(ed25519.PublicKey)); err != nil {
		t.Error(err)
	}
	r.Amount = 64
	if err := r.Verify(key.Public().(ed25519.PublicKey)); !errors.Is(err, cloudpal.Denied) {
		t.Errorf("a receipt that was changed: %v", err)
	}
}

// Root is RFC 6962's: the examples are those of its section 2.1.3's shape, computed
// by hand.
func TestRoot(t *testing.T) {
	t.Parallel()
	leaf := func(b byte) [32]byte { return sha256.Sum256(append([]byte{0}, bytes.Repeat([]byte{b}, 32)...)) }
	node := func(l, r [32]byte) [32]byte { return sha256.Sum256(append(append([]byte{1}, l[:]...), r[:]...)) }
	var leaves [][32]byte
	for b := range byte(3) {
		leaves = append(leaves, [32]byte(bytes.Repeat([]byte{b}, 32)))
	}
	for n, want := range map[int][32]byte{
		0: sha256.Sum256(nil), 1: leaf(0), 2: node(leaf(0), leaf(1)), 3: node(node(leaf(0), leaf(1)), leaf(2)),
	} {
		if got := Root(leaves[:n]); got != want {
			t.Errorf("the root of %d leaves is %x, want %x", n, got, want)
		}
	}
}

func TestTransport(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{
		"", "http://mint.example", "https://", "https://mint.example/path", "https://u:p@mint.example", "https://mint.example?q",
		"https://mint.example#short", "https://mint.example#" + string(bytes.Repeat([]byte{'!'}, 43)),
	} {
		if _, _, err := Transport(bad, nil); !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("%q: got %v", bad, err)
		}
	}
}

func FuzzParseEvidence(f *testing.F) {
	f.Add(Evidence{ticket.SwapContract{}, ticket.Spend{}}.Append(nil))
	f.Add(Evidence{ticket.PayContract{NotBefore: time.Unix(0, 0)}, ticket.Spend{}}.Append(nil))
	keyed := ticket.Spend{Token: ticket.Token{Key: ticket.KeyID{1}}}
	f.Add(Evidence{ticket.SwapContract{}, keyed}.Append(nil))
	f.Add(Evidence{ticket.PayContract{NotBefore: time.Unix(0, 0)}, keyed}.Append(nil))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := ParseEvidence(b)
		if err != nil {
			return
		}
		if got := e.Append(nil); !bytes.Equal(got, b) {
			t.Errorf("%x was read and written as %x", b, got)
		}
	})
}

// FuzzMessages reads what a mint may answer, and what it may be asked.
func FuzzMessages(f *testing.F) {
	f.Add([]byte(`{"outputs":[{"key":"AA==","blinded":"AA=="}]}`))
	f.Add([]byte(`{"title":"not valid","status":400,"evidence":"AQ=="}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p Problem
		if json.Unmarshal(b, &p) == nil {
			_ = p.Err().Error()
		}
		var r RestoreRequest
		if json.Unmarshal(b, &r) == nil {
			if outputs, err := ParseOutputs(r.Outputs); err == nil && len(outputs) > MaxOutputs {
				t.Error("too many outputs")
			}
		}
		var c Counters
		if json.Unmarshal(b, &c) == nil {
			_ = c.Text()
		}
	})
}
