package protocol

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hypercore"
)

// A block that is read comes, and no other.
func TestSparse(t *testing.T) {
	w := newWriter(t, hypercore.Options{})
	fill(t, w, 0, 1000)
	r := newReader(t, w, hypercore.Options{})
	connect(t, w, Options{}, r, Options{})
	for _, i := range []uint64{7, 999, 0, 500, 501, 502} {
		got, err := r.Get(ctx(t), i)
		must(t, err)
		if !bytes.Equal(got, block(i)) {
			t.Errorf("block %d is %q", i, got)
		}
	}
	if r.Has(8) || r.Has(998) {
		t.Error("blocks came that nobody asked for")
	}
	must(t, r.Download(ctx(t), hypercore.Range{Start: 100, End: 200}))
	if !r.HasAll(100, 200) || r.Has(200) {
		t.Error("a range is not what came")
	}
}

// A reader that waits for a block which is not written yet gets it.
func TestWaitsForTheNext(t *testing.T) {
	w := newWriter(t, hypercore.Options{})
	fill(t, w, 0, 10)
	r := newReader(t, w, hypercore.Options{})
	connect(t, w, Options{}, r, Options{})
	got := make(chan error, 1)
	go func() {
		b, err := r.Get(ctx(t), 12)
		if err == nil && !bytes.Equal(b, block(12)) {
			err = errors.New("another block")
		}
		got <- err
	}()
	waitFor(t, r, func() bool { return r.Length() == 10 })
	fill(t, w, 10, 12)
	fill(t, w, 12, 20)
	must(t, <-got)
}

// A reader that began to wait before there was any peer is served when one comes.
func TestWaitsForAPeer(t *testing.T) {
	w := newWriter(t, hypercore.Options{})
	fill(t, w, 0, 10)
	r := newReader(t, w, hypercore.Options{})
	got := make(chan error, 1)
	go func() {
		_, err := r.Get(ctx(t), 3)
		got <- err
	}()
	connect(t, w, Options{}, r, Options{})
	must(t, <-got)
}

// A Get that is given up leaves nothing behind.
func TestGivenUp(t *testing.T) {
	w := newWriter(t, hypercore.Options{})
	fill(t, w, 0, 10)
	r := newReader(t, w, hypercore.Options{})
	connect(t, w, Options{NoUpload: true}, r, Options{})
	short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := r.Get(short, 3); !errors.Is(err, cloudpal.Timeout) {
		t.Errorf("got %v, want a timeout", err)
	}
}

// Update tells whether there is more, and does not wait where there is not.
func TestUpdate(t *testing.T) {
	w := newWriter(t, hypercore.Options{})
	fill(t, w, 0, 10)
	r := newReader(t, w, hypercore.Options{})
	connect(t, w, Options{}, r, Options{})
	waitFor(t, r, func() bool { return r.Length() == 10 })
	more, err := r.Update(ctx(t))
	must(t, err)
	if more {
		t.Error("there was no more")
	}
	alone := newReader(t, w, hypercore.Options{})
	replicator(t, alone, Options{})
	_, err = alone.Update(ctx(t))
	must(t, err)
}

// A byte is found by hashes, with few blocks fetched.
func TestSeek(t *testing.T) {
	w := newWriter(t, hypercore.Options{})
	fill(t, w, 0, 3000)
	r := newReader(t, w, hypercore.Options{})
	connect(t, w, Options{}, r, Options{})
	waitFor(t, r, func() bool { return r.Length() == 3000 })
	for _, at := range []uint64{0, 1, 2000, 20000, w.ByteLength() - 1, w.ByteLength()} {
		i, offset, err := r.Seek(ctx(t), at)
		must(t, err)
		wi, woffset, err := w.Seek(ctx(t), at)
		must(t, err)
		if i != wi || offset != woffset {
			t.Errorf("byte %d is in block %d at %d, want %d at %d", at, i, offset, wi, woffset)
		}
	}
	if _, _, err := r.Seek(ctx(t), w.ByteLength()+1); !errors.Is(err, cloudpal.NotExist) {
		t.Errorf("got %v, want it not to exist", err)
	}
	if _, ok := r.NextPresent(0, 3000); ok {
		t.Error("blocks were fetched")
	}
}

