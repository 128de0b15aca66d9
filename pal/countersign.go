package pal

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/pal/api"
	"github.com/tradle/cloudpal/ticket"
)

// maxCountersign bounds a request to countersign, in bytes.
const maxCountersign = 16 << 10

func (c *Core) serveCountersign(w http.ResponseWriter, r *http.Request) {
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxCountersign))
	if err != nil {
		fail(w, readError(err))
		return
	}
	var q api.CountersignRequest
	if err := json.Unmarshal(data, &q); err != nil {
		fail(w, cloudpal.E("countersign", cloudpal.Invalid, nil))
		return
	}
	_, p := c.lock.state()
	if p == nil {
		fail(w, cloudpal.E("countersign", cloudpal.Busy, errors.New("the core is locked")))
		return
	}
	signature, err := p.countersign(q)
	if err != nil {
		p.log.Warn("a record of the meter is not countersigned", "kind", cloudpal.KindOf(err))
		fail(w, err)
		return
	}
	reply(w, api.Countersigned{Signature: signature})
}

// countersign agrees with a record of the center's meter that is not above what the
// core itself has measured. What it agreed to is on the volume before anybody hears
// of it.
func (p *unlocked) countersign(q api.CountersignRequest) ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	last, err := p.store.agreed()
	if err != nil {
		return nil, err
	}
	c, err := p.readClaim(q)
	if err != nil {
		return nil, err
	}
	if last.Tab != c.record.Tab {
		last = agreed{Tab: c.record.Tab, Since: p.since}
		if len(p.naps.list) > 0 {
			last.Since = p.naps.list[0].From
		}
	}
	if bytes.Equal(last.Record, q.Record) {
		return last.Signature, nil // its answer got lost
	}
	if err := c.fair(last, p.measured(last)); err != nil {
		return nil, err
	}
	next := agreed{
		Tab: c.record.Tab, Record: q.Record, Signature: c.record.Sign(c.key), Used: c.record.Used, Seq: c.record.Seq,
		Since: time.Now(), Sent: p.sent(), Boot: p.since,
	}
	if err := p.store.setAgreed(next); err != nil {
		return nil, err
	}
	p.agreedAt = next.Since
	return next.Signature, nil
}

// An agreed record is the last that the core countersigned, and when.
type agreed struct {
	Tab       [32]byte     `json:"tab"`
	Record    []byte       `json:"record"`
	Signature []byte       `json:"signature"`
	Used      ticket.Units `json:"used"`
	Seq       uint64       `json:"seq"`
	Since     time.Time    `json:"since"`
	Sent      int64        `json:"sent"` // bytes, of the boot
	Boot      time.Time    `json:"boot"`
}

// A claim is a record with what it is to be judged by.
type claim struct {
	record ticket.Record
	tariff tariff
	key    ed25519.PrivateKey
}

// A tariff is a center's, in units: center/api has what it means.
type tariff struct {
	Core    uint64 `json:"core"`
	Storage uint64 `json:"storage"`
	Traffic uint64 `json:"traffic"`
}

// readClaim opens a request. The tab's name follows from the offer, so another offer
// than the one that the person agreed to makes another key.
func (p *unlocked) readClaim(q api.CountersignRequest) (c claim, err error) {
	const op = "read a meter's record"
	if len(q.Nonce) != 16 {
		return c, cloudpal.E(op, cloudpal.Invalid, nil)
	}
	if c.record, err = ticket.ParseRecord(q.Record); err != nil {
		return c, err
	}
	purpose := []byte("cloudpal offer v1")
	text := append(binary.BigEndian.AppendUint64(nil, uint64(len(purpose))), purpose...)
	c.key = p.meter.Key([16]byte(q.Nonce), sha256.Sum256(append(text, q.Offer...)))
	if !bytes.Equal(c.key.Public().(ed25519.PublicKey), c.record.Tab[:]) {
		return c, cloudpal.E(op, cloudpal.Denied, errors.New("it is not of a tab that was opened under that offer"))
	}
	var offer struct {
		Center []byte `json:"center"`
		Tariff tariff `json:"tariff"`
	}
	if err := json.Unmarshal(q.Offer, &offer); err != nil {
		return c, cloudpal.E(op, cloudpal.Invalid, nil)
	}
	if !c.record.Signed(offer.Center, q.Signature) {
		return c, cloudpal.E(op, cloudpal.Denied, errors.New("the center did not sign it"))
	}
	c.tariff = offer.Tariff
	return c, nil
}

