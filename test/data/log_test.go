package data_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"github.com/tradle/cloudpal/data/corestore"
	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/manifest"
	"github.com/tradle/cloudpal/data/merkle"
	"github.com/tradle/cloudpal/data/protocol"
	"github.com/tradle/cloudpal/data/protomux"
	"github.com/tradle/cloudpal/data/secretstream"
	"github.com/tradle/cloudpal/data/storage"
)

// theirStore starts a JavaScript peer that has a store.
func theirStore(t *testing.T) *peer {
	t.Helper()
	p := startPeer(t)
	p.do("store", q{"as": "store", "dir": t.TempDir()})
	return p
}

// TestLogToJavaScript has the original read what we wrote, and what we write
// while it looks on.
func TestLogToJavaScript(t *testing.T) {
	us, them := newOurs(t), theirStore(t)
	log := us.log("log")
	want := blocksOf(0, 150)
	_, err := log.Append(want...)
	must(t, err)
	them.do("core", q{"as": "log", "on": "store", "key": hexKey(log.Key())})
	them.do("follow", q{"on": "log"})
	them.dial(us.listen(), "store")
	them.wait("log", 150, 0, true)
	same(t, "JavaScript", them.blocks("log", 0, 150), want)
	for i := 150; i < 160; i++ {
		_, err := log.Append(block(i))
		must(t, err)
		them.wait("log", uint64(i+1), 0, true)
	}
	got := ask[coreInfo](them, "info", q{"on": "log"})
	if got.ByteLength != log.ByteLength() {
		t.Errorf("JavaScript counts %d bytes, we %d", got.ByteLength, log.ByteLength())
	}
	if !bytes.Equal(got.Signature, log.Signature()) {
		t.Errorf("signatures differ: JavaScript has %x, we %x", got.Signature, log.Signature())
	}
	if h := them.treeHash("log", 160); h != hashOf(log) {
		t.Errorf("tree hashes differ: JavaScript's %s, ours %s", h, hashOf(log))
	}
}

// TestLogFromJavaScript is the other way round.
func TestLogFromJavaScript(t *testing.T) {
	us, them := newOurs(t), theirStore(t)
	info := ask[coreInfo](them, "core", q{"as": "log", "on": "store", "name": "log"})
	want := blocksOf(0, 160)
	them.do("append", q{"on": "log", "blocks": want[:150]})
	log := us.theirs(info.Key)
	us.dial(them.listen("store"))
	await(t, log, 150, 0, true)
	for i := 150; i < 160; i++ {
		them.do("append", q{"on": "log", "blocks": want[i : i+1]})
		await(t, log, uint64(i+1), 0, true)
	}
	same(t, "our reader", read(t, log, 0, 160), want)
	if h := them.treeHash("log", 160); h != hashOf(log) {
		t.Errorf("tree hashes differ: JavaScript's %s, ours %s", h, hashOf(log))
	}
	audit(t, log)
}

// audit verifies all that is kept of a log.
func audit(t testing.TB, c *hypercore.Core) {
	t.Helper()
	a, err := c.Audit(soon(t), nil)
	must(t, err)
	if len(a.Faults) > 0 {
		t.Errorf("the audit found %v", a.Faults)
	}
}