// Encrypted blocks pass through a peer that cannot read them.
func TestEncrypted(t *testing.T) {
	secret := &hypercore.Encryption{Key: [32]byte{1, 2, 3}}
	w := newWriter(t, hypercore.Options{Encryption: secret})
	fill(t, w, 0, 500)
	blind := newReader(t, w, hypercore.Options{})
	r := newReader(t, w, hypercore.Options{Encryption: secret})
	_, rb := connect(t, w, Options{}, blind, Options{Full: true})
	waitAll(t, blind, 500)
	rr := replicator(t, r, Options{})
	link(t, rb, rr)
	waitFor(t, r, func() bool { return r.Length() == 500 })
	i, offset, err := r.Seek(ctx(t), 3000)
	must(t, err)
	wi, woffset, err := w.Seek(ctx(t), 3000)
	must(t, err)
	if i != wi || offset != woffset {
		t.Errorf("byte 3000 is in block %d at %d, want %d at %d", i, offset, wi, woffset)
	}
	must(t, r.Download(ctx(t), hypercore.Range{End: 500}))
	sameBlocks(t, w, r, 0, 500)
	if b, err := blind.Local(3); err != nil || bytes.Contains(b, []byte("block")) {
		t.Errorf("the peer without the key has %q, %v", b, err)
	}
}

// A writer that truncates and goes on takes its readers along, who keep what both
// logs have in common.
func TestFork(t *testing.T) {
	w := newWriter(t, hypercore.Options{})
	fill(t, w, 0, 1000)
	r := newReader(t, w, hypercore.Options{})
	connect(t, w, Options{}, r, Options{Full: true})
	waitAll(t, r, 1000)
	must(t, w.Truncate(613))
	fill(t, w, 5000, 5500)
	waitFor(t, r, func() bool { return r.Fork() == 1 && r.Length() == 1113 && r.Contiguous() == 1113 })
	sameBlocks(t, w, r, 0, 1113)
	if w.TreeHash() != r.TreeHash() {
		t.Error("the trees differ")
	}
}

// A reader that was away while the writer truncated keeps exactly what is in
// common: nothing of it is fetched again.
func TestForkWhileAway(t *testing.T) {
	w := newWriter(t, hypercore.Options{})
	fill(t, w, 0, 1000)
	r := newReader(t, w, hypercore.Options{})
	rw, rr := connect(t, w, Options{}, r, Options{Full: true})
	waitAll(t, r, 1000)
	rw.Close()
	rr.Close()
	must(t, w.Truncate(613))
	fill(t, w, 5000, 5500)

	var common uint64
	stop := r.Watch(func(e hypercore.Event) {
		if e.Kind.Has(hypercore.Truncated) {
			common = e.Start
		}
	})
	defer stop()
	connect(t, w, Options{}, r, Options{Full: true})
	waitFor(t, r, func() bool { return r.Fork() == 1 && r.Contiguous() == 1113 })
	sameBlocks(t, w, r, 0, 1113)
	if common != 613 {
		t.Errorf("%d blocks were found in common, want 613", common)
	}
}

// A writer that truncates to nothing and starts again.
func TestForkToNothing(t *testing.T) {
	w := newWriter(t, hypercore.Options{})
	fill(t, w, 0, 10)
	r := newReader(t, w, hypercore.Options{})
	connect(t, w, Options{}, r, Options{Full: true})
	waitAll(t, r, 10)
	must(t, w.Truncate(0))
	fill(t, w, 100, 103)
	waitFor(t, r, func() bool { return r.Fork() == 1 && r.Contiguous() == 3 })
	sameBlocks(t, w, r, 0, 3)
}

