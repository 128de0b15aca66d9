//go:build linux

package postgres

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// ask has psql say something, and returns what it answers.
func (s *Server) ask(url, sql string) (string, error) {
	out, err := s.command("psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-c", sql, url).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// TestKilledAndStarted: what was committed is there after the server is killed, and
// a statement that it runs does not outlive it.
func TestKilledAndStarted(t *testing.T) {
	t.Parallel()
	s := New(t)
	url := s.Database("mint")
	for _, setting := range []string{"fsync", "synchronous_commit", "full_page_writes"} {
		if got, err := s.ask(url, "show "+setting); err != nil || got != "on" {
			t.Errorf("%s is %s, %v, want on", setting, got, err)
		}
	}
	if shared, err := os.ReadDir(filepath.Join(s.data(), "pg_dynshmem")); err != nil || len(shared) == 0 {
		t.Errorf("what its processes share is not in its folder: %v", err)
	}
	if got, err := s.ask(url, "create table t (n int); insert into t values (7)"); err != nil {
		t.Fatal(got, err)
	}
	busy := s.command("psql", "-XAtq", "-c", "select 'now', pg_sleep(600)", url)
	if err := busy.Start(); err != nil {
		t.Fatal(err)
	}
	for {
		got, err := s.ask(url, "select count(*) from pg_stat_activity where query like '%pg_sleep(600)%' and pid <> pg_backend_pid() and state = 'active'")
		if err != nil {
			t.Fatal(got, err)
		}
		if got == "1" {
			break
		}
	}
	processes := append(children(s.cmd.Process.Pid), s.cmd.Process.Pid)
	s.Kill()
	if err := busy.Wait(); err == nil {
		t.Error("a statement ended well though its server was killed")
	}
	if len(processes) < 5 {
		t.Errorf("it had %d processes only", len(processes))
	}
	if got, err := s.ask(url, "select 1"); err == nil {
		t.Errorf("a killed server answers %s", got)
	}
	s.Start()
	if got, err := s.ask(url, "select n from t"); err != nil || got != "7" {
		t.Errorf("got %s, %v, want 7", got, err)
	}
	s.Stop()
	if got, err := s.ask(url, "select 1"); err == nil {
		t.Errorf("a stopped server answers %s", got)
	}
	s.Start()
	if got, err := s.ask(url, "select n from t"); err != nil || got != "7" {
		t.Errorf("got %s, %v, want 7", got, err)
	}
}

// TestAsStranger: PostgreSQL refuses to serve root.
func TestAsStranger(t *testing.T) {
	t.Parallel()
	s := New(t)
	var socket unix.Stat_t
	if err := unix.Stat(s.Socket(), &socket); err != nil || socket.Uid == 0 {
		t.Errorf("the server runs as %d, %v", socket.Uid, err)
	}
}

// child is set in the environment of a test that another runs to see its end.
const child = "CLOUDPAL_TEST_POSTGRES_CHILD"

// TestNothingIsLeft of a test that fails, and no server of one that is killed.
func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	if os.Getenv(child) != "" {
		s := New(t)
		fmt.Println(s.dir, s.cmd.Process.Pid)
		if os.Getenv(child) == "fails" {
			t.Fatal("as it should")
		}
		select {}
	}
	for _, how := range []string{"fails", "is killed"} {
		test := exec.Command(os.Args[0], "-test.run=^TestNothingIsLeft$")
		test.Env = append(os.Environ(), child+"="+how)
		out, err := test.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := test.Start(); err != nil {
			t.Fatal(err)
		}
		var dir string
		var pid int
		if _, err := fmt.Fscan(out, &dir, &pid); err != nil {
			t.Fatal(err)
		}
		server, err := unix.PidfdOpen(pid, 0)
		if err != nil && how != "fails" {
			t.Fatal(err)
		}
		if how != "fails" {
			test.Process.Kill()
		}
		io.Copy(io.Discard, out)
		if err := test.Wait(); err == nil {
			t.Errorf("a test that %s ends well", how)
		}
		if server >= 0 {
			if err := ends(server, startTime); err != nil {
				t.Errorf("the server of a test that %s runs: %v", how, err)
			}
			unix.Close(server)
		}
		if _, err := os.Stat(dir); how == "fails" && !os.IsNotExist(err) {
			t.Errorf("the folder of a test that %s is there: %v", how, err)
		}
		os.RemoveAll(dir)
	}
}
