package names

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// clocked is a cache whose clock is moved by hand.
func clocked() (c *cache, pass func(time.Duration)) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	return newCache(func() time.Time { return now }), func(d time.Duration) { now = now.Add(d) }
}

func answered(t testing.TB, name string, records ...string) *dns.Msg {
	t.Helper()
	m := new(dns.Msg).SetQuestion(name, dns.TypeA)
	m.Response = true
	for _, text := range records {
		rr, err := dns.NewRR(text)
		if err != nil {
			t.Fatal(err)
		}
		m.Answer = append(m.Answer, rr)
	}
	return m
}

func keyFor(name string) key { return keyOf(new(dns.Msg).SetQuestion(name, dns.TypeA)) }

func TestCacheForgets(t *testing.T) {
	c, pass := clocked()
	k := keyFor("a.example.")
	c.put(k, answered(t, "a.example.", "a.example. 100 CNAME b.example.", "b.example. 50 A 203.0.113.7"))
	pass(20 * time.Second)
	m, ok := c.get(k)
	if !ok || m.Answer[0].Header().Ttl != 80 || m.Answer[1].Header().Ttl != 30 {
		t.Errorf("after 20 s: got %v, %v", m, ok)
	}
	if m, ok := c.get(keyFor("A.example.")); !ok || m == nil {
		t.Error("the same name in capitals is not the same")
	}
	do := new(dns.Msg).SetQuestion("a.example.", dns.TypeA).SetEdns0(1232, true)
	if _, ok := c.get(keyOf(do)); ok {
		t.Error("who asks for signatures got an answer without")
	}
	pass(30 * time.Second)
	if _, ok := c.get(k); ok || c.bytes != 0 || len(c.all) != 0 || c.order.Len() != 0 {
		t.Errorf("after 50 s: there: %v, %d bytes", ok, c.bytes)
	}
}

func TestCacheAndTheClock(t *testing.T) {
	c, pass := clocked()
	k := keyFor("a.example.")
	c.put(k, answered(t, "a.example.", "a.example. 50 A 203.0.113.7"))
	pass(-time.Hour)
	if _, ok := c.get(k); ok {
		t.Error("the clock was set back by an hour, and an answer from the future is there")
	}
}

func TestCacheKeepsTrouble(t *testing.T) {
	c, pass := clocked()
	k := keyFor("a.example.")
	c.put(k, nil)
	if m, ok := c.get(k); !ok || m != nil {
		t.Errorf("got %v, %v, want that nobody could tell", m, ok)
	}
	pass(failTTL)
	if _, ok := c.get(k); ok {
		t.Errorf("after %v it is still there", failTTL)
	}
}

func TestLifetime(t *testing.T) {
	const soa = "example. 900 SOA ns.example. x.example. 1 2 3 4 120"
	none := func(rcode int, ns ...string) *dns.Msg {
		m := answered(t, "a.example.", ns...)
		m.Answer, m.Ns, m.Rcode = nil, m.Answer, rcode
		return m
	}
	cut := answered(t, "a.example.", "a.example. 50 A 203.0.113.7")
	cut.Truncated = true
	for what, c := range map[string]struct {
		m    *dns.Msg
		want time.Duration
	}{
		"an answer":           {answered(t, "a.example.", "a.example. 50 A 203.0.113.7"), 50 * time.Second},
		"for days":            {answered(t, "a.example.", "a.example. 500000 A 203.0.113.7"), time.Hour},
		"for now":             {answered(t, "a.example.", "a.example. 0 A 203.0.113.7"), 0},
		"half an answer":      {cut, 0},
		"no such name":        {none(dns.RcodeNameError, soa), 2 * time.Minute},
		"nothing of the kind": {none(dns.RcodeSuccess, soa), 2 * time.Minute},
		"nothing for days":    {none(dns.RcodeNameError, strings.Replace(soa, "120", "86400", 1)), maxNoneTTL},
		"nothing, no SOA":     {none(dns.RcodeNameError), 0},
		"refused":             {none(dns.RcodeRefused, soa), 0},
	} {
		if got := lifetime(c.m); got != c.want {
			t.Errorf("%s: got %v, want %v", what, got, c.want)
		}
	}
}

func TestCacheIsBounded(t *testing.T) {
	c, _ := clocked()
	name := func(i int) string { return fmt.Sprintf("n%d.example.", i) }
	for i := range maxEntries + 100 {
		c.put(keyFor(name(i)), nil)
		c.get(keyFor(name(0))) // is used all the time, and so is kept
	}
	_, first := c.get(keyFor(name(0)))
	_, second := c.get(keyFor(name(1)))
	if len(c.all) != maxEntries || c.order.Len() != maxEntries || !first || second {
		t.Errorf("got %d names of %d; the one in use is there: %v; the oldest: %v", len(c.all), maxEntries, first, second)
	}
	c.flush()
	large := strings.Repeat("x", 250)
	for i := range 2000 {
		var records []string
		for range 10 {
			records = append(records, fmt.Sprintf("%s 60 TXT %q", name(i), large))
		}
		c.put(keyFor(name(i)), answered(t, name(i), records...))
		if c.bytes > maxBytes {
			t.Fatalf("after %d answers it holds %d bytes", i, c.bytes)
		}
	}
	if len(c.all) < 500 {
		t.Errorf("only %d answers of 2.5 KB are kept", len(c.all))
	}
	c.put(keyFor("huge.example."), answered(t, "huge.example.", strings.Split(strings.Repeat("huge.example. 60 TXT "+large+"\n", 20), "\n")[:20]...))
	if _, ok := c.get(keyFor("huge.example.")); ok {
		t.Errorf("an answer of more than %d bytes is kept", maxEntry)
	}
	c.flush()
	if c.bytes != 0 || len(c.all) != 0 || c.order.Len() != 0 {
		t.Error("something is left after a flush")
	}
}
