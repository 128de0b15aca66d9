package protocol

import (
	"bytes"
	"context"
	"encoding/json"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"golang.org/x/time/rate"
	"pgregory.net/rapid"

	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/manifest"
	"github.com/tradle/cloudpal/data/merkle"
	"github.com/tradle/cloudpal/data/protomux"
	"github.com/tradle/cloudpal/data/secretstream"
)

// Several peers share the work, and no block is sent twice.
func TestPeersShareTheWork(t *testing.T) {
	w := newWriter(t, hypercore.Options{})
	fill(t, w, 0, 4000)
	rw := replicator(t, w, Options{})
	r := newReader(t, w, hypercore.Options{})
	rr := replicator(t, r, Options{NoDownload: true, Full: true})
	seeds := []*Replicator{rw}
	for range 2 {
		seed := newReader(t, w, hypercore.Options{})
		rs := replicator(t, seed, Options{Full: true})
		link(t, rw, rs)
		waitAll(t, seed, 4000)
		seeds = append(seeds, rs)
	}
	first := rw.Stats().BlocksUp
	for _, s := range seeds {
		link(t, s, rr)
	}
	for len(rr.Peers()) < len(seeds) {
		time.Sleep(time.Millisecond)
	}
	rr.SetDownload(true)
	waitAll(t, r, 4000)
	sameBlocks(t, w, r, 0, 4000)
	var sum uint64
	for i, s := range seeds {
		n := s.Stats().BlocksUp
		if i == 0 {
			n -= first
		}
		if n == 0 {
			t.Errorf("peer %d gave nothing", i)
		}
		sum += n
	}
	if got := rr.Stats().BlocksDown; got != 4000 || sum > 4000+400 {
		t.Errorf("%d blocks came of %d that were sent", got, sum)
	}
}

// Blocks that a peer is slow with are asked of another as well.
func TestSlowPeerIsHedged(t *testing.T) {
	w, r, rr := readerOf(t, 300)
	s := meet(t, rr, lengthOf(300))
	s.say(typeData, appendProof(nil, &prove(t, w, s.asked()).proof))
	s.say(typeRange, span{length: 300}.append(nil))
	s.asked() // and it never answers
	began := time.Now()
	recovers(t, w, r, rr)
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
	s.hears(typeCancel)
}

// A connection that is cut anywhere, again and again, loses nothing: what was
// stored before is not fetched again.
func TestCutAndResumed(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWriter(t, hypercore.Options{})
		n := rapid.Uint64Range(1, 700).Draw(rt, "blocks")
		fill(t, w, 0, n)
		r := newReader(t, w, hypercore.Options{})
		rw, rr := replicator(t, w, Options{}), replicator(t, r, Options{Full: true})
		for range rapid.IntRange(0, 5).Draw(rt, "cuts") {
			after := rapid.IntRange(1, 30000).Draw(rt, "after")
			cutWire(t, rw, rr, after)
			if rapid.Bool().Draw(rt, "grow") {
				fill(t, w, n, n+5)
				n += 5
			}
			if rapid.IntRange(0, 4).Draw(rt, "truncate") == 0 {
				n = rapid.Uint64Range(0, n).Draw(rt, "to")
				must(t, w.Truncate(n))
				fill(t, w, n+1000, n+1003)
				n += 3
			}
		}
		link(t, rw, rr)
		waitFor(t, r, func() bool { return r.Length() == n && r.Contiguous() == n && r.Fork() == w.Fork() })
		sameBlocks(t, w, r, 0, n)
		if w.TreeHash() != r.TreeHash() {
			t.Error("the trees differ")
		}
		rw.Close()
		rr.Close()
	})
}

// cutWire connects two replicators with a wire that breaks after so many bytes, and
// waits until it has.
func cutWire(t *testing.T, a, b *Replicator, after int) {
	t.Helper()
	one, two := conns(t)
	limited := &limitedConn{Conn: one, left: after}
	ended := make(chan struct{}, 2)
	serve := func(c secretstreamConn, initiator bool, r *Replicator) {
		defer func() { ended <- struct{}{} }()
		ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
		defer cancel()
		s, err := secretstream.Handshake(ctx, c, secretstream.Config{Initiator: initiator})
		if err != nil {
			return
		}
		m := protomux.New(s)
		if r.Open(m) == nil {
			m.Run(ctx)
		}
	}
	go serve(limited, true, a)
	go serve(two, false, b)
	<-ended
	one.Close()
	two.Close()
	<-ended
}

