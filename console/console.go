// Package console makes the pages on which a person sees their pal. They are
// made where they are asked for, and work without a script: what a browser gets
// is one document with its style inside and nothing to load besides.
//
// A page is a value, and drawing it changes nothing. Names and reasons in it may
// come from a device or a host that means ill: they are shown as text, without
// what cannot be seen, and cut where they are too long.
//
// Pages do not refresh themselves. One that did would send a packet now and then,
// and a pal that somebody left open in a tab would never sleep.
package console

import (
	"io"
	"net/netip"
	"time"
)

// A Page is the first one: how the pal is, why it last woke, its day, and its
// devices. Only Now is needed.
type Page struct {
	Name     string         // of the pal; "" is fine, for a person has one
	Now      time.Time      // when the page is made
	Location *time.Location // that times are shown in; nil is UTC

	Awake bool
	Since time.Time // of that; zero if it is not known
	Woke  *Wake     // the last time it did, nil if it is not known

	// Naps are those that ended, in any order, and of the last day at least
	// from From on. A zero From says that nothing is known of the time before
	// the first nap.
	Naps []Nap
	From time.Time

	Money *Money // nil where the pal is free of charge, or it is not known

	Devices []Device
	Add     *Form // only where a device can be added; nil tells where that is
}

// A Wake says how the pal woke.
type Wake struct {
	Time   time.Time
	Reason string        // a noun, as in "a packet from phone"
	Slept  time.Duration // before; 0 is not told
	Took   time.Duration // until it could answer; 0 is not told
}

// A Nap is a time asleep that ended.
type Nap struct {
	From, To time.Time
	Reason   string // why it ended, as Wake.Reason
}

// A Money says how a pal is paid for, in units.
type Money struct {
	Units   uint64 // in the wallet
	Tickets int    // that they are in
	Paid    uint64 // at the center, and not used
	Ahead   uint64 // likewise, for later
	Hour    float64
	Costs   []Cost  // of what is metered in it
	Days    float64 // that all of it is enough for, awake
	Ended   bool    // there is none left at the center
	Trouble string  // why it could not be paid, and what to do; "" is none
}

// A Cost is of a part of the pal, in units an hour while that is awake.
type Cost struct {
	Name string
	Hour float64
}

// A Device is one of the person's.
type Device struct {
	Name           string
	Addresses      []netip.Addr // on the overlay
	This           bool         // it is what the page is shown on
	Added          time.Time    // zero is not told
	Seen           time.Time    // its last handshake, zero if there was none
	Received, Sent int64        // bytes that the pal got from it, and sent to it
}

// Render writes the page as an HTML document.
func (p Page) Render(w io.Writer) error { return render(w, "page.html", newPageView(p)) }

// A Form asks for the name of a device to add. It is posted to Action as an
// application/x-www-form-urlencoded body with the fields FieldName, FieldToken
// where there is a token, and FieldFull.
type Form struct {
	Action  string // path on the same host, "/add" if it is none
	Token   string // against forms of others; "" where other means keep them out
	Name    string // what stands in the field
	Full    bool   // whether all the device's traffic is to go through the pal
	Trouble string // what was wrong the last time
}

// The form's fields.
const (
	FieldName  = "name"
	FieldToken = "token"
	FieldFull  = "full" // "1" or not there
)

// Render writes a page with nothing but the form.
func (f Form) Render(w io.Writer) error { return render(w, "form.html", newFormView(f)) }

// An Added shows a device's configuration, once: it holds the device's key.
type Added struct {
	Name    string
	QR      []byte // a PNG file; with none the file alone is offered
	Config  []byte // a WireGuard configuration
	Trouble string // what went wrong though it was made, or ""
	Back    string // path of the first page, "/" if it is none
}

// Render writes the page.
func (a Added) Render(w io.Writer) error { return render(w, "added.html", newAddedView(a)) }

// A Notice says one thing, where the first page cannot be shown.
type Notice struct {
	Title string // a sentence
	Text  string // what to do about it
}

// Render writes the page.
func (n Notice) Render(w io.Writer) error {
	return render(w, "notice.html", Notice{Title: clean(n.Title, maxText), Text: clean(n.Text, maxText)})
}
