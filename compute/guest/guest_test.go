package guest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestLinkLocalIsModifiedEUI64(t *testing.T) {
	// RFC 4291, appendix A: 34-56-78-9A-BC-DE gives 36:56:78:ff:fe:9a:bc:de.
	mac := net.HardwareAddr{0x34, 0x56, 0x78, 0x9a, 0xbc, 0xde}
	if got, want := LinkLocal(mac), netip.MustParseAddr("fe80::3656:78ff:fe9a:bcde"); got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestHelloRoundTrip(t *testing.T) {
	h := Hello{Nonce: [16]byte{1, 2}, Time: time.Unix(1700000000, 12345), Slept: time.Hour, Seed: [32]byte{9}, Reason: "a packet from 203.0.113.5"}
	got, err := ParseHello(h.Marshal())
	if err != nil || !got.Time.Equal(h.Time) || got.Nonce != h.Nonce || got.Slept != h.Slept || got.Seed != h.Seed || got.Reason != h.Reason {
		t.Errorf("got %+v %v", got, err)
	}
	if !h.IsAnswer(h.Answer()) {
		t.Error("its answer is not one")
	}
	other := Hello{Nonce: [16]byte{2}}
	if h.IsAnswer(other.Answer()) {
		t.Error("another's answer is taken for its own")
	}
}

// TestHelloOnTheWire holds the layout to docs/formats.md.
func TestHelloOnTheWire(t *testing.T) {
	h := Hello{Nonce: [16]byte{0xaa}, Time: time.Unix(0, 1), Slept: 2, Seed: [32]byte{0xbb}, Reason: "why"}
	want := "cpH2" + "\xaa" + zeros(15) + zeros(7) + "\x01" + zeros(7) + "\x02" + "\xbb" + zeros(31) + "why" + zeros(93)
	if got := string(h.Marshal()); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func zeros(n int) string { return strings.Repeat("\x00", n) }

func TestReasonsAreMadeToFit(t *testing.T) {
	for reason, want := range map[string]string{
		"a packet":                "a packet",
		"a\x00b\x1b[31m\n\u0085c": "ab[31mc",
		"bad \xff":                "bad ?",
		strings.Repeat("é", 60):   strings.Repeat("é", 48),
		strings.Repeat("x", 200):  strings.Repeat("x", 96),
		"a WireGuard handshake from [2001:0db8:0000:0000:0000:0000:0000:0001]:51820": "a WireGuard handshake from [2001:0db8:0000:0000:0000:0000:0000:0001]:51820",
	} {
		h := NewHello(1, reason)
		if h.Reason != want {
			t.Errorf("%q: got %q, want %q", reason, h.Reason, want)
		}
		if back, err := ParseHello(h.Marshal()); err != nil || back.Reason != want {
			t.Errorf("%q: read back as %q, %v", reason, back.Reason, err)
		}
	}
}

// A guest's wishes may be lies: none is taken that no vminit would have.
func TestHostileWishesAreRefused(t *testing.T) {
	many := strings.Repeat(`"x",`, MaxWishes) + `"x"`
	for _, body := range []string{
		`{"busy":[` + many + `]}`, `{"busy":["../x"]}`, `{"busy":["` + strings.Repeat("x", 65) + `"]}`,
		`{"busy":["\u001b[31m"]}`, `{"wakeAt":"9999-12-31T00:00:00Z"}`, `{"wakeAt":"tomorrow"}`, `[]`,
	} {
		c := hostile(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, body) })
		if w, err := c.Wishes(t.Context()); err == nil || len(w.Busy) > 0 || !w.WakeAt.IsZero() {
			t.Errorf("%.80s: got %+v, %v", body, w, err)
		}
	}
	good := hostile(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `{"busy":["job"],"wakeAt":"2030-01-01T00:00:00Z"}`)
	})
	if w, told, err := good.PrepareSuspend(t.Context()); err != nil || !told || len(w.Busy) != 1 || w.WakeAt.Year() != 2030 {
		t.Errorf("got %+v, %v, %v", w, told, err)
	}
	// One that takes too long has said what it wishes all the same; its last
	// word counts.
	slow := hostile(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, `{"busy":["one"]}{"busy":["two"]}`)
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if w, told, err := slow.PrepareSuspend(ctx); err == nil || !told || len(w.Busy) != 1 || w.Busy[0] != "two" {
		t.Errorf("of a slow one: got %+v, %v, %v", w, told, err)
	}
	none := hostile(t, func(w http.ResponseWriter, r *http.Request) {})
	if w, told, err := none.PrepareSuspend(t.Context()); err == nil || told {
		t.Errorf("of no answer: got %+v, %v, %v", w, told, err)
	}
}

func TestFramesRoundTrip(t *testing.T) {
	var b bytes.Buffer
	payloads := [][]byte{nil, []byte("x"), bytes.Repeat([]byte("y"), MaxFrame)}
	for _, p := range payloads {
		if err := WriteFrame(&b, FrameStdout, p); err != nil {
			t.Fatal(err)
		}
	}
	if err := WriteFrame(io.Discard, FrameStdout, make([]byte, MaxFrame+1)); err == nil {
		t.Error("a frame that is too large is written")
	}
	for _, p := range payloads {
		kind, got, err := ReadFrame(&b, make([]byte, 4))
		if err != nil || kind != FrameStdout || !bytes.Equal(got, p) {
			t.Fatalf("got %c, %d bytes, %v", kind, len(got), err)
		}
	}
	if _, _, err := ReadFrame(&b, nil); err != io.EOF {
		t.Errorf("at the end: %v", err)
	}
	if _, _, err := ReadFrame(bytes.NewReader([]byte{'o', 0, 0, 0, 9, 1}), nil); err != io.ErrUnexpectedEOF {
		t.Errorf("in the middle: %v", err)
	}
}

