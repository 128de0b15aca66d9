package dav_test

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/corestore"
	"github.com/tradle/cloudpal/data/hyperdrive"
	"github.com/tradle/cloudpal/data/hyperdrive/dav"
)

var ctx = context.Background()

// A client is one of a drive that is served under /files.
type client struct {
	t     testing.TB
	drive *hyperdrive.Drive
	url   string
}

func newClient(t testing.TB) *client {
	t.Helper()
	s, err := corestore.Open("store", corestore.Options{FS: vfs.NewMem()})
	must(t, err)
	t.Cleanup(func() { s.Close() })
	d, err := hyperdrive.New(s, hyperdrive.Options{})
	must(t, err)
	server := httptest.NewServer(dav.Handler(d, "/files"))
	t.Cleanup(server.Close)
	return &client{t, d, server.URL + "/files"}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// do sends a request, with headers "Name: value", and wants a status.
func (c *client) do(want int, method, path string, body io.Reader, headers ...string) (*http.Response, string) {
	c.t.Helper()
	r, err := http.NewRequest(method, c.url+path, body)
	must(c.t, err)
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	resp, err := http.DefaultClient.Do(r)
	must(c.t, err)
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	must(c.t, err)
	if resp.StatusCode != want {
		c.t.Errorf("%s %s: %s, want %d: %s", method, path, resp.Status, want, got)
	}
	return resp, string(got)
}

func (c *client) put(path, content string) *http.Response {
	c.t.Helper()
	resp, _ := c.do(201, "PUT", path, strings.NewReader(content))
	return resp
}

func (c *client) get(path string) string {
	c.t.Helper()
	_, body := c.do(200, "GET", path, nil)
	return body
}

// list returns what a folder is said to have, folders with a slash.
func (c *client) list(path string) (names []string) {
	c.t.Helper()
	_, body := c.do(207, "PROPFIND", path, nil, "Depth: 1")
	var answer struct {
		Responses []struct {
			Href string `xml:"href"`
		} `xml:"response"`
	}
	must(c.t, xml.Unmarshal([]byte(body), &answer))
	for _, r := range answer.Responses[1:] {
		name, err := url.PathUnescape(strings.TrimPrefix(r.Href, "/files"+strings.TrimSuffix(path, "/")+"/"))
		must(c.t, err)
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (c *client) wantList(path string, want ...string) {
	c.t.Helper()
	if got := c.list(path); !slices.Equal(got, want) {
		c.t.Errorf("%s has %q, want %q", path, got, want)
	}
}

// names returns what the drive itself has.
func (c *client) names() (names []string) {
	for e, err := range c.drive.List(ctx, "") {
		must(c.t, err)
		names = append(names, e.Name)
	}
	return names
}

// TestSession is what a person does with a file manager.
func TestSession(t *testing.T) {
	c := newClient(t)
	resp, _ := c.do(200, "OPTIONS", "/", nil)
	if resp.Header.Get("DAV") != "1, 2" {
		t.Errorf("DAV: %q", resp.Header.Get("DAV"))
	}
	c.wantList("/")
	c.do(201, "MKCOL", "/new folder", nil)
	c.wantList("/", "new folder/")
	c.wantList("/new folder/")
	c.do(405, "MKCOL", "/new folder", nil)
	c.do(409, "MKCOL", "/none/x", nil)
	c.do(201, "MOVE", "/new folder", nil, "Destination: "+c.url+"/docs")
	c.wantList("/", "docs/")

	created := c.put("/docs/a.txt", "hello")
	c.do(409, "PUT", "/none/x", strings.NewReader("x"))
	if got := c.get("/docs/a.txt"); got != "hello" {
		t.Errorf("GET = %q", got)
	}
	resp, body := c.do(206, "GET", "/docs/a.txt", nil, "Range: bytes=1-3")
	if body != "ell" || resp.Header.Get("Content-Range") != "bytes 1-3/5" {
		t.Errorf("the range is %q, %q", body, resp.Header.Get("Content-Range"))
	}
	if got, want := resp.Header.Get("ETag"), created.Header.Get("ETag"); got != want || got == "" {
		t.Errorf("the ETag was %q, and is %q", want, got)
	}
	c.do(304, "GET", "/docs/a.txt", nil, "If-None-Match: "+resp.Header.Get("ETag"))
	if when, err := http.ParseTime(resp.Header.Get("Last-Modified")); err != nil || time.Since(when) > time.Minute {
		t.Errorf("Last-Modified: %v, %v", when, err)
	}
	if again := c.put("/docs/a.txt", "HELLO"); again.Header.Get("ETag") == created.Header.Get("ETag") {
		t.Error("another content has the same ETag")
	}

	c.do(201, "COPY", "/docs/a.txt", nil, "Destination: "+c.url+"/docs/b.txt")
	c.do(412, "COPY", "/docs/a.txt", nil, "Destination: "+c.url+"/docs/b.txt", "Overwrite: F")
	c.do(204, "MOVE", "/docs/a.txt", nil, "Destination: "+c.url+"/docs/b.txt")
	c.wantList("/docs", "b.txt")
	if got := c.get("/docs/b.txt"); got != "HELLO" {
		t.Errorf("moved: %q", got)
	}
	c.do(201, "COPY", "/docs", nil, "Destination: "+c.url+"/copy")
	c.wantList("/copy", "b.txt")
	c.do(204, "DELETE", "/docs/b.txt", nil)
	c.wantList("/", "copy/", "docs/")
	c.wantList("/docs")
	c.do(204, "DELETE", "/docs", nil)
	c.do(404, "DELETE", "/docs", nil)
	c.do(404, "GET", "/docs/b.txt", nil)
	c.wantList("/", "copy/")
	if got := c.names(); !slices.Equal(got, []string{"/copy/.keep", "/copy/b.txt"}) {
		t.Errorf("the drive has %q", got)
	}
}

func TestLocks(t *testing.T) {
	c := newClient(t)
	const want = `<?xml version="1.0"?><lockinfo xmlns="DAV:"><lockscope><exclusive/></lockscope><locktype><write/></locktype><owner>ann</owner></lockinfo>`
	resp, _ := c.do(201, "LOCK", "/a", strings.NewReader(want), "Timeout: Second-60")
	token := resp.Header.Get("Lock-Token")
	c.do(423, "PUT", "/a", strings.NewReader("bob"))
	c.do(201, "PUT", "/a", strings.NewReader("ann"), "If: ("+token+")")
	c.do(423, "LOCK", "/a", strings.NewReader(want))
	c.do(204, "UNLOCK", "/a", nil, "Lock-Token: "+token)
	c.put("/a", "bob")
	if got := c.get("/a"); got != "bob" {
		t.Errorf("GET = %q", got)
	}
}

func TestLargeFile(t *testing.T) {
	c := newClient(t)
	want := bytes.Repeat([]byte("0123456789abcdef"), 300000)
	c.do(201, "PUT", "/large.bin", bytes.NewReader(want))
	if got := c.get("/large.bin"); got != string(want) {
		t.Errorf("%d bytes, want %d", len(got), len(want))
	}
	_, body := c.do(206, "GET", "/large.bin", nil, "Range: bytes=-20")
	if body != "cdef0123456789abcdef" {
		t.Errorf("the end is %q", body)
	}
	length := contentLength(t, c.drive)
	c.do(201, "COPY", "/large.bin", nil, "Destination: "+c.url+"/copy.bin")
	if n := contentLength(t, c.drive); n != length {
		t.Errorf("the copy took %d blocks", n-length)
	}
	if got := c.get("/copy.bin"); got != string(want) {
		t.Errorf("the copy has %d bytes", len(got))
	}
}

func contentLength(t testing.TB, d *hyperdrive.Drive) uint64 {
	core, err := d.Content(ctx)
	must(t, err)
	return core.Length()
}

// TestHalfAnUpload goes away in the middle of one, small and large.
func TestHalfAnUpload(t *testing.T) {
	for _, size := range []int{1000, 5 << 20} {
		c := newClient(t)
		c.put("/f", "old")
		u, err := url.Parse(c.url)
		must(t, err)
		conn, err := net.Dial("tcp", u.Host)
		must(t, err)
		_, err = fmt.Fprintf(conn, "PUT /files/f HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n", size)
		must(t, err)
		_, err = conn.Write(make([]byte, size*3/4))
		must(t, err)
		must(t, conn.(*net.TCPConn).CloseWrite())
		answer, err := io.ReadAll(conn) // ends when the handler has
		must(t, errors.Join(err, conn.Close()))
		if strings.Contains(string(answer), "201") {
			t.Errorf("half of %d bytes: %s", size, answer)
		}
		if got := c.get("/f"); got != "old" {
			t.Errorf("after half of %d bytes the file has %d", size, len(got))
		}
	}
}

// TestSlowUpload keeps no other waiting.
func TestSlowUpload(t *testing.T) {
	c := newClient(t)
	body, send := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.do(201, "PUT", "/slow", body)
	}()
	_, err := send.Write(make([]byte, 3<<20))
	must(t, err)
	c.do(201, "PUT", "/quick", bytes.NewReader(make([]byte, 2<<20)))
	if got := c.get("/quick"); len(got) != 2<<20 {
		t.Errorf("the quick one has %d bytes", len(got))
	}
	_, err = send.Write([]byte("end"))
	must(t, errors.Join(err, send.Close()))
	<-done
	if got := c.get("/slow"); len(got) != 3<<20+3 || !strings.HasSuffix(got, "end") {
		t.Errorf("the slow one has %d bytes", len(got))
	}
}

// TestMoveIsOneChange counts versions: nobody sees half of it.
func TestMoveIsOneChange(t *testing.T) {
	c := newClient(t)
	for _, name := range []string{"/a/1", "/a/b/2", "/to/old"} {
		must(t, c.drive.Put(ctx, name, []byte(name), hyperdrive.Attr{}))
	}
	seen := make(chan []string, 10)
	watching, stop := context.WithCancel(ctx)
	ready := make(chan struct{})
	go func() {
		defer close(seen)
		first := true
		for w, err := range c.drive.Watch(watching, "/to") {
			if err != nil {
				return
			}
			var names []string
			for e, err := range w.Now.List(ctx, "/to") {
				if err != nil {
					return
				}
				names = append(names, e.Name)
			}
			if first {
				first = false
				close(ready)
				continue
			}
			seen <- names
		}
	}()
	for range 1000 { // until the watcher has begun
		must(t, c.drive.Put(ctx, "/to/old", []byte("x"), hyperdrive.Attr{}))
		select {
		case <-ready:
		case <-time.After(5 * time.Millisecond):
			continue
		}
		break
	}
	c.do(204, "MOVE", "/a", nil, "Destination: "+c.url+"/to")
	for names := range seen {
		if slices.Equal(names, []string{"/to/old"}) {
			continue // of the puts above
		}
		if want := []string{"/to/1", "/to/b/2"}; !slices.Equal(names, want) {
			t.Errorf("seen: %q, want %q", names, want)
		}
		break
	}
	stop()
	for range seen {
	}
	c.wantList("/", "to/")
	c.do(403, "MOVE", "/to", nil, "Destination: "+c.url+"/to/b/c")
	c.do(403, "MOVE", "/to/b", nil, "Destination: "+c.url+"/to")
	if got := c.names(); !slices.Equal(got, []string{"/to/1", "/to/b/2"}) {
		t.Errorf("the drive has %q", got)
	}
}

// TestCopyOverwrites a file and a folder.
func TestCopyOverwrites(t *testing.T) {
	c := newClient(t)
	for _, name := range []string{"/from/1", "/to/2", "/file"} {
		must(t, c.drive.Put(ctx, name, []byte(name), hyperdrive.Attr{}))
	}
	c.do(204, "COPY", "/from", nil, "Destination: "+c.url+"/to")
	c.wantList("/to", "1")
	c.do(204, "COPY", "/file", nil, "Destination: "+c.url+"/to")
	if got := c.get("/to"); got != "/file" {
		t.Errorf("GET = %q", got)
	}
	if got := c.names(); !slices.Equal(got, []string{"/file", "/from/1", "/to"}) {
		t.Errorf("the drive has %q", got)
	}
}

func TestLinks(t *testing.T) {
	c := newClient(t)
	must(t, c.drive.Put(ctx, "/dir/f", []byte("x"), hyperdrive.Attr{Executable: true}))
	for name, target := range map[string]string{"/todir": "dir", "/tofile": "/dir/f", "/dangling": "gone"} {
		must(t, c.drive.Symlink(ctx, name, target))
	}
	c.wantList("/", "dir/", "todir/", "tofile")
	c.put("/dangling", "not any more")
	c.wantList("/", "dangling", "dir/", "todir/", "tofile")
	c.wantList("/todir", "f")
	c.put("/todir/g", "new")
	c.put("/tofile", "changed")
	if got := c.get("/dir/f"); got != "changed" {
		t.Errorf("GET = %q", got)
	}
	if e, err := c.drive.Entry(ctx, "/dir/f"); err != nil || !e.Executable {
		t.Errorf("%+v, %v: it is not executable any more", e, err)
	}
	c.do(204, "DELETE", "/todir", nil)
	c.wantList("/dir", "f", "g")
}

func TestRefusals(t *testing.T) {
	c := newClient(t)
	c.put("/f", "x")
	c.do(400, "PUT", "/f", strings.NewReader("y"), "Content-Range: bytes 0-0/2")
	c.do(405, "DELETE", "/", nil)
	c.do(400, "PROPFIND", "/", io.MultiReader(strings.NewReader("<?xml version='1.0'?><propfind xmlns='DAV:'>"), strings.NewReader(strings.Repeat("<prop/>", 1<<18))))
	resp, _ := c.do(200, "GET", "/f", nil)
	if resp.Header.Get("Content-Security-Policy") != "sandbox" {
		t.Error("what is in a file may act in the server's name")
	}
	if _, err := c.drive.Entry(ctx, "/.keep"); !errors.Is(err, cloudpal.NotExist) {
		t.Errorf("the root: %v", err)
	}
}

// TestProperties are kept, moved and copied with a file.
func TestProperties(t *testing.T) {
	c := newClient(t)
	must(t, c.drive.Put(ctx, "/f", []byte("x"), hyperdrive.Attr{Metadata: []byte(`{"mine":[1]}`)}))
	patch := func(what string) string {
		return `<?xml version="1.0"?><D:propertyupdate xmlns:D="DAV:" xmlns:x="urn:x">` + what + `</D:propertyupdate>`
	}
	c.do(207, "PROPPATCH", "/f", strings.NewReader(patch(`<D:set><D:prop><x:color>red <b>and</b> blue</x:color><x:size>7</x:size></D:prop></D:set>`)))
	c.do(207, "PROPPATCH", "/f", strings.NewReader(patch(`<D:remove><D:prop><x:size/></D:prop></D:remove>`)))
	c.put("/f", "another content")
	c.do(201, "COPY", "/f", nil, "Destination: "+c.url+"/copy")
	c.do(201, "MOVE", "/f", nil, "Destination: "+c.url+"/moved")
	for _, name := range []string{"/copy", "/moved"} {
		_, body := c.do(207, "PROPFIND", name, nil, "Depth: 0")
		if !strings.Contains(body, "red <b>and</b> blue") || strings.Contains(body, "size>7") {
			t.Errorf("%s: %s", name, body)
		}
		e, err := c.drive.Entry(ctx, name)
		must(t, err)
		if !strings.Contains(string(e.Metadata), `"mine":[1]`) || e.MTime().IsZero() {
			t.Errorf("%s has %s", name, e.Metadata)
		}
	}
	_, body := c.do(207, "PROPPATCH", "/copy", strings.NewReader(patch(`<D:set><D:prop><x:long>`+strings.Repeat("x", 70000)+`</x:long></D:prop></D:set>`)))
	if !strings.Contains(body, "507") {
		t.Errorf("70,000 bytes: %s", body)
	}
}

// TestStrangersProperties does not let a drive's metadata write the answer.
func TestStrangersProperties(t *testing.T) {
	c := newClient(t)
	for i, prop := range []string{
		`{"name":"a","xml":"</a></D:prop><evil/>"}`, `{"name":"a","xml":"<evil>"}`, `{"name":"a/><evil","xml":""}`,
		`{"name":"x:evil"}`, `{"name":"a","xml":"<?evil?>"}`, `{"name":"a","xml":"<!DOCTYPE evil>"}`, `{"name":"a","xml":"&evil;"}`, `{"name":""}`,
		`{"name":"a","xml":"</a><evil/><a>"}`,
	} {
		must(t, c.drive.Put(ctx, fmt.Sprintf("/%d", i), nil, hyperdrive.Attr{Metadata: []byte(`{"props":[` + prop + `]}`)}))
	}
	c.list("/") // which fails where the answer is no XML
	if _, body := c.do(207, "PROPFIND", "/", nil, "Depth: 1"); strings.Contains(body, "evil") {
		t.Errorf("the answer is %s", body)
	}
}
