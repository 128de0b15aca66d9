package console_test

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/html"

	"github.com/tradle/cloudpal/console"
)

// now is the moment at which the tests look.
var now = time.Date(2026, 11, 24, 14, 5, 0, 0, zone)

// zone is a whole hour and a half off, as some are.
var zone = time.FixedZone("ACDT", int((10*time.Hour + 30*time.Minute).Seconds()))

func at(hour, minute int) time.Time { return time.Date(2026, 11, 24, hour, minute, 0, 0, zone) }

// ordinary is the page of a person's pal on an ordinary day.
func ordinary() console.Page {
	p := console.Page{
		Now: now, Location: zone, From: now.AddDate(0, 0, -3),
		Awake: true, Since: at(14, 2),
		Woke: &console.Wake{Time: at(14, 2), Reason: "a packet from phone", Slept: 3*time.Hour + 12*time.Minute, Took: 340 * time.Millisecond},
		Devices: []console.Device{
			device("nas", 4, now.Add(-26*time.Hour), 1_204_331_044, 48_201_934_113),
			device("phone", 3, now.Add(-40*time.Second), 9_411_204, 88_120_411),
			device("laptop", 2, now.Add(-72*time.Second), 210_994_120, 1_900_442_871),
			device("tablet", 5, time.Time{}, 0, 0),
		},
	}
	p.Devices[2].This = true
	for _, n := range []struct {
		from, to time.Time
		reason   string
	}{
		{at(-10, 20), at(-5, 4), "a packet from laptop"},
		{at(-3, 40), at(-2, 55), "a packet from phone"},
		{at(-2, 58), at(-1, 12), "a packet from nas"},
		{at(-1, 31), at(3, 0), "a timer of its own"},
		{at(3, 4), at(7, 11), "a packet from phone"},
		{at(7, 13), at(7, 48), "a packet from phone"},
		{at(7, 52), at(8, 30), "a packet from laptop"},
		{at(9, 41), at(10, 3), "a packet from laptop"},
		{at(10, 50), at(14, 2), "a packet from phone"},
	} {
		p.Naps = append(p.Naps, console.Nap{From: n.from, To: n.to, Reason: n.reason})
	}
	return p
}

func device(name string, i byte, seen time.Time, received, sent int64) console.Device {
	v6 := netip.MustParseAddr("fd5c:91ab:7e20:4d11::").As16()
	v6[15] = i
	return console.Device{
		Name: name, Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 83, 17, i}), netip.AddrFrom16(v6)},
		Seen: seen, Received: received, Sent: sent, Added: now.AddDate(0, -2, 0),
	}
}

// asleep is the same pal, which nobody has asked for anything since.
func asleep() console.Page {
	p := ordinary()
	p.Awake, p.Since, p.Now = false, now, now.Add(41*time.Minute)
	return p
}

func TestPageSaysWhetherItIsAwake(t *testing.T) {
	for name, c := range map[string]struct {
		p                      console.Page
		title, state, why, day string
	}{
		"awake": {ordinary(), "Awake · your pal", "Awake since 14:02",
			"A packet from phone woke it at 14:02, after 3 h 12 min of sleep. It answered 340 ms later.", "22 % 5 h 24 min"},
		"asleep": {asleep(), "Asleep · your pal", "Asleep since 14:05",
			"A packet from phone last woke it at 14:02, after 3 h 12 min of sleep. It answered 340 ms later.", "21 % 5 h 9 min"},
		"nothing known": {console.Page{Now: now}, "Asleep · your pal", "Asleep", "Why it last woke is not known.", "not known yet"},
		"hardly anything": {console.Page{Now: now, Location: zone, Awake: true, Since: at(-3, 0), Woke: &console.Wake{}},
			"Awake · your pal", "Awake since yesterday, 21:00", "Something woke it.", "100 % 17 h 5 min of 17 h 5 min known"},
	} {
		doc := draw(t, c.p)
		for what, got := range map[string][2]string{
			"title": {doc.one(t, "head").one(t, "title").text(), c.title},
			"state": {doc.one(t, "h1").text(), c.state},
			"why":   {doc.one(t, "p", "why").text(), c.why},
			"day":   {doc.one(t, "section", "figures").all("dd")[0].text(), c.day},
		} {
			if got[0] != got[1] {
				t.Errorf("%s: %s: got %q, want %q", name, what, got[0], got[1])
			}
		}
	}
}

