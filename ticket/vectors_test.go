package ticket

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"

	"github.com/tradle/cloudpal/ticket/signer"
)

// A hexed is bytes that a JSON file has in hexadecimal.
type hexed []byte

func (h *hexed) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

// TestIssuance goes through RFC 9578, appendix A.2: the key's encoding, the blinded
// message, the signature and the token are the RFC's, byte for byte.
func TestIssuance(t *testing.T) {
	text, err := os.ReadFile("testdata/rfc9578-type2.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		Private   hexed `json:"skS"`
		Public    hexed `json:"pkS"`
		Challenge hexed `json:"token_challenge"`
		Nonce     hexed
		Blind     hexed
		Salt      hexed
		Request   hexed `json:"token_request"`
		Response  hexed `json:"token_response"`
		Token     hexed
	}
	if err := json.Unmarshal(text, &vectors); err != nil || len(vectors) < 5 {
		t.Fatalf("%d vectors, %v", len(vectors), err)
	}
	for i, v := range vectors {
		s, err := signer.Parse(v.Private)
		if err != nil {
			t.Fatal(err)
		}
		k, err := NewKey(Paid, 64, 0, s.Public())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(k.Public(), v.Public) {
			t.Errorf("%d: the key is %x, want %x", i, k.Public(), v.Public)
		}
		if again, err := ParseKey(Paid, 64, 0, v.Public); err != nil || again.ID() != k.ID() {
			t.Errorf("%d: the key is read as another: %v", i, err)
		}
		token := Token{Nonce: [32]byte(v.Nonce), Challenge: sha256.Sum256(v.Challenge), Key: k.ID()}
		drawn := bytes.NewReader(append(bytes.Clone(v.Salt), v.Blind...))
		blinded, state, err := k.client.Blind(drawn, token.appendInput(nil))
		if err != nil {
			t.Fatal(err)
		}
		id := k.ID()
		request := append([]byte{0, tokenType, id[len(id)-1]}, blinded...)
		if !bytes.Equal(request, v.Request) {
			t.Errorf("%d: the request is %x, want %x", i, request, v.Request)
		}
		signature, err := s.Sign(blinded)
		if err != nil || !bytes.Equal(signature, v.Response) {
			t.Errorf("%d: the response is %x, %v; want %x", i, signature, err, v.Response)
		}
		authenticator, err := k.client.Finalize(state, signature)
		if err != nil {
			t.Fatal(err)
		}
		token.Authenticator = [BlindSize]byte(authenticator)
		if got := token.Append(nil); !bytes.Equal(got, v.Token) {
			t.Errorf("%d: the token is %x, want %x", i, got, v.Token)
		}
		if got, err := ParseToken(v.Token); err != nil || got != token || got.Verify(k) != nil {
			t.Errorf("%d: the RFC's token is read as %+v, %v", i, got, err)
		}
	}
}
