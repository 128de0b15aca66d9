package person

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/identity"
	"github.com/tradle/cloudpal/network/overlay"
	"github.com/tradle/cloudpal/network/tunnel"
	"github.com/tradle/cloudpal/person/wallet"
)

// A Mode says what goes through the tunnel.
type Mode string

// The modes.
const (
	OnlyAgent  Mode = ""        // what is asked of the agent: the pal's page, its API
	Overlay    Mode = "overlay" // all that this machine sends to the person's devices
	Everything Mode = "everything"
)

// An Agent is the process that keeps a device and its pal together. Run runs
// it.
type Agent struct {
	home    *Home
	version string
	log     *slog.Logger
	kick    chan struct{} // has the loop look at the pal now
	page    *page

	work    sync.Mutex // held by who changes the pal or the tunnel, one at a time
	refused [32]byte   // guarded by work: head of a list that the core did not take

	paying sync.Mutex // held by who pays the center, one at a time
	tidied time.Time  // guarded by paying: when the wallet was looked through

	mu      sync.Mutex // guards what follows; never held while waiting
	asking  *api.Client
	tun     *tunnel.Tunnel
	mode    Mode
	pal     api.Pal // as the center told last
	seen    time.Time
	woke    api.Event      // the last wake or boot; N is 0 where none is known
	problem error          // why the pal could not be looked at, or unlocked
	purse   *wallet.Wallet // that pays the center; nil where none was needed yet
	poor    error          // why the center could not be paid
}

// NewAgent returns an agent that has not begun, of this version of the program.
func NewAgent(h *Home, version string, log *slog.Logger) *Agent {
	a := &Agent{home: h, version: version, log: log, kick: make(chan struct{}, 1)}
	a.page = newPage(a)
	return a
}

// lockWait is for who only looks whether there is an agent.
const lockWait = time.Second

// Run is the agent's life. It ends with ctx, or when a client asks it to. The
// error is cloudpal.Exist where another agent has the home.
func (a *Agent) Run(ctx context.Context) error {
	const op = "run the agent"
	waiting, cancel := context.WithTimeout(ctx, lockWait)
	unlock, err := a.home.lock(waiting, agentLock)
	cancel()
	if errors.Is(err, errLocked) {
		return cloudpal.E(op, cloudpal.Exist, errors.New("another one has "+a.home.dir))
	}
	if err != nil {
		return cloudpal.E(op, "", err)
	}
	defer unlock()
	if os.Geteuid() == 0 {
		if err := tunnel.Restore(); err != nil {
			a.log.Warn("what an earlier tunnel left is not removed", "err", err)
		}
	}
	l, err := a.home.listen()
	if err != nil {
		return cloudpal.E(op, "", err)
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	var tasks sync.WaitGroup
	tasks.Go(func() { a.loop(ctx) })
	tasks.Go(func() { a.payLoop(ctx) })
	err = serve(ctx, l, a.handler(stop))
	stop()
	tasks.Wait()
	return errors.Join(err, a.page.close(), a.closeTunnel(), a.closePurse())
}

// grace is what requests have to end when the agent does.
const grace = 2 * time.Second

// serve answers until ctx ends.
func serve(ctx context.Context, l net.Listener, handler http.Handler) error {
	s := &http.Server{
		Handler: handler, ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 64 << 10,
		ErrorLog:    slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		BaseContext: func(net.Listener) context.Context { return ctx },
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-ctx.Done()
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		s.Shutdown(last)
		s.Close()
	}()
	err := s.Serve(l)
	if errors.Is(err, http.ErrServerClosed) {
		<-done
		return nil
	}
	return err
}

// DialContext connects to the center, around our own tunnel.
func (a *Agent) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	a.mu.Lock()
	tun := a.tun
	a.mu.Unlock()
	if tun == nil {
		return (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, network, address)
	}
	return tun.Around().DialContext(ctx, network, address)
}

