package wallet

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"time"

	center "github.com/tradle/cloudpal/center/api"
	mint "github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/ticket"
)

// A state is all that a wallet knows: what the changes in its journal come to. What
// it holds is replaced, never changed, so that who has looked can go on looking.
type state struct {
	raw   map[string][]byte // every record, as it is written
	bytes int64             // of raw

	coins     map[ticket.Serial]*coin
	purchases map[uint64]*purchase
	swaps     map[uint64]*swap
	payments  map[uint64]*payment
	tabs      map[center.TabID]*tab
	gifts     map[uint64]*gift
	losses    map[ticket.Serial]*Loss
}

func newState() *state {
	return &state{
		raw: map[string][]byte{}, coins: map[ticket.Serial]*coin{}, purchases: map[uint64]*purchase{},
		swaps: map[uint64]*swap{}, payments: map[uint64]*payment{}, tabs: map[center.TabID]*tab{},
		gifts: map[uint64]*gift{}, losses: map[ticket.Serial]*Loss{},
	}
}

// Facts by their names.
const (
	factTrust    = "trust"    // manifest.Trust: whom to believe about the mint's keys
	factDevice   = "device"   // number of this device among the person's
	factNext     = "next"     // number of the next thing that is done
	factLog      = "log"      // logFact: the mint's log of keys
	factKeys     = "keys/"    // + epoch: its ticket keys
	factRevoked  = "revoked"  // []ticket.KeyID, as bytes: those that the log has revoked
	factCounters = "count/"   // + epoch: countFact
	factBranch   = "branch/"  // + a line of branches: how many of them are used
	factRestored = "restored" // a restore that is not done: what is yet to be looked at
)

// A purchase is tickets that are bought.
type purchase struct {
	Begun   time.Time  `json:"begun"`
	Method  string     `json:"method,omitempty"`
	Pack    string     `json:"pack"`
	Account string     `json:"account,omitempty"` // of free tickets: a secret
	Voucher string     `json:"voucher,omitempty"` // a secret
	Lock    []byte     `json:"lock"`              // seed of the key that the quote is locked with: a secret
	Quote   mint.Quote `json:"quote"`             // the last that the mint told; without an ID: not asked yet
	Outputs []want     `json:"outputs,omitempty"` // once they are to be issued
	Done    bool       `json:"done,omitempty"`
}

// A swap changes tickets for others.
type swap struct {
	Begun   time.Time `json:"begun"`
	Inputs  []coin    `json:"inputs"`
	Outputs []want    `json:"outputs"`
	Tried   [][]want  `json:"tried,omitempty"` // outputs that were asked for in an epoch that is over
	Origin  Origin    `json:"origin"`          // of what comes of it
	Gift    uint64    `json:"gift,omitempty"`  // number of the gift that is taken, or taken back
	Pay     uint64    `json:"pay,omitempty"`   // number of the payment that is cancelled
	Line    string    `json:"line,omitempty"`  // of the outputs' branch, where it counts
	K       uint64    `json:"k,omitempty"`     // and which of them it is
	Maybe   bool      `json:"maybe,omitempty"` // the inputs may be spent, and nothing is lost then
}

// A payment is one ticket that is spent at a center.
type payment struct {
	Begun     time.Time      `json:"begun"`
	Coin      coin           `json:"coin"`
	Tab       center.TabID   `json:"tab"`
	Offer     ticket.Digest  `json:"offer"`
	Nonce     []byte         `json:"nonce"`
	NotBefore int64          `json:"notBefore"`       // Unix seconds
	Taken     *center.Signed `json:"taken,omitempty"` // the center's word that it has it
	Refund    *center.Refund `json:"refund,omitempty"`
	Ended     bool           `json:"ended,omitempty"` // nothing more comes of it
}

// A tab is an account at a center.
type tab struct {
	Opened  time.Time         `json:"opened"`
	Center  ticket.CenterID   `json:"center"`
	Address string            `json:"address,omitempty"` // of the center, for people and commands
	Request center.TabRequest `json:"request"`
	Offer   center.Signed     `json:"offer"`
	Meter   center.Meter      `json:"meter"` // the last that is known
	Closed  *center.Signed    `json:"closed,omitempty"`
	Short   bool              `json:"short,omitempty"` // it gives back too little: a dispute brings it
	Dispute *mint.Dispute     `json:"dispute,omitempty"`
	Ended   bool              `json:"ended,omitempty"`
}

// A gift is tickets that were sent, to somebody or by somebody. Those that were sent
// stay until they are known to be taken.
type gift struct {
	Begun time.Time `json:"begun"`
	Ours  bool      `json:"ours"` // sent by this wallet
	Coins []coin    `json:"coins"`
	Back  bool      `json:"back,omitempty"`  // it is being taken back
	Taken int       `json:"taken,omitempty"` // so many were taken by the other side

	Sent []ticket.Serial `json:"sent,omitempty"` // all of them, where they came to this wallet
	Sum  ticket.Units    `json:"sum,omitempty"`  // what they are worth
}

// A Loss is a ticket that turned out to be spent already, and what proves it.
type Loss struct {
	At       time.Time    `json:"at"`
	Units    ticket.Units `json:"units"`
	Evidence []byte       `json:"evidence"` // mint/api.Evidence
}

