//go:build linux

package ledger

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tradle/cloudpal/test/postgres"
	"github.com/tradle/cloudpal/ticket"
)

// What a process that is to be killed finds in its environment: where its ledger
// is, and which of its lives it has.
const (
	childLedger = "CLOUDPAL_TEST_LEDGER"
	childLife   = "CLOUDPAL_TEST_LEDGER_LIFE" // and its oldest ticket
)

// child is that process: it asks its ledger until it is killed, and says all it
// asks and is answered.
func child(where string) error {
	var life, oldest int
	if _, err := fmt.Sscan(os.Getenv(childLife), &life, &oldest); err != nil {
		return err
	}
	ctx := context.Background()
	l, err := openChild(ctx, where)
	if err != nil {
		return err
	}
	say := func(e event) {
		// One write of one line: it is said whole, or not at all.
		if _, err := fmt.Fprintf(os.Stdout, "%c %d %d %d %d\n", e.kind, e.id, e.at, e.n, e.tag); err != nil {
			os.Exit(1) // who listens is gone
		}
	}
	var all sync.WaitGroup
	all.Go(func() {
		old := ticket.Epoch(life + 1)
		_, err := l.Spend(ctx, old, []Row{row(1, 1)})
		if err == nil {
			err = l.Drop(ctx, old)
		}
		if err == nil {
			say(event{kind: drop, n: int(old)})
		}
	})
	var count atomic.Int64
	for c := range clients {
		all.Go(func() {
			one := &client{l, say, &count, int64(life) * perLife, oldest, rand.New(rand.NewPCG(uint64(life), uint64(c)))}
			for {
				for err := one.question(ctx); err != nil; _, err = l.Look(ctx, epoch, nil) {
					time.Sleep(5 * time.Millisecond) // the database may take a second to come back
				}
			}
		})
	}
	all.Wait()
	return nil
}

func openChild(ctx context.Context, where string) (Ledger, error) {
	engine, at, _ := strings.Cut(where, " ")
	switch engine {
	case "pebble":
		return OpenPebble(at)
	case "postgres":
		return OpenPostgres(ctx, at)
	case "failing":
		var dir string
		var n int64
		var why syscall.Errno
		if _, err := fmt.Sscan(at, &dir, &n, &why); err != nil {
			return nil, err
		}
		return openPebble(dir, failing(n, why))
	case "lazy":
		l, err := OpenPebble(at)
		return &lazy{Ledger: l, there: map[Serial]Row{}}, err
	}
	return nil, fmt.Errorf("no engine %q", engine)
}

// A lazy ledger is broken: it answers before what it says is on disk.
type lazy struct {
	Ledger
	mu    sync.Mutex
	there map[Serial]Row
	late  []Row
}

func (l *lazy) Spend(ctx context.Context, e ticket.Epoch, rows []Row) ([]Row, error) {
	if e != epoch {
		return l.Ledger.Spend(ctx, e, rows)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var out []Row
	for _, r := range rows {
		got, err := l.lookLocked(ctx, r.Serial)
		if err != nil {
			return nil, err
		}
		if got.Serial != r.Serial {
			got, l.there[r.Serial], l.late = r, r, append(l.late, r)
		}
		out = append(out, got)
	}
	if len(l.late) < 30 {
		return out, nil
	}
	late := l.late
	l.late = nil
	_, err := l.Ledger.Spend(ctx, epoch, late)
	return out, err
}

func (l *lazy) lookLocked(ctx context.Context, s Serial) (Row, error) {
	if r, ok := l.there[s]; ok {
		return r, nil
	}
	there, err := l.Ledger.Look(ctx, epoch, []Serial{s})
	if err != nil {
		return Row{}, err
	}
	return there[0], nil
}

func (l *lazy) Look(ctx context.Context, e ticket.Epoch, serials []Serial) (out []Row, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range serials {
		r, err := l.lookLocked(ctx, s)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

// A process is a child that runs.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines *bufio.Scanner
	err   strings.Builder
	h     *history
}

func start(t *testing.T, h *history, where string, life int) *process {
	t.Helper()
	p := &process{t: t, cmd: exec.Command(os.Args[0]), h: h}
	p.cmd.Env = append(os.Environ(), childLedger+"="+where, fmt.Sprintf("%s=%d %d", childLife, life, h.oldest()))
	p.cmd.Stderr = &p.err
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.lines = bufio.NewScanner(out)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.kill)
	return p
}

// listen notes what it says until it was answered so many times more, or has ended.
func (p *process) listen(answers int) {
	for enough := p.h.answered() + answers; p.h.answered() < enough && p.lines.Scan(); {
		p.h.note(parse(p.t, p.lines.Text()))
	}
}

func parse(t *testing.T, line string) (e event) {
	t.Helper()
	if _, err := fmt.Sscanf(line, "%c %d %d %d %d", &e.kind, &e.id, &e.at, &e.n, &e.tag); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return e
}

// kill kills it, and notes what it has said.
func (p *process) kill() {
	if p.cmd.ProcessState != nil {
		return
	}
	p.cmd.Process.Kill()
	p.end()
}

// end waits for its end.
func (p *process) end() {
	for p.lines.Scan() {
		p.h.note(parse(p.t, p.lines.Text()))
	}
	p.cmd.Wait()
}

// lives has a ledger used by one process after the other, each killed: while it
// opens the ledger, or after any number of answers.
func lives(t *testing.T, h *history, where string, seed uint64, count int, also func(*rand.Rand)) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 11))
	for life := range count {
		p := start(t, h, where, life)
		if r.IntN(8) > 0 {
			p.listen(1 + r.IntN(600))
			if p.cmd.ProcessState == nil && p.err.Len() > 0 {
				t.Fatalf("life %d: %s", life, p.err.String())
			}
		}
		also(r)
		p.kill()
	}
	if h.got < 50*count {
		t.Errorf("in %d lives there were %d answers only", count, h.got)
	}
	if len(h.dropped) == 0 {
		t.Error("nothing was dropped")
	}
}

