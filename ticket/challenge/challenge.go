// Package challenge is how a server asks for one ticket over HTTP, and how it is shown
// one: the authentication scheme PrivateToken of Privacy Pass (RFC 9577). Any client
// that knows the scheme can answer, and any server that knows it can ask.
//
//	WWW-Authenticate: PrivateToken challenge="...", token-key="..."
//	Authorization: PrivateToken token="..."
//
// A token that is shown so is a bearer's: the scheme has no place for what its owner
// wants it to be spent for. It proves that somebody has a ticket; for value, it is
// spent for a contract.
package challenge

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"github.com/tradle/cloudpal"
)

// BlindRSA is the token type of tickets (RFC 9578, section 8.2.2).
const BlindRSA = 0x0002

const (
	maxHeader = 16 << 10 // bytes of a header field
	maxOffers = 16       // challenges of one answer
	maxToken  = 4 << 10  // bytes of a token, of whatever type
)

// A Challenge is what a token answers (RFC 9577, section 2.1.1): a TokenChallenge.
type Challenge struct {
	Type    uint16
	Issuer  string
	Context []byte   // of 32 bytes, or none: a token is for this alone
	Origins []string // where it can be redeemed; none: anywhere
}

// Parse reads exactly one.
func Parse(b []byte) (c Challenge, err error) {
	s := cryptobyte.String(b)
	var issuer, context, origins cryptobyte.String
	if !s.ReadUint16(&c.Type) || !s.ReadUint16LengthPrefixed(&issuer) || !s.ReadUint8LengthPrefixed(&context) ||
		!s.ReadUint16LengthPrefixed(&origins) || !s.Empty() {
		return c, invalid("it is no TokenChallenge")
	}
	if len(context) != 0 && len(context) != 32 {
		return c, invalid("its redemption context has neither 0 nor 32 bytes")
	}
	if len(issuer) == 0 || !isText(issuer) || !isText(origins) {
		return c, invalid("its names are no names")
	}
	c.Issuer = string(issuer)
	if len(context) > 0 {
		c.Context = slices.Clone(context)
	}
	if len(origins) > 0 {
		c.Origins = strings.Split(string(origins), ",")
	}
	return c, nil
}

// isText reports whether names are of printable ASCII.
func isText(b []byte) bool {
	return !slices.ContainsFunc(b, func(c byte) bool { return c <= ' ' || c > '~' })
}

func invalid(why string) error {
	return cloudpal.E("read a challenge", cloudpal.Invalid, errors.New(why))
}

// Bytes returns the challenge as Parse reads it. It refuses what would not be read as
// the same.
func (c Challenge) Bytes() ([]byte, error) {
	var b cryptobyte.Builder
	b.AddUint16(c.Type)
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(c.Issuer)) })
	b.AddUint8LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(c.Context) })
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes([]byte(strings.Join(c.Origins, ","))) })
	out, err := b.Bytes()
	if err != nil {
		return nil, invalid("it is too large")
	}
	again, err := Parse(out)
	if err != nil {
		return nil, err
	}
	if !slices.Equal(again.Origins, c.Origins) {
		return nil, invalid("an origin's name has a comma in it, or is none")
	}
	return out, nil
}

// Digest is what a token says of a challenge.
func Digest(challenge []byte) [32]byte { return sha256.Sum256(challenge) }

// At reports whether a token can be redeemed at an origin, such as "app.example".
func (c Challenge) At(origin string) bool {
	return len(c.Origins) == 0 || slices.ContainsFunc(c.Origins, func(o string) bool { return strings.EqualFold(o, origin) })
}

// An Offer is one way to be let in.
type Offer struct {
	Challenge []byte        // as Parse reads it
	Key       []byte        // of the issuer; none: the client knows it
	MaxAge    time.Duration // in which the server takes a token for it, in seconds; 0: it does not say
}

// Format returns the value of WWW-Authenticate, with the offers in the server's order
// of preference.
func Format(offers ...Offer) string {
	var all []string
	for _, o := range offers {
		text := fmt.Sprintf(`PrivateToken challenge="%s"`, encode(o.Challenge))
		if len(o.Key) > 0 {
			text += fmt.Sprintf(`, token-key="%s"`, encode(o.Key))
		}
		if o.MaxAge > 0 {
			text += fmt.Sprintf(`, max-age="%d"`, o.MaxAge/time.Second)
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

// Offers reads the values of WWW-Authenticate. Other schemes and what it does not
// know are skipped, as RFC 9577 wants it; a field that is no list of challenges is an
// error.
func Offers(values []string) (offers []Offer, err error) {
	for _, value := range values {
		list, err := parseSchemes(value)
		if err != nil {
			return nil, err
		}
		for _, s := range list {
			o, ok := offerOf(s)
			if !ok {
				continue
			}
			if len(offers) == maxOffers {
				return offers, nil
			}
			offers = append(offers, o)
		}
	}
	return offers, nil
}

func offerOf(s scheme) (o Offer, ok bool) {
	if !strings.EqualFold(s.name, "PrivateToken") {
		return o, false
	}
	challenge, err := decode(s.params["challenge"])
	if err != nil {
		return o, false
	}
	if _, err := Parse(challenge); err != nil {
		return o, false
	}
	o.Challenge = challenge
	if text, has := s.params["token-key"]; has {
		if o.Key, err = decode(text); err != nil {
			return o, false
		}
	}
	if text, has := s.params["max-age"]; has {
		seconds, err := strconv.ParseUint(text, 10, 31)
		if err != nil {
			return o, false
		}
		o.MaxAge = time.Duration(seconds) * time.Second
	}
	return o, true
}

// Authorization returns the value of Authorization that shows a token.
func Authorization(token []byte) string { return fmt.Sprintf(`PrivateToken token="%s"`, encode(token)) }

// Token reads the value of Authorization.
func Token(authorization string) ([]byte, error) {
	list, err := parseSchemes(authorization)
	if err != nil {
		return nil, err
	}
	if len(list) != 1 || !strings.EqualFold(list[0].name, "PrivateToken") {
		return nil, invalid("it is no authorization by a token")
	}
	token, err := decode(list[0].params["token"])
	if err != nil || len(token) > maxToken {
		return nil, invalid("it has no token")
	}
	return token, nil
}

// encode is base64url with padding (section 2.1.1).
func encode(b []byte) string { return base64.URLEncoding.EncodeToString(b) }

func decode(text string) ([]byte, error) {
	b, err := base64.URLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) == 0 || encode(b) != text { // the decoder skips line ends
		return nil, invalid("it is not in base64url")
	}
	return b, nil
}