// load applies what a frame of the journal says.
func (s *state) load(plain []byte) error {
	records, err := parseRecords(plain)
	for i := 0; err == nil && i < len(records); i++ {
		err = s.apply(records[i])
	}
	return err
}

// apply applies one change. It fails for a value that is not its kind's.
func (s *state) apply(r record) error {
	if err := s.view(r); err != nil {
		return fmt.Errorf("a record of kind %q: %w", byte(r.kind), err)
	}
	key := r.key()
	if old, ok := s.raw[key]; ok {
		s.bytes -= int64(len(key) + len(old))
		delete(s.raw, key)
	}
	if r.value != nil {
		s.raw[key] = r.value
		s.bytes += int64(len(key) + len(r.value))
	}
	return nil
}

// view keeps what a record means.
func (s *state) view(r record) error {
	switch r.kind {
	case kindFact:
		return nil
	case kindCoin:
		return s.viewCoin(r)
	case kindPurchase:
		return viewNumbered(s.purchases, r)
	case kindSwap:
		return viewNumbered(s.swaps, r)
	case kindPayment:
		return viewNumbered(s.payments, r)
	case kindGift:
		return viewNumbered(s.gifts, r)
	case kindTab:
		if len(r.name) != len(center.TabID{}) {
			return errBadName
		}
		return viewJSON(s.tabs, center.TabID([]byte(r.name)), r.value)
	case kindLoss:
		if len(r.name) != len(ticket.Serial{}) {
			return errBadName
		}
		return viewJSON(s.losses, ticket.Serial([]byte(r.name)), r.value)
	}
	return errors.New("it is of a later version of cloudpal")
}

var errBadName = errors.New("it has another name than it can have")

func (s *state) viewCoin(r record) error {
	if len(r.name) != len(ticket.Serial{}) {
		return errBadName
	}
	serial := ticket.Serial([]byte(r.name))
	if r.value == nil {
		delete(s.coins, serial)
		return nil
	}
	c, err := parseCoin(r.value)
	if err != nil || c.serial() != serial {
		return errors.Join(errBadName, err)
	}
	s.coins[serial] = &c
	return nil
}

func viewNumbered[T any](into map[uint64]*T, r record) error {
	if len(r.name) != 8 {
		return errBadName
	}
	return viewJSON(into, binary.BigEndian.Uint64([]byte(r.name)), r.value)
}

func viewJSON[K comparable, T any](into map[K]*T, key K, value []byte) error {
	if value == nil {
		delete(into, key)
		return nil
	}
	v := new(T)
	if err := json.Unmarshal(value, v); err != nil {
		return errors.New("it is not JSON as it should be") // an error of json's may quote secrets
	}
	into[key] = v
	return nil
}

// fact reads one into v, and reports whether there is one.
func (s *state) fact(name string, v any) bool {
	b, ok := s.raw[string(kindFact)+name]
	return ok && json.Unmarshal(b, v) == nil
}

// revoked returns the keys that are revoked, by the log as it was last verified.
func (s *state) revoked() map[ticket.KeyID]bool {
	var list [][]byte
	s.fact(factRevoked, &list)
	keys := map[ticket.KeyID]bool{}
	for _, k := range list {
		if len(k) == len(ticket.KeyID{}) {
			keys[ticket.KeyID(k)] = true
		}
	}
	return keys
}

// A change is what is to be written together.
type change struct {
	of      *state
	records []record
	next    uint64
	err     error
}

func (c *change) put(k kind, name string, v any) {
	b, err := json.Marshal(v)
	if len(name) > maxName {
		err = errors.New("a record's name is too long")
	}
	c.err = errors.Join(c.err, err)
	c.records = append(c.records, record{k, name, b})
}

func (c *change) drop(k kind, name string) { c.records = append(c.records, record{k, name, nil}) }

func (c *change) putCoin(o coin) {
	s := o.serial()
	c.records = append(c.records, record{kindCoin, string(s[:]), o.append(nil)})
}

func (c *change) dropCoin(s ticket.Serial) { c.drop(kindCoin, string(s[:])) }

func (c *change) putFact(name string, v any) { c.put(kindFact, name, v) }

// number returns a number that nothing else has.
func (c *change) number() uint64 {
	if c.next == 0 && !c.of.fact(factNext, &c.next) {
		c.next = 1
	}
	n := c.next
	c.next++
	c.putFact(factNext, c.next)
	return n
}

// numbered is the name of a record that has a number.
func numbered(n uint64) string { return string(binary.BigEndian.AppendUint64(nil, n)) }

// clone returns what can be looked at while the state goes on.
func (s *state) clone() *state {
	c := *s
	c.raw, c.coins, c.purchases, c.swaps = maps.Clone(s.raw), maps.Clone(s.coins), maps.Clone(s.purchases), maps.Clone(s.swaps)
	c.payments, c.tabs, c.gifts, c.losses = maps.Clone(s.payments), maps.Clone(s.tabs), maps.Clone(s.gifts), maps.Clone(s.losses)
	return &c
}
