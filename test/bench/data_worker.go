package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal/data/corestore"
	"github.com/tradle/cloudpal/data/hyperbee"
	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/hyperdrive"
	"github.com/tradle/cloudpal/data/manifest"
	"github.com/tradle/cloudpal/data/secretstream"
)

// workerWord before the words of test/data/js/bench.js makes this program do
// what they say, as that script does.
const workerWord = "data-worker"

// poolSize is how many different blocks there are: block i is block i modulo
// that.
const poolSize = 1024

// random is Marsaglia's xorshift with 32 bits, as the script's.
func random(seed uint32) func() uint32 {
	x := seed
	return func() uint32 {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		return x
	}
}

func pool(size int) [][]byte {
	next := random(1)
	all := make([][]byte, poolSize)
	for i := range all {
		all[i] = make([]byte, size)
		for at := 0; at+4 <= size; at += 4 {
			binary.LittleEndian.PutUint32(all[i][at:], next())
		}
	}
	return all
}

// A job is one thing that is measured, in a process of its own.
type job struct {
	words []string
	out   *json.Encoder
	began time.Time
	used  time.Duration // of the processor, when it began
}

// work does what the words say.
func work(words []string) (err error) {
	j := &job{words: words[1:], out: json.NewEncoder(os.Stdout)}
	defer func() {
		if p := recover(); p != nil {
			trouble, ok := p.(failed)
			if !ok {
				panic(p)
			}
			err = trouble.error
		}
	}()
	verb, ok := jobs[words[0]]
	if !ok {
		return fmt.Errorf("no job %q", words[0])
	}
	verb(j)
	return nil
}

var jobs = map[string]func(*job){
	"append":      func(j *job) { j.append(j.word(0), j.number(1), j.number(2), j.number(3), false) },
	"append-sync": func(j *job) { j.append(j.word(0), j.number(1), j.number(2), 1, true) },
	"get":         func(j *job) { j.get(j.word(0), j.number(1), j.word(2)) },
	"serve":       func(j *job) { j.serve(j.word(0)) },
	"fetch":       func(j *job) { j.fetch(j.word(0), j.word(1), j.word(2), j.number(3)) },
	"sink":        func(j *job) { j.sink(j.number(0)) },
	"source":      func(j *job) { j.source(j.word(0), j.number(1), j.number(2)) },
	"tcp-sink":    func(j *job) { j.tcpSink(j.number(0)) },
	"tcp-source":  func(j *job) { j.tcpSource(j.word(0), j.number(1), j.number(2)) },
	"bee-put":     func(j *job) { j.beePut(j.word(0), j.number(1), j.number(2)) },
	"bee-get":     func(j *job) { j.beeGet(j.word(0), j.number(1), j.number(2)) },
	"bee-scan":    func(j *job) { j.beeScan(j.word(0)) },
	"pebble-put":  func(j *job) { j.pebblePut(j.word(0), j.number(1), j.number(2)) },
	"mirror":      func(j *job) { j.mirror(j.word(0), j.word(1)) },
	"unmirror":    func(j *job) { j.unmirror(j.word(0), j.word(1)) },
	"grow":        func(j *job) { j.grow(j.word(0), j.number(1)) },
	"cores":       func(j *job) { j.cores(j.word(0), j.number(1)) },
}

// failed is how a job ends that cannot go on.
type failed struct{ error }

func (j *job) must(err error) {
	if err != nil {
		panic(failed{err})
	}
}

func (j *job) word(i int) string { return j.words[i] }

func (j *job) number(i int) int {
	n, err := strconv.Atoi(j.words[i])
	j.must(err)
	return n
}

func (j *job) start() { j.began, j.used = time.Now(), j.computed() }

// computed is the processor time that this process has had.
func (j *job) computed() time.Duration {
	var u unix.Rusage
	j.must(unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// stop says what was done since start.
func (j *job) stop(ops, bytes int) said {
	return said{Seconds: time.Since(j.began).Seconds(), CPU: (j.computed() - j.used).Seconds(), Ops: float64(ops), Bytes: float64(bytes)}
}

// tell writes it down, with the most memory the process ever held.
func (j *job) tell(s said) {
	s.Peak = float64(j.peak())
	j.must(j.out.Encode(s))
}

func (j *job) peak() int {
	status, err := os.ReadFile("/proc/self/status")
	j.must(err)
	lines := bufio.NewScanner(bytes.NewReader(status))
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "VmHWM:"); ok {
			kb, err := strconv.Atoi(strings.Fields(rest)[0])
			j.must(err)
			return kb << 10
		}
	}
	return 0
}

