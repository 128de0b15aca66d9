package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal/compute/guest"
)

// writeEtc gives the image the three files that say where it is. They are laid
// over its own, in memory: nothing of them is written to the volume but the
// empty files that they are laid over.
func writeEtc(cfg guest.Config) error {
	const dir = "/dev/shm/.etc"
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	for name, text := range map[string]string{
		"hostname":    cfg.Hostname + "\n",
		"hosts":       hosts(cfg),
		"resolv.conf": resolvConf(cfg.Net),
	} {
		src := filepath.Join(dir, name)
		if err := os.WriteFile(src, []byte(text), 0o644); err != nil {
			return err
		}
		if err := bindFile(src, "/etc/"+name); err != nil {
			return err
		}
	}
	return os.RemoveAll(dir)
}

// bindFile lays src over path, which is made where the image has none.
func bindFile(src, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if _, err := os.Stat(path); err != nil {
		// It may be a symlink that leads nowhere.
		_ = os.Remove(path)
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			return err
		}
	}
	if err := unix.Mount(src, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("lay over %s: %w", path, err)
	}
	return nil
}

func hosts(cfg guest.Config) string {
	var text strings.Builder
	text.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n")
	for _, a := range cfg.Net.Addresses {
		text.WriteString(fmt.Sprintf("%v\t%s\n", a, cfg.Hostname))
	}
	return text.String()
}

func resolvConf(n guest.Net) string {
	var b strings.Builder
	for _, a := range n.DNS {
		fmt.Fprintf(&b, "nameserver %v\n", a)
	}
	return b.String()
}
