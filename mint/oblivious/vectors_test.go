package oblivious

import (
	"bytes"
	"crypto/hpke"
	"encoding/hex"
	"io"
	"net/http"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The example of RFC 9458, appendix A.
const (
	exampleKey       = "3c168975674b2fa8e465970b79c8dcf09f1c741626480bd4c6162fc5b6a98e1a"
	exampleConfig    = "01002031e1f05a740102115220e9af918f738674aec95f54db6e04eb705aae8e79815500080001000100010003"
	exampleRequest   = "00034745540568747470730b6578616d706c652e636f6d012f"
	exampleSealed    = "010020000100014b28f881333e7c164ffc499ad9796f877f4e1051ee6d31bad19dec96c208b4726374e469135906992e1268c594d2a10c695d858c40a026e7965e7d86b83dd440b2c0185204b4d63525"
	exampleResponse  = "0140c8"
	exampleNonce     = "c789e7151fcba46158ca84b04464910d"
	exampleSealedRes = "c789e7151fcba46158ca84b04464910d86f9013e404feea014e7be4a441f234f857fbd"
)

func exampleKeys(t testing.TB) func(byte) hpke.PrivateKey {
	t.Helper()
	private, err := kem().NewPrivateKey(unhex(t, exampleKey))
	if err != nil {
		t.Fatal(err)
	}
	return func(id byte) hpke.PrivateKey {
		if id == 1 {
			return private
		}
		return nil
	}
}

func TestExampleOfOHTTP(t *testing.T) {
	t.Parallel()
	c, ok, err := parseConfig(unhex(t, exampleConfig))
	if err != nil || !ok || c.ID != 1 || !bytes.Equal(c.Public.Bytes(), exampleKeys(t)(1).PublicKey().Bytes()) {
		t.Errorf("the config is read as %+v (%v, %v)", c, ok, err)
	}
	request, talk, err := openRequest(exampleKeys(t), unhex(t, exampleSealed))
	if err != nil || hex.EncodeToString(request) != exampleRequest {
		t.Fatalf("the request opens as %x (%v)", request, err)
	}
	sealed, err := talk.sealWith(unhex(t, exampleNonce), unhex(t, exampleResponse))
	if err != nil || hex.EncodeToString(sealed) != exampleSealedRes {
		t.Errorf("the response is sealed as %x (%v)", sealed, err)
	}
	response, err := talk.openResponse(unhex(t, exampleSealedRes))
	if err != nil || hex.EncodeToString(response) != exampleResponse {
		t.Errorf("the response opens as %x (%v)", response, err)
	}
	r, err := decodeRequest(request)
	if err != nil || r.Method != "GET" || r.Host != "example.com" || r.URL.Path != "/" {
		t.Errorf("the request is %+v (%v)", r, err)
	}
	if resp, err := decodeResponse(response); err != nil || resp.StatusCode != 200 {
		t.Errorf("the response is %+v (%v)", resp, err)
	}
}

// The examples of RFC 9292, section 5, those of known length.
func TestExamplesOfBinaryHTTP(t *testing.T) {
	t.Parallel()
	r, err := decodeRequest(unhex(t, "0003474554056874747073000a2f68656c6c6f2e747874406c0a757365722d6167656e74346375726c2f372e31362e33206c69626375726c2f372e31362e33204f70656e53534c2f302e392e376c207a6c69622f312e322e3304686f73740f7777772e6578616d706c652e636f6d0f6163636570742d6c616e677561676506656e2c206d690000"))
	if err != nil || r.Method != "GET" || r.URL.Path != "/hello.txt" || r.Header.Get("Accept-Language") != "en, mi" ||
		r.Header.Get("User-Agent") != "curl/7.16.3 libcurl/7.16.3 OpenSSL/0.9.7l zlib/1.2.3" {
		t.Errorf("the request is %+v (%v)", r, err)
	}
	resp, err := decodeResponse(unhex(t, "0140c8001d5468697320636f6e74656e7420636f6e7461696e732043524c462e0d0a0d07747261696c65720474657874"))
	if err != nil || resp.StatusCode != http.StatusOK || len(resp.Header) != 0 {
		t.Fatalf("the response is %+v (%v)", resp, err)
	}
	if body, _ := io.ReadAll(resp.Body); string(body) != "This content contains CRLF.\r\n" {
		t.Errorf("its content is %q", body)
	}
	// An informational response comes before the final one.
	resp, err = decodeResponse(append(append(appendVarint(nil, 1), appendBytes(appendVarint(nil, 103), appendBytes(appendBytes(nil, []byte("link")), []byte("x")))...), unhex(t, "40c8000000")...))
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("a response after another is %+v (%v)", resp, err)
	}
}

// RFC 9000, appendix A.1.
func TestExamplesOfVarints(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]uint64{
		"c2197c5eff14e88c": 151288809941952652, "9d7f3e7d": 494878333, "7bbd": 15293, "25": 37, "4025": 37,
	} {
		b := unhex(t, text)
		if n, size := readVarint(b); n != want || size != len(b) {
			t.Errorf("%s is %d of %d bytes, want %d", text, n, size, want)
		}
		if text != "4025" && !bytes.Equal(appendVarint(nil, want), b) {
			t.Errorf("%d is written as %x, want %s", want, appendVarint(nil, want), text)
		}
		if _, size := readVarint(b[:len(b)-1]); size != 0 {
			t.Errorf("%s cut short has %d bytes", text, size)
		}
	}
}
