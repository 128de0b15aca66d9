package wallet

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

// fuzzCoin is a ticket, as far as its form goes.
func fuzzCoin(n byte) coin {
	c := coin{Class: ticket.Paid, Denomination: 64, Epoch: 82, Origin: Bought, Ready: time.Unix(1_800_000_000, 0).UTC()}
	c.secret[0] = n
	c.token.Nonce = ticket.SerialOf(public(keyOf(string(n))))
	c.token.Authenticator[5] = n
	return c
}

// What a journal's frames say: no change makes a state that cannot be written and
// read again.
func FuzzRecords(f *testing.F) {
	a := fuzzCoin(1)
	serial := a.serial()
	ch := &change{of: newState()}
	ch.putCoin(a)
	n := ch.begin(swap{Inputs: []coin{a}, Outputs: wants("swap/x", ticket.Paid, 82, []ticket.Denomination{16, 16, 16, 16})})
	ch.put(kindPurchase, numbered(n+1), purchase{Pack: "day"})
	ch.put(kindPayment, numbered(n+2), payment{Coin: a})
	ch.put(kindGift, numbered(n+3), gift{Coins: []coin{a}})
	ch.put(kindLoss, string(serial[:]), Loss{Units: 4})
	ch.put(kindTab, string(serial[:]), tab{})
	ch.dropCoin(serial)
	var all []byte
	for _, r := range ch.records {
		f.Add(r.append(nil))
		all = r.append(all)
	}
	f.Add(all)
	f.Fuzz(func(t *testing.T, b []byte) {
		s := newState()
		if s.load(b) != nil {
			return
		}
		again := newState()
		size := int64(0)
		for _, frame := range frames(s.raw) {
			if err := again.load(frame); err != nil {
				t.Fatalf("what was read is not written so that it can be read: %v", err)
			}
		}
		for k, v := range s.raw {
			if !bytes.Equal(again.raw[k], v) {
				t.Fatal("it is another after it was written")
			}
			size += int64(len(k) + len(v))
		}
		if size != s.bytes || again.bytes != size || len(again.coins) != len(s.coins) {
			t.Fatalf("%d bytes, counted %d and %d", size, s.bytes, again.bytes)
		}
	})
}

// What is on the disk, whatever it is: it is read, or refused with a kind.
func FuzzJournal(f *testing.F) {
	dir := f.TempDir()
	b, _ := written(f, dir, "second", "third")
	f.Add(b)
	f.Add(b[:len(b)-3])
	f.Add(append(slices.Clone(b), 1, 2, 3))
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		plains, err := readJournal(t, t.TempDir(), b)
		if err != nil && !errors.Is(err, cloudpal.Corrupt) {
			t.Fatalf("got %v", err)
		}
		if err == nil && plains[0] != "first" {
			t.Fatalf("a journal of %q was made without the seed", plains)
		}
	})
}

func FuzzBackup(f *testing.F) {
	s := newState()
	ch := &change{of: s}
	ch.putCoin(fuzzCoin(1))
	for _, r := range ch.records {
		if err := s.apply(r); err != nil {
			f.Fatal(err)
		}
	}
	b, err := seal(seedOf("ann"), s.raw)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:headerSize+10])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, other []byte) {
		if _, err := unseal(seedOf("ann"), other); err == nil && !bytes.Equal(other, b) {
			// It has to be the one of the corpus, of this run or an earlier one.
			if _, err := unseal(seedOf("eve"), other); err == nil {
				t.Fatal("anybody can read it")
			}
		}
	})
}

// What somebody sends: it is read as it was written, or refused.
func FuzzGift(f *testing.F) {
	f.Add(giftText(issuer, []coin{fuzzCoin(1)}))
	f.Add(giftText("", []coin{fuzzCoin(1), fuzzCoin(2)}))
	f.Add(giftText(strings.Repeat("m", 255), nil))
	f.Add(giftPrefix + "AAAA")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		name, sent, err := parseGift(text)
		if err != nil {
			if !errors.Is(err, cloudpal.Invalid) || cloudpal.HintOf(err) == "" || len(text) > 20 && strings.Contains(err.Error(), text) {
				t.Fatalf("got %v", err)
			}
			return
		}
		var coins []coin
		for _, s := range sent {
			c := coin{Class: s.class, Denomination: s.denomination, Epoch: s.epoch, secret: s.secret}
			c.token.Authenticator = s.authenticator
			coins = append(coins, c)
		}
		if again := giftText(name, coins); again != strings.Join(strings.Fields(text), "") {
			t.Fatalf("%q was read from %q", again, text)
		}
	})
}

func FuzzSeed(f *testing.F) {
	f.Add([]byte(seedPrefix + strings.Repeat("0f", 32) + "\n"))
	f.Add([]byte("x"))
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, seedName), text, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadSeed(dir); err != nil && !errors.Is(err, cloudpal.Corrupt) {
			t.Fatalf("got %v", err)
		}
	})
}

// Any change of a gift's text is noticed.
func TestGiftIsWhole(t *testing.T) {
	t.Parallel()
	text := giftText(issuer, []coin{fuzzCoin(1), fuzzCoin(2)})
	if _, sent, err := parseGift(text); err != nil || len(sent) != 2 {
		t.Fatalf("got %d tickets, %v", len(sent), err)
	}
	for i := range text {
		bad := []byte(text)
		bad[i]++
		if _, _, err := parseGift(string(bad)); err == nil {
			t.Errorf("byte %d was changed and nobody noticed", i)
		}
		if _, _, err := parseGift(text[:i]); err == nil {
			t.Errorf("%d bytes were taken for all", i)
		}
	}
	if _, _, err := parseGift(strings.Repeat(text, 100)); err == nil {
		t.Error("too much was taken")
	}
}
