package wallet

import (
	"bytes"
	"testing"

	"github.com/tradle/cloudpal/ticket"
)

// A ticket is read as it was written, also by a wallet of before its seed was kept.
func TestCoinOfBefore(t *testing.T) {
	t.Parallel()
	c := fuzzCoin(1)
	c.seed = ticket.BlindSeed{1, 2, 3}
	b := c.append(nil)
	if got, err := parseCoin(b); err != nil || got != c {
		t.Errorf("it is read as another (%v)", err)
	}
	old, err := parseCoin(b[:seedlessSize])
	if err != nil || old.seed != (ticket.BlindSeed{}) || !bytes.Equal(old.append(nil)[:seedlessSize], b[:seedlessSize]) {
		t.Errorf("one of before: %v", err)
	}
	for _, size := range []int{0, seedlessSize - 1, seedlessSize + 1, coinSize - 1} {
		if _, err := parseCoin(b[:size]); err == nil {
			t.Errorf("%d bytes are a ticket", size)
		}
	}
	if _, err := parseCoin(append(b, 0)); err == nil {
		t.Error("a byte too many is a ticket")
	}
}