// TestEncryptedLog goes both ways through a peer of the other kind that does not
// have the key of the blocks, and so can relay but not read them.
func TestEncryptedLog(t *testing.T) {
	key := bytes.Repeat([]byte{9}, 32)
	encryption := &hypercore.Encryption{Key: [32]byte(key)}
	want := blocksOf(0, 40)
	t.Run("ours", func(t *testing.T) {
		us, them, reader := newOurs(t), theirStore(t), newOurs(t)
		log := us.open(corestore.CoreOptions{Name: "log", Encryption: encryption})
		_, err := log.Append(want...)
		must(t, err)
		them.do("core", q{"as": "blind", "on": "store", "key": hexKey(log.Key())})
		them.do("follow", q{"on": "blind"})
		them.dial(us.listen(), "store")
		them.wait("blind", 40, 0, true)
		us.hangUp()
		if b := them.blocks("blind", 5, 6)[0]; bytes.Contains(b, []byte("block")) || len(b) != len(want[5])+8 {
			t.Errorf("who has no key sees %q", b)
		}
		them.do("core", q{"as": "log", "on": "store", "key": hexKey(log.Key()), "encryptionKey": hex.EncodeToString(key)})
		same(t, "JavaScript with the key", them.blocks("log", 0, 40), want)
		if i := ask[coreInfo](them, "info", q{"on": "log"}); i.ByteLength != log.ByteLength() {
			t.Errorf("JavaScript counts %d bytes, we %d", i.ByteLength, log.ByteLength())
		}
		far := reader.open(corestore.CoreOptions{Key: keyOf(t, hexKey(log.Key())), Encryption: encryption})
		reader.dial(them.listen("store"))
		await(t, far, 40, 0, true)
		same(t, "ours behind JavaScript", read(t, far, 0, 40), want)
	})
	t.Run("JavaScript's", func(t *testing.T) {
		us, them, reader := newOurs(t), theirStore(t), theirStore(t)
		info := ask[coreInfo](them, "core", q{"as": "log", "on": "store", "name": "log", "encryptionKey": hex.EncodeToString(key)})
		them.do("append", q{"on": "log", "blocks": want})
		blind := us.theirs(info.Key)
		us.dial(them.listen("store"))
		await(t, blind, 40, 0, true)
		us.hangUp()
		if b := read(t, blind, 5, 6)[0]; bytes.Contains(b, []byte("block")) || len(b) != len(want[5])+8 {
			t.Errorf("who has no key sees %q", b)
		}
		log := us.open(corestore.CoreOptions{Key: keyOf(t, info.Key), Encryption: encryption})
		same(t, "we with the key", read(t, log, 0, 40), want)
		reader.do("core", q{"as": "log", "on": "store", "key": info.Key, "encryptionKey": hex.EncodeToString(key)})
		reader.dial(us.listen(), "store")
		same(t, "JavaScript behind us", reader.blocks("log", 0, 40), want)
	})
}

// signers are three key pairs, and the manifest that wants two of them.
func signers(version uint64) (m manifest.Manifest, pairs []manifest.KeyPair, seeds []string, forJS q) {
	m = manifest.Manifest{Version: version, Quorum: 2}
	var all []q
	for i := range 3 {
		seed := [32]byte{byte(i + 1)}
		pair := manifest.NewKeyPair(seed)
		s := manifest.Signer{Namespace: [32]byte{7, byte(i)}, PublicKey: pair.Public}
		m.Signers, pairs = append(m.Signers, s), append(pairs, pair)
		seeds = append(seeds, hex.EncodeToString(seed[:]))
		all = append(all, q{"publicKey": hex.EncodeToString(s.PublicKey[:]), "namespace": hex.EncodeToString(s.Namespace[:])})
	}
	return m, pairs, seeds, q{"version": version, "quorum": 2, "signers": all}
}

// TestMultiSigner has logs that two of three must sign, signed by one side and
// read by the other.
func TestMultiSigner(t *testing.T) {
	for _, v := range []uint64{0, 1} {
		m, pairs, seeds, forJS := signers(v)
		t.Run(fmt.Sprintf("ours, version %d", v), func(t *testing.T) {
			us, them := newOurs(t), theirStore(t)
			log := us.open(corestore.CoreOptions{Manifest: &m})
			for i := 0; i < 30; i += 10 {
				cosigned(t, log, m, pairs[1:], blocksOf(i, i+10)...)
			}
			info := ask[coreInfo](them, "core", q{"as": "log", "on": "store", "key": hexKey(m.Key())})
			if info.Key != hexKey(log.Key()) {
				t.Fatalf("JavaScript's key is %s, ours %s", info.Key, hexKey(log.Key()))
			}
			them.dial(us.listen(), "store")
			them.wait("log", 30, 0, false)
			same(t, "JavaScript", them.blocks("log", 0, 30), blocksOf(0, 30))
		})
		t.Run(fmt.Sprintf("JavaScript's, version %d", v), func(t *testing.T) {
			us, them := newOurs(t), theirStore(t)
			info := ask[coreInfo](them, "core", q{"as": "log", "on": "store", "manifest": forJS})
			if info.Key != hexKey(m.Key()) {
				t.Fatalf("JavaScript's key is %s, ours %s", info.Key, hexKey(m.Key()))
			}
			for i := 0; i < 30; i += 10 {
				them.do("append", q{"on": "log", "blocks": blocksOf(i, i+10), "seeds": seeds[:2]})
			}
			log := us.theirs(info.Key)
			us.dial(them.listen("store"))
			await(t, log, 30, 0, true)
			same(t, "our reader", read(t, log, 0, 30), blocksOf(0, 30))
			audit(t, log)
		})
	}
}

