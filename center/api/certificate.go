package api

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"time"

	"github.com/tradle/cloudpal"
)

// Certificate wraps a key in the certificate that TLS wants. It names nobody,
// and its dates and number are the same for all: who checks it looks at the
// key alone.
func Certificate(key ed25519.PrivateKey) (tls.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280, 4.1.2.5: never
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, cloudpal.E("make a certificate", "", err)
	}
	leaf, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, err
}

// PeerKey returns the Ed25519 key of the certificate that the other side
// showed, or nil where it showed none. TLS has seen to it that the other side
// has the private key.
func PeerKey(s *tls.ConnectionState) (ed25519.PublicKey, error) {
	if s == nil || len(s.PeerCertificates) == 0 {
		return nil, nil
	}
	key, ok := s.PeerCertificates[0].PublicKey.(ed25519.PublicKey)
	if !ok {
		return nil, cloudpal.E("read a certificate", cloudpal.Denied, errors.New("its key is not an Ed25519 one"))
	}
	return key, nil
}
