// Package books is what a mint keeps in a database: its quotes, what it signed and
// what was deposited, and the accounts of all that, by double entry.
//
// There is one set of SQL, for SQLite, which is a file, and for PostgreSQL. What
// several callers change at once is committed together, each change for itself: a
// change that is refused takes nothing of the others with it. What is committed
// outlives the machine's power.
//
// Every unit of value is at all times in just one account:
//
//	sold ──issue──► outstanding/KEY ──deposit──► payable/CENTER ──dispute──► held/CENTER
//	                 ▲  │ swap  ▲  ▲                  │                          │
//	                 └──┘       │  └─────refund───────┘                          │
//	                            └──────────────────settle────────────────────────┘
//	payable/CENTER ──payout──► paidout/CENTER
//	outstanding/KEY ──nobody came──► breakage
//
// What is sold is negative, and all accounts together are zero, in each class of
// tickets and in each currency: see Check.
package books

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	_ "github.com/jackc/pgx/v5/stdlib" // PostgreSQL
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/tradle/cloudpal"
)

const (
	maxBatch     = 128 // changes that are committed together
	writeTimeout = 30 * time.Second
	maxConns     = 8
)

// Books are safe for use by many at once.
type Books struct {
	db    *sql.DB
	queue chan *change

	mu         sync.Mutex
	statements map[string]*sql.Stmt // by their text

	unknown []string // statements of the last transaction; only who writes has them

	stop    context.CancelFunc
	stopped chan struct{} // closed once nothing is written any more
}

// A change is one caller's, on its way to be committed.
type change struct {
	ctx  context.Context
	make func(*tx) error
	done chan error // has room for the answer
}

// Open opens the books at a place: a URL that begins with postgres://, or the path
// of a file, which it makes where there is none.
func Open(ctx context.Context, place string) (*Books, error) {
	const op = "open the mint's books"
	db, err := open(place)
	if err != nil {
		return nil, cloudpal.E(op, kindOf(err), err)
	}
	db.SetMaxOpenConns(maxConns)
	db.SetMaxIdleConns(maxConns)
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	b := &Books{db: db, queue: make(chan *change, maxBatch), statements: map[string]*sql.Stmt{}, stop: stop, stopped: make(chan struct{})}
	if err := b.prepare(ctx); err != nil {
		stop()
		return nil, cloudpal.E(op, kindOf(err), errors.Join(err, db.Close())).WithHint(hint(err))
	}
	go func() {
		defer close(b.stopped)
		b.write(running)
	}()
	return b, nil
}

func open(place string) (*sql.DB, error) {
	if IsPostgres(place) {
		return sql.Open("pgx", place)
	}
	if err := makeFile(place); err != nil {
		return nil, err
	}
	pragmas := url.Values{"_pragma": {"journal_mode(WAL)", "synchronous(FULL)", "busy_timeout(10000)"}, "_txlock": {"immediate"}}
	return sql.Open("sqlite", "file:"+(&url.URL{Path: place}).EscapedPath()+"?"+pragmas.Encode())
}

// IsPostgres reports whether a place is a server's and not a file's.
func IsPostgres(place string) bool {
	return strings.HasPrefix(place, "postgres://") || strings.HasPrefix(place, "postgresql://")
}

// makeFile makes the file, for its owner's eyes, and its name durable.
func makeFile(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return errors.Join(err, f.Close())
	}
	return errors.Join(f.Sync(), f.Close(), dir.Sync(), dir.Close())
}

