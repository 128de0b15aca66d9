package wake

import (
	"crypto/rand"
	"encoding/binary"
	"net/netip"
	"testing"
	"time"
)

// The VM of these tests, and who speaks to it.
var (
	peerKey  = [32]byte{1, 2, 3}
	peerAddr = netip.MustParseAddrPort("10.201.0.16:51820")
	phone    = netip.MustParseAddrPort("203.0.113.5:4711")
	noon     = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
)

func judging() *judge { return newJudge(WireGuard{PublicKey: peerKey, Port: 51820}) }

// initiation makes a message that looks like one to the owner of public.
func initiation(public [32]byte) []byte {
	m := make([]byte, sizeInitiation)
	rand.Read(m[4:])
	m[0] = typeInitiation
	k := newMAC1Key(public)
	copy(m[sizeInitiation-32:], k.of(m))
	return m
}

// response is one of whom is called index, to whom is called to.
func response(index, to uint32) []byte {
	m := make([]byte, sizeResponse)
	m[0] = typeResponse
	binary.LittleEndian.PutUint32(m[4:], index)
	binary.LittleEndian.PutUint32(m[8:], to)
	return m
}

func dataMessage(to uint32, number uint64, size int) []byte {
	m := make([]byte, sizeKeepalive+size)
	m[0] = typeData
	binary.LittleEndian.PutUint32(m[4:], to)
	binary.LittleEndian.PutUint64(m[8:], number)
	return m
}

// A question is a packet at a time after noon, and what is to become of it.
type question struct {
	what   string
	after  time.Duration
	packet []byte
	want   verdict
}

func ask(t *testing.T, j *judge, qs []question) {
	t.Helper()
	for _, q := range qs {
		if got := j.judge(q.packet, noon.Add(q.after), false); got != q.want {
			t.Errorf("%s: got %d, want %d", q.what, got, q.want)
		}
	}
}

func fromPhone(m []byte) []byte { return datagram(phone, peerAddr, m) }

func TestOnlyAnInitiationToItsKeyWakes(t *testing.T) {
	forged := initiation(peerKey)
	forged[140] ^= 1
	forged[120] ^= 1
	elsewhere := datagram(phone, netip.AddrPortFrom(peerAddr.Addr(), 51821), initiation(peerKey))
	cut := fromPhone(initiation(peerKey)[:147])
	reserved := initiation(peerKey)
	reserved[1] = 1
	fragment := fromPhone(initiation(peerKey))
	fragment[6] |= 0x20
	ask(t, judging(), []question{
		{"a genuine one", 0, fromPhone(initiation(peerKey)), greeting},
		{"another, over IPv6", 0, datagram(somebody6, netip.MustParseAddrPort("[fdc1:d00::10]:51820"), initiation(peerKey)), greeting},
		{"to another key", 0, fromPhone(initiation([32]byte{9})), drop},
		{"with a MAC that is wrong", 0, fromPhone(forged), drop},
		{"to another port", 0, elsewhere, drop},
		{"cut", 0, cut, drop},
		{"with a type of four bytes", 0, fromPhone(reserved), drop},
		{"a fragment", 0, fragment, drop},
		{"nothing", 0, fromPhone(nil), drop},
		{"no packet", 0, []byte("garbage"), drop},
	})
}

func TestOnlyDataOfALiveSessionWakes(t *testing.T) {
	j := judging()
	guestSends(j, response(7, 99), 0)
	other := netip.MustParseAddrPort("198.51.100.9:4711")
	ask(t, j, []question{
		{"data", time.Second, fromPhone(dataMessage(7, 5, 16)), news},
		{"the same again", 2 * time.Second, fromPhone(dataMessage(7, 5, 16)), drop},
		{"data before it", 2 * time.Second, fromPhone(dataMessage(7, 4, 16)), drop},
		{"data behind it", 2 * time.Second, fromPhone(dataMessage(7, 6, 16)), news},
		{"a keepalive", 2 * time.Second, fromPhone(dataMessage(7, 7, 0)), drop},
		{"an index that is the peer's", 2 * time.Second, fromPhone(dataMessage(99, 7, 16)), drop},
		{"an unknown index", 2 * time.Second, fromPhone(dataMessage(8, 7, 16)), drop},
		{"from where the peer has gone", 3 * time.Second, datagram(other, peerAddr, dataMessage(7, 8, 16)), news},
		{"a response that nobody asked for", 3 * time.Second, fromPhone(response(1, 7)), drop},
		{"data as late as it may be", 189 * time.Second, fromPhone(dataMessage(7, 9, 16)), news},
		{"data of a session that is over", 190 * time.Second, fromPhone(dataMessage(7, 10, 16)), drop},
	})
}

// guestSends has j see a message that the VM sends to the phone.
func guestSends(j *judge, m []byte, after time.Duration) bool {
	return j.learn(udp{from: peerAddr, to: phone, data: m}, noon.Add(after))
}

func TestAnAnswerToTheGuestsOwnInitiationWakesOnce(t *testing.T) {
	j := judging()
	m := initiation([32]byte{7})
	binary.LittleEndian.PutUint32(m[4:], 7)
	guestSends(j, m, 0)
	ask(t, j, []question{
		{"to another index", time.Second, fromPhone(response(1, 8)), drop},
		{"the answer", time.Second, fromPhone(response(1, 7)), greeting},
		{"the answer again", time.Second, fromPhone(response(1, 7)), drop},
		{"the peer's data", 2 * time.Second, fromPhone(dataMessage(7, 0, 16)), news},
	})
	guestSends(j, m, time.Minute)
	ask(t, j, []question{{"an answer that comes too late", 2 * time.Minute, fromPhone(response(1, 7)), drop}})
}

