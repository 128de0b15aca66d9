package data_test

import (
	"encoding/hex"
	"fmt"
	"testing"

	"github.com/tradle/cloudpal/data/corestore"
	"github.com/tradle/cloudpal/data/hypercore"
)

// TestStoreKeys has both kinds of store make their keys of one primary key.
func TestStoreKeys(t *testing.T) {
	primary := corestore.PrimaryKey{1, 2, 3}
	us, them := openOurs(t, t.TempDir(), &primary), startPeer(t)
	them.do("store", q{"as": "store", "dir": t.TempDir(), "primaryKey": hex.EncodeToString(primary[:])})
	them.do("namespace", q{"as": "below", "on": "store", "name": "music"})
	them.do("namespace", q{"as": "deeper", "on": "below", "name": "jazz"})
	below := us.Namespace("music")
	for where, s := range map[string]*corestore.Store{"store": us.Store, "below": below, "deeper": below.Namespace("jazz")} {
		for i, name := range []string{"a", "notes", "a longer name, with spaces", "ümläut 🎵"} {
			c, err := s.Get(name)
			must(t, err)
			info := ask[coreInfo](them, "core", q{"as": fmt.Sprint(where, i), "on": where, "name": name})
			if info.Key != hexKey(c.Key()) {
				t.Errorf("%s in %s: JavaScript's key is %s, ours %s", name, where, info.Key, hexKey(c.Key()))
			}
			if d := c.DiscoveryKey(); info.DiscoveryKey != hex.EncodeToString(d[:]) {
				t.Errorf("%s in %s: JavaScript's discovery key is %s, ours %x", name, where, info.DiscoveryKey, d)
			}
			must(t, c.Close())
		}
	}
}

// TestRestored has one log written by one kind, then, out of the same primary
// key, by the other, then by the first again.
func TestRestored(t *testing.T) {
	primary := corestore.PrimaryKey{4}
	us, them := openOurs(t, t.TempDir(), &primary), startPeer(t)
	them.do("store", q{"as": "store", "dir": t.TempDir(), "primaryKey": hex.EncodeToString(primary[:])})
	them.do("core", q{"as": "log", "on": "store", "name": "log"})
	them.do("append", q{"on": "log", "blocks": blocksOf(0, 20)})
	them.do("follow", q{"on": "log"})
	log := us.log("log")
	us.dial(them.listen("store"))
	await(t, log, 20, 0, true)
	_, err := log.Append(blocksOf(20, 35)...)
	must(t, err)
	them.wait("log", 35, 0, true)
	them.do("append", q{"on": "log", "blocks": blocksOf(35, 50)})
	await(t, log, 50, 0, true)
	same(t, "we", read(t, log, 0, 50), blocksOf(0, 50))
	same(t, "JavaScript", them.blocks("log", 0, 50), blocksOf(0, 50))
}

// TestManyCores has two hundred logs of each side go over one connection.
func TestManyCores(t *testing.T) {
	const count = 200
	us, them := newOurs(t), theirStore(t)
	var logs, far []*hypercore.Core
	for i := range count {
		log := us.log(fmt.Sprint("log", i))
		_, err := log.Append(block(i), block(i+1))
		must(t, err)
		logs = append(logs, log)
		info := ask[coreInfo](them, "core", q{"as": fmt.Sprint("theirs", i), "on": "store", "name": fmt.Sprint("log", i)})
		them.do("append", q{"on": fmt.Sprint("theirs", i), "blocks": blocksOf(i, i+3)})
		far = append(far, us.theirs(info.Key))
	}
	for i, log := range logs {
		them.do("core", q{"as": fmt.Sprint("ours", i), "on": "store", "key": hexKey(log.Key())})
	}
	us.dial(them.listen("store"))
	for i := range count {
		them.wait(fmt.Sprint("ours", i), 2, 0, false)
		same(t, "JavaScript", them.blocks(fmt.Sprint("ours", i), 0, 2), blocksOf(i, i+2))
		await(t, far[i], 3, 0, false)
		same(t, "our reader", read(t, far[i], 0, 3), blocksOf(i, i+3))
	}
}

// TestStoredCores has a peer ask for logs that are stored, and that nobody has
// open.
func TestStoredCores(t *testing.T) {
	us, them := newOurs(t), theirStore(t)
	log, err := us.Get("log")
	must(t, err)
	_, err = log.Append(blocksOf(0, 10)...)
	must(t, err)
	key := hexKey(log.Key())
	must(t, log.Close())
	info := ask[coreInfo](them, "core", q{"as": "theirs", "on": "store", "name": "log"})
	them.do("append", q{"on": "theirs", "blocks": blocksOf(0, 10)})
	them.do("close", q{"on": "theirs"})
	us.dial(them.listen("store"))
	them.do("core", q{"as": "log", "on": "store", "key": key})
	same(t, "JavaScript", them.blocks("log", 0, 10), blocksOf(0, 10))
	far := us.theirs(info.Key)
	same(t, "our reader", read(t, far, 0, 10), blocksOf(0, 10))
}

