package meter

import (
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A world is a VM, its agent, and the truth about both.
type world struct {
	t    *testing.T
	rand *rand.Rand
	path string
	log  *Log

	now    time.Time
	epoch  int // 0: there is no process
	epochs int
	raw    Raw
	awake  bool
	truth  Counters
}

// TestAccountLosesAndDoublesNothing lets an agent sample, be killed while it
// writes, and start again in any order while processes come and go.
func TestAccountLosesAndDoublesNothing(t *testing.T) {
	t.Parallel()
	for seed := range uint64(150) {
		w := &world{t: t, rand: rand.New(rand.NewPCG(seed, 1)), now: start, path: filepath.Join(t.TempDir(), "usage")}
		w.log = open(t, w.path)
		w.sample()
		for range 100 {
			w.step()
		}
		w.sample()
		if got := w.log.Last().Total; got != w.truth {
			t.Fatalf("seed %d: the record says %+v, want %+v", seed, got, w.truth)
		}
		w.verify()
	}
}

func (w *world) step() {
	switch w.rand.IntN(8) {
	case 0:
		w.restart()
	case 1:
		w.sampleTorn()
	case 2:
		w.sample()
		w.end()
	case 3:
		w.sample()
		w.begin()
	case 4:
		w.sample()
	default:
		w.use()
	}
}

// use lets time pass and, if there is a process, lets it use things.
func (w *world) use() {
	took := time.Duration(w.rand.IntN(5000)) * time.Millisecond
	w.now = w.now.Add(took)
	w.truth.MemoryTime += w.memory() >> 20 * took.Milliseconds()
	if !w.awake {
		w.truth.Asleep += took
		return
	}
	w.truth.Awake += took
	n := func() int64 { return w.rand.Int64N(1 << 30) }
	d := Raw{CPU: time.Duration(n()), DiskRead: n(), DiskWrite: n(), NetIn: n(), NetOut: n()}
	w.raw = Raw{
		CPU: w.raw.CPU + d.CPU, DiskRead: w.raw.DiskRead + d.DiskRead, DiskWrite: w.raw.DiskWrite + d.DiskWrite,
		NetIn: w.raw.NetIn + d.NetIn, NetOut: w.raw.NetOut + d.NetOut,
	}
	w.truth = w.truth.Add(Counters{
		CPU: d.CPU, DiskRead: d.DiskRead, DiskWrite: d.DiskWrite, NetIn: d.NetIn, NetOut: d.NetOut,
	})
}

func (w *world) memory() int64 {
	if w.awake {
		return 128 << 20
	}
	return 14 << 20
}

func (w *world) begin() {
	w.epochs++
	w.epoch, w.raw, w.awake = w.epochs, Raw{}, true
}

func (w *world) was() State {
	if w.awake {
		return Awake
	}
	return Asleep
}

func (w *world) end() { w.epoch, w.raw, w.awake = 0, Raw{}, false }

func (w *world) sample() {
	w.t.Helper()
	epoch := ""
	if w.epoch > 0 {
		epoch = string(rune('a' + w.epoch))
	}
	total := Account(w.log.Last(), epoch, w.raw, w.now, w.was(), w.memory())
	if _, err := w.log.Append(Record{Time: w.now, Epoch: epoch, Raw: w.raw, Total: total}); err != nil {
		w.t.Fatal(err)
	}
}

// sampleTorn is a sample whose agent is killed in the middle of the write.
func (w *world) sampleTorn() {
	w.t.Helper()
	before := w.log.size
	w.sample()
	w.log.Close()
	cut := before + w.rand.Int64N(w.log.size-before)
	if err := os.Truncate(w.path, cut); err != nil {
		w.t.Fatal(err)
	}
	w.log = open(w.t, w.path)
	if w.log.size != before {
		w.t.Fatalf("a line torn at byte %d leaves %d bytes, want %d", cut, w.log.size, before)
	}
}

func (w *world) restart() {
	w.t.Helper()
	w.log.Close()
	w.log = open(w.t, w.path)
}

func (w *world) verify() {
	w.t.Helper()
	s := verified(w.t, w.path)
	if s.Total != w.truth || !s.FromStart {
		w.t.Fatalf("verify finds %+v, want totals %+v", s, w.truth)
	}
	w.log.Close()
}

func TestAccountWhenClocksAndCountersGoBack(t *testing.T) {
	t.Parallel()
	last := Record{
		Time: start, Epoch: "a", Raw: Raw{CPU: 10, DiskRead: 20, DiskWrite: 30, NetIn: 40, NetOut: 50},
		Total: Counters{CPU: 100, Awake: time.Hour, Asleep: time.Minute, MemoryTime: 7, Wakes: 3},
	}
	got := Account(last, "a", Raw{CPU: 9, DiskRead: 25}, start.Add(-time.Hour), Awake, 1<<30)
	want := last.Total
	want.DiskRead += 5
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestAccountWithoutLastCountsNoTime(t *testing.T) {
	t.Parallel()
	got := Account(Record{}, "a", Raw{CPU: 5}, start, Awake, 1<<30)
	if want := (Counters{CPU: 5}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestMemoryTimeOfHugeNumbers(t *testing.T) {
	t.Parallel()
	year := 365 * 24 * time.Hour
	if got, want := memoryTime(64<<30, 10*year), int64(64<<10)*10*year.Milliseconds(); got != want {
		t.Errorf("64 GiB for ten years is %d MiB·ms, want %d", got, want)
	}
	if got := memoryTime(math.MaxInt64, math.MaxInt64); got <= 0 {
		t.Errorf("the most there is gives %d", got)
	}
	if got := memoryTime(-1, time.Hour); got != 0 {
		t.Errorf("less than no memory gives %d", got)
	}
}

func TestAddAndSub(t *testing.T) {
	t.Parallel()
	c := Counters{1, 2, 3, 4, 5, 6, 7, 8, 9}
	if got, want := c.Add(c), (Counters{2, 4, 6, 8, 10, 12, 14, 16, 18}); got != want {
		t.Errorf("c+c is %+v, want %+v", got, want)
	}
	if got := c.Add(c).Sub(c); got != c {
		t.Errorf("c+c-c is %+v, want %+v", got, c)
	}
}

func TestTimeThatAVMIsOffIsNeitherAwakeNorAsleep(t *testing.T) {
	last := Record{Time: start, Epoch: "a", Total: Counters{Awake: 1, Asleep: 2}}
	got := Account(last, "a", Raw{}, start.Add(time.Hour), Off, 0)
	if want := (Counters{Awake: 1, Asleep: 2}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
