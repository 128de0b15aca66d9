package main

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/tradle/cloudpal/compute/api"
)

func TestParsePort(t *testing.T) {
	for text, want := range map[string]string{
		"80":              "127.0.0.1:0->80",
		"0:80":            "127.0.0.1:0->80",
		":80":             "127.0.0.1:0->80",
		"8080:80":         "127.0.0.1:8080->80",
		"8080:80/tcp":     "127.0.0.1:8080->80",
		"5353:53/udp":     "127.0.0.1:5353->53/udp",
		"0.0.0.0:8080:80": "0.0.0.0:8080->80",
		"0.0.0.0::80":     "0.0.0.0:0->80",
		"[::]:8080:80":    "[::]:8080->80",
		"[::1]::80/udp":   "[::1]:0->80/udp",
		"65535:65535":     "127.0.0.1:65535->65535",
	} {
		p, err := parsePort(text)
		if got := formatPort(p); err != nil || got != want {
			t.Errorf("%s: got %s, %v, want %s", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "0", "80:0", "65536", "8080:65536", "-1", "+80", "8 0", "http", "80/", "80/sctp", "80/TCP", "a:80", "1:2:3",
		"::1:80:80", "[127.0.0.1]:80:80", "[::1:80:80", "[fe80::1%eth0]:80:80", "127.0.0.1:80:80:80", "80/tcp/udp",
	} {
		if p, err := parsePort(text); err == nil {
			t.Errorf("%q: got %s, want an error", text, formatPort(p))
		}
	}
}

func TestPortURL(t *testing.T) {
	for text, want := range map[string]string{
		"8080:80":         "http://127.0.0.1:8080",
		"0.0.0.0:8080:80": "http://127.0.0.1:8080",
		"[::]:8080:80":    "http://127.0.0.1:8080",
		"[::1]:8080:80":   "http://[::1]:8080",
		"5353:53/udp":     "udp 127.0.0.1:5353",
	} {
		p, err := parsePort(text)
		if got := portURL(p); err != nil || got != want {
			t.Errorf("%s: got %s, %v, want %s", text, got, err, want)
		}
	}
}

// What is taken means one thing only: written out, it is taken as the same.
func FuzzParsePort(f *testing.F) {
	for _, s := range []string{"80", "8080:80", "0.0.0.0:1:2/udp", "[::1]:1:2/tcp", "[::ffff:1.2.3.4]:1:2", "::", "/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		p, err := parsePort(text)
		if err != nil {
			return
		}
		if p.Guest == 0 || p.Proto != "tcp" && p.Proto != "udp" || !p.Host.IsValid() || p.Host.Addr().Zone() != "" {
			t.Fatalf("%q: got %+v", text, p)
		}
		again, err := parsePort(fmt.Sprintf("%s:%d/%s", p.Host, p.Guest, p.Proto))
		if err != nil || again != p {
			t.Fatalf("%q: got %+v, then %+v, %v", text, p, again, err)
		}
	})
}

func TestParseMount(t *testing.T) {
	for text, want := range map[string]api.Mount{
		"data:/var/lib":    {Volume: "data", Path: "/var/lib"},
		"data:/var/lib:rw": {Volume: "data", Path: "/var/lib"},
		"data:/var/lib:ro": {Volume: "data", Path: "/var/lib", ReadOnly: true},
		"data:/dev/x:raw":  {Volume: "data", Path: "/dev/x", Raw: true},
	} {
		if got, err := parseMount(text); err != nil || got != want {
			t.Errorf("%s: got %+v, %v, want %+v", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"/etc:/etc":     "not directories of the host",
		"./x:/etc":      "not directories of the host",
		"":              "NAME:/path",
		"data":          "NAME:/path",
		":/data":        "NAME:/path",
		"data:":         "NAME:/path",
		"data:x":        "NAME:/path",
		"data:/x:":      "NAME:/path",
		"data:/x:rx":    "NAME:/path",
		"data:/x:ro:rw": "NAME:/path",
	} {
		if m, err := parseMount(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %+v, %v, want an error with %q", text, m, err, want)
		}
	}
}

func FuzzParseMount(f *testing.F) {
	for _, s := range []string{"data:/x", "data:/x:ro", "a:/b:rw:", ":", "::", "/a:/b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := parseMount(text)
		if err != nil {
			return
		}
		again := m.Volume + ":" + m.Path
		if m.ReadOnly {
			again += ":ro"
		}
		if m.Volume == "" || strings.ContainsAny(m.Volume, "/:") || m.Path[0] != '/' || strings.TrimSuffix(text, ":rw") != again {
			t.Fatalf("%q: got %+v", text, m)
		}
	})
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1": 1, "4096": 4096, "4096b": 4096,
		"1k": 1 << 10, "1K": 1 << 10, "1KB": 1 << 10, "1KiB": 1 << 10, "1 kib": 1 << 10,
		"256M": 256 << 20, "8G": 8 << 30, "1.5G": 3 << 29, "0.5k": 512, "2T": 2 << 40,
		"8388607T": 8388607 << 40,
	} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%s: got %d, %v, want %d", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", " ", "M", "x", "-1", "+1", "1e9", "0x10", "inf", "NaN", "1..5", "1.5.1", ".", "1P", "1MM", "1iB", "M1", "1 M 1",
		"8388608T", "99999999999999999999", "1_000", "١",
	} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%q: got %d, want an error", text, got)
		}
	}
}

