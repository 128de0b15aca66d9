package hypercore

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/tradle/cloudpal"
)

// A Fetcher gets what is not here from peers. Package protocol has one. All
// methods may be called at the same time, and end with an error when ctx does.
type Fetcher interface {
	// Fetch returns when the block is here.
	Fetch(ctx context.Context, index uint64) error
	// Seek returns when the nodes are here that tell which block has the byte
	// at an offset; of each block padding bytes do not count.
	Seek(ctx context.Context, bytes, padding uint64) error
	// Update returns when the log is as long as that of the peers that are
	// connected, or none is longer.
	Update(ctx context.Context) error
	// Download returns when all blocks from start up to end are here; an end of
	// math.MaxUint64 is that of the log, wherever it gets to.
	Download(ctx context.Context, start, end uint64) error
}

// SetFetcher says who gets what is not here; nil is nobody. Readers that wait
// already are told.
func (c *Core) SetFetcher(f Fetcher) { c.log.waiting.setFetcher(f) }

// waiters are the readers that wait.
type waiters struct {
	mu      sync.Mutex
	fetcher Fetcher
	changed chan struct{} // closed when another fetcher is set; nil where nobody asked
	blocks  map[uint64]map[*waiter]struct{}
}

// A waiter waits for one block.
type waiter struct {
	index uint64
	wake  context.CancelFunc // ends its fetch: the block is here
}

func (w *waiters) setFetcher(f Fetcher) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fetcher = f
	if w.changed != nil {
		close(w.changed)
		w.changed = nil
	}
}

// current returns the fetcher, and what is closed when there is another.
func (w *waiters) current() (Fetcher, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.changed == nil {
		w.changed = make(chan struct{})
	}
	return w.fetcher, w.changed
}

func (w *waiters) add(index uint64, wake context.CancelFunc) *waiter {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.blocks == nil {
		w.blocks = map[uint64]map[*waiter]struct{}{}
	}
	if w.blocks[index] == nil {
		w.blocks[index] = map[*waiter]struct{}{}
	}
	a := &waiter{index, wake}
	w.blocks[index][a] = struct{}{}
	return a
}

func (w *waiters) remove(a *waiter) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.blocks[a.index], a)
	if len(w.blocks[a.index]) == 0 {
		delete(w.blocks, a.index)
	}
}

// arrived wakes who waits for a block from start up to end.
func (w *waiters) arrived(start, end uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if end-start > uint64(len(w.blocks)) {
		for i, set := range w.blocks {
			if start <= i && i < end {
				wakeAll(set)
			}
		}
		return
	}
	for i := start; i < end; i++ {
		wakeAll(w.blocks[i])
	}
}

func wakeAll(set map[*waiter]struct{}) {
	for a := range set {
		a.wake()
	}
}

// wait returns a block that was not here, when it is.
func (c *Core) wait(ctx context.Context, index uint64) ([]byte, error) {
	for {
		block, err := c.waitOnce(ctx, index)
		if err != errAgain {
			return block, err
		}
	}
}

var errAgain = errors.New("look again")

// waitOnce waits until the block is here, or the fetcher is another.
func (c *Core) waitOnce(ctx context.Context, index uint64) ([]byte, error) {
	w := &c.log.waiting
	fetching, wake := context.WithCancel(ctx)
	defer wake()
	a := w.add(index, wake)
	defer w.remove(a)
	// From here on an arrival is not missed; it may have come before.
	if block, err := c.AppendBlock(nil, index); err == nil || !errors.Is(err, cloudpal.NotExist) {
		return block, err
	}
	fetcher, changed := w.current()
	err := await(fetching, wake, changed, fetcher, func(ctx context.Context) error { return fetcher.Fetch(ctx, index) })
	if block, err := c.AppendBlock(nil, index); err == nil || !errors.Is(err, cloudpal.NotExist) {
		return block, err
	}
	op := fmt.Sprintf("get block %d", index)
	if ctx.Err() != nil {
		return nil, ended(op, ctx)
	}
	if err != nil && fetching.Err() == nil {
		return nil, cloudpal.E(op, "", err)
	}
	return nil, errAgain
}

// await runs fetch, or waits where there is no fetcher, until ctx ends or there
// is another one.
func await(ctx context.Context, cancel context.CancelFunc, changed <-chan struct{}, f Fetcher, fetch func(context.Context) error) error {
	if f == nil {
		select {
		case <-ctx.Done():
		case <-changed:
			cancel()
		}
		return nil
	}
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-changed:
			cancel()
		case <-done:
		}
	}()
	return fetch(ctx)
}

// ended makes an error of a context that has.
func ended(op string, ctx context.Context) error {
	return cloudpal.E(op, cloudpal.Timeout, ctx.Err())
}

// fetch runs what needs a fetcher, and waits for one.
func (c *Core) fetch(ctx context.Context, run func(context.Context, Fetcher) error) error {
	for {
		f, changed := c.log.waiting.current()
		fetching, cancel := context.WithCancel(ctx)
		err := await(fetching, cancel, changed, f, func(ctx context.Context) error { return run(ctx, f) })
		replaced := fetching.Err() != nil
		cancel()
		switch {
		case ctx.Err() != nil:
			return ended("", ctx)
		case f != nil && (err == nil || !replaced):
			return err
		}
	}
}

// Update asks the peers that are connected whether the log is longer, and
// returns whether it has become so. Without a Fetcher it has not.
func (c *Core) Update(ctx context.Context) (bool, error) {
	if err := c.check("update"); err != nil {
		return false, err
	}
	f, _ := c.log.waiting.current()
	if f == nil || c.snap != nil {
		return false, nil
	}
	fork, length := c.Fork(), c.Length()
	if err := f.Update(ctx); err != nil {
		return false, cloudpal.E("update", "", err)
	}
	return c.Length() != length || c.Fork() != fork, nil
}

// Download returns when all blocks of a range are here, for which it may wait
// for peers until ctx ends. An End of 0 is the length that the log has now.
func (c *Core) Download(ctx context.Context, r Range) error {
	if err := c.check("download"); err != nil {
		return err
	}
	start, end := r.Start, r.End
	if r.Live {
		end = ^uint64(0)
	} else if end == 0 {
		end = c.Length()
	}
	if !r.Live && c.HasAll(start, end) {
		return nil
	}
	err := c.fetch(ctx, func(ctx context.Context, f Fetcher) error { return f.Download(ctx, start, end) })
	if err != nil {
		return cloudpal.E("download", "", err)
	}
	return nil
}
