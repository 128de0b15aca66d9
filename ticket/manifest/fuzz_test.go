package manifest

import (
	"slices"
	"testing"
)

func FuzzBundle(f *testing.F) {
	w := newWorld()
	w.publish(f, 81)
	m := w.publish(f, 82)
	w.append(f, Revocation{Issuer: issuer, Epoch: 82, Key: m.keys[0].ID(), Reason: "stolen"})
	raw, err := w.bundle(f, 82).Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		b, err := ParseBundle(raw)
		if err != nil {
			return
		}
		got, err := w.trust.Verify(b, 82, "", now)
		if err == nil && !slices.EqualFunc(got.Public(), m.Public(), slices.Equal) {
			t.Error("other keys are believed")
		}
	})
}

func FuzzStatement(f *testing.F) {
	w := newWorld()
	m := w.publish(f, 82)
	f.Add(m.listing().text())
	f.Add((&Revocation{Issuer: issuer, Epoch: 82, Key: m.keys[0].ID(), Reason: "stolen"}).text())
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseStatement(text)
		if err == nil && s.text() != text {
			t.Error("written again, it is different")
		}
	})
}

func FuzzCheckpoint(f *testing.F) {
	w := newWorld()
	w.publish(f, 82)
	good := w.bundle(f, 82)
	f.Add(string(good.Checkpoint), "")
	f.Add(string(good.Checkpoint), string(good.Checkpoint))
	f.Fuzz(func(t *testing.T, shown, seen string) {
		b := *good
		b.Checkpoint = Checkpoint(shown)
		_, _ = w.trust.Verify(&b, 82, Checkpoint(seen), now)
	})
}

func FuzzTrust(f *testing.F) {
	w := newWorld()
	raw, err := w.trust.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		trust, err := ParseTrust(raw)
		if err != nil {
			return
		}
		if _, err := trust.Marshal(); err != nil {
			t.Errorf("what is read cannot be written: %v", err)
		}
	})
}