// primaryKey is that of all stores here.
var primaryKey = func() (k corestore.PrimaryKey) {
	for i := range k {
		k[i] = 7
	}
	return k
}()

func (j *job) store(dir string) *corestore.Store {
	s, err := corestore.Open(dir, corestore.Options{PrimaryKey: &primaryKey})
	j.must(err)
	return s
}

func (j *job) log(s *corestore.Store, name string) *hypercore.Core {
	c, err := s.Get(name)
	j.must(err)
	return c
}

// sumOf is what the script's sumOf is.
func (j *job) sumOf(c *hypercore.Core) string {
	key, hash := c.Key(), c.TreeHash()
	return hex.EncodeToString(key[:]) + " " + hex.EncodeToString(hash[:])
}

func (j *job) append(dir string, count, size, batch int, sync bool) {
	s := j.store(dir)
	log, blocks := j.log(s, "log"), pool(size)
	j.start()
	j.appendTo(log, blocks, 0, count, batch, sync)
	r := j.stop(count, count*size)
	r.Sum = j.sumOf(log)
	j.must(s.Close())
	j.tell(r)
}

// appendTo appends count blocks from the given one on.
func (j *job) appendTo(log *hypercore.Core, blocks [][]byte, from, count, batch int, sync bool) {
	some := make([][]byte, 0, batch)
	for i := from; i < from+count; {
		some = some[:0]
		for len(some) < batch && i < from+count {
			some = append(some, blocks[i%poolSize])
			i++
		}
		_, err := log.Append(some...)
		j.must(err)
		if sync {
			j.must(log.Sync())
		}
	}
}

func (j *job) get(dir string, count int, order string) {
	s := j.store(dir)
	log, next := j.log(s, "log"), random(2)
	ctx, length := context.Background(), log.Length()
	var sum uint32
	bytes := 0
	j.start()
	for i := range count {
		at := uint64(i) % length
		if order == "random" {
			at = uint64(next()) % length
		}
		block, err := log.Get(ctx, at)
		j.must(err)
		sum += binary.LittleEndian.Uint32(block)
		bytes += len(block)
	}
	r := j.stop(count, bytes)
	r.Sum = fmt.Sprint(sum)
	j.must(s.Close())
	j.tell(r)
}

// listen waits for one call, after it has said where.
func (j *job) listen(key string) net.Conn {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	j.must(err)
	defer ln.Close()
	j.must(j.out.Encode(said{Port: ln.Addr().(*net.TCPAddr).Port, Key: key}))
	conn, err := ln.Accept()
	j.must(err)
	return conn
}

func (j *job) dial(port string) net.Conn {
	conn, err := net.Dial("tcp4", "127.0.0.1:"+port)
	j.must(err)
	return conn
}

func (j *job) serve(dir string) {
	s := j.store(dir)
	log := j.log(s, "log")
	key := log.Key()
	conn := j.listen(hex.EncodeToString(key[:]))
	s.Replicate(context.Background(), conn, corestore.ReplicateOptions{}) // until they hang up
	r := said{Ops: float64(log.Length()), Sum: j.sumOf(log)}
	j.must(s.Close())
	j.tell(r)
}

func (j *job) fetch(dir, port, key string, count int) {
	s := j.store(dir)
	log, err := s.GetKey(j.key(key))
	j.must(err)
	j.start()
	conn := j.dial(port)
	ended := make(chan struct{})
	go func() {
		s.Replicate(context.Background(), conn, corestore.ReplicateOptions{Initiator: true})
		close(ended)
	}()
	j.must(log.Download(context.Background(), hypercore.Range{End: uint64(count)}))
	r := j.stop(int(log.Length()), int(log.ByteLength()))
	r.Sum = j.sumOf(log)
	conn.Close()
	<-ended
	j.must(s.Close())
	j.tell(r)
}

func (j *job) key(text string) (k manifest.Key) {
	b, err := hex.DecodeString(text)
	j.must(err)
	copy(k[:], b)
	return k
}

// sink reads messages of a secret-stream until it has had all, source writes
// them.
func (j *job) sink(bytes int) {
	conn, err := secretstream.Handshake(context.Background(), j.listen(""), secretstream.Config{})
	j.must(err)
	got := 0
	for got < bytes {
		m, err := conn.ReadMessage()
		j.must(err)
		if got == 0 {
			j.start()
		}
		got += len(m)
	}
	j.tell(j.stop(0, got))
}