// hostile serves whatever a guest that has been taken over might.
func hostile(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return dial(netip.MustParseAddrPort(s.Listener.Addr().String()), net.Dialer{})
}

func TestAnswersAreBounded(t *testing.T) {
	endless := hostile(t, func(w http.ResponseWriter, r *http.Request) {
		chunk := bytes.Repeat([]byte(" "), 64<<10)
		for range 4096 {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	if _, err := endless.Status(t.Context()); err == nil {
		t.Error("256 MiB of spaces are a status")
	}
	if err := endless.Logs(t.Context(), 0, func(LogEntry) error { return nil }); err == nil {
		t.Error("an endless line is a log")
	}
}

func TestLiesAreErrors(t *testing.T) {
	for _, c := range []struct {
		what string
		h    http.HandlerFunc
	}{
		{"not JSON", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "<html>") }},
		{"an error", func(w http.ResponseWriter, r *http.Request) { http.Error(w, "no", 500) }},
		{"a redirect to the host's own services", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		}},
	} {
		if _, err := hostile(t, c.h).Wait(t.Context()); err == nil {
			t.Errorf("%s is taken for an exit", c.what)
		}
	}
}

func TestExecThatIsNotUpgraded(t *testing.T) {
	c := hostile(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "fine") })
	_, err := c.Exec(t.Context(), ExecRequest{Args: []string{"sh"}})
	var no *Refusal
	if !errors.As(err, &no) {
		t.Errorf("got %v", err)
	}
}

func TestHelloWaitsForTheRightAnswer(t *testing.T) {
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	go func() {
		buf := make([]byte, 1500)
		for i := 0; ; i++ {
			n, from, err := conn.ReadFromUDP(buf)
			if err != nil {
				return
			}
			h, err := ParseHello(buf[:n])
			if err != nil {
				continue
			}
			wrong := Hello{Nonce: [16]byte{0xff}}
			conn.WriteToUDP(wrong.Answer(), from)
			conn.WriteToUDP(bytes.Repeat([]byte("A"), 1400), from)
			if i == 2 {
				conn.WriteToUDP(h.Answer(), from)
			}
		}
	}()
	c := dial(conn.LocalAddr().(*net.UDPAddr).AddrPort(), net.Dialer{})
	if err := c.Hello(t.Context(), NewHello(0, "")); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if err := dial(netip.MustParseAddrPort("127.0.0.1:9"), net.Dialer{}).Hello(ctx, NewHello(0, "")); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("nobody answers: %v", err)
	}
}

func FuzzParseHello(f *testing.F) {
	h := Hello{Time: time.Unix(1, 2)}
	f.Add(h.Marshal())
	f.Add([]byte("cpH1"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := ParseHello(b)
		if err == nil && !bytes.Equal(h.Marshal(), b) {
			t.Errorf("%x is read as %+v", b, h)
		}
	})
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte{'o', 0, 0, 0, 1, 'x', 'x', 0, 0, 0, 2, '{', '}'})
	f.Add([]byte{'o', 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		for {
			kind, payload, err := ReadFrame(r, nil)
			if err != nil {
				return
			}
			var again bytes.Buffer
			if err := WriteFrame(&again, kind, payload); err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(b, again.Bytes()) {
				t.Fatal("a frame is read that was not there")
			}
		}
	})
}

func FuzzParseLogEntry(f *testing.F) {
	line, err := json.Marshal(LogEntry{Offset: 5, Stream: Stderr, Data: []byte("hello\xff")})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(line)
	f.Add([]byte(`{"offset":-1}`))
	f.Add([]byte(`{"data":"` + strings.Repeat("A", 4<<10) + `"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := parseLogEntry(b)
		if err == nil && (e.Offset < 0 || len(e.Data) > MaxLogData || (e.Stream != Stdout && e.Stream != Stderr)) {
			t.Errorf("%q is read as %+v", b, e)
		}
	})
}

// FuzzGuestAnswers has the client read an answer that is any bytes at all.
func FuzzGuestAnswers(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 54\r\n\r\n{\"busy\":[\"a\"],\"wakeAt\":\"2030-01-01T00:00:00.000000000Z\"}"))
	f.Add([]byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: cloudpal-exec\r\n\r\nx"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n"))
	f.Fuzz(func(t *testing.T, answer []byte) {
		c := &Client{http: &http.Client{Transport: &http.Transport{
			DisableKeepAlives: true, MaxResponseHeaderBytes: maxAnswer,
			DialContext: func(context.Context, string, string) (net.Conn, error) {
				ours, theirs := net.Pipe()
				go func() {
					defer theirs.Close()
					go io.Copy(io.Discard, theirs)
					theirs.Write(answer)
				}()
				return ours, nil
			},
		}}}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, _ = c.Status(ctx)
		if w, err := c.Wishes(ctx); err == nil && w.check() != nil {
			t.Errorf("%q is read as %+v", answer, w)
		}
		_ = c.Logs(ctx, 0, func(LogEntry) error { return nil })
		if s, err := c.Exec(ctx, ExecRequest{}); err == nil {
			s.Close()
		}
	})
}
