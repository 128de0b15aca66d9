// Package nested_test tries what few test machines have: KVM and cgroup v2. QEMU
// emulates a machine with both, by translation, and its whole system is the
// programs of this tree and of the distribution:
//
//	this machine
//	└── the machine          Debian's kernel, SVM by emulation, cgroup v2
//	    ├── init             this test, as process 1 (init_test.go)
//	    ├── jail.test        compute/jail's own tests
//	    └── nested.test      this test, once more (inside_test.go)
//	        └── cloudpal host
//	            └── VMs      by KVM
//
// What the tests inside print comes out of the machine's second serial port, and
// is judged here.
package nested_test

import (
	"bufio"
	"context"
	"io"
	"maps"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal/test/world"
)

// role is the variable that says which of the three this process is: none, init
// or inside.
const role = "CLOUDPAL_NESTED"

func TestMain(m *testing.M) {
	if os.Getenv(role) == "init" {
		initMain()
	}
	world.Main(m)
}

// patience is how long it may take in all. The machine takes a minute and a half
// where it has two cores for itself.
const patience = 8 * time.Minute

func TestKVMAndCgroupV2(t *testing.T) {
	if os.Getenv(role) == "inside" {
		testInside(t)
		return
	}
	world.Require(t)
	m := newMachine(t)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	results := m.results(t, ctx)
	if ctx.Err() != nil {
		t.Errorf("the machine does not end within %v", patience)
	}
	want := m.tests(t)
	for _, program := range slices.Sorted(maps.Keys(want)) {
		t.Run(program, func(t *testing.T) { judge(t, results[program], want[program]) })
	}
	if t.Failed() {
		t.Logf("init says:\n%s", results[""].output.String())
		t.Logf("the machine's kernel says:\n%s", m.kernelLog())
	}
}

// tests lists what must have passed, by program.
func (m machine) tests(t *testing.T) map[string][]string {
	t.Helper()
	want := map[string][]string{}
	for _, program := range programs {
		out, err := exec.Command(m.stage+"/test/"+program, "-test.list", "^Test").Output()
		if err != nil {
			t.Fatal(err)
		}
		want[program] = strings.Fields(string(out))
	}
	for _, c := range checks {
		want["nested.test"] = append(want["nested.test"], "TestKVMAndCgroupV2/"+c.name)
	}
	return want
}

// A result is what one program said.
type result struct {
	output  strings.Builder
	verdict map[string]string // PASS, FAIL or SKIP, by the test's name
	status  string            // how it ended
}

var verdictLine = regexp.MustCompile(`^ *--- (PASS|FAIL|SKIP): (\S+) \(`)

// readResults sorts what comes from the machine by the program that said it;
// what init says has no program's name.
func readResults(r io.Reader) map[string]*result {
	results := map[string]*result{"": {verdict: map[string]string{}}}
	now := results[""]
	for lines := bufio.NewScanner(r); lines.Scan(); {
		line := strings.TrimRight(lines.Text(), "\r")
		if program, ok := strings.CutPrefix(line, beginMark); ok {
			now = &result{verdict: map[string]string{}}
			results[program] = now
		} else if status, ok := strings.CutPrefix(line, endMark); ok {
			now.status = status
			now = results[""]
		} else if found := verdictLine.FindStringSubmatch(line); found != nil {
			now.verdict[found[2]] = found[1]
		}
		now.output.WriteString(line + "\n")
	}
	return results
}

// anyFailed tells whether a test in the machine is known to have failed.
func anyFailed(results map[string]*result) bool {
	for _, r := range results {
		for _, verdict := range r.verdict {
			if verdict == "FAIL" {
				return true
			}
		}
	}
	return false
}

// judge makes a test of each test that was to pass in the machine.
func judge(t *testing.T, r *result, want []string) {
	t.Helper()
	if r == nil {
		t.Fatal("it has not been run")
	}
	for _, name := range want {
		t.Run(name, func(t *testing.T) {
			if got := r.verdict[name]; got != "PASS" {
				t.Errorf("got verdict %q, want PASS", got)
			}
		})
	}
	if r.status != "exit status 0" {
		t.Errorf("got %q, want exit status 0", r.status)
	}
	if t.Failed() || testing.Verbose() {
		t.Logf("it said:\n%s", r.output.String())
	}
}
