package host

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/compute/guest"
	"github.com/tradle/cloudpal/compute/image"
)

func TestProcessIsTheImagesWithTheRequestsChanges(t *testing.T) {
	t.Parallel()
	img := image.Config{
		Entrypoint: []string{"entry"}, Cmd: []string{"cmd"}, Env: []string{"A=1", "B=2"},
		User: "www", WorkingDir: "/srv", StopSignal: "SIGQUIT",
	}
	own := guest.Process{
		Args: []string{"entry", "cmd"}, Env: []string{"A=1", "B=2"}, User: "www", Dir: "/srv", StopSignal: "SIGQUIT",
	}
	for _, c := range []struct {
		what   string
		q      api.CreateRequest
		change func(p *guest.Process)
	}{
		{"no change", api.CreateRequest{}, func(p *guest.Process) {}},
		{"arguments replace Cmd", api.CreateRequest{Args: []string{"x", "y"}}, func(p *guest.Process) { p.Args = []string{"entry", "x", "y"} }},
		{"an entrypoint replaces both", api.CreateRequest{Entry: []string{"e"}}, func(p *guest.Process) { p.Args = []string{"e"} }},
		{"and has the arguments", api.CreateRequest{Entry: []string{"e"}, Args: []string{"x"}}, func(p *guest.Process) { p.Args = []string{"e", "x"} }},
		{"an empty one takes it away", api.CreateRequest{Entry: []string{}, Args: []string{"x"}}, func(p *guest.Process) { p.Args = []string{"x"} }},
		{"the environment is laid over", api.CreateRequest{Env: []string{"B=3", "C=4"}}, func(p *guest.Process) { p.Env = []string{"A=1", "B=3", "C=4"} }},
		{"user, directory and terminal", api.CreateRequest{User: "0", Dir: "/", TTY: true}, func(p *guest.Process) { p.User, p.Dir, p.TTY = "0", "/", true }},
	} {
		want := own
		c.change(&want)
		if got := process(img, c.q); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, want %+v", c.what, got, want)
		}
	}
	if img.Entrypoint[0] != "entry" || img.Env[1] != "B=2" {
		t.Errorf("the image's configuration was changed: %+v", img)
	}
}

func TestMergeEnv(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ base, over, want []string }{
		{nil, nil, nil},
		{[]string{"A=1"}, []string{"A=2"}, []string{"A=2"}},
		{[]string{"A=1", "B=1", "A=2"}, nil, []string{"A=2", "B=1"}},
		{[]string{"A=1"}, []string{"AA=2", "A="}, []string{"A=", "AA=2"}},
		{[]string{"A=x=y"}, []string{"B"}, []string{"A=x=y", "B"}},
	} {
		if got := mergeEnv(c.base, c.over); !slices.Equal(got, c.want) {
			t.Errorf("%q over %q: got %q, want %q", c.over, c.base, got, c.want)
		}
	}
}

func TestCheckCompletesARequest(t *testing.T) {
	t.Parallel()
	q := api.CreateRequest{
		Name: "notes", Memory: 200<<20 + 5, Disk: 20<<20 + 5,
		Ports: []api.Port{{Guest: 80}, {Guest: 53, Proto: "udp", Host: netip.MustParseAddrPort("[::]:5353")}},
	}
	if err := check(&q); err != nil {
		t.Fatal(err)
	}
	if q.CPUs != 1 || q.Memory != 200<<20 || q.Disk != 20<<20 {
		t.Errorf("got %d CPUs, %d bytes of memory, %d of disk", q.CPUs, q.Memory, q.Disk)
	}
	want := []api.Port{
		{Guest: 80, Proto: "tcp", Host: netip.MustParseAddrPort("127.0.0.1:0")},
		{Guest: 53, Proto: "udp", Host: netip.MustParseAddrPort("[::]:5353")},
	}
	if !slices.Equal(q.Ports, want) {
		t.Errorf("got %v, want %v", q.Ports, want)
	}
	silent := api.CreateRequest{Name: "a"}
	if err := check(&silent); err != nil || silent.Memory != defaultMemory || silent.Disk != defaultDisk {
		t.Errorf("got %+v, %v", silent, err)
	}
}

