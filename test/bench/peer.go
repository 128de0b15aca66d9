package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A peer is QEMU by hand: what a script would do with the same command line,
// without an agent, a jail, or anything around it.
type peer struct {
	vm     string // whose guest it is
	netns  string
	dir    string // on tmpfs
	tap    *os.File
	memory int64
	disks  []string
	mac    string
	addr   netip.Addr

	writable int // which of the disks is
}

const peerTap = "tap0"

// newPeer makes a network with one tap, over which addr is reached.
func newPeer(b *run, dir, vm, mac string, addr netip.Addr, memory int64, disks []string) *peer {
	p := &peer{vm: vm, netns: fmt.Sprintf("peer-%d", os.Getpid()), dir: dir, mac: mac, addr: addr, memory: memory, disks: disks}
	b.shell("ip", "netns", "add", p.netns)
	b.Cleanup(func() { exec.Command("ip", "netns", "del", p.netns).Run() })
	err := p.inside(func() (err error) {
		p.tap, err = openTap(peerTap)
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { p.tap.Close() })
	for _, line := range []string{
		"link set dev " + peerTap + " address 02:c1:0d:ff:ff:ff",
		"link set dev " + peerTap + " up",
		"addr add fe80::1/64 dev " + peerTap + " nodad",
		"addr add 10.201.0.1/32 dev " + peerTap,
		"route add " + addr.String() + "/32 dev " + peerTap,
		"neigh replace " + addr.String() + " lladdr " + mac + " dev " + peerTap,
	} {
		b.shell("ip", append([]string{"-n", p.netns}, strings.Fields(line)...)...)
	}
	return p
}

func openTap(name string) (*os.File, error) {
	f, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	return f, unix.IoctlIfreq(int(f.Fd()), unix.TUNSETIFF, ifr)
}

// inside runs f on a thread in the peer's network.
func (p *peer) inside(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		ns, err := os.Open("/run/netns/" + p.netns)
		if err == nil {
			defer ns.Close()
			err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET)
		}
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// A qemu is one process of the peer's.
type qemu struct {
	cmd *exec.Cmd
	qmp *net.UnixConn
	in  *bufio.Reader
}

// start runs QEMU with the machine that the agent's driver makes, and more.
func (p *peer) start(accelerator string, more ...string) (*qemu, error) {
	socket := filepath.Join(p.dir, "qmp")
	os.Remove(socket)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return nil, err
	}
	lf, err := l.File()
	if err != nil {
		return nil, err
	}
	args := []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
		"-smp", "1", "-m", strconv.FormatInt(p.memory>>20, 10) + "M",
		"-object", fmt.Sprintf("memory-backend-file,id=ram,mem-path=%s,size=%dM,share=on", p.memoryFile(), p.memory>>20),
		"-M", "microvm,acpi=on,pit=off,pic=off,rtc=on,isa-serial=on,auto-kernel-cmdline=off,memory-backend=ram,ioapic2=off",
		"-chardev", "socket,id=qmp,fd=3,server=on,wait=off", "-mon", "chardev=qmp,mode=control",
		"-serial", "null",
	}
	if accelerator == "kvm" {
		args = append(args, "-accel", "kvm", "-cpu", "host,migratable=on")
	} else {
		args = append(args, "-accel", "tcg,thread=single", "-cpu", "qemu64,+arat")
	}
	last := len(p.disks) + 1
	for i, d := range p.disks {
		drive := fmt.Sprintf("if=none,id=d%d,format=raw,file=%s,file.locking=off", i, d)
		if i != p.writable {
			drive += ",readonly=on"
		}
		args = append(args, "-drive", drive, "-device", fmt.Sprintf("virtio-blk-device,drive=d%d,bus=virtio-mmio-bus.%d", i, last-i))
	}
	args = append(args, "-netdev", "tap,id=net,fd=4",
		"-device", fmt.Sprintf("virtio-net-device,netdev=net,guest_announce=off,mac=%s,bus=virtio-mmio-bus.1", p.mac),
		"-object", "rng-random,id=rng,filename=/dev/urandom",
		"-device", "virtio-rng-device,rng=rng,max-bytes=1024,period=100,bus=virtio-mmio-bus.0")
	cmd := exec.Command("/usr/bin/qemu-system-x86_64", append(args, more...)...)
	cmd.ExtraFiles = []*os.File{lf, p.tap}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	lf.Close()
	l.SetUnlinkOnClose(false)
	l.Close()
	q := &qemu{cmd: cmd}
	if q.qmp, err = net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"}); err != nil {
		return nil, errors.Join(err, q.kill())
	}
	q.in = bufio.NewReader(q.qmp)
	return q, nil
}

func (p *peer) memoryFile() string { return filepath.Join(p.dir, "memory") }
func (p *peer) stateFile() string  { return filepath.Join(p.dir, "state") }

