package person

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/identity"
	"github.com/tradle/cloudpal/network/overlay"
)

// A Device is one of the person's, as it is shown.
type Device struct {
	Name      string            `json:"name"`
	ID        identity.DeviceID `json:"id"`
	Addresses []netip.Addr      `json:"addresses"` // on the overlay
	Admin     bool              `json:"admin,omitempty"`
	This      bool              `json:"this,omitempty"` // the one that was asked
	Added     time.Time         `json:"added"`
}

// A Changed is a device that was added, revoked or renamed.
type Changed struct {
	Device
	Delivered bool   `json:"delivered"`        // the pal knows of it; else it will as soon as it answers
	Config    string `json:"config,omitempty"` // of one that was added, for its WireGuard app: holds its private key
}

// An AddRequest asks for a device with keys that are made here, for the
// WireGuard app.
type AddRequest struct {
	Name string `json:"name"`
	Full bool   `json:"full,omitempty"` // all its traffic goes through the pal
	// Unconfirmed also adds it while the person has yet to prove that they wrote
	// their phrase down: for who has just shown it.
	Unconfirmed bool `json:"unconfirmed,omitempty"`
}

// A RenameRequest asks for another name of a device.
type RenameRequest struct {
	Name string `json:"name"`
}

// Devices returns the person's devices, as this device knows them.
func (s State) Devices() ([]Device, error) {
	key, list, _, err := s.self()
	if list == nil {
		return nil, err
	}
	devices := []Device{}
	for _, d := range list.Devices() {
		devices = append(devices, shown(list, d, key.ID()))
	}
	return devices, nil
}

func shown(list *identity.List, d identity.Device, self identity.DeviceID) Device {
	return Device{Name: d.Name, ID: d.ID, Addresses: at(list, d.Index), Admin: d.Admin, This: d.ID == self, Added: d.Added}
}

// add adds a device and returns the configuration of its WireGuard.
func (a *Agent) add(ctx context.Context, r AddRequest) (Changed, error) {
	key := identity.NewDeviceKey()
	defer key.Wipe()
	d := key.Device(r.Name, false)
	d.Sign = identity.SignKey{} // the app signs nothing
	var config []byte
	c, err := a.changeList(ctx, r.Unconfirmed, func(by identity.DeviceKey, s *State, list *identity.List) (*identity.List, identity.Device, error) {
		next, err := list.Add(by, d, time.Now())
		if err != nil {
			return nil, d, err
		}
		d, _ := next.Device(r.Name)
		config, err = s.configOf(next, d, key, r.Full)
		return next, d, err
	})
	if err != nil {
		return c, err
	}
	c.Config = string(config)
	clear(config)
	if r.Full && c.Delivered {
		err = a.setExit(ctx, c.ID, true)
	}
	return c, err
}

// configOf writes the configuration of a device with these keys.
func (s *State) configOf(list *identity.List, d identity.Device, key identity.DeviceKey, full bool) ([]byte, error) {
	if s.Pal == nil || len(s.Pal.Endpoints) == 0 {
		return nil, errNoPal
	}
	secrets, err := s.secrets()
	if err != nil {
		return nil, err
	}
	defer secrets.Wipe()
	v4, v6 := list.Network()
	return overlay.Config{
		Name: d.Name, Key: key, Index: d.Index, V4: v4, V6: v6,
		Core: secrets.WireGuardKey(), Endpoint: s.Pal.Endpoints[0], Full: full,
	}.Text()
}

// revoke takes a device off the list: the pal cuts it off as soon as it knows.
func (a *Agent) revoke(ctx context.Context, name string) (Changed, error) {
	return a.changeList(ctx, false, func(by identity.DeviceKey, _ *State, list *identity.List) (*identity.List, identity.Device, error) {
		d, err := find(list, name)
		if err != nil {
			return nil, d, err
		}
		if d.ID == by.ID() {
			return nil, d, cloudpal.E("revoke "+name, cloudpal.Invalid, errors.New("that is this device")).
				WithHint("revoke it from another one")
		}
		next, err := list.Revoke(by, d.ID, time.Now())
		return next, d, err
	})
}

func (a *Agent) rename(ctx context.Context, name, to string) (Changed, error) {
	return a.changeList(ctx, false, func(by identity.DeviceKey, _ *State, list *identity.List) (*identity.List, identity.Device, error) {
		d, err := find(list, name)
		if err != nil {
			return nil, d, err
		}
		next, err := list.Rename(by, d.ID, to, time.Now())
		d.Name = to
		return next, d, err
	})
}

func find(list *identity.List, name string) (identity.Device, error) {
	d, ok := list.Device(name)
	if !ok {
		return d, cloudpal.E(fmt.Sprintf("find device %.40q", name), cloudpal.NotExist, nil).
			WithHint("see which there are: cloudpal device list")
	}
	return d, nil
}