// A reader whose peer has only some blocks gets those, and the others from one
// who comes later.
func TestPartialPeers(t *testing.T) {
	w := newWriter(t, hypercore.Options{})
	fill(t, w, 0, 1000)
	half := newReader(t, w, hypercore.Options{})
	rw, rh := connect(t, w, Options{}, half, Options{})
	must(t, half.Download(ctx(t), hypercore.Range{Start: 300, End: 600}))
	r := newReader(t, w, hypercore.Options{})
	rr := replicator(t, r, Options{Full: true})
	link(t, rh, rr)
	waitFor(t, r, func() bool { return r.HasAll(300, 600) })
	if r.Has(299) || r.Has(600) {
		t.Error("blocks came from nowhere")
	}
	link(t, rw, rr)
	waitAll(t, r, 1000)
	sameBlocks(t, w, r, 0, 1000)
}

// News reach those who are connected only to readers.
func TestChainIsLive(t *testing.T) {
	w := newWriter(t, hypercore.Options{})
	middle, end := newReader(t, w, hypercore.Options{}), newReader(t, w, hypercore.Options{})
	_, rm := connect(t, w, Options{}, middle, Options{Full: true})
	link(t, rm, replicator(t, end, Options{Full: true}))
	for i := range uint64(50) {
		fill(t, w, i, i+1)
	}
	waitAll(t, end, 50)
	sameBlocks(t, w, end, 0, 50)
}

// Clearing tells the peers, who ask elsewhere.
func TestClear(t *testing.T) {
	w := newWriter(t, hypercore.Options{})
	fill(t, w, 0, 100)
	r := newReader(t, w, hypercore.Options{})
	connect(t, w, Options{}, r, Options{})
	waitFor(t, r, func() bool { return r.Length() == 100 })
	must(t, w.Clear(40, 60))
	short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := r.Get(short, 50); !errors.Is(err, cloudpal.Timeout) {
		t.Errorf("got %v", err)
	}
	for _, i := range []uint64{39, 60} {
		_, err := r.Get(ctx(t), i)
		must(t, err)
	}
}

// The switches: who does not upload refuses, who does not download asks nothing,
// and both can change their minds.
func TestSwitches(t *testing.T) {
	w := newWriter(t, hypercore.Options{})
	fill(t, w, 0, 100)
	r := newReader(t, w, hypercore.Options{})
	rw, rr := connect(t, w, Options{NoUpload: true}, r, Options{Full: true, NoDownload: true})
	_, err := r.Update(ctx(t))
	must(t, err)
	if r.Length() != 0 {
		t.Error("it asked")
	}
	rw.SetUpload(true)
	rr.SetDownload(true)
	waitAll(t, r, 100)
	rr.SetDownload(false)
	fill(t, w, 100, 110)
	rr.SetDownload(true)
	waitAll(t, r, 110)
}

// Extension messages go both ways, in order.
func TestExtension(t *testing.T) {
	w := newWriter(t, hypercore.Options{})
	r := newReader(t, w, hypercore.Options{})
	ra, rb := replicator(t, w, Options{}), replicator(t, r, Options{})
	got := make(chan string, 10)
	echo := make(chan string, 10)
	var xb *Extension
	xb = rb.RegisterExtension("echo", func(p *Peer, m []byte) {
		got <- string(m)
		if err := xb.Send(p, append([]byte("re: "), m...)); err != nil {
			t.Error(err)
		}
	})
	xa := ra.RegisterExtension("echo", func(_ *Peer, m []byte) { echo <- string(m) })
	link(t, ra, rb)
	for len(ra.Peers()) == 0 {
		time.Sleep(time.Millisecond)
	}
	for _, s := range []string{"one", "two", "three"} {
		xa.Broadcast([]byte(s))
	}
	for _, want := range []string{"one", "two", "three"} {
		if s := <-got; s != want {
			t.Errorf("got %q, want %q", s, want)
		}
		if s := <-echo; s != "re: "+want {
			t.Errorf("got %q, want %q", s, "re: "+want)
		}
	}
	big := make([]byte, 5<<20)
	if err := xa.Send(ra.Peers()[0], big); !errors.Is(err, cloudpal.Busy) {
		t.Errorf("got %v, want it to be too much", err)
	}
}

