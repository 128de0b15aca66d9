package main

import (
	"context"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/person"
)

const deviceListHelp = `List your devices, as this machine knows them. It asks nobody, so it works offline;
what another of your devices changed shows when this one has spoken to your pal.`

func (c *cli) deviceList() *cobra.Command {
	return c.withHome(c.withJSON(&cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List your devices", Long: deviceListHelp,
		Example: "  cloudpal device list\n  cloudpal device list --json | jq -r '.[].name'",
		Args:    args(0, 0, ""),
		RunE: c.withHomeOf(func(_ context.Context, h *person.Home, _ []string) error {
			s, err := h.Read()
			if err != nil {
				return err
			}
			devices, err := s.Devices()
			if err != nil {
				return err
			}
			return c.print(devices, func(w io.Writer) { printDevices(w, devices) })
		}),
	}))
}

func printDevices(w io.Writer, devices []person.Device) {
	var rows [][]string
	for _, d := range devices {
		role := ""
		switch {
		case d.This && d.Admin:
			role = "this one, admin"
		case d.This:
			role = "this one"
		case d.Admin:
			role = "admin"
		}
		rows = append(rows, []string{d.Name, d.Addresses[0].String(), d.Addresses[1].String(), d.Added.Format(time.DateOnly), orDash(role)})
	}
	table(w, "NAME IPV4 IPV6 ADDED ROLE", rows)
}
