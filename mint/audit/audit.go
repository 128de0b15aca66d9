// Package audit checks what a mint says of itself, as anybody can: that its log of
// keys is the one that was seen before, that of no key more is redeemed than was
// issued, that what it publishes is what its roots are over, that it does not change
// afterwards, and that what one had signed and deposited oneself is in it.
//
// What it cannot see is tickets that a mint made for itself and counts as issued: they
// look like those that were sold and never spent. They end with their key, five
// months after it began, and until then they are at most what nobody has spent.
package audit

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/manifest"
)

// A Source is a mint that is asked. It is api.Client's.
type Source interface {
	Manifest(context.Context, ticket.Epoch) ([]byte, error)
	Counters(context.Context, ticket.Epoch) (api.Counters, error)
	Leaves(context.Context, ticket.KeyID, api.Kind, int64) ([][32]byte, error)
}

// A Config says what is audited, and with what.
type Config struct {
	Mint   Source
	Trust  *manifest.Trust
	Now    time.Time
	Memory Memory                // of the audit before; zero at first
	Others []manifest.Checkpoint // that others were shown
	Own    Own
}

// A Memory is what one audit has for the next, so that a mint cannot change what it
// said.
type Memory struct {
	Checkpoint manifest.Checkpoint           `json:"checkpoint"`
	Counters   map[ticket.Epoch]api.Counters `json:"counters"`
}

// Own is what the one who audits has from the mint.
type Own struct {
	Signed   []Signed      `json:"signed,omitempty"`   // of a wallet
	Receipts []api.Receipt `json:"receipts,omitempty"` // of a center
}

// A Signed is an output that the mint signed. With its signature, which is still blind
// and tells nobody which ticket it became, it proves that.
type Signed struct {
	Output    api.Output `json:"output"`
	Signature []byte     `json:"signature,omitempty"`
	At        time.Time  `json:"at"` // when it was signed
}

// A Report is what an audit found. Evidence is by the names that findings have.
type Report struct {
	Mint     string         `json:"mint"`
	Alone    bool           `json:"alone"` // it has no witnesses
	Keys     int            `json:"keys"`  // that were checked
	Hours    int            `json:"hours"`
	Issued   int64          `json:"issued"` // tickets
	Redeemed int64          `json:"redeemed"`
	Counted  []Counted      `json:"counted,omitempty"` // of one's own receipts
	Findings []Finding      `json:"findings"`
	Evidence map[string]any `json:"evidence,omitempty"`
	Memory   Memory         `json:"-"` // for the next; that of before where the keys are not to be believed
}

// A Finding is something that an honest mint does not do.
type Finding struct {
	Text     string   `json:"text"`
	Evidence []string `json:"evidence,omitempty"`
}

// A keyHour is a key and an hour.
type keyHour struct {
	key  ticket.KeyID
	hour int64
}

// An auditor is one audit.
type auditor struct {
	Config
	report    *Report
	manifests map[ticket.Epoch]*manifest.Manifest
	keys      map[ticket.KeyID]*ticket.Key // that are logged
	outputs   map[[32]byte]bool
	spent     map[[32]byte]bool
	deposits  map[keyHour][][32]byte     // sorted
	until     map[ticket.KeyID]time.Time // when the counters of a key are of
}

// Run audits a mint. It fails only where it cannot: what is wrong is in the report.
func Run(ctx context.Context, c Config) (*Report, error) {
	a := &auditor{
		Config:    c,
		report:    &Report{Mint: c.Trust.Issuer, Alone: c.Trust.Alone(), Findings: []Finding{}, Evidence: map[string]any{}, Memory: c.Memory},
		manifests: map[ticket.Epoch]*manifest.Manifest{},
		keys:      map[ticket.KeyID]*ticket.Key{},
		outputs:   map[[32]byte]bool{},
		spent:     map[[32]byte]bool{},
		deposits:  map[keyHour][][32]byte{},
		until:     map[ticket.KeyID]time.Time{},
	}
	if err := a.run(ctx); err != nil {
		return nil, cloudpal.E("audit the mint "+c.Trust.Issuer, "", err)
	}
	return a.report, nil
}

// live are how many epochs back tickets are worth something, with this one.
const live = 5

func (a *auditor) run(ctx context.Context) error {
	now := ticket.EpochAt(a.Now)
	first := now - min(now, live-1)
	for e := first; e <= now+1; e++ {
		if err := a.checkKeys(ctx, e); err != nil {
			return err
		}
	}
	counters := map[ticket.Epoch]api.Counters{}
	for e := first; e <= now; e++ {
		m := a.manifests[e]
		if m == nil {
			continue
		}
		c, err := a.fetchCounters(ctx, m)
		if err != nil {
			return err
		}
		if c == nil {
			continue
		}
		counters[e] = *c
		if err := a.checkCounters(ctx, m, *c); err != nil {
			return err
		}
	}
	a.checkOwn()
	a.report.Memory.Counters = counters
	return nil
}

func (a *auditor) find(evidence []string, format string, args ...any) {
	a.report.Findings = append(a.report.Findings, Finding{Text: fmt.Sprintf(format, args...), Evidence: evidence})
}

// keep keeps evidence under a name, and returns that.
func (a *auditor) keep(name string, v any) []string {
	a.report.Evidence[name] = v
	return []string{name}
}

// withheld reports whether a mint that answers does not give what it has to. Other
// errors are of the way to it.
func withheld(err error) bool {
	return errors.Is(err, cloudpal.NotExist) || errors.Is(err, cloudpal.Denied) || errors.Is(err, cloudpal.Invalid) || errors.Is(err, cloudpal.Exhausted)
}

// checkKeys checks the log and an epoch's keys as a wallet does, and that others saw
// the same log.
func (a *auditor) checkKeys(ctx context.Context, e ticket.Epoch) error {
	raw, err := a.Mint.Manifest(ctx, e)
	if errors.Is(err, cloudpal.NotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	name := fmt.Sprintf("keys-%d", e)
	b, err := manifest.ParseBundle(raw)
	if err != nil {
		a.find(a.keep(name, raw), "the keys of epoch %d: %v", e, err)
		return nil
	}
	m, err := a.Trust.Verify(b, e, a.report.Memory.Checkpoint, a.Now)
	if err != nil {
		a.find(a.evidenceOf(name, b, err), "the keys of epoch %d: %v", e, err)
		return nil
	}
	for i, other := range a.Others {
		if _, err := a.Trust.Verify(b, e, other, a.Now); err != nil {
			a.find(a.evidenceOf(fmt.Sprintf("%s-other-%d", name, i+1), b, err), "the log that others were shown: %v", err)
		}
	}
	a.report.Memory.Checkpoint = b.Checkpoint
	a.manifests[e] = m
	for _, k := range m.All() {
		a.keys[k.ID()] = k
	}
	return nil
}

// evidenceOf keeps what shows that keys are not to be believed: of a fork, just the
// two checkpoints that the log signed.
func (a *auditor) evidenceOf(name string, b *manifest.Bundle, err error) []string {
	if fork, ok := errors.AsType[*manifest.Fork](err); ok {
		return a.keep(name, fork)
	}
	return a.keep(name, b)
}
