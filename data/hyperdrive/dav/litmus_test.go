package dav_test

import (
	"bytes"
	"os"
	"os/exec"
	"testing"
)

// What fails for any server that stands on golang.org/x/net/webdav: a prefix that
// is declared to be of no namespace is taken (golang.org/issue/8068), entity tags
// in If headers do not count, and there are no shared locks.
var litmusFails = []string{"propfind_invalid2..... FAIL", "fail_complex_cond_put. FAIL", "lock_shared........... FAIL"}

// TestLitmus has somebody else's tests of WebDAV servers try ours.
func TestLitmus(t *testing.T) {
	litmus, err := exec.LookPath("litmus")
	if err != nil {
		if os.Getenv("CLOUDPAL_MUST_RUN") != "" {
			t.Fatal("no litmus: run make setup-test")
		}
		t.Skip("no litmus: make setup-test installs it")
	}
	cmd := exec.CommandContext(t.Context(), litmus, "--keep-going", newClient(t).url+"/")
	cmd.Dir = t.TempDir() // where it writes what it did
	out, err := cmd.CombinedOutput()
	failed := bytes.Count(out, []byte("FAIL"))
	for _, known := range litmusFails {
		failed -= bytes.Count(out, []byte(known))
	}
	if suites := bytes.Count(out, []byte("<- summary for")); err != nil || failed > 0 || suites != 5 {
		t.Errorf("%v, %d tests failed, %d suites were run of 5\n%s", err, failed, suites, out)
	}
}
