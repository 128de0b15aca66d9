package manifest

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

var update = flag.Bool("update", false, "write testdata anew")

func TestVerify(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.publish(t, 81)
	m := w.publish(t, 82)
	b := w.bundle(t, 82)
	got, err := w.trust.Verify(b, 82, "", now)
	if err != nil {
		t.Fatal(err)
	}
	if got.Issuer != issuer || got.Epoch != 82 || !got.Receipt.Equal(m.Receipt) || len(got.Keys()) != 14 {
		t.Errorf("got %+v", got)
	}
	for i, s := range slots {
		k, err := got.Key(s.class, s.denomination)
		if err != nil || k.ID() != m.keys[i].ID() || k.Class != s.class || k.Denomination != s.denomination || k.Epoch != 82 {
			t.Errorf("the key for %s is %+v, %v", s, k, err)
		}
		if same, err := got.KeyByID(k.ID()); err != nil || same.Denomination != s.denomination || same.Class != s.class {
			t.Errorf("by its ID, the key for %s is %+v, %v", s, same, err)
		}
	}
	if _, err := got.KeyByID(ticket.KeyID{1}); !errors.Is(err, cloudpal.NotExist) {
		t.Errorf("a key that is not there: %v", err)
	}
	if _, err := got.Key(ticket.Paid, 2); !errors.Is(err, cloudpal.NotExist) {
		t.Errorf("a denomination that is not there: %v", err)
	}
	if _, err := w.trust.Verify(b, 83, "", now); !errors.Is(err, cloudpal.NotExist) {
		t.Errorf("an epoch that is not there: %v", err)
	}
}

// A client that keeps checkpoints sees a log grow.
func TestVerifyAgain(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.publish(t, 81)
	seen := w.bundle(t, 81).Checkpoint
	w.publish(t, 82)
	b := w.bundle(t, 82)
	for range 2 { // the same is shown again
		if _, err := w.trust.Verify(b, 82, seen, now); err != nil {
			t.Fatal(err)
		}
		seen = b.Checkpoint
	}
}

