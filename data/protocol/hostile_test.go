package protocol

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/compact"
	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/manifest"
	"github.com/tradle/cloudpal/data/merkle"
	"github.com/tradle/cloudpal/data/protomux"
)

// A stranger speaks the protocol, knows the key, and says what it likes.
type stranger struct {
	t    *testing.T
	wire *wire // the stranger is b
	ch   *protomux.Channel
	got  chan sent
}

type sent struct {
	typ     uint64
	payload []byte
}

// meet connects a stranger with one of ours. Its first sync has the length.
func meet(t *testing.T, r *Replicator, hello syncState) *stranger {
	t.Helper()
	s := &stranger{t: t, wire: newWire(t), got: make(chan sent, 10000)}
	must(t, r.Open(s.wire.a))
	id := r.core.DiscoveryKey()
	conn := s.wire.b.Conn()
	h := handshake{true, capability(conn.HandshakeHash(), conn.Initiator(), r.core.Key())}
	opened := make(chan struct{})
	ch, err := s.wire.b.Open(protomux.ChannelOptions{
		Protocol: Protocol, ID: id[:], Handshake: h.append(nil),
		OnOpen: func([]byte) error { close(opened); return nil },
		OnMessage: func(typ uint64, b []byte) error {
			select {
			case s.got <- sent{typ, append([]byte(nil), b...)}:
			default:
			}
			return nil
		},
	})
	must(t, err)
	s.ch = ch
	s.wire.run(t)
	<-opened
	s.say(typeSync, hello.append(nil))
	return s
}

func (s *stranger) say(typ uint64, b []byte) { s.ch.Send(typ, b) }

// hears returns the next message of a type.
func (s *stranger) hears(typ uint64) []byte {
	s.t.Helper()
	end := time.After(30 * time.Second)
	for {
		select {
		case m := <-s.got:
			if m.typ == typ {
				return m.payload
			}
		case <-end:
			s.t.Fatalf("no message of type %d", typ)
		}
	}
}

func (s *stranger) asked() request {
	s.t.Helper()
	q, err := decodeRequest(s.hears(typeRequest))
	must(s.t, err)
	return q
}

// dropped waits until the stranger has lost the connection, for one of some
// reasons; an empty one is none.
func (s *stranger) dropped(reasons ...string) {
	s.t.Helper()
	select {
	case err := <-s.wire.errs:
		s.lost(err, reasons...)
	case <-time.After(30 * time.Second):
		s.t.Error("the connection goes on")
	}
}

// lost checks why the connection has ended. Either side says how it has, in any
// order.
func (s *stranger) lost(first error, reasons ...string) {
	s.t.Helper()
	said := fmt.Sprint(first)
	select {
	case err := <-s.wire.errs:
		said += fmt.Sprint("; ", err)
	case <-time.After(30 * time.Second):
	}
	for _, want := range reasons {
		if want != "" && strings.Contains(said, want) {
			return
		}
	}
	s.t.Errorf("the connection ended with %s, not for one of %q", said, reasons)
}

// world is a writer with blocks, and a reader who has a stranger for a peer.
func readerOf(t *testing.T, blocks uint64) (w, r *hypercore.Core, rr *Replicator) {
	t.Helper()
	w = newWriter(t, hypercore.Options{})
	fill(t, w, 0, blocks)
	r = newReader(t, w, hypercore.Options{})
	return w, r, replicator(t, r, Options{Full: true})
}

var uploading = syncState{canUpgrade: true, uploading: true, downloading: true, hasManifest: true}

func lengthOf(n uint64) syncState {
	s := uploading
	s.length = n
	return s
}

// prove answers a request as an honest peer would.
func prove(t *testing.T, w *hypercore.Core, q request) *answer {
	t.Helper()
	p, err := w.Prove(q.tree())
	must(t, err)
	p.ID = q.id
	return (&answer{proof: p}).clone()
}

// After a stranger was dropped, an honest peer brings all.
func recovers(t *testing.T, w, r *hypercore.Core, rr *Replicator) {
	t.Helper()
	link(t, replicator(t, w, Options{}), rr)
	waitAll(t, r, w.Length())
	sameBlocks(t, w, r, 0, w.Length())
}

func TestWrongBlock(t *testing.T) {
	w, r, rr := readerOf(t, 20)
	s := meet(t, rr, lengthOf(20))
	s.say(typeData, appendProof(nil, &prove(t, w, s.asked()).proof))
	s.say(typeRange, span{length: 20}.append(nil))
	a := prove(t, w, s.asked())
	a.block.Value[0] ^= 1
	s.say(typeData, appendProof(nil, &a.proof))
	s.dropped("data")
	recovers(t, w, r, rr)
}

