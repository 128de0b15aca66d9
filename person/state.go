package person

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/identity"
)

const (
	stateVersion = 1
	stateName    = "person.json"
	maxState     = 4 << 20 // bytes: a device list of 1 MiB, and some
)

// A State is all that a home holds: one file, so that each change of it is
// whole or is not. Its secrets make it one.
type State struct {
	Version int         `json:"version"`
	Person  identity.ID `json:"person"`
	Shown   bool        `json:"shown"`             // the person has seen their phrase
	Confirm *Confirm    `json:"confirm,omitempty"` // they have yet to prove that they wrote it down

	Device  []byte `json:"device"`           // secret: identity.DeviceKey
	Secrets []byte `json:"secrets"`          // secret: identity.Secrets
	Account []byte `json:"account"`          // secret: seed of the Ed25519 key that the center knows
	Wallet  []byte `json:"wallet,omitempty"` // secret: identity.Root.WalletSeed; none in a home that is older than wallets
	List    []byte `json:"list"`             // identity.List, the newest that this device has seen

	Center Center `json:"center"`
	Pal    *Pal   `json:"pal,omitempty"`
	Told   []byte `json:"told,omitempty"` // head of the list that the core has last taken from us, or given to us
}

// A Center is where the pal is.
type Center struct {
	Address api.Address `json:"address"` // with the key that it is known by
	Local   *Local      `json:"local,omitempty"`
}

// A Local is a center that "cloudpal up" runs on this machine, with the flags
// that it was told.
type Local struct {
	State  string   `json:"state"`
	Run    string   `json:"run"`
	Socket string   `json:"socket"`
	Listen []string `json:"listen,omitempty"`
	Args   []string `json:"args,omitempty"`
	Grant  *Grant   `json:"grant,omitempty"` // of tickets that the center takes; none: it is free of charge, or takes others
}

// A Pal is what this device knows its pal by.
type Pal struct {
	ID        api.ID           `json:"id"`
	Image     string           `json:"image"`     // that the core was made of when it was first trusted
	Boots     int64            `json:"boots"`     // the last boot of which it is known that it was unlocked
	Endpoints []netip.AddrPort `json:"endpoints"` // the last that the center told
}

// String tells nothing: there are secrets in it.
func (State) String() string { return "[secret]" }

// GoString tells nothing.
func (State) GoString() string { return "[secret]" }

// LogValue tells nothing.
func (State) LogValue() slog.Value { return slog.StringValue("[secret]") }

// parseState reads a state and checks it.
func parseState(data []byte) (s State, err error) {
	if err := json.Unmarshal(data, &s); err != nil {
		return State{}, errors.New("it is not JSON as it should be") // an error of json's may quote secrets
	}
	if s.Version != stateVersion {
		return State{}, cloudpal.E("", cloudpal.Invalid, errors.New("it is of another version of cloudpal"))
	}
	if len(s.Account) != 32 || len(s.Wallet) != 0 && len(s.Wallet) != 32 || s.Center.Address.Host == "" || !s.Confirm.valid() {
		return State{}, errors.New("it is not complete")
	}
	if _, list, _, err := s.self(); list == nil {
		return State{}, err
	}
	if _, err := s.secrets(); err != nil {
		return State{}, err
	}
	if s.Pal != nil {
		if _, err := api.ParseID(string(s.Pal.ID)); err != nil {
			return State{}, err
		}
	}
	return s, nil
}

// Read returns the home's state. The error is cloudpal.NotExist where there is
// no person in it.
func (h *Home) Read() (State, error) {
	op := "read " + h.path(stateName)
	data, err := h.read(stateName, maxState)
	if errors.Is(err, fs.ErrNotExist) {
		return State{}, cloudpal.E("", cloudpal.NotExist, errors.New("there is no pal yet in "+h.dir)).
			WithHint("make one: cloudpal up")
	}
	if err != nil {
		return State{}, cloudpal.E(op, "", err)
	}
	s, err := parseState(data)
	clear(data)
	if err != nil {
		return State{}, cloudpal.E(op, cloudpal.Corrupt, err).
			WithHint("put it back from a backup, or begin anew: cloudpal destroy --forget --yes")
	}
	return s, nil
}

// Change has f change the state, and writes it so that a crash leaves the old
// one or the new one. Others wait meanwhile.
func (h *Home) Change(ctx context.Context, f func(*State) error) error {
	return h.change(ctx, func(s *State, exists bool) error {
		if !exists {
			return cloudpal.E("", cloudpal.NotExist, errors.New("there is no pal yet in "+h.dir))
		}
		return f(s)
	})
}

func (h *Home) change(ctx context.Context, f func(s *State, exists bool) error) error {
	unlock, err := h.lock(ctx, lockName)
	if err != nil {
		return cloudpal.E("change "+h.path(stateName), "", err)
	}
	defer unlock()
	s, err := h.Read()
	if err != nil && !errors.Is(err, cloudpal.NotExist) {
		return err
	}
	if err := f(&s, err == nil); err != nil {
		return err
	}
	data, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	defer clear(data)
	if err := h.write(stateName, data); err != nil {
		return cloudpal.E("write "+h.path(stateName), "", err)
	}
	return nil
}

// keepList makes a list the home's, if it has all that the home's list has. One
// that is older changes nothing.
func (h *Home) keepList(ctx context.Context, list *identity.List) error {
	return h.Change(ctx, func(s *State) error {
		have, err := identity.ParseList(s.Person, s.List)
		if err != nil {
			return err
		}
		newest, err := identity.Newest(list, have)
		if err == nil {
			s.List = newest.Bytes()
		}
		return err
	})
}