func TestRevoked(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.publish(t, 81)
	m := w.publish(t, 82)
	gone := m.keys[3]
	w.append(t, Revocation{Issuer: issuer, Epoch: 82, Key: gone.ID(), Reason: "it was stolen"})
	got, err := w.trust.Verify(w.bundle(t, 82), 82, "", now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := got.KeyByID(gone.ID()); !errors.Is(err, cloudpal.Denied) || !strings.Contains(err.Error(), "it was stolen") {
		t.Errorf("by ID: %v", err)
	}
	if _, err := got.Key(gone.Class, gone.Denomination); !errors.Is(err, cloudpal.Denied) {
		t.Errorf("by denomination: %v", err)
	}
	if _, err := got.Key(ticket.Free, 1); err != nil {
		t.Errorf("another key: %v", err)
	}
	if keys := got.Keys(); len(keys) != 13 || slices.ContainsFunc(keys, func(k *ticket.Key) bool { return k.ID() == gone.ID() }) {
		t.Errorf("%d keys are left, or it is one", len(keys))
	}
	if r := got.Revoked(); len(r) != 1 || r[0].Key != gone.ID() {
		t.Errorf("revoked are %v", r)
	}
	if other, err := w.trust.Verify(w.bundle(t, 81), 81, "", now); err != nil || len(other.Keys()) != 14 {
		t.Errorf("another epoch's keys: %v", err)
	}
}

// Each is what a mint that cheats, or somebody between, could show.
func TestRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		want string // in the error
		show func(t *testing.T, w *world) (b *Bundle, seen Checkpoint, at time.Time)
	}{
		{"keys that are not logged", "not the one in the log", func(t *testing.T, w *world) (*Bundle, Checkpoint, time.Time) {
			b := w.bundle(t, 82)
			b.Keys[5] = w.manifest(t, 82, "for ann only").Public()[5]
			return b, "", now
		}},
		{"keys of two denominations changed for each other", "not the one in the log", func(t *testing.T, w *world) (*Bundle, Checkpoint, time.Time) {
			b := w.bundle(t, 82)
			b.Keys[0], b.Keys[1] = b.Keys[1], b.Keys[0]
			return b, "", now
		}},
		{"a key that is missing", "13 keys", func(t *testing.T, w *world) (*Bundle, Checkpoint, time.Time) {
			b := w.bundle(t, 82)
			b.Keys = b.Keys[1:]
			return b, "", now
		}},
		{"one key more", "15 keys", func(t *testing.T, w *world) (*Bundle, Checkpoint, time.Time) {
			b := w.bundle(t, 82)
			b.Keys = append(b.Keys, b.Keys[0])
			return b, "", now
		}},
		{"a manifest that is not logged", "entries are shown of", func(t *testing.T, w *world) (*Bundle, Checkpoint, time.Time) {
			b := w.bundle(t, 82)
			w.append(t, w.manifest(t, 83, ""))
			b.Entries = w.entries
			return b, "", now
		}},
		{"a manifest in place of the one that is logged", "not those of the log", func(t *testing.T, w *world) (*Bundle, Checkpoint, time.Time) {
			b, m := w.bundle(t, 82), w.manifest(t, 82, "for ann only")
			w.append(t, m)
			b.Entries[1], b.Keys = w.entries[2], m.Public()
			return b, "", now
		}},
		{"entries in another order", "not those of the log", func(t *testing.T, w *world) (*Bundle, Checkpoint, time.Time) {
			b := w.bundle(t, 82)
			slices.Reverse(b.Entries)
			return b, "", now
		}},
		{"a revocation that is kept back", "entries are shown of", func(t *testing.T, w *world) (*Bundle, Checkpoint, time.Time) {
			w.append(t, Revocation{Issuer: issuer, Epoch: 82, Key: w.manifests[82].keys[0].ID(), Reason: "stolen"})
			b := w.bundle(t, 82)
			b.Entries = b.Entries[:2]
			return b, "", now
		}},
		{"a second manifest of an epoch", "a second manifest of epoch 82", func(t *testing.T, w *world) (*Bundle, Checkpoint, time.Time) {
			w.append(t, w.manifest(t, 82, "for ann only"))
			return w.bundle(t, 82), "", now
		}},
		{"the same manifest twice", "a second manifest of epoch 82", func(t *testing.T, w *world) (*Bundle, Checkpoint, time.Time) {
			w.append(t, w.manifests[82])
			return w.bundle(t, 82), "", now
		}},
		{"a manifest of an epoch that is over", "a manifest of epoch 80 after that of epoch 82", func(t *testing.T, w *world) (*Bundle, Checkpoint, time.Time) {
			w.append(t, w.manifest(t, 80, ""))
			return w.bundle(t, 82), "", now
		}},
		{"manifests for years ahead", "more than a month ahead", func(t *testing.T, w *world) (*Bundle, Checkpoint, time.Time) {
			w.append(t, w.manifest(t, 84, ""))
			return w.bundle(t, 82), "", now
		}},
		{"a key of the month before", "a key of epoch 83 that was one of epoch 82", func(t *testing.T, w *world) (*Bundle, Checkpoint, time.Time) {
			m := w.manifest(t, 83, "")
			m.keys[7] = w.manifests[82].keys[7]
			w.append(t, m)
			return w.bundle(t, 82), "", now
		}},
		{"a revocation of another mint's key", "a key that epoch 82 does not have", func(t *testing.T, w *world) (*Bundle, Checkpoint, time.Time) {
			w.append(t, Revocation{Issuer: issuer, Epoch: 82, Key: ticket.KeyID{1}, Reason: "stolen"})
			return w.bundle(t, 82), "", now
		}},
		{"an entry that another root signed", "root did not sign it", func(t *testing.T, w *world) (*Bundle, Checkpoint, time.Time) {
			w.root.key = newParty("thief").key
			w.append(t, w.manifest(t, 83, ""))
			return w.bundle(t, 82), "", now
		}},
		{"an entry that two signed", "more than the mint's root", func(t *testing.T, w *world) (*Bundle, Checkpoint, time.Time) {
			e := Entry(sealed(t, w.manifest(t, 83, "").listing().text(), w.root, newParty("other.example")))
			w.entries = append(w.entries, e)
			return w.bundle(t, 82), "", now
		}},
		{"an entry about another mint", "another mint's keys", func(t *testing.T, w *world) (*Bundle, Checkpoint, time.Time) {
			l := w.manifest(t, 83, "").listing()
			l.Issuer = "other.example"
			w.entries = append(w.entries, w.forged(t, l.text()))
			return w.bundle(t, 82), "", now
		}},
		{"an entry of no kind that is known", "not known here", func(t *testing.T, w *world) (*Bundle, Checkpoint, time.Time) {
			w.entries = append(w.entries, w.forged(t, "cloudpal discount v1\n"))
			return w.bundle(t, 82), "", now
		}},
		{"two keys for one denomination", "other than one key for each", func(t *testing.T, w *world) (*Bundle, Checkpoint, time.Time) {
			text := w.manifest(t, 83, "").listing().text()
			w.entries = append(w.entries, w.forged(t, text+"free 4096 "+base64.StdEncoding.EncodeToString(make([]byte, 32))+"\n"))
			return w.bundle(t, 82), "", now
		}},
		{"one key for two denominations", "stands for two kinds", func(t *testing.T, w *world) (*Bundle, Checkpoint, time.Time) {
			l := w.manifest(t, 83, "").listing()
			l.Keys[1] = l.Keys[0]
			w.entries = append(w.entries, w.forged(t, l.text()))
			return w.bundle(t, 82), "", now
		}},
		{"an entry that is not written as it has to be", "not written", func(t *testing.T, w *world) (*Bundle, Checkpoint, time.Time) {
			text := strings.Replace(textOf(w.entries[1]), "epoch 82", "epoch 083", 1)
			w.entries = append(w.entries, w.forged(t, text))
			return w.bundle(t, 82), "", now
		}},
		{"an entry that is too long", "4096 are the most", func(t *testing.T, w *world) (*Bundle, Checkpoint, time.Time) {
			w.entries = append(w.entries, w.forged(t, strings.Repeat("a", MaxEntry)+"\n"))
			return w.bundle(t, 82), "", now
		}},
		{"a checkpoint that the log did not sign", "not one of this log", func(t *testing.T, w *world) (*Bundle, Checkpoint, time.Time) {
			b := w.bundle(t, 82)
			b.Checkpoint = w.checkpoint(t, w.witnesses...)
			return b, "", now
		}},
		{"a checkpoint of another origin", "not one of this log", func(t *testing.T, w *world) (*Bundle, Checkpoint, time.Time) {
			b := w.bundle(t, 82)
			text := strings.Replace(textOf(Entry(b.Checkpoint)), issuer+"/keys", "other.example/keys", 1)
			b.Checkpoint = sealed(t, text, append([]party{w.log}, w.witnesses...)...)
			return b, "", now
		}},
		{"a checkpoint with more in it", "not written", func(t *testing.T, w *world) (*Bundle, Checkpoint, time.Time) {
			b := w.bundle(t, 82)
			b.Checkpoint = sealed(t, textOf(Entry(b.Checkpoint))+"for ann\n", append([]party{w.log}, w.witnesses...)...)
			return b, "", now
		}},
		{"no cosignatures", "0 witnesses cosigned", func(t *testing.T, w *world) (*Bundle, Checkpoint, time.Time) {
			b := w.bundle(t, 82)
			b.Checkpoint = w.checkpoint(t, w.log)
			return b, "", now
		}},
		{"too few cosignatures", "1 witnesses cosigned", func(t *testing.T, w *world) (*Bundle, Checkpoint, time.Time) {
			b := w.bundle(t, 82)
			b.Checkpoint = w.checkpoint(t, w.log, w.witnesses[1])
			return b, "", now
		}},
		{"a witness that cosigned twice", "witnesses cosigned", func(t *testing.T, w *world) (*Bundle, Checkpoint, time.Time) {
			b := w.bundle(t, 82)
			b.Checkpoint = w.checkpoint(t, w.log, w.witnesses[1])
			line := strings.SplitAfter(string(b.Checkpoint), "\n")
			b.Checkpoint += Checkpoint(line[len(line)-2])
			return b, "", now
		}},
		{"a witness nobody knows", "1 witnesses cosigned", func(t *testing.T, w *world) (*Bundle, Checkpoint, time.Time) {
			b := w.bundle(t, 82)
			b.Checkpoint = w.checkpoint(t, w.log, w.witnesses[0], newParty("mallory.example").cosigning(now))
			return b, "", now
		}},
		{"a cosignature of other entries", "not one of this log", func(t *testing.T, w *world) (*Bundle, Checkpoint, time.Time) {
			b := w.bundle(t, 82)
			old := string(b.Checkpoint)
			w.append(t, w.manifest(t, 83, ""))
			b.Entries = w.entries
			text, _, _ := strings.Cut(string(w.checkpoint(t, w.log)), "\n\n")
			_, signatures, _ := strings.Cut(old, "\n\n")
			b.Checkpoint = Checkpoint(text + "\n\n" + signatures)
			return b, "", now
		}},
		{"cosignatures that are old", "0 witnesses cosigned", func(t *testing.T, w *world) (*Bundle, Checkpoint, time.Time) {
			return w.bundle(t, 82), "", now.Add(MaxAge + time.Second)
		}},
		{"cosignatures of days to come", "0 witnesses cosigned", func(t *testing.T, w *world) (*Bundle, Checkpoint, time.Time) {
			return w.bundle(t, 82), "", now.Add(-maxAhead - time.Second)
		}},
		{"a log that is shorter than it was", "had 2 before", func(t *testing.T, w *world) (*Bundle, Checkpoint, time.Time) {
			seen := w.bundle(t, 82).Checkpoint
			w.entries = w.entries[:1]
			return w.bundle(t, 82), seen, now
		}},
		{"another log of the same length", "not the one that was shown before", func(t *testing.T, w *world) (*Bundle, Checkpoint, time.Time) {
			seen := w.bundle(t, 82).Checkpoint
			w.entries = w.entries[:1]
			w.append(t, w.manifest(t, 82, "for ann only"))
			return w.bundle(t, 82), seen, now
		}},
		{"another log that is longer", "not the one that was shown before", func(t *testing.T, w *world) (*Bundle, Checkpoint, time.Time) {
			seen := w.bundle(t, 82).Checkpoint
			w.entries = w.entries[:1]
			w.append(t, w.manifest(t, 82, "for ann only"))
			w.publish(t, 83)
			return w.bundle(t, 82), seen, now
		}},
		{"nothing", "entries are shown of", func(t *testing.T, w *world) (*Bundle, Checkpoint, time.Time) {
			b := w.bundle(t, 82)
			b.Entries = nil
			return b, "", now
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld()
			w.publish(t, 81)
			w.publish(t, 82)
			b, seen, at := c.show(t, w)
			m, err := w.trust.Verify(b, 82, seen, at)
			if err == nil {
				t.Fatalf("it is believed: %+v", m)
			}
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v; want %q in it", err, c.want)
			}
		})
	}
}