// The original's scenarios: sparse reads, seeks and forks, with each side as the
// writer.
func TestReadsTheOriginalSparse(t *testing.T) {
	o := startOriginal(t)
	c := openKey(t, o.writer(1000), hypercore.Options{})
	o.dial(replicator(t, c, Options{}))
	for _, i := range []uint64{999, 3, 500} {
		got, err := c.Get(ctx(t), i)
		must(t, err)
		if want := o.blocks(i, i+1)[0]; !bytes.Equal(got, want) {
			t.Errorf("block %d is %q, want %q", i, got, want)
		}
	}
	if c.Has(4) {
		t.Error("a block came that nobody asked for")
	}
	for _, at := range []uint64{0, 777, 9000} {
		want := o.do("seek", args{"on": "log", "bytes": at}).At
		i, offset, err := c.Seek(ctx(t), at)
		must(t, err)
		if i != want[0] || offset != want[1] {
			t.Errorf("byte %d is in block %d at %d, the original says %v", at, i, offset, want)
		}
	}
}

func TestTheOriginalReadsSparse(t *testing.T) {
	w := newWriter(t, hypercore.Options{})
	fill(t, w, 0, 1000)
	o := startOriginal(t)
	o.reader(w)
	o.dial(replicator(t, w, Options{}))
	for _, i := range []uint64{999, 3, 500} {
		if got := o.blocks(i, i+1)[0]; !bytes.Equal(got, block(i)) {
			t.Errorf("block %d is %q", i, got)
		}
	}
	for _, at := range []uint64{0, 777, 8000} {
		i, offset, err := w.Seek(ctx(t), at)
		must(t, err)
		if got := o.do("seek", args{"on": "log", "bytes": at}).At; got[0] != i || got[1] != offset {
			t.Errorf("byte %d is at %v for the original, want %d at %d", at, got, i, offset)
		}
	}
	o.do("download", args{"on": "log", "start": 200, "end": 300})
	sameAs(t, o, w, 200, 300)
}

func TestReadsTheOriginalsFork(t *testing.T) {
	o := startOriginal(t)
	c := openKey(t, o.writer(600), hypercore.Options{})
	o.dial(replicator(t, c, Options{Full: true}))
	waitAll(t, c, 600)
	o.do("truncate", args{"on": "log", "length": 333})
	o.append("a", "b", "c")
	waitFor(t, c, func() bool { return c.Fork() == 1 && c.Length() == 336 && c.Contiguous() == 336 })
	sameAs(t, o, c, 300, 336)
}

func TestTheOriginalReadsOurFork(t *testing.T) {
	w := newWriter(t, hypercore.Options{})
	fill(t, w, 0, 600)
	o := startOriginal(t)
	o.reader(w)
	o.do("follow", args{"on": "log"})
	o.dial(replicator(t, w, Options{}))
	o.wait(600, 0, true)
	must(t, w.Truncate(333))
	fill(t, w, 900, 903)
	o.wait(336, 1, true)
	sameAs(t, o, w, 300, 336)
}

// A reader of ours that has some blocks gets the rest from the original, and the
// other way round: each needs the other's second sync.
func TestSecondSync(t *testing.T) {
	o := startOriginal(t)
	c := openKey(t, o.writer(100), hypercore.Options{})
	m := o.dial(replicator(t, c, Options{Full: true}))
	waitAll(t, c, 100)
	m.Conn().Close()
	o.fill(100)
	o.dial(replicator(t, c, Options{Full: true}))
	waitAll(t, c, 200)

	w := newWriter(t, hypercore.Options{})
	fill(t, w, 0, 100)
	js := startOriginal(t)
	js.reader(w)
	js.do("follow", args{"on": "log"})
	m = js.dial(replicator(t, w, Options{}))
	js.wait(100, 0, true)
	m.Conn().Close()
	fill(t, w, 100, 200)
	js.dial(replicator(t, w, Options{}))
	js.wait(200, 0, true)
}

