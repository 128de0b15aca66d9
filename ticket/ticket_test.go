package ticket

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket/signer"
)

const issuer = "mint.example"

// A press is a signer and its key.
type press struct {
	*signer.Signer
	*Key
}

// newPress makes keys once and gives them any denomination: making one takes a
// second.
func newPress(tb testing.TB, n int, c Class, d Denomination, e Epoch) press {
	tb.Helper()
	s := signers(n)
	k, err := NewKey(c, d, e, s.Public())
	if err != nil {
		tb.Fatal(err)
	}
	return press{s, k}
}

var signers = func() func(int) *signer.Signer {
	var mu sync.Mutex
	made := map[int]*signer.Signer{}
	return func(n int) *signer.Signer {
		mu.Lock()
		defer mu.Unlock()
		if made[n] == nil {
			s, err := signer.Generate()
			if err != nil {
				panic(err)
			}
			made[n] = s
		}
		return made[n]
	}
}()

// issue makes the n-th ticket of a branch.
func (p press) issue(tb testing.TB, seed Seed, b Branch, n uint64) Ticket {
	tb.Helper()
	s, err := Derive(seed, b, issuer, p.Key, n)
	if err != nil {
		tb.Fatal(err)
	}
	out := s.Output()
	signature, err := p.Sign(out.Blinded[:])
	if err != nil {
		tb.Fatal(err)
	}
	ticket, err := s.Finish(signature)
	if err != nil {
		tb.Fatal(err)
	}
	return ticket
}

func pay(d Denomination) PayContract {
	return PayContract{Center: CenterID{1}, Hidden: Hidden{2}, Amount: d, NotBefore: time.Unix(1_800_000_000, 0), Blank: Digest{3}}
}

func TestATicketIsSpentForOneThing(t *testing.T) {
	p := newPress(t, 0, Paid, 64, 82)
	spend := p.issue(t, Seed{7}, "purchase", 0)
	s := spend.Sign(pay(64))
	if err := s.Verify(issuer, p.Key, pay(64)); err != nil {
		t.Fatal(err)
	}
	other := pay(64)
	other.Hidden[0]++
	later := pay(64)
	later.NotBefore = later.NotBefore.Add(time.Second)
	blank := pay(64)
	blank.Blank[31]++
	elsewhere := pay(64)
	elsewhere.Center[0]++
	for name, c := range map[string]Contract{
		"other terms": other, "another day": later, "another's change": blank, "another center": elsewhere,
		"a swap": SwapContract{Outputs: Digest(pay(64).Digest())},
	} {
		if err := s.Verify(issuer, p.Key, c); !errors.Is(err, cloudpal.Denied) {
			t.Errorf("%s: got %v, want %v", name, err, cloudpal.Denied)
		}
	}
	dearer := newPress(t, 0, Paid, 256, 82)
	if err := s.Verify(issuer, dearer.Key, pay(64)); !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("worth something else: got %v", err)
	}
	if err := s.Verify("another.example", p.Key, pay(64)); !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("another mint's: got %v", err)
	}
	free := newPress(t, 0, Free, 64, 82)
	if err := s.Verify(issuer, free.Key, pay(64)); !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("of another class: got %v", err)
	}
}

// TestEveryBitCounts flips each byte of a payment in turn.
func TestEveryBitCounts(t *testing.T) {
	p := newPress(t, 0, Paid, 64, 82)
	ticket := p.issue(t, Seed{7}, "purchase", 1)
	s := ticket.Sign(pay(64))
	b := s.Append(nil)
	if again, err := ParseSpend(b); err != nil || again != s {
		t.Fatalf("it is read as %+v, %v", again, err)
	}
	for i := range b {
		b[i] ^= 0x20
		if changed, err := ParseSpend(b); err == nil && changed.Verify(issuer, p.Key, pay(64)) == nil {
			t.Errorf("byte %d can be changed", i)
		}
		b[i] ^= 0x20
	}
}

