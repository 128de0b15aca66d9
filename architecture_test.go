package cloudpal_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// mayImport has a line for each package: which of ours and which modules of
// others it may import. The standard library is everybody's, and so is the
// root package, which imports nothing else. What a package's tests may import
// besides stands in testsMayImport.
var mayImport = map[string]string{
	"": "",

	"center":      "center/api center/till compute/api crowd golang.org/x/time",
	"center/api":  "ticket ticket/challenge",
	"center/till": "center/api mint/api ticket ticket/challenge ticket/manifest github.com/cockroachdb/pebble/v2",

	"compute":             "",
	"compute/api":         "",
	"compute/guest":       "golang.org/x/sys",
	"compute/host":        "compute compute/api compute/guest compute/image compute/kernel compute/meter compute/seal golang.org/x/sys",
	"compute/image":       "compute/image/layer github.com/erofs/go-erofs github.com/google/go-containerregistry github.com/klauspost/compress golang.org/x/sys",
	"compute/image/layer": "compute/image/erofs",
	"compute/image/erofs": "golang.org/x/sys",
	"compute/jail":        "github.com/containerd/cgroups/v3 github.com/opencontainers/runtime-spec golang.org/x/sys",
	"compute/kernel":      "github.com/klauspost/compress github.com/pierrec/lz4/v4 github.com/ulikunitz/xz",
	"compute/meter":       "",
	"compute/qemu":        "compute compute/jail golang.org/x/sys",
	"compute/seal":        "github.com/klauspost/compress golang.org/x/sync golang.org/x/sys",

	"console": "",

	"crowd": "golang.org/x/time",

	"data/blake2b8":       "golang.org/x/crypto golang.org/x/sys",
	"data/compact":        "",
	"data/corestore":      "data/hypercore data/manifest data/merkle data/protocol data/protomux data/secretstream data/storage github.com/cockroachdb/pebble/v2 golang.org/x/crypto golang.org/x/time",
	"data/flat":           "",
	"data/hyperbee":       "data/compact data/hypercore data/protocol",
	"data/hyperblobs":     "data/compact data/hypercore golang.org/x/crypto",
	"data/hyperdrive":     "data/compact data/corestore data/hyperbee data/hyperblobs data/hypercore data/manifest golang.org/x/crypto golang.org/x/sys",
	"data/hyperdrive/dav": "data/hyperblobs data/hyperdrive golang.org/x/net",
	"data/hypercore":      "data/compact data/flat data/manifest data/merkle data/storage golang.org/x/crypto",
	"data/hypertrie":      "data/hypercore github.com/dchest/siphash google.golang.org/protobuf",
	"data/manifest":       "data/compact data/flat data/merkle golang.org/x/crypto",
	"data/merkle":         "data/blake2b8 data/compact data/flat golang.org/x/crypto",
	"data/protocol":       "data/compact data/flat data/hypercore data/manifest data/merkle data/protomux data/secretstream golang.org/x/crypto golang.org/x/time",
	"data/protomux":       "data/compact",
	"data/storage":        "data/compact data/flat data/merkle github.com/cockroachdb/pebble/v2",
	"data/secretstream":   "filippo.io/edwards25519 github.com/flynn/noise golang.org/x/crypto",

	"identity": "github.com/tyler-smith/go-bip39",

	"mint/audit":           "mint/api ticket ticket/manifest github.com/transparency-dev/merkle",
	"mint/keylog":          "ticket ticket/manifest github.com/transparency-dev/formats github.com/transparency-dev/tessera github.com/transparency-dev/witness golang.org/x/mod k8s.io/klog/v2",
	"mint/oblivious":       "crowd ticket golang.org/x/net",
	"mint/payment":         "",
	"mint/payment/ask":     "",
	"mint/payment/btcpay":  "mint/payment mint/payment/ask golang.org/x/sync",
	"mint/payment/card":    "mint/payment mint/payment/ask",
	"mint/payment/voucher": "mint/payment",
	"mint/signing":         "ticket golang.org/x/sys",
	"mint/signing/vault":   "mint/signing ticket ticket/signer github.com/elastic/go-seccomp-bpf golang.org/x/sync golang.org/x/sys",

	"mint":       "crowd mint/api mint/books mint/payment ticket ticket/ledger ticket/manifest golang.org/x/crypto",
	"mint/api":   "ticket github.com/dunglas/httpsfv",
	"mint/books": "ticket github.com/jackc/pgx/v5 modernc.org/sqlite",

	"network/names":   "github.com/miekg/dns",
	"network/overlay": "identity rsc.io/qr",
	"network/route":   "github.com/google/nftables github.com/mdlayher/netlink github.com/vishvananda/netlink golang.org/x/sys golang.org/x/time/rate",
	"network/tunnel":  "github.com/google/nftables github.com/vishvananda/netlink golang.org/x/sys golang.zx2c4.com/wireguard gvisor.dev/gvisor",
	"network/wake":    "network/route github.com/vishvananda/netlink golang.org/x/crypto golang.org/x/net golang.org/x/sys",

	"pal": "compute/guest console identity ticket network/names network/overlay pal/api pal/firewall pal/hub pal/module pal/volume " +
		"golang.org/x/crypto/x509roots/fallback golang.org/x/net golang.org/x/sys golang.org/x/time",
	"pal/api":      "identity",
	"pal/firewall": "github.com/google/nftables golang.org/x/sys",
	"pal/hub":      "github.com/vishvananda/netlink golang.org/x/sys golang.zx2c4.com/wireguard/wgctrl",
	"pal/image":    "compute/kernel pal/module github.com/google/go-containerregistry",
	"pal/module":   "golang.org/x/sys",
	"pal/volume":   "golang.org/x/sys",

	"person": "center/api console identity mint/api network/overlay network/tunnel person/wallet ticket ticket/manifest golang.org/x/crypto",

	"person/wallet": "center/api mint/api ticket ticket/manifest golang.org/x/crypto",

	"cmd/cloudpal": "center center/api center/till compute/api compute/guest compute/host compute/image compute/kernel compute/meter compute/qemu compute/seal data/corestore data/hyperbee data/hypercore data/hyperdrive data/manifest data/protomux data/storage identity mint/signing/vault mint/payment mint/payment/voucher mint/payment/card mint/payment/btcpay mint/payment/ask ticket/ledger ticket mint/signing mint/oblivious mint/keylog mint/books mint network/names network/overlay network/route network/tunnel network/wake pal pal/image pal/module person person/wallet mint/api mint/audit ticket/manifest " +
		"github.com/spf13/cobra github.com/spf13/pflag github.com/vbauerster/mpb/v8 golang.org/x/crypto golang.org/x/mod golang.org/x/net golang.org/x/sys golang.org/x/term golang.org/x/time",
	"cmd/vminit": "compute/guest github.com/creack/pty github.com/moby/sys/user github.com/vishvananda/netlink golang.org/x/sys",

	"ticket":           "github.com/cloudflare/circl golang.org/x/crypto",
	"ticket/challenge": "golang.org/x/crypto",
	"ticket/ledger":    "ticket github.com/cockroachdb/pebble/v2 github.com/jackc/pgx/v5",
	"ticket/manifest":  "ticket github.com/transparency-dev/formats github.com/transparency-dev/merkle golang.org/x/mod",
	"ticket/signer":    "filippo.io/bigmod",

	"test/apart":       "golang.org/x/sys",
	"test/bank":        "center/api mint/api ticket ticket/ledger ticket/manifest ticket/signer github.com/transparency-dev/formats golang.org/x/mod",
	"test/bench":       "center/api center/till compute/api compute/guest compute/image compute/kernel compute/seal data/corestore data/hyperbee data/hypercore data/hyperdrive data/manifest data/secretstream identity mint/api test/bank test/images test/postgres test/world ticket ticket/ledger ticket/signer github.com/cloudflare/circl github.com/cockroachdb/pebble/v2 github.com/klauspost/compress golang.org/x/sys",
	"test/center":      "",
	"test/center/core": "",
	"test/compute":     "",
	"test/core":        "",
	"test/data":        "",
	"test/demo":        "compute/api test/images golang.org/x/term",
	"test/images":      "github.com/google/go-containerregistry",
	"test/images/web":  "",
	"test/nested":      "",
	"test/network":     "",
	"test/postgres":    "golang.org/x/sys",
	"test/shop":        "mint/payment",
	"test/simulation":  "",
	"test/tickets":     "",
	"test/world":       "compute/api test/images golang.org/x/sys center/api person",
}

