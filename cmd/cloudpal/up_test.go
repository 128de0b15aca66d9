package main

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"
	"time"

	centerapi "github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/identity"
	"github.com/tradle/cloudpal/person"
)

func TestDeviceName(t *testing.T) {
	for host, want := range map[string]string{
		"Anna's MacBook.local": "anna-s-macbook", "nas": "nas", "": "laptop", "pal": "laptop", "core": "laptop",
		"localhost.localdomain": "laptop", "---": "laptop", "phone": "laptop", "日本": "laptop",
		strings.Repeat("a", 31) + "-b": strings.Repeat("a", 31), "x_y": "x-y",
	} {
		got := deviceName(host)
		if got != want || identity.CheckName(got) != nil {
			t.Errorf("%q: got %q, want %q", host, got, want)
		}
	}
}

func TestPhraseIsShownNumbered(t *testing.T) {
	var words []string
	for i := range 24 {
		words = append(words, "word"+strings.Repeat("x", i%5)+string(rune('a'+i)))
	}
	var b bytes.Buffer
	printPhrase(&b, words)
	got := b.String()
	for _, want := range []string{"   1 worda     ", "  24 wordxxxx", "   2 wordxb", "shown this once", "  19 wordxxxs"} {
		if !strings.Contains(got, strings.TrimRight(want, " ")) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	for line := range strings.SplitSeq(got, "\n") {
		if len(line) > 90 {
			t.Errorf("a line has %d columns", len(line))
		}
	}
}

func TestStepsAreToldWhenTheyAreDone(t *testing.T) {
	var b bytes.Buffer
	s := &steps{w: &b}
	s.tell(person.Step{Name: "unlocking"})
	if b.Len() != 0 {
		t.Errorf("no terminal is told of what is not done: %q", b.String())
	}
	s.tell(person.Step{Name: "unlocking", Done: true, Took: 1500 * time.Millisecond})
	if got, want := b.String(), "unlocking                1.5 s\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	b.Reset()
	live := &steps{w: &b, live: true}
	live.tell(person.Step{Name: "unlocking"})
	live.end()
	if got, want := b.String(), "\r\x1b[Kunlocking ...\n"; got != want {
		t.Errorf("a step that fails: got %q, want %q", got, want)
	}
}

func TestStatusInWords(t *testing.T) {
	ago := time.Now().Add(-5 * time.Minute)
	s := person.Status{
		Center:  person.CenterStatus{Address: centerapi.Address{Host: "203.0.113.5", Port: 7443}, Local: true},
		Pal:     &centerapi.Pal{State: centerapi.Napping, Depth: centerapi.DepthMemory, Since: ago, Wakes: 7, Boots: 2},
		Woke:    &centerapi.Event{Time: ago, Reason: "a packet from\x1b[31m 198.51.100.7"},
		Network: []netip.Prefix{netip.MustParsePrefix("10.7.8.0/24"), netip.MustParsePrefix("fd00::/64")},
		Devices: []person.Device{{Name: "laptop", This: true, Addresses: []netip.Addr{netip.MustParseAddr("10.7.8.2")}}, {Name: "phone"}},
		Agent:   &person.AgentStatus{Mode: person.Overlay, Endpoint: netip.MustParseAddrPort("203.0.113.5:51820"), Handshake: ago, Received: 2048},
		Money: &person.Money{
			Issuer: "mint.local", Units: 256, Tickets: 4, Left: 61, Ahead: 128, Stage: centerapi.Funded,
			Hour: 64.0 / 24, Costs: []person.Cost{{Name: "core", Hour: 64.0 / 24}}, Days: 6.95,
		},
		Problem: "it is so", Hint: "do this",
	}
	var b bytes.Buffer
	printStatus(&b, s)
	got := b.String()
	for _, want := range []string{
		"napping (memory) for 5 min; 7 wakes, 2 boots", "5 min ago: a packet from?[31m", "203.0.113.5:7443, on this machine, does not answer",
		"10.7.8.0/24, fd00::/64", "of this machine, to your devices; to 203.0.113.5:51820, last handshake 5 min ago, 2 KiB in",
		"laptop  10.7.8.2  (this one)", "trouble    it is so", "hint       do this",
		"money      256 units in 4 tickets of mint.local; paid at the center: 61, and 128 for later",
		"costs      2.67 units an hour now; core 2.67 awake", "lasts      7.0 days awake",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, got)
		}
	}
	b.Reset()
	printStatus(&b, person.Status{Money: &person.Money{Stage: centerapi.TabNapping, Deletes: time.Date(2027, 1, 2, 12, 0, 0, 0, time.Local)}})
	if got, want := b.String(), "nothing is paid at the center: the pal is napping, and is deleted on 2027-01-02"; !strings.Contains(got, want) {
		t.Errorf("without money there is no %q in\n%s", want, got)
	}
	b.Reset()
	printStatus(&b, person.Status{})
	if got := b.String(); !strings.Contains(got, "not known") || !strings.Contains(got, "no agent runs") {
		t.Errorf("of nothing: %s", got)
	}
}

func TestDaysAhead(t *testing.T) {
	for text, want := range map[string]string{"3d": "3d", "36h": "36h0m0s", "24h": "1d", "0d": "0d", "30d": "30d"} {
		var d days
		if err := d.Set(text); err != nil || d.String() != want {
			t.Errorf("%s: got %s, %v, want %s", text, d.String(), err, want)
		}
	}
	for _, text := range []string{"", "3", "31d", "-1d", "-1h", "3 d", "03d", "9999999999999999999d", "3d4h", "d"} {
		var d days
		if err := d.Set(text); err == nil {
			t.Errorf("%q: got %s, want an error", text, d.String())
		}
	}
}
