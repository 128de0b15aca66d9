package core_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal/identity"
)

// echo answers UDP and TCP at a port of a place: it sends back what comes.
func echo(t *testing.T, inside func(func() error) error, addr string) {
	t.Helper()
	err := inside(func() error {
		packets, err := net.ListenPacket("udp", addr)
		if err != nil {
			return err
		}
		conns, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		t.Cleanup(func() { packets.Close(); conns.Close() })
		go func() {
			buf := make([]byte, 2000)
			for {
				n, from, err := packets.ReadFrom(buf)
				if err != nil {
					return
				}
				packets.WriteTo(buf[:n], from)
			}
		}()
		go func() {
			for {
				c, err := conns.Accept()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					fmt.Fprintln(c, c.RemoteAddr().(*net.TCPAddr).IP)
					io.Copy(c, c)
				}()
			}
		}()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// says sends a word over TCP or UDP and returns the answer.
func (d *device) says(network, addr, word string, timeout time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	c, err := d.Dial(ctx, network, addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(timeout))
	if _, err := io.WriteString(c, word); err != nil {
		return "", err
	}
	buf := make([]byte, 200)
	n, err := c.Read(buf)
	first, _, _ := strings.Cut(string(buf[:n]), "\n") // by TCP, who it is seen as
	return first, err
}

func TestDevicesReachEachOther(t *testing.T) {
	t.Parallel()
	r, laptop, phone := twoDevices(t)
	for _, at := range []netip.Addr{phone.Addr, phone.Addr6} {
		echo(t, phone.Inside, netip.AddrPortFrom(at, 9000).String())
	}
	// A device that has not spoken since the core was unlocked, nobody can
	// find: it speaks first.
	phone.Run("ping", "-c1", "-W10", "10.77.88.1")
	phone.Run("ping", "-c1", "-W10", "fd77:1234:5678::1")
	for _, at := range []netip.Addr{phone.Addr, phone.Addr6} {
		addr := netip.AddrPortFrom(at, 9000).String()
		if got, err := laptop.says("udp", addr, "hello", 10*time.Second); got != "hello" {
			t.Errorf("udp %s: %q %v", addr, got, err)
		}
		if got, err := laptop.says("tcp", addr, "hello", 10*time.Second); got != laptop.Addr.String() && got != laptop.Addr6.String() {
			t.Errorf("tcp %s: it sees %q, %v", addr, got, err)
		}
	}
	for name, want := range map[string]string{"pal": "10.77.88.1", "phone.pal": phone.Addr.String(), "laptop.pal": laptop.Addr.String()} {
		got, err := laptop.lookup(name)
		if err != nil || got != want {
			t.Errorf("%s is %q, %v; want %s", name, got, err, want)
		}
	}
	var pal struct {
		Devices []struct {
			Name      string
			Received  int64
			Handshake time.Time
		}
	}
	text, err := phone.get("/v1/pal", 20*time.Second)
	r.must(err)
	r.must(json.Unmarshal([]byte(text), &pal))
	for _, d := range pal.Devices {
		if d.Received == 0 || time.Since(d.Handshake).Abs() > time.Minute {
			t.Errorf("the core says of %s: %+v", d.Name, d)
		}
	}
}

// lookup asks the core for a name's IPv4 address.
func (d *device) lookup(name string) (string, error) {
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return d.Dial(ctx, network, "10.77.88.1:53")
	}}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	addrs, err := resolver.LookupNetIP(ctx, "ip4", name+".")
	if err != nil || len(addrs) == 0 {
		return "", err
	}
	return addrs[0].Unmap().String(), nil
}

