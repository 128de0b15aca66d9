// Package oblivious lets a wallet ask a mint without the mint learning from where:
// Oblivious HTTP (RFC 9458). A question goes, sealed for the mint, to a relay that
// somebody else runs. The relay knows who asks and nothing of what; the mint's
// gateway knows what is asked and nothing of who. Both together would know both.
//
//	wallet                    relay                      mint
//	Transport ── sealed ────► Relay ────── sealed ─────► Gateway ──► its handler
//	          ◄─ sealed ─────       ◄───── sealed ──────         ◄──
//	           knows: address         knows: neither        knows: content
//
// The gateway's keys live for a day or two, in its memory and nowhere else: what was
// sealed for one that is gone nobody opens any more. A wallet gets them from the
// relay, which shows all wallets the same, so that the mint cannot give one wallet a
// key of its own to know it by; and they are signed by the mint's receipt key, so
// that the relay cannot put its own in their place.
//
// To repeat a sealed question does nothing: all that goes through here is
// idempotent. Questions and answers are padded, so that their length says little.
//
// There is a library (openpcc/ohttp), which brings QUIC and tracing along and has
// streams that nothing here needs. This is the part that is needed, on Go's own HPKE.
package oblivious

import (
	"net/http"
	"slices"
	"strings"
)

const (
	// MaxMessage bounds a question and an answer before they are sealed, in bytes:
	// a mint's largest and its padding.
	MaxMessage = 2 << 20

	maxSealed = MaxMessage + 1<<10

	keysType     = "application/json"
	requestType  = "message/ohttp-req" // RFC 9458, section 9
	responseType = "message/ohttp-res"
	problemType  = "application/problem+json"

	// keyProblem says that a question was sealed for a key that is gone (section 5.3).
	keyProblem = "https://iana.org/assignments/http-problem-types#ohttp-key"
)

// Paths of the gateway, and of a relay.
const (
	Path     = "/v1/oblivious"
	KeysPath = "/v1/oblivious/keys"
)

// allowed are the calls that may come through here: those of wallets, in which
// nobody has a name. Each is idempotent.
var allowed = map[string][]string{
	http.MethodPost: {"/v1/issue", "/v1/swap", "/v1/refunds", "/v1/disputes", "/v1/restore"},
	http.MethodGet:  {"/v1/mint", "/v1/centers", "/v1/manifests/", "/v1/counters/", "/v1/leaves/"},
}

// isAllowed reports whether a call may come through.
func isAllowed(method, path string) bool {
	if path != cleanPath(path) {
		return false
	}
	return slices.ContainsFunc(allowed[method], func(p string) bool {
		return path == p || strings.HasSuffix(p, "/") && strings.HasPrefix(path, p)
	})
}

// cleanPath is path without what could make a handler see another.
func cleanPath(path string) string {
	if strings.Contains(path, "//") || strings.Contains(path, "/.") || strings.ContainsAny(path, "\\%\x00") {
		return ""
	}
	return path
}
