package protocol

import (
	"testing"
	"time"

	"github.com/tradle/cloudpal/data/hypercore"
)

// A peer that is as long as we already, since an answer came before the news, is
// told of our length all the same: the original asks for no block beyond what it
// was told.
func TestToldOfWhatItHas(t *testing.T) {
	w := newWriter(t, hypercore.Options{})
	fill(t, w, 0, 10)
	var r *Replicator
	w.Watch(func(hypercore.Event) { // before the replicator hears of it
		r.mu.Lock()
		defer r.mu.Unlock()
		for p := range r.peers {
			p.onSync(syncState{length: w.Length(), remoteLength: 10, uploading: true, downloading: true})
		}
	})
	r = replicator(t, w, Options{})
	s := meet(t, r, lengthOf(10))
	s.hears(typeSync)
	for synced := false; !synced; time.Sleep(time.Millisecond) {
		r.mu.Lock()
		for p := range r.peers {
			synced = p.synced
		}
		r.mu.Unlock()
	}
	fill(t, w, 10, 11)
	for {
		told, err := decodeSync(s.hears(typeSync))
		must(t, err)
		if told.length == 11 {
			return
		}
	}
}
