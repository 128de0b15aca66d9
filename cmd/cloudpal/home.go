package main

import (
	"errors"
	"os"
	"os/user"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/person"
)

// withHome adds --home to a command of a person's.
func (c *cli) withHome(cmd *cobra.Command) *cobra.Command {
	cmd.Flags().StringVar(&c.home, "home", c.lookup("CLOUDPAL_HOME", ""), "`DIR` of this device's keys (default: ~/.local/share/cloudpal)")
	return cmd
}

// homeDir returns where the home is, and whose it becomes where it is made: by
// sudo, it is that of who called sudo.
func (c *cli) homeDir() (dir string, own person.Owner, err error) {
	own = person.Me()
	called := c.caller()
	if called != nil {
		if own.UID, err = strconv.Atoi(called.Uid); err == nil {
			own.GID, err = strconv.Atoi(called.Gid)
		}
		if err != nil {
			return "", own, cloudpal.E("find who called sudo", cloudpal.Invalid, err)
		}
	}
	switch {
	case c.home != "":
		dir, err = filepath.Abs(c.home)
		return dir, own, err
	case called != nil:
		return filepath.Join(called.HomeDir, ".local", "share", "cloudpal"), own, nil
	}
	if data := c.lookup("XDG_DATA_HOME", ""); filepath.IsAbs(data) {
		return filepath.Join(data, "cloudpal"), own, nil
	}
	base := c.lookup("HOME", "")
	if !filepath.IsAbs(base) {
		return "", own, cloudpal.E("find your home directory", cloudpal.Missing, errors.New("HOME is not set")).
			WithHint("say where your keys are to be: --home DIR")
	}
	return filepath.Join(base, ".local", "share", "cloudpal"), own, nil
}

// caller is who called sudo, or nil.
func (c *cli) caller() *user.User {
	id := c.lookup("SUDO_UID", "")
	if os.Geteuid() != 0 || id == "" || id == "0" {
		return nil
	}
	u, err := user.LookupId(id)
	if err != nil || u.HomeDir == "" {
		return nil
	}
	return u
}

// openHome opens the home of a person who has one.
func (c *cli) openHome() (*person.Home, error) {
	dir, _, err := c.homeDir()
	if err != nil {
		return nil, err
	}
	return person.OpenHome(dir)
}
