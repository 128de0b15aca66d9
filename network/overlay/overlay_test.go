package overlay

import (
	"bytes"
	"encoding/base64"
	"image"
	"image/color"
	"image/draw"
	_ "image/png"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/makiuchi-d/gozxing"
	"github.com/makiuchi-d/gozxing/qrcode"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/identity"
)

func prefixes(texts ...string) []netip.Prefix {
	var all []netip.Prefix
	for _, s := range texts {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

func TestChooseIsStable(t *testing.T) {
	for _, c := range []struct {
		seed   byte
		v4, v6 string
	}{
		{0, "10.144.85.0/24", "fdfd:ef7a:1b06::/64"},
		{1, "10.5.34.0/24", "fdad:5753:9610::/64"},
	} {
		v4, v6, err := Choose([32]byte{c.seed}, nil)
		if err != nil || v4.String() != c.v4 || v6.String() != c.v6 {
			t.Errorf("seed %d: got %v, %v, error %v; want %s, %s", c.seed, v4, v6, err, c.v4, c.v6)
		}
	}
}

func TestChooseStaysInTheRanges(t *testing.T) {
	seen := map[netip.Prefix]bool{}
	for i := range 2000 {
		v4, v6, err := Choose([32]byte{byte(i), byte(i >> 8)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		inPool := slices.ContainsFunc(pools, func(p netip.Prefix) bool { return p.Contains(v4.Addr()) })
		if !inPool || !free(v4, crowded) || v4.Bits() != 24 || v4 != v4.Masked() {
			t.Fatalf("got %v", v4)
		}
		if !netip.MustParsePrefix("fd00::/8").Contains(v6.Addr()) || v6.Bits() != 64 || v6 != v6.Masked() {
			t.Fatalf("got %v", v6)
		}
		seen[v4], seen[v6] = true, true
	}
	if len(seen) < 3900 {
		t.Errorf("2000 seeds have only %d different ranges", len(seen))
	}
}

func TestChooseAvoids(t *testing.T) {
	v4, v6, err := Choose([32]byte{1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	other4, other6, err := Choose([32]byte{1}, []netip.Prefix{v4, v6})
	if err != nil || other4.Overlaps(v4) || other6.Overlaps(v6) {
		t.Errorf("got %v, %v, error %v, which overlap with %v, %v", other4, other6, err, v4, v6)
	}
	v4, _, err = Choose([32]byte{1}, prefixes("0.0.0.0/0", "::/0", "10.0.0.0/8", "100.64.0.0/10", "172.24.0.0/13"))
	if err != nil || !netip.MustParsePrefix("172.16.0.0/13").Contains(v4.Addr()) {
		t.Errorf("got %v, error %v, want what is left, though crowded", v4, err)
	}
	_, _, err = Choose([32]byte{1}, prefixes("10.0.0.0/8", "100.64.0.0/10", "172.16.0.0/12"))
	if cloudpal.KindOf(err) != cloudpal.NoSpace || cloudpal.HintOf(err) == "" {
		t.Errorf("nothing left: got error %v", err)
	}
}

func phone() Config {
	return Config{
		Name: "phone", Key: identity.NewDeviceKey(), Index: 3,
		V4: netip.MustParsePrefix("10.7.8.0/24"), V6: netip.MustParsePrefix("fd12:3456:789a::/64"),
		Core:     identity.NewDeviceKey().WireGuardKey(),
		Endpoint: netip.MustParseAddrPort("198.51.100.7:51820"),
	}
}

func text(t *testing.T, c Config) string {
	t.Helper()
	b, err := c.Text()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestWgQuickReads has wg-quick itself read a configuration.
func TestWgQuickReads(t *testing.T) {
	path := need(t, "wg-quick")
	c := phone()
	file := filepath.Join(t.TempDir(), "pal.conf")
	if err := os.WriteFile(file, []byte(text(t, c)), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(path, "strip", file).CombinedOutput()
	if err != nil {
		t.Fatalf("wg-quick strip: %v: %s", err, out)
	}
	got := string(out)
	for _, want := range []string{
		"PublicKey = " + c.Core.String(),
		"AllowedIPs = 10.7.8.0/24, fd12:3456:789a::/64",
		"Endpoint = 198.51.100.7:51820",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("wg-quick strip left no %q", want)
		}
	}
	for _, wrong := range []string{"DNS", "Address", "MTU", "Keepalive"} {
		if strings.Contains(got, wrong) {
			t.Errorf("wg-quick strip did not take %q for its own", wrong)
		}
	}
}

// TestWireGuardTakes gives what wg-quick leaves to a real WireGuard, in a
// network of its own, and asks it what it has understood.
func TestWireGuardTakes(t *testing.T) {
	quick := need(t, "wg-quick")
	need(t, "wireguard-go")
	if _, err := os.Stat("/dev/net/tun"); err != nil || os.Getuid() != 0 {
		if os.Getenv("CLOUDPAL_MUST_RUN") != "" {
			t.Fatal("needs root and /dev/net/tun")
		}
		t.Skip("needs root and /dev/net/tun")
	}
	c := phone()
	c.Full = true
	c.Endpoint = netip.MustParseAddrPort("[2001:db8::7]:4711")
	file := filepath.Join(t.TempDir(), "pal.conf")
	if err := os.WriteFile(file, []byte(text(t, c)), 0o600); err != nil {
		t.Fatal(err)
	}
	script := `
		mount -t tmpfs none /run && mkdir /run/wireguard || exit
		wireguard-go -f wgtest >&2 & trap "kill $!" EXIT
		until [ -S /run/wireguard/wgtest.sock ]; do sleep 0.02; done
		"$1" strip "$2" > /run/stripped.conf && wg setconf wgtest /run/stripped.conf && wg showconf wgtest`
	out, err := exec.Command("timeout", "20", "unshare", "--net", "--mount", "sh", "-c", script, "sh", quick, file).Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"PrivateKey = " + base64.StdEncoding.EncodeToString(c.Key.WireGuard()),
		"PublicKey = " + c.Core.String(),
		"AllowedIPs = 0.0.0.0/0, ::/0",
		"Endpoint = [2001:db8::7]:4711",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("WireGuard has not understood %.12q...", want)
		}
	}
}

func need(t *testing.T, program string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		if os.Getenv("CLOUDPAL_MUST_RUN") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return path
}

func TestConfigRefuses(t *testing.T) {
	for what, spoil := range map[string]func(*Config){
		"a name with a line break": func(c *Config) { c.Name = "a\n[Peer]" },
		"a zone with a line break": func(c *Config) {
			c.Endpoint = netip.AddrPortFrom(netip.MustParseAddr("fe80::1").WithZone("a\nPostUp = reboot"), 1)
		},
		"no endpoint":           func(c *Config) { c.Endpoint = netip.AddrPort{} },
		"a port of 0":           func(c *Config) { c.Endpoint = netip.MustParseAddrPort("198.51.100.7:0") },
		"no key":                func(c *Config) { c.Key = identity.DeviceKey{} },
		"no core":               func(c *Config) { c.Core = identity.WireGuardKey{} },
		"the core's index":      func(c *Config) { c.Index = 1 },
		"no IPv6":               func(c *Config) { c.V6 = netip.Prefix{} },
		"IPv6 in place of IPv4": func(c *Config) { c.V4 = c.V6 },
	} {
		c := phone()
		spoil(&c)
		if b, err := c.Text(); cloudpal.KindOf(err) != cloudpal.Invalid {
			t.Errorf("%s: got %q, error %v", what, b, err)
		}
	}
}

// scan reads a picture as a camera would.
func scan(t *testing.T, img image.Image) string {
	t.Helper()
	bits, err := gozxing.NewBinaryBitmapFromImage(img)
	if err != nil {
		t.Fatal(err)
	}
	result, err := qrcode.NewQRCodeReader().Decode(bits, nil)
	if err != nil {
		t.Fatal(err)
	}
	return result.GetText()
}

func encoded(t *testing.T) (*QR, string) {
	t.Helper()
	want := text(t, phone())
	q, err := NewQR([]byte(want))
	if err != nil {
		t.Fatal(err)
	}
	return q, want
}

// wantScan fails unless the picture says want. It shows neither: they hold a
// key.
func wantScan(t *testing.T, img image.Image, want string) {
	t.Helper()
	if got := scan(t, img); got != want {
		t.Errorf("it scans as something else, of %d bytes for %d", len(got), len(want))
	}
}

func TestPNGScans(t *testing.T) {
	q, want := encoded(t)
	img, _, err := image.Decode(bytes.NewReader(q.PNG()))
	if err != nil {
		t.Fatal(err)
	}
	wantScan(t, img, want)
}

// canvas is a white picture of a code's modules, 4 pixels each.
func canvas(side int) (img *image.Gray, fill func(x, y, width int)) {
	img = image.NewGray(image.Rect(0, 0, 4*side, 4*side))
	draw.Draw(img, img.Bounds(), image.White, image.Point{}, draw.Src)
	return img, func(x, y, width int) {
		draw.Draw(img, image.Rect(4*x, 4*y, 4*(x+width), 4*y+4), image.NewUniform(color.Black), image.Point{}, draw.Src)
	}
}

func TestTerminalScans(t *testing.T) {
	q, want := encoded(t)
	columns, lines := q.Cells()
	if columns > 80 {
		t.Errorf("a phone's configuration takes %d columns, want at most 80", columns)
	}
	img, fill := canvas(columns)
	rows := strings.Split(strings.TrimSuffix(q.Terminal(), "\n"), "\n")
	if len(rows) != lines {
		t.Errorf("got %d lines, want %d", len(rows), lines)
	}
	for y, row := range rows {
		row, colored := strings.CutPrefix(row, "\x1b[38;5;16;48;5;231m")
		row, ended := strings.CutSuffix(row, "\x1b[0m")
		cells := []rune(row)
		if !colored || !ended || len(cells) != columns {
			t.Fatalf("line %d has %d cells, colours set: %v, and reset: %v", y, len(cells), colored, ended)
		}
		for x, cell := range cells {
			if strings.ContainsRune("█▀", cell) {
				fill(x, 2*y, 1)
			}
			if strings.ContainsRune("█▄", cell) {
				fill(x, 2*y+1, 1)
			}
		}
	}
	wantScan(t, img, want)
}

func TestSVGScans(t *testing.T) {
	q, want := encoded(t)
	side, _ := q.Cells()
	img, fill := canvas(side)
	for _, run := range regexp.MustCompile(`M(\d+) (\d+)h(\d+)v1h-\d+z`).FindAllStringSubmatch(q.SVG(), -1) {
		var n [3]int
		for i := range n {
			n[i], _ = strconv.Atoi(run[i+1])
		}
		fill(n[0], n[1], n[2])
	}
	wantScan(t, img, want)
}

func TestQRTooLong(t *testing.T) {
	if _, err := NewQR(make([]byte, 3000)); cloudpal.KindOf(err) != cloudpal.Invalid {
		t.Errorf("got error %v", err)
	}
}
