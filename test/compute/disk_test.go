package compute_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/test/world"
)

// shell asks for a VM that runs a script as root.
func shell(name, script string) api.CreateRequest {
	return api.CreateRequest{Name: name, Image: "busybox", User: "0", Entry: []string{"sh", "-c", script}}
}

// awaitLine waits until a VM has written a line that begins with prefix, and
// returns the rest of the last such one.
func awaitLine(t *testing.T, w *world.World, name, prefix string) (rest string) {
	t.Helper()
	w.Eventually(30*time.Second, name+" writes "+prefix, func() error {
		var text strings.Builder
		err := w.API.Logs(t.Context(), name, false, func(e api.LogEntry) error {
			text.Write(e.Data)
			return nil
		})
		if err != nil {
			return err
		}
		err = errors.New(text.String())
		for line := range strings.Lines(text.String()) {
			if after, ok := strings.CutPrefix(line, prefix); ok && strings.HasSuffix(line, "\n") {
				rest, err = strings.TrimSpace(after), nil
			}
		}
		return err
	})
	return rest
}

func TestRawVolumeIsTheGuestsOwn(t *testing.T) {
	w := world.New(t)
	w.Image("busybox")
	const size, text = 24 << 20, "only this was written"
	q := shell("one", `stat -c 'node %F %a %u %g' /dev/own/pal
		echo "before $(head -c 4096 /dev/own/pal | tr -d '\0' | wc -c)"
		printf '`+text+`' | dd of=/dev/own/pal conv=notrunc 2>/dev/null && sync && echo written
		sleep 3600`)
	q.Volumes, q.Disk = []api.Mount{{Volume: "own", Path: "/dev/own/pal", Raw: true}}, size
	w.Start(q)
	awaitLine(t, w, "one", "written")
	if got, want := awaitLine(t, w, "one", "node "), "block special file 600 0 0"; got != want {
		t.Errorf("the guest sees %q, want %q", got, want)
	}
	if got := awaitLine(t, w, "one", "before "); got != "0" {
		t.Errorf("a new raw volume has %s bytes that are not zero", got)
	}
	// Nothing is on it but what the guest wrote.
	data, err := os.ReadFile(filepath.Join(w.Dir, "state", "volumes", "own.raw"))
	if err != nil {
		t.Fatal(err)
	}
	want := make([]byte, size)
	copy(want, text)
	if !bytes.Equal(data, want) {
		t.Errorf("the host's file has %d bytes beginning with %.60q; want %d, zeros behind the guest's text", len(data), data, size)
	}
	if list, err := w.API.Volumes(t.Context()); err != nil || len(list) != 1 || list[0].Name != "own" || !list[0].Raw || list[0].UsedBy != "one" {
		t.Errorf("volumes: %+v, %v", list, err)
	}
	if err := w.API.Remove(t.Context(), "one", true); err != nil {
		t.Fatal(err)
	}
	// What is no file system is not taken for one.
	bad := shell("bad", "true")
	bad.Volumes = []api.Mount{{Volume: "own", Path: "/data"}}
	if _, err := w.API.Create(t.Context(), bad); !errors.Is(err, cloudpal.Invalid) || cloudpal.HintOf(err) == "" {
		t.Errorf("mounted as a file system: %v (hint %q)", err, cloudpal.HintOf(err))
	}
	q.Name, q.Entry = "two", []string{"sh", "-c", `echo "found $(head -c 21 /dev/own/pal)"; sleep 3600`}
	w.Start(q)
	if got := awaitLine(t, w, "two", "found "); got != text {
		t.Errorf("the next VM finds %q, want %q", got, text)
	}
	if err := w.API.Remove(t.Context(), "two", true); err != nil {
		t.Fatal(err)
	}
	if err := w.API.RemoveVolume(t.Context(), "own"); err != nil {
		t.Error(err)
	}
}

// A read-only VM has no disk: what it writes is in its memory, which is on the
// host's disk only encrypted.
func TestReadOnlyVMLeavesNothingOnTheDisk(t *testing.T) {
	w := world.New(t, "--armed", "0")
	w.Image("busybox")
	q := shell("ro", `test -e /secret && echo kept
		echo "canary-$(cat /proc/sys/kernel/random/uuid)" >/secret
		sync; echo "secret $(cat /secret)"; sleep 3600`)
	q.ReadOnly = true
	w.Start(q)
	canary := []byte(awaitLine(t, w, "ro", "secret "))
	if len(canary) < 40 {
		t.Fatalf("canary %q", canary)
	}
	if !found(t, filepath.Join(w.Run, "vm", "ro", "memory"), canary) {
		t.Fatal("the canary is not in the guest's memory file: the search proves nothing")
	}
	assertNotOnDisk(t, w, "awake", canary)
	suspend(t, w, "ro", api.Disk)
	assertNotOnDisk(t, w, "asleep on disk", canary)
	if _, err := w.API.Resume(t.Context(), "ro"); err != nil {
		t.Fatal(err)
	}
	if _, err := w.API.Stop(t.Context(), "ro", api.StopRequest{Timeout: time.Second}); err != nil {
		t.Fatal(err)
	}
	assertNotOnDisk(t, w, "stopped", canary)
	if _, err := os.Stat(filepath.Join(w.Dir, "state", "vms", "ro", "volume.img")); err == nil {
		t.Error("it has a disk")
	}
	if _, err := w.API.Start(t.Context(), "ro"); err != nil {
		t.Fatal(err)
	}
	w.Eventually(30*time.Second, "it has another secret", func() error {
		if again := awaitLine(t, w, "ro", "secret "); again == string(canary) {
			return errors.New("the last is " + again)
		}
		return nil
	})
	err := w.API.Logs(t.Context(), "ro", false, func(e api.LogEntry) error {
		if strings.Contains(string(e.Data), "kept") {
			t.Error("what it wrote has outlived its process")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
