package identity

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// TestSecretsAreNotShown prints each secret in every way that a program prints
// things by accident, and looks for its bytes.
func TestSecretsAreNotShown(t *testing.T) {
	phrase := NewPhrase()
	root := phrase.Root()
	secrets, device, unlock := root.PalSecrets(), NewDeviceKey(), NewUnlockKey()
	unlockBytes, err := unlock.get().key.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		value any
		bytes []byte
	}{
		"Phrase":            {phrase, phrase.get()[:]},
		"Root":              {root, root.get().key[:32]},
		"Secrets":           {secrets, secrets.get()[:]},
		"Secrets, by field": {Unlock{Secrets: secrets}, secrets.get()[:]},
		"DeviceKey":         {device, device.get().wireGuard[:]},
		"UnlockKey":         {unlock, unlockBytes},
	} {
		for _, holder := range []any{c.value, &c.value, []any{c.value}, map[string]any{"a": c.value},
			struct{ V any }{c.value}, struct{ v any }{c.value}} {
			for form, text := range shown(holder) {
				if strings.Contains(text, hex.EncodeToString(c.bytes[:8])) || strings.Contains(text, fmt.Sprint(c.bytes[:8])[1:20]) ||
					strings.Contains(text, string(c.bytes[:8])) || strings.Contains(text, fmt.Sprintf("%#v", c.bytes[:4])[8:20]) {
					t.Errorf("%s in a %T is shown by %s", name, holder, form)
				}
			}
		}
		if _, err := json.Marshal(c.value); err == nil {
			t.Errorf("%s can be written as JSON", name)
		}
	}
	// In fields that fmt cannot call methods of.
	hidden := struct {
		p Phrase
		r Root
		s Secrets
		d DeviceKey
	}{phrase, root, secrets, device}
	for form, text := range shown(hidden) {
		for _, b := range [][]byte{phrase.get()[:], root.get().entropy[:], secrets.get()[:], device.get().wireGuard[:]} {
			if strings.Contains(text, fmt.Sprint(b[:4])[1:10]) || strings.Contains(text, hex.EncodeToString(b[:4])) {
				t.Errorf("a secret in an unexported field is shown by %s", form)
			}
		}
	}
}

// shown returns how v is printed.
func shown(v any) map[string]string {
	all := map[string]string{}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%b"} {
		all[verb] = fmt.Sprintf(verb, v)
	}
	b, err := json.Marshal(v)
	all["json"] = fmt.Sprint(string(b), err)
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v)
	all["slog"] = log.String()
	return all
}

func TestWipe(t *testing.T) {
	phrase := NewPhrase()
	root := phrase.Root()
	secrets, device := root.PalSecrets(), NewDeviceKey()
	copied := secrets
	phrase.Wipe()
	root.Wipe()
	copied.Wipe()
	device.Wipe()
	for name, b := range map[string][]byte{"Phrase": phrase.get()[:], "Root": append(root.get().entropy[:], root.get().key...),
		"Secrets": secrets.get()[:], "DeviceKey": append(device.get().wireGuard[:], device.get().sign...)} {
		if len(bytes.Trim(b, "\x00")) > 0 {
			t.Errorf("%s is still there", name)
		}
	}
}

func TestSecretsGoThereAndBack(t *testing.T) {
	s := NewPhrase().Root().PalSecrets()
	b := must[[]byte](t)(s.MarshalBinary())
	var back Secrets
	if err := back.UnmarshalBinary(b); err != nil || !back.Equal(s) {
		t.Errorf("got error %v, equal: %v", err, back.Equal(s))
	}
	other := NewPhrase().Root().PalSecrets()
	if s.Equal(other) || s.Equal(Secrets{}) || !(Secrets{}).Equal(Secrets{}) {
		t.Error("different secrets are equal, or equal ones are not")
	}
	for what, bad := range map[string][]byte{"nothing": nil, "a byte short": b[:len(b)-1], "a byte more": append(b, 0), "version 2": append([]byte{2}, b[1:]...)} {
		if err := new(Secrets).UnmarshalBinary(bad); err == nil {
			t.Errorf("%s was read", what)
		}
	}
	if _, err := (Secrets{}).MarshalBinary(); err == nil {
		t.Error("no secrets were written")
	}

	k := NewDeviceKey()
	b = must[[]byte](t)(k.MarshalBinary())
	var kBack DeviceKey
	if err := kBack.UnmarshalBinary(b); err != nil || kBack.ID() != k.ID() || !bytes.Equal(kBack.WireGuard(), k.WireGuard()) {
		t.Errorf("a device's key has changed: error %v", err)
	}
	if err := new(DeviceKey).UnmarshalBinary(b[1:]); err == nil {
		t.Error("half a device's key was read")
	}
}
