package pal

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/identity"
	"github.com/tradle/cloudpal/pal/hub"
)

// A store is the files on a pal's volume:
//
//	owner          the root's ID, for good
//	list           the device list, the newest
//	settings.json  what devices may, beside the list
//	peers.json     where devices were last
//	agreed.json    the last record of the center's meter that was countersigned
//	naps.jsonl     when the core slept, the last maxNaps at least
//	awake          its time of change is when the core was last known to be awake
//
// All but the last two are replaced by a new file, synced and renamed.
type store struct{ dir string }

const (
	ownerFile    = "owner"
	listFile     = "list"
	settingsFile = "settings.json"
	placesFile   = "peers.json"
	agreedFile   = "agreed.json"
	napsFile     = "naps.jsonl"
	awakeFile    = "awake"

	maxFile = 1 << 20 // bytes, of each that is read whole
)

// begin fills a new volume.
func (s store) begin(list *identity.List) error {
	id := list.Root()
	return errors.Join(s.write(ownerFile, []byte(id.String())), s.setList(list))
}

// list returns the device list. A volume without one is damaged: to go by what
// an unlock brings would let those in that were revoked.
func (s store) list() (*identity.List, error) {
	const op = "read the volume's device list"
	text, err := s.read(ownerFile)
	if err != nil {
		return nil, cloudpal.E(op, cloudpal.Corrupt, err)
	}
	owner, err := identity.ParseID(string(text))
	if err != nil {
		return nil, cloudpal.E(op, cloudpal.Corrupt, err)
	}
	data, err := s.read(listFile)
	if err != nil {
		return nil, cloudpal.E(op, cloudpal.Corrupt, err)
	}
	list, err := identity.ParseList(owner, data)
	if err != nil {
		return nil, cloudpal.E(op, cloudpal.Corrupt, err)
	}
	return list, nil
}

func (s store) setList(list *identity.List) error { return s.write(listFile, list.Bytes()) }

// Settings are what a person has set for their devices.
type settings struct {
	Exits map[identity.DeviceID]bool `json:"exits,omitempty"` // may reach the internet through the core
}

// with returns the settings with one more, or one less. Those of devices that
// are gone go.
func (s settings) with(id identity.DeviceID, exit bool, list *identity.List) settings {
	exits := maps.Clone(s.Exits)
	if exits == nil {
		exits = map[identity.DeviceID]bool{}
	}
	exits[id] = exit
	maps.DeleteFunc(exits, func(id identity.DeviceID, on bool) bool {
		_, there := list.DeviceByID(id)
		return !on || !there
	})
	return settings{exits}
}

func (s store) settings() (settings, error) {
	var v settings
	if err := s.readJSON(settingsFile, &v); err != nil {
		return settings{}, err
	}
	return v, nil
}

func (s store) setSettings(v settings) error { return s.writeJSON(settingsFile, v) }

// A place is where a device was last.
type place struct {
	Endpoint  netip.AddrPort `json:"endpoint"`
	Handshake time.Time      `json:"handshake"`

	received, sent int64 // bytes, before its session was last renewed
	renewed        bool  // that happened, and it was not greeted yet
}

// keyedPlace is a place as it is written.
type keyedPlace struct {
	Key identity.WireGuardKey `json:"key"`
	place
}

func (s store) places() (map[hub.Key]place, error) {
	var list []keyedPlace
	m := map[hub.Key]place{}
	if err := s.readJSON(placesFile, &list); err != nil {
		return m, err
	}
	for _, p := range list {
		m[hub.Key(p.Key)] = p.place
	}
	return m, nil
}

func (s store) setPlaces(m map[hub.Key]place) error {
	var list []keyedPlace
	for k, p := range m {
		list = append(list, keyedPlace{identity.WireGuardKey(k), p})
	}
	return s.writeJSON(placesFile, list)
}

// readJSON reads a file into v, which stays as it is where there is none.
func (s store) readJSON(name string, v any) error {
	data, err := s.read(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		return cloudpal.E("read "+name, cloudpal.Corrupt, err)
	}
	return nil
}

func (s store) writeJSON(name string, v any) error {
	data, err := json.Marshal(v)
	if err != nil {
		return cloudpal.E("write "+name, "", err)
	}
	return s.write(name, data)
}

func (s store) read(name string) ([]byte, error) {
	path := filepath.Join(s.dir, name)
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s has %d bytes", name, info.Size())
	}
	return os.ReadFile(path)
}

// write replaces a file: a power cut leaves the old content or the new.
func (s store) write(name string, data []byte) error {
	op := "write " + name
	path := filepath.Join(s.dir, name)
	f, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return cloudpal.E(op, "", err)
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return cloudpal.E(op, "", err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return cloudpal.E(op, "", err)
	}
	d, err := os.Open(s.dir)
	if err != nil {
		return cloudpal.E(op, "", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return cloudpal.E(op, "", err)
	}
	return nil
}