// A measure is what the core knows of its own use since a moment.
type measure struct {
	awake  time.Duration
	passed time.Duration // awake or asleep
	sent   int64         // bytes
	disk   int64         // bytes that the volume has room for
}

// What a claim may be above the core's own measure: clocks and counters differ, the
// host counts a boot, and the core does not see its frames' headers.
const (
	slackTime  = 15 * time.Minute
	slackUnits = 2
	slackShare = 0.1
)

// fair says whether a claim is not above what was measured since the last that was
// agreed to.
func (c *claim) fair(last agreed, m measure) error {
	const op = "check a meter's record"
	if c.record.Seq <= last.Seq || c.record.Used < last.Used {
		return cloudpal.E(op, cloudpal.Denied, fmt.Errorf("number %d does not come after number %d", c.record.Seq, last.Seq))
	}
	const day, gib = float64(24 * time.Hour), float64(1 << 30)
	most := float64(c.tariff.Core) * float64(m.awake+slackTime) / day
	most += float64(c.tariff.Storage) * float64(m.passed+slackTime) / (30 * day) * float64(m.disk) / gib
	most += float64(c.tariff.Traffic) * float64(m.sent) / gib
	most = most*(1+slackShare) + slackUnits
	if claimed := float64(c.record.Used - last.Used); claimed > most {
		return cloudpal.E(op, cloudpal.Denied, fmt.Errorf("%.0f units are claimed, and at most %.0f were used", claimed, most))
	}
	return nil
}

// measured returns what was used since the last agreement. Within one boot the core
// goes by a clock that stands still while it sleeps and that nobody sets; for what was
// before, by the history of its naps. The caller holds mu.
func (p *unlocked) measured(last agreed) (m measure) {
	now := time.Now()
	m.passed = max(0, now.Round(0).Sub(last.Since.Round(0)))
	m.sent = p.sent()
	switch {
	case last.Record != nil && !p.agreedAt.IsZero():
		m.awake = now.Sub(p.agreedAt)
	default:
		m.awake = now.Sub(p.since) + p.awakeBetween(last.Since, p.since)
	}
	if last.Boot.Equal(p.since) {
		m.sent -= min(last.Sent, m.sent)
	}
	var s unix.Statfs_t
	if err := unix.Statfs(p.store.dir, &s); err == nil {
		m.disk = int64(s.Blocks) * s.Bsize
	}
	return m
}

// awakeBetween is the time between two moments in which the core did not sleep.
func (p *unlocked) awakeBetween(from, to time.Time) time.Duration {
	d := to.Round(0).Sub(from.Round(0))
	for _, n := range p.naps.list {
		begin, end := n.From, n.To
		if begin.Before(from) {
			begin = from
		}
		if end.After(to) {
			end = to
		}
		if end.After(begin) {
			d -= end.Round(0).Sub(begin.Round(0))
		}
	}
	return max(0, d)
}

// sent is how many bytes the core has sent since it booted.
func (p *unlocked) sent() int64 {
	text, err := os.ReadFile(filepath.Join("/sys/class/net", p.core.uplink.Name, "statistics/tx_bytes"))
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64) // what is no number is none
	return n
}

func (s store) agreed() (a agreed, err error) {
	err = s.readJSON(agreedFile, &a)
	return a, err
}

func (s store) setAgreed(a agreed) error { return s.writeJSON(agreedFile, a) }