// A fork comes with what proves it to others.
func TestForkIsProof(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.publish(t, 82)
	seen := w.bundle(t, 82).Checkpoint
	w.entries = nil
	w.append(t, w.manifest(t, 82, "for ann only"))
	b := w.bundle(t, 82)
	_, err := w.trust.Verify(b, 82, seen, now)
	fork, ok := errors.AsType[*Fork](err)
	if !ok || fork.Seen != seen || fork.Shown != b.Checkpoint {
		t.Fatalf("got %v", err)
	}
	if cloudpal.HintOf(err) == "" {
		t.Error("it does not say what to do")
	}
}

func TestWeakKeys(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.publish(t, 82)
	good := w.manifests[82].keys[0].Public()
	other := func(from, to []byte) []byte { return bytes.Replace(good, from, to, 1) }
	for name, spki := range map[string][]byte{
		"the exponent 3":     other([]byte{2, 3, 1, 0, 1}, []byte{2, 3, 0, 0, 3}),
		"the exponent 65539": other([]byte{2, 3, 1, 0, 1}, []byte{2, 3, 1, 0, 3}),
		"another algorithm":  other([]byte{4, 2, 2}, []byte{4, 2, 1}),
		"more behind it":     append(bytes.Clone(good), 0),
		"nothing":            nil,
		"a megabyte":         make([]byte, 1<<20),
	} {
		b := w.bundle(t, 82)
		b.Keys[0] = spki
		if _, err := w.trust.Verify(b, 82, "", now); err == nil {
			t.Errorf("a key with %s is believed", name)
		}
	}
	for _, bits := range []int{1024, 2040, 3072, 4096} {
		if _, err := ticket.NewKey(ticket.Paid, 1, 82, publicKey(bits, "weak")); err == nil {
			t.Errorf("a key of %d bits is one", bits)
		}
	}
}

