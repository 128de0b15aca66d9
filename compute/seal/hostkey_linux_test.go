package seal

import (
	"testing"
)

func TestHostKeyTwice(t *testing.T) {
	a, err := HostKey("x")
	if err != nil {
		t.Fatal(err)
	}
	b, err := HostKey("x")
	if err != nil {
		t.Fatal(err)
	}
	if *a != *b {
		t.Error("differ")
	}
}
