package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/corestore"
	"github.com/tradle/cloudpal/data/manifest"
	"github.com/tradle/cloudpal/data/protomux"
)

// dataPort is the TCP port that "serve" listens on where none is named.
const dataPort = 7447

const (
	dialTimeout = 15 * time.Second
	dialPause   = 500 * time.Millisecond
)

// remoteFlags are how a command gets to the other side: one of them.
type remoteFlags struct {
	from   string        // connect there
	listen string        // wait there
	retry  time.Duration // how long to try again once a connection is lost
}

func (r *remoteFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&r.from, "from", "", "`HOST:PORT` where the other side serves it")
	f.StringVar(&r.listen, "listen", "", "TCP `[IP]:PORT` to wait on, for a \"serve --to\" on the other side")
	f.DurationVar(&r.retry, "retry", 30*time.Second, "`TIME` to go on trying when the connection is lost")
}

func (r *remoteFlags) given() bool { return r.from != "" || r.listen != "" }

func (r *remoteFlags) check() error {
	switch {
	case r.from != "" && r.listen != "":
		return usage{errors.New("--from and --listen: give one of them")}
	case r.from != "":
		return checkHostPort("--from", r.from)
	case r.listen != "":
		_, err := listenAddr(r.listen)
		return err
	}
	return usage{errors.New("say where the other side is: --from HOST:PORT, as \"serve\" prints it there")}
}

func checkHostPort(flag, text string) error {
	host, port, err := net.SplitHostPort(text)
	if n, bad := strconv.ParseUint(port, 10, 16); err != nil || bad != nil || n == 0 || host == "" {
		return usage{fmt.Errorf("%s %.80q: write it as 192.168.1.5:%d or laptop:%d", flag, text, dataPort, dataPort)}
	}
	return nil
}

// listenAddr reads what --listen takes; no address stands for all.
func listenAddr(text string) (netip.AddrPort, error) {
	at, err := parseListen(text)
	if err != nil {
		return at, usage{fmt.Errorf("--listen %.60q: write it as :%d, 192.168.1.5:%d or [::1]:%d", text, dataPort, dataPort, dataPort)}
	}
	return at, nil
}

// listen opens a TCP port.
func (c *cli) listen(ctx context.Context, text string) (net.Listener, error) {
	at, err := listenAddr(text)
	if err != nil {
		return nil, err
	}
	address := at.String()
	if at.Addr().IsUnspecified() && at.Addr().Is6() {
		address = fmt.Sprint(":", at.Port()) // IPv4, too
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	switch e := cloudpal.E("listen on "+text, "", err); {
	case err == nil:
		return l, nil
	case errors.Is(err, syscall.EADDRINUSE):
		e.Kind = cloudpal.Busy
		return nil, e.WithHint("another program has that port; take another one, or any free one with --listen :0")
	case errors.Is(err, syscall.EACCES):
		e.Kind = cloudpal.Denied
		return nil, e.WithHint("ports below 1024 are root's; take a higher one")
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, e.WithHint("this machine has no such address; leave it out to listen on all")
	default:
		return nil, e
	}
}

// dial connects.
func dial(ctx context.Context, address string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err == nil {
		return conn, nil
	}
	e := cloudpal.E("connect to "+address, cloudpal.Missing, err)
	var name *net.DNSError
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil, e.WithHint("nothing listens there: start \"serve\" on that machine, and use the line that it prints")
	case errors.As(err, &name):
		return nil, e.WithHint("no machine of that name is known here; use its IP address")
	}
	return nil, e.WithHint("check that both machines are on one network, and that no firewall is between them")
}

// A line is the connection, or the connections, of one command.
type line struct {
	c       *cli
	store   *corestore.Store
	allow   func(manifest.Key) bool
	in, out atomic.Int64

	key     manifest.Key  // of what is wanted, where something is
	joined  chan struct{} // gets one when somebody is there who has it
	refused chan struct{} // gets one when somebody is there who does not
}

// newLine returns a line for what is to be fetched.
func (c *cli) newLine(t *thing) *line {
	return &line{
		c: c, store: t.store, key: t.core.Key(),
		joined: make(chan struct{}, 1), refused: make(chan struct{}, 1),
	}
}

// onCore hears who has what.
func (l *line) onCore(key manifest.Key, ended error) {
	if key != l.key {
		return
	}
	switch {
	case ended == nil:
		signalOnce(l.joined)
	case errors.Is(ended, protomux.ErrRejected):
		signalOnce(l.refused)
	}
}

