package protocol

import (
	"encoding/binary"
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/compact"
	"github.com/tradle/cloudpal/data/flat"
	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/manifest"
	"github.com/tradle/cloudpal/data/merkle"
	"github.com/tradle/cloudpal/data/protomux"
)

// A flood is messages without end, of one kind, and why they end the connection;
// empty where they are merely useless, and cost as much as they are worth.
type flood struct {
	name string
	typ  uint64
	say  func(i uint64) []byte
	why  string
	may  string // why they may end it, where the stranger is faster than we are
}

var floods = []flood{
	{"syncs", typeSync, func(i uint64) []byte { return lengthOf(1 + i%2).append(nil) }, "", ""},
	{"lengths that grow", typeSync, func(i uint64) []byte { return lengthOf(1000 + i).append(nil) }, "", ""},
	{"forks that rise", typeSync, func(i uint64) []byte {
		s := lengthOf(10)
		s.fork = i + 1
		return s.append(nil)
	}, "", ""},
	{"requests for nothing", typeRequest, func(i uint64) []byte {
		return (&request{id: i + 1}).append(nil)
	}, "", "not answered yet"},
	{"requests for another fork", typeRequest, func(i uint64) []byte {
		return (&request{id: i%100 + 1, fork: 9, parts: partUpgrade, upgrade: merkle.UpgradeRequest{Length: 100}}).append(nil)
	}, "", "not answered yet"},
	{"requests for what cannot be", typeRequest, func(i uint64) []byte {
		return (&request{id: i + 1, parts: partHash, hash: merkle.NodeRequest{Index: 3, Nodes: 60}}).append(nil)
	}, "for what cannot be", "not answered yet"},
	{"requests with one id", typeRequest, func(i uint64) []byte {
		return (&request{id: 1, parts: partBlock, block: merkle.NodeRequest{Index: 7}}).append(nil)
	}, "", ""},
	{"cancels", typeCancel, func(i uint64) []byte { return compact.AppendUint(nil, i) }, "", ""},
	{"answers that nobody asked for", typeData, func(i uint64) []byte {
		return appendProof(nil, &merkle.Proof{ID: 1<<30 + i, Block: &merkle.BlockProof{Index: i, Value: make([]byte, 100)}})
	}, "", ""},
	{"refusals of nothing", typeNoData, func(i uint64) []byte { return refusal{1<<30 + i, 1}.append(nil) }, "", ""},
	{"wants", typeWant, func(i uint64) []byte { return want{start: i << 21, length: 1 << 21}.append(nil) }, "", "not answered yet"},
	{"unwants", typeUnwant, func(i uint64) []byte { return want{start: i << 21, length: 1 << 21}.append(nil) }, "", ""},
	{"ranges that come and go", typeRange, func(i uint64) []byte {
		return span{start: i % 100, length: 50, drop: i%2 == 0}.append(nil)
	}, "", ""},
	{"ranges here and there", typeRange, func(i uint64) []byte { return span{start: i << 30, length: 1}.append(nil) }, "too scattered", ""},
	{"runs here and there", typeRange, func(i uint64) []byte { return span{start: i << 30, length: 1 << 20}.append(nil) }, "too scattered", ""},
	{"bitfields here and there", typeBitfield, func(i uint64) []byte { return appendBitfield(nil, i<<20, []uint32{1, 2, 3}) }, "too scattered", ""},
	{"bitfields that begin in a word", typeBitfield, func(i uint64) []byte {
		return binary.LittleEndian.AppendUint32(compact.AppendUint(compact.AppendUint(nil, 7), 1), 5)
	}, "a bitfield", ""},
	{"extensions", typeExtension, func(i uint64) []byte {
		return append(compact.AppendBuffer(nil, []byte{byte(i), byte(i >> 8), 'x'}), "message"...)
	}, "", ""},
	{"names of extensions without end", typeExtension, func(uint64) []byte {
		return compact.AppendBuffer(nil, make([]byte, 2*maxName))
	}, "an extension message", ""},
	{"types of later versions", 1 << 40, func(uint64) []byte { return []byte("later") }, "", ""},
}