// cosigned appends blocks that the key pairs sign together.
func cosigned(t testing.TB, c *hypercore.Core, m manifest.Manifest, pairs []manifest.KeyPair, blocks ...[]byte) {
	t.Helper()
	head, err := c.Draft(blocks...)
	must(t, err)
	var parts []manifest.Partial
	for _, pair := range pairs {
		part, err := m.Partial(m.Key(), pair, head)
		must(t, err)
		parts = append(parts, part)
	}
	signature, err := m.Assemble(parts...)
	must(t, err)
	_, err = c.AppendSigned(signature, blocks...)
	must(t, err)
}

// TestSparse reads a few blocks of many, and only those come.
func TestSparse(t *testing.T) {
	const length = 3000
	rng := rand.New(rand.NewPCG(1, 2))
	wanted := rng.Perm(length)[:40]
	t.Run("JavaScript reads", func(t *testing.T) {
		us, them := newOurs(t), theirStore(t)
		log := us.log("log")
		_, err := log.Append(blocksOf(0, length)...)
		must(t, err)
		them.do("core", q{"as": "log", "on": "store", "key": hexKey(log.Key())})
		them.dial(us.listen(), "store")
		for _, i := range wanted {
			same(t, "JavaScript", them.blocks("log", uint64(i), uint64(i+1)), blocksOf(i, i+1))
		}
		got := 0
		for i := range length {
			if ask[struct{ Has bool }](them, "has", q{"on": "log", "start": i, "end": i + 1}).Has {
				got++
			}
		}
		// The newest one may come by itself.
		if got < len(wanted) || got > len(wanted)+1 {
			t.Errorf("JavaScript has %d blocks, of %d it asked for", got, len(wanted))
		}
	})
	t.Run("we read", func(t *testing.T) {
		us, them := newOurs(t), theirStore(t)
		info := ask[coreInfo](them, "core", q{"as": "log", "on": "store", "name": "log"})
		them.do("append", q{"on": "log", "blocks": blocksOf(0, length)})
		log := us.theirs(info.Key)
		us.dial(them.listen("store"))
		await(t, log, length, 0, false)
		for _, i := range wanted {
			same(t, "our reader", read(t, log, uint64(i), uint64(i+1)), blocksOf(i, i+1))
		}
		got := 0
		for i := range uint64(length) {
			if log.Has(i) {
				got++
			}
		}
		if got < len(wanted) || got > len(wanted)+1 {
			t.Errorf("we have %d blocks, of %d we asked for", got, len(wanted))
		}
		audit(t, log)
	})
}

// TestSeek finds bytes in logs whose blocks are elsewhere.
func TestSeek(t *testing.T) {
	const length = 700
	us, them := newOurs(t), theirStore(t)
	log := us.log("log")
	_, err := log.Append(blocksOf(0, length)...)
	must(t, err)
	info := ask[coreInfo](them, "core", q{"as": "theirs", "on": "store", "name": "log"})
	them.do("append", q{"on": "theirs", "blocks": blocksOf(0, length)})
	them.do("core", q{"as": "log", "on": "store", "key": hexKey(log.Key())})
	far := us.theirs(info.Key)
	us.dial(them.listen("store"))
	await(t, far, length, 0, false)
	them.wait("log", length, 0, false)
	rng := rand.New(rand.NewPCG(3, 4))
	for range 25 {
		at := rng.Uint64N(log.ByteLength())
		index, offset := whereIs(at)
		i, o, err := far.Seek(soon(t), at)
		if err != nil || i != index || o != offset {
			t.Errorf("we find byte %d at %d+%d (%v), want %d+%d", at, i, o, err, index, offset)
		}
		got := ask[struct{ At []uint64 }](them, "seek", q{"on": "log", "bytes": at}).At
		if len(got) != 2 || got[0] != index || got[1] != offset {
			t.Errorf("JavaScript finds byte %d at %v, want %d+%d", at, got, index, offset)
		}
	}
	start, n := log.ByteLength()/3, uint64(200_000)
	stream := ask[struct{ Block []byte }](them, "byteStream", q{"on": "log", "start": start, "bytes": n}).Block
	whole := bytes.Join(blocksOf(0, length), nil)
	if !bytes.Equal(stream, whole[start:start+n]) {
		t.Errorf("JavaScript's byte stream gave %d bytes, not those at %d", len(stream), start)
	}
}

