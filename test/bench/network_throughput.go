package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/test/world"
)

// What is sent at a time, in bytes, and how often.
const (
	bulk       = 8 << 20
	bulkRounds = 5
	post       = 1 << 20 // the most that a core takes at once
	posts      = 8
)

// benchThroughput holds what goes between awake pals and their devices against
// the same guest without an agent: a copy of its memory and disks, in QEMU by
// hand on a plain bridge, with no nftables, reached by the same wireguard-go
// with the same configuration but for the endpoint. They take turns.
func benchThroughput(b *run) error {
	h := world.NewHouse(b, "--armed", "0")
	tablet := h.Net.Join()
	config := h.Laptop.Add("tablet")
	tablet.WireGuard(config)
	addr, _ := h.Laptop.Device("tablet")
	ours := &path{b: b, core: h.Core, phone: h.Phone, tablet: tablet, far: addr}
	theirs := b.byHand(h, config)
	theirs.far = addr
	for _, p := range []*path{ours, theirs} {
		p.open()
	}
	for range bulkRounds {
		for _, p := range []*path{ours, theirs} {
			p.down = append(p.down, p.download())
			p.up = append(p.up, p.upload())
			p.to = append(p.to, p.post())
		}
	}
	const other = "plain bridge, QEMU by hand"
	b.add(least("device to core, POST of 1 MiB each, p50", "MiB/s", median(ours.to), median(theirs.to), other, 0.9),
		least("device to device through the core, download, p50", "MiB/s", median(ours.down), median(theirs.down), other, 0.9),
		least("device to device through the core, upload, p50", "MiB/s", median(ours.up), median(theirs.up), other, 0.9))
	return nil
}

// A path is between two devices and the core of their pal.
type path struct {
	b             *run
	core, far     netip.Addr // far is the tablet's
	phone, tablet *world.Place
	up, down, to  []float64 // MiB/s
}

// open has both devices known to the core, and the tablet serve.
func (p *path) open() {
	for _, device := range []*world.Place{p.phone, p.tablet} {
		if _, err := device.AskCore(p.core, patience); err != nil {
			p.b.Fatal(err)
		}
	}
	var l net.Listener
	p.b.must(p.tablet.Inside(func() (err error) {
		l, err = net.Listen("tcp", p.serves())
		return err
	}))
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			io.Copy(io.Discard, r.Body)
			return
		}
		io.Copy(w, zeros(bulk))
	})}
	go s.Serve(l)
	p.b.Cleanup(func() { s.Close() })
}

func (p *path) serves() string { return net.JoinHostPort(p.far.String(), "8000") }

// zeros is a file of n bytes.
func zeros(n int64) io.Reader { return io.LimitReader(zero{}, n) }

type zero struct{}

func (zero) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// rate is what sending so many bytes by f comes to.
func (p *path) rate(bytes int64, f func(c *http.Client) (*http.Response, error)) float64 {
	c := p.phone.HTTP(2 * time.Minute)
	var got int64
	d, err := timed(func() error {
		r, err := f(c)
		if err != nil {
			return err
		}
		defer r.Body.Close()
		got, err = io.Copy(io.Discard, r.Body)
		return err
	})
	p.b.must(err)
	if got > bytes {
		bytes = got
	}
	return float64(bytes) / (1 << 20) / d.Seconds()
}

func (p *path) download() float64 {
	return p.rate(bulk, func(c *http.Client) (*http.Response, error) { return c.Get("http://" + p.serves() + "/") })
}

func (p *path) upload() float64 {
	return p.rate(bulk, func(c *http.Client) (*http.Response, error) {
		return c.Post("http://"+p.serves()+"/", "application/octet-stream", zeros(bulk))
	})
}

// post sends the core what is no list of devices, which it reads to the end and
// refuses.
func (p *path) post() float64 {
	body := make([]byte, post)
	return p.rate(posts*post, func(c *http.Client) (r *http.Response, err error) {
		for i := range posts {
			if r, err = c.Post("http://"+p.core.String()+"/v1/list", "application/octet-stream", bytes.NewReader(body)); err != nil {
				return nil, err
			}
			if r.StatusCode != http.StatusConflict {
				return nil, fmt.Errorf("a list of zeros: %s", r.Status)
			}
			if i < posts-1 {
				r.Body.Close()
			}
		}
		return r, nil
	})
}

