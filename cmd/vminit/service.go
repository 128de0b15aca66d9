package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal/compute/guest"
)

// A service answers the host.
type service struct {
	cfg    guest.Config
	disks  []*os.File
	reaper *reaper
	log    *ring
	main   *mainProcess
	mail   *mailbox
	self   *self
	off    sync.Once
}

func newService(cfg guest.Config, disks []*os.File) *service {
	s := &service{
		cfg: cfg, disks: disks, reaper: newReaper(), log: newRing(),
		self: &self{newDesk(), newDiary()},
	}
	s.main = newMainProcess(s.reaper, s.log)
	return s
}

// listen serves TCP and UDP on the link-local address, and returns a channel
// that is closed after the first hello.
func (s *service) listen() (greeted <-chan struct{}, err error) {
	mac, err := net.ParseMAC(s.cfg.Net.MAC)
	if err != nil {
		return nil, err
	}
	addr := netip.AddrPortFrom(guest.LinkLocal(mac).WithZone(device), guest.Port)
	l, err := net.ListenTCP("tcp6", net.TCPAddrFromAddrPort(addr))
	if err != nil {
		return nil, err
	}
	g, err := newGreeter(s.self.diary)
	if err != nil {
		return nil, err
	}
	if greeted, err = awaitHellos(addr, g); err != nil {
		return nil, err
	}
	s.mail = openMailbox(g)
	server := &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: 10 * time.Second,
		MaxHeaderBytes:    16 << 10,
	}
	go server.Serve(hostOnly{l})
	if err := s.self.serve(guest.SelfSocket); err != nil {
		// An image may have a /run that is none; its process runs all the same.
		fmt.Fprintf(os.Stderr, "vminit: listen to this guest's programs: %v\n", err)
	}
	return greeted, nil
}

// hostOnly accepts connections of the host and closes all others: a process of
// the guest cannot reach the control protocol through the guest's own address.
type hostOnly struct{ *net.TCPListener }

func (l hostOnly) Accept() (net.Conn, error) {
	for {
		conn, err := l.AcceptTCP()
		if err != nil {
			return nil, err
		}
		if fromHost(conn.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()) {
			return conn, nil
		}
		conn.Close()
	}
}

func fromHost(a netip.Addr) bool { return a == guest.HostAddr.WithZone(device) }

func (s *service) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, r *http.Request) { reply(w, s.main.status()) })
	mux.HandleFunc("GET /wait", s.wait)
	mux.HandleFunc("GET /usage", func(w http.ResponseWriter, r *http.Request) { reply(w, usage()) })
	mux.HandleFunc("GET /listening", s.listening)
	mux.HandleFunc("GET /logs", s.logs)
	mux.HandleFunc("POST /signal", s.signal)
	mux.HandleFunc("POST /stop", s.stop)
	mux.HandleFunc("POST /exec", s.exec)
	mux.HandleFunc("POST /prepare-suspend", func(w http.ResponseWriter, r *http.Request) {
		reply(w, s.self.desk.wishes(time.Now()))
		_ = http.NewResponseController(w).Flush()
		prepareSuspend()
		reply(w, s.self.desk.wishes(time.Now())) // as they are by now
		s.mail.watch()
	})
	mux.HandleFunc("GET /wishes", func(w http.ResponseWriter, r *http.Request) { reply(w, s.self.desk.wishes(time.Now())) })
	mux.HandleFunc("POST /poweroff", s.powerOff)
	return mux
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

// wait answers when the process has ended. Headers go out at once, so that the
// host knows that it is heard.
func (s *service) wait(w http.ResponseWriter, r *http.Request) {
	_ = http.NewResponseController(w).Flush()
	select {
	case <-s.main.ended:
		reply(w, s.main.status().Exit)
	case <-r.Context().Done():
	}
}

// listeningPoll is how often to look whether the ports are open.
const listeningPoll = 4 * time.Millisecond

func (s *service) listening(w http.ResponseWriter, r *http.Request) {
	want := map[uint16]bool{}
	for text := range strings.SplitSeq(r.URL.Query().Get("ports"), ",") {
		port, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			http.Error(w, "ports are numbers", http.StatusBadRequest)
			return
		}
		want[uint16(port)] = true
	}
	tick := time.NewTicker(listeningPoll)
	defer tick.Stop()
	for !allListen(want) {
		select {
		case <-tick.C:
		case <-s.main.ended:
			return
		case <-r.Context().Done():
			return
		}
	}
}

func (s *service) logs(w http.ResponseWriter, r *http.Request) {
	from, err := strconv.ParseInt(r.URL.Query().Get("from"), 10, 64)
	if err != nil {
		http.Error(w, "from is an offset", http.StatusBadRequest)
		return
	}
	out, enc := http.NewResponseController(w), json.NewEncoder(w)
	_ = out.Flush()
	_ = s.log.from(r.Context(), from, func(e guest.LogEntry) error {
		if err := enc.Encode(e); err != nil {
			return err
		}
		return out.Flush()
	})
}

func (s *service) signal(w http.ResponseWriter, r *http.Request) {
	sig, err := parseSignal(r.URL.Query().Get("name"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if err := s.main.signal(sig); err != nil {
		http.Error(w, err.Error(), http.StatusConflict)
	}
}

// stop asks the process to end, then makes it.
func (s *service) stop(w http.ResponseWriter, r *http.Request) {
	timeout, err := time.ParseDuration(r.URL.Query().Get("timeout"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if s.cfg.Process.StopTimeout > 0 {
		timeout = s.cfg.Process.StopTimeout
	}
	sig := unix.SIGTERM
	if own, err := parseSignal(s.cfg.Process.StopSignal); err == nil {
		sig = own
	}
	_ = s.main.signal(sig)
	select {
	case <-s.main.ended:
	case <-time.After(timeout):
		_ = s.main.signal(unix.SIGKILL)
		<-s.main.ended
	case <-r.Context().Done():
		return
	}
	reply(w, s.main.status().Exit)
}

// parseSignal reads "SIGTERM", "TERM", "15", "SIGRTMIN+3" and "SIGRTMAX-3".
func parseSignal(name string) (unix.Signal, error) {
	text := strings.TrimPrefix(strings.ToUpper(strings.TrimSpace(name)), "SIG")
	if n, err := strconv.Atoi(text); err == nil && n > 0 && n <= maxSignal {
		return unix.Signal(n), nil
	}
	if rest, ok := strings.CutPrefix(text, "RTMIN"); ok {
		n, err := strconv.Atoi("0" + strings.TrimPrefix(rest, "+"))
		if err == nil && rtMin+n <= maxSignal {
			return unix.Signal(rtMin + n), nil
		}
	}
	if rest, ok := strings.CutPrefix(text, "RTMAX"); ok {
		n, err := strconv.Atoi("0" + strings.TrimPrefix(rest, "-"))
		if err == nil && maxSignal-n >= rtMin {
			return unix.Signal(maxSignal - n), nil
		}
	}
	if sig := unix.SignalNum("SIG" + text); sig != 0 && text != "" {
		return sig, nil
	}
	return 0, fmt.Errorf("no signal is called %.40q", name)
}

// Linux's real-time signals, as glibc numbers them.
const (
	rtMin     = 34
	maxSignal = 64
)
