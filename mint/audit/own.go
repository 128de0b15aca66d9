package audit

import (
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/ticket"
)

// checkOwn looks for what the one who audits had signed and deposited.
func (a *auditor) checkOwn() {
	for i, s := range a.Own.Signed {
		a.checkSigned(s, fmt.Sprintf("signed-%d", i+1))
	}
	for i, r := range a.Own.Receipts {
		a.checkReceipt(r, fmt.Sprintf("receipt-%d", i+1))
	}
}

func (a *auditor) checkSigned(s Signed, name string) {
	outputs, err := api.ParseOutputs([]api.Output{s.Output})
	if err != nil {
		a.find(nil, "%s is no output", name)
		return
	}
	o := outputs[0]
	k := a.keys[o.Key]
	if k == nil {
		a.find(a.keep(name, s), "it signed with the key %x, which is not logged", o.Key)
		return
	}
	if len(s.Signature) > 0 && !signed(k, o, s.Signature) {
		a.find(nil, "%s: the signature is not by %s", name, nameOf(k))
		return
	}
	if a.outputs[api.BlindedHash(o)] || !a.due(k.ID(), s.At, 0) {
		return
	}
	text := "a ticket of %s that it signed at %s is not among those that it counts"
	if len(s.Signature) == 0 {
		text += "; that it signed it, only who has the ticket knows"
	}
	a.find(a.keep(name, s), text, nameOf(k), s.At.UTC().Format(time.RFC3339))
}

func (a *auditor) checkReceipt(r api.Receipt, name string) {
	if len(r.Key) != len(ticket.KeyID{}) || len(r.Serial) != len(ticket.Serial{}) {
		a.find(nil, "%s is no receipt", name)
		return
	}
	by := a.manifests[r.Epoch]
	if by == nil {
		return // it is older than what is audited
	}
	if r.Verify(by.Receipt) != nil {
		a.find(nil, "%s: the mint did not sign it", name)
		return
	}
	k := a.keys[ticket.KeyID(r.Key)]
	switch {
	case k == nil:
		a.find(a.keep(name, r), "it took a ticket of the key %x, which is not logged", r.Key)
	case k.Denomination != r.Amount:
		a.find(a.keep(name, r), "it credited %d units for a ticket of %s", r.Amount, nameOf(k))
	default:
		a.checkCounted(r, k, name)
	}
}

// checkCounted looks for a receipt among the deposits of its hour. Where it is, that can
// be proved from then on by what the mint has signed.
func (a *auditor) checkCounted(r api.Receipt, k *ticket.Key, name string) {
	hour := api.HourOf(r.Credited)
	c, ok := prove(r, k.Epoch, a.deposits[keyHour{k.ID(), hour}])
	switch {
	case ok && a.spent[[32]byte(r.Serial)]:
		a.report.Counted = append(a.report.Counted, c)
	case a.due(k.ID(), r.Credited, spentDue):
		a.find(a.keep(name, r), "a deposit of %s at %s is not among those that it counts", nameOf(k), hourName(hour))
	}
}

// due reports whether what was done at a time has to be in the counters of a key,
// which come so much later.
func (a *auditor) due(id ticket.KeyID, at time.Time, later time.Duration) bool {
	until, ok := a.until[id]
	return ok && !endOf(api.HourOf(at)).Add(later+time.Hour).After(until)
}

// signed reports whether a blind signature is one of an output: RSA, as RFC 9474,
// section 4.3 checks it before it is given away.
func signed(k *ticket.Key, o ticket.Output, signature []byte) bool {
	public, err := publicOf(k)
	if err != nil {
		return false
	}
	s := new(big.Int).SetBytes(signature)
	if len(signature) != ticket.BlindSize || s.Cmp(public.N) >= 0 {
		return false
	}
	s.Exp(s, big.NewInt(int64(public.E)), public.N)
	return s.Cmp(new(big.Int).SetBytes(o.Blinded[:])) == 0
}

// publicOf reads the RSA key out of RFC 9578's encoding.
func publicOf(k *ticket.Key) (*rsa.PublicKey, error) {
	var spki struct {
		Algorithm asn1.RawValue
		Key       asn1.BitString
	}
	if rest, err := asn1.Unmarshal(k.Public(), &spki); err != nil || len(rest) > 0 {
		return nil, errors.Join(err, errors.New("it is not encoded as RFC 9578 says"))
	}
	return x509.ParsePKCS1PublicKey(spki.Key.Bytes)
}
