package person

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"

	"golang.org/x/crypto/scrypt"

	"github.com/tradle/cloudpal"
)

// A Confirm is what is kept of a phrase until the person has proved that they
// wrote it down: a slow hash of three of its words. Who breaks it knows 33 of
// the phrase's 256 bits.
type Confirm struct {
	Places []int  `json:"places"` // of the words, from 1, ascending
	Salt   []byte `json:"salt"`
	Hash   []byte `json:"hash"`
}

const (
	confirmWords = 3
	confirmSalt  = 16
	confirmHash  = 32
	// 32 MiB and about 0.1 s for each guess (RFC 7914).
	scryptN, scryptR, scryptP = 1 << 15, 8, 1
)

func newConfirm(words []string) *Confirm {
	c := &Confirm{Places: places(len(words)), Salt: make([]byte, confirmSalt)}
	rand.Read(c.Salt)
	var chosen []string
	for _, p := range c.Places {
		chosen = append(chosen, words[p-1])
	}
	c.Hash = c.hash(chosen)
	return c
}

// places chooses some of n places.
func places(n int) (list []int) {
	for len(list) < confirmWords {
		i, err := rand.Int(rand.Reader, big.NewInt(int64(n)))
		if err != nil {
			panic(err) // the system has no randomness
		}
		if p := int(i.Int64()) + 1; !slices.Contains(list, p) {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, cmp.Compare[int])
	return list
}

func (c *Confirm) hash(words []string) []byte {
	key, err := scrypt.Key([]byte(strings.ToLower(strings.Join(words, " "))), c.Salt, scryptN, scryptR, scryptP, confirmHash)
	if err != nil {
		panic(err) // the parameters are constants
	}
	return key
}

// valid accepts none.
func (c *Confirm) valid() bool {
	return c == nil || len(c.Places) == confirmWords && len(c.Salt) == confirmSalt && len(c.Hash) == confirmHash
}

// Question asks for the words.
func (c *Confirm) Question() string {
	return fmt.Sprintf("words %d, %d and %d of your recovery phrase", c.Places[0], c.Places[1], c.Places[2])
}

// Confirm takes the words that Confirm.Question asks for. Once they were right,
// they are not asked for again. The error is cloudpal.Denied where they are
// wrong.
func (h *Home) Confirm(ctx context.Context, words string) error {
	return h.Change(ctx, func(s *State) error {
		if s.Confirm == nil {
			return nil
		}
		given := strings.Fields(words)
		if len(given) != confirmWords || len(words) > 1000 ||
			subtle.ConstantTimeCompare(s.Confirm.hash(given), s.Confirm.Hash) != 1 {
			return cloudpal.E("confirm the recovery phrase", cloudpal.Denied, errors.New("these are not "+s.Confirm.Question())).
				WithHint("if you did not write the phrase down, begin anew while your pal is empty: cloudpal destroy && cloudpal up")
		}
		s.Confirm = nil
		return nil
	})
}

// errUnconfirmed is what is said to who may not change anything yet.
func errUnconfirmed(c *Confirm) error {
	return cloudpal.E("", cloudpal.Denied, errors.New("your recovery phrase is not confirmed yet")).
		WithHint("have " + c.Question() + " at hand, and run: cloudpal device add NAME")
}