// TestFloods has a stranger say 20,000 of each. Who listens allocates for each no
// more than a few KiB, holds on to nothing, does not answer with more than was
// said, and drops the stranger, saying why, where no honest peer would say it.
func TestFloods(t *testing.T) {
	const messages = 20_000
	for _, f := range floods {
		t.Run(f.name, func(t *testing.T) {
			w := newWriter(t, hypercore.Options{})
			fill(t, w, 0, 300)
			reader := newReader(t, w, hypercore.Options{})
			ours := w // who serves is flooded by requests, who reads by the rest
			if f.typ != typeRequest && f.typ != typeWant {
				ours = reader
			}
			r := replicator(t, ours, Options{Full: true})
			s := meet(t, r, lengthOf(0))
			before := memory()
			for i := range uint64(messages) {
				if s.ch.Send(f.typ, f.say(i)) != nil {
					break
				}
			}
			if f.why != "" {
				s.dropped(f.why, f.may)
			} else {
				s.still(t, r, f.may)
			}
			after := memory()
			if per := (after.TotalAlloc - before.TotalAlloc) / messages; per > 6<<10 {
				t.Errorf("%d bytes are allocated for each message", per)
			}
			if held := int64(after.HeapAlloc) - int64(before.HeapAlloc); held > 24<<20 {
				t.Errorf("%d MiB are held", held>>20)
			}
			if ours == reader {
				link(t, replicator(t, w, Options{}), r)
			} else {
				link(t, r, replicator(t, reader, Options{Full: true}))
			}
			waitAll(t, reader, 300) // others go on
		})
	}
}

func memory() (m runtime.MemStats) {
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m
}

// still waits until all that the stranger has said was heard, and checks that it
// is still connected, or was dropped for what it may be dropped for.
func (s *stranger) still(t *testing.T, r *Replicator, may string) {
	t.Helper()
	heard := make(chan struct{}, 1)
	x := r.RegisterExtension("are you there", func(*Peer, []byte) {
		select {
		case heard <- struct{}{}:
		default:
		}
	})
	defer x.Close()
	s.say(typeExtension, compact.AppendBuffer(nil, []byte("are you there")))
	select {
	case <-heard:
	case err := <-s.wire.errs:
		s.lost(err, may)
	case <-time.After(30 * time.Second):
		t.Error("it does not listen any more")
	}
}

// TestSilentPeer has a peer say that it has everything, and answer nothing: when
// that has taken long enough it is left, and told why.
func TestSilentPeer(t *testing.T) {
	w := newWriter(t, hypercore.Options{})
	fill(t, w, 0, 50)
	r := newReader(t, w, hypercore.Options{})
	gone := make(chan error, 1)
	rr := replicator(t, r, Options{Full: true, OnGone: func(_ *Peer, err error) { gone <- err }})
	s := meet(t, rr, lengthOf(50))
	s.asked()
	rr.tick()
	select {
	case err := <-gone:
		t.Fatalf("left at once: %v", err)
	default:
	}
	rr.mu.Lock()
	for p := range rr.peers {
		p.heard -= int64(deadAfter + time.Second) // as if so much time had gone by
	}
	rr.mu.Unlock()
	rr.tick()
	select {
	case err := <-gone:
		if !errors.Is(err, errLate) || !errors.Is(err, cloudpal.Timeout) {
			t.Errorf("left because %v, want %v", err, errLate)
		}
	case <-time.After(30 * time.Second):
		t.Error("it waits for ever")
	}
	recovers(t, w, r, rr)
}