func TestCheckRefuses(t *testing.T) {
	t.Parallel()
	for what, change := range map[string]func(q *api.CreateRequest){
		"no name":                   func(q *api.CreateRequest) { q.Name = "" },
		"a name that is a path":     func(q *api.CreateRequest) { q.Name = "../a" },
		"fewer CPUs than one":       func(q *api.CreateRequest) { q.CPUs = -1 },
		"more than 32":              func(q *api.CreateRequest) { q.CPUs = 33 },
		"too little memory":         func(q *api.CreateRequest) { q.Memory = minMemory - 1 },
		"memory below nothing":      func(q *api.CreateRequest) { q.Memory = -1 },
		"too much memory":           func(q *api.CreateRequest) { q.Memory = maxMemory + 1 },
		"too little disk":           func(q *api.CreateRequest) { q.Disk = 1 },
		"too much disk":             func(q *api.CreateRequest) { q.Disk = maxDisk + 1 },
		"a limit below zero":        func(q *api.CreateRequest) { q.Limits.NetBytes = -1 },
		"a budget below zero":       func(q *api.CreateRequest) { q.Limits.BudgetCPU = -1 },
		"a variable without value":  func(q *api.CreateRequest) { q.Env = []string{"A"} },
		"a variable without name":   func(q *api.CreateRequest) { q.Env = []string{"=1"} },
		"a variable with a zero":    func(q *api.CreateRequest) { q.Env = []string{"A=1\x002"} },
		"a volume at no path":       func(q *api.CreateRequest) { q.Volumes = []api.Mount{{Volume: "v"}} },
		"a volume at the root":      func(q *api.CreateRequest) { q.Volumes = []api.Mount{{Volume: "v", Path: "/x/.."}} },
		"a volume at a path nearby": func(q *api.CreateRequest) { q.Volumes = []api.Mount{{Volume: "v", Path: "x"}} },
		"a volume of no good name":  func(q *api.CreateRequest) { q.Volumes = []api.Mount{{Volume: "V", Path: "/x"}} },
		"too many volumes":          func(q *api.CreateRequest) { q.Volumes = make([]api.Mount, maxVolumes+1) },
		"a WireGuard key cut short": func(q *api.CreateRequest) { q.WireGuard = &api.WireGuard{PublicKey: make([]byte, 31), Port: 1} },
		"a WireGuard peer nowhere":  func(q *api.CreateRequest) { q.WireGuard = &api.WireGuard{PublicKey: make([]byte, 32)} },
		"a nap after no time":       func(q *api.CreateRequest) { q.Nap.Idle = 1 },
		"a nap before it runs":      func(q *api.CreateRequest) { q.Nap.Idle = -time.Second },
		"a seal before the nap":     func(q *api.CreateRequest) { q.Nap.Seal = -1 },
		"a port that is none":       func(q *api.CreateRequest) { q.Ports = []api.Port{{}} },
		"a protocol that is none":   func(q *api.CreateRequest) { q.Ports = []api.Port{{Guest: 1, Proto: "sctp"}} },
	} {
		q := api.CreateRequest{Name: "a"}
		change(&q)
		err := check(&q)
		if cloudpal.KindOf(err) != cloudpal.Invalid || cloudpal.HintOf(err) == "" {
			t.Errorf("%s: got %v, hint %q; want %v with a hint", what, err, cloudpal.HintOf(err), cloudpal.Invalid)
		}
	}
}

func TestCheckRefusesTheSameVolumeTwice(t *testing.T) {
	t.Parallel()
	q := api.CreateRequest{Name: "a", Volumes: []api.Mount{{Volume: "v", Path: "/x"}, {Volume: "v", Path: "/y"}}}
	if err := check(&q); cloudpal.KindOf(err) != cloudpal.Invalid {
		t.Errorf("got %v, want %v: one disk would be mounted twice", err, cloudpal.Invalid)
	}
}