// testsMayImport has what tests import beyond their package's line and their
// own package.
var testsMayImport = map[string]string{
	"compute/image":        "compute/image/layer test/images",
	"compute/image/layer":  "github.com/erofs/go-erofs",
	"compute/jail":         "test/apart",
	"compute/qemu":         "compute/guest compute/image compute/kernel test/apart test/images",
	"cmd/vminit":           "test/apart",
	"center":               "test/bank ticket ticket/challenge",
	"center/till":          "test/bank",
	"cmd/cloudpal":         "github.com/rogpeppe/go-internal test/images test/world",
	"console":              "golang.org/x/net",
	"data/blake2b8":        "golang.org/x/crypto",
	"data/compact":         "pgregory.net/rapid",
	"data/protomux":        "data/secretstream",
	"data/flat":            "pgregory.net/rapid",
	"data/manifest":        "pgregory.net/rapid",
	"data/hyperbee":        "data/corestore data/merkle data/storage github.com/cockroachdb/pebble/v2 golang.org/x/crypto pgregory.net/rapid",
	"data/hyperblobs":      "data/corestore data/manifest",
	"data/hypertrie":       "data/storage pgregory.net/rapid",
	"data/hyperdrive":      "github.com/cockroachdb/pebble/v2 pgregory.net/rapid",
	"data/hyperdrive/dav":  "data/corestore github.com/cockroachdb/pebble/v2",
	"data/hypercore":       "github.com/cockroachdb/pebble/v2 golang.org/x/sys pgregory.net/rapid",
	"data/merkle":          "data/manifest pgregory.net/rapid",
	"data/protocol":        "data/storage pgregory.net/rapid",
	"data/storage":         "pgregory.net/rapid",
	"identity":             "pgregory.net/rapid",
	"mint/audit":           "mint mint/books mint/keylog mint/payment ticket/ledger ticket/signer github.com/transparency-dev/formats golang.org/x/mod pgregory.net/rapid",
	"mint/keylog":          "github.com/transparency-dev/merkle pgregory.net/rapid",
	"mint/signing/vault":   "test/apart",
	"mint/payment/btcpay":  "test/shop",
	"mint/payment/card":    "test/postgres test/shop github.com/jackc/pgx/v5 modernc.org/sqlite",
	"mint/payment/voucher": "test/postgres github.com/jackc/pgx/v5 modernc.org/sqlite",
	"mint":                 "test/postgres ticket/signer golang.org/x/time pgregory.net/rapid",
	"mint/api":             "ticket/signer",
	"network/overlay":      "github.com/makiuchi-d/gozxing",
	"network/names":        "test/apart golang.org/x/sys",
	"network/tunnel":       "test/apart",
	"network/wake":         "test/apart github.com/google/nftables",
	"pal/firewall":         "test/apart",
	"test/center":          "center center/api center/till compute/api test/bank test/world ticket github.com/google/go-containerregistry",
	"person":               "test/apart ticket/challenge golang.org/x/mod golang.org/x/sys",
	"person/wallet":        "mint mint/books mint/payment test/apart ticket/ledger ticket/signer golang.org/x/mod github.com/transparency-dev/formats pgregory.net/rapid",
	"test/compute":         "compute/api compute/guest compute/meter test/images test/world github.com/google/go-containerregistry golang.org/x/sys",
	"ticket":               "ticket/signer pgregory.net/rapid",
	"ticket/challenge":     "ticket",
	"ticket/ledger":        "test/apart test/postgres github.com/anishathalye/porcupine golang.org/x/sys",
	"ticket/manifest":      "pgregory.net/rapid",
	"ticket/signer":        "github.com/cloudflare/circl",
	"test/core":            "compute/api compute/guest identity network/overlay test/images test/world github.com/google/go-containerregistry",
	"test/data":            "data/corestore data/hyperbee data/hypercore data/hyperdrive data/manifest data/merkle data/protocol data/protomux data/secretstream data/storage",
	"test/simulation":      "center/api center/till mint mint/api mint/books mint/payment mint/payment/voucher person/wallet ticket ticket/ledger ticket/manifest ticket/signer github.com/transparency-dev/formats golang.org/x/mod",
	"test/tickets":         "center/api center/till identity mint mint/api mint/audit mint/books mint/keylog mint/payment mint/payment/voucher person/wallet test/bank ticket ticket/ledger ticket/manifest ticket/signer golang.org/x/mod",
	"test/images":          "compute/image golang.org/x/sys",
	"test/nested":          "compute/api compute/kernel test/images test/world golang.org/x/sys",
	"test/network":         "center/api compute/api test/world golang.org/x/sys",
}

