// Package person is a person's side of their pal, on one of their devices.
//
// A Home is a directory with what this device knows: its own keys, the pal's
// secrets, the list of the person's devices, and by what it knows its center
// and its core again. An Agent is the process that works with it: it holds the
// tunnel to the pal, unlocks the pal whenever it finds it locked, and shows the
// pal's page on this machine alone. A Client asks the agent over a Unix socket
// in the home.
//
// The agent says nothing to the pal on its own account, so that the pal can
// sleep: what it tells of it, it has from the center.
package person

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/identity"
	"github.com/tradle/cloudpal/network/overlay"
)

// NewPerson makes a person in a home that has none, with this device as the
// first of their devices, and a customer of the center with this key. The
// overlay's addresses overlap with none of avoid. It returns the phrase that
// the person's root is, which is kept nowhere: show it, tell Shown, and Wipe it.
//
// A person whose phrase was never shown is made anew. The error is
// cloudpal.Exist where there is one.
func (h *Home) NewPerson(ctx context.Context, center Center, device string, avoid []netip.Prefix) (identity.Phrase, error) {
	const op = "make a person's keys"
	phrase := identity.NewPhrase()
	next, err := newState(phrase, center, device, avoid)
	if err != nil {
		return phrase, cloudpal.E(op, "", err)
	}
	err = h.change(ctx, func(s *State, exists bool) error {
		if exists && s.Shown {
			return cloudpal.E(op, cloudpal.Exist, errors.New("there is one in "+h.dir))
		}
		*s = next
		return nil
	})
	return phrase, err
}

func newState(phrase identity.Phrase, center Center, name string, avoid []netip.Prefix) (State, error) {
	root := phrase.Root()
	defer root.Wipe()
	device, secrets := identity.NewDeviceKey(), root.PalSecrets()
	defer secrets.Wipe()
	now := time.Now()
	v4, v6, err := overlay.Choose(root.NetworkSeed(), avoid)
	if err != nil {
		return State{}, err
	}
	list, err := identity.NewList(root, v4, v6, now)
	if err == nil {
		list, err = list.Add(root, device.Device(name, true), now)
	}
	if err != nil {
		return State{}, err
	}
	s := State{Version: stateVersion, Person: root.ID(), Center: center, List: list.Bytes()}
	s.Account = root.Account(center.Address.Key[:]).Seed()
	wallet := root.WalletSeed()
	s.Wallet = wallet[:]
	s.Confirm = newConfirm(phrase.Words())
	if s.Device, err = device.MarshalBinary(); err != nil {
		return State{}, err
	}
	s.Secrets, err = secrets.MarshalBinary()
	return s, err
}

// SetShown says that the person has seen their phrase.
func (h *Home) SetShown(ctx context.Context) error {
	return h.Change(ctx, func(s *State) error {
		s.Shown = true
		return nil
	})
}

// account is the key by which the center knows this person.
func (s State) account() ed25519.PrivateKey { return ed25519.NewKeyFromSeed(s.Account) }

// Ask returns a client of the person's center. Through may be nil.
func (s State) Ask(through api.Dialer) (*api.Client, error) {
	return api.Dial(s.Center.Address, s.account(), through)
}

// self is this device, as the list has it. Where it was revoked the error is
// cloudpal.Denied, and there is a list all the same.
func (s State) self() (key identity.DeviceKey, list *identity.List, self identity.Device, err error) {
	if err = key.UnmarshalBinary(s.Device); err != nil {
		return key, nil, self, err
	}
	if list, err = identity.ParseList(s.Person, s.List); err != nil {
		return key, nil, self, err
	}
	self, ok := list.DeviceByID(key.ID())
	if !ok {
		err = cloudpal.E("find this device in the device list", cloudpal.Denied, errors.New("it was revoked")).
			WithHint("another of your devices can add it again, with new keys")
	}
	return key, list, self, err
}

func (s State) secrets() (secrets identity.Secrets, err error) {
	return secrets, secrets.UnmarshalBinary(s.Secrets)
}

// at is the address on the overlay of the device with that index, IPv4 first.
func at(list *identity.List, index uint8) []netip.Addr {
	v4, v6 := list.Network()
	return []netip.Addr{overlay.Addr(v4, index), overlay.Addr(v6, index)}
}

// pinned checks what the center says the core is made of against what it was
// made of when the person first trusted it.
func (s State) pinned(p api.Pal) error {
	if s.Pal == nil || s.Pal.Image == p.Image.ID {
		return nil
	}
	return cloudpal.E("trust the core", cloudpal.Denied, fmt.Errorf("it is made of another image than it was: %.80q", p.Image.ID)).
		WithHint("if you expect that, as after an update of your own center: cloudpal up --accept-core " + p.Image.ID)
}
