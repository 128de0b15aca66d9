package console

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"html/template"
	"io"
	"slices"
	"strings"
	"time"
)

//go:embed html
var files embed.FS

// style stands inside each document, so that a look costs one request; the
// policy allows it by its hash, and no other.
var style, styleHash = func() (template.CSS, string) {
	text, err := files.ReadFile("html/style.css")
	if err != nil {
		panic(err) // it is embedded
	}
	// In a document, the text begins right after the tag.
	sum := sha256.Sum256(text)
	return template.CSS(text), "sha256-" + base64.StdEncoding.EncodeToString(sum[:])
}()

var templates = template.Must(template.New("").Funcs(template.FuncMap{
	"style": func() template.CSS { return style },
}).ParseFS(files, "html/*.html"))

func render(w io.Writer, name string, view any) error {
	return templates.ExecuteTemplate(w, name, view)
}

// A stamp is a moment as a person reads it and as a program does.
type stamp struct{ Text, When, ISO string }

func newStamp(t, now time.Time) *stamp {
	if t.IsZero() {
		return nil
	}
	t = t.In(now.Location())
	text, when := moment(t, now)
	return &stamp{text, when, t.Format(time.RFC3339)}
}

// pageView is what page.html shows of a Page.
type pageView struct {
	Name    string
	Awake   bool
	Since   *stamp
	Now     *stamp
	Zone    string
	Woke    *wakeView
	Day     dayView
	Money   *moneyView
	Devices []deviceView
	Add     *formView
}

type wakeView struct {
	Reason, Slept, Took string
	At                  *stamp
}

type dayView struct {
	Bands []bandView
	Hours []hourView
	Naps  []napView
	Known bool
	Awake string // how long
	Share string
	Of    string // which time it is a share of, where less than the day is known
	Wakes int
}

type bandView struct {
	Class    string
	X, Width string // percent
	Title    string
}

type hourView struct {
	X     string // percent
	Label string // "" of an hour without one
	Class string
}

type napView struct {
	From, To      *stamp
	Slept, Reason string
}

type deviceView struct {
	Name, Addresses     string
	This, Here          bool
	Seen                *stamp
	Ago, Received, Sent string
	Added               *stamp
}

func newPageView(p Page) pageView {
	if p.Location == nil {
		p.Location = time.UTC
	}
	p.Now = p.Now.In(p.Location)
	zone, _ := p.Now.Zone()
	v := pageView{
		Name: clean(p.Name, maxName), Awake: p.Awake, Since: newStamp(p.Since, p.Now), Now: newStamp(p.Now, p.Now),
		Zone: zone, Day: newDayView(newDay(p), p.Now), Devices: newDeviceViews(p.Devices, p.Now),
	}
	if p.Woke != nil {
		v.Woke = newWakeView(*p.Woke, p.Now)
	}
	if p.Money != nil {
		v.Money = newMoneyView(*p.Money)
	}
	if p.Add != nil {
		f := newFormView(*p.Add)
		v.Add = &f
	}
	return v
}

// moneyView is what is shown of a Money.
type moneyView struct {
	Units, Paid, Ahead uint64
	Tickets            int
	Hour, Days         string
	Costs              []costView
	Ended              bool
	Trouble            string
}

type costView struct{ Name, Hour string }

func newMoneyView(m Money) *moneyView {
	v := &moneyView{
		Units: m.Units, Tickets: m.Tickets, Paid: m.Paid, Ahead: m.Ahead, Hour: decimal(m.Hour), Days: decimal(m.Days),
		Ended: m.Ended, Trouble: clean(m.Trouble, maxText),
	}
	for _, c := range m.Costs[:min(len(m.Costs), maxDevices)] {
		v.Costs = append(v.Costs, costView{named(clean(c.Name, maxName), "without a name"), decimal(c.Hour)})
	}
	return v
}

// decimal writes a number with one digit behind the point, as far as that says
// anything.
func decimal(f float64) string { return strings.TrimSuffix(fmt.Sprintf("%.1f", f), ".0") }

func newWakeView(w Wake, now time.Time) *wakeView {
	v := &wakeView{Reason: capital(named(clean(w.Reason, maxWhy), "something")), At: newStamp(w.Time, now)}
	if w.Slept > 0 {
		v.Slept = humane(w.Slept)
	}
	if w.Took > 0 {
		v.Took = humane(w.Took)
	}
	return v
}

