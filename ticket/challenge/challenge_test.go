package challenge

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return -1
		}
		return r
	}, s))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const someContext = "40ff3cdc296a1e823f43b49355df1a2ee4c5f65e5d38ebb3e24ecf4d874997c6"

// TestVectors has those of RFC 9577, appendix A: what a token says of its challenge.
func TestVectors(t *testing.T) {
	t.Parallel()
	context := unhex(t, someContext)
	for digest, c := range map[string]Challenge{
		"055038620bd58190f057b86af2883352fd9ec612487979b0074a489aece337e7": {BlindRSA, "issuer.example", context, []string{"origin.example"}},
		"11e15c91a7c2ad02abd66645802373db1d823bea80f08d452541fb2b62b5898b": {BlindRSA, "issuer.example", nil, []string{"origin.example"}},
		"b741ec1b6fd05f1e95f8982906aec1612896d9ca97d53eef94ad3c9fe023f7a4": {BlindRSA, "issuer.example", nil, nil},
		"175a86e01410befaee0307ec86990b8a6e1b8192dfca7f0a9692e06813ec9d19": {BlindRSA, "issuer.example", context, []string{"origin.example", "origin2.example"}},
	} {
		b, err := c.Bytes()
		if err != nil {
			t.Fatal(err)
		}
		if got := Digest(b); hex.EncodeToString(got[:]) != digest {
			t.Errorf("%+v has the digest %x, want %s", c, got, digest)
		}
		if again, err := Parse(b); err != nil || !reflect.DeepEqual(again, c) {
			t.Errorf("%+v is read as %+v (%v)", c, again, err)
		}
	}
}

const (
	rsaKey = `30820152303d06092a864886f70d01010a3030a00d300b060960864801650304
		0202a11a301806092a864886f70d010108300b0609608648016503040202a203020130
		0382010f003082010a0282010100cb1aed6b6a95f5b1ce013a4cfcab25b94b2e64a230
		34e4250a7eab43c0df3a8c12993af12b111908d4b471bec31d4b6c9ad9cdda90612a2e
		e903523e6de5a224d6b02f09e5c374d0cfe01d8f529c500a78a2f67908fa682b5a2b43
		0c81eaf1af72d7b5e794fc98a3139276879757ce453b526ef9bf6ceb99979b8423b90f
		4461a22af37aab0cf5733f7597abe44d31c732db68a181c6cbbe607d8c0e52e0655fd9
		996dc584eca0be87afbcd78a337d17b1dba9e828bbd81e291317144e7ff89f55619709
		b096cbb9ea474cead264c2073fe49740c01f00e109106066983d21e5f83f086e2e823c
		879cd43cef700d2a352a9babd612d03cad02db134b7e225a5f0203010001`
	first  = "0002000e6973737565722e6578616d706c65208a3e83a33d98005d2f30bef419fa6bf4cd5c6005e36b1285bbb4ccd40fa4b383000e6f726967696e2e6578616d706c65"
	second = "0001000e6973737565722e6578616d706c65208a3e83a33d98005d2f30bef419fa6bf4cd5c6005e36b1285bbb4ccd40fa4b383000e6f726967696e2e6578616d706c65"
	oprf   = "ebb1fed338310361c08d0c7576969671296e05e99a17d7926dfc28a53fabd489fac0f82bca86249a668f3a5bfab374c9"
)