func (j *job) source(port string, bytes, size int) {
	conn, err := secretstream.Handshake(context.Background(), j.dial(port), secretstream.Config{Initiator: true})
	j.must(err)
	message := make([]byte, size)
	for sent := 0; sent < bytes; sent += size {
		if conn.WriteMessage(message) != nil {
			return // it has had enough
		}
	}
	conn.ReadMessage() // until they hang up
}

// tcpSink and tcpSource do it without the secret-stream.
func (j *job) tcpSink(bytes int) {
	conn := j.listen("")
	buf := make([]byte, 64<<10)
	_, err := io.ReadFull(conn, buf[:1])
	j.must(err)
	j.start()
	for got := 1; got < bytes; {
		n, err := conn.Read(buf)
		j.must(err)
		got += n
	}
	j.tell(j.stop(0, bytes))
}

func (j *job) tcpSource(port string, bytes, size int) {
	conn := j.dial(port)
	message := make([]byte, size)
	for sent := 0; sent < bytes; sent += size {
		if _, err := conn.Write(message); err != nil {
			return
		}
	}
}

func appendKey(b []byte, i uint32) []byte { return fmt.Appendf(b, "key-%08d", i) }

// entries makes the keys and values that the script's beePut does.
func entries(count int) (key func(b []byte) []byte, value func(i int) []byte) {
	next, values := random(3), pool(100)
	return func(b []byte) []byte { return appendKey(b, next()%uint32(4*count)) },
		func(i int) []byte { return values[i%poolSize] }
}

func (j *job) bee(s *corestore.Store) (*hypercore.Core, *hyperbee.Bee) {
	log := j.log(s, "bee")
	return log, hyperbee.New(log, hyperbee.Options{})
}

func (j *job) beePut(dir string, count, batch int) {
	s := j.store(dir)
	log, bee := j.bee(s)
	key, value := entries(count)
	ctx := context.Background()
	j.start()
	if batch == 1 {
		for i := range count {
			j.must(bee.Put(ctx, key(nil), value(i)))
		}
	} else {
		for i := 0; i < count; {
			b := bee.Batch()
			for n := 0; n < batch && i < count; n++ {
				j.must(b.Put(ctx, key(nil), value(i)))
				i++
			}
			j.must(b.Flush())
			b.Close()
		}
	}
	r := j.stop(count, 112*count)
	r.Sum = j.sumOf(log)
	j.must(s.Close())
	j.tell(r)
}

func (j *job) beeGet(dir string, count, written int) {
	s := j.store(dir)
	_, bee := j.bee(s)
	key, _ := entries(written)
	ctx := context.Background()
	var sum uint32
	j.start()
	for range count {
		e, err := bee.Get(ctx, key(nil))
		j.must(err)
		sum += binary.LittleEndian.Uint32(e.Value)
	}
	r := j.stop(count, 112*count)
	r.Sum = fmt.Sprint(sum)
	j.must(s.Close())
	j.tell(r)
}

func (j *job) beeScan(dir string) {
	s := j.store(dir)
	_, bee := j.bee(s)
	var sum uint32
	count := 0
	j.start()
	for e, err := range bee.Range(context.Background(), hyperbee.Range{}) {
		j.must(err)
		sum += binary.LittleEndian.Uint32(e.Value)
		count++
	}
	r := j.stop(count, 112*count)
	r.Sum = fmt.Sprint(sum)
	j.must(s.Close())
	j.tell(r)
}

// pebblePut puts what beePut does into a Pebble database, with its defaults.
func (j *job) pebblePut(dir string, count, batch int) {
	db, err := pebble.Open(dir, &pebble.Options{Logger: quiet{}})
	j.must(err)
	key, value := entries(count)
	j.start()
	for i := 0; i < count; {
		b := db.NewBatch()
		for n := 0; n < batch && i < count; n++ {
			j.must(b.Set(key(nil), value(i), nil))
			i++
		}
		j.must(b.Commit(pebble.NoSync))
	}
	r := j.stop(count, 112*count)
	j.must(db.Close())
	j.tell(r)
}

// quiet is a logger of Pebble's that says nothing but its last words.
type quiet struct{}

func (quiet) Infof(string, ...any)              {}
func (quiet) Errorf(string, ...any)             {}
func (quiet) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

func (j *job) drive(s *corestore.Store) *hyperdrive.Drive {
	d, err := hyperdrive.New(s, hyperdrive.Options{})
	j.must(err)
	return d
}

