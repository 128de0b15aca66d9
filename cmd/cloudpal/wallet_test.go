package main

import (
	"fmt"
	"net"
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

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
		"status": wantStatus, "port": freePort, "listening": listening, "number": number, "damage": damage,
	}})
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
