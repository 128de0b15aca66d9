package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/person"
	"github.com/tradle/cloudpal/person/wallet"
	"github.com/tradle/cloudpal/ticket"
)

// freePort is "port NAME": it sets a variable to a TCP port that nobody uses.
func freePort(ts *testscript.TestScript, _ bool, args []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	ts.Setenv(args[0], fmt.Sprint(l.Addr().(*net.TCPAddr).Port))
	ts.Check(l.Close())
}

// listening is "listening PORT": it waits until somebody answers there.
func listening(ts *testscript.TestScript, _ bool, args []string) {
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if c, err := net.Dial("tcp", "127.0.0.1:"+args[0]); err == nil {
			ts.Check(c.Close())
			return
		}
	}
	ts.Fatalf("nobody answers on port %s", args[0])
}

// number is "number FILE NAME": it sets a variable to the "n" of JSON.
func number(ts *testscript.TestScript, _ bool, args []string) {
	m := regexp.MustCompile(`"n": (\d+)`).FindStringSubmatch(ts.ReadFile(args[0]))
	if m == nil {
		ts.Fatalf("%s has no number", args[0])
	}
	ts.Setenv(args[1], m[1])
}

// damage is "damage FILE": it changes a byte in its middle.
func damage(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	b, err := os.ReadFile(path)
	ts.Check(err)
	b[len(b)/2] ^= 1
	ts.Check(os.WriteFile(path, b, 0o600))
}

// A mint of one's own, a person without a pal, and another who gets tickets of theirs.
func TestWalletScript(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/wallet", Cmds: map[string]func(*testscript.TestScript, bool, []string){
		"status": wantStatus, "await": await, "port": freePort, "listening": listening, "number": number, "damage": damage,
	}})
}

// The wallet of a person who has a pal follows from the same phrase.
func TestWalletOfAPerson(t *testing.T) {
	w, _, errs := newWorld("")
	c := &cli{world: w, home: filepath.Join(t.TempDir(), "home")}
	dir, own, err := c.homeDir()
	if err != nil {
		t.Fatal(err)
	}
	h, err := person.Make(dir, own)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	center := person.Center{Address: api.Address{Host: "203.0.113.5", Port: 7443, Key: api.Fingerprint{1}}}
	phrase, err := h.NewPerson(t.Context(), center, "laptop", nil)
	if err != nil {
		t.Fatal(err)
	}
	unseen, err := c.newSeed(dir, filepath.Join(dir, "unseen"), own)
	if err != nil || unseen == ticket.Seed(phrase.Root().WalletSeed()) || !strings.Contains(errs.String(), "24 words") {
		t.Errorf("a phrase that nobody has seen is the wallet's (%v), and it says %q", err, errs)
	}
	errs.Reset()
	if err := h.SetShown(t.Context()); err != nil {
		t.Fatal(err)
	}
	got, err := c.newSeed(dir, walletDir(dir), own)
	if err != nil {
		t.Fatal(err)
	}
	if got != ticket.Seed(phrase.Root().WalletSeed()) || errs.Len() > 0 {
		t.Errorf("it is another seed, or something was said: %q", errs)
	}
	if kept, err := wallet.ReadSeed(walletDir(dir)); err != nil || kept != got {
		t.Errorf("another seed is kept, or %v", err)
	}
	// A home from before there were wallets needs the phrase.
	if err := h.Change(t.Context(), func(s *person.State) error { s.Wallet = nil; return nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := c.newSeed(dir, filepath.Join(dir, "other"), own); !errors.Is(err, cloudpal.Missing) || cloudpal.HintOf(err) == "" {
		t.Errorf("got %v", err)
	}
}

func TestParseUnits(t *testing.T) {
	for text, want := range map[string]ticket.Units{"1": 1, "64": 64, "18446744073709551615": 1<<64 - 1} {
		if got, err := parseUnits(text); err != nil || got != want {
			t.Errorf("%s: got %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "0", "-1", "1.5", "64 ", "064", "0x40", "one", "18446744073709551616", "+5"} {
		if got, err := parseUnits(text); err == nil {
			t.Errorf("%q: got %d, want an error", text, got)
		}
	}
}
