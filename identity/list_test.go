package identity

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
)

var (
	testV4 = netip.MustParsePrefix("10.7.8.0/24")
	testV6 = netip.MustParsePrefix("fd12:3456:789a:1::/64")
	noon   = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
)

// must returns a function that fails the test on an error.
func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// wantKind fails unless err is of that kind.
func wantKind(t testing.TB, what string, err error, kind cloudpal.Kind) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("%s: got error %v, want %v", what, err, kind)
	}
}

// ann is a person with a laptop that is an admin and a phone that is not.
type ann struct {
	root          Root
	laptop, phone DeviceKey
	list          *List
}

func newAnn(t testing.TB) ann {
	t.Helper()
	a := ann{root: NewPhrase().Root(), laptop: NewDeviceKey(), phone: NewDeviceKey()}
	list := must[*List](t)
	a.list = list(NewList(a.root, testV4, testV6, noon))
	a.list = list(a.list.Add(a.root, a.laptop.Device("laptop", true), noon))
	a.list = list(a.list.Add(a.laptop, a.phone.Device("phone", false), noon))
	return a
}

// names tells devices as "2:laptop 3:phone".
func names(devices []Device) string {
	var parts []string
	for _, d := range devices {
		parts = append(parts, fmt.Sprintf("%d:%s", d.Index, d.Name))
	}
	return strings.Join(parts, " ")
}

func TestListLives(t *testing.T) {
	a := newAnn(t)
	list := must[*List](t)
	tablet := Device{Name: "tablet", WireGuard: NewDeviceKey().WireGuardKey()}
	l := list(a.list.Add(a.laptop, tablet, noon))
	d, _ := l.Device("tablet")
	l = list(l.Rename(a.laptop, d.ID, "slate", noon))
	l = list(l.Revoke(a.laptop, a.phone.ID(), noon))

	back := list(ParseList(a.root.ID(), l.Bytes()))
	if got, want := names(back.Devices()), "2:laptop 4:slate"; got != want {
		t.Errorf("got devices %q, want %q", got, want)
	}
	if got, want := names(back.Revoked()), "3:phone"; got != want {
		t.Errorf("got revoked devices %q, want %q", got, want)
	}
	if v4, v6 := back.Network(); v4 != testV4 || v6 != testV6 {
		t.Errorf("got network %v, %v, want %v, %v", v4, v6, testV4, testV6)
	}
	if back.Head() != l.Head() || back.Len() != 6 || !bytes.Equal(back.Bytes(), l.Bytes()) {
		t.Error("the list that was read is not the one that was written")
	}
	if got, want := names(a.list.Devices()), "2:laptop 3:phone"; got != want {
		t.Errorf("the list from before has changed: got %q, want %q", got, want)
	}
}

func TestWhoMayChangeTheList(t *testing.T) {
	a := newAnn(t)
	admin := NewDeviceKey()
	l := must[*List](t)(a.list.Add(a.laptop, admin.Device("desktop", true), noon))
	l = must[*List](t)(l.Revoke(admin, a.laptop.ID(), noon))
	for _, c := range []struct {
		who  string
		by   Signer
		kind cloudpal.Kind
	}{
		{"the root", a.root, ""},
		{"an admin", admin, ""},
		{"an admin that was revoked", a.laptop, cloudpal.Denied},
		{"a device that is no admin", a.phone, cloudpal.Denied},
		{"another person's root", NewPhrase().Root(), cloudpal.Denied},
		{"a key of nobody", NewDeviceKey(), cloudpal.Denied},
	} {
		_, err := l.Add(c.by, NewDeviceKey().Device("new", false), noon)
		_, err2 := l.Revoke(c.by, a.phone.ID(), noon)
		_, err3 := l.Rename(c.by, a.phone.ID(), "new", noon)
		for _, err := range []error{err, err2, err3} {
			if c.kind == "" && err != nil || c.kind != "" && !errors.Is(err, c.kind) {
				t.Errorf("%s: got error %v, want kind %q", c.who, err, c.kind)
			}
		}
	}
	// What the laptop did before it was revoked stays.
	if got, want := names(l.Devices()), "3:phone 4:desktop"; got != want {
		t.Errorf("got devices %q, want %q", got, want)
	}
}

