//go:build linux

package ledger

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/test/apart"
	"github.com/tradle/cloudpal/test/postgres"
)

// A disk is a real one, of memory, as large as it is told to be.
type disk struct {
	t   *testing.T
	dir string
}

func newDisk(t *testing.T, mib int) disk {
	t.Helper()
	if !apart.Is() {
		if os.Getenv("CLOUDPAL_MUST_RUN") != "" {
			t.Fatal("only root can mount a small disk")
		}
		t.Skip("only root can mount a small disk")
	}
	dir, err := os.MkdirTemp("", "cloudpal-disk-")
	if err != nil {
		t.Fatal(err)
	}
	d := disk{t, dir}
	d.mount(0, mib)
	t.Cleanup(func() {
		if err := errors.Join(unix.Unmount(dir, unix.MNT_DETACH), os.Remove(dir)); err != nil {
			t.Error(err)
		}
	})
	return d
}

func (d disk) mount(flags uintptr, mib int) {
	d.t.Helper()
	if err := unix.Mount("tmpfs", d.dir, "tmpfs", flags, fmt.Sprintf("size=%dm,mode=0777", mib)); err != nil {
		d.t.Fatal(err)
	}
}

// resize makes it larger or smaller.
func (d disk) resize(mib int) { d.t.Helper(); d.mount(unix.MS_REMOUNT, mib) }

func refusesForSpace(t *testing.T, err error) {
	t.Helper()
	if !errors.Is(err, cloudpal.NoSpace) || cloudpal.HintOf(err) == "" {
		t.Errorf("got %v, want %v and a hint", err, cloudpal.NoSpace)
	}
}

// TestFullDisk: the ledger stops before the disk is full, and goes on by itself.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	d := newDisk(t, 400)
	l := openFor(t, filepath.Join(d.dir, "ledger"), vfs.Default)
	spend(t, l, row(1, 1))
	d.resize(200)
	l.looked.Store(0) // a second later
	_, err := l.Spend(t.Context(), epoch, []Row{row(2, 2)})
	refusesForSpace(t, err)
	if there, err := l.Look(t.Context(), epoch, []Serial{serial(1), serial(2)}); err != nil || tagOf(there[0]) != 1 || tagOf(there[1]) != none {
		t.Errorf("there are %v, %v", there, err)
	}
	d.resize(400)
	if got := spend(t, l, row(1, 9), row(2, 9)); tagOf(got[0]) != 1 || tagOf(got[1]) != 9 {
		t.Errorf("there is room again, and there are %v", got)
	}
}

// failing returns a disk that does not write to the ledger's log any more, nor sync
// it, from the nth time on.
func failing(n int64, why error) vfs.FS {
	var count atomic.Int64
	return errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
		switch op.Kind {
		case errorfs.OpFileWrite, errorfs.OpFileSync, errorfs.OpFileSyncData, errorfs.OpFileSyncTo, errorfs.OpFileFlush:
			if strings.HasSuffix(op.Path, ".log") && count.Add(1) >= n {
				return why
			}
		}
		return nil
	}))
}

// TestFailingDisk: a ledger whose log cannot be written ends its process with a word
// why, and what it had answered is there.
func TestFailingDisk(t *testing.T) {
	t.Parallel()
	h, dir := newHistory(), t.TempDir()
	for life, why := range []syscall.Errno{unix.ENOSPC, unix.EIO, unix.EIO, unix.ENOSPC, unix.EDQUOT, unix.EROFS} {
		p := start(t, h, fmt.Sprintf("failing %s %d %d", dir, 1+life*37, int(why)), life)
		p.end()
		if code := p.cmd.ProcessState.ExitCode(); code != 1 {
			t.Errorf("life %d: it ends with %d\n%s", life, code, &p.err)
		}
		if said := p.err.String(); !strings.Contains(said, "the ledger's disk does not write") || !strings.Contains(said, why.Error()) || strings.Contains(said, "goroutine ") {
			t.Errorf("life %d: it says\n%s", life, said)
		}
		l := openFor(t, dir, vfs.Default)
		h.right(t, l)
		l.Close()
	}
	if h.answered() < 100 {
		t.Errorf("there were %d answers only", h.answered())
	}
}

// TestUnreadableDisk: what cannot be read is not taken for what is not there.
func TestUnreadableDisk(t *testing.T) {
	t.Parallel()
	var fails atomic.Bool
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if fails.Load() && op.Kind == errorfs.OpFileReadAt {
			return unix.EIO
		}
		return nil
	}))
	l := openFor(t, "ledger", fs)
	spend(t, l, row(1, 1), row(2, 2))
	if err := l.epochs[epoch].db.Flush(); err != nil {
		t.Fatal(err)
	}
	l.Close()
	l = openFor(t, "ledger", fs)
	spend(t, l)
	fails.Store(true)
	if got, err := l.Spend(t.Context(), epoch, []Row{row(1, 9)}); !errors.Is(err, unix.EIO) {
		t.Errorf("got %v, %v, want %v", got, err, unix.EIO)
	}
	if got, err := l.Look(t.Context(), epoch, []Serial{serial(2)}); !errors.Is(err, unix.EIO) {
		t.Errorf("got %v, %v, want %v", got, err, unix.EIO)
	}
	fails.Store(false)
	// Pebble reads in the background, too, and one read that failed may answer two.
	got, err := l.Spend(t.Context(), epoch, []Row{row(1, 9), row(2, 9)})
	for errors.Is(err, unix.EIO) {
		got, err = l.Spend(t.Context(), epoch, []Row{row(1, 9), row(2, 9)})
	}
	if err != nil || tagOf(got[0]) != 1 || tagOf(got[1]) != 2 {
		t.Errorf("it can be read again, and there are %v, %v", got, err)
	}
}