// ask reads the state and returns a client of its center.
func (a *Agent) ask() (*api.Client, State, error) {
	s, err := a.home.Read()
	if err != nil {
		return nil, s, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.asking != nil && a.asking.Address() == s.Center.Address {
		return a.asking, s, nil
	}
	if a.asking != nil {
		a.asking.Close()
	}
	a.asking, err = s.Ask(a)
	return a.asking, s, err
}

// hasten has the loop look at the pal at once.
func (a *Agent) hasten() {
	select {
	case a.kick <- struct{}{}:
	default:
	}
}

// saw keeps what the center says of the pal, and leads the tunnel there.
func (a *Agent) saw(ctx context.Context, s State, p api.Pal) error {
	a.mu.Lock()
	a.pal, a.seen = p, time.Now()
	tun := a.tun
	a.mu.Unlock()
	ways := endpoints(p)
	if tun != nil && len(ways) > 0 {
		if err := tun.SetEndpoints(ways); err != nil {
			return err
		}
	}
	if s.Pal == nil || equal(s.Pal.Endpoints, ways) {
		return nil
	}
	return a.home.Change(ctx, func(s *State) error {
		if s.Pal != nil && s.Pal.ID == p.ID {
			s.Pal.Endpoints = ways
		}
		return nil
	})
}

// endpoints are those that a tunnel takes: a center may tell anything.
func endpoints(p api.Pal) (list []netip.AddrPort) {
	for _, e := range p.Endpoints {
		if e.IsValid() && e.Port() != 0 && e.Addr().Zone() == "" && !e.Addr().IsUnspecified() && !e.Addr().IsMulticast() &&
			len(list) < tunnel.MaxEndpoints {
			list = append(list, e)
		}
	}
	return list
}

func equal(a, b []netip.AddrPort) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// openTunnel opens the tunnel in a mode, where it is not open in it. The caller
// holds work.
func (a *Agent) openTunnel(mode Mode) error {
	a.mu.Lock()
	open := a.tun != nil && a.mode == mode && !isClosed(a.tun)
	a.mu.Unlock()
	if open {
		return nil
	}
	s, err := a.home.Read()
	if err != nil {
		return err
	}
	c, err := s.tunnelConfig(mode, a.log)
	if err != nil {
		return err
	}
	if err := a.closeTunnel(); err != nil {
		return err
	}
	opener := tunnel.OpenTUN
	if mode == OnlyAgent {
		opener = tunnel.Open
	}
	t, err := opener(c)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tun, a.mode = t, mode
	return nil
}

func isClosed(t *tunnel.Tunnel) bool {
	select {
	case <-t.Closed():
		return true
	default:
		return false
	}
}

func (a *Agent) closeTunnel() error {
	a.mu.Lock()
	t := a.tun
	a.tun, a.mode = nil, OnlyAgent
	a.mu.Unlock()
	if t == nil {
		return nil
	}
	return t.Close()
}

// tunnelConfig is this device's end.
func (s State) tunnelConfig(mode Mode, log *slog.Logger) (c tunnel.Config, err error) {
	if s.Pal == nil {
		return c, errNoPal
	}
	key, list, self, err := s.self()
	if err != nil {
		return c, err
	}
	secrets, err := s.secrets()
	if err != nil {
		return c, err
	}
	defer secrets.Wipe()
	v4, v6 := list.Network()
	c = tunnel.Config{
		PrivateKey: key.WireGuard(), Addrs: at(list, self.Index), Peer: secrets.WireGuardKey(),
		Routes: []netip.Prefix{v4, v6}, Endpoints: s.Pal.Endpoints, DNS: at(list, identity.CoreIndex), Hosts: hosts(list), Log: log,
	}
	if mode == Everything {
		c.Routes = append(c.Routes, netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0"))
	}
	return c, nil
}

// hosts are the names on the overlay, as the core's DNS server has them.
func hosts(list *identity.List) []tunnel.Host {
	all := []tunnel.Host{{Name: "pal", Addrs: at(list, identity.CoreIndex)}}
	for _, d := range list.Devices() {
		all = append(all, tunnel.Host{Name: d.Name + ".pal", Addrs: at(list, d.Index)})
	}
	return all
}

var errNoPal = cloudpal.E("", cloudpal.NotExist, errors.New("your pal is not made yet")).WithHint("make it: cloudpal up")

// slow is how long a connection to the pal may take before the agent looks
// whether the pal is locked. One that naps has woken by then.
const slow = 2 * time.Second

// dialPal connects to a port of the core.
func (a *Agent) dialPal(ctx context.Context, port uint16) (net.Conn, error) {
	s, err := a.home.Read()
	if err != nil {
		return nil, err
	}
	list, err := identity.ParseList(s.Person, s.List)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	tun := a.tun
	a.mu.Unlock()
	if tun == nil {
		return nil, errNoPal
	}
	defer time.AfterFunc(slow, a.hasten).Stop()
	v4, _ := list.Network()
	return tun.DialContext(ctx, "tcp", netip.AddrPortFrom(overlay.Addr(v4, identity.CoreIndex), port).String())
}

// lower gives root's rights up for good, where the home is a person's who is
// not root: they were for the TUN device.
func (a *Agent) lower() error {
	if os.Geteuid() != 0 || a.home.own.UID == 0 {
		return nil
	}
	err := syscall.Setgroups([]int{a.home.own.GID})
	if err == nil {
		err = syscall.Setgid(a.home.own.GID)
	}
	if err == nil {
		err = syscall.Setuid(a.home.own.UID)
	}
	if err != nil {
		return cloudpal.E("give up root's rights", "", err)
	}
	return nil
}