func (q *qemu) kill() error {
	if q.qmp != nil {
		q.qmp.Close()
	}
	q.cmd.Process.Kill()
	q.cmd.Wait()
	return nil
}

// say writes commands, one a line, the first with a file if there is one, and
// waits until what is read contains want.
func (q *qemu) say(text string, file *os.File, want string) error {
	var rights []byte
	if file != nil {
		rights = unix.UnixRights(int(file.Fd()))
	}
	if _, _, err := q.qmp.WriteMsgUnix([]byte(text), rights, nil); err != nil {
		return err
	}
	for {
		line, err := q.in.ReadString('\n')
		if err != nil {
			return err
		}
		if strings.Contains(line, `"error"`) || strings.Contains(line, `"failed"`) {
			return errors.New(strings.TrimSpace(line))
		}
		if strings.Contains(line, want) {
			return nil
		}
	}
}

const (
	qmpReady = `{"execute":"qmp_capabilities"}
{"execute":"migrate-set-capabilities","arguments":{"capabilities":[{"capability":"x-ignore-shared","state":true},{"capability":"events","state":true}]}}
{"execute":"migrate-set-parameters","arguments":{"max-bandwidth":1099511627776},"id":"ready"}
`
	qmpLoad = `{"execute":"getfd","arguments":{"fdname":"s"}}
{"execute":"migrate-incoming","arguments":{"uri":"fd:s"}}
`
	qmpCont = `{"execute":"cont","id":"cont"}
`
	qmpSave = `{"execute":"getfd","arguments":{"fdname":"s"}}
{"execute":"stop"}
{"execute":"migrate","arguments":{"uri":"fd:s"}}
`
)

// arm starts a process that waits for the state.
func (p *peer) arm(accelerator string) (*qemu, error) {
	q, err := p.start(accelerator, "-incoming", "defer")
	if err != nil {
		return nil, err
	}
	return q, q.say(qmpReady, nil, `"ready"`)
}

// resumeFrom loads the state in a file and lets the guest run.
func (q *qemu) resumeFrom(path string) error {
	state, err := os.Open(path)
	if err != nil {
		return err
	}
	defer state.Close()
	if err := q.say(qmpLoad, state, `"completed"`); err != nil {
		return err
	}
	return q.say(qmpCont, nil, `"cont"`)
}

// suspend saves the state and ends the process.
func (q *qemu) suspend(state *os.File) error {
	if err := q.say(qmpSave, state, `"completed"`); err != nil {
		return err
	}
	return q.kill()
}

// ask sends a request and waits for the first byte of the answer. A guest that
// boots does not answer at once, and the kernel would ask again only after a
// second: ask begins another connection every few milliseconds, and takes the
// first that is made.
func (p *peer) ask(port uint16) error {
	return p.inside(func() error {
		conn, err := p.connect(port)
		if err != nil {
			return err
		}
		defer conn.Close()
		return firstByte(conn)
	})
}

// knock is how often a connection is begun.
const knock = 5 * time.Millisecond

func (p *peer) connect(port uint16) (net.Conn, error) {
	var begun []unix.PollFd
	defer func() {
		for _, c := range begun {
			unix.Close(int(c.Fd))
		}
	}()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		fd, err := p.begin(port)
		if err != nil {
			return nil, err
		}
		begun = append(begun, unix.PollFd{Fd: int32(fd), Events: unix.POLLOUT})
		if len(begun) > 200 {
			unix.Close(int(begun[0].Fd))
			begun = begun[1:]
		}
		if _, err := unix.Poll(begun, int(knock.Milliseconds())); err != nil && !errors.Is(err, unix.EINTR) {
			return nil, err
		}
		if conn := made(begun); conn != nil {
			return conn, nil
		}
	}
	return nil, errors.New("the peer's guest does not answer within 30 s")
}

// begin starts to connect.
func (p *peer) begin(port uint16) (fd int, err error) {
	fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, err
	}
	err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(port), Addr: p.addr.As4()})
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		unix.Close(fd)
		return 0, err
	}
	return fd, nil
}

// made returns the first connection that is made, or nil.
func made(begun []unix.PollFd) net.Conn {
	for _, c := range begun {
		if c.Revents&unix.POLLOUT == 0 {
			continue
		}
		if failed, err := unix.GetsockoptInt(int(c.Fd), unix.SOL_SOCKET, unix.SO_ERROR); err != nil || failed != 0 {
			continue
		}
		// One that was refused has told so, and is writable from then on.
		if _, err := unix.Getpeername(int(c.Fd)); err != nil {
			continue
		}
		fd, err := unix.Dup(int(c.Fd))
		if err != nil {
			return nil
		}
		f := os.NewFile(uintptr(fd), "connection")
		defer f.Close()
		conn, err := net.FileConn(f)
		if err != nil {
			return nil
		}
		return conn
	}
	return nil
}

// shell runs a command that must work.
func (b *run) shell(name string, args ...string) string {
	var out bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		b.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, &out)
	}
	return out.String()
}
