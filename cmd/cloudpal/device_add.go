package main

import (
	"context"
	"errors"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/person"
)

const deviceAddHelp = `Add a phone, or anything else that has the WireGuard app, and show its QR code. Its
keys are made here and shown this once. With --conf the configuration goes to a
file, for wg-quick or an import.

With --full all of the device's traffic goes through your pal.`

func (c *cli) deviceAdd() *cobra.Command {
	var file string
	var full, words bool
	cmd := c.withHome(c.withJSON(&cobra.Command{
		Use: "add NAME", Short: "Add a device and show its QR code", Long: deviceAddHelp,
		Example: "  cloudpal device add phone\n  cloudpal device add nas --conf nas.conf",
		Args:    deviceArgs(1, "the NAME of the device"),
		RunE: c.askDevice(func(ctx context.Context, h *person.Home, agent *person.Client, names []string) error {
			if err := c.confirm(ctx, h, words); err != nil {
				return err
			}
			f, err := newSecretFile(file)
			if err != nil {
				return err
			}
			d, err := agent.Add(ctx, person.AddRequest{Name: names[0], Full: full})
			if err == nil && f != nil {
				err = writeAll(f, d.Config)
				d.Config = ""
			}
			if err != nil {
				return errors.Join(err, discard(f))
			}
			c.sayDelivered(d)
			return c.print(d, func(w io.Writer) {
				if f == nil {
					printQR(w, d.Config)
				}
			})
		}),
	}))
	cmd.Flags().StringVar(&file, "conf", "", "`FILE` to write the configuration to, which must not exist; it holds the device's private key")
	cmd.Flags().BoolVar(&full, "full", false, "all of its traffic goes through your pal")
	c.phraseFlag(cmd, &words)
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	return cmd
}

// newSecretFile makes a file that only its owner can read, before anything is
// done that it is to keep. It is nil for "".
func newSecretFile(path string) (*os.File, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, cloudpal.E("write the configuration", cloudpal.Invalid, err)
	}
	return f, nil
}

func writeAll(f *os.File, text string) error {
	_, err := io.WriteString(f, text)
	return errors.Join(err, f.Sync(), f.Close())
}

func discard(f *os.File) error {
	if f == nil {
		return nil
	}
	f.Close()
	return os.Remove(f.Name())
}
