// Package center_test runs whole data centers: `cloudpal center` in a network
// namespace, real VMs, and customers who come over the network.
package center_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	centerapi "github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/test/world"
)

func TestMain(m *testing.M) {
	code := m.Run()
	os.RemoveAll(coreDir)
	os.Exit(world.Finish(code))
}

var coreDir string

// core builds the test's core and returns its OCI layout.
var core = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "cloudpal-core-")
	if err != nil {
		return "", err
	}
	coreDir = dir
	program := filepath.Join(dir, "core")
	build := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w -buildid=", "-o", program, "./core")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", errors.New(string(out))
	}
	return writeImage(filepath.Join(dir, "layout"), program, "first")
})

// writeImage makes an OCI layout of one program. The label makes images of the
// same program differ.
func writeImage(dir, program, label string) (string, error) {
	data, err := os.ReadFile(program)
	if err != nil {
		return "", err
	}
	var files bytes.Buffer
	w := tar.NewWriter(&files)
	err = errors.Join(
		w.WriteHeader(&tar.Header{Name: "core", Mode: 0o755, Size: int64(len(data)), Typeflag: tar.TypeReg}),
		write(w, data), w.Close())
	if err != nil {
		return "", err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(files.Bytes())), nil })
	if err != nil {
		return "", err
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return "", err
	}
	img, err = mutate.ConfigFile(img, &v1.ConfigFile{
		Architecture: "amd64", OS: "linux",
		Config: v1.Config{Entrypoint: []string{"/core"}, Labels: map[string]string{"label": label}},
		RootFS: must(img.ConfigFile()).RootFS, History: must(img.ConfigFile()).History,
	})
	if err != nil {
		return "", err
	}
	p, err := layout.Write(dir, empty.Index)
	if err != nil {
		return "", err
	}
	return dir, p.AppendImage(img)
}

func write(w io.Writer, data []byte) error {
	_, err := w.Write(data)
	return err
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// A site is a data center.
type site struct {
	*world.World
	t *testing.T
}

// newSite starts a center, on an Internet or on none.
func newSite(t *testing.T, i *world.Internet, args ...string) *site {
	t.Helper()
	world.Require(t)
	image, err := core()
	if err != nil {
		t.Fatal(err)
	}
	s := &site{t: t}
	// One after the other: the first fills the cache that all share.
	starting.Lock()
	defer starting.Unlock()
	s.World = world.NewCenter(t, i, append([]string{"--core", image, "--pal-disk", "64M"}, args...)...)
	s.ready()
	return s
}

var starting sync.Mutex

// ready waits until the center answers, and returns its address.
func (s *site) ready() (a centerapi.Address) {
	s.t.Helper()
	s.Eventually(60*time.Second, "the center answers", func() error {
		data, err := os.ReadFile(filepath.Join(s.Run, "center.json"))
		if err != nil {
			return err
		}
		var n struct {
			PID     int
			Address centerapi.Address
		}
		if err := json.Unmarshal(data, &n); err != nil {
			return err
		}
		if a = n.Address; n.PID != s.AgentPID() {
			return errors.New("it is another's notice")
		}
		return nil
	})
	return a
}

// restart ends the center as a crash would, and starts another.
func (s *site) restart() {
	s.t.Helper()
	s.KillAgent()
	s.StartAgent()
	s.ready()
}

// dialer connects from within a world or place.
type dialer func(ctx context.Context, network, addr string) (net.Conn, error)

func (d dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	return d(ctx, network, addr)
}

// customer returns a client of a new account, on the center's own machine.
func (s *site) customer() *centerapi.Client {
	return s.ask(newAccount(), s.World.Dial)
}

func (s *site) ask(account ed25519.PrivateKey, from dialer) *centerapi.Client {
	s.t.Helper()
	c, err := centerapi.Dial(s.ready(), account, from)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(c.Close)
	return c
}

func newAccount() ed25519.PrivateKey {
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	return key
}

func newKey() []byte {
	key := make([]byte, 32)
	rand.Read(key)
	return key
}

// command runs the program at the center's machine, as its operator does.
func (s *site) command(args ...string) (string, error) {
	bin, err := world.Binaries()
	if err != nil {
		s.t.Fatal(err)
	}
	var errs strings.Builder
	cmd := exec.Command(filepath.Join(bin, "cloudpal"), append(args, "--socket", s.Socket())...)
	cmd.Stderr = &errs
	out, err := cmd.Output()
	return string(out) + errs.String(), err
}

// boot is a random text that a core makes when it boots.
func (s *site) boot(id centerapi.ID) string { s.t.Helper(); return s.askCore(id, "/v1/who") }

// askCore asks a core as its host may.
func (s *site) askCore(id centerapi.ID, path string) string {
	s.t.Helper()
	text, err := s.Get("http://" + world.Addr(s.VM("pal-"+string(id)), 7460) + path)
	if err != nil {
		s.t.Fatalf("ask a core for %s: %v %s", path, err, text)
	}
	return text
}

// records are the names of the center's records.
func (s *site) records() []string {
	s.t.Helper()
	list, err := filepath.Glob(filepath.Join(s.Dir, "state", "center", "pals", "*.json"))
	if err != nil {
		s.t.Fatal(err)
	}
	return list
}
