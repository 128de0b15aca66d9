package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

// A Postgres is a Ledger in a PostgreSQL database, which many processes may use at
// once: a table for each epoch, so that an epoch is dropped by dropping a table.
//
//	spent_floor   the first epoch that was not dropped, in its one row
//	spent_82      serial -> tag and evidence
//
// A row is added and looked for by the server itself, under the primary key; what
// the server shows to others it has written to its log. Where it has standbys that
// may take over, they must be synchronous, or what was answered may be lost with it.
//
// Calls that come while others run wait for their end together, and then go as one
// statement: a hundred rows cost the server little more than one.
type Postgres struct {
	pool    *pgxpool.Pool
	timeout time.Duration // bounds a statement
	slots   chan struct{} // one for each batch that may run at once

	mu      sync.Mutex
	waiting map[ticket.Epoch]*batch // those that have no slot yet
	closed  bool
	running sync.WaitGroup
}

// Bounds of what is asked of the database.
const (
	statementTimeout = 10 * time.Second
	connectTimeout   = 5 * time.Second
)

// OpenPostgres opens the ledger in the database of a URL or of PostgreSQL's own
// keywords, and makes its tables where there are none. A database that goes away
// later may come back: until then calls fail with cloudpal.Missing.
func OpenPostgres(ctx context.Context, url string) (*Postgres, error) {
	return openPostgres(ctx, url, statementTimeout)
}

func openPostgres(ctx context.Context, url string, timeout time.Duration) (*Postgres, error) {
	const op = "open the ledger"
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		// Its text may hold the password.
		return nil, cloudpal.E(op, cloudpal.Invalid, errors.New("the database's address cannot be read")).
			WithHint("write it as postgres://user:password@host/database")
	}
	c := config.ConnConfig
	c.ConnectTimeout = min(connectTimeout, timeout)
	c.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite // after a failover, the one that took over
	maps.Copy(c.RuntimeParams, map[string]string{
		"application_name":                    "cloudpal ledger",
		"default_transaction_isolation":       "read committed", // each statement sees what is committed before it
		"synchronous_commit":                  "on",
		"statement_timeout":                   strconv.FormatInt(timeout.Milliseconds(), 10),
		"idle_in_transaction_session_timeout": strconv.FormatInt(timeout.Milliseconds(), 10),
	})
	pool, err := pgxpool.NewWithConfig(ctx, config)
	if err != nil {
		return nil, cloudpal.E(op, cloudpal.Invalid, err)
	}
	// One connection is left for who looks and drops.
	p := &Postgres{pool: pool, timeout: timeout, waiting: map[ticket.Epoch]*batch{}}
	p.slots = make(chan struct{}, max(1, config.MaxConns-1))
	if err := p.prepare(ctx); err != nil {
		pool.Close()
		return nil, cloudpal.E(op, "", err)
	}
	return p, nil
}

// prepare makes what every epoch needs. Those that do so at once go one by one.
func (p *Postgres) prepare(ctx context.Context) error {
	return p.inTransaction(ctx, "prepare the ledger's database", func(ctx context.Context, tx pgx.Tx) error {
		var fsync *string
		if err := tx.QueryRow(ctx, `select current_setting('fsync', true)`).Scan(&fsync); err != nil {
			return err
		}
		if fsync != nil && *fsync != "on" {
			return cloudpal.E("", cloudpal.Denied, errors.New("the database does not wait for its disk (fsync is off)")).
				WithHint("set fsync = on in postgresql.conf: else a power cut makes spent tickets good again")
		}
		for _, statement := range []string{
			`select pg_advisory_xact_lock(hashtext('cloudpal ledger'))`,
			`create table if not exists spent_floor (one boolean primary key default true check (one), first bigint not null)`,
			`insert into spent_floor (first) values (0) on conflict do nothing`,
		} {
			if _, err := tx.Exec(ctx, statement); err != nil {
				return err
			}
		}
		return nil
	})
}