// A log of several signers passes from peer to peer, which check all signatures.
func TestSeveralSigners(t *testing.T) {
	pairs := []manifest.KeyPair{manifest.NewKeyPair([32]byte{1}), manifest.NewKeyPair([32]byte{2}), manifest.NewKeyPair([32]byte{3})}
	m := manifest.New(
		manifest.Signer{PublicKey: pairs[0].Public}, manifest.Signer{PublicKey: pairs[1].Public}, manifest.Signer{PublicKey: pairs[2].Public})
	w := newWriter(t, hypercore.Options{Manifest: &m})
	signed := func(blocks ...[]byte) {
		t.Helper()
		head, err := w.Draft(blocks...)
		must(t, err)
		var parts []manifest.Partial
		for _, pair := range pairs[1:] {
			part, err := m.Partial(w.Key(), pair, head)
			must(t, err)
			parts = append(parts, part)
		}
		signature, err := m.Assemble(parts...)
		must(t, err)
		_, err = w.AppendSigned(signature, blocks...)
		must(t, err)
	}
	signed(block(0), block(1), block(2))
	r := newReader(t, w, hypercore.Options{})
	_, rr := connect(t, w, Options{}, r, Options{Full: true})
	waitAll(t, r, 3)
	signed(block(3))
	waitAll(t, r, 4)
	last := newReader(t, w, hypercore.Options{})
	link(t, rr, replicator(t, last, Options{Full: true}))
	waitAll(t, last, 4)
	sameBlocks(t, w, last, 0, 4)

	o := startOriginal(t)
	o.reader(w)
	o.do("follow", args{"on": "log"})
	o.dial(rr)
	o.wait(4, 0, true)
	sameAs(t, o, w, 0, 4)
}

// A log that is fixed by its manifest needs no signature.
func TestPrologue(t *testing.T) {
	first := newWriter(t, hypercore.Options{})
	fill(t, first, 0, 9)
	pair := manifest.NewKeyPair([32]byte{7})
	m := manifest.Default(pair.Public)
	m.Prologue = &merkle.Prologue{Hash: first.TreeHash(), Length: 9}
	w := newWriter(t, hypercore.Options{Manifest: &m, KeyPair: &pair})
	fill(t, w, 0, 9)
	fill(t, w, 9, 20)
	r := newReader(t, w, hypercore.Options{})
	connect(t, w, Options{}, r, Options{Full: true})
	waitAll(t, r, 20)
	sameBlocks(t, w, r, 0, 20)
}

// The limits hold, and what is held back arrives.
func TestLimits(t *testing.T) {
	for _, name := range []string{"upload", "download"} {
		t.Run(name, func(t *testing.T) {
			w := newWriter(t, hypercore.Options{})
			blocks := make([][]byte, 60)
			for i := range blocks {
				blocks[i] = bytes.Repeat([]byte{byte(i)}, 10_000)
			}
			_, err := w.Append(blocks...)
			must(t, err)
			r := newReader(t, w, hypercore.Options{})
			limit := rate.NewLimiter(500_000, 100_000)
			wo, ro := Options{UploadLimit: limit}, Options{Full: true, MaxInFlight: 8}
			if name == "download" {
				wo, ro = Options{}, Options{Full: true, MaxInFlight: 8, DownloadLimit: limit}
			}
			began := time.Now()
			connect(t, w, wo, r, ro)
			waitAll(t, r, 60)
			if took := time.Since(began); took < 600*time.Millisecond {
				t.Errorf("600 kB at 500 kB/s took %v", took)
			}
		})
	}
}