func TestFormatSize(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.5 KiB", 128 << 20: "128 MiB",
		1<<20 - 1: "1 MiB", 1<<30 - 1: "1 GiB", 3 << 29: "1.5 GiB", math.MaxInt64: "8 EiB",
	} {
		if got := formatSize(n); got != want {
			t.Errorf("%d: got %s, want %s", n, got, want)
		}
	}
}

// A size is never below zero, and what formatSize makes of it is close.
func FuzzParseSize(f *testing.F) {
	for _, s := range []string{"0", "1.5G", "256M", "1 kib", "9223372036854775807", "8388607.9T", ".5k"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n, err := parseSize(text)
		if err != nil {
			return
		}
		if n < 0 {
			t.Fatalf("%q: got %d", text, n)
		}
		if n >= 1<<50 {
			return // formatSize knows units that parseSize does not
		}
		again, err := parseSize(formatSize(n))
		if err != nil || math.Abs(float64(again-n)) > float64(n)/19 {
			t.Fatalf("%q: got %d, written %s, which is %d, %v", text, n, formatSize(n), again, err)
		}
	})
}

// surroundings is an environment with one variable.
func surroundings(name string) (string, bool) {
	if name == "HOME" {
		return "/root", true
	}
	return "", false
}

func TestReadEnv(t *testing.T) {
	for text, want := range map[string][]string{
		"":                           nil,
		"A=1":                        {"A=1"},
		"A=1\nB=2\n":                 {"A=1", "B=2"},
		"A=1\r\nB=2\r\n":             {"A=1", "B=2"},
		"# no\n\n  \t\n  # nor\nA=1": {"A=1"},
		"A=":                         {"A="},
		"A=b=c # d":                  {"A=b=c # d"},
		`A="x"`:                      {`A="x"`},
		"  A=1 ":                     {"A=1 "},
		"HOME\nUNSET":                {"HOME=/root"},
	} {
		got, err := readEnv(strings.NewReader(text), surroundings)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: got %q, %v, want %q", text, got, err, want)
		}
	}
	for text, want := range map[string]string{
		"=1":                                   "line 1",
		"A=1\nB C=2":                           "line 2",
		"A=\x00":                               "line 1",
		"export A=1":                           "line 1",
		"A=" + strings.Repeat("x", maxEnvLine): "too long",
		strings.Repeat("A=1\n", maxEnvFile/4) + "A": "above",
	} {
		if got, err := readEnv(strings.NewReader(text), surroundings); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: got %.20q, %v, want an error with %q", text, got, err, want)
		}
	}
}

func FuzzReadEnv(f *testing.F) {
	for _, s := range []string{"A=1\nB=2", "# x\nHOME", "=\n", "A\x00=", "A = 1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		env, err := readEnv(strings.NewReader(text), surroundings)
		if err != nil {
			return
		}
		for _, e := range env {
			name, _, ok := strings.Cut(e, "=")
			if !ok || name == "" || strings.ContainsAny(name, " \t\n") || strings.ContainsAny(e, "\x00\n") {
				t.Fatalf("%q: got %q", text, e)
			}
		}
		again, err := readEnv(strings.NewReader(strings.Join(env, "\n")), surroundings)
		if err != nil || !slices.Equal(again, env) {
			t.Fatalf("%q: got %q, then %q, %v", text, env, again, err)
		}
	})
}

func TestLoopbackIsThisMachineOnly(t *testing.T) {
	if p, err := parsePort("80"); err != nil || p.Host.Addr() != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("a port without an address is open on %v, %v", p.Host, err)
	}
}