// whereIs is where a byte of the tests' blocks is.
func whereIs(at uint64) (index, offset uint64) {
	for i := 0; ; i++ {
		n := uint64(len(block(i)))
		if at < n {
			return uint64(i), at
		}
		at -= n
	}
}

// other is what a block is after its log was cut and went on.
func other(start, end int) (all [][]byte) {
	for i := start; i < end; i++ {
		all = append(all, fmt.Appendf(nil, "another block %d", i))
	}
	return all
}

// TestTruncate cuts logs, which then go on otherwise. The reader of the other
// kind follows: while it is connected, and when it comes back.
func TestTruncate(t *testing.T) {
	for _, connected := range []bool{true, false} {
		name := map[bool]string{true: ", connected", false: ", come back"}[connected]
		t.Run("JavaScript follows"+name, func(t *testing.T) {
			us, them := newOurs(t), theirStore(t)
			log := us.log("log")
			_, err := log.Append(blocksOf(0, 100)...)
			must(t, err)
			them.do("core", q{"as": "log", "on": "store", "key": hexKey(log.Key())})
			them.do("follow", q{"on": "log"})
			port := us.listen()
			them.dial(port, "store")
			them.wait("log", 100, 0, true)
			want := blocksOf(0, 100)
			for i, cut := range []int{60, 97, 13} {
				if !connected {
					us.hangUp()
				}
				must(t, log.Truncate(uint64(cut)))
				want = append(want[:cut:cut], other(cut, 100+i)...)
				_, err := log.Append(want[cut:]...)
				must(t, err)
				if !connected {
					them.dial(port, "store")
				}
				them.wait("log", uint64(100+i), uint64(i+1), true)
				same(t, "JavaScript", them.blocks("log", 0, uint64(100+i)), want)
				if h := them.treeHash("log", uint64(100+i)); h != hashOf(log) {
					t.Errorf("tree hashes differ: JavaScript's %s, ours %s", h, hashOf(log))
				}
			}
		})
		t.Run("we follow"+name, func(t *testing.T) {
			us, them := newOurs(t), theirStore(t)
			info := ask[coreInfo](them, "core", q{"as": "log", "on": "store", "name": "log"})
			want := blocksOf(0, 100)
			them.do("append", q{"on": "log", "blocks": want})
			log := us.theirs(info.Key)
			port := them.listen("store")
			us.dial(port)
			await(t, log, 100, 0, true)
			for i, cut := range []int{60, 97, 13} {
				if !connected {
					us.hangUp()
				}
				them.do("truncate", q{"on": "log", "length": cut})
				want = append(want[:cut:cut], other(cut, 100+i)...)
				them.do("append", q{"on": "log", "blocks": want[cut:]})
				if !connected {
					us.dial(port)
				}
				await(t, log, uint64(100+i), uint64(i+1), true)
				same(t, "our reader", read(t, log, 0, uint64(100+i)), want)
				if h := them.treeHash("log", uint64(100+i)); h != hashOf(log) {
					t.Errorf("tree hashes differ: JavaScript's %s, ours %s", h, hashOf(log))
				}
				audit(t, log)
			}
		})
	}
}

// TestShorter cuts a log that does not go on: the new one is shorter than what
// readers have.
func TestShorter(t *testing.T) {
	us, them := newOurs(t), theirStore(t)
	log := us.log("log")
	_, err := log.Append(blocksOf(0, 50)...)
	must(t, err)
	info := ask[coreInfo](them, "core", q{"as": "theirs", "on": "store", "name": "log"})
	them.do("append", q{"on": "theirs", "blocks": blocksOf(0, 50)})
	them.do("core", q{"as": "log", "on": "store", "key": hexKey(log.Key())})
	them.do("follow", q{"on": "log"})
	far := us.theirs(info.Key)
	us.dial(them.listen("store"))
	await(t, far, 50, 0, true)
	them.wait("log", 50, 0, true)
	must(t, log.Truncate(20))
	them.do("truncate", q{"on": "theirs", "length": 20})
	await(t, far, 20, 1, true)
	them.wait("log", 20, 1, true)
	same(t, "our reader", read(t, far, 0, 20), blocksOf(0, 20))
	same(t, "JavaScript", them.blocks("log", 0, 20), blocksOf(0, 20))
	audit(t, far)
}

