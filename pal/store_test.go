package pal

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/identity"
	"github.com/tradle/cloudpal/pal/api"
	"github.com/tradle/cloudpal/pal/hub"
)

var begin = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// newList is a list with a laptop.
func newList(t *testing.T) (identity.Root, *identity.List) {
	t.Helper()
	root := identity.NewPhrase().Root()
	l, err := identity.NewList(root, netip.MustParsePrefix("10.7.8.0/24"), netip.MustParsePrefix("fd00:7:8::/64"), begin)
	if err != nil {
		t.Fatal(err)
	}
	return root, add(t, root, l, "laptop")
}

func add(t *testing.T, root identity.Root, l *identity.List, name string) *identity.List {
	t.Helper()
	l, err := l.Add(root, identity.NewDeviceKey().Device(name, true), begin)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestTheStoreKeepsTheList(t *testing.T) {
	s := store{t.TempDir()}
	root, list := newList(t)
	must(t, s.begin(list))
	longer := add(t, root, list, "phone")
	must(t, s.setList(longer))
	got, err := s.list()
	if err != nil || got.Head() != longer.Head() || got.Root() != root.ID() {
		t.Errorf("got %v, %v", got, err)
	}
}

// A list that is lost is not taken from whoever brings one: it may be the
// device that was revoked.
func TestALostListIsDamage(t *testing.T) {
	_, list := newList(t)
	_, others := newList(t)
	for name, damage := range map[string]func(s store) error{
		"lost":          func(s store) error { return os.Remove(filepath.Join(s.dir, listFile)) },
		"no owner":      func(s store) error { return os.Remove(filepath.Join(s.dir, ownerFile)) },
		"another's":     func(s store) error { return s.setList(others) },
		"another owner": func(s store) error { return s.write(ownerFile, []byte(others.Root().String())) },
		"cut":           func(s store) error { return s.write(listFile, list.Bytes()[:100]) },
		"empty":         func(s store) error { return s.write(listFile, nil) },
		"huge":          func(s store) error { return s.write(listFile, make([]byte, maxFile+1)) },
	} {
		s := store{t.TempDir()}
		must(t, s.begin(list))
		must(t, damage(s))
		if _, err := s.list(); !errors.Is(err, cloudpal.Corrupt) {
			t.Errorf("%s: got %v, want that it is damaged", name, err)
		}
	}
}

func TestSettingsAreOfDevicesThatAreThere(t *testing.T) {
	s := store{t.TempDir()}
	root, list := newList(t)
	list = add(t, root, list, "phone")
	laptop, _ := list.Device("laptop")
	phone, _ := list.Device("phone")
	if v, err := s.settings(); err != nil || len(v.Exits) != 0 {
		t.Fatalf("a new store: %v %v", v, err)
	}
	must(t, s.setSettings(settings{}.with(laptop.ID, true, list).with(phone.ID, true, list)))
	v, err := s.settings()
	if err != nil || !v.Exits[laptop.ID] || !v.Exits[phone.ID] {
		t.Errorf("got %v, %v", v, err)
	}
	list, err = list.Revoke(root, phone.ID, begin)
	must(t, err)
	if v := v.with(laptop.ID, false, list); len(v.Exits) != 0 {
		t.Errorf("the laptop is not let out and the phone is gone, and there is %v", v)
	}
	if !v.Exits[phone.ID] {
		t.Error("with has changed what it was asked of")
	}
}

func TestPlacesAreKept(t *testing.T) {
	s := store{t.TempDir()}
	want := place{Endpoint: netip.MustParseAddrPort("198.51.100.7:4711"), Handshake: begin}
	must(t, s.setPlaces(map[hub.Key]place{{1}: want, {2}: {}}))
	got, err := s.places()
	if err != nil || len(got) != 2 || got[hub.Key{1}] != want {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestNapsAreKeptWithinBounds(t *testing.T) {
	s := store{t.TempDir()}
	n, err := s.naps(begin)
	must(t, err)
	if len(n.list) != 0 {
		t.Fatalf("a new store has naps: %v", n.list)
	}
	nap := func(i int) api.Nap {
		at := begin.Add(time.Duration(i) * time.Minute)
		return api.Nap{From: at, To: at.Add(30 * time.Second), Reason: strings.Repeat("x", 90)}
	}
	const many = 2*maxNaps + 500
	for i := range many {
		keep(t, n, nap(i))
	}
	for _, n := range []*naps{n, reread(t, s)} {
		if len(n.list) != maxNaps || n.list[0] != nap(many-maxNaps) {
			t.Errorf("there are %d naps from %v", len(n.list), n.list[0].From)
		}
		if last, ok := n.last(); !ok || last != nap(many-1) {
			t.Errorf("the last is %v", last)
		}
		if got := n.since(nap(many-5).To, 100); len(got) != 4 || got[0] != nap(many-4) {
			t.Errorf("since: got %v", got)
		}
		if got := n.since(time.Time{}, 3); len(got) != 3 || got[2] != nap(many-1) {
			t.Errorf("the last three: got %v", got)
		}
	}
	info, err := os.Stat(filepath.Join(s.dir, napsFile))
	must(t, err)
	if info.Size() > maxFile {
		t.Errorf("the history has %d bytes, and is not read then", info.Size())
	}
}

func keep(t *testing.T, n *naps, nap api.Nap) {
	t.Helper()
	n.add(nap)
	must(t, n.save())
}

func reread(t *testing.T, s store) *naps {
	t.Helper()
	n, err := s.naps(begin)
	must(t, err)
	return n
}

// A power cut may leave half a line, and zeros.
func TestHalfANapIsLeftOut(t *testing.T) {
	s := store{t.TempDir()}
	n, err := s.naps(begin)
	must(t, err)
	keep(t, n, api.Nap{From: begin, To: begin.Add(time.Minute), Reason: "a packet"})
	f, err := os.OpenFile(filepath.Join(s.dir, napsFile), os.O_APPEND|os.O_WRONLY, 0)
	must(t, err)
	f.WriteString("{\"from\":\"2026-11-25T12:0\x00\x00\x00")
	must(t, f.Close())
	n = reread(t, s)
	keep(t, n, api.Nap{From: begin.Add(time.Hour), To: begin.Add(2 * time.Hour)})
	if n = reread(t, s); len(n.list) != 2 {
		t.Errorf("got %v, want the whole naps", n.list)
	}
}

// What is beside the list is nothing to stay locked for.
func TestDamageBesideTheList(t *testing.T) {
	s := store{t.TempDir()}
	for _, name := range []string{settingsFile, placesFile, napsFile} {
		must(t, s.write(name, []byte("{\"exits\":{\"x\":true}, \x00")))
	}
	if v, err := s.settings(); !errors.Is(err, cloudpal.Corrupt) || len(v.Exits) != 0 {
		t.Errorf("settings: got %v, %v", v, err)
	}
	if m, err := s.places(); !errors.Is(err, cloudpal.Corrupt) || m == nil || len(m) != 0 {
		t.Errorf("places: got %v, %v", m, err)
	}
	for _, data := range [][]byte{[]byte("\x00"), make([]byte, maxFile+1)} {
		must(t, s.write(napsFile, data))
		n := reread(t, s)
		keep(t, n, api.Nap{From: begin, To: begin.Add(time.Minute)})
		if n = reread(t, s); len(n.list) != 1 {
			t.Errorf("naps: got %v", n.list)
		}
	}
}

func TestABootIsTold(t *testing.T) {
	s := store{t.TempDir()}
	must(t, s.noteAwake())
	was := s.lastAwake()
	n, err := s.naps(was.Add(time.Hour))
	must(t, err)
	if last, ok := n.last(); !ok || !last.Boot || !last.From.Equal(was) || !last.To.Equal(was.Add(time.Hour)) {
		t.Errorf("got %+v", last)
	}
}

func TestSessionsThatOutlivedANap(t *testing.T) {
	at := func(s int) time.Time { return begin.Add(time.Duration(s) * time.Second) }
	for name, c := range map[string]struct {
		handshake, awake, now time.Time
		want                  bool
	}{
		"none":                         {time.Time{}, at(0), at(1000), false},
		"after a short nap":            {at(0), at(100), at(101), false},
		"after a long nap":             {at(0), at(200), at(201), true},
		"it grew old after a nap":      {at(0), at(100), at(181), true},
		"of this time awake, and idle": {at(10), at(0), at(1000), false}, // the kernel knows
		"at the end of its life":       {at(0), at(100), at(180), false},
		"a clock that went back":       {at(0), at(-1000), at(-1000), false},
	} {
		if got := outlived(c.handshake, c.awake, c.now); got != c.want {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
}