// A revoked device is cut off at once, in the midst of what it was doing, and
// cannot bring itself back.
func TestRevocationCutsOff(t *testing.T) {
	t.Parallel()
	r, ann := newRig(t), newPerson(t)
	key := identity.NewDeviceKey()
	ann.add("phone", key, true)
	r.start(ann)
	r.mustUnlock(ann)
	laptop := r.device(ann, "laptop", ann.laptop, false)
	phone := r.device(ann, "phone", key, false)
	echo(t, laptop.Inside, netip.AddrPortFrom(laptop.Addr, 9000).String())
	laptop.Run("ping", "-c1", "-W10", "10.77.88.1")
	conn, err := phone.Dial(t.Context(), "tcp", netip.AddrPortFrom(laptop.Addr, 9000).String())
	r.must(err)
	defer conn.Close()
	talk := func() error {
		conn.SetDeadline(time.Now().Add(3 * time.Second))
		if _, err := conn.Write([]byte("still here?")); err != nil {
			return err
		}
		_, err := conn.Read(make([]byte, 100))
		return err
	}
	r.must(talk())
	before := *ann
	d, _ := ann.list.Device("phone")
	ann.revoke(d.ID)
	_, err = laptop.do("POST", "/v1/list", ann.list.Bytes(), 30*time.Second)
	r.must(err)
	if err := talk(); err == nil {
		if err := talk(); err == nil { // an answer may have been on its way
			t.Error("the revoked phone still speaks on its connection")
		}
	}
	if _, err := phone.get("/", 3*time.Second); err == nil {
		t.Error("the revoked phone still reaches the core")
	}
	if _, err := laptop.lookup("phone.pal"); err == nil {
		t.Error("the revoked phone still has a name")
	}
	// Lists that are older, contradict the core's, or are nobody's, are not
	// taken, whoever brings them.
	fork := before
	fork.add("other", identity.NewDeviceKey(), false)
	long := append(ann.list.Bytes(), ann.list.Bytes()[:200]...)
	for name, data := range map[string][]byte{"older": before.list.Bytes(), "a fork": fork.list.Bytes(), "forged": long, "none": nil} {
		if _, err := laptop.do("POST", "/v1/list", data, 30*time.Second); err == nil {
			t.Errorf("a list that is %s was taken", name)
		}
	}
	got, err := laptop.get("/v1/list", 20*time.Second)
	r.must(err)
	if got != string(ann.list.Bytes()) {
		t.Error("the core has not the list that it took")
	}
}

// The internet is behind the core for devices that are let out, and for no
// others; they appear as the pal's host there.
func TestExit(t *testing.T) {
	t.Parallel()
	r, ann := newRig(t), newPerson(t)
	key := identity.NewDeviceKey()
	phoneID := ann.add("phone", key, false).ID
	r.start(ann)
	r.mustUnlock(ann)
	web := r.net.Join()
	echo(t, web.Inside, netip.AddrPortFrom(web.V4, 80).String())
	laptop := r.device(ann, "laptop", ann.laptop, false)
	phone := r.device(ann, "phone", key, true)
	phone.lead(web.V4.String())
	site := netip.AddrPortFrom(web.V4, 80).String()
	visit := func() (string, error) { return phone.says("tcp", site, "hello", 4*time.Second) }
	exit := func(d *device, on bool) error {
		_, err := d.do("POST", "/v1/devices/"+phoneID.String()+"/exit", fmt.Appendf(nil, `{"on":%t}`, on), 30*time.Second)
		return err
	}
	phone.Run("ping", "-c1", "-W10", "10.77.88.1")
	if got, err := visit(); err == nil {
		t.Errorf("a device that is not let out reaches the internet: %q", got)
	}
	if err := exit(phone, true); err == nil {
		t.Error("a device that is no admin has let itself out")
	}
	r.must(exit(laptop, true))
	got, err := visit()
	if err != nil || got != r.host.V4.String() {
		t.Errorf("the internet sees %q, %v; want the host's %v", got, err, r.host.V4)
	}
	// It is kept, and ends at once.
	r.reboot()
	r.mustUnlock(ann)
	r.Eventually(30*time.Second, "the phone is still let out", func() error { _, err := visit(); return err })
	conn, err := phone.Dial(t.Context(), "tcp", site)
	r.must(err)
	defer conn.Close()
	talk := bufio.NewReader(conn)
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	_, err = talk.ReadString('\n')
	r.must(err)
	r.must(exit(laptop, false))
	conn.SetDeadline(time.Now().Add(3 * time.Second))
	io.WriteString(conn, "anybody?\n")
	if answer, err := talk.ReadString('\n'); err == nil {
		t.Errorf("a connection outlives the exit: %q", answer)
	}
}
