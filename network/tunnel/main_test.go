//go:build linux

package tunnel

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal/test/apart"
)

func TestMain(m *testing.M) {
	apart.Main(m, unix.CLONE_NEWNET|unix.CLONE_NEWNS, func() error {
		// "ip netns" and wireguard-go then have their own places, too.
		for _, dir := range []string{"/run/netns", "/run/wireguard"} {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			if err := unix.Mount("none", dir, "tmpfs", 0, ""); err != nil {
				return err
			}
		}
		for path, text := range map[string]string{string(resolvConf): ownResolv, string(etcHosts): ownHosts} {
			if err := mountFile(path, text); err != nil {
				return err
			}
		}
		return nil
	})
}

const (
	ownResolv = "nameserver 192.0.2.53\n"
	ownHosts  = "127.0.0.1\tlocalhost\n"
)

// mountFile has a path lead to a file of our own, which the mount keeps.
func mountFile(path, text string) error {
	f, err := os.CreateTemp("", "cloudpal-")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		return err
	}
	return unix.Mount(f.Name(), path, "", unix.MS_BIND, "")
}