// prepare makes the tables that are not there.
func (b *Books) prepare(ctx context.Context) error {
	t, err := b.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer t.Rollback()
	for statement := range strings.SplitSeq(schema, ";\n") {
		if strings.TrimSpace(statement) == "" {
			continue
		}
		if _, err := t.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return t.Commit()
}

// DB returns the database, for what a method of payment keeps beside the books.
func (b *Books) DB() *sql.DB { return b.db }

// Close ends the books once what is on its way is committed.
func (b *Books) Close() error {
	b.stop()
	<-b.stopped
	return b.db.Close()
}

// statement returns one with that text, which a connection reads once: to read it each
// time takes as long as to do what it says. There are as many as are written in this
// package.
func (b *Books) statement(ctx context.Context, query string) (*sql.Stmt, error) {
	if s := b.known(query); s != nil {
		return s, nil
	}
	s, err := b.db.PrepareContext(ctx, query)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if other := b.statements[query]; other != nil { // another caller was faster
		return other, s.Close()
	}
	b.statements[query] = s
	return s, nil
}

func (b *Books) known(query string) *sql.Stmt {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.statements[query]
}

// find reads one row into dest. The error is sql.ErrNoRows where there is none.
func (b *Books) find(ctx context.Context, dest []any, query string, args ...any) error {
	s, err := b.statement(ctx, query)
	if err != nil {
		return err
	}
	return s.QueryRowContext(ctx, args...).Scan(dest...)
}

// change commits what make does, or nothing of it. Make can be called by another
// goroutine, and must not wait for anything but the database.
func (b *Books) change(ctx context.Context, op string, make_ func(*tx) error) error {
	c := &change{ctx, make_, make(chan error, 1)}
	closed := cloudpal.E(op, cloudpal.Missing, errors.New("the books are closed"))
	select {
	case b.queue <- c:
	case <-ctx.Done():
		return cloudpal.E(op, cloudpal.Timeout, context.Cause(ctx))
	case <-b.stopped:
		return closed
	}
	answered := func(err error) error {
		if err == nil {
			return nil
		}
		return failed(op, err)
	}
	select {
	case err := <-c.done:
		return answered(err)
	case <-ctx.Done():
		return cloudpal.E(op, cloudpal.Timeout, context.Cause(ctx))
	case <-b.stopped: // it may have come into the queue too late, or was the last that was written
		select {
		case err := <-c.done:
			return answered(err)
		default:
			return closed
		}
	}
}

// failed gives an error the kind that says what to do.
func failed(op string, err error) error {
	e := cloudpal.E(op, kindOf(err), err)
	if e.Hint == "" {
		e.Hint = hint(err)
	}
	return e
}

// write commits changes until it is told to stop and none waits.
func (b *Books) write(ctx context.Context) {
	for {
		var batch []*change
		select {
		case c := <-b.queue:
			batch = append(batch, c)
		case <-ctx.Done():
			select {
			case c := <-b.queue:
				batch = append(batch, c)
			default:
				return
			}
		}
		for more := true; more && len(batch) < maxBatch; {
			select {
			case c := <-b.queue:
				batch = append(batch, c)
			default:
				more = false
			}
		}
		b.commit(batch)
	}
}

// learn makes for all what was new in a transaction.
func (b *Books) learn(ctx context.Context) {
	for _, query := range b.unknown {
		b.statement(ctx, query) // where that fails, the next transaction makes its own
	}
	b.unknown = nil
}

// commit answers each change of a batch. Where the whole is not committed, nobody
// is told anything else: what one was refused for may be another's that is not
// there.
func (b *Books) commit(batch []*change) {
	ctx, cancel := context.WithTimeout(context.Background(), writeTimeout)
	defer cancel()
	answers, err := b.transact(ctx, batch)
	b.learn(ctx)
	for i, c := range batch {
		if err != nil {
			c.done <- err
			continue
		}
		c.done <- answers[i]
	}
}

func (b *Books) transact(ctx context.Context, batch []*change) ([]error, error) {
	s, err := b.db.BeginTx(ctx, nil)
	if err != nil {
		return nil, err
	}
	defer s.Rollback()
	answers := make([]error, len(batch))
	for i, c := range batch {
		if answers[i], err = b.one(ctx, s, c); err != nil {
			return nil, err
		}
	}
	return answers, s.Commit()
}

// one makes one change, or none of it: then answer says why. With err, the whole
// transaction is no good any more.
func (b *Books) one(ctx context.Context, s *sql.Tx, c *change) (answer, err error) {
	if c.ctx.Err() != nil {
		return context.Cause(c.ctx), nil // nobody waits for it
	}
	if _, err := s.ExecContext(ctx, "savepoint change"); err != nil {
		return nil, err
	}
	t := &tx{ctx: ctx, books: b, sql: s}
	if answer = c.make(t); t.err != nil {
		answer = t.err
	}
	if answer != nil {
		if _, err := s.ExecContext(ctx, "rollback to savepoint change"); err != nil {
			return nil, errors.Join(answer, err)
		}
	}
	_, err = s.ExecContext(ctx, "release savepoint change")
	return answer, err
}

// A tx is the transaction of one change. After its first error it does nothing
// more, and the change is not made.
type tx struct {
	ctx   context.Context
	books *Books
	sql   *sql.Tx
	err   error
}

// statement returns one that is made in the transaction, or nil and keeps the error.
// One that is new is noted for later: to make it for all would take a connection more
// than there may be.
func (t *tx) statement(query string) *sql.Stmt {
	if t.err != nil {
		return nil
	}
	if s := t.books.known(query); s != nil {
		return t.sql.StmtContext(t.ctx, s)
	}
	s, err := t.sql.PrepareContext(t.ctx, query)
	t.err = err
	t.books.unknown = append(t.books.unknown, query)
	return s
}

// exec returns how many rows it changed.
func (t *tx) exec(query string, args ...any) int64 {
	s := t.statement(query)
	if s == nil {
		return 0
	}
	r, err := s.ExecContext(t.ctx, args...)
	if err != nil {
		t.err = err
		return 0
	}
	n, err := r.RowsAffected()
	t.err = err
	return n
}

// find reads one row into dest, if there is one.
func (t *tx) find(dest []any, query string, args ...any) bool {
	s := t.statement(query)
	if s == nil {
		return false
	}
	err := s.QueryRowContext(t.ctx, args...).Scan(dest...)
	if err != nil && !errors.Is(err, sql.ErrNoRows) {
		t.err = err
	}
	return err == nil
}

// kindOf sorts what a database says.
func kindOf(err error) cloudpal.Kind {
	if k := cloudpal.KindOf(err); k != cloudpal.Other {
		return k
	}
	var lite *sqlite.Error
	var server *pgconn.PgError
	switch {
	case errors.As(err, &lite):
		switch lite.Code() & 0xff {
		case sqlite3.SQLITE_FULL:
			return cloudpal.NoSpace
		case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
			return cloudpal.Corrupt
		case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY:
			return cloudpal.Missing
		}
	case errors.As(err, &server):
		switch class := server.Code[:min(2, len(server.Code))]; class {
		case "53": // insufficient resources
			if server.Code == "53100" {
				return cloudpal.NoSpace
			}
			return cloudpal.Missing
		case "08", "57", "40", "55", "25": // connection, shut down, serialization, in use, read only
			return cloudpal.Missing
		case "58": // system error
			return cloudpal.NoSpace
		}
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return cloudpal.NoSpace
	case errors.Is(err, os.ErrPermission):
		return cloudpal.Denied
	default:
		return cloudpal.Missing // a connection that is gone, or a time that is up
	}
	return cloudpal.Other
}

// hint says what an operator, and whoever asks, can do about it.
func hint(err error) string {
	switch kindOf(err) {
	case cloudpal.NoSpace:
		return "the mint's disk is full: it goes on by itself once there is room, and nothing is lost"
	case cloudpal.Missing:
		return "the mint's database does not answer: ask again later, nothing is lost"
	}
	return ""
}

// A Refusal is an answer that the books give and not the database. Whoever asked may
// know it.
type Refusal struct {
	Kind cloudpal.Kind
	Why  string
}

func refuse(kind cloudpal.Kind, why string, args ...any) error {
	return Refusal{kind, fmt.Sprintf(why, args...)}
}

func (r Refusal) Error() string { return r.Why }

// Unwrap makes it the kind.
func (r Refusal) Unwrap() error { return r.Kind }