// header is the second of RFC 9577, appendix A.2, with both challenges.
const header = `PrivateToken challenge="AAIADmlzc3Vlci5leGFtcGxlIIo-g6M9mABdLzC-9Bn6a_TNXGAF42sShbu0zNQPpLODAA5vcmlnaW4uZXhhbXBsZQ==", token-key="MIIBUjA9BgkqhkiG9w0BAQowMKANMAsGCWCGSAFlAwQCAqEaMBgGCSqGSIb3DQEBCDALBglghkgBZQMEAgKiAwIBMAOCAQ8AMIIBCgKCAQEAyxrta2qV9bHOATpM_KsluUsuZKIwNOQlCn6rQ8DfOowSmTrxKxEZCNS0cb7DHUtsmtnN2pBhKi7pA1I-beWiJNawLwnlw3TQz-Adj1KcUAp4ovZ5CPpoK1orQwyB6vGvcte155T8mKMTknaHl1fORTtSbvm_bOuZl5uEI7kPRGGiKvN6qwz1cz91l6vkTTHHMttooYHGy75gfYwOUuBlX9mZbcWE7KC-h6-814ozfRex26noKLvYHikTFxROf_ifVWGXCbCWy7nqR0zq0mTCBz_kl0DAHwDhCRBgZpg9IeX4PwhuLoI8h5zUPO9wDSo1Kpur1hLQPK0C2xNLfiJaXwIDAQAB",unknownChallengeAttribute="ignore-me", max-age="10", PrivateToken challenge="AAEADmlzc3Vlci5leGFtcGxlIIo-g6M9mABdLzC-9Bn6a_TNXGAF42sShbu0zNQPpLODAA5vcmlnaW4uZXhhbXBsZQ==", token-key="67H-0zgxA2HAjQx1dpaWcSluBemaF9eSbfwopT-r1In6wPgryoYkmmaPOlv6s3TJ",unknownChallengeAttribute="ignore-me", max-age="10"`

func TestHeaderVectors(t *testing.T) {
	t.Parallel()
	want := []Offer{
		{unhex(t, first), unhex(t, rsaKey), 10 * time.Second},
		{unhex(t, second), unhex(t, oprf), 10 * time.Second},
	}
	got, err := Offers([]string{header})
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %x (%v), want %x", got, err, want)
	}
	if text := Format(want...); text != strings.ReplaceAll(header, `,unknownChallengeAttribute="ignore-me"`, "") {
		t.Errorf("written as %s", text)
	}
}

// A mint's own challenges are those of the scheme.
func TestTicketsAnswerIt(t *testing.T) {
	t.Parallel()
	for _, class := range ticket.Classes {
		b := ticket.Challenge("mint.example", class)
		c, err := Parse(b)
		if err != nil || c.Type != BlindRSA || c.Issuer != "mint.example" || !c.At("center.example") {
			t.Errorf("the challenge of %s tickets is %+v (%v)", class, c, err)
		}
		if Digest(b) != ticket.ChallengeDigest("mint.example", class) {
			t.Errorf("%s tickets say something else of it", class)
		}
	}
	var token ticket.Token
	token.Nonce[0] = 7
	shown, err := Token(Authorization(token.Append(nil)))
	if err != nil {
		t.Fatal(err)
	}
	if again, err := ticket.ParseToken(shown); err != nil || again != token {
		t.Errorf("a token is shown as another (%v)", err)
	}
}

// Whatever else stands in the field, its offers are found.
func TestAmongOtherSchemes(t *testing.T) {
	t.Parallel()
	challenge := "AAIADmlzc3Vlci5leGFtcGxlIIo-g6M9mABdLzC-9Bn6a_TNXGAF42sShbu0zNQPpLODAA5vcmlnaW4uZXhhbXBsZQ=="
	good := `PrivateToken challenge="` + challenge + `"`
	for field, want := range map[string]int{
		good: 1,
		"privatetoken  challenge = \t\"" + challenge + `"`:   1,
		"PrivateToken challenge=" + challenge:                1,
		`Basic realm="a, PrivateToken challenge=b", ` + good: 1,
		"Negotiate, " + good:                                 1,
		"Negotiate oWkw/+a==, " + good + ", Bearer":          1,
		good + `, Digest realm="x\"y", nonce=z`:              1,
		", ,, " + good + " , " + good + ",":                  2,
		good + `, realm="x"`:                                 1,
		`PrivateToken token-key="AAAA"`:                      0,
		`PrivateToken challenge="AAAA"`:                      0,
		good + `, token-key="!"`:                             0,
		good + `, max-age="-1"`:                              0,
		"":                                                   0,
		"Basic":                                              0,
	} {
		got, err := Offers([]string{field})
		if err != nil || len(got) != want {
			t.Errorf("%q has %d offers (%v), want %d", field, len(got), err, want)
		}
	}
	for _, field := range []string{
		`challenge="x"`, `PrivateToken challenge="x`, `PrivateToken a=b c=d`, `PrivateToken a=b, a=c`, "\x00", `PrivateToken a="` + "\n" + `"`,
		"Negotiate abc==, x=y", "@", strings.Repeat("a", maxHeader+1), `PrivateToken;a=b`,
	} {
		if got, err := Offers([]string{field}); !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("%.40q: %d offers, %v", field, len(got), err)
		}
	}
	many, err := Offers([]string{strings.Repeat(good+",", 20), good})
	if err != nil || len(many) != maxOffers {
		t.Errorf("of many, %d are taken (%v)", len(many), err)
	}
}

