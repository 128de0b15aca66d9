package network_test

import (
	"flag"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/tradle/cloudpal/test/world"
)

func TestMain(m *testing.M) {
	// Most of these wait for minutes to go by, and leave the processors to the one that
	// does not: two of them at a time beside it.
	if err := flag.Set("test.parallel", "3"); err != nil {
		panic(err)
	}
	world.Main(m)
}

// The world that the other tests stand on is itself tried: places reach each
// other by IPv4 and IPv6, also after a move and a cut.
func TestPlacesReachEachOther(t *testing.T) {
	t.Parallel()
	i := world.NewInternet(t)
	a, b := i.Join(), i.Join()
	ping := func() {
		t.Helper()
		a.Run("ping", "-c1", "-W2", b.V4.String())
		a.Run("ping", "-c1", "-W2", b.V6.String())
	}
	ping()
	b.Move()
	ping()
	b.Cut()
	if err := a.Command("ping", "-c1", "-W1", b.V4.String()).Run(); err == nil {
		t.Error("b answers though it is cut off")
	}
	b.Mend()
	ping()
}

func TestDebiansWireGuardConnectsPlaces(t *testing.T) {
	t.Parallel()
	i := world.NewInternet(t)
	a, b := i.Join(), i.Join()
	aKey, aPublic := keys(t)
	bKey, bPublic := keys(t)
	const config = "[Interface]\nPrivateKey = %s\nListenPort = 51820\nAddress = %s/32\n[Peer]\nPublicKey = %s\nAllowedIPs = %s/32\nEndpoint = %s:51820\n"
	w := a.WireGuard(fmt.Sprintf(config, aKey, "10.9.9.1", bPublic, "10.9.9.2", b.V4))
	b.WireGuard(fmt.Sprintf(config, bKey, "10.9.9.2", aPublic, "10.9.9.1", a.V4))
	a.Run("ping", "-c1", "-W2", "10.9.9.2")
	if w.Handshake().IsZero() {
		t.Error("there was no handshake")
	}
}

// keys makes a key pair as a person would.
func keys(t *testing.T) (private, public string) {
	t.Helper()
	out, err := exec.Command("wg", "genkey").Output()
	if err != nil {
		t.Fatal(err)
	}
	pub := exec.Command("wg", "pubkey")
	pub.Stdin = strings.NewReader(string(out))
	p, err := pub.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out)), strings.TrimSpace(string(p))
}
