package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/tradle/cloudpal/compute/meter"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"cloudpal": main})
}

// The scripts run the program as a person does, without an agent.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:       "testdata",
		Setup:     setUp,
		Condition: condition,
		Cmds:      map[string]func(*testscript.TestScript, bool, []string){"status": wantStatus, "await": await, "random": random},
	})
}

// condition knows "root", and "userns" where a command can be made to think that
// it is not.
func condition(name string) (bool, error) {
	switch name {
	case "root":
		return os.Geteuid() == 0, nil
	case "userns":
		return exec.Command("unshare", "--user", "true").Run() == nil, nil
	}
	return false, fmt.Errorf("no condition is called %q", name)
}

// setUp gives a script a place of its own and usage records to check.
func setUp(e *testscript.Env) error {
	e.Setenv("CLOUDPAL_SOCKET", filepath.Join(e.WorkDir, "host.sock"))
	e.Setenv("CLOUDPAL_STATE", filepath.Join(e.WorkDir, "state"))
	e.Setenv("CLOUDPAL_RUN", filepath.Join(e.WorkDir, "run"))
	e.Setenv("CLOUDPAL_STORE", filepath.Join(e.WorkDir, "store"))
	good, err := usageRecords(filepath.Join(e.WorkDir, "good.usage"))
	if err != nil {
		return err
	}
	lines := strings.SplitAfter(good, "\n")
	second := lines[1]
	return errors.Join(
		write(e, "torn.usage", good+lines[0][:40]),
		write(e, "changed.usage", strings.Replace(good, second, strings.Replace(second, `"wakes":2`, `"wakes":1`, 1), 1)),
		write(e, "dropped.usage", strings.Replace(good, second, "", 1)),
		write(e, "later.usage", strings.Join(lines[1:], "")),
		write(e, "empty.usage", ""),
	)
}

func write(e *testscript.Env, name, text string) error {
	return os.WriteFile(filepath.Join(e.WorkDir, name), []byte(text), 0o600)
}

// usageRecords makes a log of four records and returns it.
func usageRecords(path string) (string, error) {
	log, err := meter.OpenLog(path, "4f7c")
	if err != nil {
		return "", err
	}
	begun := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for n := range 4 {
		used := time.Duration(n) * time.Second
		_, err = log.Append(meter.Record{
			Time:  begun.Add(used),
			Total: meter.Counters{CPU: used / 2, NetIn: int64(n) << 20, Wakes: int64(n + 1), Awake: used},
			Event: fmt.Sprintf("awake: packet %d", n),
		})
		if err != nil {
			return "", errors.Join(err, log.Close())
		}
	}
	data, err := os.ReadFile(path)
	return string(data), errors.Join(err, log.Close())
}

// wantStatus is "status CODE COMMAND...": the command exits with that status.
func wantStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status CODE COMMAND...")
	}
	code := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var ended interface{ ExitCode() int }
		if !errors.As(err, &ended) {
			ts.Fatalf("%v", err)
		}
		code = ended.ExitCode()
	}
	if got := fmt.Sprint(code); got != args[0] {
		ts.Fatalf("exit status %s, want %s", got, args[0])
	}
}

// await is "await FILE REGEXP [NAME]": it waits until the file has a match, and
// sets a variable to what the regexp's first group has.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: await FILE REGEXP [NAME]")
	}
	want := regexp.MustCompile("(?m)" + args[1])
	var data []byte
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		data, _ = os.ReadFile(ts.MkAbs(args[0]))
		if m := want.FindSubmatch(data); m != nil {
			if len(args) > 2 {
				ts.Setenv(args[2], string(m[1]))
			}
			return
		}
	}
	ts.Fatalf("%s has no match for %s:\n%s", args[0], args[1], data)
}

// random is "random FILE SIZE": it makes a file of bytes that cannot be
// guessed.
func random(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: random FILE SIZE")
	}
	n, err := parseSize(args[1])
	ts.Check(err)
	data := make([]byte, n)
	rand.Read(data)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), data, 0o644))
}
