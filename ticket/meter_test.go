package ticket

import (
	"crypto/ed25519"
	"errors"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
)

func TestAMetersChain(t *testing.T) {
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	first := Record{Tab: [32]byte{1}, Seq: 1, Used: 3, At: time.Unix(1000, 0).UTC()}
	second := Record{Tab: first.Tab, Seq: 2, Used: 5, At: time.Unix(1060, 0).UTC(), Prev: first.Digest()}
	if err := errors.Join(first.Follows(nil), second.Follows(&first)); err != nil {
		t.Fatal(err)
	}
	if again, err := ParseRecord(second.Append(nil)); err != nil || again != second {
		t.Errorf("read as %+v, %v", again, err)
	}
	if s := second.Sign(key); !second.Signed(public, s) || first.Signed(public, s) || second.Signed(nil, s) {
		t.Error("the signature is of another record, or of none")
	}
	for name, change := range map[string]func(*Record){
		"another tab": func(r *Record) { r.Tab[0]++ }, "a gap": func(r *Record) { r.Seq++ }, "the same again": func(r *Record) { r.Seq-- },
		"another past": func(r *Record) { r.Prev[0]++ }, "less used": func(r *Record) { r.Used = 2 }, "the past": func(r *Record) { r.At = time.Unix(999, 0) },
	} {
		r := second
		change(&r)
		if err := r.Follows(&first); !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("%s: got %v, want %v", name, err, cloudpal.Invalid)
		}
	}
	if err := second.Follows(nil); !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("it begins a chain: %v", err)
	}
}
