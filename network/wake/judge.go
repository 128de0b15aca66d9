package wake

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// A judge tells which packets are a reason to wake a VM that is a WireGuard
// peer. It has no key of it: only the public one, and what it saw of handshakes
// (seen.go). What it says follows from that, the packets and the times that it
// is given; it does nothing else. The caller sees to it that one asks at a time.
//
//	type         woken by                                           at a rate
//	initiation   a MAC that its sender needed the public key for    strangers or friends, and per source
//	response     the guest's own initiation under way               roaming
//	data         a live session, from where its peer is             live
//	             a live session, from elsewhere                     roaming
//	             a session not seen made, from where a peer was,
//	             for three minutes after handshakes were missed     roaming
//	all else     never
type judge struct {
	key  mac1Key
	port uint16
	seen

	live, roaming, strangers, friends bucket

	// Lazily made: most VMs that sleep were never sent an initiation.
	sources *[maxSources]source
	recent  *[maxRecent]uint64
	next    int // in recent
}

// A verdict says what becomes of a packet.
type verdict byte

const (
	drop     verdict = iota
	hold             // it is for the VM, which is being woken
	greeting         // hold it and wake the VM: it is a handshake's
	news             // hold it and wake the VM: it is a session's
)

// How often packets may wake a VM. Rates bound what who can send genuine-looking
// packets can do: an initiation needs no more than the public key, and what was
// overheard can be sent again.
var (
	liveRate     = rate{burst: 100, every: 50 * time.Millisecond}
	roamingRate  = rate{burst: 3, every: 20 * time.Second}
	strangerRate = rate{burst: 10, every: 5 * time.Second}
	friendRate   = rate{burst: 100, every: 500 * time.Millisecond}
	// Less than the two before, so that no source alone uses them up.
	oneStrangerRate = rate{burst: 3, every: 30 * time.Second}
	oneFriendRate   = rate{burst: 50, every: time.Second}
)

const (
	maxSources = 16
	maxRecent  = 32

	// asked is how long a VM counts as being woken after it was asked for.
	asked = time.Second
)

func newJudge(w WireGuard) *judge { return &judge{key: newMAC1Key(w.PublicKey), port: w.Port} }

// judge judges a packet that came at now. Waking says that the VM is being woken
// already.
func (j *judge) judge(p []byte, now time.Time, waking bool) verdict {
	u, err := parseUDP(p)
	if err != nil || u.to.Port() != j.port {
		return drop
	}
	switch kind(u.data) {
	case typeInitiation:
		return j.initiation(u, now)
	case typeResponse:
		return j.response(u, now)
	case typeData:
		return j.data(u, now, waking)
	}
	return drop
}

// initiation judges one. A genuine one is never sent twice: each has a key of
// its own.
func (j *judge) initiation(u udp, now time.Time) verdict {
	if !j.key.signs(u.data) || j.repeated(u.data) {
		return drop
	}
	from := neighborhood(u.from.Addr())
	all, most, mostOfOne := &j.strangers, strangerRate, oneStrangerRate
	if j.friend(from) {
		all, most, mostOfOne = &j.friends, friendRate, oneFriendRate
	}
	one := j.source(from, now)
	if !all.has(most, now) || !one.has(mostOfOne, now) {
		return drop
	}
	all.take(most, now)
	one.take(mostOfOne, now)
	j.remember(u.data)
	return greeting
}

// response judges what may answer the guest's own initiation, once.
func (j *judge) response(u udp, now time.Time) verdict {
	s := j.session(receiver(u.data), now)
	if s == nil || !s.Asked || s.answered || now.Sub(s.Made) > answerWait {
		return drop
	}
	if s.Peer != u.from && !j.roaming.spend(roamingRate, now) {
		return drop
	}
	s.answered = true
	return greeting
}

func (j *judge) data(u udp, now time.Time, waking bool) verdict {
	if len(u.data) <= sizeKeepalive {
		return drop
	}
	s := j.session(receiver(u.data), now)
	if s == nil {
		return j.unseen(u, now)
	}
	if waking {
		return hold
	}
	// What was overheard and sent again has a number that was there already.
	if n := counter(u.data); n < s.next {
		return drop
	}
	all, most := &j.live, liveRate
	if s.Peer != u.from {
		all, most = &j.roaming, roamingRate
	}
	if !all.spend(most, now) {
		return drop
	}
	s.next = counter(u.data) + 1
	return news
}

// unseen judges data of a session that was not seen made: by who came after a
// process that was killed.
func (j *judge) unseen(u udp, now time.Time) verdict {
	if now.After(j.gap) || !j.friend(neighborhood(u.from.Addr())) || !j.roaming.spend(roamingRate, now) {
		return drop
	}
	return news
}

// repeated reports whether an initiation is one of those that woke lately.
func (j *judge) repeated(m []byte) bool {
	if j.recent == nil {
		return false
	}
	id := initiationID(m)
	for _, r := range j.recent {
		if r == id {
			return true
		}
	}
	return false
}

func (j *judge) remember(m []byte) {
	if j.recent == nil {
		j.recent = new([maxRecent]uint64)
	}
	j.recent[j.next%maxRecent] = initiationID(m)
	j.next++
}

// initiationID tells initiations apart: its first half is a key that is made for
// it.
func initiationID(m []byte) uint64 { return binary.LittleEndian.Uint64(m[8:]) }

// A source is where initiations came from lately.
type source struct {
	addr netip.Addr
	bucket
}

// source returns what an address has left; that of the one that was heard least
// lately makes room.
func (j *judge) source(addr netip.Addr, now time.Time) *bucket {
	if j.sources == nil {
		j.sources = new([maxSources]source)
	}
	oldest := &j.sources[0]
	for i := range j.sources {
		s := &j.sources[i]
		if s.addr == addr {
			return &s.bucket
		}
		if s.until.Before(oldest.until) {
			oldest = s
		}
	}
	*oldest = source{addr: addr, bucket: bucket{until: now}}
	return &oldest.bucket
}

// neighborhood is what one party has of addresses: an IPv4 address, or the /64
// that an IPv6 address is in.
func neighborhood(a netip.Addr) netip.Addr {
	if a.Is4() {
		return a
	}
	p, err := a.WithZone("").Prefix(64)
	if err != nil {
		return a
	}
	return p.Addr()
}

// A rate allows one of something each time, and as many as burst at once after a
// quiet time.
type rate struct {
	burst int
	every time.Duration
}

// A bucket keeps something to a rate. The zero bucket is full.
type bucket struct{ until time.Time } // when it will be full

func (b *bucket) has(r rate, now time.Time) bool {
	return b.until.Sub(now) <= time.Duration(r.burst-1)*r.every
}

func (b *bucket) take(r rate, now time.Time) {
	if b.until.Before(now) {
		b.until = now
	}
	b.until = b.until.Add(r.every)
}

func (b *bucket) spend(r rate, now time.Time) bool {
	if !b.has(r, now) {
		return false
	}
	b.take(r, now)
	return true
}