// TestALostAnswerIsNoLoss derives the same ticket again, after a crash at any
// point, and takes the same signature for it.
func TestALostAnswerIsNoLoss(t *testing.T) {
	p := newPress(t, 0, Paid, 16, 82)
	first := p.issue(t, Seed{9}, "purchase", 3)
	again := p.issue(t, Seed{9}, "purchase", 3)
	if first.Token != again.Token || first.KeySeed() != again.KeySeed() {
		t.Error("derived again, it is another ticket")
	}
	kept, err := Restore(first.Token, first.KeySeed())
	if err != nil || kept.Sign(pay(16)) != first.Sign(pay(16)) {
		t.Errorf("kept and read, it is another ticket: %v", err)
	}
	seen := map[Serial]string{first.Serial(): "the first"}
	for name, other := range map[string]Ticket{
		"another seed": p.issue(t, Seed{10}, "purchase", 3), "another branch": p.issue(t, Seed{9}, "change", 3),
		"another number": p.issue(t, Seed{9}, "purchase", 4), "another key": newPress(t, 1, Paid, 16, 82).issue(t, Seed{9}, "purchase", 3),
	} {
		if was, ok := seen[other.Serial()]; ok {
			t.Errorf("%s and %s have one serial", name, was)
		}
		seen[other.Serial()] = name
	}
	if _, err := Restore(first.Token, [32]byte{1}); !errors.Is(err, cloudpal.Corrupt) {
		t.Errorf("a token with another's secret: got %v, want %v", err, cloudpal.Corrupt)
	}
}

// TestABadSignatureIsNoTicket: what a mint gives instead of a signature is refused
// at once, not when it is spent.
func TestABadSignatureIsNoTicket(t *testing.T) {
	p, other := newPress(t, 0, Paid, 4, 82), newPress(t, 1, Paid, 4, 82)
	s, err := Derive(Seed{1}, "purchase", issuer, p.Key, 0)
	if err != nil {
		t.Fatal(err)
	}
	out := s.Output()
	good, err := p.Sign(out.Blinded[:])
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := other.Sign(append([]byte{0}, out.Blinded[1:]...))
	if err != nil {
		t.Fatal(err)
	}
	bad := bytes.Clone(good)
	bad[100] ^= 1
	for name, signature := range map[string][]byte{
		"nothing": nil, "zeros": make([]byte, BlindSize), "one bit": bad, "another key's": foreign,
		"too long": append(bytes.Clone(good), 0), "the message": out.Blinded[:],
	} {
		if _, err := s.Finish(signature); err == nil {
			t.Errorf("%s is taken for a signature", name)
		}
	}
	if _, err := s.Finish(good); err != nil {
		t.Error(err)
	}
}

// TestWhatIsSentSaysNothing: the mint sees neither the serial nor the same message
// twice under two keys.
func TestWhatIsSentSaysNothing(t *testing.T) {
	a, b := newPress(t, 0, Paid, 4, 82), newPress(t, 1, Paid, 4, 82)
	outs := map[[BlindSize]byte]bool{}
	for _, p := range []press{a, b} {
		for n := range uint64(20) {
			s, err := Derive(Seed{1}, "purchase", issuer, p.Key, n)
			if err != nil {
				t.Fatal(err)
			}
			out := s.Output()
			if outs[out.Blinded] {
				t.Error("one blinded message twice")
			}
			outs[out.Blinded] = true
			if bytes.Contains(out.Blinded[:], s.token.Nonce[:4]) && bytes.Contains(out.Blinded[:], s.token.Nonce[:]) {
				t.Error("the serial is in what is sent")
			}
		}
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	p := newPress(t, 0, Paid, 4, 82)
	seed := Seed(bytes.Repeat([]byte("seedseed"), 4))
	ticket := p.issue(t, seed, "purchase", 0)
	s, err := Derive(seed, "purchase", issuer, p.Key, 0)
	if err != nil {
		t.Fatal(err)
	}
	secret := ticket.KeySeed()
	for _, v := range []any{seed, ticket, s, &ticket, &s} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%x"} {
			text := fmt.Sprintf(verb, v)
			for _, what := range [][]byte{seed[:], secret[:]} {
				if strings.Contains(text, fmt.Sprintf("%x", what)) || strings.Contains(text, string(what)) ||
					strings.Contains(text, strings.Trim(fmt.Sprint(what), "[]")) {
					t.Errorf("%s of a %T shows it: %s", verb, v, text)
				}
			}
		}
	}
}

func TestKeysThatAreNone(t *testing.T) {
	p := newPress(t, 0, Paid, 4, 82)
	public := p.Key.Public()
	if _, err := NewKey(3, 4, 82, p.Signer.Public()); !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("a third class: got %v", err)
	}
	for _, d := range []Denomination{0, 2, 3, 8, 5, 16384, 1 << 31} {
		if _, err := NewKey(Paid, d, 82, p.Signer.Public()); !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("denomination %d: got %v", d, err)
		}
	}
	for i := range public {
		bad := bytes.Clone(public)
		bad[i] ^= 1
		if k, err := ParseKey(Paid, 4, 82, bad); err == nil && (k.ID() == p.ID() || i < 80) {
			t.Errorf("byte %d can be changed", i)
		}
	}
	if _, err := ParseKey(Paid, 4, 82, append(public, 0)); err == nil {
		t.Error("a key with something behind it is taken")
	}
}