func newDayView(d day, now time.Time) dayView {
	v := dayView{Known: len(d.Bands) > 0, Wakes: len(d.Naps)}
	for _, b := range d.Bands {
		v.Bands = append(v.Bands, newBandView(d, b, now))
	}
	for _, h := range d.hours() {
		v.Hours = append(v.Hours, newHourView(d, h))
	}
	for _, n := range d.Naps {
		v.Naps = append(v.Naps, napView{newStamp(n.From, now), newStamp(n.To, now), humane(n.To.Sub(n.From)), named(clean(n.Reason, maxWhy), "not known")})
	}
	awake, known := d.awake()
	if known > 0 {
		v.Awake, v.Share = humane(awake), percent(float64(awake)/float64(known))
	}
	if v.Known && known < dayLong {
		v.Of = humane(known)
	}
	return v
}

func newBandView(d day, b band, now time.Time) bandView {
	v := bandView{Class: "asleep", X: number(d.at(b.From)), Width: number(d.at(b.To) - d.at(b.From))}
	v.Title = "Asleep"
	if b.Awake {
		v.Class, v.Title = "awake", "Awake"
	}
	v.Title += " " + humane(b.To.Sub(b.From)) + ", from " + newStamp(b.From, now).Text
	if b.Reason != "" {
		v.Title += ": " + clean(b.Reason, maxWhy)
	}
	return v
}

// newHourView labels every third hour; a phone shows every sixth. One at the
// edge would be cut off.
func newHourView(d day, h time.Time) hourView {
	v := hourView{X: number(d.at(h)), Class: "hour"}
	if at := d.at(h); h.Hour()%3 != 0 || at < 2.5 || at > 97.5 {
		return v
	}
	v.Label = h.Format("15:04")
	if v.Class = "hour third"; h.Hour()%6 == 0 {
		v.Class = "hour sixth"
	}
	return v
}

func number(percent float64) string { return fmt.Sprintf("%.3f%%", percent) }

// here is how old a device's last handshake may be while it talks: WireGuard
// makes a new one after two minutes of a session that is used, and gives the old
// one up after three (section 6.1 of its paper).
const here = 3 * time.Minute

// newDeviceViews puts this device first, then who was here last.
func newDeviceViews(devices []Device, now time.Time) (views []deviceView) {
	devices = slices.Clone(devices)
	slices.SortStableFunc(devices, func(a, b Device) int {
		switch {
		case a.This != b.This && a.This:
			return -1
		case a.This != b.This:
			return 1
		}
		return b.Seen.Compare(a.Seen)
	})
	for _, d := range devices[:min(len(devices), maxDevices)] {
		views = append(views, newDeviceView(d, now))
	}
	return views
}

// An overlay has 249 devices at most.
const (
	maxDevices   = 256
	maxAddresses = 4
)

func newDeviceView(d Device, now time.Time) deviceView {
	v := deviceView{
		Name: named(clean(d.Name, maxName), "without a name"), This: d.This, Seen: newStamp(d.Seen, now), Added: newStamp(d.Added, now),
		Received: size(d.Received), Sent: size(d.Sent),
	}
	if v.Seen != nil {
		v.Here, v.Ago = now.Sub(d.Seen) < here, ago(d.Seen, now)
	}
	var addresses []string
	for _, a := range d.Addresses[:min(len(d.Addresses), maxAddresses)] {
		addresses = append(addresses, clean(a.WithZone("").String(), maxName))
	}
	v.Addresses = strings.Join(addresses, " ")
	return v
}

type formView struct {
	Action, Token, Name, Trouble string
	Full                         bool
}

func newFormView(f Form) formView {
	return formView{Action: local(f.Action, "/add"), Token: f.Token, Name: clean(f.Name, maxName), Full: f.Full, Trouble: clean(f.Trouble, maxText)}
}

// local returns path if it leads to the host that the page is from, whatever a
// browser makes of it.
func local(path, otherwise string) string {
	if !strings.HasPrefix(path, "/") || strings.HasPrefix(path, "//") || strings.ContainsAny(path, "\\\t\r\n") {
		return otherwise
	}
	return path
}

type addedView struct {
	Name, Trouble, Back, Text, File string
	QR, Config                      template.URL
}

func newAddedView(a Added) addedView {
	v := addedView{Name: clean(a.Name, maxName), Trouble: clean(a.Trouble, maxText), Back: local(a.Back, "/"), Text: string(a.Config)}
	v.File = fileName(a.Name)
	// Both stay in the document: nothing that holds a key is to be had twice.
	v.Config = template.URL("data:application/octet-stream;base64," + base64.StdEncoding.EncodeToString(a.Config))
	if len(a.QR) > 0 {
		v.QR = template.URL("data:image/png;base64," + base64.StdEncoding.EncodeToString(a.QR))
	}
	return v
}

// fileName is what the WireGuard apps take a tunnel's name from: they allow 15
// characters.
func fileName(name string) string {
	name = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' {
			return r
		}
		return -1
	}, name)
	return named(name[:min(len(name), 15)], "pal") + ".conf"
}
