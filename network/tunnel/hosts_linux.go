package tunnel

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// A hostsFile is the path of a hosts(5).
type hostsFile string

const etcHosts hostsFile = "/etc/hosts"

const (
	hostsBegin = "# Begin: made by cloudpal connect, and gone after cloudpal disconnect.\n"
	hostsEnd   = "# End: made by cloudpal connect.\n"
)

// set puts names into the file, in place of those that were put there before,
// and leaves the rest of it alone.
func (h hostsFile) set(hosts []Host) error {
	was, err := os.ReadFile(string(h))
	if errors.Is(err, fs.ErrNotExist) && len(hosts) == 0 {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	now := withoutBlock(was)
	if len(hosts) > 0 {
		now = appendBlock(now, hosts)
	}
	if bytes.Equal(was, now) {
		return nil
	}
	return h.write(now)
}

// withoutBlock is a file's text without the lines that are ours.
func withoutBlock(text []byte) []byte {
	begin := bytes.Index(text, []byte(hostsBegin))
	if begin < 0 {
		return slices.Clone(text)
	}
	end := bytes.Index(text[begin:], []byte(hostsEnd))
	if end < 0 {
		return slices.Clone(text[:begin]) // somebody has cut it off
	}
	return slices.Concat(text[:begin], text[begin+end+len(hostsEnd):])
}

func appendBlock(text []byte, hosts []Host) []byte {
	if len(text) > 0 && text[len(text)-1] != '\n' {
		text = append(text, '\n')
	}
	text = append(text, hostsBegin...)
	for _, host := range hosts {
		for _, a := range host.Addrs {
			text = fmt.Appendf(text, "%v\t%s\n", a, host.Name)
		}
	}
	return append(text, hostsEnd...)
}

// write replaces the file so that it is at no time half of it; where something
// is mounted on it, as in a container, it is written over.
func (h hostsFile) write(text []byte) error {
	path, err := filepath.EvalSymlinks(string(h))
	if err != nil {
		path = string(h)
	}
	tmp := path + ".cloudpal"
	if err := writeSynced(tmp, text); err != nil {
		return err
	}
	err = os.Rename(tmp, path)
	if errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EXDEV) {
		err = errors.Join(writeSynced(path, text), os.Remove(tmp))
	}
	return err
}

func writeSynced(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close())
}

// SetHosts changes the names of Config.Hosts.
func (t *Tunnel) SetHosts(hosts []Host) error {
	if t.link == nil || !t.link.named {
		return nil
	}
	return t.link.hosts.set(hosts)
}
