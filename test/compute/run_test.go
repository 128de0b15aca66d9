package compute_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/test/images"
	"github.com/tradle/cloudpal/test/world"
)

func itoa(n int) string { return strconv.Itoa(n) }

// field returns the number behind key in text, or 0.
func field(text, key string) int {
	_, rest, _ := strings.Cut(text, key)
	n, _ := strconv.Atoi(rest[:max(0, strings.IndexFunc(rest+" ", func(r rune) bool { return r < '0' || r > '9' }))])
	return n
}

// Real programs from the distribution, asked over the network as their clients
// would, before and after a nap.
func TestRealImages(t *testing.T) {
	w := world.New(t)
	for _, c := range []struct {
		image  string
		memory int64
		port   uint16
		ask    func(t *testing.T, w *world.World, addr string) string
	}{
		{"nginx", 128 << 20, 80, askHTTP},
		{"redis", 128 << 20, 6379, askRedis},
		{"postgresql", 384 << 20, 5432, askPostgres},
		{"node", 256 << 20, 3000, askHTTP},
	} {
		t.Run(c.image, func(t *testing.T) {
			w.Image(c.image)
			q := api.CreateRequest{Name: c.image, Image: c.image, Memory: c.memory,
				Ports: []api.Port{{Guest: c.port, Proto: "tcp"}}}
			v := w.Start(q)
			addr := v.Ports[0].Host.String()
			first := c.ask(t, w, addr)
			suspend(t, w, c.image, api.Memory)
			if again := c.ask(t, w, addr); again != first {
				t.Errorf("before the nap it said %q, after it %q", first, again)
			}
			if _, err := w.API.Stop(t.Context(), c.image, api.StopRequest{Timeout: 20 * time.Second}); err != nil {
				t.Fatal(err)
			}
			if v := w.VM(c.image); v.State != api.Stopped || v.Exit == nil {
				t.Errorf("after stop it is %s (%+v)", v.State, v.Exit)
			}
		})
	}
}

func askHTTP(t *testing.T, w *world.World, addr string) string {
	t.Helper()
	var got string
	w.Eventually(90*time.Second, addr+" answers", func() (err error) {
		got, err = w.Get("http://" + addr + "/")
		return err
	})
	return got
}

// askRedis sets a key and reads it back, in RESP.
func askRedis(t *testing.T, w *world.World, addr string) string {
	t.Helper()
	return ask(t, w, addr, []byte("SET k v\r\nGET k\r\n"), "+OK\r\n$1\r\nv\r\n")
}

// askPostgres sends an SSLRequest (PostgreSQL protocol 53.2.10); a server
// without TLS says N.
func askPostgres(t *testing.T, w *world.World, addr string) string {
	t.Helper()
	return ask(t, w, addr, []byte{0, 0, 0, 8, 4, 0xd2, 0x16, 0x2f}, "N")
}

func ask(t *testing.T, w *world.World, addr string, question []byte, answer string) string {
	t.Helper()
	var got []byte
	w.Eventually(90*time.Second, addr+" answers", func() error {
		conn, err := w.Dial(t.Context(), "tcp", addr)
		if err != nil {
			return err
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(30 * time.Second))
		if _, err := conn.Write(question); err != nil {
			return err
		}
		got = make([]byte, len(answer))
		_, err = io.ReadFull(conn, got)
		return err
	})
	if string(got) != answer {
		t.Errorf("%s: got %q, want %q", addr, got, answer)
	}
	return string(got)
}

func TestExitStatusComesBack(t *testing.T) {
	w := world.New(t)
	w.Image("web")
	for _, c := range []struct {
		args   []string
		code   int
		oom    bool
		reason string
	}{
		{[]string{"exit", "7"}, 7, false, "exit status 7"},
		{[]string{"signal", "15"}, 143, false, "SIGTERM"},
		{[]string{"eat"}, 137, true, "out of memory"},
	} {
		t.Run(c.args[0], func(t *testing.T) {
			name := "exit-" + c.args[0]
			w.Start(api.CreateRequest{Name: name, Image: "web", Args: c.args})
			exit, err := w.API.Wait(t.Context(), name)
			if err != nil {
				t.Fatal(err)
			}
			if exit.Code != c.code || exit.OOM != c.oom || !strings.Contains(exit.Reason, c.reason) {
				t.Errorf("%v: got %+v", c.args, exit)
			}
		})
	}
	t.Run("no such program", func(t *testing.T) {
		w.Start(api.CreateRequest{Name: "exit-none", Image: "web", Entry: []string{"/no/such"}})
		exit, err := w.API.Wait(t.Context(), "exit-none")
		if err != nil {
			t.Fatal(err)
		}
		if exit.Code != 127 || !strings.Contains(exit.Reason, "/no/such") {
			t.Errorf("got %+v", exit)
		}
	})
}

// A VM that is removed at its end may be so before anybody asks how it went.
func TestRemovedVMTellsHowItEnded(t *testing.T) {
	w := world.New(t)
	w.Image("busybox")
	w.Start(api.CreateRequest{Name: "brief", Image: "busybox", Remove: true,
		Entry: []string{"sh", "-c", "echo goodbye; exit 7"}})
	w.Eventually(30*time.Second, "it is gone", func() error {
		_, err := w.API.VM(t.Context(), "brief")
		if errors.Is(err, cloudpal.NotExist) {
			return nil
		}
		return fmt.Errorf("it is there (%v)", err)
	})
	if exit, err := w.API.Wait(t.Context(), "brief"); err != nil || exit.Code != 7 {
		t.Errorf("got %+v, %v; want code 7", exit, err)
	}
	text := ""
	err := w.API.Logs(t.Context(), "brief", true, func(e api.LogEntry) error {
		text += string(e.Data)
		return nil
	})
	if err != nil || text != "goodbye\n" {
		t.Errorf("got log %q, %v; want goodbye", text, err)
	}
}