// inTransaction runs f in a transaction, within the time of a statement.
func (p *Postgres) inTransaction(ctx context.Context, op string, f func(context.Context, pgx.Tx) error) error {
	ctx, cancel := p.within(ctx)
	defer cancel()
	err := pgx.BeginFunc(ctx, p.pool, func(tx pgx.Tx) error { return f(ctx, tx) })
	return p.told(op, err)
}

// within bounds what is asked. The database ends a statement by itself a little
// earlier, and the connection stays whole; this is for one that does not answer.
func (p *Postgres) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, p.timeout+time.Second)
}

const tablePrefix = "spent_"

func table(e ticket.Epoch) string { return tablePrefix + strconv.FormatUint(uint64(e), 10) }

// shelve makes an epoch's table, unless the epoch is dropped. Who drops and who
// shelves hold the same row, so that a table that was dropped does not come back.
func (p *Postgres) shelve(ctx context.Context, e ticket.Epoch) error {
	return p.inTransaction(ctx, fmt.Sprintf("open epoch %d of the ledger", e), func(ctx context.Context, tx pgx.Tx) error {
		var first int64
		if err := tx.QueryRow(ctx, `select first from spent_floor for update`).Scan(&first); err != nil {
			return err
		}
		if int64(e) < first {
			return dropped(e)
		}
		// Evidence is not compressed, since signatures cannot be, nor moved to another
		// table before it must.
		_, err := tx.Exec(ctx, `create table if not exists `+table(e)+` (
			serial bytea primary key, tag bytea not null, evidence bytea not null)`)
		return err
	})
}

// A batch is what several calls add together.
type batch struct {
	rows  []Row // in the order of the calls
	done  chan struct{}
	there map[Serial]Row // once done
	err   error
}

// Spend implements Ledger.
func (p *Postgres) Spend(ctx context.Context, e ticket.Epoch, rows []Row) ([]Row, error) {
	if err := errors.Join(ctx.Err(), check(rows)); err != nil {
		return nil, err
	}
	b, err := p.join(e, rows)
	if err != nil {
		return nil, err
	}
	select {
	case <-b.done:
	case <-ctx.Done():
		return nil, cloudpal.E("spend tickets", cloudpal.Timeout, ctx.Err())
	}
	if b.err != nil {
		return nil, b.err
	}
	there := make([]Row, len(rows))
	for i, r := range rows {
		there[i] = b.there[r.Serial]
	}
	return there, nil
}

// join puts rows into the batch that waits, and begins one where none does.
func (p *Postgres) join(e ticket.Epoch, rows []Row) (*batch, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, closed()
	}
	b := p.waiting[e]
	if b == nil || len(b.rows)+len(rows) > maxRows {
		b = &batch{done: make(chan struct{})}
		p.waiting[e] = b
		p.running.Go(func() { p.run(e, b) })
	}
	b.rows = append(b.rows, rows...)
	return b, nil
}

// run runs a batch when there is a slot for it. That one of its callers goes away
// is not the others' concern: it runs to its end, or its time's.
func (p *Postgres) run(e ticket.Epoch, b *batch) {
	defer close(b.done)
	p.slots <- struct{}{}
	defer func() { <-p.slots }()
	p.mu.Lock()
	if p.waiting[e] == b {
		delete(p.waiting, e)
	}
	p.mu.Unlock()
	ctx, cancel := p.within(context.Background())
	defer cancel()
	b.there, b.err = p.spend(ctx, e, unique(b.rows))
}

// unique returns the first row of each serial, in the order of the serials: two
// batches that add the same rows in one order do not wait for each other.
func unique(rows []Row) []Row {
	rows = slices.Clone(rows)
	slices.SortStableFunc(rows, func(a, b Row) int { return bytes.Compare(a.Serial[:], b.Serial[:]) })
	return slices.CompactFunc(rows, func(a, b Row) bool { return a.Serial == b.Serial })
}

// spend adds rows and returns those that are there. A connection may have been
// broken while nobody used it, so it tries again once: to add the same rows twice is
// to add them once.
func (p *Postgres) spend(ctx context.Context, e ticket.Epoch, rows []Row) (there map[Serial]Row, err error) {
	const op = "spend tickets"
	for range 2 {
		there, err = p.add(ctx, e, rows)
		switch {
		case err == nil:
			return there, nil
		case hasCode(err, noTable):
			if err := p.shelve(ctx, e); err != nil {
				return nil, cloudpal.E(op, "", err)
			}
		case !again(err):
			return nil, p.told(op, err)
		}
	}
	return nil, p.told(op, err)
}