func TestWhatMayBeAdded(t *testing.T) {
	a := newAnn(t)
	desktop := NewDeviceKey()
	l := must[*List](t)(a.list.Add(a.root, desktop.Device("desktop", false), noon))
	l = must[*List](t)(l.Revoke(a.root, desktop.ID(), noon))
	fresh := func(change func(*Device)) Device {
		d := NewDeviceKey().Device("new", false)
		change(&d)
		return d
	}
	for what, c := range map[string]struct {
		d    Device
		kind cloudpal.Kind
	}{
		"a device":                     {fresh(func(*Device) {}), ""},
		"a name of a revoked device":   {fresh(func(d *Device) { d.Name = "desktop" }), ""},
		"a free index":                 {fresh(func(d *Device) { d.Index = 250 }), ""},
		"a device that signs nothing":  {fresh(func(d *Device) { d.Sign = SignKey{} }), ""},
		"a name that is taken":         {fresh(func(d *Device) { d.Name = "laptop" }), cloudpal.Exist},
		"no name":                      {fresh(func(d *Device) { d.Name = "" }), cloudpal.Invalid},
		"a very long name":             {fresh(func(d *Device) { d.Name = strings.Repeat("a", 100_000) }), cloudpal.Invalid},
		"an index that is taken":       {fresh(func(d *Device) { d.Index = 3 }), cloudpal.Exist},
		"an index of a revoked device": {fresh(func(d *Device) { d.Index = 4 }), cloudpal.Exist},
		"the core's index":             {fresh(func(d *Device) { d.Index = CoreIndex }), cloudpal.Invalid},
		"index 251":                    {fresh(func(d *Device) { d.Index = 251 }), cloudpal.Invalid},
		"a revoked device again":       {desktop.Device("new", false), cloudpal.Exist},
		"a WireGuard key that was":     {fresh(func(d *Device) { d.WireGuard = desktop.WireGuardKey() }), cloudpal.Exist},
		"a signing key that was":       {fresh(func(d *Device) { d.Sign = desktop.SignKey() }), cloudpal.Exist},
		"the root as a device":         {fresh(func(d *Device) { d.Sign = a.root.SignKey() }), cloudpal.Exist},
		"no WireGuard key":             {fresh(func(d *Device) { d.WireGuard = WireGuardKey{} }), cloudpal.Invalid},
		"an admin that cannot sign":    {fresh(func(d *Device) { d.Sign, d.Admin = SignKey{}, true }), cloudpal.Invalid},
	} {
		_, err := l.Add(a.laptop, c.d, noon)
		if c.kind == "" && err != nil || c.kind != "" && !errors.Is(err, c.kind) {
			t.Errorf("%s: got error %v, want kind %q", what, err, c.kind)
		}
	}
	_, err := l.Rename(a.laptop, desktop.ID(), "new", noon)
	wantKind(t, "rename a revoked device", err, cloudpal.NotExist)
	_, err = l.Revoke(a.laptop, desktop.ID(), noon)
	wantKind(t, "revoke a device twice", err, cloudpal.NotExist)
	_, err = l.Rename(a.laptop, a.phone.ID(), "laptop", noon)
	wantKind(t, "rename to a name that is taken", err, cloudpal.Exist)
	_, err = l.Add(a.laptop, NewDeviceKey().Device("new", false), time.Date(10_000, 1, 1, 0, 0, 0, 0, time.UTC))
	wantKind(t, "a clock beyond the year 9999", err, cloudpal.Invalid)
}

func TestCheckName(t *testing.T) {
	for _, name := range []string{"a", "7", "laptop", "ann-s-phone-2", strings.Repeat("x", 32)} {
		if err := CheckName(name); err != nil {
			t.Errorf("%q: got error %v", name, err)
		}
	}
	for _, name := range []string{"", "pal", "core", "localhost", "-a", "a-", "A", "a b", "a.b", "a\n", "ä", "a\x00", strings.Repeat("x", 33)} {
		err := CheckName(name)
		wantKind(t, fmt.Sprintf("%q", name), err, cloudpal.Invalid)
		if cloudpal.HintOf(err) == "" {
			t.Errorf("%q: no hint", name)
		}
	}
}

func TestNetworkIsPrivate(t *testing.T) {
	root := NewPhrase().Root()
	for _, c := range [][2]string{
		{"203.0.113.0/24", "fd00::/64"},
		{"10.0.0.0/16", "fd00::/64"},
		{"10.0.0.1/24", "fd00::/64"},
		{"10.0.0.0/24", "fd00::/48"},
		{"10.0.0.0/24", "fd00::1/64"},
		{"10.0.0.0/24", "2001:db8::/64"},
		{"10.0.0.0/24", "fc00::/64"},
		{"fd00::/24", "fd00::/64"},
	} {
		_, err := NewList(root, netip.MustParsePrefix(c[0]), netip.MustParsePrefix(c[1]), noon)
		wantKind(t, fmt.Sprint(c), err, cloudpal.Invalid)
	}
	_, err := NewList(root, netip.Prefix{}, netip.Prefix{}, noon)
	wantKind(t, "no network", err, cloudpal.Invalid)
}

