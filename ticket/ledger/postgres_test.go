//go:build linux

package ledger

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/test/postgres"
)

func openPostgresFor(t testing.TB, url string) *Postgres {
	t.Helper()
	return openPostgresWithin(t, url, statementTimeout)
}

func openPostgresWithin(t testing.TB, url string, timeout time.Duration) *Postgres {
	t.Helper()
	l, err := openPostgres(t.Context(), url, timeout)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func TestPostgres(t *testing.T) {
	t.Parallel()
	server := postgres.New(t)
	suite(t, func(t *testing.T) Ledger { return openPostgresFor(t, server.URL()) })
}

// TestPostgresByMany: many may open one ledger at once, and make its tables.
func TestPostgresByMany(t *testing.T) {
	t.Parallel()
	server, h := postgres.New(t), newHistory()
	ledgers := make([]Ledger, 5)
	var all sync.WaitGroup
	for i := range ledgers {
		all.Go(func() { ledgers[i] = openPostgresFor(t, server.URL()+"&pool_max_conns=3") })
	}
	all.Wait()
	h.ask(t, 4, 0, 3000, ledgers...)
	h.right(t, ledgers[0])
}

// A wire is between a ledger and its database. It breaks after so many bytes of
// answers as cut says, and holds them back while it is frozen.
type wire struct {
	url    string
	cut    func() int64
	frozen sync.Mutex
	cuts   atomic.Int64
}

func newWire(t *testing.T, server *postgres.Server, cut func() int64) *wire {
	t.Helper()
	dir, err := os.MkdirTemp("", "cloudpal-pg-")
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, postgres.SocketName))
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{url: postgres.URL(dir), cut: cut}
	var all sync.WaitGroup
	t.Cleanup(func() {
		l.Close()
		all.Wait()
		os.RemoveAll(dir)
	})
	all.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { w.carry(client, server.Socket()) })
		}
	})
	return w
}

func (w *wire) carry(client net.Conn, socket string) {
	defer client.Close()
	database, err := net.Dial("unix", socket)
	if err != nil {
		return
	}
	var asks sync.WaitGroup
	asks.Go(func() {
		io.Copy(database, client)
		database.Close()
	})
	buffer := make([]byte, 4096)
	for left := w.cut(); left > 0; {
		n, err := database.Read(buffer[:min(left, int64(len(buffer)))])
		if err != nil {
			break
		}
		left -= int64(n)
		w.frozen.Lock()
		w.frozen.Unlock() //lint:ignore SA2001 it only waits
		if _, err := client.Write(buffer[:n]); err != nil {
			break
		}
	}
	w.cuts.Add(1)
	client.Close()
	database.Close()
	asks.Wait()
}

// TestPostgresCut breaks connections at any byte of an answer, of two that use one
// database, and kills the database besides. Nobody knows then what became of what
// was asked.
func TestPostgresCut(t *testing.T) {
	t.Parallel()
	for _, seed := range []uint64{1, 2} {
		var mu sync.Mutex
		r := rand.New(rand.NewPCG(seed, 3))
		server, h := postgres.New(t), newHistory()
		open := func() (*Postgres, *wire) {
			w := newWire(t, server, func() int64 {
				mu.Lock()
				defer mu.Unlock()
				return 1000 + r.Int64N(8000)
			})
			// A wire may break while it is opened, too.
			for {
				l, err := OpenPostgres(t.Context(), w.url)
				if err == nil {
					t.Cleanup(func() { l.Close() })
					return l, w
				}
			}
		}
		a, one := open()
		b, other := open()
		for life := range 3 {
			h.ask(t, seed, life, 600, a, b)
			server.Kill()
			server.Start()
		}
		l := openPostgresFor(t, server.URL())
		h.right(t, l)
		if cuts := one.cuts.Load() + other.cuts.Load(); cuts < 20 {
			t.Errorf("%d connections broke only", cuts)
		}
	}
}

// TestPostgresGone: while the database is away it is said so, at once, and when it
// is back, all goes on.
func TestPostgresGone(t *testing.T) {
	t.Parallel()
	server := postgres.New(t)
	l := openPostgresFor(t, server.URL())
	for _, end := range []func(){server.Stop, server.Kill} {
		spend(t, l, row(1, 1))
		end()
		_, spent := l.Spend(t.Context(), epoch, []Row{row(2, 2)})
		_, looked := l.Look(t.Context(), epoch, []Serial{serial(1)})
		_, opened := OpenPostgres(t.Context(), server.URL()+"&password=hunter2")
		for what, err := range map[string]error{"spend": spent, "look": looked, "drop": l.Drop(t.Context(), 7), "open": opened} {
			if !errors.Is(err, cloudpal.Missing) || cloudpal.HintOf(err) == "" {
				t.Errorf("%s: got %v, want %v and a hint", what, err, cloudpal.Missing)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s tells the password: %v", what, err)
			}
		}
		server.Start()
		if got := spend(t, l, row(1, 9), row(2, 2)); tagOf(got[0]) != 1 || tagOf(got[1]) != 2 {
			t.Errorf("it is back, and there are %v", got)
		}
	}
}

