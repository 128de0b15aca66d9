package wallet

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/tradle/cloudpal/ticket"
)

// An Origin is how a ticket came to be.
type Origin byte

// The origins.
const (
	Bought   Origin = 1
	Swapped  Origin = 2 // made of others, by a swap
	Change   Origin = 3 // of a ticket that was not used up
	Received Origin = 4 // from somebody
	Restored Origin = 5 // from a backup, or the phrase
)

// String returns the origin as a word.
func (o Origin) String() string {
	switch o {
	case Bought:
		return "bought"
	case Swapped:
		return "swapped"
	case Change:
		return "change"
	case Received:
		return "received"
	case Restored:
		return "restored"
	}
	return fmt.Sprintf("origin %d", byte(o))
}

// A coin is a ticket that a wallet keeps: a secret.
type coin struct {
	Class        ticket.Class
	Denomination ticket.Denomination
	Epoch        ticket.Epoch
	Origin       Origin
	Ready        time.Time // before it, it rests; in whole seconds
	secret       [32]byte  // ticket.Ticket.KeySeed
	token        ticket.Token
	seed         ticket.BlindSeed // zero where it is not known: of another's, or of a wallet of before it was kept
}

// The sizes of a coin: with its seed, and as it was written before that was kept.
const (
	coinSize     = seedlessSize + len(ticket.BlindSeed{})
	seedlessSize = 1 + 4 + 4 + 1 + 8 + 32 + ticket.TokenSize
)

func newCoin(t ticket.Ticket, k *ticket.Key, o Origin, ready time.Time) coin {
	return coin{
		Class: k.Class, Denomination: k.Denomination, Epoch: k.Epoch, Origin: o,
		Ready: ready.UTC().Truncate(time.Second), secret: t.KeySeed(), token: t.Token,
	}
}

// String hides the ticket.
func (c coin) String() string { return "ticket" }

// GoString hides it likewise.
func (c coin) GoString() string { return "wallet.coin{…}" }

func (c *coin) serial() ticket.Serial { return ticket.Serial(c.token.Nonce) }

// ticket returns what can be spent. It costs a key, so that a wallet does it for
// the few that it spends.
func (c *coin) ticket() (ticket.Ticket, error) { return ticket.Restore(c.token, c.secret) }

func (c *coin) append(b []byte) []byte {
	b = append(b, byte(c.Class))
	b = binary.BigEndian.AppendUint32(b, uint32(c.Denomination))
	b = binary.BigEndian.AppendUint32(b, uint32(c.Epoch))
	b = append(b, byte(c.Origin))
	b = binary.BigEndian.AppendUint64(b, uint64(c.Ready.Unix()))
	b = append(b, c.secret[:]...)
	b = c.token.Append(b)
	return append(b, c.seed[:]...)
}

func parseCoin(b []byte) (c coin, err error) {
	if len(b) != coinSize && len(b) != seedlessSize {
		return c, errors.New("a ticket has another size")
	}
	copy(c.seed[:], b[seedlessSize:])
	c.Class = ticket.Class(b[0])
	c.Denomination = ticket.Denomination(binary.BigEndian.Uint32(b[1:]))
	c.Epoch = ticket.Epoch(binary.BigEndian.Uint32(b[5:]))
	c.Origin = Origin(b[9])
	c.Ready = time.Unix(int64(binary.BigEndian.Uint64(b[10:])), 0).UTC()
	copy(c.secret[:], b[18:])
	if !c.Denomination.Valid() || (c.Class != ticket.Paid && c.Class != ticket.Free) {
		return coin{}, errors.New("a ticket is worth nothing that there is")
	}
	c.token, err = ticket.ParseToken(b[50:seedlessSize])
	return c, err
}

// MarshalText makes a coin part of the JSON of what is done with it, which stays in
// the journal.
func (c coin) MarshalText() ([]byte, error) {
	return base64.StdEncoding.AppendEncode(nil, c.append(nil)), nil
}

// UnmarshalText reads it.
func (c *coin) UnmarshalText(text []byte) error {
	b, err := base64.StdEncoding.AppendDecode(nil, text)
	if err != nil {
		return errors.New("a ticket is not base64")
	}
	*c, err = parseCoin(b)
	return err
}

// worth is the value of coins.
func worth(coins []coin) (u ticket.Units) {
	for i := range coins {
		u += ticket.Units(coins[i].Denomination)
	}
	return u
}

// A want names an output: what makes it follows from the seed.
type want struct {
	Branch       ticket.Branch       `json:"branch"`
	Class        ticket.Class        `json:"class"`
	Denomination ticket.Denomination `json:"denomination"`
	Epoch        ticket.Epoch        `json:"epoch"`
	N            uint64              `json:"n"` // counts those of one denomination
}

// wants names outputs of a branch that are worth parts, in their order.
func wants(b ticket.Branch, c ticket.Class, e ticket.Epoch, parts []ticket.Denomination) []want {
	counts := map[ticket.Denomination]uint64{}
	all := make([]want, 0, len(parts))
	for _, d := range parts {
		all = append(all, want{b, c, d, e, counts[d]})
		counts[d]++
	}
	return all
}
