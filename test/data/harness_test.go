package data_test

import (
	"testing"
)

// Two JavaScript peers through a connection that is cut again and again: what
// the other tests stand on.
func TestPeersAndCutter(t *testing.T) {
	a, b := startPeer(t), startPeer(t)
	a.do("store", q{"as": "store", "dir": t.TempDir()})
	b.do("store", q{"as": "store", "dir": t.TempDir()})
	log := ask[coreInfo](a, "core", q{"as": "log", "on": "store", "name": "log"})
	ask[coreInfo](a, "fill", q{"on": "log", "count": 300, "batch": 100, "prefix": "block "})
	b.do("core", q{"as": "log", "on": "store", "key": log.Key})
	b.do("follow", q{"on": "log"})
	c := newCutter(t, a.listen("store"), 1, 15)
	b.do("keepConnected", q{"port": c.port, "on": []string{"store"}})
	got := b.wait("log", 300, 0, true)
	if got.Length != 300 || got.Contiguous != 300 {
		t.Errorf("the reader has %+v", got)
	}
	if ours, theirs := a.treeHash("log", 300), b.treeHash("log", 300); ours != theirs {
		t.Errorf("tree hashes %s and %s", ours, theirs)
	}
	t.Logf("cut %d times", 15-c.cutsLeft())
}
