package oblivious

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"math/big"
	"net"
	"net/http"
	"testing"
	"time"
)

// Over TLS, as wallets reach it, until it is told to end.
func TestServe(t *testing.T) {
	t.Parallel()
	w := newTown(t)
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- w.relay.Serve(ctx, l, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key})
	}()
	roots := x509.NewCertPool()
	roots.AddCert(leaf)
	by := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer by.CloseIdleConnections()
	wallet := NewTransport("https://"+l.Addr().String(), by, receiptPublic, w.now)
	if status, _, err := post(t, wallet, "/v1/swap", "x"); err != nil || status != 200 {
		t.Errorf("got %d, %v", status, err)
	}
	by.CloseIdleConnections()
	end()
	if err := <-served; !errors.Is(err, context.Canceled) {
		t.Errorf("it ended with %v", err)
	}
	if _, err := net.Dial("tcp", l.Addr().String()); err == nil {
		t.Error("it answers after its end")
	}
}