func TestNew(t *testing.T) {
	t.Parallel()
	receipt := newParty("receipt").key.Public().(ed25519.PublicKey)
	keys := newKeys(t, 82, "")
	for name, make := range map[string]func() (*Manifest, error){
		"a key too few":       func() (*Manifest, error) { return New(issuer, 82, receipt, keys[1:]) },
		"a key twice":         func() (*Manifest, error) { return New(issuer, 82, receipt, append(slices.Clone(keys[:13]), keys[0])) },
		"keys of other times": func() (*Manifest, error) { return New(issuer, 83, receipt, keys) },
		"no receipt key":      func() (*Manifest, error) { return New(issuer, 82, nil, keys) },
		"a name with spaces":  func() (*Manifest, error) { return New("my mint", 82, receipt, keys) },
		"no name":             func() (*Manifest, error) { return New("", 82, receipt, keys) },
		"a name of two lines": func() (*Manifest, error) { return New("mint\nepoch", 82, receipt, keys) },
	} {
		if _, err := make(); !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	slices.Reverse(keys)
	m, err := New(issuer, 82, receipt, keys)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Sign(newParty("other.example")); !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("another mint's root signs it: %v", err)
	}
	for _, reason := range []string{"", "two\nlines", strings.Repeat("a", maxReason+1)} {
		if _, err := (Revocation{Issuer: issuer, Epoch: 82, Reason: reason}).Sign(newParty(issuer)); !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("the reason %q: %v", reason, err)
		}
	}
}