// TestExtensions sends messages beside a log that is replicated alone, without a
// store, both ways.
func TestExtensions(t *testing.T) {
	disk, err := storage.Open(t.TempDir(), storage.Options{})
	must(t, err)
	defer disk.Close()
	log, err := hypercore.Create(disk, hypercore.Options{})
	must(t, err)
	defer log.Close()
	_, err = log.Append([]byte("x"))
	must(t, err)
	r := protocol.NewReplicator(log, protocol.Options{})
	defer r.Close()
	got := make(chan string, 10)
	ext := r.RegisterExtension("chat", func(_ *protocol.Peer, m []byte) { got <- string(m) })

	them := startPeer(t)
	them.do("log", q{"as": "log", "dir": t.TempDir(), "key": hexKey(log.Key())})
	them.do("extension", q{"on": "log", "name": "chat"})
	conn, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", them.listen("log")))
	must(t, err)
	stream, err := secretstream.Handshake(soon(t), conn, secretstream.Config{Initiator: true})
	must(t, err)
	mux := protomux.New(stream)
	must(t, r.Open(mux))
	ended := make(chan error)
	go func() { ended <- mux.Run(context.Background()) }()
	defer func() { mux.Close(); <-ended }()
	them.wait("log", 1, 0, false)
	them.do("broadcast", q{"on": "log", "name": "chat", "data": []byte("hello from JavaScript")})
	select {
	case m := <-got:
		if m != "hello from JavaScript" {
			t.Errorf("we heard %q", m)
		}
	case <-time.After(patience):
		t.Fatal("we heard nothing")
	}
	ext.Broadcast([]byte("hello from us"))
	heard := ask[blocks](them, "received", q{"on": "log", "name": "chat", "count": 1}).Blocks
	same(t, "JavaScript", heard, [][]byte{[]byte("hello from us")})
}

// TestStaticLog has logs that nobody can write any more: their key is the hash
// of what they hold.
func TestStaticLog(t *testing.T) {
	us, them := newOurs(t), theirStore(t)
	them.do("core", q{"as": "log", "on": "store", "name": "log"})
	them.do("append", q{"on": "log", "blocks": blocksOf(0, 33)})
	info := ask[coreInfo](them, "staticify", q{"as": "static", "on": "log", "store": "store"})
	log := us.theirs(info.Key)
	us.dial(them.listen("store"))
	await(t, log, 33, 0, true)
	same(t, "our reader", read(t, log, 0, 33), blocksOf(0, 33))
	audit(t, log)

	mine := us.log("log")
	_, err := mine.Append(blocksOf(0, 33)...)
	must(t, err)
	m := manifest.Static(merkle.Prologue{Hash: mine.TreeHash(), Length: 33})
	if hexKey(m.Key()) != info.Key {
		t.Errorf("the key of the same 33 blocks is %s for us, %s for JavaScript", hexKey(m.Key()), info.Key)
	}

	// One of ours, read by JavaScript.
	_, err = mine.Append(block(33))
	must(t, err)
	m = manifest.Static(merkle.Prologue{Hash: mine.TreeHash(), Length: 34})
	static := us.open(corestore.CoreOptions{Manifest: &m})
	_, err = static.AppendSigned(mine.Signature(), blocksOf(0, 34)...)
	must(t, err)
	us.hangUp()
	reader := theirStore(t)
	reader.do("core", q{"as": "far", "on": "store", "key": hexKey(static.Key())})
	reader.dial(us.listen(), "store")
	same(t, "JavaScript", reader.blocks("far", 0, 34), blocksOf(0, 34))
	if got := ask[coreInfo](reader, "info", q{"on": "far"}); got.Length != 34 || got.Writable {
		t.Errorf("JavaScript has %+v", got)
	}
}
