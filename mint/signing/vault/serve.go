package vault

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/mint/signing"
)

// Serve is the signer process: it opens the vault in dir, hardens this process,
// and answers a mint that runs as the user uid on a Unix socket, until ctx ends.
// Ready, which may be nil, is called when it answers.
func Serve(ctx context.Context, dir, socket string, uid int, log *slog.Logger, ready func()) (err error) {
	v, err := Open(dir, time.Now, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.Close()) }()
	l, err := listen(socket, uid)
	if err != nil {
		return cloudpal.E("listen on "+socket, "", err)
	}
	defer l.Close()
	if err := Harden(log); err != nil {
		return err
	}
	log.Info("the signer answers", "keys", v.Len())
	if ready != nil {
		ready()
	}
	return signing.Serve(ctx, l, uid, v, log)
}

// listen makes the socket, in the place of one that nobody answers on any more.
func listen(socket string, uid int) (*net.UnixListener, error) {
	if conn, err := net.DialTimeout("unix", socket, time.Second); err == nil {
		return nil, errors.Join(cloudpal.E("", cloudpal.Busy, errors.New("another signer answers there")).WithHint("stop it first"), conn.Close())
	}
	info, err := os.Lstat(socket)
	if err == nil && info.Mode().Type() != fs.ModeSocket {
		return nil, cloudpal.E("", cloudpal.Exist, errors.New("there is something that is no socket")).WithHint("name a path that is free")
	}
	if err == nil {
		if err := os.Remove(socket); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(socket, mode(uid)); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// mode lets the mint's user connect. Where it is not this process's own, all can
// knock, and Serve hangs up on the others.
func mode(uid int) fs.FileMode {
	if uid == os.Geteuid() {
		return 0o600
	}
	return 0o666
}
