package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/identity"
	"github.com/tradle/cloudpal/person"
)

const deviceHelp = `Add, list, revoke and rename your devices.

They are in a list that your own devices sign, and only they: no center can add one.
Your pal lets in who is on it. A device has a name, by which the others reach it:
"laptop" is laptop.pal.`

func (c *cli) device() *cobra.Command {
	cmd := group("device", "Add, list, revoke and rename your devices", deviceHelp, `  cloudpal device add phone
  cloudpal device list
  cloudpal device rename phone old-phone
  cloudpal device revoke old-phone`)
	cmd.AddCommand(c.deviceAdd(), c.deviceList(), c.deviceRevoke(), c.deviceRename())
	return cmd
}

// deviceArgs checks arguments that are all names of devices.
func deviceArgs(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, names []string) error {
		if err := args(n, n, what)(cmd, names); err != nil {
			return err
		}
		for _, name := range names {
			if err := identity.CheckName(name); err != nil {
				return usage{fmt.Errorf("%w: %s", err, cloudpal.HintOf(err))}
			}
		}
		return nil
	}
}

// sayDelivered tells where the pal does not know of a change yet.
func (c *cli) sayDelivered(d person.Changed) {
	if !d.Delivered {
		c.say("your pal does not answer; it hears of this as soon as it does")
	}
}

// offerDevices completes the name of a device, as this machine knows them.
func (c *cli) offerDevices(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	const no = cobra.ShellCompDirectiveNoFileComp
	h, err := c.openHome()
	if len(args) > 0 || err != nil {
		return nil, no
	}
	defer h.Close()
	s, err := h.Read()
	if err != nil {
		return nil, no
	}
	devices, err := s.Devices()
	if err != nil {
		return nil, no
	}
	var names []string
	for _, d := range devices {
		if !d.This {
			names = append(names, d.Name)
		}
	}
	return names, no
}