func (p *Postgres) add(ctx context.Context, e ticket.Epoch, rows []Row) (map[Serial]Row, error) {
	there := make(map[Serial]Row, len(rows))
	serials, tags, evidence := make([][]byte, len(rows)), make([][]byte, len(rows)), make([][]byte, len(rows))
	for i, r := range rows {
		serials[i], tags[i], evidence[i] = rows[i].Serial[:], rows[i].Tag[:], append([]byte{}, r.Evidence...) // none is not null
		there[r.Serial] = r
	}
	added, err := p.pool.Exec(ctx, `insert into `+table(e)+` (serial, tag, evidence)
		select * from unnest($1::bytea[], $2::bytea[], $3::bytea[]) on conflict do nothing`, serials, tags, evidence)
	if err != nil || int(added.RowsAffected()) == len(rows) {
		return there, err
	}
	// Some were there before. A statement of its own sees them, since the first has
	// waited for whoever was just adding them.
	found, err := p.read(ctx, e, serials)
	if err != nil {
		return nil, err
	}
	if len(found) != len(rows) {
		return nil, cloudpal.E("", cloudpal.Corrupt, fmt.Errorf("%d rows were added or there, but %d are found", len(rows), len(found)))
	}
	return found, nil
}

// read returns the rows of serials that are there.
func (p *Postgres) read(ctx context.Context, e ticket.Epoch, serials [][]byte) (map[Serial]Row, error) {
	found, err := p.pool.Query(ctx, `select serial, tag, evidence from `+table(e)+` where serial = any($1)`, serials)
	if err != nil {
		return nil, err
	}
	there := make(map[Serial]Row, len(serials))
	err = eachRow(found, func(r Row) { there[r.Serial] = r })
	return there, err
}

func eachRow(found pgx.Rows, f func(Row)) error {
	var serial, tag, evidence []byte
	_, err := pgx.ForEachRow(found, []any{&serial, &tag, &evidence}, func() error {
		var r Row
		if len(serial) != len(r.Serial) || len(tag) != len(r.Tag) {
			return cloudpal.E("", cloudpal.Corrupt, fmt.Errorf("a row of %d and %d bytes", len(serial), len(tag)))
		}
		r.Serial, r.Tag = Serial(serial), ticket.Tag(tag)
		if len(evidence) > 0 {
			r.Evidence = slices.Clone(evidence)
		}
		f(r)
		return nil
	})
	return err
}

// Look implements Ledger.
func (p *Postgres) Look(ctx context.Context, e ticket.Epoch, serials []Serial) ([]Row, error) {
	const op = "look for spent tickets"
	if err := p.open(); err != nil {
		return nil, err
	}
	ctx, cancel := p.within(ctx)
	defer cancel()
	keys := make([][]byte, len(serials))
	for i := range serials {
		keys[i] = serials[i][:]
	}
	found, err := p.read(ctx, e, keys)
	if again(err) {
		found, err = p.read(ctx, e, keys)
	}
	if hasCode(err, noTable) {
		err = p.shelve(ctx, e)
	}
	if err != nil {
		return nil, p.told(op, err)
	}
	rows := make([]Row, len(serials))
	for i, serial := range serials {
		rows[i] = found[serial]
	}
	return rows, nil
}

// Walk implements Ledger.
func (p *Postgres) Walk(ctx context.Context, e ticket.Epoch, f func([]Row) error) error {
	return walk(func(above []byte) ([]Row, error) {
		if err := p.open(); err != nil {
			return nil, err
		}
		ctx, cancel := p.within(ctx)
		defer cancel()
		rows, err := p.page(ctx, e, above)
		if again(err) {
			rows, err = p.page(ctx, e, above)
		}
		if hasCode(err, noTable) {
			err = p.shelve(ctx, e)
		}
		return rows, p.told("list spent tickets", err)
	}, f)
}

