package oblivious

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hpke"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/tradle/cloudpal"
)

const (
	requestLabel  = "message/bhttp request"
	responseLabel = "message/bhttp response"

	headSize   = 1 + 2 + 2 + 2
	secretSize = 16 // max(Nn, Nk) of the suite: of the exported secret and the response's nonce
	nonceSize  = 12
)

// An exporter is either end of HPKE.
type exporter interface {
	Export(label string, length int) ([]byte, error)
}

// A conversation is one question, by which its one answer is sealed and opened.
type conversation struct {
	enc []byte
	exporter
}

func head(id byte) []byte {
	h := []byte{id}
	h = binary.BigEndian.AppendUint16(h, kemID)
	h = binary.BigEndian.AppendUint16(h, kdfID)
	return binary.BigEndian.AppendUint16(h, aeadID)
}

// info binds the seal to the header (RFC 9458, section 4.3).
func info(h []byte) []byte { return slices.Concat([]byte(requestLabel), []byte{0}, h) }

// sealRequest seals a question for a gateway.
func sealRequest(c Config, request []byte) (sealed []byte, _ *conversation, err error) {
	h := head(c.ID)
	enc, sender, err := hpke.NewSender(c.Public, hpke.HKDFSHA256(), hpke.AES128GCM(), info(h))
	if err != nil {
		return nil, nil, err
	}
	ct, err := sender.Seal(nil, request)
	if err != nil {
		return nil, nil, err
	}
	return slices.Concat(h, enc, ct), &conversation{enc, sender}, nil
}

// errKey is of a question that is sealed for a key there is not, or by another suite.
var errKey = cloudpal.E("", cloudpal.NotExist, errors.New("it is sealed for a key that is gone"))

var errSealed = cloudpal.E("", cloudpal.Invalid, errors.New("it cannot be opened"))

// openRequest opens a question with the private key that has the id it names.
func openRequest(key func(id byte) hpke.PrivateKey, sealed []byte) (request []byte, _ *conversation, err error) {
	if len(sealed) < headSize+keySize {
		return nil, nil, errSealed
	}
	h := sealed[:headSize]
	private := key(h[0])
	if private == nil || !slices.Equal(h, head(h[0])) {
		return nil, nil, errKey
	}
	enc := slices.Clone(sealed[headSize : headSize+keySize])
	recipient, err := hpke.NewRecipient(enc, private, hpke.HKDFSHA256(), hpke.AES128GCM(), info(h))
	if err != nil {
		return nil, nil, errSealed
	}
	request, err = recipient.Open(nil, sealed[headSize+keySize:])
	if err != nil {
		// The same id may have been another key's a while ago.
		return nil, nil, errKey
	}
	return request, &conversation{enc, recipient}, nil
}

// sealResponse seals the answer.
func (c *conversation) sealResponse(response []byte) ([]byte, error) {
	nonce := make([]byte, secretSize)
	rand.Read(nonce)
	return c.sealWith(nonce, response)
}

func (c *conversation) sealWith(nonce, response []byte) ([]byte, error) {
	aead, n, err := c.derive(nonce)
	if err != nil {
		return nil, err
	}
	return append(slices.Clone(nonce), aead.Seal(nil, n, response, nil)...), nil
}

// openResponse opens the answer.
func (c *conversation) openResponse(sealed []byte) ([]byte, error) {
	if len(sealed) < secretSize {
		return nil, errSealed
	}
	aead, n, err := c.derive(sealed[:secretSize])
	if err != nil {
		return nil, err
	}
	response, err := aead.Open(nil, n, sealed[secretSize:], nil)
	if err != nil {
		return nil, errSealed
	}
	return response, nil
}

// derive makes the answer's key and nonce (section 4.4).
func (c *conversation) derive(nonce []byte) (cipher.AEAD, []byte, error) {
	secret, err := c.Export(responseLabel, secretSize)
	if err != nil {
		return nil, nil, err
	}
	prk, err := hkdf.Extract(sha256.New, secret, slices.Concat(c.enc, nonce))
	if err != nil {
		return nil, nil, err
	}
	key, err := hkdf.Expand(sha256.New, prk, "key", secretSize)
	if err != nil {
		return nil, nil, err
	}
	n, err := hkdf.Expand(sha256.New, prk, "nonce", nonceSize)
	if err != nil {
		return nil, nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, nil, err
	}
	aead, err := cipher.NewGCM(block)
	return aead, n, err
}
