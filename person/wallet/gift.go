package wallet

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

// What is sent is a text: the prefix, and in base64url
//
//	length (1) and name of the mint, then of each ticket
//	class (1), denomination (4), epoch (4), secret (32), the mint's signature (256),
//	and of all that the first 4 bytes of its SHA-256, against a slip of the pen
//
// What else a ticket has follows from these.
const (
	giftPrefix = "cloudpal-tickets-1-"
	giftTicket = 1 + 4 + 4 + 32 + ticket.BlindSize
	giftSum    = 4
	// MaxGift bounds the tickets that are sent at once.
	MaxGift    = 100
	maxGiftRaw = 1 + 255 + MaxGift*giftTicket + giftSum
	// MaxGiftText bounds the text of it, in bytes, with line ends.
	MaxGiftText = 64 << 10
)

// giftText writes coins as they are sent: a secret.
func giftText(issuer string, coins []coin) string {
	b := append([]byte{byte(len(issuer))}, issuer...)
	for i := range coins {
		o := &coins[i]
		b = append(b, byte(o.Class))
		b = binary.BigEndian.AppendUint32(b, uint32(o.Denomination))
		b = binary.BigEndian.AppendUint32(b, uint32(o.Epoch))
		b = append(b, o.secret[:]...)
		b = append(b, o.token.Authenticator[:]...)
	}
	check := sha256.Sum256(b)
	return giftPrefix + base64.RawURLEncoding.EncodeToString(append(b, check[:giftSum]...))
}

// A sentTicket is one as it was sent: not yet checked.
type sentTicket struct {
	class         ticket.Class
	denomination  ticket.Denomination
	epoch         ticket.Epoch
	secret        [32]byte
	authenticator [ticket.BlindSize]byte
}

