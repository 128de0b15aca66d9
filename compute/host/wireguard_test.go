package host

import (
	"net"
	"strings"
	"testing"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute/api"
)

func TestWireGuardPortsAreChosenAndKept(t *testing.T) {
	t.Parallel()
	h := &Host{vms: map[string]*vm{}}
	take := func(name string, port uint16) (*api.WireGuard, error) {
		asked := api.WireGuard{PublicKey: make([]byte, 32), Port: 51820, HostPort: port}
		q := api.CreateRequest{Name: name, WireGuard: &asked}
		err := h.choosePort(&q)
		if asked.HostPort != port {
			t.Errorf("%s: the caller's request was changed", name)
		}
		if err == nil {
			h.vms[name] = &vm{name: name, rec: record{Request: q}}
		}
		return q.WireGuard, err
	}
	a, err := take("a", 0)
	if err != nil || a.HostPort < firstPort {
		t.Fatalf("got %+v, %v", a, err)
	}
	b, err := take("b", 0)
	if err != nil || b.HostPort <= a.HostPort {
		t.Errorf("the second has %+v, %v; the first has %d", b, err, a.HostPort)
	}
	if _, err := take("c", a.HostPort); cloudpal.KindOf(err) != cloudpal.Busy || cloudpal.HintOf(err) == "" || !strings.Contains(err.Error(), "vm a") {
		t.Errorf("another VM's port: got %v (hint %q)", err, cloudpal.HintOf(err))
	}
	// One that any program listens on, on one address only.
	taken, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	port := uint16(taken.LocalAddr().(*net.UDPAddr).Port)
	if _, err := take("d", port); cloudpal.KindOf(err) != cloudpal.Busy || cloudpal.HintOf(err) == "" {
		t.Errorf("another program's port: got %v (hint %q)", err, cloudpal.HintOf(err))
	}
}
