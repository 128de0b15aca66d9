package wake

import (
	"cmp"
	"encoding/json"
	"errors"
	"net/netip"
	"slices"
	"time"
)

// Times of WireGuard's sessions, as its paper names them (section 6.1), and how
// much longer they are believed in: the peer's clock started a little later.
const (
	rejectAfterTime = 180 * time.Second
	slack           = 10 * time.Second
	answerWait      = 20 * time.Second // for a response: four times RekeyTimeout
)

// Bounds of what is kept of one VM: sessions, addresses, and bytes in a file.
const (
	maxSessions = 1024
	maxFriends  = 256
	maxSeen     = 512 << 10
)

// seen is what a VM's handshakes told about its sessions: by which index it is
// called in each, and where its peer is. It is learned from what the VM itself
// sends, so a stranger adds nothing to it. The zero seen has seen nothing.
type seen struct {
	sessions map[uint32]*session
	peers    map[netip.Addr]time.Time // where peers were, and when last
	// Until then there may be sessions that were not seen made.
	gap time.Time
}

// A session is one that a VM has, or has asked for.
type session struct {
	Index uint32         `json:"index"`
	Peer  netip.AddrPort `json:"peer"`
	Made  time.Time      `json:"made"`
	Asked bool           `json:"asked,omitempty"` // by the VM; there may be no answer yet

	answered bool
	next     uint64 // data messages that woke have lesser numbers
}

// live reports whether a peer may still send in a session (section 6.2).
func (s *session) live(now time.Time) bool {
	age := now.Sub(s.Made)
	return age < rejectAfterTime+slack && age > -slack
}

// session returns the live session that a VM is called index in, or nil.
func (k *seen) session(index uint32, now time.Time) *session {
	if s := k.sessions[index]; s != nil && s.live(now) {
		return s
	}
	return nil
}

// friend reports whether a peer was there.
func (k *seen) friend(neighborhood netip.Addr) bool {
	_, ok := k.peers[neighborhood]
	return ok
}

// missed says that handshakes up to now were not seen.
func (k *seen) missed(now time.Time) { k.gap = now.Add(rejectAfterTime + slack) }

// learn takes in a message that the VM has sent. It reports whether that was
// news.
func (k *seen) learn(u udp, now time.Time) bool {
	t := kind(u.data)
	if t != typeInitiation && t != typeResponse {
		return false
	}
	k.add(&session{Index: sender(u.data), Peer: u.to, Made: now, Asked: t == typeInitiation}, now)
	return true
}

func (k *seen) add(s *session, now time.Time) {
	if k.sessions == nil {
		k.sessions, k.peers = map[uint32]*session{}, map[netip.Addr]time.Time{}
	}
	if len(k.sessions) >= 16 {
		k.prune(now)
	}
	k.sessions[s.Index] = s
	k.befriend(neighborhood(s.Peer.Addr()), s.Made)
}

// prune forgets sessions that are over, at times, and the older half of those
// that are not where there are too many: a guest that claims very many does not
// cost much for each.
func (k *seen) prune(now time.Time) {
	if n := len(k.sessions); n < maxSessions && n%16 != 0 {
		return
	}
	for i, s := range k.sessions {
		if !s.live(now) {
			delete(k.sessions, i)
		}
	}
	if len(k.sessions) < maxSessions {
		return
	}
	all := k.inOrder()
	for _, s := range all[:len(all)/2] {
		delete(k.sessions, s.Index)
	}
}

// inOrder are all sessions, the oldest first.
func (k *seen) inOrder() []*session {
	all := make([]*session, 0, len(k.sessions))
	for _, s := range k.sessions {
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b *session) int {
		return cmp.Or(a.Made.Compare(b.Made), cmp.Compare(a.Index, b.Index))
	})
	return all
}

func (k *seen) befriend(addr netip.Addr, at time.Time) {
	if _, ok := k.peers[addr]; !ok && len(k.peers) >= maxFriends {
		var oldest netip.Addr
		for a, t := range k.peers {
			if !oldest.IsValid() || t.Before(k.peers[oldest]) {
				oldest = a
			}
		}
		delete(k.peers, oldest)
	}
	k.peers[addr] = at
}

// kept is what a file has of it.
type kept struct {
	Sessions []*session               `json:"sessions"`
	Peers    map[netip.Addr]time.Time `json:"peers"`
}

func (k *seen) marshal() ([]byte, error) {
	return json.Marshal(kept{Sessions: k.inOrder(), Peers: k.peers})
}

// unmarshal brings back what marshal wrote, as far as it is of use.
func (k *seen) unmarshal(b []byte, now time.Time) error {
	if len(b) > maxSeen {
		return errors.New("too large")
	}
	var old kept
	if err := json.Unmarshal(b, &old); err != nil {
		return err
	}
	if len(old.Sessions) > maxSessions || len(old.Peers) > maxFriends {
		return errors.New("too many entries")
	}
	for _, s := range old.Sessions {
		if s != nil && s.Peer.IsValid() && s.live(now) {
			k.add(s, now)
		}
	}
	for a, t := range old.Peers {
		if k.peers == nil {
			k.sessions, k.peers = map[uint32]*session{}, map[netip.Addr]time.Time{}
		}
		if a.IsValid() {
			k.befriend(a, t)
		}
	}
	return nil
}