// TestDamagedDisk: bits that fell over are noticed.
func TestDamagedDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := openFor(t, dir, vfs.Default)
	rows := make([]Row, 2000)
	for n := range rows {
		rows[n] = row(n, n+1)
	}
	spend(t, l, rows...)
	if err := l.epochs[epoch].db.Flush(); err != nil {
		t.Fatal(err)
	}
	l.Close()
	tables, _ := filepath.Glob(filepath.Join(dir, "epoch-82", "*.sst"))
	if len(tables) == 0 {
		t.Fatal("there are no tables")
	}
	for _, path := range tables {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		copy(text[len(text)/3:], bytes.Repeat([]byte{0x5a}, 64))
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l = openFor(t, dir, vfs.Default)
	damaged := 0
	for n := range rows {
		got, err := l.Spend(t.Context(), epoch, []Row{row(n, 9999)})
		switch {
		case errors.Is(err, cloudpal.Corrupt):
			damaged++
		case err != nil || tagOf(got[0]) != n+1:
			t.Fatalf("ticket %d can be spent again: %v, %v", n, got, err)
		}
	}
	if damaged == 0 {
		t.Error("nothing is said of the damage")
	}
}

// fill spends tickets with all the evidence that can be, until that fails.
func fill(t *testing.T, l Ledger, from int) (spent int, err error) {
	t.Helper()
	for n := from; n < from+200_000; n += 50 {
		rows := make([]Row, 50)
		for i := range rows {
			rows[i] = row(n+i, n+i+1)
			rows[i].Evidence = bytes.Repeat(rows[i].Serial[:], MaxEvidence/16)
		}
		if _, err := l.Spend(t.Context(), epoch, rows); err != nil {
			return n - from, err
		}
	}
	t.Fatal("the disk does not fill")
	return 0, nil
}

// allSpent looks for tickets that were.
func allSpent(t *testing.T, l Ledger, count int) {
	t.Helper()
	for n := range count {
		if got := spend(t, l, row(n, 1<<30)); tagOf(got[0]) != n+1 {
			t.Fatalf("ticket %d of %d can be spent again", n, count)
		}
	}
}

// TestPostgresFullDisk: a database whose disk is full says so, and goes on by itself
// when there is room.
func TestPostgresFullDisk(t *testing.T) {
	t.Parallel()
	d := newDisk(t, 16)
	server := postgres.New(t)
	var owner unix.Stat_t
	if err := errors.Join(unix.Stat(server.Socket(), &owner), os.Chown(d.dir, int(owner.Uid), int(owner.Gid))); err != nil {
		t.Fatal(err)
	}
	conn := connect(t, server)
	must(t, conn, fmt.Sprintf(`create tablespace small location '%s'`, d.dir))
	must(t, conn, `create database mint tablespace small`)
	url := strings.ReplaceAll(server.URL(), "/postgres?", "/mint?")
	l := openPostgresFor(t, url)
	spent, err := fill(t, l, 0)
	refusesForSpace(t, err)
	if spent == 0 {
		t.Error("nothing was spent")
	}
	d.resize(64)
	allSpent(t, l, spent)
	if got := spend(t, l, row(-1, 7)); tagOf(got[0]) != 7 {
		t.Errorf("got %v", got)
	}
	l.Close()
	server.Stop() // its disk goes with the test
}

// TestPostgresFullLog: where there is no room for its log either, the server ends
// itself. What was answered is there when there is room.
func TestPostgresFullLog(t *testing.T) {
	d := newDisk(t, 64)
	t.Setenv("TMPDIR", d.dir)
	server := postgres.New(t)
	l := openPostgresFor(t, server.URL())
	spent, err := fill(t, l, 0)
	if !errors.Is(err, cloudpal.NoSpace) && !errors.Is(err, cloudpal.Missing) || cloudpal.HintOf(err) == "" {
		t.Errorf("got %v, want %v or %v, and a hint", err, cloudpal.NoSpace, cloudpal.Missing)
	}
	d.resize(256)
	server.Kill()
	server.Start()
	allSpent(t, l, spent)
	if got := spend(t, l, row(-1, 7)); tagOf(got[0]) != 7 {
		t.Errorf("got %v", got)
	}
}