// right fails where a ledger does not keep what was answered.
func (h *history) right(t *testing.T, l Ledger) {
	t.Helper()
	if wrong := h.kept(t, l); wrong > 0 {
		t.Errorf("%d answers are not true any more", wrong)
	}
	if got := h.check(t); got != porcupine.Ok {
		t.Errorf("the ledger is %s", got)
	}
}

// TestKilled kills the process of a ledger again and again.
func TestKilled(t *testing.T) {
	t.Parallel()
	for _, seed := range []uint64{1, 2} {
		h, dir := newHistory(), t.TempDir()
		lives(t, h, "pebble "+dir, seed, 20, func(*rand.Rand) {})
		h.right(t, openFor(t, dir, vfs.Default))
	}
}

// TestLazyLedgersAreCaught: one that answers before it has written loses what it
// answered, and the tests above see it.
func TestLazyLedgersAreCaught(t *testing.T) {
	t.Parallel()
	h, dir := newHistory(), t.TempDir()
	lives(t, h, "lazy "+dir, 3, 12, func(*rand.Rand) {})
	if wrong := h.kept(t, openFor(t, dir, vfs.Default)); wrong == 0 {
		t.Error("all that was answered is there")
	}
	if got := h.check(t); got != porcupine.Illegal {
		t.Errorf("a lazy ledger is %s", got)
	}
}

// TestPostgresKilled kills who uses the database, the database, and both at once.
func TestPostgresKilled(t *testing.T) {
	t.Parallel()
	t.Run("the process", func(t *testing.T) {
		t.Parallel()
		server, h := postgres.New(t), newHistory()
		lives(t, h, "postgres "+server.URL(), 1, 12, func(*rand.Rand) {})
		h.right(t, openPostgresFor(t, server.URL()))
	})
	t.Run("the database", func(t *testing.T) {
		t.Parallel()
		server, h := postgres.New(t), newHistory()
		p, r := start(t, h, "postgres "+server.URL(), 0), rand.New(rand.NewPCG(2, 2))
		for range 8 {
			before := h.answered()
			p.listen(1 + r.IntN(600))
			server.Kill()
			server.Start()
			p.listen(20) // by the same process, which has nothing to do but to go on
			if h.answered() < before+20 {
				t.Fatalf("it does not go on: %s", p.err.String())
			}
		}
		p.kill()
		h.right(t, openPostgresFor(t, server.URL()))
	})
	t.Run("both", func(t *testing.T) {
		t.Parallel()
		server, h := postgres.New(t), newHistory()
		lives(t, h, "postgres "+server.URL(), 3, 10, func(r *rand.Rand) {
			if r.IntN(2) == 0 {
				server.Kill()
				server.Start()
			}
		})
		h.right(t, openPostgresFor(t, server.URL()))
	})
}