// TestPostgresRefuses says what is wrong with an address, but not the password in
// it.
func TestPostgresRefuses(t *testing.T) {
	t.Parallel()
	server := postgres.New(t)
	nobody := strings.ReplaceAll(server.URL(), "user=postgres", "user=nobody")
	for url, want := range map[string]cloudpal.Kind{
		"postgres://me:hunter2@[broken/mint":                     cloudpal.Invalid,
		strings.ReplaceAll(server.URL(), "/postgres?", "/none?"): cloudpal.NotExist,
		nobody + "&password=hunter2":                             cloudpal.Denied,
	} {
		_, err := OpenPostgres(t.Context(), url)
		if !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", url, err, want)
		}
		if err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("it tells the password: %v", err)
		}
	}
	conn := connect(t, server)
	must(t, conn, `alter system set fsync = off`)
	must(t, conn, `select pg_reload_conf()`)
	for fsync := ""; fsync != "off"; {
		if err := connect(t, server).QueryRow(t.Context(), `show fsync`).Scan(&fsync); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := OpenPostgres(t.Context(), server.URL()); !errors.Is(err, cloudpal.Denied) || !strings.Contains(cloudpal.HintOf(err), "fsync = on") {
		t.Errorf("a database that does not wait for its disk: got %v, want %v and a hint", err, cloudpal.Denied)
	}
}

func connect(t *testing.T, server *postgres.Server) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), server.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func must(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
		t.Fatal(err)
	}
}

// TestPostgresIsSlow: what another locks, and an answer that never comes, are
// waited for within bounds.
func TestPostgresIsSlow(t *testing.T) {
	t.Parallel()
	const timeout = time.Second
	server := postgres.New(t)
	w := newWire(t, server, func() int64 { return 1 << 40 })
	l := openPostgresWithin(t, w.url, timeout)
	spend(t, l, row(1, 1))
	conn := connect(t, server)
	refused := func(what string) {
		t.Helper()
		began := time.Now()
		_, spent := l.Spend(t.Context(), epoch, []Row{row(2, 2)})
		_, looked := l.Look(t.Context(), epoch, []Serial{serial(1)})
		for _, err := range []error{spent, looked} {
			if !errors.Is(err, cloudpal.Timeout) || cloudpal.HintOf(err) == "" {
				t.Errorf("%s: got %v, want %v and a hint", what, err, cloudpal.Timeout)
			}
		}
		if took := time.Since(began); took > 20*timeout {
			t.Errorf("%s: it took %v", what, took)
		}
	}
	must(t, conn, `begin; lock table spent_82 in access exclusive mode`)
	refused("locked")
	must(t, conn, `rollback`)
	if got := spend(t, l, row(2, 3)); tagOf(got[0]) != 3 && tagOf(got[0]) != 2 {
		t.Errorf("got %v", got)
	}
	w.frozen.Lock()
	refused("frozen")
	w.frozen.Unlock()
	if got := spend(t, l, row(1, 3)); tagOf(got[0]) != 1 {
		t.Errorf("got %v", got)
	}
}

// TestPostgresTogether: those who wait go as one statement, and who does not want to
// wait any more holds up nobody.
func TestPostgresTogether(t *testing.T) {
	t.Parallel()
	server := postgres.New(t)
	l := openPostgresFor(t, server.URL()+"&pool_max_conns=2")
	spend(t, l)
	conn := connect(t, server)
	must(t, conn, `begin; lock table spent_82 in access exclusive mode`)
	ctx, leave := context.WithCancel(t.Context())
	var all sync.WaitGroup
	const callers = 200
	answers := make([]int, callers)
	all.Go(func() {
		if _, err := l.Spend(ctx, epoch, []Row{row(-1, 1)}); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want %v", err, context.Canceled)
		}
	})
	waits := func(rows int) {
		for n := -1; n != rows; runtime.Gosched() {
			l.mu.Lock()
			n = 0
			if b := l.waiting[epoch]; b != nil {
				n = len(b.rows)
			}
			if rows == 0 && len(l.slots) == 0 {
				n = -1
			}
			l.mu.Unlock()
		}
	}
	waits(0)
	for c := range callers {
		all.Go(func() {
			there, err := l.Spend(t.Context(), epoch, []Row{row(c/2, c+1)})
			if err != nil {
				t.Error(err)
				return
			}
			answers[c] = tagOf(there[0])
		})
	}
	waits(callers)
	leave()
	must(t, conn, `rollback`)
	all.Wait()
	for c := 0; c < callers; c += 2 {
		if answers[c] != answers[c+1] || answers[c] != c+1 && answers[c] != c+2 {
			t.Errorf("ticket %d: two are told %d and %d", c/2, answers[c], answers[c+1])
		}
	}
	var statements, rows int
	if err := conn.QueryRow(t.Context(), `select count(distinct xmin::text), count(*) from spent_82`).Scan(&statements, &rows); err != nil {
		t.Fatal(err)
	}
	if statements != 2 || rows != callers/2+1 {
		t.Errorf("%d rows came in %d statements, want %d in 2", rows, statements, callers/2+1)
	}
}

// BenchmarkPostgres is BenchmarkSpend on a database.
func BenchmarkPostgres(b *testing.B) {
	spendByMany(b, openPostgresFor(b, postgres.New(b).URL()))
}
