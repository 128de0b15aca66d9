//go:build amd64

package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
	hostapi "github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/person"
)

// centerLog is where a center that "up" starts says what it has to say, in its
// state directory.
const centerLog = "center.log"

// localCenter returns this machine's center, and starts it where it does not
// run, and with it the mint whose tickets it takes. At is where it was last.
func (c *cli) localCenter(ctx context.Context, l person.Local, at *api.Address, st *steps) (person.Center, error) {
	center := person.Center{Local: &l}
	a, runs := findLocal(ctx, l, at)
	center.Address = a
	if os.Geteuid() != 0 {
		if runs {
			return center, nil
		}
		return center, cloudpal.E("", cloudpal.Denied, errors.New("a center on this machine needs root, and none runs yet")).
			WithHint("run: sudo cloudpal up")
	}
	_, err := os.Stat(string(ownMintOf(l)))
	minted := !sellsItself(l) && (!runs || err == nil)
	pid := runningAs("--state", l.State, "center")
	if !runs && pid == 0 {
		if err := st.do("checking this machine", func() error { return checkMachine(l) }); err != nil {
			return center, err
		}
	}
	if minted {
		if err := c.ensureMint(ctx, l); err != nil {
			return center, err
		}
	}
	if !runs {
		err := st.do("starting a center", func() (err error) {
			center.Address, err = startCenter(ctx, l, pid)
			return err
		})
		if err != nil {
			return center, err
		}
	}
	l.Grant = nil
	if minted {
		l.Grant, err = readGrant(l)
		return center, err
	}
	return center, nil
}

// runningAs returns the process of our own program that has a verb and a flag with
// that value, such as one that an earlier "up" started that was then killed; 0 where
// there is none. Another user's does not count: whoever has an account on this machine
// can give a process those words.
func runningAs(flag, value string, verb ...string) (pid int) {
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, file := range files {
		// The directory is its user's, whatever it hides of itself (proc(5)).
		info, err := os.Stat(filepath.Dir(file))
		if err != nil || info.Sys().(*syscall.Stat_t).Uid != uint32(os.Geteuid()) {
			continue // it is gone, or a stranger's
		}
		data, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		argv := strings.Split(string(data), "\x00")
		at := slices.Index(argv, flag)
		if len(argv) > len(verb) && slices.Equal(argv[1:1+len(verb)], verb) && at > 0 && at+1 < len(argv) && argv[at+1] == value {
			fmt.Sscan(filepath.Base(filepath.Dir(file)), &pid)
		}
	}
	return pid
}

const findTimeout = 3 * time.Second // for one address of this machine itself

// findLocal looks for a center of this machine that answers: where it was last,
// and where the one says it is that has the run directory.
func findLocal(ctx context.Context, l person.Local, at *api.Address) (a api.Address, ok bool) {
	var tries []api.Address
	if at != nil {
		tries = append(tries, *at)
	}
	if n, err := readNotice(l.Run); err == nil {
		tries = append(tries, near(l, n)...)
	}
	for _, a := range tries {
		ctx, cancel := context.WithTimeout(ctx, findTimeout)
		err := answers(ctx, a)
		cancel()
		if err == nil {
			return a, true
		}
	}
	return a, false
}

// near are the addresses of a center on this machine. The loopback's comes
// first: a laptop that moves keeps it.
func near(l person.Local, n notice) (list []api.Address) {
	for _, text := range l.Listen {
		p, err := parseListen(text)
		if err != nil || !(p.Addr().IsUnspecified() || p.Addr().IsLoopback()) {
			continue
		}
		host := p.Addr()
		if host.IsUnspecified() {
			host = netip.AddrFrom4([4]byte{127, 0, 0, 1})
		}
		list = append(list, api.Address{Host: host.String(), Port: p.Port(), Key: n.Address.Key})
	}
	return append(list, n.Addresses...)
}