// A promise says what a package must not reach, by whatever path. Both ends
// stand for all packages below them, too.
type promise struct{ from, not, why string }

var promises = []promise{
	{"compute", "network", "VMs must run over any network, and a fault in one pillar must not be one in the other"},
	{"network", "compute", "what carries packets needs to know no VM, only addresses"},
	{"cmd/vminit", "compute/host", "a guest holds no keys to the house"},
	{"cmd/vminit", "compute/api", "a guest cannot even spell what the agent is asked"},
	{"cmd/vminit", "compute/seal", "a guest never handles what naps are sealed with"},
	{"cmd/vminit", "network", "a guest has one NIC and no say in how it is plugged in"},
	{"compute/guest", "compute/host", "what both ends speak belongs to neither"},
	{"compute/api", "compute/host", "who only asks the agent needs no part of it, and no Linux"},
	{"compute/host", "compute/qemu", "the agent knows drivers, and none by name: Firecracker is next"},
	{"compute/meter", "compute/host", "who checks usage records needs no agent"},
	{"identity", "compute", "who a person is does not hang on where their pal runs"},
	{"identity", "network", "likewise"},
	{"center", "person", "who runs pals knows none of their people's secrets"},
	{"center", "pal", "a center sees a core from outside, as any stranger does"},
	{"center", "console", "likewise"},
	{"center", "ticket/signer", "who takes tickets cannot make any"},
	{"center", "mint/books", "a center sees of a mint what any stranger does"},
	{"center", "identity", "a center cannot even spell what an unlock or a device list holds"},
	{"center", "network", "a center asks its host for all that it needs"},
	{"center", "compute/host", "a center asks its host over a socket, as it will when it has many"},
	{"center/api", "compute", "who only asks a center needs to know nothing of its hosts"},
	{"person", "compute", "a person's device runs no VMs, and their pal may be anywhere"},
	{"person", "mint/books", "a person's device asks a mint over HTTP, and has no part of one"},
	{"person", "ticket/signer", "a wallet makes no tickets of its own"},
	{"person", "pal", "a person and their pal talk HTTP, as all parties do"},
	{"center", "person", "a center must not be able to hold what is a person's"},
	{"pal", "center", "a core and a center talk HTTP, as all parties do"},
	{"pal", "person", "likewise"},
	{"pal", "compute/host", "a core knows of its host what any guest does"},
	{"data", "compute", "a person's data does not hang on where their pal runs"},
	{"data", "network", "data replicates over any stream of bytes"},
	{"data", "person", "what holds a person's data needs to know nothing of who they are"},
	{"data", "pal", "likewise"},
	{"data", "center", "likewise"},
	{"data", "cmd", "a library does not know its program"},
	{"data", "test", "what is shipped does not hold what tests need"},
	{"mint/audit", "mint/keylog", "who audits a mint sees of it what anybody does"},
	{"mint/audit", "mint/books", "likewise"},
	{"mint/api", "ticket/signer", "who only asks a mint holds no key of its"},
	{"mint", "compute", "who sells tickets knows nothing of what they buy"},
	{"mint", "network", "likewise"},
	{"mint", "data", "likewise"},
	{"mint", "center", "a mint and a center talk HTTP, as all parties do"},
	{"mint", "person", "likewise"},
	{"ticket", "compute", "what a ticket is does not hang on what it pays for"},
	{"ticket", "network", "likewise"},
	{"ticket", "data", "likewise"},
	{"compute", "cmd", "a library does not know its program"},
	{"compute", "test", "what is shipped does not hold what tests need"},
	{"network", "test", "likewise"},
	{"cmd", "test", "likewise"},
}

