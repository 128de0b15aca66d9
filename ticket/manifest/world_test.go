package manifest

import (
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/transparency-dev/formats/log"
	"golang.org/x/mod/sumdb/note"

	"github.com/tradle/cloudpal/ticket"
)

const issuer = "mint.example"

// now is the time of the tests, in epoch 82.
var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// A party is somebody with an Ed25519 key that follows from their name.
type party struct {
	name string
	key  ed25519.PrivateKey
	at   time.Time // zero: signs plainly; else cosigns, at that time
}

func newParty(name string) party {
	seed := sha256.Sum256([]byte(name))
	return party{name: name, key: ed25519.NewKeyFromSeed(seed[:])}
}

func (p party) cosigning(at time.Time) party {
	p.at = at
	return p
}

// public is the key as C2SP's signed-note writes it: algorithm 1, and 4 for cosignatures.
func (p party) public() []byte {
	algorithm := byte(1)
	if !p.at.IsZero() {
		algorithm = 4
	}
	return append([]byte{algorithm}, p.key.Public().(ed25519.PublicKey)...)
}

func (p party) verifier() string {
	return fmt.Sprintf("%s+%08x+%s", p.name, p.KeyHash(), base64.StdEncoding.EncodeToString(p.public()))
}

func (p party) Name() string { return p.name }

func (p party) KeyHash() uint32 {
	h := sha256.Sum256(append([]byte(p.name+"\n"), p.public()...))
	return binary.BigEndian.Uint32(h[:])
}

func (p party) Sign(msg []byte) ([]byte, error) {
	if p.at.IsZero() {
		return ed25519.Sign(p.key, msg), nil
	}
	signature := ed25519.Sign(p.key, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", p.at.Unix(), msg))
	return append(binary.BigEndian.AppendUint64(nil, uint64(p.at.Unix())), signature...), nil
}

// A world is a mint and its witnesses, all honest as long as nobody says otherwise.
type world struct {
	root, log party
	witnesses []party
	trust     *Trust
	entries   []Entry
	manifests map[ticket.Epoch]*Manifest
}

func newWorld() *world {
	w := &world{root: newParty(issuer), log: newParty(issuer + "/keys"), manifests: map[ticket.Epoch]*Manifest{}}
	w.trust = &Trust{Issuer: issuer, URL: "https://" + issuer, Root: w.root.verifier(), Log: w.log.verifier(), Quorum: 2}
	for _, name := range []string{"ann.example", "bob.example", "eve.example"} {
		p := newParty(name).cosigning(now)
		w.witnesses = append(w.witnesses, p)
		w.trust.Witnesses = append(w.trust.Witnesses, p.verifier())
	}
	return w
}

// publicKey returns a public key whose private one nobody knows.
func publicKey(bits int, seed string) *rsa.PublicKey {
	var b []byte
	for i := 0; len(b) < bits/8; i++ {
		h := sha256.Sum256(fmt.Appendf(nil, "%s %d", seed, i))
		b = append(b, h[:]...)
	}
	b = b[:bits/8]
	b[0] |= 0x80
	b[len(b)-1] |= 1
	return &rsa.PublicKey{N: new(big.Int).SetBytes(b), E: 65537}
}

func newKeys(tb testing.TB, e ticket.Epoch, seed string) (keys []*ticket.Key) {
	tb.Helper()
	for _, s := range slots {
		k, err := ticket.NewKey(s.class, s.denomination, e, publicKey(2048, fmt.Sprintf("%s %d %s", seed, e, s)))
		if err != nil {
			tb.Fatal(err)
		}
		keys = append(keys, k)
	}
	return keys
}

// manifest returns one of an epoch whose keys follow from a seed.
func (w *world) manifest(tb testing.TB, e ticket.Epoch, seed string) *Manifest {
	tb.Helper()
	m, err := New(issuer, e, newParty("receipt"+seed).key.Public().(ed25519.PublicKey), newKeys(tb, e, seed))
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

// publish appends an epoch's manifest to the log.
func (w *world) publish(tb testing.TB, e ticket.Epoch) *Manifest {
	tb.Helper()
	m := w.manifest(tb, e, "")
	w.manifests[e] = m
	w.append(tb, m)
	return m
}

func (w *world) append(tb testing.TB, s interface {
	Sign(note.Signer) (Entry, error)
}) {
	tb.Helper()
	entry, err := s.Sign(w.root)
	if err != nil {
		tb.Fatal(err)
	}
	w.entries = append(w.entries, entry)
}

// checkpoint returns that of the log, signed by some.
func (w *world) checkpoint(tb testing.TB, by ...party) Checkpoint {
	tb.Helper()
	c := log.Checkpoint{Origin: w.log.name, Size: uint64(len(w.entries)), Hash: Root(w.entries)}
	return sealed(tb, string(c.Marshal()), by...)
}

func sealed(tb testing.TB, text string, by ...party) Checkpoint {
	tb.Helper()
	var signers []note.Signer
	for _, p := range by {
		signers = append(signers, p)
	}
	signed, err := note.Sign(&note.Note{Text: text}, signers...)
	if err != nil {
		tb.Fatal(err)
	}
	return Checkpoint(signed)
}

// bundle returns what an honest mint shows for an epoch.
func (w *world) bundle(tb testing.TB, e ticket.Epoch) *Bundle {
	tb.Helper()
	m := w.manifests[e]
	if m == nil {
		m = w.manifests[slices.Max(slices.Collect(maps.Keys(w.manifests)))]
	}
	return &Bundle{
		Keys:       m.Public(),
		Entries:    slices.Clone(w.entries),
		Checkpoint: w.checkpoint(tb, append([]party{w.log}, w.witnesses[:2]...)...),
	}
}

// forged returns an entry with any text that the root signs.
func (w *world) forged(tb testing.TB, text string) Entry {
	tb.Helper()
	return Entry(sealed(tb, text, w.root))
}

func textOf(e Entry) string {
	text, _, _ := strings.Cut(string(e), "\n\n")
	return text + "\n"
}
