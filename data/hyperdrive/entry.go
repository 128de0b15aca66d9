package hyperdrive

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"unicode/utf8"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/compact"
	"github.com/tradle/cloudpal/data/hyperblobs"
)

// MaxEntry is the most bytes that a file's entry may have, metadata included.
const MaxEntry = 1 << 20

// An Entry is what a drive knows of a name: of a file, that has a Blob, or of a
// symbolic link, that has a Linkname. One that has neither is metadata only.
type Entry struct {
	Name       string // as in "/photos/cat.jpg"
	Seq        uint64 // the block of the drive's database that has it
	Executable bool
	Linkname   string          // seen from the link's folder, or from the drive's root where it begins with /
	Blob       *hyperblobs.ID  // where the content is
	Metadata   json.RawMessage // anything, as JSON; nil for none
}

// IsLink tells whether the entry is a symbolic link.
func (e Entry) IsLink() bool { return e.Linkname != "" }

// appendEntry writes an entry's value byte for byte as the original does:
// JSON.stringify of an object with its members in this order (SPEC 14).
func appendEntry(b []byte, e *Entry) ([]byte, error) {
	b = append(b, `{"executable":`...)
	b = strconv.AppendBool(b, e.Executable)
	b = append(b, `,"linkname":`...)
	if e.IsLink() {
		b = appendString(b, e.Linkname)
	} else {
		b = append(b, "null"...)
	}
	b = append(b, `,"blob":`...)
	b = appendBlob(b, e.Blob)
	b = append(b, `,"metadata":`...)
	b, err := appendMetadata(b, e.Metadata)
	if err != nil {
		return nil, err
	}
	if b = append(b, '}'); len(b) > MaxEntry {
		return nil, cloudpal.E("write an entry", cloudpal.Invalid, errors.New("it has more than 1 MiB"))
	}
	return b, nil
}

func appendBlob(b []byte, id *hyperblobs.ID) []byte {
	if id == nil {
		return append(b, "null"...)
	}
	for _, member := range []struct {
		name  string
		value uint64
	}{
		{`{"blockOffset":`, id.BlockOffset},
		{`,"byteOffset":`, id.ByteOffset},
		{`,"blockLength":`, id.BlockLength},
		{`,"byteLength":`, id.ByteLength},
	} {
		b = append(b, member.name...)
		b = strconv.AppendUint(b, member.value, 10)
	}
	if id.BlockMap {
		b = append(b, `,"blockMap":true`...)
	}
	return append(b, '}')
}

func appendMetadata(b []byte, m json.RawMessage) ([]byte, error) {
	if len(m) == 0 {
		return append(b, "null"...), nil
	}
	out := bytes.NewBuffer(b)
	if err := json.Compact(out, m); err != nil {
		return nil, cloudpal.E("write metadata", cloudpal.Invalid, err)
	}
	return out.Bytes(), nil
}

// appendString quotes as JSON.stringify does, which escapes less than
// encoding/json.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\b':
			b = append(b, `\b`...)
		case r == '\f':
			b = append(b, `\f`...)
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\r':
			b = append(b, `\r`...)
		case r == '\t':
			b = append(b, `\t`...)
		case r < ' ':
			b = fmt.Appendf(b, `\u%04x`, r)
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}