func (j *job) mirror(dir, from string) {
	s := j.store(dir)
	d := j.drive(s)
	folder, err := hyperdrive.OpenFolder(from)
	j.must(err)
	j.start()
	sum, err := hyperdrive.Mirror(context.Background(), folder, d, hyperdrive.MirrorOptions{})
	j.must(err)
	r := j.stop(sum.Files, int(sum.BytesAdded))
	content, err := d.Content(context.Background())
	j.must(err)
	r.Sum = fmt.Sprintf("%d %d", sum.Added, content.ByteLength())
	j.must(d.Close())
	j.must(s.Close())
	j.tell(r)
}

func (j *job) unmirror(dir, to string) {
	s := j.store(dir)
	d := j.drive(s)
	j.must(os.MkdirAll(to, 0o755))
	folder, err := hyperdrive.OpenFolder(to)
	j.must(err)
	j.start()
	sum, err := hyperdrive.Mirror(context.Background(), d, folder, hyperdrive.MirrorOptions{})
	j.must(err)
	r := j.stop(sum.Files, int(sum.BytesAdded))
	r.Sum = fmt.Sprint(sum.Added)
	j.must(d.Close())
	j.must(s.Close())
	j.tell(r)
}

// grow appends to a log, and at each power of ten from 10,000 on tells the cost
// of some operations there: the length is what it says for bytes.
func (j *job) grow(dir string, longest int) {
	s := j.store(dir)
	log, blocks := j.log(s, "log"), pool(kib)
	ctx, next := context.Background(), random(4)
	for n := 10_000; n <= longest; n *= 10 {
		j.appendTo(log, blocks, int(log.Length()), n-int(log.Length()), 100, false)
		j.rest()
		for range 20_000 {
			_, err := log.Get(ctx, uint64(next())%uint64(n))
			j.must(err)
		}
		j.row("get, random", 20_000, n)
		j.readLog(dir, 20_000, next)
		j.row(systemRead, 20_000, n)
		j.rest()
		j.appendTo(log, blocks, n, 2_000, 1, false)
		j.row("append, single", 2_000, n)
		j.rest()
		j.appendTo(log, blocks, n, 20_000, 100, false)
		j.row("append, in batches of 100", 20_000, n)
	}
	j.must(s.Close())
}

// systemRead is what reading a block costs without anything of ours.
const systemRead = "the system's read of 1 KiB, random"

// readLog reads as many bytes as blocks have from anywhere in the store's log, which
// the system has in memory.
func (j *job) readLog(dir string, count int, next func() uint32) {
	names, err := filepath.Glob(filepath.Join(dir, "log", "*.log"))
	j.must(err)
	files, sizes := make([]*os.File, len(names)), make([]int64, len(names))
	for i, name := range names {
		files[i], err = os.Open(name)
		j.must(err)
		defer files[i].Close()
		info, err := files[i].Stat()
		j.must(err)
		sizes[i] = max(info.Size()-kib, 1)
	}
	b := make([]byte, kib)
	j.start()
	for range count {
		i := int(next()) % len(files)
		_, err := files[i].ReadAt(b, int64(next())%sizes[i])
		j.must(err)
	}
}

// rest starts when what goes on behind the operations before has ended, as the merging
// of tables.
func (j *job) rest() {
	const look = 100 * time.Millisecond
	for busy := true; busy; {
		used := j.computed()
		time.Sleep(look)
		busy = j.computed()-used > look/20
	}
	j.start()
}

// row tells of one kind of operation.
func (j *job) row(kind string, ops, at int) {
	r := j.stop(ops, at)
	r.Sum = kind
	j.tell(r)
}

// cores appends to many logs in turn, and reads from them at random.
func (j *job) cores(dir string, count int) {
	const ops = 20_000
	s := j.store(dir)
	logs := make([]*hypercore.Core, count)
	for i := range logs {
		logs[i] = j.log(s, fmt.Sprint("log-", i))
	}
	blocks, next, ctx := pool(kib), random(5), context.Background()
	for i := range logs { // each has been written before
		j.appendTo(logs[i], blocks, 0, 2, 1, false)
	}
	j.start()
	for i := range ops {
		_, err := logs[i%count].Append(blocks[i%poolSize])
		j.must(err)
	}
	j.row("append, single", ops, count)
	j.start()
	for range ops {
		log := logs[int(next())%count]
		_, err := log.Get(ctx, uint64(next())%log.Length())
		j.must(err)
	}
	j.row("get, random", ops, count)
	j.must(s.Close())
}