// TestIndexesComeBackLast uses up all indexes with devices that come and go.
func TestIndexesComeBackLast(t *testing.T) {
	a := newAnn(t)
	list := must[*List](t)
	l := a.list
	for i := 4; i <= LastIndex; i++ {
		k := NewDeviceKey()
		l = list(l.Add(a.laptop, k.Device("guest", false), noon))
		if d, _ := l.Device("guest"); int(d.Index) != i {
			t.Fatalf("device %d got index %d", i, d.Index)
		}
		l = list(l.Revoke(a.laptop, k.ID(), noon))
	}
	for i := range 3 {
		name := fmt.Sprintf("again-%d", i)
		l = list(l.Add(a.laptop, NewDeviceKey().Device(name, false), noon))
		if d, _ := l.Device(name); int(d.Index) != 4+i {
			t.Errorf("%s got index %d, want the one that is free for the longest time, %d", name, d.Index, 4+i)
		}
	}
	// One that is revoked now waits for all the others.
	d, _ := l.Device("again-0")
	l = list(l.Revoke(a.laptop, d.ID, noon))
	if got := l.nextIndex(); got != 7 {
		t.Errorf("got index %d, want 7", got)
	}
	list(ParseList(a.root.ID(), l.Bytes()))
}

func TestListIsFull(t *testing.T) {
	a := newAnn(t)
	l := a.list
	var err error
	for i := 0; err == nil; i++ {
		var next *List
		if next, err = l.Rename(a.laptop, a.phone.ID(), fmt.Sprintf("p%d", i%2), noon); err == nil {
			l = next
		}
	}
	wantKind(t, "an admin's entry in a full list", err, cloudpal.NoSpace)
	if l.Len() != maxEntries-rootsOwn {
		t.Errorf("admins made %d entries, want %d", l.Len(), maxEntries-rootsOwn)
	}
	for i := range rootsOwn {
		if l, err = l.Rename(a.root, a.phone.ID(), fmt.Sprintf("r%d", i%2), noon); err != nil {
			t.Fatal(err)
		}
	}
	_, err = l.Revoke(a.root, a.phone.ID(), noon)
	wantKind(t, "the root's entry in a full list", err, cloudpal.NoSpace)
	began := time.Now()
	must[*List](t)(ParseList(a.root.ID(), l.Bytes()))
	t.Logf("the longest list (%d KiB) was verified in %v", len(l.Bytes())>>10, time.Since(began).Round(time.Millisecond))
}

func TestCompareLists(t *testing.T) {
	a := newAnn(t)
	list := must[*List](t)
	longer := list(a.list.Rename(a.laptop, a.phone.ID(), "mobile", noon))
	left := list(longer.Revoke(a.laptop, a.phone.ID(), noon))
	right := list(longer.Revoke(a.root, a.phone.ID(), noon))
	bob := newAnn(t)
	for _, c := range []struct {
		what   string
		l, old *List
		want   error
	}{
		{"nothing", a.list, nil, nil},
		{"itself", a.list, a.list, nil},
		{"what it grew from", left, a.list, nil},
		{"what grew from it", a.list, left, ErrStale},
		{"a fork", left, right, ErrFork},
		{"a fork that is shorter", longer, list(a.list.Rename(a.root, a.phone.ID(), "x", noon)), ErrFork},
		{"another person's", a.list, bob.list, cloudpal.Denied},
	} {
		err := c.l.Extends(c.old)
		if !errors.Is(err, c.want) || c.want != nil && !errors.Is(err, cloudpal.Denied) {
			t.Errorf("%s: got %v, want %v", c.what, err, c.want)
		}
	}
	for _, pair := range [][2]*List{{left, a.list}, {a.list, left}, {left, nil}, {nil, left}} {
		if got, err := Newest(pair[0], pair[1]); got != left || err != nil {
			t.Errorf("got %v, error %v, want the longer", got, err)
		}
	}
	_, err := Newest(left, right)
	if !errors.Is(err, ErrFork) {
		t.Errorf("two forks: got error %v", err)
	}
}

func TestSince(t *testing.T) {
	a := newAnn(t)
	list := must[*List](t)
	guest, desktop := NewDeviceKey(), NewDeviceKey()
	l := list(a.list.Add(a.laptop, guest.Device("guest", false), noon))
	l = list(l.Revoke(a.laptop, guest.ID(), noon))
	l = list(l.Add(a.laptop, desktop.Device("desktop", false), noon))
	l = list(l.Rename(a.laptop, a.laptop.ID(), "old-laptop", noon))
	l = list(l.Revoke(a.laptop, a.phone.ID(), noon))
	c := l.Since(a.list)
	if got, want := names(c.Added)+", "+names(c.Removed)+", "+names(c.Renamed), "5:desktop, 3:phone, 2:old-laptop"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := names(l.Since(nil).Added), "2:old-laptop 5:desktop"; got != want {
		t.Errorf("since nothing: got %q, want %q", got, want)
	}
	if c := l.Since(l); c.Added != nil || c.Removed != nil || c.Renamed != nil {
		t.Errorf("since itself: got %v", c)
	}
}
