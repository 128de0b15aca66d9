package manifest

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/mod/sumdb/note"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

// An Entry is one of a mint's log: a note that its root has signed (see
// golang.org/x/mod/sumdb/note), which says a Listing or a Revocation:
//
//	cloudpal manifest v1             cloudpal revocation v1
//	mint.example                     mint.example
//	epoch 82                         epoch 82
//	type 2                           key <base64>
//	receipt <base64>                 reason it was stolen
//	paid 1 <base64>
//	... the other denominations
//	free 4096 <base64>
//
// The type is RFC 9578's of tokens, and keys are named by their ticket.KeyID. There is
// one way to write each.
type Entry string

// MaxEntry bounds an entry, in bytes.
const MaxEntry = 4096

const (
	listingHead    = "cloudpal manifest v1"
	revocationHead = "cloudpal revocation v1"
	maxIssuer      = 128 // bytes
	maxReason      = 200 // bytes
)

// A Statement is what an entry says: a *Listing or a *Revocation.
type Statement interface {
	text() string
	check() error
	by() string
}

// A Listing is what the log has of a Manifest: what its keys are named by.
type Listing struct {
	Issuer  string
	Epoch   ticket.Epoch
	Receipt ed25519.PublicKey
	Keys    []ticket.KeyID // by class, then by denomination
}

// A Revocation says that a mint no longer stands by one of an epoch's keys.
type Revocation struct {
	Issuer string
	Epoch  ticket.Epoch
	Key    ticket.KeyID
	Reason string // one line, for people
}

// Sign returns the entry for the log. The root's name is the issuer's.
func (r Revocation) Sign(root note.Signer) (Entry, error) { return sign(&r, root) }

func sign(s Statement, root note.Signer) (Entry, error) {
	const op = "sign an entry of a mint's log"
	if err := s.check(); err != nil {
		return "", cloudpal.E(op, cloudpal.Invalid, err)
	}
	if root.Name() != s.by() {
		return "", cloudpal.E(op, cloudpal.Invalid, errors.New("the root key is not named for the mint"))
	}
	signed, err := note.Sign(&note.Note{Text: s.text()}, root)
	if err != nil {
		return "", cloudpal.E(op, cloudpal.Other, err)
	}
	return Entry(signed), nil
}

// Open returns what the entry says, once it has seen that root, which is named for
// the mint, and nobody else signed it.
func (e Entry) Open(root note.Verifier) (Statement, error) {
	const op = "read an entry of a mint's log"
	if len(e) > MaxEntry {
		return nil, cloudpal.E(op, cloudpal.Invalid, fmt.Errorf("it has %d bytes; %d are the most", len(e), MaxEntry))
	}
	n, err := note.Open([]byte(e), note.VerifierList(root))
	if err != nil {
		return nil, cloudpal.E(op, cloudpal.Denied, errors.New("the mint's root did not sign it"))
	}
	if len(n.Sigs) != 1 || len(n.UnverifiedSigs) != 0 {
		return nil, cloudpal.E(op, cloudpal.Invalid, errors.New("more than the mint's root signed it"))
	}
	s, err := parseStatement(n.Text)
	if err != nil {
		return nil, cloudpal.E(op, cloudpal.Invalid, err)
	}
	if s.by() != root.Name() {
		return nil, cloudpal.E(op, cloudpal.Denied, errors.New("it is about another mint's keys"))
	}
	return s, nil
}

// parseStatement reads what text has written, and nothing else.
func parseStatement(text string) (s Statement, err error) {
	lines := strings.Split(strings.TrimSuffix(text, "\n"), "\n")
	switch lines[0] {
	case listingHead:
		s, err = parseListing(lines[1:])
	case revocationHead:
		s, err = parseRevocation(lines[1:])
	default:
		return nil, errors.New("it is of a kind that is not known here")
	}
	if err != nil {
		return nil, err
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	if s.text() != text {
		return nil, errors.New("it is not written as it has to be")
	}
	return s, nil
}

func parseListing(lines []string) (*Listing, error) {
	if len(lines) != 4+len(slots) {
		return nil, errors.New("it has other than one key for each class and denomination")
	}
	l := &Listing{Issuer: lines[0], Keys: make([]ticket.KeyID, len(slots))}
	var err error
	if l.Epoch, err = parseEpoch(lines[1]); err != nil {
		return nil, err
	}
	var receipt [ed25519.PublicKeySize]byte
	if receipt, err = parseBytes(lines[3], "receipt"); err != nil {
		return nil, err
	}
	l.Receipt = receipt[:]
	for i, s := range slots {
		if l.Keys[i], err = parseBytes(lines[4+i], s.String()); err != nil {
			return nil, err
		}
	}
	return l, nil
}

func parseRevocation(lines []string) (*Revocation, error) {
	if len(lines) != 4 {
		return nil, errors.New("it has too few or too many lines")
	}
	r := &Revocation{Issuer: lines[0], Reason: strings.TrimPrefix(lines[3], "reason ")}
	var err error
	if r.Epoch, err = parseEpoch(lines[1]); err != nil {
		return nil, err
	}
	if r.Key, err = parseBytes(lines[2], "key"); err != nil {
		return nil, err
	}
	return r, nil
}

func parseEpoch(line string) (ticket.Epoch, error) {
	n, err := strconv.ParseUint(strings.TrimPrefix(line, "epoch "), 10, 32)
	if err != nil {
		return 0, errors.New("it names no epoch")
	}
	return ticket.Epoch(n), nil
}

func parseBytes(line, name string) (b [32]byte, err error) {
	text, ok := strings.CutPrefix(line, name+" ")
	raw, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil || len(raw) != len(b) {
		return b, fmt.Errorf("it has no %s where one belongs", name)
	}
	return [32]byte(raw), nil
}

func (s slot) String() string { return fmt.Sprintf("%s %d", s.class, s.denomination) }

func (l *Listing) by() string { return l.Issuer }

func (l *Listing) text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n%s\nepoch %d\ntype 2\nreceipt %s\n", listingHead, l.Issuer, l.Epoch,
		base64.StdEncoding.EncodeToString(l.Receipt))
	for i, s := range slots {
		fmt.Fprintf(&b, "%s %s\n", s, base64.StdEncoding.EncodeToString(l.Keys[i][:]))
	}
	return b.String()
}

func (l *Listing) check() error {
	seen := map[ticket.KeyID]bool{}
	for _, id := range l.Keys {
		if seen[id] {
			return errors.New("one key stands for two kinds of tickets")
		}
		seen[id] = true
	}
	return checkIssuer(l.Issuer)
}

func (r *Revocation) by() string { return r.Issuer }

func (r *Revocation) text() string {
	return fmt.Sprintf("%s\n%s\nepoch %d\nkey %s\nreason %s\n", revocationHead, r.Issuer, r.Epoch,
		base64.StdEncoding.EncodeToString(r.Key[:]), r.Reason)
}

func (r *Revocation) check() error {
	if r.Reason == "" || len(r.Reason) > maxReason || strings.ContainsFunc(r.Reason, func(c rune) bool { return !unicode.IsPrint(c) }) {
		return fmt.Errorf("a reason is one line of at most %d bytes", maxReason)
	}
	return checkIssuer(r.Issuer)
}

// checkIssuer takes what can be the name of a note's key.
func checkIssuer(name string) error {
	bad := func(c rune) bool { return c <= ' ' || c >= 0x7f || c == '+' }
	if name == "" || len(name) > maxIssuer || strings.ContainsFunc(name, bad) {
		return errors.New(`a mint is named like a host, "mint.example"`)
	}
	return nil
}
