package main

import (
	"context"
	"strings"
	"testing"
)

// What no center can be told is refused with an example of what can.
func TestWrongCenters(t *testing.T) {
	for line, want := range map[string]string{
		"center nonsense":                           `no command "nonsense"`,
		"center --listen 7443":                      ":7443",
		"center --listen center.example:7443":       ":7443",
		"center --listen :70000":                    ":7443",
		"center --listen=":                          "answers somewhere",
		"center --advertise center.example":         "203.0.113.5",
		"center --advertise 0.0.0.0":                "203.0.113.5",
		"center --advertise fe80::1%eth0":           "203.0.113.5",
		"center --advertise 203.0.113.5:7443":       "203.0.113.5",
		"center --udp-ports 9-1":                    "51820-52819",
		"center --udp-ports 51820-51829":            "--max-pals is 100",
		"center --max-pals 0":                       "at least 1",
		"center --max-owned -1":                     "at least 1",
		"center --idle 10ms":                        "--idle",
		"center --seal -1h":                         "--seal",
		"center --tickets mint.json":                "--tariff",
		"center --tariff tariff.json":               "--tickets",
		"center --pal-memory much":                  "256M",
		"center --prefix6 2001:db8::1/64":           "2001:db8:1:2::/64",
		"center --prefix6 2001:db8::/128":           "2001:db8:1:2::/64",
		"center --prefix6 10.0.0.0/8":               "2001:db8:1:2::/64",
		"center --prefix6 nonsense":                 "--prefix6",
		"center --armed -1":                         "--armed",
		"host --prefix6 2001:db8::/120":             "2001:db8:1:2::/64",
		"center status extra":                       "extra",
		"center --listen :7443 --advertise nowhere": "203.0.113.5",
	} {
		w, out, errs := newWorld("")
		got := run(context.Background(), w, strings.Fields(line))
		if got != 2 || out.Len() > 0 || !strings.Contains(errs.String(), want) || !strings.Contains(errs.String(), "\nhint: cloudpal") {
			t.Errorf("%s: got status %d, output %q and %q, want 2 and a sentence with %q", line, got, out, errs, want)
		}
	}
}