// FuzzAnswer gives a reader that has some blocks an answer of any bytes: whatever
// it takes, its log is the writer's.
func FuzzAnswer(f *testing.F) {
	w := newWriter(f, hypercore.Options{})
	fill(f, w, 0, 40)
	r := newReader(f, w, hypercore.Options{})
	for _, q := range []merkle.Request{
		{Manifest: true, Upgrade: &merkle.UpgradeRequest{Length: 29}},
		{Upgrade: &merkle.UpgradeRequest{Start: 29, Length: 11}, Block: &merkle.NodeRequest{Index: 33}},
		{Block: &merkle.NodeRequest{Index: 3, Nodes: 4}},
		{Hash: &merkle.NodeRequest{Index: 9, Nodes: 2}},
		{Seek: &merkle.SeekRequest{Bytes: 77}, Hash: &merkle.NodeRequest{Index: 14, Nodes: 4}},
	} {
		p, err := w.Prove(q)
		must(f, err)
		f.Add(appendProof(nil, &p))
		if q.Manifest {
			_, err := r.Apply(p)
			must(f, err)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var a answer
		if _, err := a.decode(b, nil); err != nil {
			return
		}
		applied, err := r.Apply(a.proof)
		if err == nil && applied.HasBlock {
			want, _ := w.Local(applied.Block)
			if got, err := r.Local(applied.Block); err != nil || string(got) != string(want) {
				t.Fatalf("block %d is %q, %v, want %q", applied.Block, got, err, want)
			}
		}
		if h := r.Head(); h.Length != 29 && h.Length != 40 || h.Fork != 0 {
			t.Fatalf("the log has %d blocks and fork %d", h.Length, h.Fork)
		}
	})
}

// TestSmallQuestionsLargeAnswers has a stranger ask a thousand times, in a few
// bytes each, for a bitfield of 128 KiB, and read nothing: one answer waits, the
// others are not made before that has gone.
func TestSmallQuestionsLargeAnswers(t *testing.T) {
	pair := manifest.NewKeyPair([32]byte{8})
	m := manifest.Default(pair.Public)
	w := newWriter(t, hypercore.Options{KeyPair: &pair, Manifest: &m})
	const blocks = 1<<33 + 1<<20 + 3 // of which only the one that follows is here
	h := merkle.Head{Fork: 1, Length: blocks}
	for _, root := range flat.AppendFullRoots(nil, blocks) {
		h.Roots = append(h.Roots, merkle.Node{Index: root, Size: 1})
	}
	var err error
	h.Signature, err = m.Sign(w.Key(), pair, h)
	must(t, err)
	must(t, w.Reorg(h, h.Roots, 0, 0))
	fill(t, w, blocks, blocks+1)

	r := replicator(t, w, Options{})
	quiet := newWire(t)
	must(t, r.Open(quiet.a))
	id, conn := w.DiscoveryKey(), quiet.b.Conn()
	hello := handshake{true, capability(conn.HandshakeHash(), conn.Initiator(), w.Key())}
	read, answers := make(chan struct{}), make(chan int, 2000)
	ch, err := quiet.b.Open(protomux.ChannelOptions{
		Protocol: Protocol, ID: id[:], Handshake: hello.append(nil),
		OnMessage: func(typ uint64, b []byte) error {
			if typ == typeBitfield {
				<-read
				answers <- len(b)
			}
			return nil
		},
	})
	must(t, err)
	quiet.run(t)
	must(t, ch.Send(typeSync, syncState{fork: 1, uploading: true, downloading: true}.append(nil)))
	before := memory()
	const questions = 1000
	quiet.b.Cork()
	for range questions {
		must(t, ch.Send(typeWant, want{start: 1 << 33, length: 1 << 21}.append(nil)))
	}
	quiet.b.Uncork()
	settled := func() uint64 {
		time.Sleep(50 * time.Millisecond)
		return memory().HeapAlloc
	}
	last := settled()
	for now := settled(); now > last+1<<20; now = settled() {
		last = now
	}
	if held := int64(last) - int64(before.HeapAlloc); held > 24<<20 {
		t.Errorf("%d MiB are held", held>>20)
	}
	close(read)
	for range questions {
		select {
		case n := <-answers:
			if n < 128<<10 || n > 256<<10+20 {
				t.Fatalf("an answer of %d bytes", n)
			}
		case <-time.After(30 * time.Second):
			t.Fatal("no more answers")
		}
	}
}
