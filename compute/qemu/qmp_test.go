package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// pair returns a monitor and QEMU's end of its connection.
func pair(t testing.TB, onEvent func(event)) (*monitor, *net.UnixConn) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	must(t, err)
	defer l.Close()
	ours, err := net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr))
	must(t, err)
	theirs, err := l.AcceptUnix()
	must(t, err)
	m := newMonitor(ours, onEvent)
	t.Cleanup(func() {
		theirs.Close()
		m.close()
		<-m.gone
	})
	return m, theirs
}

func TestMonitorSortsAnswersFromEvents(t *testing.T) {
	t.Parallel()
	events := make(chan event, 8)
	m, qemu := pair(t, func(e event) { events <- e })
	fmt.Fprintln(qemu, `{"QMP":{"version":{},"capabilities":[]}}`)
	fmt.Fprintln(qemu, `{"event":"STOP","timestamp":{}}`)
	fmt.Fprintln(qemu, `{"return":{}}`+"\n"+`{"event":"MIGRATION","data":{"status":"completed"}}`+"\n"+`{"return":{"a":1}}`)
	// The greeting and the first answer may be there before anybody asks; an
	// answer must not.
	got, err := m.run(t.Context(), command{Execute: "a"}, command{Execute: "b"})
	if err == nil {
		if string(got) != `{"a":1}` {
			t.Errorf("the last answer is %s", got)
		}
		return
	}
	if !strings.Contains(err.Error(), "nobody asked") {
		t.Error(err)
	}
}

func TestMonitorTellsQEMUsError(t *testing.T) {
	t.Parallel()
	m, qemu := pair(t, func(event) {})
	go answerWith(qemu, `{"error":{"class":"GenericError","desc":"no such thing"}}`)
	if _, err := m.run(t.Context(), command{Execute: "x"}); err == nil || !strings.Contains(err.Error(), "x: no such thing") {
		t.Errorf("got %v", err)
	}
}

// answerWith writes a line for each that comes.
func answerWith(conn *net.UnixConn, line string) {
	buf := make([]byte, 4096)
	for {
		n, err := conn.Read(buf)
		if err != nil {
			return
		}
		for range bytes.Count(buf[:n], []byte{'\n'}) {
			fmt.Fprintln(conn, line)
		}
	}
}

func TestMonitorEndsWithQEMU(t *testing.T) {
	t.Parallel()
	m, qemu := pair(t, func(event) {})
	done := make(chan error, 1)
	go func() {
		_, err := m.run(context.Background(), command{Execute: "x"})
		done <- err
	}()
	buf := make([]byte, 100)
	_, err := qemu.Read(buf)
	must(t, err)
	qemu.Close()
	select {
	case err := <-done:
		if err == nil {
			t.Error("a command that QEMU never answered worked")
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it waits for a QEMU that is gone")
	}
	if _, err := m.run(t.Context(), command{Execute: "y"}); err == nil {
		t.Error("a command to a QEMU that is gone worked")
	}
}

func TestMonitorGivesUpWithItsContext(t *testing.T) {
	t.Parallel()
	m, _ := pair(t, func(event) {})
	why := errors.New("why")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if _, err := m.run(ctx, command{Execute: "x"}); !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
}

func TestMonitorRefusesWhatIsNotQMP(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"<html>\n", `{"return":1}` + "\n", strings.Repeat(" ", 2*maxMessage), `{"return":` + strings.Repeat("[", 20000) + "\n",
	} {
		m, qemu := pair(t, func(event) {})
		go qemu.Write([]byte(text))
		select {
		case <-m.gone:
		case <-time.After(10 * time.Second):
			t.Errorf("%.20q is listened to", text)
		}
	}
}

func TestMonitorPassesAFile(t *testing.T) {
	t.Parallel()
	m, qemu := pair(t, func(event) {})
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	must(t, err)
	defer f.Close()
	var asked sync.WaitGroup
	defer asked.Wait()
	asked.Go(func() {
		if _, err := m.run(t.Context(), command{Execute: "getfd", file: f}); err != nil {
			t.Error(err)
		}
	})
	buf, oob := make([]byte, 4096), make([]byte, 256)
	_, n, _, _, err := qemu.ReadMsgUnix(buf, oob)
	must(t, err)
	if n == 0 {
		t.Error("no descriptor came with getfd")
	}
	_, err = qemu.Write([]byte(`{"return":{}}` + "\n"))
	must(t, err)
}

// FuzzMonitor has QEMU say any bytes at all, while commands wait.
func FuzzMonitor(f *testing.F) {
	f.Add([]byte(`{"QMP":{}}` + "\n" + `{"return":{}}` + "\n"))
	f.Add([]byte(`{"event":"MIGRATION","data":{"status":"completed"}}` + "\n"))
	f.Add([]byte(`{"error":{"desc":"x"}}` + "\n" + `{"return":[{"stats":{"rd_bytes":-1}}]}` + "\n"))
	f.Add([]byte(`{"event":"SHUTDOWN","data":{"reason":7}}` + "\n"))
	f.Fuzz(func(t *testing.T, said []byte) {
		mc := &machine{migration: make(chan string, 1), done: make(chan struct{})}
		m := &monitor{onEvent: mc.happened, gone: make(chan struct{})}
		answers := make([]chan answer, 3)
		for i := range answers {
			answers[i] = make(chan answer, 1)
			m.waiting = append(m.waiting, answers[i])
		}
		_ = eachMessage(bytes.NewReader(said), m.handle)
		for _, a := range answers {
			select {
			case got := <-a:
				var disks []struct{ Stats struct{ Read, Write int64 } }
				if got.err == nil {
					_ = decode(got.data, &disks)
				}
			default:
			}
		}
	})
}
