package host

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal"
)

// lockState makes this agent the only one on its state, as long as the file is
// open.
func lockState(dir string) (*os.File, error) {
	op := "open the host's state in " + dir
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, cloudpal.E(op, cloudpal.Exist, errors.New("another agent uses it")).
				WithHint("cloudpal host status shows it; cloudpal host stop ends it")
		}
		return nil, cloudpal.E(op, "", err)
	}
	return f, nil
}