// checkMachine says all that is missing for a center, and how to get it.
func checkMachine(l person.Local) error {
	var bad several
	missing := func(what, hint string) {
		bad = append(bad, cloudpal.E("", cloudpal.Missing, errors.New(what)).WithHint(hint))
	}
	if _, err := exec.LookPath("qemu-system-x86_64"); err != nil {
		missing("there is no QEMU, which runs the VMs", "install it, on Debian: sudo apt install qemu-system-x86")
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		missing("there is no /dev/net/tun, which connects the VMs", "load it: sudo modprobe tun; in a container, start that with --device /dev/net/tun")
	}
	for _, find := range []func() error{
		func() error { _, err := findPart("vminit"); return err },
		func() error { _, err := findKernel(os.Getenv("CLOUDPAL_KERNEL")); return err },
		func() error { _, err := findCore(coreOf(l)); return err },
	} {
		if err := find(); err != nil {
			bad = append(bad, err)
		}
	}
	for _, at := range l.Listen {
		listener, err := net.Listen("tcp", at)
		if err != nil {
			bad = append(bad, cannotListen(at, err))
			continue
		}
		listener.Close()
	}
	if len(bad) > 0 {
		return bad
	}
	return nil
}

// coreOf is the image that the center is told to take, or "".
func coreOf(l person.Local) string {
	for i, a := range l.Args {
		if a == "--core" && i+1 < len(l.Args) {
			return l.Args[i+1]
		}
		if path, ok := strings.CutPrefix(a, "--core="); ok {
			return path
		}
	}
	return os.Getenv("CLOUDPAL_CORE")
}

// startCenter starts "cloudpal center" in a session of its own, unless it is
// starting as that process, and waits until it answers.
func startCenter(ctx context.Context, l person.Local, pid int) (a api.Address, err error) {
	const op = "start a center"
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	path := filepath.Join(l.State, centerLog)
	if pid == 0 {
		if pid, err = spawnCenter(l, path); err != nil {
			return a, cloudpal.E(op, "", err)
		}
	}
	if a, err = awaitCenter(ctx, l, pid); err != nil {
		log, openErr := os.Open(path)
		if openErr == nil {
			err = fmt.Errorf("%w%s", err, tail(log))
			log.Close()
		}
		return a, cloudpal.E(op, cloudpal.Other, err).
			WithHint("read all of " + path + ", or run it here to watch it: cloudpal center")
	}
	return a, nil
}

func spawnCenter(l person.Local, path string) (pid int, err error) {
	if err := os.MkdirAll(l.State, 0o711); err != nil {
		return 0, err
	}
	log, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return 0, err
	}
	defer log.Close()
	args := []string{"center", "--json", "--socket", l.Socket, "--state", l.State, "--run", l.Run}
	for _, at := range l.Listen {
		args = append(args, "--listen", at)
	}
	if f := ownMintOf(l); !sellsItself(l) {
		args = append(args, "--tickets", f.path("mint.json"), "--tariff", filepath.Join(l.State, ownTariff))
	}
	cmd, err := background(log, append(args, l.Args...)...)
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return 0, err
	}
	go cmd.Wait() // so that it is seen when it ends
	return cmd.Process.Pid, nil
}

// awaitCenter waits until a center answers that is that process.
func awaitCenter(ctx context.Context, l person.Local, pid int) (api.Address, error) {
	for {
		if n, err := readNotice(l.Run); err == nil && n.PID == pid {
			if a, ok := findLocal(ctx, l, nil); ok {
				return a, nil
			}
		}
		if errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			return api.Address{}, errors.New("it has ended")
		}
		if err := pause(ctx, pollEvery); err != nil {
			return api.Address{}, errors.New("it does not answer")
		}
	}
}

// stopLocal ends the center that "up" started here, if it runs, and its mint. The
// pals on it stay as they are.
func (c *cli) stopLocal(ctx context.Context, l person.Local) error {
	if err := c.stopLocalCenter(ctx, l); err != nil {
		return err
	}
	return c.stopMint(ctx, l)
}

func (c *cli) stopLocalCenter(ctx context.Context, l person.Local) error {
	agent := hostapi.Dial(l.Socket)
	defer agent.Close()
	h, err := agent.Host(ctx)
	if errors.Is(err, hostapi.ErrNoAgent) {
		return nil
	}
	if err != nil {
		return err
	}
	return stopAgent(ctx, agent, h.PID)
}
