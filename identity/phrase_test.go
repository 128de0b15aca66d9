package identity

import (
	"encoding/hex"
	"strings"
	"testing"

	"github.com/tradle/cloudpal"
)

// TestPhraseVectors are BIP 39's own, of 256 bits: github.com/trezor/python-mnemonic,
// vectors.json.
func TestPhraseVectors(t *testing.T) {
	for entropy, words := range map[string]string{
		strings.Repeat("00", 32): strings.Repeat("abandon ", 23) + "art",
		strings.Repeat("7f", 32): strings.Repeat("legal winner thank year wave sausage worth useful ", 2) + "legal winner thank year wave sausage worth title",
		strings.Repeat("80", 32): strings.Repeat("letter advice cage absurd amount doctor acoustic avoid ", 2) + "letter advice cage absurd amount doctor acoustic bless",
		strings.Repeat("ff", 32): strings.Repeat("zoo ", 23) + "vote",
		"f585c11aec520db57dd353c69554b21a89b20fb0650966fa0a9d6f74fd989d8f": "void come effort suffer camp survey warrior heavy shoot primary clutch crush open amazing screen patrol group space point ten exist slush involve unfold",
	} {
		p := must[Phrase](t)(ParsePhrase(words))
		if got := hex.EncodeToString(p.get()[:]); got != entropy {
			t.Errorf("%.20s...: got %s, want %s", words, got, entropy)
		}
		if got := strings.Join(p.Words(), " "); got != words {
			t.Errorf("%s: got %q, want %q", entropy, got, words)
		}
	}
}

func TestPhraseAsTyped(t *testing.T) {
	p := NewPhrase()
	words := p.Words()
	back := must[Phrase](t)(ParsePhrase("  " + strings.ToUpper(strings.Join(words[:12], "\t")) + "\n\n" + strings.Join(words[12:], "  ") + "\n"))
	if *back.get() != *p.get() || back.Root().ID() != p.Root().ID() {
		t.Error("a phrase as it may be typed is another phrase")
	}
}

func TestPhraseMistakes(t *testing.T) {
	zoo := strings.Repeat("zoo ", 23)
	for text, want := range map[string]string{
		"":                        "0 words",
		zoo + "zoo":               "fit together",
		zoo:                       "23 words",
		zoo + "vote zoo":          "25 words",
		"zoo zo zoo":              "word 2 ",
		zoo + "hunter2":           "word 24 ",
		strings.Repeat("a", 5000): "4 KiB",
	} {
		_, err := ParsePhrase(text)
		wantKind(t, want, err, cloudpal.Invalid)
		if err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("got error %q, want %q in it", err, want)
		}
		if err != nil && (strings.Contains(err.Error()+cloudpal.HintOf(err), "zoo") || strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("the error shows a word: %q", err)
		}
	}
}

func FuzzParsePhrase(f *testing.F) {
	f.Add(strings.Repeat("zoo ", 23) + "vote")
	f.Add("zoo\x00zoo \xff")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePhrase(text)
		if err != nil {
			return
		}
		if got, want := strings.Join(p.Words(), " "), strings.Join(strings.Fields(strings.ToLower(text)), " "); got != want {
			t.Errorf("%q was read as %q", want, got)
		}
	})
}
