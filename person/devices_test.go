package person

import (
	"errors"
	"strings"
	"testing"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/identity"
)

func (d *device) names() string {
	d.t.Helper()
	devices, err := d.state().Devices()
	if err != nil {
		d.t.Fatal(err)
	}
	var names []string
	for _, dev := range devices {
		names = append(names, dev.Name)
	}
	return strings.Join(names, " ")
}

// stored are the devices that the core knows.
func (c *cloud) stores() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	for _, d := range c.stored.Devices() {
		names = append(names, d.Name)
	}
	return strings.Join(names, " ")
}

func TestDevicesComeAndGo(t *testing.T) {
	c := newCloud(t)
	d := c.newDevice()
	d.up()
	d.confirm()
	phone, err := d.Add(t.Context(), AddRequest{Name: "phone", Full: true})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"PrivateKey = ", "AllowedIPs = 0.0.0.0/0, ::/0", "Address = " + phone.Addresses[0].String() + "/32", "127.0.0.1:"} {
		if !strings.Contains(phone.Config, want) {
			t.Errorf("the configuration has no %q", want)
		}
	}
	if !phone.Delivered || c.stores() != "laptop phone" {
		t.Errorf("the core knows %q, delivered %v", c.stores(), phone.Delivered)
	}
	if !c.exits[phone.ID.String()] {
		t.Error("the pal does not let it out to the internet")
	}
	tablet, err := d.Add(t.Context(), AddRequest{Name: "tablet"})
	if err != nil || strings.Contains(tablet.Config, "0.0.0.0/0") || c.exits[tablet.ID.String()] {
		t.Errorf("a device that is not to go everywhere: %v", err)
	}
	if r, err := d.Rename(t.Context(), "phone", "old-phone"); err != nil || r.Name != "old-phone" || r.ID != phone.ID {
		t.Errorf("rename: %+v, %v", r, err)
	}
	if r, err := d.Revoke(t.Context(), "old-phone"); err != nil || !r.Delivered {
		t.Errorf("revoke: %+v, %v", r, err)
	}
	if c.stores() != "laptop tablet" || d.names() != "laptop tablet" {
		t.Errorf("the core knows %q, we %q", c.stores(), d.names())
	}
}

func TestWrongChangesOfDevices(t *testing.T) {
	c := newCloud(t)
	d := c.newDevice()
	d.up()
	if _, err := d.Add(t.Context(), AddRequest{Name: "phone"}); !errors.Is(err, cloudpal.Denied) || cloudpal.HintOf(err) == "" {
		t.Errorf("before the phrase is confirmed: got %v", err)
	}
	d.confirm()
	for name, want := range map[string]cloudpal.Kind{
		"laptop": cloudpal.Exist, "pal": cloudpal.Invalid, "Phone": cloudpal.Invalid, "": cloudpal.Invalid, "a b": cloudpal.Invalid,
	} {
		if _, err := d.Add(t.Context(), AddRequest{Name: name}); !errors.Is(err, want) {
			t.Errorf("add %q: got %v, want %v", name, err, want)
		}
	}
	if _, err := d.Revoke(t.Context(), "nobody"); !errors.Is(err, cloudpal.NotExist) {
		t.Errorf("revoke nobody: got %v", err)
	}
	if _, err := d.Revoke(t.Context(), "laptop"); !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("revoke this one: got %v", err)
	}
	if _, err := d.Rename(t.Context(), "nobody", "somebody"); !errors.Is(err, cloudpal.NotExist) {
		t.Errorf("rename nobody: got %v", err)
	}
	if d.names() != "laptop" {
		t.Errorf("there are now %q", d.names())
	}
}

// What the pal could not be told it is told when it answers again.
func TestRevocationIsDeliveredLater(t *testing.T) {
	c := newCloud(t)
	d := c.newDevice()
	d.up()
	d.confirm()
	if _, err := d.Add(t.Context(), AddRequest{Name: "phone"}); err != nil {
		t.Fatal(err)
	}
	c.do(func() { c.powerOff(); c.to("stopped", "stopped") })
	r, err := d.Revoke(t.Context(), "phone")
	if err != nil || r.Delivered {
		t.Fatalf("got %+v, %v, want what is not delivered", r, err)
	}
	if d.names() != "laptop" || c.stores() != "laptop phone" {
		t.Fatalf("we know %q, the core %q", d.names(), c.stores())
	}
	c.do(func() { c.boot("asked for") })
	eventually(t, "the core knows", func() bool { return c.stores() == "laptop" })
	eventually(t, "and we know that it does", func() bool {
		list := d.list()
		head := list.Head()
		return string(d.state().Told) == string(head[:])
	})
}

func (d *device) list() *identity.List {
	d.t.Helper()
	s := d.state()
	list, err := identity.ParseList(s.Person, s.List)
	if err != nil {
		d.t.Fatal(err)
	}
	return list
}

// Another of the person's devices has changed the list meanwhile.
func TestNewerListOfThePalIsTaken(t *testing.T) {
	c := newCloud(t)
	d := c.newDevice()
	d.up()
	c.do(func() {
		s := d.state()
		key, list, _, err := s.self()
		if err != nil {
			t.Fatal(err)
		}
		other := identity.NewDeviceKey().Device("desktop", false)
		if c.stored, err = list.Add(key, other, s.list(t).Devices()[0].Added); err != nil {
			t.Fatal(err)
		}
	})
	d.up()
	if d.names() != "laptop desktop" {
		t.Errorf("we know %q", d.names())
	}
}

func (s State) list(t *testing.T) *identity.List {
	t.Helper()
	list, err := identity.ParseList(s.Person, s.List)
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// A core that shows a list of its own making, or an old one, changes nothing.
func TestForgedListIsRefused(t *testing.T) {
	c := newCloud(t)
	d := c.newDevice()
	d.up()
	good := d.list()
	stranger := identity.NewPhrase().Root()
	v4, v6 := good.Network()
	forged, err := identity.NewList(stranger, v4, v6, good.Devices()[0].Added)
	if err != nil {
		t.Fatal(err)
	}
	c.do(func() { c.stored = forged })
	if err := d.Up(t.Context(), UpRequest{}, func(Step) {}); err == nil {
		t.Error("another person's list was taken")
	}
	if d.list().Head() != good.Head() {
		t.Error("our list has changed")
	}
}