func TestWrongSignature(t *testing.T) {
	w, r, rr := readerOf(t, 20)
	s := meet(t, rr, lengthOf(20))
	a := prove(t, w, s.asked())
	a.upgrade.Signature[10] ^= 1
	s.say(typeData, appendProof(nil, &a.proof))
	s.dropped("data")
	recovers(t, w, r, rr)
}

func TestWrongManifest(t *testing.T) {
	w, r, rr := readerOf(t, 20)
	s := meet(t, rr, lengthOf(20))
	a := prove(t, w, s.asked())
	a.proof.Manifest[len(a.proof.Manifest)-1] ^= 1
	s.say(typeData, appendProof(nil, &a.proof))
	s.dropped("data")
	recovers(t, w, r, rr)
}

// A proof whose nodes end nowhere is refused, and after some the peer is.
func TestProofsThatEndNowhere(t *testing.T) {
	w, r, rr := readerOf(t, 200)
	s := meet(t, rr, lengthOf(200))
	s.say(typeData, appendProof(nil, &prove(t, w, s.asked()).proof))
	s.say(typeRange, span{length: 200}.append(nil))
	go func() {
		for m := range s.got {
			q, err := decodeRequest(m.payload)
			if m.typ != typeRequest || err != nil || !q.has(partBlock) {
				continue
			}
			p := merkle.Proof{ID: q.id, Block: &merkle.BlockProof{Index: q.block.Index, Value: block(q.block.Index), Nodes: nil}}
			if q.block.Nodes == 0 {
				p.Block.Nodes = []merkle.Node{{Index: 2*q.block.Index ^ 2}}
			}
			s.say(typeData, appendProof(nil, &p))
		}
	}()
	s.dropped("data")
	close(s.got)
	recovers(t, w, r, rr)
}

// What was not asked for is no answer.
func TestUnsolicited(t *testing.T) {
	w, r, rr := readerOf(t, 20)
	s := meet(t, rr, lengthOf(20))
	first := s.asked()
	s.say(typeData, appendProof(nil, &prove(t, w, first).proof))
	for id := range uint64(1000) { // ids that nobody gave: ignored
		s.say(typeData, appendProof(nil, &merkle.Proof{ID: id + 1<<20, Block: &merkle.BlockProof{Value: make([]byte, 100)}}))
	}
	s.say(typeRange, span{length: 20}.append(nil))
	q := s.asked()
	other := q
	other.block.Index = (q.block.Index + 1) % 20
	other.block.Nodes = 0
	p := merkle.Proof{ID: q.id, Block: &merkle.BlockProof{Index: other.block.Index, Value: block(other.block.Index)}}
	s.say(typeData, appendProof(nil, &p))
	s.dropped("was not asked for")
	recovers(t, w, r, rr)
}

// The capability must be that of the key and the connection.
func TestStrangerWithoutTheKey(t *testing.T) {
	w := newWriter(t, hypercore.Options{})
	r := replicator(t, w, Options{})
	wire := newWire(t)
	must(t, r.Open(wire.a))
	id := w.DiscoveryKey()
	_, err := wire.b.Open(protomux.ChannelOptions{Protocol: Protocol, ID: id[:], Handshake: handshake{seeks: true}.append(nil)})
	must(t, err)
	wire.run(t)
	s := &stranger{t: t, wire: wire}
	s.dropped("does not know the core's key")
}

// Requests without end, more than wait for an honest peer, end the connection.
func TestEndlessRequests(t *testing.T) {
	w := newWriter(t, hypercore.Options{})
	_, err := w.Append(make([]byte, 1<<20))
	must(t, err)
	r := replicator(t, w, Options{})
	s := meet(t, r, syncState{uploading: true, downloading: true})
	s.wire.b.Cork() // so that the stranger reads nothing meanwhile
	q := request{parts: partBlock}
	for id := range uint64(3 * maxServed) {
		q.id = id + 1
		s.say(typeRequest, q.append(nil))
	}
	s.wire.b.Uncork()
	s.dropped("not answered yet")
}

