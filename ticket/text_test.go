package ticket

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/tradle/cloudpal"
)

// named is what stands in the JSON of wallets and tills.
type named struct {
	Offer  Digest
	Sent   []Serial
	Key    KeyID
	Center CenterID
}

func TestText(t *testing.T) {
	t.Parallel()
	want := named{Digest{1, 2, 3}, []Serial{{0xff}, {}}, KeyID{4}, CenterID{31: 5}}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	const golden = `{"Offer":"AQIDAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","Sent":["/wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="],"Key":"BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","Center":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAU="}`
	if string(text) != golden {
		t.Errorf("got %s, want %s", text, golden)
	}
	// As it was written before it had a text.
	numbers := func(b ...string) string {
		return "[" + strings.Join(append(b, strings.Split(strings.Repeat("0 ", 31), " ")[:32-len(b)]...), ",") + "]"
	}
	before := `{"Offer":` + numbers("1", "2", "3") + `,"Sent":[` + numbers("255") + `,` + numbers("0") + `],"Key":` + numbers("4") +
		`,"Center":[` + strings.Repeat("0,", 31) + `5]}`
	for _, stored := range []string{golden, before} {
		var got named
		if err := json.Unmarshal([]byte(stored), &got); err != nil {
			t.Errorf("%s: %v", stored, err)
			continue
		}
		if again, err := json.Marshal(got); err != nil || string(again) != golden {
			t.Errorf("%s was read as %s (%v)", stored, again, err)
		}
	}
}

func TestBadText(t *testing.T) {
	t.Parallel()
	good := "AQIDAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	for _, bad := range []string{"", "AQID", good[:43], good + "AAAA", strings.Replace(good, "AAA=", "AAB=", 1), good[:20] + "\n" + good[20:], strings.Repeat("!", 44)} {
		d := Digest{9}
		if err := d.UnmarshalText([]byte(bad)); !errors.Is(err, cloudpal.Invalid) || d != (Digest{9}) {
			t.Errorf("%q was read as %x (%v)", bad, d, err)
		}
	}
	for _, bad := range []string{`[256]`, `["a"]`, `7`, `{}`, `"AQID"`} {
		var s Serial
		if err := json.Unmarshal([]byte(bad), &s); err == nil {
			t.Errorf("%s was read as %x", bad, s)
		}
	}
}

func FuzzText(f *testing.F) {
	f.Add([]byte(`"AQIDAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="`))
	f.Add([]byte(`[1,2,3]`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var d, again Digest
		if json.Unmarshal(b, &d) != nil {
			return
		}
		text, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, &again); err != nil || again != d {
			t.Errorf("%x was written as %s and read as %x (%v)", d, text, again, err)
		}
	})
}