// TestPageSaysWhatItCosts: what there is, what it costs and how long it lasts; and what to
// do at its end. A pal that is free of charge says nothing of money.
func TestPageSaysWhatItCosts(t *testing.T) {
	if got := draw(t, ordinary()).all("section", "money"); len(got) != 0 {
		t.Error("of a pal that is free of charge it tells money")
	}
	p := ordinary()
	p.Money = &console.Money{
		Units: 256, Tickets: 4, Paid: 61, Ahead: 128, Hour: 64.0 / 24, Days: 6.95,
		Costs: []console.Cost{{Name: "core", Hour: 64.0 / 24}, {Name: "photos\x1b<b>", Hour: 1}},
	}
	money := draw(t, p).one(t, "section", "money")
	var got []string
	for _, d := range money.all("dd") {
		got = append(got, d.text())
	}
	want := []string{"256 units in 4 tickets", "61 units, and 128 for later", "2.7 units an hour now; core 2.7 awake; photos<b> 1 awake", "7 days awake"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	p.Money = &console.Money{Ended: true, Trouble: "the mint does not answer: bring it back: sudo cloudpal up"}
	money = draw(t, p).one(t, "section", "money")
	if got := money.one(t, "p", "trouble"); got.attr("role") != "alert" || got.text() != p.Money.Trouble {
		t.Errorf("of trouble it says %q", got.text())
	}
	if got := money.all("dd")[1].text(); got != "at its end" {
		t.Errorf("without money it says %q", got)
	}
}

// TestTimesAreThePersons: shown in their zone, and told to programs with it.
func TestTimesAreThePersons(t *testing.T) {
	p := ordinary()
	p.Now, p.Since = p.Now.UTC(), p.Since.UTC()
	since := draw(t, p).one(t, "span", "since").one(t, "time")
	if since.text() != "14:02" || since.attr("datetime") != "2026-11-24T14:02:00+10:30" {
		t.Errorf("got %q, %q", since.text(), since.attr("datetime"))
	}
	p.Location = nil
	if got := draw(t, p).one(t, "span", "since").text(); got != "since 03:32" {
		t.Errorf("without a zone: got %q", got)
	}
}

// TestPageIsReadAloud looks for what screen readers and keyboards go by.
func TestPageIsReadAloud(t *testing.T) {
	for name, v := range views() {
		doc := draw(t, v)
		if got := doc.one(t, "html").attr("lang"); got != "en" {
			t.Errorf("%s: lang %q", name, got)
		}
		doc.one(t, "main")
		doc.one(t, "header")
		doc.one(t, "h1")
		doc.one(t, "meta", "name=viewport")
		ids := map[string]bool{}
		for d := range doc.Descendants() {
			if id := (node{d}).attr("id"); id != "" && ids[id] {
				t.Errorf("%s: there are two %q", name, id)
			} else {
				ids[id] = true
			}
		}
		for d := range doc.Descendants() {
			n := node{d}
			for _, by := range []string{"aria-labelledby", "aria-describedby", "for"} {
				for id := range strings.FieldsSeq(n.attr(by)) {
					if !ids[id] {
						t.Errorf("%s: %s of %s is %q, which is not there", name, by, n.Data, id)
					}
				}
			}
			switch n.Data {
			case "section":
				if n.attr("aria-labelledby") == "" {
					t.Errorf("%s: a section without a name", name)
				}
			case "img":
				if n.attr("alt") == "" {
					t.Errorf("%s: a picture without words", name)
				}
			case "svg":
				if n.attr("aria-hidden") != "true" && (n.attr("role") != "img" || n.attr("aria-label") == "") {
					t.Errorf("%s: a drawing without words", name)
				}
			case "th":
				if n.attr("scope") == "" {
					t.Errorf("%s: a heading of nothing: %q", name, n.text())
				}
			}
		}
	}
}

// TestPagesRunAndLoadNothing: no scripts, no refreshing, nothing of elsewhere.
func TestPagesRunAndLoadNothing(t *testing.T) {
	for name, v := range views() {
		doc := draw(t, v)
		for d := range doc.Descendants() {
			n := node{d}
			if n.Data == "script" || n.Data == "iframe" || n.attr("http-equiv") != "" || n.attr("style") != "" {
				t.Errorf("%s: there is a %s %v", name, n.Data, n.Attr)
			}
			for _, a := range n.Attr {
				if strings.HasPrefix(a.Key, "on") {
					t.Errorf("%s: %s has %s", name, n.Data, a.Key)
				}
				if leads := slices.Contains([]string{"href", "src", "action"}, a.Key); leads && !strings.HasPrefix(a.Val, "data:") && !strings.HasPrefix(a.Val, "/") && !strings.HasPrefix(a.Val, "#") {
					t.Errorf("%s: %s leads to %q", name, n.Data, a.Val)
				}
			}
		}
	}
}

// TestTimeline: the bands cover the day, one after the other, and each says in
// words what it is.
func TestTimeline(t *testing.T) {
	svg := draw(t, ordinary()).one(t, "svg", "line")
	type rect struct {
		x, width float64
		class    string
	}
	var bands []rect
	for _, r := range slices.Concat(svg.all("rect", "awake"), svg.all("rect", "asleep")) {
		bands = append(bands, rect{percent(t, r.attr("x")), percent(t, r.attr("width")), r.attr("class")})
		if title := r.one(t, "title").text(); !strings.HasPrefix(strings.ToLower(title), r.attr("class")+" ") {
			t.Errorf("a band that is %s says %q", r.attr("class"), title)
		}
	}
	slices.SortFunc(bands, func(a, b rect) int { return cmp.Compare(a.x, b.x) })
	end := 0.0
	for i, b := range bands {
		if math.Abs(b.x-end) > 0.01 {
			t.Errorf("band %d begins at %v %%, the one before ends at %v %%", i, b.x, end)
		}
		if i > 0 && b.class == bands[i-1].class {
			t.Errorf("bands %d and %d are both %s", i-1, i, b.class)
		}
		end = b.x + b.width
	}
	if len(bands) != 19 || math.Abs(end-100) > 0.01 {
		t.Errorf("got %d bands up to %v %%, want 19 up to 100 %%", len(bands), end)
	}
	if got := svg.attr("aria-label"); !strings.Contains(got, "Awake 5\u00a0h\u00a024\u00a0min, 22\u00a0%; woken 9 times.") {
		t.Errorf("the line says of itself %q", got)
	}
	var labels []string
	for _, l := range svg.all("text") {
		labels = append(labels, l.text())
	}
	if got, want := strings.Join(labels, " "), "15:00 18:00 21:00 00:00 03:00 06:00 09:00 12:00"; got != want {
		t.Errorf("got the hours %s, want %s", got, want)
	}
}

func percent(t *testing.T, s string) float64 {
	t.Helper()
	f, err := strconv.ParseFloat(strings.TrimSuffix(s, "%"), 64)
	if err != nil || !strings.HasSuffix(s, "%") {
		t.Fatalf("%q is no percentage", s)
	}
	return f
}

func TestNapsInWords(t *testing.T) {
	rows := draw(t, ordinary()).one(t, "table", "naps").rows()
	if len(rows) != 9 {
		t.Fatalf("got %d naps", len(rows))
	}
	for i, want := range map[int]string{
		0: "10:50|3 h 12 min|14:02|a packet from phone",
		5: "yesterday, 23:31|3 h 29 min|03:00|a timer of its own",
		8: "yesterday, 14:20|4 h 44 min|yesterday, 19:04|a packet from laptop",
	} {
		if got := strings.Join(rows[i], "|"); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestDevices(t *testing.T) {
	section := draw(t, ordinary()).one(t, "section", "devices")
	if got := section.all("th", "scope=row")[0].attr("title"); got != "Added 24 September, 14:05" {
		t.Errorf("of the first is told %q", got)
	}
	var got []string
	for _, row := range section.rows() {
		got = append(got, strings.Join(row, "|"))
	}
	want := []string{
		"laptop this one|10.83.17.2 fd5c:91ab:7e20:4d11::2|here now|1.9 GB|211 MB",
		"phone|10.83.17.3 fd5c:91ab:7e20:4d11::3|here now|88 MB|9.4 MB",
		"nas|10.83.17.4 fd5c:91ab:7e20:4d11::4|1 d ago|48 GB|1.2 GB",
		"tablet|10.83.17.5 fd5c:91ab:7e20:4d11::5|not yet|0 B|0 B",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// hostile is a text that means ill wherever it lands.
const hostile = `"'></title></style><script>alert(1)</script><img src=x onerror=alert(1)>{{.}}` + "\u202e\x00\x1b[31m"

// flooded is a page with ill meant text in all its fields, and too much of all.
func flooded() console.Page {
	p := console.Page{
		Name: hostile, Now: now, Location: zone, Awake: true, Since: at(14, 2),
		Woke: &console.Wake{Time: at(14, 2), Reason: strings.Repeat(hostile, 1000), Slept: 1<<63 - 1, Took: 1<<63 - 1},
		Add:  &console.Form{Action: "javascript:alert(1)", Name: hostile, Token: "t0ken", Trouble: strings.Repeat("w", 5000)},
	}
	for i := range 5000 {
		from := now.Add(-time.Duration(5000-i) * time.Minute)
		p.Naps = append(p.Naps, console.Nap{From: from, To: from.Add(30 * time.Second), Reason: hostile})
		d := device(strings.Repeat("w", i)+hostile, byte(i), now, 1<<63-1, -1<<63)
		d.Addresses = slices.Repeat([]netip.Addr{netip.MustParseAddr("fe80::1%" + strings.Repeat("z", 300))}, 100)
		p.Devices = append(p.Devices, d)
	}
	return p
}

// views are all pages that there are.
func views() map[string]interface{ Render(io.Writer) error } {
	add := ordinary()
	add.Add = &console.Form{Action: "/add", Token: "t0ken"}
	return map[string]interface{ Render(io.Writer) error }{
		"awake":         ordinary(),
		"asleep":        asleep(),
		"nothing known": console.Page{Now: now},
		"flooded":       flooded(),
		"with a form":   add,
		"form":          console.Form{Name: "Phone", Trouble: "that is no name"},
		"added":         added(),
		"notice":        console.Notice{Title: hostile, Text: strings.Repeat(hostile, 100)},
	}
}

// TestHostileTextStaysText: it is shown, cut, and nothing else.
func TestHostileTextStaysText(t *testing.T) {
	var b bytes.Buffer
	if err := flooded().Render(&b); err != nil {
		t.Fatal(err)
	}
	if b.Len() > 1<<20 {
		t.Errorf("the page has %d bytes", b.Len())
	}
	if strings.ContainsAny(b.String(), "\x00\x1b\u202e") {
		t.Error("the page holds what is not seen")
	}
	doc := parse(t, b.String())
	if n := len(doc.all("img")) + len(doc.all("script")); n > 0 {
		t.Errorf("the page has %d elements of a stranger's", n)
	}
	if got := doc.one(t, "p", "why").text(); !strings.HasPrefix(got, `"'></title></style><script>alert(1)</script><img src=x onerror`) || len(got) > 250 {
		t.Errorf("got %q", got)
	}
	devices := doc.one(t, "section", "devices").rows()
	if len(devices) != 256 {
		t.Errorf("got %d devices", len(devices))
	}
	if got, want := devices[200][0], strings.Repeat("w", 39)+"…"; got != want {
		t.Errorf("got the name %q, want %q", got, want)
	}
	if got := devices[0][1]; got != "fe80::1 fe80::1 fe80::1 fe80::1" {
		t.Errorf("got the addresses %q", got)
	}
	if got := doc.one(t, "form").attr("action"); got != "/add" {
		t.Errorf("the form goes to %q", got)
	}
}

func FuzzPage(f *testing.F) {
	f.Add("phone", "a packet from phone")
	f.Add(hostile, "</p><p>")
	want := shape(draw(f, ordinary()))
	f.Fuzz(func(t *testing.T, name, reason string) {
		p := ordinary()
		p.Devices[0].Name, p.Naps[0].Reason, p.Woke.Reason = name, reason, reason
		if got := shape(draw(t, p)); got != want {
			t.Errorf("text changed the page to %s", got)
		}
	})
}

// shape is the tree of a page's elements, without its text.
func shape(doc node) string {
	var b strings.Builder
	for d := range doc.Descendants() {
		if d.Type == html.ElementNode {
			fmt.Fprintf(&b, "%s/%d ", d.Data, len(d.Attr))
		}
	}
	return b.String()
}
