package mint

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/ticket"
)

const (
	// closeAfter is how long after its end an hour may still get more: what is on its
	// way into the books was dated before.
	closeAfter = 5 * time.Minute
	// spentAfter is how much later it is said what was spent and deposited in an hour.
	spentAfter = 24 * time.Hour
	// maxRoots bounds how many hours are remembered: twice those of all epochs.
	maxRoots = 300_000
)

// A root names the hashes of an hour.
type root struct {
	key  ticket.KeyID
	kind api.Kind
	hour int64
}

// hashes is a root's, which does not change once the hour is closed.
type hashes [32]byte

// Counters says what was signed and spent under each key of an epoch in the hours
// that are closed. Of an epoch that is over it returns the last, which show what
// nobody brought back.
func (m *Mint) Counters(ctx context.Context, e ticket.Epoch) (api.Counters, error) {
	text, err := m.Books.Final(ctx, e)
	if errors.Is(err, cloudpal.NotExist) {
		return m.count(ctx, e)
	}
	if err != nil {
		return api.Counters{}, err
	}
	var c api.Counters
	if err := json.Unmarshal([]byte(text), &c); err != nil {
		return c, cloudpal.E("read an epoch's last counters", cloudpal.Corrupt, err)
	}
	return c, nil
}

func (m *Mint) count(ctx context.Context, e ticket.Epoch) (api.Counters, error) {
	keys, err := m.epochKeys(ctx, e)
	if err != nil {
		return api.Counters{}, err
	}
	now := m.Now().UTC().Truncate(time.Hour)
	c := api.Counters{Issuer: m.Issuer, Epoch: e, Time: now, Signed: ticket.EpochAt(now), Keys: []api.KeyCounter{}}
	for _, k := range keys {
		counted, err := m.countKey(ctx, k.ID())
		if err != nil {
			return api.Counters{}, err
		}
		c.Keys = append(c.Keys, counted)
	}
	key, err := m.Receipt(c.Signed)
	if err != nil {
		return api.Counters{}, err
	}
	c.Signature = ed25519.Sign(key, c.Text())
	return c, nil
}

func (m *Mint) countKey(ctx context.Context, id ticket.KeyID) (api.KeyCounter, error) {
	c := api.KeyCounter{Key: id[:], Hours: []api.Hour{}}
	hours, err := m.Books.Hours(ctx, id)
	if err != nil {
		return c, err
	}
	for _, h := range hours {
		if !m.closed(h.Hour, 0) {
			continue
		}
		v := api.Hour{Hour: h.Hour, Issued: h.Issued, Redeemed: h.Redeemed, Refunded: h.Refunded}
		if v.Outputs, err = m.root(ctx, root{id, api.LeafOutputs, h.Hour}); err != nil {
			return c, err
		}
		if m.closed(h.Hour, spentAfter) {
			if v.Spent, err = m.root(ctx, root{id, api.LeafSpent, h.Hour}); err != nil {
				return c, err
			}
			if v.Deposits, err = m.root(ctx, root{id, api.LeafDeposits, h.Hour}); err != nil {
				return c, err
			}
		}
		c.Hours = append(c.Hours, v)
		c.Issued, c.Redeemed, c.Refunded = c.Issued+h.Issued, c.Redeemed+h.Redeemed, c.Refunded+h.Refunded
	}
	return c, nil
}

// closed reports whether an hour is over, and as much later.
func (m *Mint) closed(hour int64, later time.Duration) bool {
	return !m.Now().Before(time.Unix((hour+1)*3600, 0).Add(closeAfter + later))
}

func (m *Mint) root(ctx context.Context, r root) ([]byte, error) {
	m.mu.Lock()
	sum, ok := m.final[r]
	m.mu.Unlock()
	if ok {
		return sum[:], nil
	}
	leaves, err := m.leaves(ctx, r)
	if err != nil {
		return nil, err
	}
	sum = api.Root(leaves)
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.final) >= maxRoots {
		clear(m.final)
	}
	m.final[r] = sum
	return sum[:], nil
}

func (m *Mint) leaves(ctx context.Context, r root) ([][32]byte, error) {
	switch r.kind {
	case api.LeafSpent:
		return m.Books.Spent(ctx, r.key, r.hour)
	case api.LeafDeposits:
		return m.deposits(ctx, r.key, r.hour)
	}
	return m.Books.Outputs(ctx, r.key, r.hour)
}

// deposits returns the leaves of what was deposited under a key in an hour, sorted.
func (m *Mint) deposits(ctx context.Context, id ticket.KeyID, hour int64) ([][32]byte, error) {
	list, err := m.Books.DepositsIn(ctx, id, hour)
	leaves := make([][32]byte, 0, len(list))
	for _, d := range list {
		leaves = append(leaves, receiptOf(d).Leaf())
	}
	slices.SortFunc(leaves, func(a, b [32]byte) int { return bytes.Compare(a[:], b[:]) })
	return leaves, err
}