const module = "github.com/tradle/cloudpal"

// TestMayImport holds every package to its line.
func TestMayImport(t *testing.T) {
	shipped, tests := readImports(t)
	for _, pkg := range slices.Sorted(maps.Keys(shipped)) {
		line, ok := mayImport[pkg]
		if !ok {
			t.Errorf("package %q has no line in mayImport: decide what it may import", pkg)
		}
		for _, name := range excess(shipped[pkg], line) {
			t.Errorf("%q imports %s, which its line in mayImport does not allow", pkg, name)
		}
		for _, name := range excess(tests[pkg], pkg+" "+line+" "+testsMayImport[pkg]) {
			t.Errorf("a test of %q imports %s, which its line in testsMayImport does not allow", pkg, name)
		}
	}
	for pkg := range mayImport {
		if _, ok := shipped[pkg]; !ok {
			t.Errorf("mayImport has a line for %q, which is no package", pkg)
		}
	}
}

// TestPromises follows the imports of what is shipped.
func TestPromises(t *testing.T) {
	shipped, _ := readImports(t)
	for _, p := range promises {
		if way := reach(shipped, p.from, p.not); way != nil {
			t.Errorf("%s reaches %s: %s\nit must not: %s", p.from, p.not, strings.Join(way, " -> "), p.why)
		}
	}
}