func TestEpochs(t *testing.T) {
	for text, want := range map[string]Epoch{
		"2020-01-01T00:00:00Z": 0, "2020-12-31T23:59:59Z": 11, "2026-11-25T04:00:00Z": 82, "1999-01-01T00:00:00Z": 0,
		"2027-01-01T00:30:00+01:00": 83,
	} {
		at, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		if got := EpochAt(at); got != want {
			t.Errorf("%s: got %d, want %d", text, got, want)
		}
	}
	e := Epoch(82) // November 2026
	day := func(text string) time.Time {
		at, err := time.Parse(time.DateOnly, text)
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	for _, c := range []struct {
		day                   string
		issues, spends, swaps bool
	}{
		{"2026-10-31", false, false, false}, {"2026-11-01", true, true, true}, {"2026-12-01", false, true, true},
		{"2027-02-28", false, true, true}, {"2027-03-01", false, false, true}, {"2027-04-01", false, false, false},
	} {
		at := day(c.day)
		if e.Issues(at) != c.issues || e.Spends(at) != c.spends || e.Swaps(at) != c.swaps {
			t.Errorf("%s: issues %v, spends %v, swaps %v", c.day, e.Issues(at), e.Spends(at), e.Swaps(at))
		}
	}
	if !Epoch(1 << 31).Begins().Equal(Epoch(maxEpoch).Begins()) {
		t.Error("an epoch that is too far has another beginning")
	}
}

// TestChangeIsExact gives back every rest of every denomination.
func TestChangeIsExact(t *testing.T) {
	for _, d := range Denominations {
		blank := Blank(d)
		for rest := Units(0); rest < Units(d); rest++ {
			signed, err := Change(d, rest)
			if err != nil {
				t.Fatal(err)
			}
			var got Units
			for _, i := range signed {
				got += Units(blank[i])
			}
			if got != rest || !slices.IsSorted(signed) || len(slices.Compact(signed)) != len(signed) {
				t.Fatalf("%d of %d: got %d by %v", rest, d, got, signed)
			}
		}
		if _, err := Change(d, Units(d)); !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("all of %d: got %v, want %v", d, err, cloudpal.Invalid)
		}
	}
	if got := Blank(64); !slices.Equal(got, []Denomination{1, 1, 1, 4, 4, 4, 16, 16, 16}) {
		t.Errorf("a day's blank outputs are %v", got)
	}
}

func TestSplitting(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		units := Units(rapid.Uint64Range(0, 100_000).Draw(t, "units"))
		parts := Split(units)
		if Sum(parts) != units || !slices.IsSorted(parts) {
			t.Fatalf("%d is split into %v", units, parts)
		}
		for _, d := range Denominations[:len(Denominations)-1] {
			if n := len(slices.DeleteFunc(slices.Clone(parts), func(p Denomination) bool { return p != d })); n > 3 {
				t.Fatalf("%d has %d of %d, which one larger would do", units, n, d)
			}
		}
	})
}

func TestSwapsKeepValueAndClass(t *testing.T) {
	keys := func(c Class, parts ...Denomination) (all []*Key) {
		for _, d := range parts {
			all = append(all, newPress(t, 0, c, d, 82).Key)
		}
		return all
	}
	if err := CheckSwap(keys(Paid, 64), keys(Paid, 16, 16, 16, 4, 4, 4, 1, 1, 1, 1)); err != nil {
		t.Error(err)
	}
	for name, c := range map[string][2][]*Key{
		"more": {keys(Paid, 64), keys(Paid, 64, 1)}, "less": {keys(Paid, 64), keys(Paid, 16)},
		"free to paid": {keys(Free, 64), keys(Paid, 64)}, "paid to free": {keys(Paid, 64), keys(Free, 64)},
		"mixed": {append(keys(Paid, 64), keys(Free, 64)...), keys(Paid, 64, 64)}, "nothing": {nil, nil}, "for nothing": {keys(Paid, 4), nil},
	} {
		if err := CheckSwap(c[0], c[1]); !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("%s: got %v, want %v", name, err, cloudpal.Invalid)
		}
	}
}
