package hyperblobs_test

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"testing"

	"github.com/tradle/cloudpal/data/corestore"
	"github.com/tradle/cloudpal/data/hyperblobs"
	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/manifest"
)

// TestTreeHash writes the original's blobs into a core with the same key pair:
// the tree has the same hash.
func TestTreeHash(t *testing.T) {
	v := readVectors(t)
	s := corestore.Memory()
	defer s.Close()
	pair := manifest.NewKeyPair([32]byte(bytes.Repeat([]byte{1}, 32)))
	core, err := s.Core(corestore.CoreOptions{KeyPair: &pair})
	must(t, err)
	defer core.Close()
	if key := core.Key(); hex.EncodeToString(key[:]) != v.Key {
		t.Fatalf("the key is %x, want %s", key, v.Key)
	}
	blobs := hyperblobs.New(core)
	for _, put := range v.Puts {
		w := blobs.NewWriter(ctx, hyperblobs.Options{BlockSize: put.Opts.BlockSize, BlockMap: put.Opts.BlockMap, Deduplicate: put.Opts.Dedup})
		_, err := w.Write(content(put.Bytes))
		must(t, err)
		must(t, w.Close())
	}
	if hash := core.TreeHash(); hex.EncodeToString(hash[:]) != v.TreeHash {
		t.Errorf("the tree hash is %x, want %s", hash, v.TreeHash)
	}
}

// TestEncryptedCore reads ranges where blocks are longer than what is in them.
func TestEncryptedCore(t *testing.T) {
	s := corestore.Memory()
	defer s.Close()
	core, err := s.Core(corestore.CoreOptions{Name: "blobs", Encryption: &hypercore.Encryption{Key: [32]byte{1}}})
	must(t, err)
	defer core.Close()
	blobs := hyperblobs.New(core)
	for i := range 3 {
		id, err := blobs.Put(ctx, content(150000+i))
		must(t, err)
		r, err := blobs.NewReader(ctx, id)
		must(t, err)
		for _, at := range []int64{0, 65535, 65536, 131072, 149999} {
			_, err := r.Seek(at, 0)
			must(t, err)
			got := make([]byte, 1)
			if _, err := r.Read(got); err != nil || got[0] != content(150003)[at] {
				t.Errorf("byte %d of blob %d is %d, %v", at, i, got[0], err)
			}
		}
		must(t, r.Close())
	}
}

func Example() {
	store := corestore.Memory()
	defer store.Close()
	core, err := store.Get("pictures")
	if err != nil {
		panic(err)
	}
	blobs := hyperblobs.New(core)

	id, err := blobs.Put(ctx, []byte("a picture"))
	fmt.Println(id.BlockOffset, id.BlockLength, id.ByteLength, err)

	r, err := blobs.NewReader(ctx, id)
	if err != nil {
		panic(err)
	}
	defer r.Close()
	r.Seek(2, 0)
	rest := new(bytes.Buffer)
	rest.ReadFrom(r)
	fmt.Println(rest)
	// Output:
	// 0 1 9 <nil>
	// picture
}
