package ledger

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"sync"
	"testing"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

const epoch = ticket.Epoch(82)

func row(n, tag int) Row {
	r := Row{Serial: serial(n), Evidence: fmt.Appendf(nil, "%d for %d", n, tag)}
	binary.LittleEndian.PutUint32(r.Tag[:], uint32(tag))
	return r
}

func tagOf(r Row) int { return int(binary.LittleEndian.Uint32(r.Tag[:])) }

func serial(n int) Serial {
	r := rand.New(rand.NewPCG(uint64(n), 7))
	var s Serial
	for i := range s {
		s[i] = byte(r.Uint32())
	}
	return s
}

func spend(t *testing.T, l Ledger, rows ...Row) []Row {
	t.Helper()
	there, err := l.Spend(t.Context(), epoch, rows)
	if err != nil {
		t.Fatal(err)
	}
	return there
}

// suite is what every ledger must do. open opens the same one again after Close.
func suite(t *testing.T, open func(t *testing.T) Ledger) {
	t.Run("the first counts", func(t *testing.T) {
		l := open(t)
		want := []Row{row(1, 1)}
		for range 3 {
			if got := spend(t, l, row(1, 1)); !reflect.DeepEqual(got, want) {
				t.Errorf("got %v, want %v", got, want)
			}
		}
		if got := spend(t, l, row(1, 2), row(2, 2), row(2, 3)); !reflect.DeepEqual(got, []Row{row(1, 1), row(2, 2), row(2, 2)}) {
			t.Errorf("got %v", got)
		}
		got, err := l.Look(t.Context(), epoch, []Serial{serial(1), serial(99), serial(2)})
		if err != nil || !reflect.DeepEqual(got, []Row{row(1, 1), {}, row(2, 2)}) {
			t.Errorf("there are %v, %v", got, err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l = open(t)
		if got := spend(t, l, row(1, 5), row(2, 5)); !reflect.DeepEqual(got, []Row{row(1, 1), row(2, 2)}) {
			t.Errorf("opened again, there are %v", got)
		}
		// Another epoch is another set.
		if got, err := l.Spend(t.Context(), epoch+1, []Row{row(1, 5)}); err != nil || !reflect.DeepEqual(got, []Row{row(1, 5)}) {
			t.Errorf("got %v, %v", got, err)
		}
	})
	t.Run("one of many wins", func(t *testing.T) {
		l := open(t)
		const clients, tickets = 16, 40
		var mu sync.Mutex
		won := map[Serial]map[ticket.Tag]bool{}
		var all sync.WaitGroup
		for c := range clients {
			all.Go(func() {
				for _, n := range rand.Perm(tickets) {
					rows := []Row{row(1000+n, c), row(1000+(n+1)%tickets, c)}
					there, err := l.Spend(t.Context(), epoch, rows)
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					for _, r := range there {
						if won[r.Serial] == nil {
							won[r.Serial] = map[ticket.Tag]bool{}
						}
						won[r.Serial][r.Tag] = true
					}
					mu.Unlock()
				}
			})
		}
		all.Wait()
		for s, tags := range won {
			if len(tags) != 1 {
				t.Errorf("%x is spent for %v", s, tags)
			}
		}
		if len(won) != tickets {
			t.Errorf("%d tickets were spent, want %d", len(won), tickets)
		}
	})
	t.Run("one of many wins, and all are told who", func(t *testing.T) {
		l := open(t)
		const clients = 24
		for n := range 30 {
			won := make([]int, clients)
			var all sync.WaitGroup
			for c := range clients {
				all.Go(func() {
					there, err := l.Spend(t.Context(), epoch, []Row{row(2000+n, c+1)})
					if err != nil {
						t.Error(err)
						return
					}
					won[c] = tagOf(there[0])
				})
			}
			all.Wait()
			there, err := l.Look(t.Context(), epoch, []Serial{serial(2000 + n)})
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(there[0], row(2000+n, won[0])) || len(slices.Compact(won)) != 1 {
				t.Fatalf("ticket %d: they are told %v, and there is %v", n, won, there[0])
			}
		}
	})
	t.Run("evidence", func(t *testing.T) {
		l := open(t)
		most := Row{Serial: serial(3000), Tag: ticket.Tag{1}, Evidence: bytes.Repeat([]byte{0, 0xff}, MaxEvidence/2)}
		bare := Row{Serial: serial(3001), Tag: ticket.Tag{2}}
		empty := Row{Serial: serial(3002), Tag: ticket.Tag{3}, Evidence: []byte{}}
		zero := Row{Tag: ticket.Tag{4}}
		rows := []Row{most, bare, empty, zero}
		for range 2 {
			for i, got := range spend(t, l, rows...) {
				if got.Tag != rows[i].Tag || !bytes.Equal(got.Evidence, rows[i].Evidence) {
					t.Errorf("row %d: got %v", i, got)
				}
			}
			l.Close()
			l = open(t)
		}
	})
	t.Run("as many as can be", func(t *testing.T) {
		l := open(t)
		rows, serials := make([]Row, maxRows), make([]Serial, maxRows)
		for n := range rows {
			rows[n] = row(10_000+n/2, n+1) // each twice
			serials[n] = rows[n].Serial
		}
		first := spend(t, l, rows...)
		again, err := l.Look(t.Context(), epoch, serials)
		if err != nil || !reflect.DeepEqual(first, again) {
			t.Errorf("another look finds others, %v", err)
		}
		for n, r := range first {
			if tagOf(r) != n/2*2+1 {
				t.Fatalf("ticket %d is spent for %d", n/2, tagOf(r))
			}
		}
	})
	t.Run("all are walked", func(t *testing.T) {
		l := open(t)
		const own = ticket.Epoch(90)
		if err := l.Walk(t.Context(), own, func([]Row) error { return errors.New("of none there are some") }); err != nil {
			t.Error(err)
		}
		want := []Row{{Tag: ticket.Tag{1}, Evidence: []byte("the lowest")}, {Serial: Serial(bytes.Repeat([]byte{0xff}, 16)), Tag: ticket.Tag{2}}}
		for n := range 2*walkRows + 5 {
			want = append(want, row(n, n))
		}
		if _, err := l.Spend(t.Context(), own, want); err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(want, func(a, b Row) int { return bytes.Compare(a.Serial[:], b.Serial[:]) })
		var got []Row
		if err := l.Walk(t.Context(), own, func(rows []Row) error {
			got = append(got, rows...)
			_, err := l.Spend(t.Context(), own, rows) // it can be used meanwhile
			return err
		}); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%d rows came (%v), want %d, the least first", len(got), err, len(want))
		}
		enough := errors.New("enough")
		if err := l.Walk(t.Context(), own, func([]Row) error { return enough }); !errors.Is(err, enough) {
			t.Errorf("got %v, want %v", err, enough)
		}
	})
	t.Run("dropped while it is used", func(t *testing.T) {
		l := open(t)
		const old = ticket.Epoch(30)
		var all sync.WaitGroup
		begun := make(chan struct{}, 100)
		for c := range 8 {
			all.Go(func() {
				for n := 0; ; n++ {
					there, err := l.Spend(t.Context(), old, []Row{row(c, c), row(n%50, c)})
					if errors.Is(err, cloudpal.Exhausted) {
						return
					}
					if err != nil || len(there) != 2 || there[0].Serial != serial(c) {
						t.Errorf("got %v, %v", there, err)
						return
					}
					select {
					case begun <- struct{}{}:
					default:
					}
				}
			})
		}
		for range cap(begun) {
			<-begun
		}
		if err := l.Drop(t.Context(), old); err != nil {
			t.Error(err)
		}
		if _, err := l.Look(t.Context(), old, []Serial{serial(1)}); !errors.Is(err, cloudpal.Exhausted) {
			t.Errorf("got %v, want %v", err, cloudpal.Exhausted)
		}
		if err := l.Walk(t.Context(), old, func([]Row) error { return nil }); !errors.Is(err, cloudpal.Exhausted) {
			t.Errorf("got %v, want %v", err, cloudpal.Exhausted)
		}
		all.Wait()
	})
	t.Run("closed", func(t *testing.T) {
		l := open(t)
		for range 2 {
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
		}
		_, spent := l.Spend(t.Context(), epoch, []Row{row(1, 1)})
		_, looked := l.Look(t.Context(), epoch, []Serial{serial(1)})
		walked := l.Walk(t.Context(), epoch, func([]Row) error { return nil })
		for _, err := range []error{spent, looked, walked, l.Drop(t.Context(), 40)} {
			if !errors.Is(err, cloudpal.Missing) {
				t.Errorf("got %v, want %v", err, cloudpal.Missing)
			}
		}
	})
	t.Run("what is dropped stays so", func(t *testing.T) {
		l := open(t)
		for _, e := range []ticket.Epoch{50, 51, 52} {
			if _, err := l.Spend(t.Context(), e, []Row{row(1, 1)}); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Drop(t.Context(), 51); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			for _, e := range []ticket.Epoch{0, 50, 51} {
				if _, err := l.Spend(t.Context(), e, []Row{row(1, 2)}); !errors.Is(err, cloudpal.Exhausted) {
					t.Errorf("epoch %d: got %v, want %v", e, err, cloudpal.Exhausted)
				}
			}
			if got, err := l.Spend(t.Context(), 52, []Row{row(1, 2)}); err != nil || got[0].Tag != row(1, 1).Tag {
				t.Errorf("epoch 52: got %v, %v", got, err)
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			l = open(t)
		}
		if err := l.Drop(t.Context(), 40); err != nil {
			t.Errorf("what is dropped already is dropped again: %v", err)
		}
		if _, err := l.Spend(t.Context(), 45, nil); !errors.Is(err, cloudpal.Exhausted) {
			t.Errorf("epoch 45 is back: %v", err)
		}
	})
	t.Run("too much", func(t *testing.T) {
		l := open(t)
		if _, err := l.Spend(t.Context(), epoch, make([]Row, maxRows+1)); !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("rows: got %v, want %v", err, cloudpal.Invalid)
		}
		if _, err := l.Spend(t.Context(), epoch, []Row{{Evidence: make([]byte, MaxEvidence+1)}}); !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("evidence: got %v, want %v", err, cloudpal.Invalid)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := l.Spend(ctx, epoch, []Row{row(3, 3)}); err == nil {
			t.Error("it goes on for who has gone away")
		}
		if got := spend(t, l); len(got) != 0 {
			t.Errorf("of nothing: got %v", got)
		}
	})
}