func TestToken(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`PrivateToken token="AAEC"`: "000102", "privatetoken token=AAEC": "000102", `PrivateToken token="AA==", x="y"`: "00",
	} {
		if got, err := Token(text); err != nil || hex.EncodeToString(got) != want {
			t.Errorf("%s is read as %x (%v)", text, got, err)
		}
	}
	for _, text := range []string{
		"", "PrivateToken", "Bearer abc", `PrivateToken token=""`, `PrivateToken token="AA"`, `PrivateToken token="A+/="`,
		`PrivateToken token="AAEC", PrivateToken token="AAEC"`, "PrivateToken AAEC", `PrivateToken token="AA\nEC"`,
		Authorization(make([]byte, maxToken+1)),
	} {
		if got, err := Token(text); !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("%.40q is read as %x (%v)", text, got, err)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	whole := unhex(t, first)
	for n := range whole {
		if _, err := Parse(whole[:n]); err == nil {
			t.Errorf("%d bytes of %d are a challenge", n, len(whole))
		}
	}
	if _, err := Parse(append(bytes.Clone(whole), 0)); err == nil {
		t.Error("there is a byte too many")
	}
	for what, c := range map[string]Challenge{
		"no issuer": {Type: 2}, "a context of 31 bytes": {Type: 2, Issuer: "a", Context: make([]byte, 31)},
		"an origin with a comma": {Type: 2, Issuer: "a", Origins: []string{"b,c"}}, "an origin that is none": {Type: 2, Issuer: "a", Origins: []string{""}},
		"a space": {Type: 2, Issuer: "a b"}, "a very long issuer": {Type: 2, Issuer: strings.Repeat("a", 1<<16)},
	} {
		if _, err := c.Bytes(); !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	c := Challenge{Origins: []string{"a.example", "b.example:8443"}}
	if !c.At("A.Example") || !c.At("b.example:8443") || c.At("b.example") || c.At("") {
		t.Error("an origin is taken for another")
	}
}

// FuzzOffers: whatever a server sends, what is taken is written and read as the same.
func FuzzOffers(f *testing.F) {
	f.Add(header)
	f.Add(`Basic realm="x", Negotiate a==, PrivateToken challenge=AAIA`)
	f.Fuzz(func(t *testing.T, field string) {
		offers, err := Offers([]string{field})
		if err != nil || len(offers) == 0 {
			return
		}
		again, err := Offers([]string{Format(offers...)})
		if err != nil || !reflect.DeepEqual(again, offers) {
			t.Errorf("%q is %x, and then %x (%v)", field, offers, again, err)
		}
	})
}

// FuzzToken: whatever a client sends, what is taken is written and read as the same.
func FuzzToken(f *testing.F) {
	f.Add(`PrivateToken token="AAEC"`)
	f.Fuzz(func(t *testing.T, text string) {
		token, err := Token(text)
		if err != nil {
			return
		}
		if again, err := Token(Authorization(token)); err != nil || !bytes.Equal(again, token) {
			t.Errorf("%q is %x, and then %x (%v)", text, token, again, err)
		}
	})
}

// FuzzParse: what is taken for a challenge is written as it came, or is none that is
// written.
func FuzzParse(f *testing.F) {
	f.Add([]byte("\x00\x02\x00\x01a\x00\x00\x03b,c"))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Parse(b)
		if err != nil {
			return
		}
		if again, err := c.Bytes(); err == nil && !bytes.Equal(again, b) {
			t.Errorf("%x is written as %x", b, again)
		}
	})
}