// parseGift reads what giftText has written, with any space between. Its errors tell
// nothing of it.
func parseGift(text string) (issuer string, sent []sentTicket, err error) {
	const op = "read tickets that were sent"
	bad := func(why string) (string, []sentTicket, error) {
		return "", nil, cloudpal.E(op, cloudpal.Invalid, errors.New(why)).WithHint("have the whole text, from " + giftPrefix + " to its end, in one piece")
	}
	if len(text) > MaxGiftText {
		return bad("it is too long")
	}
	encoded, ok := strings.CutPrefix(strings.Join(strings.Fields(text), ""), giftPrefix)
	if !ok {
		return bad("it does not begin as such do")
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil || len(b) < 1+giftSum || len(b) > maxGiftRaw {
		return bad("a part of it is missing, or not as it was")
	}
	b, check := b[:len(b)-giftSum], b[len(b)-giftSum:]
	if s := sha256.Sum256(b); !bytes.Equal(s[:giftSum], check) {
		return bad("a part of it is missing, or not as it was")
	}
	name := int(b[0])
	if len(b) < 1+name || (len(b)-1-name)%giftTicket != 0 || len(b) == 1+name {
		return bad("it holds no tickets")
	}
	issuer, b = string(b[1:1+name]), b[1+name:]
	for one := range slices.Chunk(b, giftTicket) {
		t := sentTicket{
			class:        ticket.Class(one[0]),
			denomination: ticket.Denomination(binary.BigEndian.Uint32(one[1:])),
			epoch:        ticket.Epoch(binary.BigEndian.Uint32(one[5:])),
		}
		copy(t.secret[:], one[9:])
		copy(t.authenticator[:], one[41:])
		sent = append(sent, t)
	}
	return issuer, sent, nil
}

// open checks a ticket that was sent, but for whether it is spent.
func (w *Wallet) open(ctx context.Context, t sentTicket) (c coin, err error) {
	const op = "take a ticket that was sent"
	if !t.epoch.Swaps(w.clock.Now()) {
		return c, cloudpal.E(op, cloudpal.Exhausted, errors.New("it is too old: it is worth nothing any more"))
	}
	k, err := w.key(ctx, t.class, t.denomination, t.epoch)
	if err != nil {
		return c, err
	}
	public := ed25519.NewKeyFromSeed(t.secret[:]).Public().(ed25519.PublicKey)
	token := ticket.Token{
		Nonce: ticket.SerialOf(public), Challenge: ticket.ChallengeDigest(w.trust.Issuer, k.Class),
		Key: k.ID(), Authenticator: t.authenticator,
	}
	if err := token.Verify(k); err != nil {
		return c, cloudpal.E(op, cloudpal.Denied, errors.New("the mint did not sign it: it is worth nothing")).
			WithHint("ask whoever sent it for another")
	}
	whole, err := ticket.Restore(token, t.secret)
	if err != nil {
		return c, err
	}
	return newCoin(whole, k, Received, w.now()), nil
}

// A Gift is what was sent to somebody.
type Gift struct {
	N       uint64       `json:"n"`
	Begun   time.Time    `json:"begun"`
	Units   ticket.Units `json:"units"` // of what is not known to be taken
	Tickets int          `json:"tickets"`
	Taken   int          `json:"taken"` // tickets of which it is known that they were
}

func (g *gift) show(n uint64) Gift {
	return Gift{N: n, Begun: g.Begun, Units: worth(g.Coins), Tickets: len(g.Coins), Taken: g.Taken}
}

// Send takes tickets that are worth units together out of the wallet, and returns
// them as a text for somebody, who is to Receive them at once: until then they can be
// taken back, and whoever else reads the text can take them. They stay in the journal.
func (w *Wallet) Send(ctx context.Context, class ticket.Class, units ticket.Units) (Gift, string, error) {
	if units == 0 {
		return Gift{}, "", cloudpal.E("send tickets", cloudpal.Invalid, errors.New("nothing is to be sent"))
	}
	for {
		n, lack, err := w.trySend(ctx, class, units)
		if err != nil {
			return Gift{}, "", err
		}
		if n != 0 {
			return w.SentText(n)
		}
		if err := w.make(ctx, class, lack); err != nil {
			return Gift{}, "", err
		}
	}
}

// trySend begins a gift, or says what tickets are lacking for one.
func (w *Wallet) trySend(ctx context.Context, class ticket.Class, units ticket.Units) (n uint64, lack []ticket.Denomination, err error) {
	err = w.change(ctx, func(s *state, c *change) error {
		coins, left := exactly(s.choice(class, w.clock.Now(), w.hurries()), units)
		if left > 0 {
			all := s.choice(class, w.clock.Now(), true)
			if soon, left := exactly(all, units); left == 0 {
				return resting(lastReady(soon)) // they were made for this, it may be
			}
			if sumOf(s.choice(class, w.clock.Now(), w.hurries())) < units {
				return w.lacking(s, class, units)
			}
			lack = ticket.Split(left)
			return nil
		}
		if len(coins) > MaxGift {
			return cloudpal.E("send tickets", cloudpal.Invalid, fmt.Errorf("that is %d tickets; %d can be sent at once", len(coins), MaxGift)).
				WithHint("send less, several times")
		}
		n = c.number()
		for i := range coins {
			c.dropCoin(coins[i].serial())
		}
		c.put(kindGift, numbered(n), gift{Begun: w.now(), Ours: true, Coins: coins})
		return nil
	})
	return n, lack, err
}

func lastReady(coins []coin) (t time.Time) {
	for i := range coins {
		if coins[i].Ready.After(t) {
			t = coins[i].Ready
		}
	}
	return t
}

func sumOf(coins []*coin) (u ticket.Units) {
	for _, o := range coins {
		u += ticket.Units(o.Denomination)
	}
	return u
}

// exactly returns coins that are worth units, the most valuable first, and how much
// there is none for.
func exactly(coins []*coin, units ticket.Units) (in []coin, left ticket.Units) {
	left = units
	for _, d := range slices.Backward(ticket.Denominations) {
		for _, o := range coins {
			if o.Denomination == d && ticket.Units(d) <= left {
				in, left = append(in, *o), left-ticket.Units(d)
			}
		}
	}
	return in, left
}

// SentText returns a gift of this wallet's again.
func (w *Wallet) SentText(n uint64) (Gift, string, error) {
	s, err := w.look()
	if err != nil {
		return Gift{}, "", err
	}
	g, ok := s.gifts[n]
	if !ok || !g.Ours {
		return Gift{}, "", noGift(n)
	}
	return g.show(n), giftText(w.trust.Issuer, g.Coins), nil
}

func noGift(n uint64) error {
	return cloudpal.E("find what was sent", cloudpal.NotExist, fmt.Errorf("nothing with number %d was sent", n)).
		WithHint("cloudpal wallet list shows what was")
}

// TakeBack takes a gift back, ticket by ticket, and returns what is left of it: those
// tickets that were taken before are gone.
func (w *Wallet) TakeBack(ctx context.Context, n uint64) (Gift, error) {
	err := w.change(ctx, func(s *state, c *change) error {
		old, ok := s.gifts[n]
		if !ok || !old.Ours {
			return noGift(n)
		}
		g := *old
		g.Back = true
		c.put(kindGift, numbered(n), g)
		return nil
	})
	if err == nil {
		err = w.runGift(ctx, n, nil)
	}
	if err != nil {
		return Gift{}, err
	}
	s, err := w.look()
	if err != nil {
		return Gift{}, err
	}
	if g, ok := s.gifts[n]; ok {
		return g.show(n), nil
	}
	return Gift{N: n}, nil
}

// Receive takes tickets that were sent, and makes them this wallet's, ticket by
// ticket, at once: until then who sent them can take them back. It tells how far it
// is.
func (w *Wallet) Receive(ctx context.Context, text string, progress func(done, of int)) (Gift, error) {
	issuer, sent, err := parseGift(text)
	if err != nil {
		return Gift{}, err
	}
	if issuer != w.trust.Issuer {
		return Gift{}, cloudpal.E("take tickets that were sent", cloudpal.Invalid, fmt.Errorf("they are of the mint %.80q, and this wallet is of %s", issuer, w.trust.Issuer)).
			WithHint("take them into a wallet of that mint: --mint FILE, with the file of that mint")
	}
	g := gift{Begun: w.now()}
	for _, t := range sent {
		c, err := w.open(ctx, t)
		if err != nil {
			return Gift{}, err
		}
		if !holds(g.Coins, c.serial()) {
			g.Coins, g.Sent = append(g.Coins, c), append(g.Sent, c.serial())
		}
	}
	g.Sum = worth(g.Coins)
	var n uint64
	err = w.change(ctx, func(s *state, c *change) error {
		if n = s.giftOf(g.Sent); n == 0 {
			n = c.number()
			c.put(kindGift, numbered(n), g)
		}
		return nil
	})
	if err != nil {
		return Gift{}, err
	}
	got := Gift{N: n, Begun: g.Begun}
	if err := w.runGift(ctx, n, progress); err != nil {
		return got, err
	}
	return w.received(n, g)
}

// giftOf returns the number of the gift, to this wallet, of just these tickets, which
// may be taken in part.
func (s *state) giftOf(sent []ticket.Serial) uint64 {
	for n, g := range s.gifts {
		if !g.Ours && slices.Equal(g.Sent, sent) {
			return n
		}
	}
	return 0
}

// received tells what came of a gift to this wallet, and forgets it.
func (w *Wallet) received(n uint64, g gift) (Gift, error) {
	got := Gift{N: n, Begun: g.Begun, Units: g.Sum, Tickets: len(g.Sent)}
	err := w.change(context.Background(), func(s *state, c *change) error {
		left, ok := s.gifts[n]
		if !ok {
			return nil
		}
		got.Taken = left.Taken
		c.drop(kindGift, numbered(n))
		return nil
	})
	if err == nil && got.Taken > 0 {
		err = cloudpal.E("take tickets that were sent", cloudpal.Exist, fmt.Errorf("of %d tickets, %d were taken before", got.Tickets, got.Taken)).
			WithHint("ask whoever sent them: they sent them twice, took them back, or somebody else read them; the others are yours")
	}
	return got, err
}

// runGift swaps the tickets of a gift that is taken, or taken back, one after
// another.
func (w *Wallet) runGift(ctx context.Context, n uint64, progress func(done, of int)) error {
	of := -1
	for {
		s, err := w.look()
		if err != nil {
			return err
		}
		g, ok := s.gifts[n]
		if !ok || len(g.Coins) == 0 {
			return nil
		}
		if of < 0 {
			of = len(g.Coins)
		}
		if progress != nil {
			progress(of-len(g.Coins), of)
		}
		if err := w.runOneOf(ctx, n, g); err != nil {
			return err
		}
		if progress != nil && len(g.Coins) == 1 {
			progress(of, of)
		}
		if !g.Ours {
			continue // who sent them could be faster
		}
		if err := w.pause(ctx); err != nil {
			return err
		}
	}
}

// runOneOf swaps the first ticket of a gift.
func (w *Wallet) runOneOf(ctx context.Context, n uint64, g *gift) error {
	swapped := g.Coins[0]
	e, err := w.issuing(ctx)
	if err != nil {
		return err
	}
	parts := []ticket.Denomination{swapped.Denomination}
	sw := swap{Begun: w.now(), Inputs: []coin{swapped}, Gift: n, Origin: Swapped}
	if g.Ours {
		sw.Outputs = wants(swapBranch(swapped.serial()), swapped.Class, e, parts)
	} else if err := w.takeIn(ctx, &sw, e, Received); err != nil {
		return err
	}
	var number uint64
	err = w.change(ctx, func(s *state, c *change) error {
		if number = s.swapOf(n); number != 0 {
			return nil // it was begun before
		}
		if sw.Line != "" {
			c.use(sw.Line, sw.K)
		}
		number = c.begin(sw)
		return nil
	})
	if err != nil {
		return err
	}
	var taken *Taken
	if err := w.runSwap(ctx, number); err != nil && !errors.As(err, &taken) {
		return err
	}
	return nil
}

// takeIn has a swap of one ticket, of which others know, make one on a branch that
// none of them ever used.
func (w *Wallet) takeIn(ctx context.Context, sw *swap, e ticket.Epoch, from Origin) (err error) {
	o := &sw.Inputs[0]
	sw.Origin = from
	if sw.Line, err = w.line("in", e, o.Class); err != nil {
		return err
	}
	into, err := w.parts(ctx, e, o.Class, o.Denomination)
	if err != nil {
		return err
	}
	sw.K, sw.Outputs, err = w.fresh(ctx, sw.Line, e, o.Class, into)
	return err
}

// swapOf returns the number of the swap that a gift's next ticket is in.
func (s *state) swapOf(gift uint64) uint64 {
	for n, sw := range s.swaps {
		if sw.Gift == gift {
			return n
		}
	}
	return 0
}