func TestTrust(t *testing.T) {
	t.Parallel()
	w := newWorld()
	raw, err := w.trust.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "mint.json")
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := Load(path)
	if err != nil || got.Root != w.trust.Root || !slices.Equal(got.Witnesses, w.trust.Witnesses) || got.Quorum != 2 || got.Alone() {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := Load(path + ".other"); !errors.Is(err, cloudpal.NotExist) || cloudpal.HintOf(err) == "" {
		t.Errorf("no file: %v", err)
	}
	for name, spoil := range map[string]func(*Trust){
		"nothing":                       func(t *Trust) { *t = Trust{} },
		"no url":                        func(t *Trust) { t.URL = "mint.example" },
		"a file as its url":             func(t *Trust) { t.URL = "file:///etc/passwd" },
		"a root of another name":        func(t *Trust) { t.Root = newParty("other.example").verifier() },
		"no root":                       func(t *Trust) { t.Root = "" },
		"no log":                        func(t *Trust) { t.Log = "" },
		"one key for root and log":      func(t *Trust) { t.Log = party{name: "log", key: newParty(issuer).key}.verifier() },
		"one witness":                   func(t *Trust) { t.Witnesses = t.Witnesses[:1] },
		"a quorum of one":               func(t *Trust) { t.Quorum = 1 },
		"a quorum below nothing":        func(t *Trust) { t.Quorum = -1 },
		"a quorum above the witnesses":  func(t *Trust) { t.Quorum = 4 },
		"a witness that is there twice": func(t *Trust) { t.Witnesses[1] = t.Witnesses[0] },
		"a witness under two names":     func(t *Trust) { p := w.witnesses[0]; p.name = "x"; t.Witnesses[1] = p.verifier() },
		"two witnesses of one name": func(t *Trust) {
			p := newParty("y").cosigning(now)
			p.name = "ann.example"
			t.Witnesses[1] = p.verifier()
		},
		"the log as its witness":          func(t *Trust) { t.Witnesses[1] = w.log.cosigning(now).verifier() },
		"the root as the log's witness":   func(t *Trust) { t.Witnesses[1] = w.root.cosigning(now).verifier() },
		"a witness that is not a key":     func(t *Trust) { t.Witnesses[1] = "ann" },
		"a witness with a key of 3 bytes": func(t *Trust) { t.Witnesses[1] = "ann+00000000+BAAA" },
	} {
		spoiled := *w.trust
		spoiled.Witnesses = slices.Clone(spoiled.Witnesses)
		spoil(&spoiled)
		if _, err := spoiled.Marshal(); !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := spoiled.Verify(&Bundle{}, 82, "", now); err == nil {
			t.Errorf("with %s, something is believed", name)
		}
	}
	for name, text := range map[string]string{
		"a word that is not known": strings.Replace(string(raw), `"url"`, `"uri"`, 1),
		"two":                      string(raw) + string(raw),
		"half":                     string(raw[:len(raw)/2]),
		"100 KB":                   strings.Repeat(" ", 100<<10) + string(raw),
	} {
		if _, err := ParseTrust([]byte(text)); !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A mint of one's own needs no witnesses, and still cannot take anything back.
func TestAlone(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.trust.Quorum, w.trust.Witnesses, w.witnesses = 0, nil, nil
	w.publish(t, 82)
	b := w.bundle82(t)
	if _, err := w.trust.Verify(b, 82, "", now.AddDate(1, 0, 0)); err != nil || !w.trust.Alone() {
		t.Fatal(err)
	}
	w.entries = nil
	w.append(t, w.manifest(t, 82, "another"))
	if _, err := w.trust.Verify(w.bundle82(t), 82, b.Checkpoint, now); err == nil {
		t.Error("another log is believed")
	}
}

func (w *world) bundle82(t *testing.T) *Bundle {
	return &Bundle{Keys: w.manifests[82].Public(), Entries: w.entries, Checkpoint: w.checkpoint(t, w.log)}
}

// Whatever an honest log does, each of its states follows each that was before, and
// none that comes after.
func TestLogGrows(t *testing.T) {
	t.Parallel()
	keys := map[ticket.Epoch]*Manifest{}
	for e := ticket.Epoch(74); e <= 83; e++ {
		keys[e] = newWorld().manifest(t, e, "")
	}
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld()
		var bundles []*Bundle
		var of []ticket.Epoch
		e := ticket.Epoch(rapid.IntRange(74, 76).Draw(rt, "first"))
		for e <= 83 {
			if len(w.manifests) > 0 && rapid.Bool().Draw(rt, "revoke") {
				k := keys[of[len(of)-1]].keys[rapid.IntRange(0, 13).Draw(rt, "key")]
				w.append(t, Revocation{Issuer: issuer, Epoch: k.Epoch, Key: k.ID(), Reason: "stolen"})
			} else {
				w.manifests[e] = keys[e]
				w.append(t, keys[e])
				e += ticket.Epoch(rapid.IntRange(1, 3).Draw(rt, "months"))
			}
			newest := slices.Max(epochs(w))
			bundles, of = append(bundles, w.bundle(t, newest)), append(of, newest)
		}
		i := rapid.IntRange(0, len(bundles)-1).Draw(rt, "seen")
		j := rapid.IntRange(0, len(bundles)-1).Draw(rt, "shown")
		_, err := w.trust.Verify(bundles[j], of[j], bundles[i].Checkpoint, now)
		if (err == nil) != (i <= j) {
			rt.Fatalf("%d after %d: %v", j, i, err)
		}
	})
}