// byHand runs a copy of a house's core on a host without an agent.
func (b *run) byHand(h *world.House, tablet string) *path {
	mac, guest := b.macOf(h.VM(h.Pal)), h.VM(h.Pal).Addresses[0]
	i := world.NewInternet(b)
	host := i.Join()
	h.Sleep(api.Memory)
	p := b.bridged(host, mac, guest)
	b.copyCore(h, p)
	v, err := h.API.Resume(context.Background(), h.Pal)
	b.must(err)
	q, err := p.arm(b.accelerator(h.World))
	b.must(err)
	b.Cleanup(func() { q.kill() })
	b.beside(v.PID, q)
	b.must(q.resumeFrom(p.stateFile()))
	host.Lead(netip.PrefixFrom(guest, guest.BitLen()))
	to := &path{b: b, core: h.Core, phone: i.Join(), tablet: i.Join()}
	at := netip.AddrPortFrom(guest, 51820).String()
	to.phone.WireGuard(endpoint.ReplaceAllString(h.Laptop.Phone, "Endpoint = "+at))
	to.tablet.WireGuard(endpoint.ReplaceAllString(tablet, "Endpoint = "+at))
	return to
}

var endpoint = regexp.MustCompile(`(?m)^Endpoint *=.*$`)

// bridged makes a host by hand, with a guest's tap on a bridge.
func (b *run) bridged(host *world.Place, mac string, guest netip.Addr) *peer {
	p := &peer{netns: host.Netns(), dir: b.tmpfs(), mac: mac, addr: guest, memory: coreMemory}
	b.must(p.inside(func() (err error) {
		p.tap, err = openTap(peerTap)
		return err
	}))
	b.Cleanup(func() { p.tap.Close() })
	for _, line := range []string{
		"link add br0 address 02:c1:0d:ff:ff:ff type bridge",
		"link set dev " + peerTap + " master br0 up",
		"link set dev br0 up",
		"addr add 10.201.0.1/32 dev br0",
		"route add " + guest.String() + "/32 dev br0",
		"neigh replace " + guest.String() + " lladdr " + mac + " dev br0",
	} {
		host.Run("ip", strings.Fields(line)...)
	}
	host.Run("sysctl", "-qw", "net.ipv4.ip_forward=1")
	return p
}

// beside puts a process into a control group of its own, beside that of a VM's
// process: on a busy machine the two have the same share of its cores.
func (b *run) beside(pid int, q *qemu) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	b.must(err)
	for line := range strings.Lines(string(data)) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3) // number, controllers, path
		if part[1] != "cpu" && (part[1] != "" || !strings.HasPrefix(part[2], "/cloudpal/")) {
			continue
		}
		dir := filepath.Join("/sys/fs/cgroup", part[1], filepath.Dir(part[2]), fmt.Sprintf("peer-%d", q.cmd.Process.Pid))
		b.must(os.Mkdir(dir, 0o755))
		b.Cleanup(func() {
			q.kill()
			os.Remove(dir)
		})
		b.must(os.WriteFile(filepath.Join(dir, "cgroup.procs"), fmt.Append(nil, q.cmd.Process.Pid), 0))
	}
}

// copyCore gives the peer what the agent has of a core that naps in memory.
func (b *run) copyCore(h *world.House, p *peer) {
	found, state := b.filesOf(h.World, h.Pal), filepath.Join(h.Dir, "state")
	volume := b.copyOf(filepath.Join(state, "volumes", h.Pal+".raw"), filepath.Join(b.TempDir(), "volume"))
	p.disks = append(found.disks[1:], volume) // a core has no disk of its own
	p.writable = len(p.disks) - 1
	b.copyOf(found.memory, p.memoryFile())
	b.copyOf(found.state, p.stateFile())
	b.greet(p)
}
