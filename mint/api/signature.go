package api

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/dunglas/httpsfv"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

// What a center sends is signed by its key (RFC 9421): what is asked, of whom, with
// what body (RFC 9530). Who holds a signed request can only repeat it, for some
// minutes, and to repeat a call changes nothing.
const (
	signatureLabel = "center"
	signatureTag   = "cloudpal-mint" // no other protocol's signature is taken for one of this
	signatureAlg   = "ed25519"
	signatureLife  = 5 * time.Minute
	signatureSkew  = 5 * time.Minute // that the clocks of a center and a mint may differ
)

// maxSignature bounds the header fields of a signature in bytes.
const maxSignature = 2 << 10

// covered are the components of a request that are signed, and no others.
func covered(hasBody bool) []string {
	parts := []string{"@method", "@authority", "@path", "@query"}
	if hasBody {
		parts = append(parts, "content-type", "content-digest")
	}
	return parts
}

// SignRequest signs a request as a center, at a time. Of the body it takes a copy
// from r.GetBody.
func SignRequest(r *http.Request, key ed25519.PrivateKey, at time.Time) error {
	const op = "sign a request"
	body, err := copyBody(r)
	if err != nil {
		return cloudpal.E(op, "", err)
	}
	if len(body) > 0 {
		r.Header.Set("Content-Digest", contentDigest(body))
	}
	input := httpsfv.InnerList{Params: httpsfv.NewParams()}
	for _, part := range covered(len(body) > 0) {
		input.Items = append(input.Items, httpsfv.NewItem(part))
	}
	input.Params.Add("created", at.Unix())
	input.Params.Add("expires", at.Add(signatureLife).Unix())
	input.Params.Add("keyid", base64.StdEncoding.EncodeToString(key.Public().(ed25519.PublicKey)))
	input.Params.Add("alg", signatureAlg)
	input.Params.Add("tag", signatureTag)
	base, err := signatureBase(r, input)
	if err != nil {
		return cloudpal.E(op, cloudpal.Invalid, err)
	}
	if err := setField(r.Header, "Signature-Input", input); err != nil {
		return cloudpal.E(op, "", err)
	}
	return setField(r.Header, "Signature", httpsfv.NewItem(ed25519.Sign(key, []byte(base))))
}

func copyBody(r *http.Request) ([]byte, error) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	if r.GetBody == nil {
		return nil, errors.New("its body can be read only once")
	}
	body, err := r.GetBody()
	if err != nil {
		return nil, err
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, MaxBody+1))
	if err == nil && len(data) > MaxBody {
		err = cloudpal.E("", cloudpal.Invalid, fmt.Errorf("its body is above %d bytes", MaxBody))
	}
	return data, err
}

func setField(h http.Header, name string, member httpsfv.Member) error {
	d := httpsfv.NewDictionary()
	d.Add(signatureLabel, member)
	text, err := httpsfv.Marshal(d)
	if err != nil {
		return err
	}
	h.Set(name, text)
	return nil
}

// VerifyRequest checks that a center signed a request with that body, and not long
// before or after a time, and returns which: the request says its key. All that is
// not so is cloudpal.Denied.
func VerifyRequest(r *http.Request, body []byte, at time.Time) (ticket.CenterID, error) {
	id, err := verifyRequest(r, body, at)
	if err != nil {
		return ticket.CenterID{}, cloudpal.E("check who signed a request", cloudpal.Denied, err).
			WithHint("sign it with the center's key, and check the clock")
	}
	return id, nil
}

func verifyRequest(r *http.Request, body []byte, at time.Time) (id ticket.CenterID, err error) {
	input, signature, err := signatureOf(r.Header)
	if err != nil {
		return id, err
	}
	if err := checkCovered(input, len(body) > 0); err != nil {
		return id, err
	}
	if err := checkTimes(input.Params, at); err != nil {
		return id, err
	}
	if err := checkDigest(r.Header, body); err != nil {
		return id, err
	}
	key, err := keyOf(input.Params)
	if err != nil {
		return id, err
	}
	base, err := signatureBase(r, input)
	if err != nil {
		return id, err
	}
	if !ed25519.Verify(key[:], []byte(base), signature) {
		return id, errors.New("the signature is not by its key, over this request")
	}
	return key, nil
}

// signatureOf reads the one signature that is of this protocol.
func signatureOf(h http.Header) (input httpsfv.InnerList, signature []byte, err error) {
	inputs, err := dictionary(h, "Signature-Input")
	if err != nil {
		return input, nil, err
	}
	signatures, err := dictionary(h, "Signature")
	if err != nil {
		return input, nil, err
	}
	member, _ := inputs.Get(signatureLabel)
	input, ok := member.(httpsfv.InnerList)
	if !ok || input.Params == nil {
		return input, nil, fmt.Errorf("it has no signature called %q", signatureLabel)
	}
	other, _ := signatures.Get(signatureLabel)
	item, ok := other.(httpsfv.Item)
	if !ok {
		return input, nil, errors.New("its signature is missing")
	}
	signature, ok = item.Value.([]byte)
	if !ok || len(signature) != ed25519.SignatureSize {
		return input, nil, errors.New("its signature is none of Ed25519")
	}
	return input, signature, nil
}