// changeList has f make the next list, keeps it, and then tells the pal.
func (a *Agent) changeList(ctx context.Context, unconfirmed bool,
	f func(identity.DeviceKey, *State, *identity.List) (*identity.List, identity.Device, error)) (Changed, error) {
	a.work.Lock()
	defer a.work.Unlock()
	var c Changed
	err := a.home.Change(ctx, func(s *State) error {
		if s.Confirm != nil && !unconfirmed {
			return errUnconfirmed(s.Confirm)
		}
		key, list, _, err := s.self()
		if err != nil {
			return err
		}
		defer key.Wipe()
		next, d, err := f(key, s, list)
		if err != nil {
			return err
		}
		s.List = next.Bytes()
		c.Device = shown(next, d, key.ID())
		return nil
	})
	if err != nil {
		return c, err
	}
	a.showNames()
	err = a.tell(ctx)
	c.Delivered = err == nil
	a.note(ctx, err)
	a.hasten()
	return c, nil
}

// showNames brings this machine the names of a list that has changed.
func (a *Agent) showNames() {
	s, err := a.home.Read()
	if err != nil {
		return
	}
	list, err := identity.ParseList(s.Person, s.List)
	if err != nil {
		return
	}
	a.mu.Lock()
	tun := a.tun
	a.mu.Unlock()
	if tun == nil {
		return
	}
	if err := tun.SetHosts(hosts(list)); err != nil {
		a.log.Warn("this machine does not know the new names", "err", err)
	}
}

const tellTimeout = 20 * time.Second

// tell brings the core our list.
func (a *Agent) tell(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, tellTimeout)
	defer cancel()
	s, err := a.home.Read()
	if err != nil {
		return err
	}
	list, err := identity.ParseList(s.Person, s.List)
	if err != nil {
		return err
	}
	_, err = a.askPal(ctx, http.MethodPost, "/v1/list", "application/octet-stream", list.Bytes())
	if errors.Is(err, cloudpal.Exist) || errors.Is(err, cloudpal.Denied) {
		return a.exchange(ctx) // it has a newer one
	}
	if err != nil {
		return err
	}
	return a.told(ctx, list)
}

func (a *Agent) told(ctx context.Context, list *identity.List) error {
	return a.home.Change(ctx, func(s *State) error {
		head := list.Head()
		s.Told = head[:]
		return nil
	})
}

// exchange takes the core's list if it is newer than ours, else brings it ours.
func (a *Agent) exchange(ctx context.Context) error {
	data, err := a.askPal(ctx, http.MethodGet, "/v1/list", "", nil)
	if err != nil {
		return err
	}
	s, err := a.home.Read()
	if err != nil {
		return err
	}
	theirs, err := identity.ParseList(s.Person, data)
	if err != nil {
		return cloudpal.E("read the pal's device list", "", err)
	}
	ours, err := identity.ParseList(s.Person, s.List)
	if err != nil {
		return err
	}
	newest, err := identity.Newest(theirs, ours)
	if err != nil {
		return cloudpal.E("compare device lists with the pal's", "", err).
			WithHint("two of your devices have changed the list at once, or one of them is not yours any more")
	}
	if err := a.home.keepList(ctx, newest); err != nil {
		return err
	}
	a.showNames()
	if newest.Len() > theirs.Len() {
		if _, err := a.askPal(ctx, http.MethodPost, "/v1/list", "application/octet-stream", newest.Bytes()); err != nil {
			return err
		}
	}
	return a.told(ctx, newest)
}

// setExit has the pal let a device out to the internet, or not.
func (a *Agent) setExit(ctx context.Context, id identity.DeviceID, on bool) error {
	_, err := a.askPal(ctx, http.MethodPost, "/v1/devices/"+id.String()+"/exit", "application/json", fmt.Appendf(nil, `{"on":%t}`, on))
	return err
}

// maxAnswer bounds what the core answers, in bytes.
const maxAnswer = 2 << 20

// askPal asks the core over the overlay. Nothing is kept open: its end would
// wake a pal that sleeps.
func (a *Agent) askPal(ctx context.Context, method, path, kind string, body []byte) ([]byte, error) {
	op := "ask the pal"
	r, err := http.NewRequestWithContext(ctx, method, "http://pal"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	resp, err := a.transport().RoundTrip(r)
	if err != nil {
		return nil, cloudpal.E(op, timeoutOr(ctx, cloudpal.Other), err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return nil, cloudpal.E(op, timeoutOr(ctx, cloudpal.Other), err)
	}
	if resp.StatusCode/100 != 2 {
		return nil, cloudpal.E(op, kindOf(resp.StatusCode), fmt.Errorf("%s %s: it answers %d", method, path, resp.StatusCode))
	}
	return data, nil
}

func timeoutOr(ctx context.Context, other cloudpal.Kind) cloudpal.Kind {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return cloudpal.Timeout
	}
	return other
}

func kindOf(status int) cloudpal.Kind {
	switch status {
	case http.StatusForbidden:
		return cloudpal.Denied
	case http.StatusConflict:
		return cloudpal.Exist
	case http.StatusBadRequest:
		return cloudpal.Invalid
	case http.StatusNotFound:
		return cloudpal.NotExist
	}
	return cloudpal.Other
}

// transport leads to the core's port 80, whatever the URL's host is.
func (a *Agent) transport() *http.Transport {
	return &http.Transport{
		DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return a.dialPal(ctx, 80) },
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10,
	}
}
