package tunnel

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"
)

// setDNS has this machine know the names at the far end. Where everything goes
// into the tunnel, it asks the DNS servers there for all. Else it asks them for
// what ends in .pal, which only systemd-resolved can tell apart; without it the
// names go to /etc/hosts. Its own servers are not given up then: it would lose
// the names of its own network, and each name it looks up would wake the pal.
func (l *link) setDNS(c Config) error {
	switch {
	case len(c.DNS) > 0 && resolved():
		return resolvectl(c)
	case !c.everything():
		l.named = true
		return l.hosts.set(c.Hosts)
	case len(c.DNS) == 0:
		return nil
	}
	if err := l.resolv.replace(c); err != nil {
		return fmt.Errorf("change %s: %w", l.resolv, err)
	}
	return nil
}

func resolved() bool {
	_, err := exec.LookPath("resolvectl")
	_, err2 := os.Stat("/run/systemd/resolve/stub-resolv.conf")
	return err == nil && err2 == nil
}

// resolvectl's settings are gone with the interface.
func resolvectl(c Config) error {
	servers, domains := []string{"dns", LinkName}, []string{"domain", LinkName, "~pal"}
	for _, a := range c.DNS {
		servers = append(servers, a.String())
	}
	if c.everything() {
		domains = append(domains, "~.")
	}
	for _, args := range [][]string{servers, domains} {
		if out, err := exec.Command("resolvectl", args...).CombinedOutput(); err != nil {
			return fmt.Errorf("resolvectl %s: %w: %s", args[0], err, bytes.TrimSpace(out))
		}
	}
	return nil
}

// A resolvFile is the path of a resolv.conf(5).
type resolvFile string

const resolvConf resolvFile = "/etc/resolv.conf"

// before is where the file is meanwhile.
func (r resolvFile) before() string { return string(r) + ".before-cloudpal" }

const resolvMark = "# Made by cloudpal connect. What was here before is in "

func (r resolvFile) replace(c Config) error {
	text := []byte(resolvMark + r.before() + "\n")
	for _, a := range c.DNS {
		text = fmt.Appendf(text, "nameserver %s\n", a)
	}
	if err := r.putAside(); err != nil {
		return err
	}
	return os.WriteFile(string(r), text, 0o644)
}

// putAside moves the file, which may be a symbolic link. One that something is
// mounted on, as in a container, is copied.
func (r resolvFile) putAside() error {
	if err := r.restore(); err != nil {
		return err
	}
	err := os.Rename(string(r), r.before())
	if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EXDEV) {
		return copyFile(r.before(), string(r))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return os.WriteFile(r.before(), nil, 0o644)
	}
	return err
}

// restore puts the file back, if it was put aside. Where somebody else has
// written another one since, that one stays.
func (r resolvFile) restore() error {
	if _, err := os.Lstat(r.before()); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	now, err := os.ReadFile(string(r))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if len(now) > 0 && !bytes.HasPrefix(now, []byte(resolvMark)) {
		return os.Remove(r.before())
	}
	err = os.Rename(r.before(), string(r))
	if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EXDEV) {
		if err = copyFile(string(r), r.before()); err == nil {
			err = os.Remove(r.before())
		}
	}
	return err
}

// copyFile writes into what is at to, and syncs it: from is removed next.
func copyFile(to, from string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return writeSynced(to, data)
}
