package host

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/tradle/cloudpal"
)

// Listen opens the agent's socket for root alone. A socket that another agent
// answers on is refused; one that nobody answers on is replaced.
func Listen(path string) (net.Listener, error) {
	op := "listen on " + path
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	if c, err := net.DialTimeout("unix", path, time.Second); err == nil {
		c.Close()
		return nil, cloudpal.E(op, cloudpal.Exist, errors.New("an agent already runs")).
			WithHint("cloudpal host status shows it; cloudpal host stop ends it")
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, cloudpal.E(op, "", err)
	}
	// The socket must never be there with other rights: make it in a place
	// nobody can enter, then move it.
	dir, err := os.MkdirTemp(filepath.Dir(path), ".socket-")
	if err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	defer os.RemoveAll(dir)
	tmp := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: tmp, Net: "unix"})
	if err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Chmod(tmp, 0o600), os.Rename(tmp, path)); err != nil {
		l.Close()
		return nil, cloudpal.E(op, "", err)
	}
	return l, nil
}

// shutdownTimeout bounds how long an ending agent waits for its clients.
const shutdownTimeout = 2 * time.Second

// Serve answers on l until ctx ends, then lets go of the VMs, which go on
// without it.
func (h *Host) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler:           h.Handler(),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	var err error
	select {
	case <-ctx.Done():
	case err = <-served:
	}
	// Streams end with the host's context.
	h.stop()
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if server.Shutdown(ending) != nil {
		err = errors.Join(err, server.Close())
	}
	if errors.Is(err, http.ErrServerClosed) {
		err = nil
	}
	return errors.Join(err, h.Close())
}