// Requests for what cannot be are answered so, and then no more.
func TestImpossibleRequests(t *testing.T) {
	w := newWriter(t, hypercore.Options{})
	fill(t, w, 0, 10)
	s := meet(t, replicator(t, w, Options{}), syncState{uploading: true, downloading: true})
	q := request{parts: partHash}
	q.hash = merkle.NodeRequest{Index: 3, Nodes: 50}
	q.id = 5
	s.say(typeRequest, q.append(nil))
	n, err := decodeRefusal(s.hears(typeNoData))
	must(t, err)
	same(t, n, refusal{5, invalidRequest})
	for id := range uint64(maxInvalid) {
		q.id = id + 1
		s.say(typeRequest, q.append(nil))
	}
	s.dropped("for what cannot be")
}

// A block that is not here, and an old fork, are refused as not available.
func TestRefusals(t *testing.T) {
	w := newWriter(t, hypercore.Options{})
	fill(t, w, 0, 10)
	must(t, w.Clear(3, 4))
	s := meet(t, replicator(t, w, Options{}), syncState{uploading: true, downloading: true})
	for _, q := range []request{
		{parts: partBlock, id: 1, block: merkle.NodeRequest{Index: 3}},
		{parts: partBlock, id: 2, fork: 7, block: merkle.NodeRequest{Index: 1}},
	} {
		s.say(typeRequest, q.append(nil))
		n, err := decodeRefusal(s.hears(typeNoData))
		must(t, err)
		same(t, n, refusal{q.id, notAvailable})
	}
	// The check for conflicts has the id 0 and is answered like others.
	q := request{parts: partUpgrade, upgrade: merkle.UpgradeRequest{Length: 10}}
	s.say(typeRequest, q.append(nil))
	var a answer
	_, err := a.decode(s.hears(typeData), nil)
	must(t, err)
	if a.proof.ID != 0 || a.proof.Upgrade == nil || a.upgrade.Length != 10 {
		t.Errorf("answered %+v", a.proof)
	}
}

// A cancelled request is not answered.
func TestCancel(t *testing.T) {
	w := newWriter(t, hypercore.Options{})
	fill(t, w, 0, 10)
	s := meet(t, replicator(t, w, Options{}), syncState{uploading: true, downloading: true})
	s.wire.b.Cork()
	for id := range uint64(4) {
		q := request{parts: partBlock, id: id + 1, block: merkle.NodeRequest{Index: id}}
		s.say(typeRequest, q.append(nil))
	}
	s.say(typeCancel, compact.AppendUint(nil, 2))
	urgent := request{parts: partBlock, id: 9, block: merkle.NodeRequest{Index: 9, Nodes: 1}, priority: 1}
	s.say(typeRequest, urgent.append(nil))
	s.wire.b.Uncork()
	answered := map[uint64]bool{}
	for len(answered) < 4 {
		var a answer
		_, err := a.decode(s.hears(typeData), nil)
		must(t, err)
		answered[a.proof.ID] = true
	}
	if answered[2] {
		t.Log("the cancel came too late") // the pump is free to be faster
	}
}

