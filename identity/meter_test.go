package identity

import "testing"

func TestMeterKeysAreOnesOwn(t *testing.T) {
	s := NewPhrase().Root().PalSecrets()
	keys := s.MeterKeys()
	key := keys.Key([16]byte{1}, [32]byte{2})
	if !key.Equal(s.MeterKeys().Key([16]byte{1}, [32]byte{2})) {
		t.Error("the same tab has two keys")
	}
	for what, other := range map[string]MeterKeys{"another pal": NewPhrase().Root().PalSecrets().MeterKeys(), "another nonce": keys, "another offer": keys} {
		nonce, offer := [16]byte{1}, [32]byte{2}
		switch what {
		case "another nonce":
			nonce[15] = 1
		case "another offer":
			offer[31] = 1
		}
		if key.Equal(other.Key(nonce, offer)) {
			t.Errorf("%s has the same key", what)
		}
	}
	s.Wipe()
	if !key.Equal(keys.Key([16]byte{1}, [32]byte{2})) {
		t.Error("the keys went with the secrets")
	}
	keys.Wipe()
	if *keys.get() != [32]byte{} {
		t.Error("the keys are still there")
	}
}
