package oblivious

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"net/textproto"
	"net/url"
	"strings"

	"golang.org/x/net/http/httpguts"

	"github.com/tradle/cloudpal"
)

// Binary HTTP (RFC 9292), of known length: what is sealed.
const (
	knownRequest  = 0 // framing indicators, section 3.3
	knownResponse = 1
)

// maxFields bounds the header fields of a message, in bytes.
const maxFields = 16 << 10

var errBinary = cloudpal.E("", cloudpal.Invalid, errors.New("it is no message of Binary HTTP"))

// kept are the header fields that are sent. All others say more of who asks, or of
// what answers, than the other side needs to know.
var kept = []string{"Content-Type", "Accept", "Cache-Control", "Retry-After"}

// encodeRequest writes a request with its body, and padding.
func encodeRequest(r *http.Request, body []byte) ([]byte, error) {
	b := appendVarint(nil, knownRequest)
	for _, part := range []string{r.Method, r.URL.Scheme, r.URL.Host, r.URL.RequestURI()} {
		b = appendBytes(b, []byte(part))
	}
	return finish(b, r.Header, body)
}

// encodeResponse writes a response, and padding.
func encodeResponse(status int, h http.Header, body []byte) ([]byte, error) {
	return finish(appendVarint(appendVarint(nil, knownResponse), uint64(status)), h, body)
}

func finish(b []byte, h http.Header, body []byte) ([]byte, error) {
	var fields []byte
	for _, name := range kept {
		for _, value := range h.Values(name) {
			fields = appendBytes(appendBytes(fields, []byte(strings.ToLower(name))), []byte(value))
		}
	}
	b = appendBytes(b, fields)
	b = appendBytes(b, body)
	b = appendBytes(b, nil) // no trailers
	if len(fields) > maxFields || padded(len(b)) > MaxMessage {
		return nil, cloudpal.E("", cloudpal.Invalid, errors.New("it is too large"))
	}
	return append(b, make([]byte, padded(len(b))-len(b))...), nil
}

// padded is the length of a message with its padding: one of few, each twice the one
// before.
func padded(n int) int {
	size := 4 << 10
	for size < n {
		size *= 2
	}
	return size
}

// decodeRequest reads a request.
func decodeRequest(b []byte) (*http.Request, error) {
	m := message{rest: b}
	if m.varint() != knownRequest {
		return nil, errBinary
	}
	method, scheme, authority, target := m.bytes(), m.bytes(), m.bytes(), m.bytes()
	h, body := m.end()
	if m.failed || !httpguts.ValidHeaderFieldName(string(method)) || string(scheme) != "https" || !httpguts.ValidHostHeader(string(authority)) {
		return nil, errBinary
	}
	u, err := url.ParseRequestURI(string(target))
	if err != nil || u.Host != "" || u.Scheme != "" || !strings.HasPrefix(string(target), "/") {
		return nil, errBinary
	}
	return &http.Request{
		Method: string(method), URL: u, RequestURI: string(target), Host: string(authority),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: h, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
	}, nil
}

// decodeResponse reads a response. Informational ones before it are skipped.
func decodeResponse(b []byte) (*http.Response, error) {
	m := message{rest: b}
	if m.varint() != knownResponse {
		return nil, errBinary
	}
	status := m.varint()
	for status >= 100 && status < 200 && !m.failed {
		m.fields()
		status = m.varint()
	}
	h, body := m.end()
	if m.failed || status < 200 || status > 599 {
		return nil, errBinary
	}
	return &http.Response{
		Status: http.StatusText(int(status)), StatusCode: int(status),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: h, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
	}, nil
}

// A message is read part by part. What is missing at the end reads as empty
// (section 3.8); what is wrong sets failed.
type message struct {
	rest   []byte
	failed bool
}

func (m *message) varint() uint64 {
	n, size := readVarint(m.rest)
	if size == 0 {
		m.failed = true
		return 0
	}
	m.rest = m.rest[size:]
	return n
}

func (m *message) bytes() []byte {
	n := m.varint()
	if m.failed || n > uint64(len(m.rest)) {
		m.failed = true
		return nil
	}
	b := m.rest[:n]
	m.rest = m.rest[n:]
	return b
}

// optional is bytes, or none where the message ends.
func (m *message) optional() []byte {
	if len(m.rest) == 0 {
		return nil
	}
	return m.bytes()
}

// end reads header fields, content, trailers, which nobody uses, and padding.
func (m *message) end() (http.Header, []byte) {
	h := m.fields()
	body := m.optional()
	m.fields()
	for _, b := range m.rest {
		if b != 0 {
			m.failed = true
		}
	}
	return h, body
}

// fields reads a field section.
func (m *message) fields() http.Header {
	section := message{rest: m.optional()}
	h := http.Header{}
	if len(section.rest) > maxFields {
		section.failed = true
	}
	for len(section.rest) > 0 && !section.failed {
		name, value := string(section.bytes()), string(section.bytes())
		if !httpguts.ValidHeaderFieldName(name) || name != strings.ToLower(name) || !httpguts.ValidHeaderFieldValue(value) {
			section.failed = true
		}
		h.Add(textproto.CanonicalMIMEHeaderKey(name), value)
	}
	m.failed = m.failed || section.failed
	return h
}

// appendVarint appends a variable-length integer (RFC 9000, section 16).
func appendVarint(b []byte, n uint64) []byte {
	switch {
	case n < 1<<6:
		return append(b, byte(n))
	case n < 1<<14:
		return binary.BigEndian.AppendUint16(b, uint16(n)|1<<14)
	case n < 1<<30:
		return binary.BigEndian.AppendUint32(b, uint32(n)|2<<30)
	}
	return binary.BigEndian.AppendUint64(b, n|3<<62)
}

func appendBytes(b, part []byte) []byte {
	return append(appendVarint(b, uint64(len(part))), part...)
}

// readVarint returns a size of 0 where there is no whole one.
func readVarint(b []byte) (n uint64, size int) {
	if len(b) == 0 {
		return 0, 0
	}
	size = 1 << (b[0] >> 6)
	if len(b) < size {
		return 0, 0
	}
	n = uint64(b[0] & 0x3f)
	for _, c := range b[1:size] {
		n = n<<8 | uint64(c)
	}
	return n, size
}