func (p *Postgres) page(ctx context.Context, e ticket.Epoch, above []byte) (rows []Row, err error) {
	found, err := p.pool.Query(ctx, `select serial, tag, evidence from `+table(e)+` where serial > $1 order by serial limit $2`, above, walkRows)
	if err != nil {
		return nil, err
	}
	err = eachRow(found, func(r Row) { rows = append(rows, r) })
	return rows, err
}

// Drop implements Ledger. Statements that still add to a table end first.
func (p *Postgres) Drop(ctx context.Context, e ticket.Epoch) error {
	if err := p.open(); err != nil {
		return err
	}
	return p.inTransaction(ctx, "drop spent tickets", func(ctx context.Context, tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `update spent_floor set first = greatest(first, $1)`, int64(e)+1); err != nil {
			return err
		}
		names, err := tables(ctx, tx)
		if err != nil {
			return err
		}
		for _, name := range names {
			n, err := strconv.ParseUint(strings.TrimPrefix(name, tablePrefix), 10, 32)
			if err != nil || ticket.Epoch(n) > e || name != table(ticket.Epoch(n)) {
				continue
			}
			if _, err := tx.Exec(ctx, `drop table `+name); err != nil {
				return err
			}
		}
		return nil
	})
}

func tables(ctx context.Context, tx pgx.Tx) ([]string, error) {
	rows, err := tx.Query(ctx, `select tablename::text from pg_tables where schemaname = current_schema() and tablename like 'spent\_%'`)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}

func (p *Postgres) open() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return closed()
	}
	return nil
}

// Close implements Ledger. It waits for calls that run.
func (p *Postgres) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.running.Wait()
	p.pool.Close()
	return nil
}

// What PostgreSQL calls its troubles (appendix A of its manual).
const noTable = "42P01"

var states = map[string]cloudpal.Kind{
	"53100": cloudpal.NoSpace,
	"53200": cloudpal.NoMemory,
	"53300": cloudpal.Busy, // too many connections
	"42501": cloudpal.Denied,
	"25006": cloudpal.Missing,  // it may only be read
	"3D000": cloudpal.NotExist, // the database
	"XX001": cloudpal.Corrupt,
	"XX002": cloudpal.Corrupt,
}

func hasCode(err error, code string) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.Code == code
}

// class is the first half of what PostgreSQL calls a trouble, or "".
func class(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) && len(pg.Code) == 5 {
		return pg.Code[:2]
	}
	return ""
}

// again reports whether what failed may go well at once: the connection was broken,
// or two transactions were in each other's way.
func again(err error) bool {
	var mine *cloudpal.Error
	var connect *pgconn.ConnectError
	switch {
	case err == nil, errors.As(err, &mine), errors.As(err, &connect), errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return false
	}
	c := class(err)
	return c == "" || c == "40" || c == "08" || hasCode(err, "57P01") // ended by its operator
}

// told sorts what went wrong, and says what to do about it.
func (p *Postgres) told(op string, err error) error {
	var mine *cloudpal.Error
	var pg *pgconn.PgError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &mine):
		return cloudpal.E(op, "", err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled), hasCode(err, "57014"), hasCode(err, "55P03"):
		return cloudpal.E(op, cloudpal.Timeout, err).WithHint("the database is too slow or does not answer: look at its load and its locks")
	case !errors.As(err, &pg):
		return gone(op, err)
	}
	switch c := class(err); {
	case c == "08", c == "57":
		return gone(op, err)
	case c == "28":
		return cloudpal.E(op, cloudpal.Denied, err).WithHint("look at the user and the password in the database's address")
	case pg.Code == "53100":
		return cloudpal.E(op, cloudpal.NoSpace, err).WithHint("the database's disk is full: free some, the mint goes on by itself")
	}
	kind, ok := states[pg.Code]
	if !ok {
		kind = cloudpal.Other
	}
	return cloudpal.E(op, kind, err)
}

// gone is what is said while the database is not there.
func gone(op string, err error) error {
	return cloudpal.E(op, cloudpal.Missing, fmt.Errorf("the database does not answer: %w", err)).
		WithHint("start it again: the mint goes on by itself when it answers")
}