func signalOnce(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// A counted is a connection whose bytes are counted.
type counted struct {
	net.Conn
	line    *line
	in, out atomic.Int64
}

func (n *counted) Read(p []byte) (int, error) {
	k, err := n.Conn.Read(p)
	n.in.Add(int64(k))
	n.line.in.Add(int64(k))
	return k, err
}

func (n *counted) Write(p []byte) (int, error) {
	k, err := n.Conn.Write(p)
	n.out.Add(int64(k))
	n.line.out.Add(int64(k))
	return k, err
}

// run replicates over one connection until it ends. Talked says that somebody
// who speaks this protocol was there.
func (l *line) run(ctx context.Context, conn *counted, initiator bool) (talked bool, err error) {
	var there atomic.Bool
	err = l.store.Replicate(ctx, conn, corestore.ReplicateOptions{
		Initiator: initiator, Allow: l.allow,
		OnPeer: func([32]byte) { there.Store(true) }, OnCore: l.onCore,
	})
	return there.Load(), err
}

// keep connects to an address, again and again, until ctx ends or the other side
// is gone for longer than retry.
func (l *line) keep(ctx context.Context, address string, retry time.Duration) error {
	var since time.Time // when there was a connection last
	for {
		conn, err := dial(ctx, address)
		if err == nil {
			var talked bool
			talked, err = l.run(ctx, &counted{Conn: conn, line: l}, true)
			if talked {
				since = time.Now()
				l.lost(ctx, err)
			} else {
				err = cloudpal.E("talk to "+address, cloudpal.Invalid, orEnded(err)).
					WithHint("what listens there is no \"cloudpal serve\", or it has too many guests; check the port")
			}
		}
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case since.IsZero(), time.Since(since) >= retry:
			return err
		}
		pause(ctx, dialPause)
	}
}

func (l *line) lost(ctx context.Context, err error) {
	if ctx.Err() == nil {
		l.c.say("the connection ended: %v; trying again", orEnded(err))
	}
}

func orEnded(err error) error {
	if err == nil {
		return errors.New("the other side ended it")
	}
	return err
}

// maxGuests is how many connections are served at a time.
const maxGuests = 100

// serve replicates with all who come, until ctx ends.
func (l *line) serve(ctx context.Context, on net.Listener) error {
	stop := context.AfterFunc(ctx, func() { on.Close() })
	defer stop()
	var guests sync.WaitGroup
	defer guests.Wait()
	places := make(chan struct{}, maxGuests)
	for {
		conn, err := on.Accept()
		switch {
		case ctx.Err() != nil:
			return nil
		case isPassing(err):
			pause(ctx, dialPause)
			continue
		case err != nil:
			return cloudpal.E("wait for connections", "", err)
		}
		select {
		case places <- struct{}{}:
			guests.Go(func() {
				l.guest(ctx, conn)
				<-places
			})
		default:
			conn.Close()
		}
	}
}

// isPassing reports whether it makes sense to accept again.
func isPassing(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ECONNABORTED) ||
		errors.Is(err, os.ErrDeadlineExceeded)
}

// guest replicates with one who came, and says so.
func (l *line) guest(ctx context.Context, conn net.Conn) {
	who, since := conn.RemoteAddr(), time.Now()
	n := &counted{Conn: conn, line: l}
	talked, err := l.run(ctx, n, false)
	switch {
	case !talked && ctx.Err() == nil:
		l.c.say("%v: no peer: %v", who, orEnded(err))
	case talked:
		text := fmt.Sprintf("%v: sent %s, received %s in %s", who, formatSize(n.out.Load()), formatSize(n.in.Load()), formatTime(time.Since(since)))
		if err != nil && ctx.Err() == nil && !errors.Is(err, io.EOF) {
			text += ": " + err.Error()
		}
		l.c.say("%s", text)
	}
}

// with has f done while there is a connection, or while one is tried for. What
// ends the connection for good ends f, and is its error then.
func (l *line) with(ctx context.Context, r remoteFlags, f func(context.Context) error) error {
	var on net.Listener
	if r.listen != "" {
		var err error
		if on, err = l.c.listen(ctx, r.listen); err != nil {
			return err
		}
		l.c.say("waiting on %v", on.Addr())
	}
	ctx, cancel := context.WithCancelCause(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		if on != nil {
			cancel(l.serve(ctx, on))
			return
		}
		cancel(l.keep(ctx, r.from, r.retry))
	})
	err := f(ctx)
	if ctx.Err() != nil && err != nil {
		err = context.Cause(ctx)
	}
	cancel(nil)
	wg.Wait()
	return err
}

// meet waits until somebody is there who has the thing, and says how much of it.
func (t *thing) meet(ctx context.Context, l *line, r remoteFlags) error {
	for met := false; !met; {
		select {
		case <-l.joined:
			met = true
		case <-l.refused:
			err := cloudpal.E(t.kind.text("fetch the KIND ")+t.ref, cloudpal.NotExist, errors.New("the other side answers, and does not serve it")).
				WithHint("compare the key with the one that \"serve\" shows there")
			if r.listen == "" {
				return err
			}
			l.c.say("%v", err)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	_, err := t.core.Update(ctx)
	return err
}
