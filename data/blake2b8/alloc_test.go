//go:build !race

package blake2b8

import "testing"

func TestAllocations(t *testing.T) {
	messages := make([][]byte, 21)
	for i := range messages {
		messages[i] = make([]byte, 1000)
	}
	sum := func() {
		var sums [21][32]byte
		var head [9]byte
		Sum256(sums[:], head[:], messages)
	}
	if n := testing.AllocsPerRun(10, sum); n > 0 {
		t.Errorf("Sum256 allocates %v times", n)
	}
}
