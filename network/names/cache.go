package names

import (
	"container/list"
	"sync"
	"time"

	"github.com/miekg/dns"
)

const (
	maxEntries = 4096
	maxBytes   = 2 << 20
	maxEntry   = 4 << 10
	maxTTL     = time.Hour
	maxNoneTTL = 5 * time.Minute // RFC 2308, section 5, has it between one and three hours; a new name should be seen sooner
	failTTL    = 2 * time.Second // RFC 9520, section 3.2: at least one
)

// A key is what an answer depends on.
type key struct {
	name     string // in lower case
	kind     uint16
	do, noCD bool
}

func keyOf(query *dns.Msg) key {
	q := query.Question[0]
	opt := query.IsEdns0()
	return key{dns.CanonicalName(q.Name), q.Qtype, opt != nil && opt.Do(), !query.CheckingDisabled}
}

// A cache keeps answers while they last, those that were used last. It goes by
// the wall clock: time in which the machine slept counts.
type cache struct {
	now func() time.Time

	mu    sync.Mutex
	all   map[key]*list.Element // of *kept
	order *list.List            // the one used last in front
	bytes int
}

type kept struct {
	key
	wire     []byte // nil: nobody could tell
	from, to time.Time
}

func newCache(now func() time.Time) *cache {
	return &cache{now: func() time.Time { return now().Round(0) }, all: map[key]*list.Element{}, order: list.New()}
}

// get returns what is known, with what is left of its time to live; nil with ok
// where nobody could tell, a moment ago.
func (c *cache) get(k key) (m *dns.Msg, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.all[k]
	if e == nil {
		return nil, false
	}
	v, now := e.Value.(*kept), c.now()
	if !now.Before(v.to) || now.Before(v.from) { // the clock may have been set back
		c.dropLocked(e)
		return nil, false
	}
	c.order.MoveToFront(e)
	if v.wire == nil {
		return nil, true
	}
	m = new(dns.Msg)
	if err := m.Unpack(v.wire); err != nil {
		return nil, false
	}
	age(m, uint32(now.Sub(v.from)/time.Second))
	return m, true
}

// put keeps an answer, or with nil that there was none.
func (c *cache) put(k key, m *dns.Msg) {
	var wire []byte
	ttl := failTTL
	if m != nil {
		ttl = lifetime(m)
		m = m.Copy()
		m.Compress = true
		var err error
		if wire, err = m.Pack(); err != nil || len(wire) > maxEntry {
			return
		}
	}
	if ttl <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.all[k]; e != nil {
		c.dropLocked(e)
	}
	now := c.now()
	c.all[k] = c.order.PushFront(&kept{k, wire, now, now.Add(ttl)})
	c.bytes += len(wire)
	for len(c.all) > maxEntries || c.bytes > maxBytes {
		c.dropLocked(c.order.Back())
	}
}

func (c *cache) dropLocked(e *list.Element) {
	v := c.order.Remove(e).(*kept)
	delete(c.all, v.key)
	c.bytes -= len(v.wire)
}

func (c *cache) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.all)
	c.order.Init()
	c.bytes = 0
}

// lifetime returns how long an answer may be kept: 0 for one that may not.
func lifetime(m *dns.Msg) time.Duration {
	if m.Truncated || (m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError) {
		return 0
	}
	limit := maxTTL
	if m.Rcode == dns.RcodeNameError || len(m.Answer) == 0 {
		limit = min(maxNoneTTL, noneLifetime(m.Ns))
	}
	for _, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			if rr.Header().Rrtype != dns.TypeOPT {
				limit = min(limit, time.Duration(rr.Header().Ttl)*time.Second)
			}
		}
	}
	return limit
}

// noneLifetime is how long it may be kept that there is nothing (RFC 2308,
// section 5): not at all without an SOA record.
func noneLifetime(ns []dns.RR) time.Duration {
	for _, rr := range ns {
		if soa, ok := rr.(*dns.SOA); ok {
			return time.Duration(soa.Minttl) * time.Second
		}
	}
	return 0
}

// age takes seconds off all times to live.
func age(m *dns.Msg, seconds uint32) {
	for _, section := range [][]dns.RR{m.Answer, m.Ns, m.Extra} {
		for _, rr := range section {
			if h := rr.Header(); h.Rrtype != dns.TypeOPT {
				h.Ttl -= min(seconds, h.Ttl)
			}
		}
	}
}
