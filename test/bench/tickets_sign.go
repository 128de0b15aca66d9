package main

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"fmt"
	"os/exec"
	"strconv"
	"strings"

	"github.com/cloudflare/circl/blindsign/blindrsa"

	"github.com/tradle/cloudpal/ticket/signer"
)

// benchSign holds a blind signature of RSA-2048 against circl's, which is one too,
// against Go's own, which is none, and against OpenSSL's.
func (c *prices) benchSign(b *run) error {
	s, openssl := b.signing(25)
	ours, circl, std := s[0], s[1], s[2]
	c.signature, c.openssl = 1/ours.rate(), 1/openssl
	const unit = "signatures/s of a core"
	b.add(least("blind-sign, RSA-2048", unit, ours.rate(), circl.rate(), "circl's signer", 2.9),
		least("  the same", unit, ours.rate(), std.rate(), "crypto/rsa, PSS", 0.95),
		told("  the same", unit, ours.rate(), openssl, "openssl speed rsa2048"))
	return nil
}

// signing measures ours, circl's and Go's in turn, and OpenSSL between two halves.
func (b *run) signing(rounds int) (tasks []*task, openssl float64) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	b.must(err)
	ours, err := signer.New(key)
	b.must(err)
	m, err := rand.Int(rand.Reader, key.N)
	b.must(err)
	blinded, sum, circl := m.FillBytes(make([]byte, signer.Size)), sha512.Sum384([]byte("a ticket")), blindrsa.NewSigner(key)
	tasks = []*task{
		{name: "ours", run: func() error { _, err := ours.Sign(blinded); return err }},
		{name: "circl", run: func() error { _, err := circl.BlindSign(blinded); return err }},
		{name: "crypto/rsa", run: func() error { _, err := rsa.SignPSS(rand.Reader, key, crypto.SHA384, sum[:], nil); return err }},
	}
	for range 3 {
		b.inTurn(rounds/3, 20, tasks...)
		openssl = max(openssl, b.openssl())
	}
	return tasks, openssl
}

// openssl is how many signatures OpenSSL makes in a second of a core, by its own
// measurement.
func (b *run) openssl() float64 {
	out, err := exec.Command("openssl", "speed", "-mr", "-seconds", "2", "rsa2048").Output()
	b.must(err)
	// +F2:KIND:2048:SIGNATURES A SECOND:VERIFICATIONS A SECOND
	for line := range strings.Lines(string(out)) {
		if fields := strings.Split(strings.TrimSpace(line), ":"); len(fields) == 5 && fields[0] == "+F2" {
			rate, err := strconv.ParseFloat(fields[3], 64)
			b.must(err)
			return rate
		}
	}
	b.Fatal(fmt.Sprintf("openssl speed says nothing of RSA: %s", out))
	return 0
}
