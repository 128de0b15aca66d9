package blake2b8

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"golang.org/x/crypto/blake2b"
)

// TestSum256 holds sums against those of golang.org/x/crypto for all lengths
// about those of blocks, and all numbers of messages.
func TestSum256(t *testing.T) {
	if !hasLanes {
		t.Log("this processor has no AVX-512: messages are hashed one after the other")
	}
	random := rand.NewChaCha8([32]byte{8})
	var lengths []int
	for n := range 4*128 + 2 {
		lengths = append(lengths, n)
	}
	lengths = append(lengths, 1024, 1<<16-1, 1<<16, 1<<20+3)
	for _, length := range lengths {
		for _, head := range []int{0, 1, 9, maxHead} {
			count := 1 + (length+head)%19
			if length > 1024 {
				count = lanes + fewest
			}
			check(t, random, count, head, length)
		}
	}
}

func check(t *testing.T, random *rand.ChaCha8, count, head, length int) {
	t.Helper()
	first := make([]byte, head)
	random.Read(first)
	messages, sums := make([][]byte, count), make([][32]byte, count)
	for i := range messages {
		messages[i] = make([]byte, length)
		random.Read(messages[i])
	}
	Sum256(sums, first, messages)
	for i, m := range messages {
		if want := blake2b.Sum256(append(bytes.Clone(first), m...)); sums[i] != want {
			t.Fatalf("%d messages of %d bytes after %d: sum %d is %x, not %x", count, length, head, i, sums[i], want)
		}
	}
}

// FuzzSum256 does it for others.
func FuzzSum256(f *testing.F) {
	f.Add(byte(9), uint16(1024), byte(8), []byte("seed"))
	f.Fuzz(func(t *testing.T, head byte, length uint16, count byte, seed []byte) {
		random := rand.NewChaCha8(blake2b.Sum256(seed))
		check(t, random, 1+int(count%20), int(head)%(maxHead+1), int(length)%5000)
	})
}

func TestHeadTooLong(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("a head of any length is taken")
		}
	}()
	Sum256(nil, make([]byte, maxHead+1), nil)
}

// BenchmarkSum256 is of messages together and one after the other.
func BenchmarkSum256(b *testing.B) {
	for _, length := range []int{1 << 10, 1 << 16} {
		messages, sums := make([][]byte, 16), make([][32]byte, 16)
		for i := range messages {
			messages[i] = make([]byte, length)
		}
		head := make([]byte, 9)
		b.Run(fmt.Sprintf("together/%d", length), func(b *testing.B) {
			b.SetBytes(int64(16 * length))
			for b.Loop() {
				Sum256(sums, head, messages)
			}
		})
		b.Run(fmt.Sprintf("alone/%d", length), func(b *testing.B) {
			b.SetBytes(int64(16 * length))
			for b.Loop() {
				sumEach(sums, head, messages)
			}
		})
	}
}
