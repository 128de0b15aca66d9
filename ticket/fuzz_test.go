package ticket

import (
	"bytes"
	"testing"
)

func FuzzParseSpend(f *testing.F) {
	p := newPress(f, 0, Paid, 64, 82)
	t := p.issue(f, Seed{1}, "purchase", 0)
	s := t.Sign(pay(64))
	f.Add(s.Append(nil))
	f.Add([]byte{0, 2})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ParseSpend(b)
		if err != nil {
			return
		}
		if !bytes.Equal(s.Append(nil), b) {
			t.Error("written again, it is different")
		}
		_ = s.Verify(issuer, p.Key, pay(64))
	})
}

func FuzzParseRecord(f *testing.F) {
	f.Add(Record{Seq: 1}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := ParseRecord(b); err == nil && !bytes.Equal(r.Append(nil), b) {
			t.Error("written again, it is different")
		}
	})
}

func FuzzParseKey(f *testing.F) {
	f.Add(newPress(f, 0, Paid, 64, 82).Key.Public())
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, err := ParseKey(Paid, 64, 82, b); err == nil && !bytes.Equal(k.Public(), b) {
			t.Error("two encodings of one key")
		}
	})
}