// Three peers of both kinds: what the original writes reaches the original
// through ours.
func TestThroughUs(t *testing.T) {
	first, last := startOriginal(t), startOriginal(t)
	c := openKey(t, first.writer(300), hypercore.Options{})
	key := c.Key()
	last.do("core", args{"as": "log", "on": "store", "key": hex.EncodeToString(key[:])})
	last.do("follow", args{"on": "log"})
	r := replicator(t, c, Options{Full: true})
	first.dial(r)
	last.dial(r)
	last.wait(300, 0, true)
	first.append("news")
	last.wait(301, 0, true)
	sameAs(t, last, c, 0, 301)
}

// An original that has only some blocks tells which with bits, and so do we.
func TestPartialPeersOfBothKinds(t *testing.T) {
	w := newWriter(t, hypercore.Options{})
	fill(t, w, 0, 1000)
	o := startOriginal(t)
	o.reader(w)
	m := o.dial(replicator(t, w, Options{}))
	o.do("download", args{"on": "log", "start": 300, "end": 600})
	o.do("download", args{"on": "log", "start": 700, "end": 703})
	m.Conn().Close()
	r := newReader(t, w, hypercore.Options{})
	rr := replicator(t, r, Options{Full: true})
	o.dial(rr)
	waitFor(t, r, func() bool { return r.HasAll(300, 600) && r.HasAll(700, 703) })
	sameBlocks(t, w, r, 300, 600)

	other := startOriginal(t)
	other.reader(w)
	other.dial(rr)
	blocksAs(t, other, r, 350, 370)
	blocksAs(t, other, r, 700, 703)
}

// Encrypted logs pass both ways, to peers with and without the key.
func TestEncryptedOfBothKinds(t *testing.T) {
	secret := &hypercore.Encryption{Key: [32]byte{1, 2, 3}}
	encryption := hex.EncodeToString(secret.Key[:])
	w := newWriter(t, hypercore.Options{Encryption: secret})
	fill(t, w, 0, 200)
	key := w.Key()
	o := startOriginal(t)
	o.do("core", args{"as": "log", "on": "store", "key": hex.EncodeToString(key[:]), "encryptionKey": encryption})
	blind := newReader(t, w, hypercore.Options{})
	_, rb := connect(t, w, Options{}, blind, Options{Full: true})
	waitAll(t, blind, 200)
	o.dial(rb)
	sameAs(t, o, w, 0, 200)
	for _, at := range []uint64{1, 700, 1500} {
		i, offset, err := w.Seek(ctx(t), at)
		must(t, err)
		if got := o.do("seek", args{"on": "log", "bytes": at}).At; got[0] != i || got[1] != offset {
			t.Errorf("byte %d is at %v for the original, want %d at %d", at, got, i, offset)
		}
	}

	theirs := startOriginal(t)
	s := theirs.do("core", args{"as": "log", "on": "store", "name": "log", "encryptionKey": encryption})
	theirs.fill(100)
	c := openKey(t, keyOf(t, s.Key), hypercore.Options{Encryption: secret})
	theirs.dial(replicator(t, c, Options{Full: true}))
	waitAll(t, c, 100)
	sameAs(t, theirs, c, 0, 100)
}

// Extension messages go to and from the original.
func TestExtensionOfTheOriginal(t *testing.T) {
	o := startOriginal(t)
	c := openKey(t, o.writer(3), hypercore.Options{})
	o.do("extension", args{"on": "log", "name": "chat"})
	r := replicator(t, c, Options{})
	got := make(chan string, 3)
	x := r.RegisterExtension("chat", func(_ *Peer, m []byte) { got <- string(m) })
	o.dial(r)
	waitFor(t, c, func() bool { return c.Length() == 3 })
	for _, s := range []string{"one", "two"} {
		x.Broadcast([]byte(s))
		o.do("broadcast", args{"on": "log", "name": "chat", "data": []byte("re: " + s)})
		if m := <-got; m != "re: "+s {
			t.Errorf("got %q", m)
		}
	}
	said := o.do("received", args{"on": "log", "name": "chat", "count": 2}).Blocks
	if len(said) != 2 || said[0] != "b25l" || said[1] != "dHdv" {
		t.Errorf("the original got %q", said)
	}
}