func epochs(w *world) (all []ticket.Epoch) {
	for e := range w.manifests {
		all = append(all, e)
	}
	return all
}

// Whoever changes a byte of a bundle on its way does not change what is believed.
func TestAnyByte(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.publish(t, 82)
	raw, err := w.bundle(t, 82).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	rapid.Check(t, func(rt *rapid.T) {
		changed := bytes.Clone(raw)
		i := rapid.IntRange(0, len(raw)-1).Draw(rt, "at")
		changed[i] = rapid.Byte().Draw(rt, "byte")
		b, err := ParseBundle(changed)
		if err != nil {
			return
		}
		m, err := w.trust.Verify(b, 82, "", now)
		if err != nil {
			return
		}
		for i, k := range m.keys {
			if k.ID() != w.manifests[82].keys[i].ID() || !m.Receipt.Equal(w.manifests[82].Receipt) {
				rt.Fatal("other keys are believed")
			}
		}
	})
}

func TestParseBundle(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.publish(t, 82)
	b := w.bundle(t, 82)
	raw, err := b.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	got, err := ParseBundle(raw)
	if err != nil || !slices.Equal(got.Entries, b.Entries) || got.Checkpoint != b.Checkpoint || !slices.EqualFunc(got.Keys, b.Keys, bytes.Equal) {
		t.Errorf("got %+v, %v", got, err)
	}
	many := *b
	many.Entries = make([]Entry, maxEntries+1)
	long := *b
	long.Checkpoint = Checkpoint(strings.Repeat("a", maxCheckpoint+1))
	huge := *b
	huge.Entries = []Entry{Entry(strings.Repeat("a", MaxBundle))}
	if _, err := huge.Marshal(); !errors.Is(err, cloudpal.Exhausted) {
		t.Errorf("a bundle above the limit is written: %v", err)
	}
	for name, b := range map[string]*Bundle{"too many entries": &many, "a long checkpoint": &long, "no keys": {}} {
		raw, err := b.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ParseBundle(raw); !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, raw := range map[string][]byte{
		"nothing": nil, "half": raw[:len(raw)/2], "two": append(bytes.Clone(raw), raw...),
		"2 MB": append(bytes.Repeat([]byte{' '}, 2<<20), raw...), "a list": []byte("[]"),
	} {
		if _, err := ParseBundle(raw); !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The formats stay what they are: what is in a log stays there.
func TestGolden(t *testing.T) {
	t.Parallel()
	w := newWorld()
	w.publish(t, 81)
	m := w.publish(t, 82)
	w.append(t, Revocation{Issuer: issuer, Epoch: 82, Key: m.keys[3].ID(), Reason: "it was stolen"})
	bundle, err := w.bundle(t, 82).Marshal()
	if err != nil {
		t.Fatal(err)
	}
	trust, err := w.trust.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]byte{
		"bundle.json": bundle, "mint.json": trust,
		"manifest.txt": []byte(w.entries[1]), "revocation.txt": []byte(w.entries[2]),
	} {
		path := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(path, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what is written today", name)
		}
	}
	read, err := Load("testdata/mint.json")
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile("testdata/bundle.json")
	if err != nil {
		t.Fatal(err)
	}
	b, err := ParseBundle(raw)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := read.Verify(b, 82, "", now); err != nil || len(got.Keys()) != 13 {
		t.Errorf("what was written then is not believed: %v", err)
	}
}
