package api

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/tradle/cloudpal"
)

const someKey = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"

func TestParseAddress(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"https://203.0.113.5:7443#" + someKey:        "203.0.113.5:7443",
		"https://203.0.113.5#" + someKey:             "203.0.113.5:7443",
		"https://203.0.113.5/#" + someKey:            "203.0.113.5:7443",
		"https://[2001:db8::5]:99#" + someKey:        "[2001:db8::5]:99",
		"https://[2001:DB8:0::5]#" + someKey:         "[2001:db8::5]:7443",
		"https://Center.Example.com:1#" + someKey:    "center.example.com:1",
		"https://localhost#" + someKey:               "localhost:7443",
		"https://[::ffff:203.0.113.5]:99#" + someKey: "[::ffff:203.0.113.5]:99",
	} {
		a, err := ParseAddress(text)
		if err != nil || a.HostPort() != want || a.String() != "https://"+want+"#"+someKey {
			t.Errorf("%s is %v (%v), want %s", text, a, err, want)
		}
	}
	for what, text := range map[string]string{
		"nothing":            "",
		"another scheme":     "http://203.0.113.5#" + someKey,
		"no key":             "https://203.0.113.5:7443",
		"a short key":        "https://203.0.113.5#" + someKey[1:],
		"a long key":         "https://203.0.113.5#" + someKey + "A",
		"a padded key":       "https://203.0.113.5#" + someKey + "=",
		"loose bits":         "https://203.0.113.5#" + someKey[:42] + "9",
		"a key with a break": "https://203.0.113.5#" + someKey[:20] + "\n" + someKey[20:42],
		"no host":            "https://:7443#" + someKey,
		"port 0":             "https://203.0.113.5:0#" + someKey,
		"a large port":       "https://203.0.113.5:65536#" + someKey,
		"a signed port":      "https://203.0.113.5:+1#" + someKey,
		"no port":            "https://203.0.113.5:#" + someKey,
		"a user":             "https://ann@203.0.113.5#" + someKey,
		"a path":             "https://203.0.113.5/v1#" + someKey,
		"a question":         "https://203.0.113.5?x#" + someKey,
		"an escape":          "https://203.0.113%2e5#" + someKey,
		"a zone":             "https://[fe80::1%25eth0]#" + someKey,
		"IPv6 without []":    "https://2001:db8::5#" + someKey,
		"IPv4 in []":         "https://[203.0.113.5]#" + someKey,
		"a name in []":       "https://[center]#" + someKey,
		"octal numbers":      "https://0203.0.0113.5#" + someKey,
		"an underscore":      "https://a_b#" + someKey,
		"a dash at the end":  "https://a-#" + someKey,
		"a space":            "https://a b#" + someKey,
		"a long name":        "https://" + strings.Repeat("a.", 127) + "#" + someKey,
		"two keys":           "https://a#" + someKey + "#" + someKey,
		"a byte in front":    " https://a#" + someKey,
	} {
		a, err := ParseAddress(text)
		if !errors.Is(err, cloudpal.Invalid) || cloudpal.HintOf(err) == "" || strings.Contains(err.Error(), someKey[:20]) {
			t.Errorf("%s: %v (%v), want %v, and how it is written", what, a, err, cloudpal.Invalid)
		}
	}
}

func TestAddressInJSON(t *testing.T) {
	t.Parallel()
	a, err := ParseAddress("https://203.0.113.5#" + someKey)
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(map[string]any{"at": a, "key": a.Key})
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		At  Address
		Key Fingerprint
	}
	if err := json.Unmarshal(data, &got); err != nil || got.At != a || !got.Key.Equal(a.Key) {
		t.Errorf("%s is read as %+v (%v)", data, got, err)
	}
	if err := json.Unmarshal([]byte(`{"At":"https://x"}`), &got); err == nil {
		t.Error("an address without key is taken")
	}
}

func TestParseID(t *testing.T) {
	t.Parallel()
	seen := map[ID]bool{}
	for range 100 {
		id := NewID()
		if got, err := ParseID(string(id)); err != nil || got != id || seen[id] {
			t.Fatalf("id %q is read as %q (%v)", id, got, err)
		}
		seen[id] = true
	}
	good := strings.Repeat("a", 24)
	for _, s := range []string{"", good[1:], good + "a", strings.ToUpper(good), good[:23] + "1", good[:22] + "\r\n", good[:23] + "/", good[:23] + "é"} {
		if _, err := ParseID(s); !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("%q is taken for an id", s)
		}
	}
}

// A certificate says nothing but the key: not who, not when.
func TestCertificateNamesNobody(t *testing.T) {
	t.Parallel()
	key := ed25519.NewKeyFromSeed(make([]byte, 32))
	one, err := Certificate(key)
	if err != nil {
		t.Fatal(err)
	}
	two, err := Certificate(key)
	if err != nil {
		t.Fatal(err)
	}
	if string(one.Certificate[0]) != string(two.Certificate[0]) {
		t.Error("two certificates of one key differ")
	}
	if c := one.Leaf; len(c.Subject.Names) != 0 || len(c.DNSNames) != 0 || c.NotBefore.Unix() != 0 {
		t.Errorf("it says %q %q from %v", c.Subject, c.DNSNames, c.NotBefore)
	}
}

func TestProblemsSayTheKindAlone(t *testing.T) {
	t.Parallel()
	for kind := range statuses {
		err := cloudpal.E("open /etc/secret", kind, errors.New("of ann's")).WithHint("ask root")
		p := ProblemOf(err)
		if p.Title != string(kind) || p.Hint != "" {
			t.Errorf("%v is told as %+v", err, p)
		}
		if back := p.Err(); !errors.Is(back, kind) || strings.Contains(back.Error(), "secret") {
			t.Errorf("%+v is read as %v", p, back)
		}
	}
	if p := ProblemOf(errors.New("x")); p.Status != 500 || p.Title != string(cloudpal.Other) {
		t.Errorf("an error without kind is %+v", p)
	}
	if err := (Problem{Title: "made up", Hint: "do this"}).Err(); !errors.Is(err, cloudpal.Other) || cloudpal.HintOf(err) != "do this" {
		t.Errorf("a made-up kind is %v", err)
	}
}

// FuzzParseAddress: what is taken is read again as the same, and leads to one
// host alone.
func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{
		"https://203.0.113.5:7443#" + someKey, "https://[2001:db8::5]#" + someKey, "https://a.example#" + someKey,
		"https://a@b#" + someKey, "https://[::1%25x]#" + someKey, "https://1.2.3.4:5:6#" + someKey, "https://[a]:1]#" + someKey,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddress(s)
		if err != nil {
			return
		}
		again, err := ParseAddress(a.String())
		if err != nil || again != a {
			t.Errorf("%q is %v, and that is %v (%v)", s, a, again, err)
		}
		if u := a.URL(); u.Hostname() != a.Host || u.User != nil || u.Path != "" || a.Port == 0 {
			t.Errorf("%q leads to %v", s, u)
		}
	})
}

func FuzzParseID(f *testing.F) {
	f.Add(string(NewID()))
	f.Add("../../etc/passwd")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := ParseID(s)
		if err == nil && (string(id) != s || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz234567") != "" || len(s) != 24) {
			t.Errorf("%q is taken for an id", s)
		}
	})
}
