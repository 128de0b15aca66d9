package books

import (
	"context"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

// An Hour counts what was done in one under a key.
type Hour struct {
	Hour                       int64
	Issued, Redeemed, Refunded int64
}

// Hours returns those of a key in which something was done.
func (b *Books) Hours(ctx context.Context, id ticket.KeyID) ([]Hour, error) {
	return query(ctx, b, "count tickets", func(scan func(...any) error) (h Hour, err error) {
		return h, scan(&h.Hour, &h.Issued, &h.Redeemed, &h.Refunded)
	}, `select hour, sum(issued), sum(redeemed), sum(refunded) from (
			select hour, count(*) as issued, 0 as redeemed, sum(change) as refunded from outputs where key = $1 group by hour
			union all
			select hour, 0, count(*), 0 from spent where key = $1 group by hour
		) as hours group by hour order by hour`, id[:])
}

// LastHour returns the last hour in which something was done under a key, and 0 where
// nothing was.
func (b *Books) LastHour(ctx context.Context, id ticket.KeyID) (hour int64, err error) {
	err = b.find(ctx, []any{&hour}, `select coalesce(max(hour), 0) from (
			select max(hour) as hour from outputs where key = $1
			union all
			select max(hour) from spent where key = $1
		) as hours`, id[:])
	if err != nil {
		return 0, failed("count tickets", err)
	}
	return hour, nil
}

// Outputs returns the hashes that were signed under a key in an hour, sorted.
func (b *Books) Outputs(ctx context.Context, id ticket.KeyID, hour int64) ([][32]byte, error) {
	return query(ctx, b, "list what was signed", readHash, `select hash from outputs where key = $1 and hour = $2 order by hash`, id[:], hour)
}

// Spent returns the serials that were spent under a key in an hour, sorted.
func (b *Books) Spent(ctx context.Context, id ticket.KeyID, hour int64) ([][32]byte, error) {
	return query(ctx, b, "list what was spent", readHash, `select serial from spent where key = $1 and hour = $2 order by serial`, id[:], hour)
}

func readHash(scan func(...any) error) (h [32]byte, err error) {
	var b []byte
	if err := scan(&b); err != nil {
		return h, err
	}
	copy(h[:], b)
	return h, nil
}

// Finish keeps the last counters of an epoch, which outlive what they are counted from.
// The first that are kept stay.
func (b *Books) Finish(ctx context.Context, e ticket.Epoch, counters string) error {
	return b.change(ctx, "keep an epoch's last counters", func(t *tx) error {
		t.exec(`insert into finals (epoch, counters) values ($1, $2) on conflict (epoch) do nothing`, int64(e), counters)
		return nil
	})
}

// Final returns the last counters of an epoch, or cloudpal.NotExist while they are not
// the last.
func (b *Books) Final(ctx context.Context, e ticket.Epoch) (string, error) {
	const op = "look for an epoch's last counters"
	list, err := query(ctx, b, op, func(scan func(...any) error) (s string, err error) {
		return s, scan(&s)
	}, `select counters from finals where epoch = $1`, int64(e))
	if err == nil && len(list) == 0 {
		err = cloudpal.E(op, cloudpal.NotExist, nil)
	}
	if err != nil {
		return "", err
	}
	return list[0], nil
}

// A Center is one that takes tickets of the mint.
type Center struct {
	ID        ticket.CenterID
	Name, URL string
}

// List puts a center into the directory, or changes what is said of it.
func (b *Books) List(ctx context.Context, c Center) error {
	return b.change(ctx, "list a center", func(t *tx) error {
		t.exec(`insert into centers (id, name, url) values ($1, $2, $3)
			on conflict (id) do update set name = excluded.name, url = excluded.url`, c.ID[:], c.Name, c.URL)
		return nil
	})
}

// Centers returns the directory, in order.
func (b *Books) Centers(ctx context.Context) ([]Center, error) {
	return query(ctx, b, "list centers", func(scan func(...any) error) (c Center, err error) {
		var id []byte
		if err := scan(&id, &c.Name, &c.URL); err != nil {
			return c, err
		}
		copy(c.ID[:], id)
		return c, nil
	}, `select id, name, url from centers order by name, id`)
}
