package host

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/compute/guest"
)

// How long a boot waits for the process to listen: on a port that was
// published, somebody is about to call; one that the image only speaks of may
// never open.
const (
	publishedWait = 30 * time.Second
	exposedWait   = 5 * time.Second
)

// listens returns the TCP ports that the VM's process is expected to open, and
// how long to wait for that.
func (v *vm) listens() ([]uint16, time.Duration) {
	var ports []uint16
	for _, p := range v.rec.Request.Ports {
		if p.Proto == "tcp" && !slices.Contains(ports, p.Guest) {
			ports = append(ports, p.Guest)
		}
	}
	if len(ports) > 0 {
		return ports, publishedWait
	}
	img, err := v.h.cfg.Images.Get(v.rec.ImageID)
	if err != nil {
		return nil, 0
	}
	for _, text := range img.Config.ExposedPorts {
		number, proto, _ := strings.Cut(text, "/")
		n, err := strconv.ParseUint(number, 10, 16)
		if err == nil && n > 0 && (proto == "" || proto == "tcp") {
			ports = append(ports, uint16(n))
		}
	}
	return ports, exposedWait
}

// awaitListening waits until a packet for the VM's process would be taken. It
// is no error if it never is.
func (v *vm) awaitListening(ctx context.Context) {
	ports, most := v.listens()
	if len(ports) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	if err := v.ctl.Listening(ctx, ports); err != nil {
		v.h.log.Info("the process does not listen yet", "vm", v.name, "ports", ports, "err", err)
	}
}

// running returns the client of a VM that runs, waking it if it sleeps, and a
// context that ends when it no longer does.
func (v *vm) running(ctx context.Context, why string) (*guest.Client, context.Context, error) {
	if state, _ := v.now(); state == api.Asleep || state == api.Cold {
		if err := v.wake(ctx, why); err != nil {
			return nil, nil, err
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.state != api.Running || v.ctl == nil || v.session == nil {
		return nil, nil, cloudpal.E("reach "+v.name, cloudpal.Invalid, errors.New("it is "+string(v.state))).
			WithHint("cloudpal vm start " + v.name + " boots it")
	}
	return v.ctl, v.session, nil
}

// signal sends a signal to the VM's process.
func (v *vm) signal(ctx context.Context, name string) error {
	ctl, _, err := v.running(ctx, "to get a signal")
	if err != nil {
		return err
	}
	if err := ctl.Signal(ctx, name); err != nil {
		var no *guest.Refusal
		if errors.As(err, &no) {
			return cloudpal.E("signal "+v.name, cloudpal.Invalid, err)
		}
		return cloudpal.E("signal "+v.name, "", err)
	}
	return nil
}

// serveExec starts a process in the VM and carries its frames, which it does
// not look into: each end checks what it reads.
func (v *vm) serveExec(w http.ResponseWriter, r *http.Request) error {
	q, err := read[guest.ExecRequest](r)
	if err != nil {
		return err
	}
	if len(q.Args) == 0 {
		return cloudpal.E("exec in "+v.name, cloudpal.Invalid, errors.New("no command")).
			WithHint("cloudpal vm exec " + v.name + " COMMAND")
	}
	ctl, session, err := v.running(r.Context(), "to run a command")
	if err != nil {
		return err
	}
	v.mu.Lock()
	v.sessions++
	v.mu.Unlock()
	defer func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.sessions--
	}()
	inside, err := ctl.Exec(session, q)
	if err != nil {
		return cloudpal.E("exec in "+v.name, "", err)
	}
	defer inside.Close()
	w.Header().Set("Connection", "Upgrade")
	w.Header().Set("Upgrade", api.ExecProtocol)
	w.WriteHeader(http.StatusSwitchingProtocols)
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil // the answer is on its way; there is nobody to tell
	}
	defer conn.Close()
	stop := context.AfterFunc(session, func() { conn.Close() })
	defer stop()
	splice(conn, buf.Reader, inside)
	return nil
}

// splice carries bytes both ways until the guest has said all, or either end
// is gone.
func splice(conn net.Conn, fromClient *bufio.Reader, inside io.ReadWriteCloser) {
	var in sync.WaitGroup
	in.Go(func() {
		// An error on one way ends the other.
		_, err := io.Copy(inside, fromClient)
		if err != nil {
			inside.Close()
		}
		var half interface{ CloseWrite() error }
		if h, ok := inside.(interface{ CloseWrite() error }); ok {
			half = h
		}
		if half == nil {
			inside.Close()
			return
		}
		_ = half.CloseWrite()
	})
	_, _ = io.Copy(conn, inside)
	conn.Close()
	in.Wait()
}