func dictionary(h http.Header, name string) (*httpsfv.Dictionary, error) {
	values := h.Values(name)
	if len(values) != 1 || len(values[0]) > maxSignature {
		return nil, fmt.Errorf("it has not just one %s", name)
	}
	d, err := httpsfv.UnmarshalDictionary(values)
	if err != nil {
		return nil, fmt.Errorf("its %s is no dictionary", name)
	}
	return d, nil
}

// checkCovered accepts exactly what SignRequest signs: less would leave a part of the
// request to whoever passes it on.
func checkCovered(input httpsfv.InnerList, hasBody bool) error {
	var got []string
	for _, item := range input.Items {
		name, ok := item.Value.(string)
		if !ok || item.Params != nil && len(item.Params.Names()) > 0 {
			return errors.New("it signs what nobody knows")
		}
		got = append(got, name)
	}
	if !slices.Equal(got, covered(hasBody)) {
		return errors.New("it signs not all of the request, or more")
	}
	if param[string](input.Params, "alg") != signatureAlg || param[string](input.Params, "tag") != signatureTag {
		return errors.New("its signature is of another protocol")
	}
	return nil
}

func checkTimes(p *httpsfv.Params, at time.Time) error {
	created := time.Unix(param[int64](p, "created"), 0)
	expires := time.Unix(param[int64](p, "expires"), 0)
	if created.After(at.Add(signatureSkew)) || expires.Add(signatureSkew).Before(at) ||
		expires.Before(created) || expires.After(created.Add(signatureLife)) {
		return errors.New("it was signed at another time")
	}
	return nil
}

func keyOf(p *httpsfv.Params) (id ticket.CenterID, err error) {
	text := param[string](p, "keyid")
	b, err := base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != len(id) || len(text) != base64.StdEncoding.EncodedLen(len(id)) {
		return id, errors.New("its key is none of Ed25519")
	}
	return ticket.CenterID(b), nil
}

// param returns a parameter, or the zero value where there is none of that type.
func param[T any](p *httpsfv.Params, name string) T {
	value, _ := p.Get(name)
	v, _ := value.(T)
	return v
}

// contentDigest is the value of a Content-Digest (RFC 9530, section 2).
func contentDigest(body []byte) string {
	sum := sha256.Sum256(body)
	return "sha-256=:" + base64.StdEncoding.EncodeToString(sum[:]) + ":"
}

// checkDigest checks the body against its digest: by SHA-256, whatever others there
// are besides.
func checkDigest(h http.Header, body []byte) error {
	if len(body) == 0 {
		return nil
	}
	d, err := dictionary(h, "Content-Digest")
	if err != nil {
		return err
	}
	member, _ := d.Get("sha-256")
	item, _ := member.(httpsfv.Item)
	got, _ := item.Value.([]byte)
	want := sha256.Sum256(body)
	if subtle.ConstantTimeCompare(got, want[:]) != 1 {
		return errors.New("its body is another")
	}
	return nil
}

// signatureBase is what is signed (RFC 9421, section 2.5).
func signatureBase(r *http.Request, input httpsfv.InnerList) (string, error) {
	var b strings.Builder
	for _, item := range input.Items {
		name, _ := item.Value.(string)
		value, err := component(r, name)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "%q: %s\n", name, value)
	}
	list := httpsfv.List{input}
	text, err := httpsfv.Marshal(list)
	if err != nil {
		return "", err
	}
	return b.String() + `"@signature-params": ` + text, nil
}

// component is one part of a request, as RFC 9421, section 2 has it.
func component(r *http.Request, name string) (string, error) {
	switch name {
	case "@method":
		return r.Method, nil
	case "@authority":
		return authority(r), nil
	case "@path":
		if path := r.URL.EscapedPath(); path != "" {
			return path, nil
		}
		return "/", nil
	case "@query":
		return "?" + r.URL.RawQuery, nil
	case "content-length":
		return fmt.Sprint(r.ContentLength), nil // net/http keeps it out of the fields
	}
	values := r.Header.Values(name)
	if len(values) == 0 {
		return "", fmt.Errorf("it has no %.40q", name)
	}
	trimmed := make([]string, len(values))
	for i, v := range values {
		trimmed[i] = strings.TrimSpace(v)
	}
	return strings.Join(trimmed, ", "), nil
}

// authority is the host that is asked, without its scheme's own port (section
// 2.2.3).
func authority(r *http.Request) string {
	host := r.Host
	if host == "" {
		host = r.URL.Host
	}
	return strings.TrimSuffix(strings.ToLower(host), ":443")
}