// decodeEntry reads an entry's value, whoever wrote it: members come in any
// order, those that are unknown are ignored, and those that are missing are as
// if null. Names of members are exact, as in JavaScript.
func decodeEntry(value []byte, e *Entry) error {
	if len(value) > MaxEntry {
		return badEntry(errors.New("it has more than 1 MiB"))
	}
	if readEntry(value, e) {
		return nil
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(value, &members); err != nil {
		return badEntry(err)
	}
	return errors.Join(
		member(members, "executable", &e.Executable),
		member(members, "linkname", &e.Linkname),
		decodeBlob(members, &e.Blob),
		decodeMetadata(members, &e.Metadata),
	)
}

// member decodes one of an object's members, if it is there and not null.
func member[T any](members map[string]json.RawMessage, name string, v *T) error {
	raw, ok := members[name]
	if !ok || string(raw) == "null" {
		return nil
	}
	if err := json.Unmarshal(raw, v); err != nil {
		return badEntry(err)
	}
	return nil
}

func decodeBlob(members map[string]json.RawMessage, blob **hyperblobs.ID) error {
	var parts map[string]json.RawMessage
	if err := member(members, "blob", &parts); err != nil || parts == nil {
		return err
	}
	id := new(hyperblobs.ID)
	err := errors.Join(
		member(parts, "blockOffset", &id.BlockOffset),
		member(parts, "byteOffset", &id.ByteOffset),
		member(parts, "blockLength", &id.BlockLength),
		member(parts, "byteLength", &id.ByteLength),
		member(parts, "blockMap", &id.BlockMap),
	)
	if err != nil {
		return err
	}
	if err := id.Check(); err != nil {
		return badEntry(err)
	}
	*blob = id
	return nil
}

func decodeMetadata(members map[string]json.RawMessage, m *json.RawMessage) error {
	if raw := members["metadata"]; len(raw) > 0 && string(raw) != "null" {
		*m = bytes.Clone(raw)
	}
	return nil
}

func badEntry(cause error) error { return cloudpal.E("read an entry", cloudpal.Corrupt, cause) }

// readEntry reads an entry that is laid out exactly as appendEntry does it,
// which is nearly every one there is, several times faster than encoding/json.
// It reports false for any other, and leaves it to the slow way to judge.
func readEntry(value []byte, e *Entry) bool {
	s := scanner{rest: value}
	s.word(`{"executable":`)
	executable := s.boolean()
	s.word(`,"linkname":`)
	linkname := s.plainString()
	s.word(`,"blob":`)
	blob := s.blob()
	if s.failed || !bytes.HasPrefix(s.rest, []byte(`,"metadata":`)) || !bytes.HasSuffix(s.rest, []byte("}")) {
		return false
	}
	metadata := bytes.TrimSpace(s.rest[len(`,"metadata":`) : len(s.rest)-1])
	if string(metadata) != "null" {
		if !json.Valid(metadata) {
			return false
		}
		e.Metadata = bytes.Clone(metadata)
	}
	e.Executable, e.Linkname, e.Blob = executable, linkname, blob
	return true
}

// A scanner reads what it expects, or has failed.
type scanner struct {
	rest   []byte
	failed bool
}

func (s *scanner) try(word string) bool {
	if s.failed || !bytes.HasPrefix(s.rest, []byte(word)) {
		return false
	}
	s.rest = s.rest[len(word):]
	return true
}

func (s *scanner) word(word string) { s.failed = !s.try(word) }

func (s *scanner) boolean() bool {
	if s.try("true") {
		return true
	}
	s.word("false")
	return false
}

// plainString reads null, or a string in which nothing is escaped.
func (s *scanner) plainString() string {
	if s.try("null") {
		return ""
	}
	s.word(`"`)
	end := bytes.IndexByte(s.rest, '"')
	if s.failed || end < 0 {
		s.failed = true
		return ""
	}
	text := s.rest[:end]
	s.rest = s.rest[end+1:]
	for _, c := range text {
		if c < ' ' || c == '\\' {
			s.failed = true
		}
	}
	s.failed = s.failed || !utf8.Valid(text)
	return string(text)
}

func (s *scanner) blob() *hyperblobs.ID {
	if s.try("null") {
		return nil
	}
	id := new(hyperblobs.ID)
	s.word(`{"blockOffset":`)
	id.BlockOffset = s.number()
	s.word(`,"byteOffset":`)
	id.ByteOffset = s.number()
	s.word(`,"blockLength":`)
	id.BlockLength = s.number()
	s.word(`,"byteLength":`)
	id.ByteLength = s.number()
	id.BlockMap = s.try(`,"blockMap":true`)
	s.word("}")
	s.failed = s.failed || id.Check() != nil
	return id
}

// number reads a natural number as JSON has them, without leading zeros.
func (s *scanner) number() (n uint64) {
	i := 0
	for i < len(s.rest) && i < 16 && '0' <= s.rest[i] && s.rest[i] <= '9' {
		n = n*10 + uint64(s.rest[i]-'0')
		i++
	}
	if i == 0 || n > compact.MaxUint || i > 1 && s.rest[0] == '0' {
		s.failed = true
	}
	s.rest = s.rest[i:]
	return n
}