// Leaves returns what an hour's root is over, when the root is published.
func (m *Mint) Leaves(ctx context.Context, id ticket.KeyID, kind api.Kind, hour int64) ([][32]byte, error) {
	var later time.Duration
	switch kind {
	case api.LeafOutputs:
	case api.LeafSpent, api.LeafDeposits:
		later = spentAfter
	default:
		return nil, refuse(cloudpal.NotExist, "leaves are outputs, spent or deposits")
	}
	if hour < 0 || hour > m.hour() || !m.closed(hour, later) {
		return nil, refuse(cloudpal.NotExist, "the hour is not closed yet")
	}
	return m.leaves(ctx, root{id, kind, hour})
}

// Centers returns the directory.
func (m *Mint) Centers(ctx context.Context) (api.Directory, error) {
	list, err := m.Books.Centers(ctx)
	if err != nil {
		return api.Directory{}, err
	}
	now := m.Now().UTC().Truncate(time.Second)
	d := api.Directory{Time: now, Epoch: ticket.EpochAt(now), Centers: []api.Center{}}
	for _, c := range list {
		d.Centers = append(d.Centers, api.Center{ID: c.ID[:], Name: c.Name, URL: c.URL})
	}
	key, err := m.Receipt(d.Epoch)
	if err != nil {
		return api.Directory{}, err
	}
	d.Signature = ed25519.Sign(key, d.Text())
	return d, nil
}

// Dropper is a Signer that can destroy the keys of an epoch.
type Dropper interface {
	Drop(context.Context, ticket.Epoch) error
}

// chores are what a mint does by itself: it completes what it was killed in the middle
// of, asks for payments whose webhooks did not come, settles disputes that nobody
// answered, and drops epochs that are over. They can be cut off at any point.
func (m *Mint) chores(ctx context.Context) error {
	m.working.Lock()
	defer m.working.Unlock()
	return errors.Join(m.completeAll(ctx), m.collect(ctx), m.overdue(ctx), m.drop(ctx))
}

const maxChores = 200 // of a kind, at a time

func (m *Mint) collect(ctx context.Context) error {
	list, err := m.Books.Waiting(ctx, m.Now().Add(-lateTime), maxChores)
	for _, q := range list {
		if m.mayPoll(q.ID) {
			err = errors.Join(err, m.poll(ctx, q))
		}
	}
	return err
}

func (m *Mint) overdue(ctx context.Context) error {
	list, err := m.Books.Overdue(ctx, m.Now(), maxChores)
	for _, d := range list {
		blank, failed := m.unpack(ctx, d.Outputs)
		if failed == nil {
			_, failed = m.settle(ctx, d, d.Record, d.Units, blank)
		}
		err = errors.Join(err, failed)
	}
	return err
}

// drop forgets epochs whose tickets are worth nothing any more: what is outstanding is
// written off first. What the books did not have yet is completed before, and its hour
// counted.
func (m *Mint) drop(ctx context.Context) error {
	for back := range ticket.Epoch(3) {
		now := ticket.EpochAt(m.Now())
		if now < epochsBack+back {
			return nil
		}
		e := now - epochsBack - back
		keys, err := m.epochKeys(ctx, e)
		if errors.Is(err, cloudpal.NotExist) {
			continue
		}
		if err != nil || m.Now().Before(e.SwapEnds()) {
			return err
		}
		if m.gone[e] {
			continue
		}
		if counted, err := m.counted(ctx, e, keys); err != nil {
			return err
		} else if !counted {
			continue
		}
		if err := m.dropEpoch(ctx, e, keys); err != nil {
			return err
		}
		m.gone[e] = true
	}
	return nil
}

// counted reports whether all that was done in an epoch that is over is in the books,
// and in the counters, so that these are the last. What is not in the books yet it
// completes.
func (m *Mint) counted(ctx context.Context, e ticket.Epoch, keys []*ticket.Key) (bool, error) {
	for _, k := range keys {
		last, err := m.Books.LastHour(ctx, k.ID())
		if err != nil || !m.closed(last, spentAfter) {
			return false, err
		}
	}
	completed, err := m.complete(ctx, e)
	return completed == 0, err
}

func (m *Mint) dropEpoch(ctx context.Context, e ticket.Epoch, keys []*ticket.Key) error {
	last, err := m.Counters(ctx, e)
	if err != nil {
		return err
	}
	text, err := json.Marshal(last)
	if err != nil {
		return err
	}
	if err := m.Books.Finish(ctx, e, string(text)); err != nil {
		return err
	}
	if err := m.Books.Expire(ctx, keys, m.hour()); err != nil {
		return err
	}
	if err := m.Ledger.Drop(ctx, e); err != nil {
		return err
	}
	if d, ok := m.Signer.(Dropper); ok {
		return d.Drop(ctx, e)
	}
	return nil
}