func TestCheckName(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"a": true, "0": true, "a-b-": true, strings.Repeat("a", 48): true,
		"": false, "-a": false, "A": false, ".": false, "..": false, "a/b": false, "a.b": false, "a b": false,
		"a\n": false, "ä": false, "a\x00": false, strings.Repeat("a", 49): false,
	} {
		if got := checkName("vm", name) == nil; got != want {
			t.Errorf("%q: got %v, want %v", name, got, want)
		}
	}
}

func TestNth(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		prefix string
		n      int
		want   string
	}{
		{"10.201.0.0/16", 0, "10.201.0.0"},
		{"10.201.7.7/16", 1, "10.201.0.1"},
		{"10.201.0.0/16", 255, "10.201.0.255"},
		{"10.201.0.0/16", 256, "10.201.1.0"},
		{"10.201.0.0/16", 65535, "10.201.255.255"},
		{"10.201.0.128/25", 128, "10.201.1.0"},
		{"fdc1:d00::/64", 16, "fdc1:d00::10"},
		{"fdc1:d00::/64", 1 << 20, "fdc1:d00::10:0"},
		{"fdc1:d00::ffff:ffff/128", 1, "fdc1:d00::1:0:0"},
	} {
		if got := nth(netip.MustParsePrefix(c.prefix), c.n); got != netip.MustParseAddr(c.want) {
			t.Errorf("%d of %s: got %v, want %s", c.n, c.prefix, got, c.want)
		}
	}
}

func TestEachIndexHasItsOwnMACAndUID(t *testing.T) {
	t.Parallel()
	macs, uids := map[string]bool{}, map[int]bool{}
	for _, i := range []int{0, 1, 255, 256, 65535, 65536, 1 << 20} {
		r := record{Index: i}
		if mac := r.mac(); mac[0]&3 != 2 || macs[mac.String()] {
			t.Errorf("index %d: got %v, want a local unicast address of its own", i, mac)
		}
		macs[r.mac().String()], uids[r.uid()] = true, true
	}
	if len(uids) != 7 {
		t.Errorf("got %d uids, want 7", len(uids))
	}
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		exit guest.Exit
		want string
	}{
		{guest.Exit{Code: 0}, "exit status 0"},
		{guest.Exit{Code: 3}, "exit status 3"},
		{guest.Exit{Code: 139, Signal: "SIGSEGV"}, "ended by SIGSEGV"},
		{guest.Exit{Code: 137, Signal: "SIGKILL", OOM: true}, "out of memory in the VM; give it more with --memory"},
		{guest.Exit{Code: 127, Error: "nginx: not found"}, "could not start: nginx: not found"},
	} {
		got := describe(c.exit)
		if got.Reason != c.want || got.Code != c.exit.Code || got.OOM != c.exit.OOM {
			t.Errorf("got %+v, want %q", got, c.want)
		}
	}
	for _, code := range []int{-1, 256, 1 << 40} {
		got := describe(guest.Exit{Code: code, OOM: true})
		if got.Code != 125 || got.OOM || !strings.Contains(got.Reason, fmt.Sprint(code)) {
			t.Errorf("code %d: got %+v, want 125 and why", code, got)
		}
	}
	// What a guest says is not believed to be short.
	long := describe(guest.Exit{Error: strings.Repeat("x", 1<<20)})
	if len(long.Reason) > 400 {
		t.Errorf("got a reason of %d bytes", len(long.Reason))
	}
}

// TestTheLargestRequestIsReadBack: what a request may hold, the next agent must
// find.
func TestTheLargestRequestIsReadBack(t *testing.T) {
	t.Parallel()
	q := api.CreateRequest{Name: "a"}
	for range maxRequest / len(`"A=",`) {
		q.Env = append(q.Env, "A=")
	}
	q.Env = q.Env[:len(q.Env)-100]
	if data, err := json.Marshal(q); err != nil || len(data) > maxRequest {
		t.Fatalf("a request of %d bytes, %v", len(data), err)
	}
	path := filepath.Join(t.TempDir(), "vm.json")
	if err := writeJSON(path, record{Request: q}); err != nil {
		t.Fatal(err)
	}
	var got record
	if err := readJSON(path, &got); err != nil || len(got.Request.Env) != len(q.Env) {
		t.Errorf("got %d variables, %.100v; want %d", len(got.Request.Env), err, len(q.Env))
	}
}
