package manifest

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"
	"time"

	cosignature "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"

	"github.com/tradle/cloudpal"
)

// MaxAge is how old the cosignatures of a checkpoint may be, so that a mint cannot
// keep a revocation from anybody for longer. Quorum 0 has no such limit.
const MaxAge = 7 * 24 * time.Hour

// maxAhead is how far a witness's clock may be ahead.
const maxAhead = 24 * time.Hour

// MinQuorum is the least that a mint of others needs: fewer witnesses, and one that
// is the mint's friend could show everybody a log of their own.
const MinQuorum = 2

// A Trust says whom to believe about a mint's keys. Its zero value believes nobody.
// It is written as JSON, in a file such as mint.json. Keys are in the form of
// golang.org/x/mod/sumdb/note, name+hash+key.
type Trust struct {
	Issuer    string   `json:"issuer"`
	URL       string   `json:"url"`                 // where the mint answers
	Root      string   `json:"root"`                // signs entries; its name is the issuer
	Log       string   `json:"log"`                 // signs checkpoints; its name is the log's origin
	Witnesses []string `json:"witnesses,omitempty"` // cosign them
	Quorum    int      `json:"quorum"`              // how many have to: 0 for a mint of one's own, else at least MinQuorum
}

// Alone reports whether the mint has no witnesses, and could show each person other
// keys. That is right only for a mint of one's own; say so to whoever uses it.
func (t *Trust) Alone() bool { return t.Quorum == 0 }

// maxTrust bounds a trust in JSON, in bytes.
const maxTrust = 64 << 10

// Load reads a trust from a file.
func Load(path string) (*Trust, error) {
	op := "read " + path
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, cloudpal.E(op, cloudpal.NotExist, nil).WithHint("ask the mint for its mint.json, and others whether theirs is the same")
	}
	if err != nil {
		return nil, cloudpal.E(op, cloudpal.Other, err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxTrust+1))
	if err != nil {
		return nil, cloudpal.E(op, cloudpal.Other, err)
	}
	t, err := ParseTrust(raw)
	if err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	return t, nil
}

// ParseTrust reads a trust that is good to Verify with.
func ParseTrust(raw []byte) (*Trust, error) {
	const op = "read whom to trust about a mint"
	if len(raw) > maxTrust {
		return nil, cloudpal.E(op, cloudpal.Invalid, fmt.Errorf("it has %d bytes; %d are the most", len(raw), maxTrust))
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	t := new(Trust)
	if err := d.Decode(t); err != nil {
		return nil, cloudpal.E(op, cloudpal.Invalid, err)
	}
	if d.More() {
		return nil, cloudpal.E(op, cloudpal.Invalid, errors.New("something follows it"))
	}
	if _, err := t.open(); err != nil {
		return nil, cloudpal.E(op, cloudpal.Invalid, err)
	}
	return t, nil
}

// Marshal returns the trust as ParseTrust reads it.
func (t *Trust) Marshal() ([]byte, error) {
	if _, err := t.open(); err != nil {
		return nil, cloudpal.E("write whom to trust about a mint", cloudpal.Invalid, err)
	}
	raw, err := json.MarshalIndent(t, "", "  ")
	if err != nil {
		return nil, cloudpal.E("write whom to trust about a mint", cloudpal.Invalid, err)
	}
	return append(raw, '\n'), nil
}

// parties are the keys of a Trust.
type parties struct {
	root, log note.Verifier
	witnesses []note.Verifier
}

// open reads the keys, and refuses a trust that is none.
func (t *Trust) open() (*parties, error) {
	if err := checkIssuer(t.Issuer); err != nil {
		return nil, err
	}
	u, err := url.Parse(t.URL)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
		return nil, errors.New("its url is not where a mint answers")
	}
	root, err := note.NewVerifier(t.Root)
	if err != nil {
		return nil, fmt.Errorf("its root is no key of a note: %w", err)
	}
	if root.Name() != t.Issuer {
		return nil, errors.New("its root is not named for the mint")
	}
	p := &parties{root: root}
	if p.log, err = note.NewVerifier(t.Log); err != nil {
		return nil, fmt.Errorf("its log is no key of a note: %w", err)
	}
	if keyOf(t.Root) == keyOf(t.Log) {
		return nil, errors.New("its root and its log have one key: the root is to be kept where no server is")
	}
	if t.Quorum != 0 && t.Quorum < MinQuorum || t.Quorum > len(t.Witnesses) || t.Quorum < 0 {
		return nil, fmt.Errorf("its quorum is 0, for a mint of one's own, or from %d to the number of its witnesses", MinQuorum)
	}
	return p, t.openWitnesses(p)
}

// openWitnesses refuses one who is there twice: each counts once.
func (t *Trust) openWitnesses(p *parties) error {
	keys := map[string]bool{keyOf(t.Root): true, keyOf(t.Log): true}
	names := map[string]bool{p.root.Name(): true, p.log.Name(): true}
	for i, text := range t.Witnesses {
		w, err := cosignature.NewVerifierForCosignatureV1(text)
		if err != nil {
			return fmt.Errorf("its witness %d is no key of a note: %w", i+1, err)
		}
		if keys[keyOf(text)] || names[w.Name()] {
			return fmt.Errorf("its witness %s is there twice, or is the mint", w.Name())
		}
		keys[keyOf(text)], names[w.Name()] = true, true
		p.witnesses = append(p.witnesses, w)
	}
	return nil
}

// keyOf returns what is a key in its text, without its name and its algorithm.
func keyOf(text string) string {
	parts := strings.SplitN(text, "+", 3)
	raw, err := base64.StdEncoding.DecodeString(parts[len(parts)-1])
	if err != nil || len(raw) == 0 {
		return ""
	}
	return string(raw[1:])
}
