package meter

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// A Record is one line of a Log. Each names the hash of the one before, so
// none can be changed, dropped or put in between without all later ones
// changing.
type Record struct {
	Seq   int64     `json:"seq"` // 1 for a VM's first
	Time  time.Time `json:"time"`
	VM    string    `json:"vm"`              // the VM's id
	Epoch string    `json:"epoch,omitempty"` // names the process Raw is of; "" while there is none
	Raw   Raw       `json:"raw"`
	Total Counters  `json:"total"`
	Event string    `json:"event,omitempty"` // what happened, for a person
	Prev  string    `json:"prev,omitempty"`  // the hash of the record before; "" for the first
	// Hash is the SHA-256, in hex, of the record's line as it stands up to
	// the comma before "hash", which is the last key.
	Hash string `json:"hash"`
}

// Bounds of a record, in bytes.
const (
	maxLine  = 64 << 10
	maxEvent = 4 << 10
	maxName  = 256 // of a VM or an epoch
)

const (
	hashKey  = `,"hash":"`
	hashTail = `"}` + "\n"
	hashSize = 2 * sha256.Size
)

// tidied returns r with texts that come back from JSON as they went in, and a
// time without what only this process understands.
func (r Record) tidied() Record {
	r.Epoch = tidy(r.Epoch, maxName)
	r.Event = tidy(r.Event, maxEvent)
	r.Time = r.Time.UTC().Round(0)
	return r
}

// tidy returns s as UTF-8 of at most n bytes.
func tidy(s string, n int) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// line sets r's hash and returns its line.
func (r *Record) line() ([]byte, error) {
	r.Hash = ""
	b, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	hashed := b[:len(b)-len(hashKey)-len(`"}`)]
	r.Hash = sum(hashed)
	return append(append(append(hashed, hashKey...), r.Hash...), hashTail...), nil
}

func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// parse reads a whole line, newline included. It takes only what line writes,
// byte for byte, so there are no two readings of one record.
func parse(line []byte) (Record, error) {
	end := len(hashKey) + hashSize + len(hashTail)
	if len(line) < end || len(line) > maxLine {
		return Record{}, errors.New("not a record")
	}
	var r Record
	if err := json.Unmarshal(line, &r); err != nil {
		return Record{}, fmt.Errorf("not a record: %w", err)
	}
	if got := sum(line[:len(line)-end]); got != r.Hash {
		return Record{}, errors.New("its content does not match its hash")
	}
	again := r
	if b, err := again.line(); err != nil || !bytes.Equal(b, line) {
		return Record{}, errors.New("not written as a meter writes it")
	}
	return r, r.check()
}

func (r *Record) check() error {
	switch {
	case r.Seq < 1:
		return fmt.Errorf("its number is %d", r.Seq)
	case (r.Seq == 1) != (r.Prev == ""):
		return errors.New("only the first record has none before it")
	case r.Total.least() < 0:
		return errors.New("a total below zero")
	}
	return nil
}

// follows says what is wrong with r as the record after last.
func (r *Record) follows(last *Record) error {
	switch {
	case r.VM != last.VM:
		return errors.New("it is of another VM than the one before")
	case r.Seq != last.Seq+1:
		return fmt.Errorf("its number is %d after %d", r.Seq, last.Seq)
	case r.Prev != last.Hash:
		return errors.New("it does not follow the one before: one was changed, dropped or added")
	case r.Time.Before(last.Time):
		return errors.New("its time is before that of the one before")
	case r.Total.Sub(last.Total).least() < 0:
		return errors.New("a total is smaller than in the one before")
	}
	return nil
}
