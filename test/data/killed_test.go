package data_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/tradle/cloudpal/data/corestore"
	"github.com/tradle/cloudpal/data/hyperbee"
	"github.com/tradle/cloudpal/data/hyperdrive"
)

func TestMain(m *testing.M) {
	if scenario := os.Getenv("CLOUDPAL_KILLED"); scenario != "" {
		if err := live(scenario); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// A writer is the process that is killed.
type writer struct {
	*corestore.Store
	seed uint64

	mu  sync.Mutex
	out *json.Encoder
}

// live is the short life of the process.
func live(scenario string) error {
	seed, err := strconv.ParseUint(os.Getenv("CLOUDPAL_SEED"), 10, 64)
	if err != nil {
		return err
	}
	s, err := corestore.Open(os.Getenv("CLOUDPAL_DIR"), corestore.Options{})
	if err != nil {
		return err
	}
	w := &writer{Store: s, seed: seed, out: json.NewEncoder(os.Stdout)}
	w.say(word{Ready: true})
	if scenario == "replicate" {
		return w.replicate(os.Getenv("CLOUDPAL_EXTRA"))
	}
	k := kinds[scenario]
	var lanes sync.WaitGroup
	for lane := range k.lanes {
		lanes.Go(func() { k.write(w, lane) })
	}
	lanes.Wait()
	return errors.New("it should go on until it is killed")
}

func (w *writer) say(what word) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.must(w.out.Encode(what))
}

func (w *writer) must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// next tells of a step before it is done.
func (w *writer) next(s step) { w.say(word{Step: &s}) }

// sync tells that it has returned.
func (w *writer) sync(lane int, sync func() error) {
	w.must(sync())
	w.say(word{Synced: &lane})
}

func (w *writer) rand(lane int) *rand.Rand { return rand.New(rand.NewPCG(w.seed, uint64(lane))) }

func laneName(lane int) string { return fmt.Sprint("lane ", lane) }

// writeLog appends, truncates and clears.
func writeLog(w *writer, lane int) {
	rng := w.rand(lane)
	c, err := w.Get(laneName(lane))
	w.must(err)
	for {
		n := c.Length()
		s := step{Lane: lane, Seed: rng.Uint64() | 1}
		switch p := rng.IntN(100); {
		case p < 20:
			w.sync(lane, c.Sync)
			continue
		case p < 28 && n > 0:
			s.Do, s.At = "truncate", n-rng.Uint64N(n/2+1)
			if rng.IntN(10) == 0 {
				s.At = 0
			}
			if s.At == n {
				continue
			}
			w.next(s)
			w.must(c.Truncate(s.At))
		case p < 33 && n > 0:
			s.Do, s.At = "clear", rng.Uint64N(n)
			s.N = min(n-s.At, 1+rng.Uint64N(8))
			w.next(s)
			w.must(c.Clear(s.At, s.At+s.N))
		default:
			s.Do, s.N = "append", 1
			if rng.IntN(3) == 0 {
				s.N = 1 + rng.Uint64N(40)
			}
			w.next(s)
			var blocks [][]byte
			for i := range s.N {
				blocks = append(blocks, content(s.Seed+i))
			}
			_, err := c.Append(blocks...)
			w.must(err)
		}
	}
}

// A logModel is what a log must hold: the numbers of which its blocks are made,
// 0 where one is cleared.
type logModel struct {
	fork uint64
	ids  []uint64
}

func (m *logModel) clone() model { return &logModel{m.fork, slices.Clone(m.ids)} }

func (m *logModel) apply(s step) {
	switch s.Do {
	case "append":
		for i := range s.N {
			m.ids = append(m.ids, s.Seed+i)
		}
	case "truncate":
		m.fork++
		m.ids = m.ids[:s.At]
	case "clear":
		clear(m.ids[s.At : s.At+s.N])
	}
}

func (m *logModel) check(s *corestore.Store, lane int) error {
	c, err := s.Get(laneName(lane))
	if err != nil {
		return err
	}
	defer c.Close()
	if c.Length() != uint64(len(m.ids)) || c.Fork() != m.fork {
		return fmt.Errorf("length %d on fork %d, want %d on %d", c.Length(), c.Fork(), len(m.ids), m.fork)
	}
	for i, id := range m.ids {
		if c.Has(uint64(i)) != (id != 0) {
			return fmt.Errorf("block %d is there: %v", i, c.Has(uint64(i)))
		}
		if id == 0 {
			continue
		}
		b, err := c.Local(uint64(i))
		if err != nil || !bytes.Equal(b, content(id)) {
			return fmt.Errorf("block %d is another (%v)", i, err)
		}
	}
	return intact(c)
}

// beeKey is one of not too many.
func beeKey(rng *rand.Rand) string { return fmt.Sprint("key ", rng.IntN(400)) }

// writeBee puts, deletes and does batches.
func writeBee(w *writer, lane int) {
	rng := w.rand(lane)
	ctx := context.Background()
	c, err := w.Get(laneName(lane))
	w.must(err)
	bee := hyperbee.New(c, hyperbee.Options{})
	for {
		s := step{Lane: lane, Seed: rng.Uint64() | 1}
		if rng.IntN(5) == 0 {
			w.sync(lane, c.Sync)
			continue
		}
		s.Do, s.N = "change", 1
		if rng.IntN(3) == 0 {
			s.Do, s.N = "batch", 1+rng.Uint64N(60)
		}
		w.next(s)
		all := s.changes()
		if s.Do == "change" {
			w.must(applyTo(ctx, bee, all[0]))
			continue
		}
		b := bee.Batch()
		for _, c := range all {
			w.must(applyTo(ctx, b, c))
		}
		w.must(b.Flush())
		b.Close()
	}
}

// changes are those of a step.
func (s step) changes() (all []change) {
	rng := rand.New(rand.NewPCG(s.Seed, 3))
	for range s.N {
		c := change{key: beeKey(rng)}
		if rng.IntN(4) > 0 {
			c.value = append([]byte{1}, content(rng.Uint64())...)
			c.value = c.value[:min(len(c.value), 500)]
		}
		all = append(all, c)
	}
	return all
}

// changeable is a bee, or a batch of one.
type changeable interface {
	Put(ctx context.Context, key, value []byte) error
	Delete(ctx context.Context, key []byte) error
}

func applyTo(ctx context.Context, b changeable, c change) error {
	if c.value == nil {
		return b.Delete(ctx, []byte(c.key))
	}
	return b.Put(ctx, []byte(c.key), c.value)
}

type beeModel struct{ entries map[string]string }

func (m *beeModel) clone() model { return &beeModel{maps.Clone(m.entries)} }

func (m *beeModel) apply(s step) {
	if m.entries == nil {
		m.entries = map[string]string{}
	}
	apply(m.entries, s.changes())
}

func (m *beeModel) check(s *corestore.Store, lane int) error {
	c, err := s.Get(laneName(lane))
	if err != nil {
		return err
	}
	defer c.Close()
	got := map[string]string{}
	for e, err := range hyperbee.New(c, hyperbee.Options{}).Range(context.Background(), hyperbee.Range{}) {
		if err != nil {
			return err
		}
		got[string(e.Key)] = string(e.Value)
	}
	if !maps.Equal(got, m.entries) {
		return fmt.Errorf("%d entries that are not the %d wanted", len(got), len(m.entries))
	}
	return intact(c)
}

// writeDrive writes, removes and links files.
func writeDrive(w *writer, lane int) {
	rng := w.rand(lane)
	ctx := context.Background()
	d, err := hyperdrive.New(w.Store, hyperdrive.Options{})
	w.must(err)
	for {
		s := step{Lane: lane, Seed: rng.Uint64() | 1, At: rng.Uint64N(60)}
		switch p := rng.IntN(10); {
		case p < 2:
			w.sync(lane, d.Sync)
			continue
		case p < 4:
			s.Do = "remove"
			w.next(s)
			w.must(d.Delete(ctx, fileName(s.At)))
		case p < 5:
			s.Do = "link"
			w.next(s)
			w.must(d.Symlink(ctx, fileName(s.At), fileName(s.Seed%60)))
		default:
			s.Do = "put"
			w.next(s)
			w.must(d.Put(ctx, fileName(s.At), content(s.Seed), hyperdrive.Attr{}))
		}
	}
}

func fileName(n uint64) string { return fmt.Sprintf("/folder %d/file %d", n%4, n) }

// A driveModel has what each file holds: a text, or with an arrow before it
// where it links to.
type driveModel struct{ files map[string]string }

func (m *driveModel) clone() model { return &driveModel{maps.Clone(m.files)} }

func (m *driveModel) apply(s step) {
	if m.files == nil {
		m.files = map[string]string{}
	}
	switch s.Do {
	case "put":
		m.files[fileName(s.At)] = string(content(s.Seed))
	case "remove":
		delete(m.files, fileName(s.At))
	case "link":
		m.files[fileName(s.At)] = "-> " + fileName(s.Seed%60)
	}
}

func (m *driveModel) check(s *corestore.Store, _ int) error {
	ctx := context.Background()
	d, err := hyperdrive.New(s, hyperdrive.Options{})
	if err != nil {
		return err
	}
	defer d.Close()
	got := map[string]string{}
	for e, err := range d.List(ctx, "/") {
		if err != nil {
			return err
		}
		if e.IsLink() {
			got[e.Name] = "-> " + e.Linkname
			continue
		}
		b, err := d.Get(ctx, e.Name)
		if err != nil {
			return err
		}
		got[e.Name] = string(b)
	}
	if !maps.Equal(got, m.files) {
		return fmt.Errorf("%d files that are not the %d wanted", len(got), len(m.files))
	}
	content, err := d.Content(ctx)
	if err != nil {
		return err
	}
	return errors.Join(intact(d.Database()), intact(content))
}