// Ranges to 2^53, bitfields anywhere and wants for everything cost little memory.
func TestHugeNumbers(t *testing.T) {
	_, r, rr := readerOf(t, 20)
	hello := lengthOf(maxReach)
	s := meet(t, rr, hello)
	s.asked()
	s.say(typeRange, span{length: maxReach}.append(nil))
	s.say(typeRange, span{start: 5, length: maxReach - 5}.append(nil))
	s.say(typeRange, span{start: 1 << 40, length: 1 << 50, drop: true}.append(nil))
	for i := range uint64(200) {
		s.say(typeWant, want{start: i << 21, length: 1 << 21}.append(nil))
		s.say(typeUnwant, want{start: i << 21, length: 1 << 21}.append(nil))
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	words := make([]uint32, 32)
	words[3] = 0xa5a5
	for i := range uint64(3 * maxPages) {
		s.say(typeBitfield, appendBitfield(nil, i*pageBits+64, words))
	}
	s.dropped("too scattered")
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 32<<20 {
		t.Errorf("%d MiB more", grown>>20)
	}
	if r.Length() != 0 {
		t.Error("it believed")
	}
}

// A peer that says it has a higher fork, or a longer log, and never proves it,
// holds nobody up.
func TestEmptyClaims(t *testing.T) {
	w, r, rr := readerOf(t, 500)
	liar := uploading
	liar.length, liar.fork = 1<<40, 1<<40
	meet(t, rr, liar).asked()
	meet(t, rr, lengthOf(1<<40)).asked()
	recovers(t, w, r, rr)
}

// A fork whose signature is wrong is not followed.
func TestForgedFork(t *testing.T) {
	w, r, rr := readerOf(t, 20)
	forged := newWriter(t, hypercore.Options{}) // by another key
	fill(t, forged, 0, 30)
	must(t, forged.Truncate(25))
	liar := uploading
	liar.length, liar.fork = 25, 1
	s := meet(t, rr, liar)
	a := prove(t, forged, s.asked())
	mine, _ := w.Manifest()
	a.proof.Manifest = mine.Append(nil)
	s.say(typeData, appendProof(nil, &a.proof))
	s.dropped("data of another fork")
	recovers(t, w, r, rr)
}

// A fork that was compared with our log before that changed to yet another one is
// not followed as if nothing had happened.
func TestForkComparedTooEarly(t *testing.T) {
	pair := manifest.NewKeyPair([32]byte{5})
	var writers [2]*hypercore.Core
	for i := range writers {
		writers[i] = newWriter(t, hypercore.Options{KeyPair: &pair})
		fill(t, writers[i], 0, 20)
	}
	r := newReader(t, writers[0], hypercore.Options{})
	rw, rr := connect(t, writers[0], Options{}, r, Options{Full: true})
	waitAll(t, r, 20)
	must(t, rw.Close())

	must(t, writers[0].Truncate(5, 1))
	fill(t, writers[0], 100, 120)
	must(t, writers[1].Truncate(15, 2))
	fill(t, writers[1], 200, 220)
	p, err := writers[1].Prove(merkle.Request{Fork: 2, Upgrade: &merkle.UpgradeRequest{Length: 35}})
	must(t, err)
	var f reorg
	must(t, rr.verifyFork(&f, &p))
	first := writers[0].Head()
	must(t, r.Reorg(first, first.Roots, 5, 0))
	if err := rr.apply(&f); !errors.Is(err, merkle.ErrStale) {
		t.Errorf("got %v, want %v", err, merkle.ErrStale)
	}
	recovers(t, writers[1], r, rr)
}

// Bytes that are no message end the connection.
func TestGarbage(t *testing.T) {
	for _, typ := range []uint64{typeSync, typeRequest, typeCancel, typeData, typeNoData, typeWant, typeBitfield, typeRange, typeExtension} {
		w := newWriter(t, hypercore.Options{})
		s := meet(t, replicator(t, w, Options{}), syncState{uploading: true, downloading: true})
		s.say(typ, []byte{0xff, 1})
		s.dropped("the peer sent")
	}
	w := newWriter(t, hypercore.Options{})
	s := meet(t, replicator(t, w, Options{}), syncState{uploading: true, downloading: true})
	s.say(77, []byte("of a later version"))
	s.say(typeRequest, (&request{parts: partBlock, id: 1}).append(nil))
	s.hears(typeNoData)
}

// A peer that asks for much and reads nothing holds only what one batch is.
func TestPeerThatDoesNotRead(t *testing.T) {
	w := newWriter(t, hypercore.Options{})
	for range 64 {
		_, err := w.Append(make([]byte, 1<<20))
		must(t, err)
	}
	r := replicator(t, w, Options{})
	quiet := newWire(t)
	must(t, r.Open(quiet.a))
	id := w.DiscoveryKey()
	conn := quiet.b.Conn()
	h := handshake{true, capability(conn.HandshakeHash(), conn.Initiator(), w.Key())}
	stuck, reading := make(chan struct{}), make(chan struct{})
	ch, err := quiet.b.Open(protomux.ChannelOptions{
		Protocol: Protocol, ID: id[:], Handshake: h.append(nil),
		OnMessage: func(typ uint64, _ []byte) error {
			if typ == typeData {
				close(reading)
				<-stuck
				return errors.New("done")
			}
			return nil
		},
	})
	must(t, err)
	quiet.run(t)
	t.Cleanup(func() { close(stuck) }) // before what runs is waited for
	must(t, ch.Send(typeSync, syncState{uploading: true, downloading: true}.append(nil)))
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for id := range uint64(2000) {
		q := request{parts: partBlock, id: id + 1, block: merkle.NodeRequest{Index: id % 64}}
		if ch.Send(typeRequest, q.append(nil)) != nil {
			break
		}
	}
	select {
	case <-reading:
	case <-time.After(30 * time.Second):
		t.Fatal("it is sent nothing")
	}
	time.Sleep(200 * time.Millisecond) // until all that it would send is sent
	runtime.GC()
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 48<<20 {
		t.Errorf("%d MiB more", grown>>20)
	}
	// Others go on meanwhile.
	reader := newReader(t, w, hypercore.Options{})
	link(t, r, replicator(t, reader, Options{Full: true}))
	waitAll(t, reader, 64)
}

var _ = cloudpal.Invalid
