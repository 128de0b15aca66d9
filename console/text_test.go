package console

import (
	"strings"
	"testing"
	"time"
)

func TestHumane(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second:                "no time",
		0:                           "0 ms",
		340 * time.Millisecond:      "340 ms",
		59*time.Second + 999999999:  "59 s",
		time.Minute:                 "1 min",
		90 * time.Second:            "1 min 30 s",
		192 * time.Minute:           "3 h 12 min",
		3*time.Hour + 5*time.Second: "3 h",
		24 * time.Hour:              "1 d",
		75 * time.Hour:              "3 d 3 h",
		1<<63 - 1:                   "106751 d 23 h",
	} {
		if got := breakable(humane(d)); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
}

func TestAgo(t *testing.T) {
	now := time.Date(2026, 11, 24, 14, 5, 0, 0, time.UTC)
	for d, want := range map[time.Duration]string{
		-time.Hour:        "just now",
		59 * time.Second:  "just now",
		61 * time.Second:  "1 min ago",
		119 * time.Minute: "1 h ago",
		50 * time.Hour:    "2 d ago",
	} {
		if got := breakable(ago(now.Add(-d), now)); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
}

func TestMoment(t *testing.T) {
	now := time.Date(2026, 3, 1, 14, 5, 0, 0, time.UTC)
	for _, c := range []struct {
		t          time.Time
		text, when string
	}{
		{now, "14:05", "at 14:05"},
		{now.Add(time.Hour), "15:05", "at 15:05"},
		{now.Add(-14 * time.Hour), "00:05", "at 00:05"},
		{now.Add(-15 * time.Hour), "yesterday, 23:05", "yesterday at 23:05"},
		{now.AddDate(0, 0, -2), "27 February, 14:05", "on 27 February at 14:05"},
		{now.AddDate(0, 0, 2), "3 March, 14:05", "on 3 March at 14:05"},
		{now.AddDate(-1, 0, 0), "1 March 2025, 14:05", "on 1 March 2025 at 14:05"},
	} {
		if text, when := moment(c.t, now); text != c.text || when != c.when {
			t.Errorf("%v: got %q and %q, want %q and %q", c.t, text, when, c.text, c.when)
		}
	}
}

func TestSize(t *testing.T) {
	for n, want := range map[int64]string{
		-1: "0 B", 0: "0 B", 999: "999 B", 1000: "1.0 kB", 9_949: "9.9 kB", 9_951: "10 kB", 999_499: "999 kB",
		999_500: "1.0 MB", 48_201_934_113: "48 GB", 1<<63 - 1: "9.2 EB",
	} {
		if got := breakable(size(n)); got != want {
			t.Errorf("%d: got %q, want %q", n, got, want)
		}
	}
}

func TestPercent(t *testing.T) {
	for f, want := range map[float64]string{0: "0.0 %", 0.0003: "< 0.1 %", 0.028: "2.8 %", 0.0994: "9.9 %", 0.0996: "10 %", 1: "100 %"} {
		if got := breakable(percent(f)); got != want {
			t.Errorf("%v: got %q, want %q", f, got, want)
		}
	}
}

func TestCleanKeepsWhatIsSeen(t *testing.T) {
	for in, want := range map[string]string{
		"a packet from phone":      "a packet from phone",
		"  two\r\n\tlines ":        "two lines",
		"Müllers Händi 📱":          "Müllers Händi 📱",
		"\x1b[2Jnas\x00":           "[2Jnas",
		"nas\u202Efdp.\u2066x":     "nasfdp.x",
		"ph\u200bone\ufeff":        "phone",
		"bad\xff\xfebytes":         "bad\uFFFDbytes",
		strings.Repeat("é", 41):    strings.Repeat("é", 39) + "…",
		strings.Repeat("\x00", 90): "",
	} {
		if got := clean(in, 40); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestFileNameIsATunnels(t *testing.T) {
	for in, want := range map[string]string{
		"phone":                   "phone.conf",
		"../../etc/passwd":        "etcpasswd.conf",
		"":                        "pal.conf",
		"a-name-that-is-too-long": "a-name-that-is-.conf",
	} {
		if got := fileName(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestLocalLeadsNowhereElse(t *testing.T) {
	for in, want := range map[string]string{
		"/add": "/add", "/x/y?z": "/x/y?z",
		"": "/", "add": "/", "//evil.example": "/", "/\\evil.example": "/", "/\t/evil.example": "/", "https://evil.example/": "/", "javascript:alert(1)": "/",
	} {
		if got := local(in, "/"); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func FuzzClean(f *testing.F) {
	for _, seed := range []string{"", "a packet from 203.0.113.5:51820", "\x1b]0;x\x07\u202e", strings.Repeat("\xf0\x9f", 300)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := clean(s, 40)
		if n := len([]rune(got)); n > 40 {
			t.Errorf("got %d runes", n)
		}
		if strings.ContainsAny(got, "\x00\x1b\r\n\u202e\u2028") {
			t.Errorf("got %q", got)
		}
		if again := clean(got, 40); again != got {
			t.Errorf("got %q, and of that %q", got, again)
		}
	})
}

func breakable(s string) string { return strings.ReplaceAll(s, "\u00a0", " ") }