// Many cores share a connection, and those that the other side opens first are
// found by their discovery keys.
func TestManyCores(t *testing.T) {
	wire := newWire(t)
	writers := map[[32]byte]*Replicator{}
	var pairs [][2]*hypercore.Core
	for range 50 {
		w := newWriter(t, hypercore.Options{})
		fill(t, w, 0, 20)
		writers[w.DiscoveryKey()] = replicator(t, w, Options{})
		r := newReader(t, w, hypercore.Options{})
		must(t, replicator(t, r, Options{Full: true}).Open(wire.b))
		pairs = append(pairs, [2]*hypercore.Core{w, r})
	}
	gone := make(chan error, 1)
	stranger := newReader(t, newWriter(t, hypercore.Options{}), hypercore.Options{})
	must(t, replicator(t, stranger, Options{OnGone: func(_ *Peer, reason error) { gone <- reason }}).Open(wire.b))
	Pair(wire.a, func(key [32]byte) (*Replicator, error) { return writers[key], nil })
	wire.run(t)
	for _, p := range pairs {
		waitAll(t, p[1], 20)
		sameBlocks(t, p[0], p[1], 0, 20)
	}
	if err := <-gone; err != protomux.ErrRejected {
		t.Errorf("got %v, want it to be rejected", err)
	}
}

// Every message of recorded conversations of the original is read, and written
// as it was.
func TestTranscripts(t *testing.T) {
	b, err := os.ReadFile("testdata/replication.json")
	must(t, err)
	var file struct {
		Scenarios []struct {
			Name   string
			Frames []struct{ Hex string }
		}
	}
	must(t, json.Unmarshal(b, &file))
	names := map[uint64]string{0: "sync", 1: "request", 2: "cancel", 3: "data", 4: "noData", 5: "want", 6: "unwant", 7: "bitfield", 8: "range", 9: "extension"}
	seen := map[string]int{}
	for _, s := range file.Scenarios {
		for _, f := range s.Frames {
			for _, m := range channelMessages(unhex(t, f.Hex)) {
				name := names[m.typ]
				again, err := recode(name, m.payload)
				if err != nil || !bytes.Equal(again, m.payload) {
					t.Errorf("%s: %s %x became %x, %v", s.Name, name, m.payload, again, err)
				}
				seen[name]++
			}
		}
	}
	if seen["data"] < 10 || seen["request"] < 10 || seen["sync"] < 10 {
		t.Errorf("few messages: %v", seen)
	}
}

// Replicate does it all for one core on one connection, and ends with it.
func TestReplicate(t *testing.T) {
	w := newWriter(t, hypercore.Options{})
	fill(t, w, 0, 10)
	r := newReader(t, w, hypercore.Options{})
	one, two := conns(t)
	ctx, stop := context.WithCancel(ctx(t))
	ended := make(chan error, 2)
	go func() { ended <- Replicate(ctx, one, true, w, Options{}) }()
	go func() { ended <- Replicate(context.Background(), two, false, r, Options{}) }()
	got, err := r.Get(ctx, 7)
	must(t, err)
	if !bytes.Equal(got, block(7)) {
		t.Errorf("got %q", got)
	}
	stop()
	<-ended
	<-ended
}

// Answers may come in any order, as the original's do: one whose proof ends at
// what another brings waits for that.
func TestAnswersOutOfOrder(t *testing.T) {
	for seed := range uint64(20) {
		w, r, rr := readerOf(t, 800)
		s := meet(t, rr, lengthOf(800))
		s.say(typeData, appendProof(nil, &prove(t, w, s.asked()).proof))
		s.say(typeRange, span{length: 800}.append(nil))
		shuffle := rand.New(rand.NewPCG(seed, 7))
		var waiting []request
		for r.Contiguous() < 800 {
			select {
			case m := <-s.got:
				if m.typ == typeRequest {
					q, err := decodeRequest(m.payload)
					must(t, err)
					waiting = append(waiting, q)
				}
				continue
			case <-time.After(2 * time.Millisecond): // no more are coming, or not soon
			}
			shuffle.Shuffle(len(waiting), func(i, j int) { waiting[i], waiting[j] = waiting[j], waiting[i] })
			keep := len(waiting) / 5
			for _, q := range waiting[keep:] {
				s.say(typeData, appendProof(nil, &prove(t, w, q).proof))
			}
			waiting = waiting[:keep]
		}
		sameBlocks(t, w, r, 0, 800)
		for held(rr) != 0 { // for the last batch to be settled
			time.Sleep(time.Millisecond)
		}
	}
}

// held is how many bytes of answers that came too early a replicator holds.
func held(r *Replicator) (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p := range r.peers {
		n += p.holding
	}
	return n
}
