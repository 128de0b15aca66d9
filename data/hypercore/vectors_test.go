package hypercore_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/manifest"
)

// The vectors were made by the JavaScript originals.

func readVectors(t testing.TB, file string, into any) {
	t.Helper()
	b, err := os.ReadFile("testdata/" + file)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, into); err != nil {
		t.Fatal(err)
	}
}

// hexBytes are bytes that the vectors have in hex.
type hexBytes []byte

// same reports where bytes are not those of the original.
func same(t *testing.T, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got %x, want %x", what, got, want)
	}
}

func (h *hexBytes) UnmarshalText(b []byte) (err error) {
	*h, err = hex.DecodeString(string(b))
	return err
}

type merkleVectors struct {
	Seed   hexBytes
	Key    hexBytes
	Blocks []hexBytes
	States []struct {
		Label               string
		Length, Fork        uint64
		ByteLength          uint64
		TreeHash, Signature hexBytes
		Roots               []struct {
			Index, Size uint64
			Hash        hexBytes
		}
	}
	Nodes []struct {
		Index, Size uint64
		Hash        hexBytes
	}
	Compat struct {
		Key, TreeHash, Signature hexBytes
		Length                   uint64
	}
}

func seeded(seed []byte) *manifest.KeyPair {
	pair := manifest.NewKeyPair([32]byte(seed))
	return &pair
}

func TestMerkleVectors(t *testing.T) {
	var v merkleVectors
	readVectors(t, "merkle.json", &v)
	c := create(t, newStore(t), hypercore.Options{KeyPair: seeded(v.Seed)})
	key := c.Key()
	same(t, "key", key[:], v.Key)
	for _, state := range v.States {
		if state.Fork > c.Fork() {
			if err := c.Truncate(state.Length, state.Fork); err != nil {
				t.Fatal(err)
			}
		} else if _, err := c.Append(blocksOf(state.Label, v.Blocks)...); err != nil {
			t.Fatal(err)
		}
		h := c.Head()
		hash := h.Hash()
		if h.Length != state.Length || h.Fork != state.Fork || c.ByteLength() != state.ByteLength {
			t.Errorf("%s: got length %d, fork %d, bytes %d", state.Label, h.Length, h.Fork, c.ByteLength())
		}
		same(t, state.Label+": tree hash", hash[:], state.TreeHash)
		same(t, state.Label+": signature", h.Signature, state.Signature)
		for i, root := range state.Roots {
			if h.Roots[i].Index != root.Index || h.Roots[i].Size != root.Size || hex.EncodeToString(h.Roots[i].Hash[:]) != hex.EncodeToString(root.Hash) {
				t.Errorf("%s: root %d: got %+v", state.Label, i, h.Roots[i])
			}
		}
		if int(state.Length) == len(v.Blocks) {
			for _, want := range v.Nodes {
				n, ok, err := c.Node(want.Index)
				if !ok || err != nil || n.Size != want.Size || hex.EncodeToString(n.Hash[:]) != hex.EncodeToString(want.Hash) {
					t.Errorf("node %d: got %+v, %v, %v", want.Index, n, ok, err)
				}
			}
		}
	}
}

// blocksOf returns the blocks that a label speaks of.
func blocksOf(label string, blocks []hexBytes) (out [][]byte) {
	var n int
	if _, err := fmt.Sscanf(label, "append %d", &n); err == nil {
		return [][]byte{blocks[n]}
	}
	for b := range strings.SplitSeq(strings.TrimPrefix(label, "append "), ", ") {
		out = append(out, []byte(b))
	}
	return out
}

func TestCompatVectors(t *testing.T) {
	var v merkleVectors
	readVectors(t, "merkle.json", &v)
	c := create(t, newStore(t), hypercore.Options{KeyPair: seeded(v.Seed), Compat: true})
	if _, err := c.Append(v.Blocks[0], v.Blocks[1]); err != nil {
		t.Fatal(err)
	}
	key, hash := c.Key(), c.TreeHash()
	same(t, "key", key[:], v.Compat.Key)
	same(t, "tree hash", hash[:], v.Compat.TreeHash)
	same(t, "signature", c.Signature(), v.Compat.Signature)
}

type encryptedBlock struct {
	Index, Fork       uint64
	Plaintext, Stored hexBytes
}

type encryptionVectors struct {
	Core struct {
		Seed, EncryptionKey, BlockKey, BlindingKey hexBytes
		Blocks                                     []encryptedBlock
		Block2Stored, Block2Plaintext              hexBytes
	}
	BlockOption, Compat struct{ BlockKey, BlindingKey hexBytes }
	Manual              []encryptedBlock
}

func TestEncryptionVectors(t *testing.T) {
	var v encryptionVectors
	readVectors(t, "encryption.json", &v)
	c := create(t, newStore(t), hypercore.Options{
		KeyPair:    seeded(v.Core.Seed),
		Encryption: &hypercore.Encryption{Key: [32]byte(v.Core.EncryptionKey)},
	})
	for _, b := range v.Core.Blocks {
		if _, err := c.Append(b.Plaintext); err != nil {
			t.Fatal(err)
		}
		wantStored(t, c, b.Index, b.Plaintext, b.Stored)
	}
	if err := c.Truncate(2); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Append(v.Core.Block2Plaintext); err != nil {
		t.Fatal(err)
	}
	wantStored(t, c, 2, v.Core.Block2Plaintext, v.Core.Block2Stored)
	if got, want := c.ByteLength(), uint64(len("hello")+len("world")+len(v.Core.Block2Plaintext)); got != want {
		t.Errorf("bytes: got %d, want %d", got, want)
	}
}

func wantStored(t *testing.T, c *hypercore.Core, i uint64, plain, stored []byte) {
	t.Helper()
	if got, err := c.Local(i); err != nil || string(got) != string(plain) {
		t.Errorf("block %d: got %q (%v), want %q", i, got, err, plain)
	}
	raw := c.Session(hypercore.SessionOptions{Stored: true})
	defer raw.Close()
	if got, err := raw.Local(i); err != nil || hex.EncodeToString(got) != hex.EncodeToString(stored) {
		t.Errorf("block %d as stored: got %x (%v), want %x", i, got, err, stored)
	}
}
