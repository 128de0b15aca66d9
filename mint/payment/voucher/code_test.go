package voucher

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/tradle/cloudpal"
)

func TestCodesAreReadAsPeopleTypeThem(t *testing.T) {
	t.Parallel()
	for range 200 {
		c := NewCode()
		printed := c.Print()
		if len(printed) != codeSize+6 || strings.ContainsAny(printed, "ILOU") {
			t.Fatalf("a code of %d characters, or with letters that no code has", len(printed))
		}
		for _, typed := range []string{
			printed, strings.ToLower(printed), strings.ReplaceAll(printed, "-", ""), strings.ReplaceAll(printed, "-", " "),
			"  " + strings.ReplaceAll(printed, "-", " – ") + "\n", strings.ReplaceAll(printed, "0", "o"),
			strings.ReplaceAll(printed, "1", "l"), strings.ReplaceAll(printed, "1", "I"), strings.ReplaceAll(printed, "-", "‐"),
		} {
			if got, err := Parse(typed); err != nil || got != c {
				t.Errorf("a code typed as %q is not read: %v", typed, err)
			}
		}
	}
	for what, c := range map[string]Code{"zeros": {}, "ones": Code([]byte(strings.Repeat("\xff", 16)))} {
		if got, err := Parse(c.Print()); err != nil || got != c {
			t.Errorf("a code of %s is not read: %v", what, err)
		}
	}
}

// All that people do wrong with one or two characters is noticed, and of one it is
// said in which group.
func TestTyposAreNoticed(t *testing.T) {
	t.Parallel()
	printed := []byte(strings.ReplaceAll(NewCode().Print(), "-", ""))
	typed := func(change func(b []byte)) error {
		b := append([]byte(nil), printed...)
		change(b)
		if string(b) == string(printed) {
			return cloudpal.Invalid
		}
		_, err := Parse(string(b))
		return err
	}
	for i := range printed {
		for _, c := range []byte(alphabet) {
			if c == printed[i] {
				continue
			}
			err := typed(func(b []byte) { b[i] = c })
			if want := fmt.Sprintf("group %d", i/groupSize+1); !errors.Is(err, cloudpal.Invalid) || !strings.Contains(cloudpal.HintOf(err), want) {
				t.Fatalf("character %d is another: got %v, want it to say %q", i, err, want)
			}
		}
		for j := range i {
			if err := typed(func(b []byte) { b[i], b[j] = b[j], b[i] }); !errors.Is(err, cloudpal.Invalid) {
				t.Fatalf("characters %d and %d in each other's place: %v", i, j, err)
			}
			for k := range 31 {
				err := typed(func(b []byte) {
					b[i] = alphabet[(strings.IndexByte(alphabet, b[i])+k+1)%32]
					b[j] = alphabet[(strings.IndexByte(alphabet, b[j])+7*k%31+1)%32]
				})
				if !errors.Is(err, cloudpal.Invalid) {
					t.Fatalf("characters %d and %d are others: %v", i, j, err)
				}
			}
		}
	}
}

func TestParseSaysWhatIsWrong(t *testing.T) {
	t.Parallel()
	printed := NewCode().Print()
	for what, c := range map[string]struct{ text, want string }{
		"nothing":       {"", "0 characters, not 28"},
		"a short one":   {printed[:len(printed)-1], "27 characters, not 28"},
		"a long one":    {printed + "0", "29 characters, not 28"},
		"a strange one": {printed[:7] + "U" + printed[8:], "group 2"},
		"a star":        {"*" + printed[1:], "group 1"},
		"very much":     {strings.Repeat(printed, 10), "too long"},
		"a third bit":   {unchecked(0b00100), "first group"},
	} {
		_, err := Parse(c.text)
		if !errors.Is(err, cloudpal.Invalid) || !strings.Contains(cloudpal.HintOf(err), c.want) {
			t.Errorf("%s: got %q, want it to say %q", what, cloudpal.HintOf(err), c.want)
		}
		if c.text != "" && strings.Contains(fmt.Sprint(err, cloudpal.HintOf(err)), printed[5:14]) {
			t.Errorf("%s: the error repeats the code", what)
		}
	}
}

// unchecked is what checks and has more than 128 bits.
func unchecked(first byte) string {
	var symbols [codeSize]byte
	symbols[0] = first << 1
	check(&symbols)
	var b strings.Builder
	for _, s := range symbols {
		b.WriteByte(alphabet[s])
	}
	return b.String()
}

func TestCodesAreHidden(t *testing.T) {
	t.Parallel()
	c := NewCode()
	for _, text := range []string{fmt.Sprint(c), fmt.Sprintf("%v %+v %#v %s", c, c, c, c)} {
		if strings.Contains(text, c.Print()[:4]) || strings.Contains(text, fmt.Sprint([16]byte(c))) {
			t.Errorf("a code is shown as %s", text)
		}
	}
}

// FuzzParse: what is taken for a code is one that is printed the same, but for how
// people write.
func FuzzParse(f *testing.F) {
	f.Add(NewCode().Print())
	f.Add("7KQ2-M0XR-9D4T-WB5N-ZH81-C3EV-J6PA")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := Parse(text)
		if err != nil {
			return
		}
		if again, err := Parse(c.Print()); err != nil || again != c {
			t.Errorf("%q is read as another (%v)", text, err)
		}
	})
}