// readImports returns what each package of the module imports, and what its
// tests do, for whatever system a file is: ours by their folder, others in
// full, the standard library left out.
func readImports(t *testing.T) (shipped, tests map[string][]string) {
	t.Helper()
	shipped, tests = map[string][]string{}, map[string][]string{}
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && file != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if err != nil || !strings.HasSuffix(file, ".go") {
			return err
		}
		names, err := importsOf(file)
		pkg := folder(filepath.ToSlash(filepath.Dir(file)))
		into := shipped
		shipped[pkg] = append(shipped[pkg], "") // it is a package, though it may import nothing
		if strings.HasSuffix(file, "_test.go") {
			into = tests
		}
		into[pkg] = append(into[pkg], names...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return shipped, tests
}

// importsOf reads a file's imports but those of the standard library, which
// have no dot in their first part.
func importsOf(file string) (names []string, err error) {
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		return nil, err
	}
	for _, spec := range parsed.Imports {
		name, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return nil, err
		}
		host, _, _ := strings.Cut(name, "/")
		if ours, ok := strings.CutPrefix(name+"/", module+"/"); ok {
			names = append(names, strings.TrimSuffix(ours, "/"))
		} else if strings.Contains(host, ".") {
			names = append(names, name)
		}
	}
	return names, nil
}

// folder is a package's name in the tables; the root's is "".
func folder(dir string) string {
	if dir == "." {
		return ""
	}
	return dir
}

// excess returns the names that a line does not allow. A module of others
// stands for all its packages, one of ours only for itself.
func excess(names []string, line string) []string {
	allowed := strings.Fields(line)
	return slices.DeleteFunc(slices.Compact(slices.Sorted(slices.Values(names))), func(name string) bool {
		return name == "" || slices.ContainsFunc(allowed, func(a string) bool {
			return name == a || strings.Contains(strings.SplitN(a, "/", 2)[0], ".") && isBelow(name, a)
		})
	})
}

// reach returns a way by which a package below from imports one below to, or
// nil.
func reach(imports map[string][]string, from, to string) []string {
	seen := map[string]bool{}
	var walk func(pkg string) []string
	walk = func(pkg string) []string {
		if isBelow(pkg, to) {
			return []string{pkg}
		}
		seen[pkg] = true
		for _, next := range imports[pkg] {
			if seen[next] {
				continue
			}
			if way := walk(next); way != nil {
				return append([]string{pkg}, way...)
			}
		}
		return nil
	}
	for _, pkg := range slices.Sorted(maps.Keys(imports)) {
		if !isBelow(pkg, from) {
			continue
		}
		if way := walk(pkg); way != nil {
			return way
		}
	}
	return nil
}

func isBelow(pkg, dir string) bool { return pkg == dir || strings.HasPrefix(pkg, dir+"/") }