func TestAnInitiationSentAgainDoesNotWake(t *testing.T) {
	j := judging()
	m := initiation(peerKey)
	ask(t, j, []question{
		{"an initiation", 0, fromPhone(m), greeting},
		{"again", time.Minute, fromPhone(m), drop},
		{"from elsewhere, an hour later", time.Hour, datagram(somebody, peerAddr, m), drop},
	})
}

// TestNoSourceStarvesAnother has many initiations come from one source, then one
// from another; and then from everywhere, and one from a friend.
func TestNoSourceStarvesAnother(t *testing.T) {
	j := judging()
	woken := 0
	for range 10_000 {
		if j.judge(datagram(somebody, peerAddr, initiation(peerKey)), noon, false) != drop {
			woken++
		}
	}
	if woken != oneStrangerRate.burst {
		t.Errorf("got %d wakes of one source, want %d", woken, oneStrangerRate.burst)
	}
	ask(t, j, []question{{"another source", 0, fromPhone(initiation(peerKey)), greeting}})
	guestSends(j, response(7, 99), 0)
	woken = 0
	for i := range 10_000 {
		from := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}), 1)
		if j.judge(datagram(from, peerAddr, initiation(peerKey)), noon, false) != drop {
			woken++
		}
	}
	if most := strangerRate.burst; woken > most {
		t.Errorf("got %d wakes of strangers, want at most %d", woken, most)
	}
	ask(t, j, []question{{"a friend", 0, fromPhone(initiation(peerKey)), greeting}})
}

func TestWhatWasOverheardWakesAtARate(t *testing.T) {
	j := judging()
	guestSends(j, response(7, 99), 0)
	woken := 0
	for i := range 1000 {
		from := netip.AddrPortFrom(somebody.Addr(), uint16(i))
		if j.judge(datagram(from, peerAddr, dataMessage(7, uint64(i), 16)), noon, false) != drop {
			woken++
		}
	}
	if woken != roamingRate.burst {
		t.Errorf("got %d wakes, want %d", woken, roamingRate.burst)
	}
	if got := j.judge(fromPhone(dataMessage(7, 5000, 16)), noon, false); got != news {
		t.Errorf("the peer itself: got %d, want %d", got, news)
	}
}

func TestDataIsHeldWhileTheVMIsWoken(t *testing.T) {
	j := judging()
	guestSends(j, response(7, 99), 0)
	for i := range 500 {
		if got := j.judge(fromPhone(dataMessage(7, uint64(i), 16)), noon, true); got != hold {
			t.Fatalf("packet %d: got %d, want %d", i, got, hold)
		}
	}
	if got := j.judge(fromPhone(dataMessage(7, 500, 0)), noon, true); got != drop {
		t.Errorf("a keepalive: got %d, want %d", got, drop)
	}
}

// TestWhatAHostileGuestTeachesIsBounded has one claim sessions without end.
func TestWhatAHostileGuestTeachesIsBounded(t *testing.T) {
	j := judging()
	for i := range 5000 {
		to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, byte(i >> 8), byte(i)}), 1)
		j.learn(udp{from: peerAddr, to: to, data: response(uint32(i), 1)}, noon.Add(time.Duration(i)*time.Millisecond))
	}
	if len(j.sessions) > maxSessions || len(j.sessions) < maxSessions/2 || len(j.peers) != maxFriends {
		t.Errorf("got %d sessions and %d peers, want about %d and %d", len(j.sessions), len(j.peers), maxSessions, maxFriends)
	}
	if j.session(4999, noon.Add(6*time.Second)) == nil {
		t.Error("the newest is not kept")
	}
}

// FuzzJudge has a judge with sessions see anything; what it lets pass must be
// what the table at judge says.
func FuzzJudge(f *testing.F) {
	f.Add(fromPhone(initiation(peerKey)), false)
	f.Add(fromPhone(dataMessage(7, 1, 16)), true)
	f.Add(fromPhone(dataMessage(7, 1, 0)), false)
	f.Add(fromPhone(response(1, 7)), false)
	f.Add(datagram(somebody6, netip.MustParseAddrPort("[fdc1:d00::10]:51820"), dataMessage(7, 1, 16)), false)
	f.Fuzz(func(t *testing.T, p []byte, waking bool) {
		j := judging()
		guestSends(j, response(7, 99), 0)
		if j.judge(p, noon, waking) == drop {
			return
		}
		u, err := parseUDP(p)
		if err != nil || u.to.Port() != 51820 {
			t.Fatalf("% x passes: %v, %v", p, u, err)
		}
		switch kind(u.data) {
		case typeInitiation:
			if !j.key.signs(u.data) {
				t.Error("a forged initiation passes")
			}
		case typeData:
			if receiver(u.data) != 7 || len(u.data) <= sizeKeepalive {
				t.Errorf("data of no session passes: % x", u.data)
			}
		default:
			t.Errorf("% x passes", u.data)
		}
	})
}

// FuzzLearn reads what a hostile guest may send.
func FuzzLearn(f *testing.F) {
	f.Add(datagram(peerAddr, phone, response(7, 99)))
	f.Add(datagram(peerAddr, phone, initiation(peerKey)))
	f.Fuzz(func(t *testing.T, p []byte) {
		u, err := parseUDP(p)
		if err != nil {
			return
		}
		j := judging()
		if j.learn(u, noon) != (len(j.sessions) == 1) {
			t.Errorf("got %d sessions of % x", len(j.sessions), p)
		}
	})
}
