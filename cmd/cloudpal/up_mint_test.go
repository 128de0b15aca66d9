//go:build linux && amd64

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/tradle/cloudpal/center/till"
	"github.com/tradle/cloudpal/person"
	"github.com/tradle/cloudpal/ticket/manifest"
)

func TestOwnTerms(t *testing.T) {
	terms, err := till.ParseTerms([]byte(ownTerms))
	if err != nil || terms.Tariff.Core != 64 || terms.Slice != 64 || len(terms.Classes) != 2 {
		t.Errorf("a center of one's own has the terms %+v (%v)", terms, err)
	}
}

func TestWhoSellsItself(t *testing.T) {
	for _, c := range []struct {
		args []string
		want bool
	}{
		{nil, false}, {[]string{"--idle", "2m"}, false}, {[]string{"--tickets", ""}, true}, {[]string{"--tickets="}, true},
		{[]string{"--tickets", "m.json", "--tariff", "t.json"}, true}, {[]string{"--tariff", "t.json"}, false},
	} {
		if got := sellsItself(person.Local{Args: c.args}); got != c.want {
			t.Errorf("%q: got %v", c.args, got)
		}
	}
}

// A mint of one's own is whole before it is there, has no keys yet but those that sign
// them, and is nobody else's.
func TestOwnMintIsMade(t *testing.T) {
	t.Parallel()
	w, _, errs := newWorld("")
	c := &cli{world: w}
	l := person.Local{State: t.TempDir()}
	o := mintOptions{issuer: "mint-1.local", listen: "127.0.0.1:0", own: true, later: true}
	if _, err := c.makeMint(t.Context(), ownMintOf(l), o); err != nil {
		t.Fatal(err)
	}
	if errs.Len() > 0 {
		t.Errorf("it says %q", errs)
	}
	g, err := readGrant(l)
	if err != nil || g.Account == "" {
		t.Fatalf("it grants nothing: %v", err)
	}
	trust, err := manifest.ParseTrust(g.Trust)
	if err != nil || trust.Issuer != "mint-1.local" || !trust.Alone() {
		t.Errorf("it is %+v (%v)", trust, err)
	}
	info, err := os.Stat(string(ownMintOf(l)))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("its folder is %v (%v)", info, err)
	}
	if keys, _ := filepath.Glob(ownMintOf(l).path("keys/*")); len(keys) > 0 {
		t.Errorf("there are keys %v: only the signer makes some", keys)
	}
}

func TestRunningAs(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	start := func(as *syscall.Credential) *exec.Cmd {
		cmd := exec.Command("sh", "-c", "read x", "serve", "--folder", folder)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: as}
		in, err := cmd.StdinPipe()
		if err == nil {
			err = cmd.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { in.Close(); cmd.Wait() })
		return cmd
	}
	if os.Geteuid() == 0 {
		if start(&syscall.Credential{Uid: 65534, Gid: 65534}); runningAs("--folder", folder, "-c") != 0 {
			t.Error("a stranger's process is taken for ours")
		}
	}
	cmd := start(nil)
	if got := runningAs("--folder", folder, "-c", "read x"); got != cmd.Process.Pid {
		t.Errorf("got process %d, want %d", got, cmd.Process.Pid)
	}
	for _, verb := range [][]string{{"-c"}, {"-c", "read x", "serve"}} {
		if got := runningAs("--folder", folder, verb...); got != cmd.Process.Pid {
			t.Errorf("%q: got process %d", verb, got)
		}
	}
	for _, c := range []struct{ flag, value, verb string }{{"--folder", "/a/folder", "-c"}, {"--state", folder, "-c"}, {"--folder", folder, "mint"}} {
		if got := runningAs(c.flag, c.value, c.verb); got != 0 {
			t.Errorf("%+v: got process %d", c, got)
		}
	}
}
