package identity

import (
	"crypto/rand"
	"fmt"
	"strings"

	"github.com/tradle/cloudpal"
	"github.com/tyler-smith/go-bip39"
)

const (
	entropySize = 32
	phraseWords = 24
)

// A Phrase is 24 words that a person writes down: 256 random bits and a
// checksum of 8, as BIP 39 spells them in English. Everything of a person can
// be had again from it.
type Phrase struct{ secret[[entropySize]byte] }

// NewPhrase makes a phrase.
func NewPhrase() Phrase {
	entropy := new([entropySize]byte)
	rand.Read(entropy[:])
	return Phrase{hide(entropy)}
}

// ParsePhrase reads a phrase as a person types it: words in any case, any
// space between them. The error is cloudpal.Invalid and names the place of the
// first word that is not on the list, but no word.
func ParsePhrase(text string) (Phrase, error) {
	const op = "read the recovery phrase"
	if len(text) > 4<<10 {
		return Phrase{}, cloudpal.E(op, cloudpal.Invalid, fmt.Errorf("longer than 4 KiB"))
	}
	words := strings.Fields(strings.ToLower(text))
	for i, word := range words {
		if _, known := bip39.GetWordIndex(word); !known {
			return Phrase{}, cloudpal.E(op, cloudpal.Invalid, fmt.Errorf("word %d is not one of the 2048 words", i+1)).
				WithHint("check how that word is spelled; no two words of the list have the same first four letters")
		}
	}
	if len(words) != phraseWords {
		return Phrase{}, cloudpal.E(op, cloudpal.Invalid, fmt.Errorf("%d words instead of %d", len(words), phraseWords))
	}
	entropy, err := bip39.EntropyFromMnemonic(strings.Join(words, " "))
	if err != nil || len(entropy) != entropySize {
		return Phrase{}, cloudpal.E(op, cloudpal.Invalid, fmt.Errorf("the words do not fit together")).
			WithHint("all words are on the list, but one is not yours, or two have changed places")
	}
	defer clear(entropy)
	p := new([entropySize]byte)
	copy(p[:], entropy)
	return Phrase{hide(p)}, nil
}

// Words returns the 24 words. They are strings, which Go cannot overwrite: show
// them and let go of them.
func (p Phrase) Words() []string {
	text, err := bip39.NewMnemonic(p.get()[:])
	if err != nil {
		panic(err) // 32 bytes are always a phrase
	}
	return strings.Fields(text)
}

// Wipe overwrites the phrase, in all its copies.
func (p Phrase) Wipe() { clear(p.get()[:]) }
