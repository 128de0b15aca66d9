package till

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/test/bank"
	"github.com/tradle/cloudpal/ticket"
)

// A stack is payments that wait to be paid, of many people.
type stack struct {
	pays []sent
	next atomic.Int64
}

type sent struct {
	account api.Fingerprint
	tab     api.TabID
	pay     api.PayRequest
}

// newStack opens a tab with a first ticket for each of so many people, and makes n
// further payments, in turns: each takes a blind signature, and blinded outputs for
// its change.
func newStack(b *testing.B, s *shop, people, n int) *stack {
	b.Helper()
	k := &stack{pays: make([]sent, n)}
	var all sync.WaitGroup
	for i := range people {
		p := bank.NewPayer(b, s.bank.Bank)
		s.tab(p)
		s.pay(p, p.Pays(s.Offer(), p.Buy(ticket.Paid, 64, 82), time.Time{}))
		all.Go(func() {
			for j := i; j < n; j += people {
				k.pays[j] = sent{p.Account, p.Request.ID, p.Pays(s.Offer(), p.Buy(ticket.Paid, 64, 82), time.Time{})}
			}
		})
	}
	all.Wait()
	return k
}

// BenchmarkPay verifies and books payments, durably, of many people at once, as a
// center has them. BenchmarkVerify is what none can be below.
func BenchmarkPay(b *testing.B) {
	const people, callers = 64, 64
	s := newShop(b, newBank(b))
	k := newStack(b, s, people, b.N)
	took := make([]time.Duration, b.N)
	b.SetParallelism(callers)
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			i := k.next.Add(1) - 1
			begun := time.Now()
			if _, err := s.Pay(b.Context(), k.pays[i].account, k.pays[i].tab, k.pays[i].pay); err != nil {
				b.Error(err)
			}
			took[i] = time.Since(begun)
		}
	})
	b.StopTimer()
	slices.Sort(took)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "payments/s")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}

// BenchmarkVerify verifies an RSA-2048 PSS and an Ed25519 signature as the standard
// library does.
func BenchmarkVerify(b *testing.B) {
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		b.Fatal(err)
	}
	hash := sha512.Sum384([]byte("token"))
	options := &rsa.PSSOptions{SaltLength: 48, Hash: crypto.SHA384}
	signature, err := rsa.SignPSS(rand.Reader, private, crypto.SHA384, hash[:], options)
	if err != nil {
		b.Fatal(err)
	}
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		b.Fatal(err)
	}
	second := ed25519.Sign(key, hash[:])
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if rsa.VerifyPSS(&private.PublicKey, crypto.SHA384, hash[:], signature, options) != nil || !ed25519.Verify(public, hash[:], second) {
				b.Error("it is not good")
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "payments/s")
}
