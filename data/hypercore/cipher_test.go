package hypercore

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"github.com/tradle/cloudpal/data/manifest"
)

// TestCipherVectors checks the keys, and blocks that no log of a test has: of
// large indexes and other forks.
func TestCipherVectors(t *testing.T) {
	var v struct {
		Core                struct{ Key, EncryptionKey, BlockKey, BlindingKey string }
		BlockOption, Compat struct{ BlockKey, BlindingKey string }
		Manual              []struct {
			Index, Fork       uint64
			Plaintext, Stored string
		}
	}
	b, err := os.ReadFile("testdata/encryption.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	key, user := manifest.Key(unhex(t, v.Core.Key)), [32]byte(unhex(t, v.Core.EncryptionKey))
	wantKeys(t, "default", newCipher(Encryption{Key: user}, key, false), v.Core.BlockKey, v.Core.BlindingKey)
	wantKeys(t, "block", newCipher(Encryption{Key: user, Block: true}, key, false), v.BlockOption.BlockKey, v.BlockOption.BlindingKey)
	wantKeys(t, "compat", newCipher(Encryption{Key: user}, key, true), v.Compat.BlockKey, v.Compat.BlindingKey)

	c := newCipher(Encryption{Key: user}, key, false)
	for _, m := range v.Manual {
		plain := unhex(t, m.Plaintext)
		stored := make([]byte, len(plain)+paddingSize)
		c.seal(stored, m.Index, m.Fork, plain)
		if got := hex.EncodeToString(stored); got != m.Stored {
			t.Errorf("block %d of fork %d: got %s, want %s", m.Index, m.Fork, got, m.Stored)
		}
		if got, err := c.open(m.Index, stored); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("block %d of fork %d: got %x (%v), want %x", m.Index, m.Fork, got, err, plain)
		}
	}
}

func wantKeys(t *testing.T, what string, c *cipher, block, blinding string) {
	t.Helper()
	if got := hex.EncodeToString(c.block[:]); got != block {
		t.Errorf("%s: block key: got %s, want %s", what, got, block)
	}
	if got := hex.EncodeToString(c.blinding[:]); got != blinding {
		t.Errorf("%s: blinding key: got %s, want %s", what, got, blinding)
	}
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