// Who waits in the foreground is no part of what a VM needs to go.
func TestKilledForegroundRunLeavesNothing(t *testing.T) {
	w := world.New(t)
	w.Image("busybox")
	cmd := command(t, w, "vm", "run", "--rm", "--name", "brief", "--entrypoint", "sh", "busybox", "-c", polite)
	signalWhenUp(t, cmd, syscall.SIGKILL)
	if _, err := w.API.Stop(t.Context(), "brief", api.StopRequest{}); err != nil {
		t.Fatal(err)
	}
	w.Eventually(30*time.Second, "it is gone", func() error { return nothingOf(w, "brief") })
}

func TestVolumesOutliveTheirVM(t *testing.T) {
	w := world.New(t)
	w.Image("web")
	q := api.CreateRequest{Name: "one", Image: "web", Volumes: []api.Mount{{Volume: "data", Path: "/data"}}}
	v := w.Start(q)
	w.MustGet("http://" + world.Addr(v, 8080) + "/append?dir=/data")
	q.Name = "two"
	if _, err := w.API.Create(t.Context(), q); !errors.Is(err, cloudpal.Busy) {
		t.Errorf("a volume in two VMs at once: %v", err)
	}
	if _, err := w.API.Stop(t.Context(), "one", api.StopRequest{}); err != nil {
		t.Fatal(err)
	}
	if err := w.API.Remove(t.Context(), "one", false); err != nil {
		t.Fatal(err)
	}
	v = w.Start(q)
	if got := strings.TrimSpace(w.MustGet("http://" + world.Addr(v, 8080) + "/appended?dir=/data")); got != "1" {
		t.Errorf("the volume has %s records, want 1", got)
	}
}

// The layers of an image that lost its name go with the last VM that needs them.
func TestLayersGoWithTheirLastVM(t *testing.T) {
	w := world.New(t)
	w.Image("web")
	w.Start(api.CreateRequest{Name: "web", Image: "web"})
	if _, err := w.API.RemoveImage(t.Context(), "web"); !errors.Is(err, cloudpal.Busy) {
		t.Errorf("an image that a VM runs on can be removed: %v", err)
	}
	// Another image takes the name.
	layout, err := images.Build(t.Context(), "busybox", images.Cache())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.API.Import(t.Context(), api.ImportRequest{Path: layout, Name: "web"}, nil); err != nil {
		t.Fatal(err)
	}
	layers := filepath.Join(w.Dir, "state", "images", "layers")
	both := entries(t, layers)
	if err := w.API.Remove(t.Context(), "web", true); err != nil {
		t.Fatal(err)
	}
	w.Eventually(10*time.Second, "its layers are gone", func() error {
		if now := entries(t, layers); now >= both {
			return fmt.Errorf("there are %d of %d layers", now, both)
		}
		return nil
	})
	w.Start(api.CreateRequest{Name: "other", Image: "web"})
}

// entries counts what is in a directory.
func entries(t *testing.T, dir string) int {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestBadRequestsSayWhatToDo(t *testing.T) {
	w := world.New(t)
	w.Image("web")
	w.Start(api.CreateRequest{Name: "web", Image: "web", Ports: []api.Port{{Guest: 8080, Proto: "tcp"}}})
	taken := w.VM("web").Ports[0].Host
	for name, c := range map[string]struct {
		q    api.CreateRequest
		kind cloudpal.Kind
	}{
		"name taken":      {api.CreateRequest{Name: "web", Image: "web"}, cloudpal.Exist},
		"no such image":   {api.CreateRequest{Name: "x", Image: "nothing"}, cloudpal.NotExist},
		"bad name":        {api.CreateRequest{Name: "../x", Image: "web"}, cloudpal.Invalid},
		"too little":      {api.CreateRequest{Name: "x", Image: "web", Memory: 1 << 20}, cloudpal.Invalid},
		"too much memory": {api.CreateRequest{Name: "x", Image: "web", Memory: 60 << 30}, cloudpal.NoMemory},
		"port taken":      {api.CreateRequest{Name: "x", Image: "web", Ports: []api.Port{{Host: taken, Guest: 80}}}, cloudpal.Busy},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := w.API.Create(t.Context(), c.q)
			if !errors.Is(err, c.kind) {
				t.Errorf("got %v, want kind %q", err, c.kind)
			}
			if cloudpal.HintOf(err) == "" {
				t.Errorf("%v has no hint", err)
			}
		})
	}
	// Nothing half-made is left behind.
	entries, err := os.ReadDir(filepath.Join(w.Dir, "state", "vms"))
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 {
		t.Errorf("the state directory has %d VMs, want 1", len(entries))
	}
	if list, err := w.API.VMs(context.Background()); err != nil || len(list) != 1 {
		t.Errorf("the agent lists %d VMs, want 1 (%v)", len(list), err)
	}
}

func TestNoSpaceLeavesNothingBehind(t *testing.T) {
	w := world.New(t)
	w.Image("web")
	w.StopAgent()
	// The same state, on a file system that is nearly full.
	small := filepath.Join(w.Dir, "state", "vms")
	mountTmpfs(t, small, "64k")
	w.StartAgent()
	_, err := w.API.Create(t.Context(), api.CreateRequest{Name: "web", Image: "web"})
	if !errors.Is(err, cloudpal.NoSpace) || cloudpal.HintOf(err) == "" {
		t.Errorf("got %v (hint %q), want no space left and what to do", err, cloudpal.HintOf(err))
	}
	entries, err := os.ReadDir(small)
	if err != nil || len(entries) != 0 {
		t.Errorf("left behind: %v %v", entries, err)
	}
}