// TestThreePeers connects a writer of each kind and a reader of each kind with
// each other, all at once, then has the readers give on what they have to one
// who comes late, when the writers are gone.
func TestThreePeers(t *testing.T) {
	const length = 400
	writer, reader, late := newOurs(t), newOurs(t), newOurs(t)
	jsWriter, jsReader := theirStore(t), theirStore(t)
	ourLog := writer.log("log")
	_, err := ourLog.Append(blocksOf(0, length)...)
	must(t, err)
	jsLog := ask[coreInfo](jsWriter, "core", q{"as": "log", "on": "store", "name": "log"})
	jsWriter.do("append", q{"on": "log", "blocks": blocksOf(0, length)})
	ours := hexKey(ourLog.Key())
	jsWriter.do("core", q{"as": "ours", "on": "store", "key": ours})
	jsReader.do("core", q{"as": "ours", "on": "store", "key": ours})
	jsReader.do("core", q{"as": "theirs", "on": "store", "key": jsLog.Key})
	for _, p := range []*peer{jsWriter, jsReader} {
		p.do("follow", q{"on": "ours"})
	}
	jsReader.do("follow", q{"on": "theirs"})
	readOurs, readTheirs := reader.theirs(ours), reader.theirs(jsLog.Key)
	writerReads := writer.theirs(jsLog.Key)

	hub := writer.listen()
	jsPort := jsWriter.listen("store")
	readerPort := reader.listen()
	jsReaderPort := jsReader.listen("store")
	reader.dial(hub)
	reader.dial(jsPort)
	reader.dial(jsReaderPort)
	jsReader.dial(hub, "store")
	jsReader.dial(jsPort, "store")
	writer.dial(jsPort)

	for _, c := range []*hypercore.Core{readOurs, readTheirs, writerReads} {
		await(t, c, length, 0, true)
		same(t, "ours", read(t, c, 0, length), blocksOf(0, length))
	}
	jsWriter.wait("ours", length, 0, true)
	for _, name := range []string{"ours", "theirs"} {
		jsReader.wait(name, length, 0, true)
		same(t, "JavaScript", jsReader.blocks(name, 0, length), blocksOf(0, length))
	}
	// All hear of what comes later.
	_, err = ourLog.Append(blocksOf(length, length+20)...)
	must(t, err)
	await(t, readOurs, length+20, 0, true)
	jsReader.wait("ours", length+20, 0, true)

	writer.end()
	jsWriter.do("disconnect", q{})
	lateOurs, lateTheirs := late.theirs(ours), late.theirs(jsLog.Key)
	late.dial(readerPort)
	late.dial(jsReaderPort)
	await(t, lateOurs, length+20, 0, true)
	await(t, lateTheirs, length, 0, true)
	same(t, "who came late", read(t, lateOurs, 0, length+20), blocksOf(0, length+20))
	same(t, "who came late", read(t, lateTheirs, 0, length), blocksOf(0, length))
	audit(t, lateOurs)
}

// TestCut cuts the connection again and again: in handshakes, in messages, in
// proofs. What came is kept, and in the end all is there.
func TestCut(t *testing.T) {
	const length, cuts = 2000, 25
	for seed := range uint64(3) {
		t.Run(fmt.Sprintf("JavaScript reads, seed %d", seed), func(t *testing.T) {
			us, them := newOurs(t), theirStore(t)
			log := us.log("log")
			_, err := log.Append(blocksOf(0, length)...)
			must(t, err)
			them.do("core", q{"as": "log", "on": "store", "key": hexKey(log.Key())})
			them.do("follow", q{"on": "log"})
			c := newCutter(t, us.listen(), seed, cuts)
			them.do("keepConnected", q{"port": c.port, "on": []string{"store"}})
			them.wait("log", length, 0, true)
			same(t, "JavaScript", them.blocks("log", 0, length), blocksOf(0, length))
			t.Logf("cut %d times", cuts-c.cutsLeft())
		})
		t.Run(fmt.Sprintf("we read, seed %d", seed), func(t *testing.T) {
			us, them := newOurs(t), theirStore(t)
			info := ask[coreInfo](them, "core", q{"as": "log", "on": "store", "name": "log"})
			them.do("append", q{"on": "log", "blocks": blocksOf(0, length)})
			log := us.theirs(info.Key)
			c := newCutter(t, them.listen("store"), seed, cuts)
			us.keepConnected(c.port)
			await(t, log, length, 0, true)
			same(t, "our reader", read(t, log, 0, length), blocksOf(0, length))
			audit(t, log)
			t.Logf("cut %d times", cuts-c.cutsLeft())
		})
	}
}
