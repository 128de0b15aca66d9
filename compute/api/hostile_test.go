package api

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
)

// agent serves h where an agent would, and returns a client of it.
func agent(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	l := listen(t)
	s := &http.Server{Handler: h}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return dial(t, l)
}

// raw answers every connection with the same bytes, whatever was asked.
func raw(t *testing.T, answer string) *Client {
	t.Helper()
	l := listen(t)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				conn.Read(make([]byte, 64<<10))
				io.WriteString(conn, answer)
			}()
		}
	}()
	return dial(t, l)
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func dial(t *testing.T, l net.Listener) *Client {
	t.Helper()
	c := Dial(l.Addr().String())
	t.Cleanup(c.Close)
	return c
}

// questions are one of each way that the client reads an answer.
func questions(c *Client) map[string]func(ctx context.Context) error {
	return map[string]func(ctx context.Context) error{
		"one value":  func(ctx context.Context) error { _, err := c.VM(ctx, "a"); return err },
		"a list":     func(ctx context.Context) error { _, err := c.VMs(ctx); return err },
		"progress":   func(ctx context.Context) error { _, err := c.Pull(ctx, PullRequest{Ref: "a"}, nil); return err },
		"a log":      func(ctx context.Context) error { return c.Logs(ctx, "a", true, func(LogEntry) error { return nil }) },
		"an upgrade": func(ctx context.Context) error { _, err := c.Exec(ctx, "a", struct{}{}); return err },
	}
}

func TestWrongAnswersAreErrorsOfOneLine(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 100_000)
	for what, answer := range map[string]string{
		"nothing":                "",
		"no HTTP":                "220 mail.example.com ESMTP\r\n",
		"half a header":          "HTTP/1.1 200 OK\r\nContent-Le",
		"half a body":            "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"name\":",
		"half a chunk":           "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\n[",
		"a page":                 "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>",
		"a value of other type":  "HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n\"hello\"",
		"a redirect":             "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
		"an error that is none":  "HTTP/1.1 500 " + long + "\r\nContent-Length: 2\r\n\r\nno",
		"an empty problem":       "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}",
		"a switch to another":    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + long + "\r\n\r\n",
		"a header without end":   "HTTP/1.1 200 OK\r\nX: " + strings.Repeat(long, 120),
		"an upgrade without end": "HTTP/1.1 101 Switching Protocols\r\nX: " + long + long,
	} {
		c := raw(t, answer)
		for kind, ask := range questions(c) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			err := ask(ctx)
			if err == nil || ctx.Err() != nil {
				t.Errorf("%s for %s: got %v", what, kind, err)
				cancel()
				continue
			}
			cancel()
			if text := err.Error(); len(text) > 500 || strings.ContainsAny(text, "\r\n") {
				t.Errorf("%s for %s: got %d bytes: %.200q", what, kind, len(text), text)
			}
			if cloudpal.HintOf(err) == "" {
				t.Errorf("%s for %s: got no hint for %v", what, kind, err)
			}
		}
	}
}

// TestEndlessAnswersEnd counts what an agent that never stops gets rid of.
func TestEndlessAnswersEnd(t *testing.T) {
	t.Parallel()
	for what, c := range map[string]struct {
		begin, chunk string
	}{
		"spaces":          {"", " "},
		"one long string": {`[{"name":"`, "x"},
		"one long line":   {`{"data":"`, "A"},
		"empty lines":     {"", "\n"},
	} {
		chunk := bytes.Repeat([]byte(c.chunk), 256<<10)
		client := agent(t, func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, c.begin)
			for range 1000 { // 256 MiB: more than anybody should take
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		})
		if _, err := client.VMs(t.Context()); err == nil {
			t.Errorf("%s are a list", what)
		}
		if c.chunk == "\n" {
			continue // as a log they are no lines, and cost nothing
		}
		err := client.Logs(t.Context(), "a", false, func(LogEntry) error { return nil })
		if err == nil || cloudpal.HintOf(err) == "" {
			t.Errorf("%s is a log: %v", what, err)
		}
	}
}

func TestConsoleIsBounded(t *testing.T) {
	t.Parallel()
	c := agent(t, func(w http.ResponseWriter, r *http.Request) {
		w.Write(make([]byte, maxConsole+1000))
	})
	if got, err := c.Console(t.Context(), "a"); err != nil || len(got) != maxConsole {
		t.Errorf("got %d bytes, %v; want %d", len(got), err, maxConsole)
	}
}

func TestAnAgentThatSaysNothingIsLeftWithTheContext(t *testing.T) {
	t.Parallel()
	c := agent(t, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	for kind, ask := range questions(c) {
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		err := ask(ctx)
		cancel()
		if !errors.Is(err, cloudpal.Timeout) {
			t.Errorf("%s: got %v, want %v", kind, err, cloudpal.Timeout)
		}
	}
}

func TestNoAgentIsTold(t *testing.T) {
	t.Parallel()
	l := listen(t)
	gone := l.Addr().String()
	l.Close()
	for _, path := range []string{gone, filepath.Join(t.TempDir(), "never")} {
		for kind, ask := range questions(Dial(path)) {
			err := ask(t.Context())
			if !errors.Is(err, ErrNoAgent) || cloudpal.KindOf(err) != cloudpal.Missing || cloudpal.HintOf(err) == "" {
				t.Errorf("%s: got %v, hint %q; want %v", kind, err, cloudpal.HintOf(err), ErrNoAgent)
			}
		}
	}
}

func TestNamesStayOnePartOfThePath(t *testing.T) {
	t.Parallel()
	var asked string
	c := agent(t, func(w http.ResponseWriter, r *http.Request) {
		asked = r.URL.EscapedPath()
		io.WriteString(w, "{}")
	})
	for name, want := range map[string]string{
		"notes": "/v1/vms/notes", "a/../b": "/v1/vms/a%2F..%2Fb", "a?force=1": "/v1/vms/a%3Fforce=1", "ä": "/v1/vms/%C3%A4",
	} {
		if _, err := c.VM(t.Context(), name); err != nil || asked != want {
			t.Errorf("%q: asked for %s, %v; want %s", name, asked, err, want)
		}
	}
	asked = ""
	for _, name := range []string{"", ".", ".."} {
		if _, err := c.VM(t.Context(), name); cloudpal.KindOf(err) != cloudpal.Invalid || asked != "" {
			t.Errorf("%q: asked for %q, %v; want %v", name, asked, err, cloudpal.Invalid)
		}
	}
}

func TestExecCarriesWhatCameBehindTheAnswer(t *testing.T) {
	t.Parallel()
	c := raw(t, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+ExecProtocol+"\r\n\r\n"+strings.Repeat("x", 200_000))
	conn, err := c.Exec(t.Context(), "a", struct{}{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got, err := io.ReadAll(conn); err != nil || len(got) != 200_000 {
		t.Errorf("got %d bytes, %v; want 200000", len(got), err)
	}
}

func TestExecEndsWithItsContext(t *testing.T) {
	t.Parallel()
	l := listen(t)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		conn.Read(make([]byte, 64<<10))
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+ExecProtocol+"\r\n\r\n")
		io.Copy(io.Discard, conn)
		conn.Close()
	}()
	ctx, cancel := context.WithCancel(t.Context())
	conn, err := dial(t, l).Exec(ctx, "a", struct{}{})
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if n, err := conn.Read(make([]byte, 1)); err == nil {
		t.Errorf("got %d bytes after the end", n)
	}
	conn.Close()
	conn.Close()
}
