package console_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal/console"
)

// A browser is Debian's Chromium, without a window, and with a new profile each
// time that it starts.
type browser struct {
	t    *testing.T
	path string
}

func newBrowser(t *testing.T) browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil && os.Getenv("CLOUDPAL_MUST_RUN") != "" {
		t.Fatal("must not be skipped here, but it needs chromium: run scripts/setup test")
	}
	if err != nil {
		t.Skip("needs chromium: run scripts/setup test")
	}
	return browser{t, path}
}

// The values of Chromium's setting preferredColorScheme.
const (
	dark  = 0
	light = 1
)

// run starts Chromium and returns what it wrote to standard output.
func (b browser) run(scheme int, args ...string) []byte {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 2*time.Minute)
	defer cancel()
	home := b.home()
	args = append([]string{
		"--headless", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-background-networking", "--disable-component-update",
		"--force-device-scale-factor=1", "--user-data-dir=" + home, "--enable-logging=stderr",
		"--blink-settings=preferredColorScheme=" + strconv.Itoa(scheme),
	}, args...)
	if os.Getuid() == 0 {
		args = append([]string{"--no-sandbox"}, args...) // Chromium's sandbox refuses root
	}
	cmd := exec.CommandContext(ctx, b.path, args...)
	cmd.Env = append(os.Environ(), "HOME="+home, "XDG_CONFIG_HOME="+home, "XDG_CACHE_HOME="+home)
	cmd.WaitDelay = 5 * time.Second
	var out, log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &log
	if err := cmd.Run(); err != nil {
		b.t.Fatalf("chromium: %v\n%s", err, &log)
	}
	if strings.Contains(log.String(), "Content Security Policy") {
		b.t.Errorf("the page breaks its own policy:\n%s", &log)
	}
	return out.Bytes()
}

// home is a directory that goes away with the test, even if a process of
// Chromium is a little slower.
func (b browser) home() string {
	home, err := os.MkdirTemp("", "cloudpal-chromium-")
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() {
		for range 50 {
			if os.RemoveAll(home) == nil {
				return
			}
			time.Sleep(20 * time.Millisecond)
		}
		b.t.Errorf("%s could not be removed", home)
	})
	return home
}

// dump returns the document as it is once it has loaded.
func (b browser) dump(scheme int, url string) node {
	b.t.Helper()
	return parse(b.t, string(b.run(scheme, "--dump-dom", url)))
}

// headless Chromium makes its window smaller than it is told, by a bar that is
// not there.
const bar = 87

func (b browser) screenshot(scheme, width, height int, url string) image.Image {
	b.t.Helper()
	file := filepath.Join(b.t.TempDir(), "page.png")
	b.run(scheme, fmt.Sprintf("--window-size=%d,%d", width, height+bar), "--screenshot="+file, url)
	data, err := os.ReadFile(file)
	if err != nil {
		b.t.Fatal(err)
	}
	img, err := png.Decode(bytes.NewReader(data))
	if err != nil {
		b.t.Fatal(err)
	}
	return img
}

// site serves the views, each under its name and as the handler does it. Its
// page "look" shows some in frames of any width, for the window has a least one;
// of the policy only frame-ancestors is changed for it.
func site(t *testing.T) string {
	t.Helper()
	mux := http.NewServeMux()
	for name, v := range views() {
		mux.HandleFunc("GET /"+path(name), func(w http.ResponseWriter, r *http.Request) {
			console.Show(framed{w}, http.StatusOK, v)
		})
	}
	mux.HandleFunc("GET /look", serveLook)
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL
}

func path(view string) string { return strings.ReplaceAll(view, " ", "-") }

func serveLook(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	io.WriteString(w, `<!doctype html><meta name="color-scheme" content="light dark"><style>body { margin: 0 } iframe { border: 0; display: block } pre { display: none }</style>`)
	for _, page := range r.URL.Query()["page"] {
		fmt.Fprintf(w, `<iframe name="%s" src="/%[1]s" width="%s" height="844"></iframe>`, page, r.FormValue("width"))
	}
	if !r.Form.Has("still") {
		io.WriteString(w, look)
	}
}

type framed struct{ http.ResponseWriter }

func (f framed) WriteHeader(status int) {
	policy := f.Header().Get("Content-Security-Policy")
	f.Header().Set("Content-Security-Policy", strings.Replace(policy, "frame-ancestors 'none'", "frame-ancestors 'self'", 1))
	f.ResponseWriter.WriteHeader(status)
}

// look measures the pages in its frames: what it finds is in its element
// "found". All that is folded is unfolded for it.
const look = `<pre id="found"></pre>
<script>
const measure = (win, doc) => {
	const name = e => e.tagName + "." + e.className + " " + e.textContent.trim().slice(0, 40)
	const visible = e => { const r = e.getBoundingClientRect(); return r.width > 1 && r.height > 1 && r.right > 0 }
	const found = { dark: win.matchMedia("(prefers-color-scheme: dark)").matches, width: win.innerWidth, beyond: [], unseen: [], small: [] }
	found.columns = win.getComputedStyle(doc.querySelector("main")).gridTemplateColumns.split(" ").length
	doc.querySelectorAll("a, button, input, summary, [tabindex='0']").forEach(e => {
		e.focus({ focusVisible: true })
		const s = win.getComputedStyle(e)
		if (doc.activeElement === e && (s.outlineStyle == "none" || parseFloat(s.outlineWidth) < 2)) found.unseen.push(name(e))
		if (/^(BUTTON|SUMMARY)$/.test(e.tagName) && e.getBoundingClientRect().height < 24) found.small.push(name(e))
		e.blur()
	})
	doc.querySelectorAll("details").forEach(e => e.open = true)
	found.scroll = doc.scrollingElement.scrollWidth
	doc.querySelectorAll("body *").forEach(e => {
		if (!visible(e) || e.closest(".scroll, pre, .sky") && !e.matches(".scroll, pre")) return
		if (e.getBoundingClientRect().right > win.innerWidth + 0.5) found.beyond.push(name(e))
	})
	return found
}
onload = () => {
	const found = {}
	document.querySelectorAll("iframe").forEach(f => found[f.name] = measure(f.contentWindow, f.contentDocument))
	document.getElementById("found").textContent = JSON.stringify(found)
}
</script>`

// found is what look finds.
type found struct {
	Dark          bool
	Width, Scroll int
	Columns       int
	Beyond        []string // elements that reach over the right edge
	Unseen        []string // elements that do not show that they have the focus
	Small         []string // what is too small to be hit
}

// measure looks at pages, each in a frame as wide.
func (b browser) measure(scheme, width int, site string, pages ...string) (f map[string]found) {
	b.t.Helper()
	query := url.Values{"width": {strconv.Itoa(width)}, "page": pages}
	text := b.dump(scheme, site+"/look?"+query.Encode()).one(b.t, "pre", "found").text()
	if err := json.Unmarshal([]byte(text), &f); err != nil || len(f) != len(pages) {
		b.t.Fatalf("%q: %v", text, err)
	}
	return f
}

// TestPagesFitTheirScreens measures every page on a small phone (WCAG 2.2,
// 1.4.10, asks for 320), a common one, and a wide screen.
func TestPagesFitTheirScreens(t *testing.T) {
	b, site := newBrowser(t), site(t)
	var pages []string
	for name := range views() {
		pages = append(pages, path(name))
	}
	for _, width := range []int{320, 390, 1280} {
		for page, f := range b.measure(light, width, site, pages...) {
			if f.Width != width || f.Scroll > width || len(f.Beyond) > 0 {
				t.Errorf("%s at %d: %d wide, scrolls over %d, beyond the edge are %q", page, width, f.Width, f.Scroll, f.Beyond)
			}
			if len(f.Unseen) > 0 || len(f.Small) > 0 {
				t.Errorf("%s at %d: the focus is not seen on %q; too small are %q", page, width, f.Unseen, f.Small)
			}
			if first := page == "awake" || page == "asleep"; first && f.Columns != map[bool]int{true: 2, false: 1}[width == 1280] {
				t.Errorf("%s at %d: %d columns", page, width, f.Columns)
			}
		}
	}
}

// TestMeasureFinds shows a page that is too wide, so that the test above can
// fail.
func TestMeasureFinds(t *testing.T) {
	b := newBrowser(t)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /look", serveLook)
	mux.HandleFunc("GET /wide", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `<!doctype html><main><p style="width: 500px">wide</p><a href="/" style="outline: none">unseen</a></main>`)
	})
	s := httptest.NewServer(mux)
	defer s.Close()
	f := b.measure(dark, 390, s.URL, "wide")["wide"]
	if !f.Dark || f.Scroll <= 390 || len(f.Beyond) != 1 || len(f.Unseen) != 1 {
		t.Errorf("got %+v", f)
	}
}

// TestPageInLightAndDark looks at pictures of the page, as the handler serves
// it: that its ground has the colour of its style shows that the policy lets the
// style through.
func TestPageInLightAndDark(t *testing.T) {
	b := newBrowser(t)
	h := httptest.NewServer(show(ordinary()))
	defer h.Close()
	for name, c := range map[string]struct {
		width, height int
		url           string
	}{
		"wide":  {1280, 900, h.URL + "/"},
		"phone": {390, 844, site(t) + "/look?still&width=390&page=awake"},
	} {
		day := b.screenshot(light, max(c.width, 500), c.height, c.url)
		night := b.screenshot(dark, max(c.width, 500), c.height, c.url)
		expect(t, name+", light", day, color.RGBA{0xf4, 0xf1, 0xea, 0xff})
		expect(t, name+", dark", night, color.RGBA{0x11, 0x13, 0x1f, 0xff})
		area := image.Rect(0, 0, c.width, c.height)
		if !area.In(day.Bounds()) || !area.In(night.Bounds()) {
			t.Fatalf("%s: got pictures of %v and %v", name, day.Bounds(), night.Bounds())
		}
		if share := differ(day, night, area); share < 0.9 {
			t.Errorf("%s: light and dark differ in %.0f %% of their pixels", name, 100*share)
		}
		keep(t, name+"-light", day, area)
		keep(t, name+"-dark", night, area)
	}
}

func expect(t *testing.T, name string, img image.Image, want color.RGBA) {
	t.Helper()
	if got := color.RGBAModel.Convert(img.At(2, 2)); got != want {
		t.Errorf("%s: the ground is %v, want %v", name, got, want)
	}
}

func differ(a, b image.Image, area image.Rectangle) float64 {
	n := 0
	for y := area.Min.Y; y < area.Max.Y; y++ {
		for x := area.Min.X; x < area.Max.X; x++ {
			if color.RGBAModel.Convert(a.At(x, y)) != color.RGBAModel.Convert(b.At(x, y)) {
				n++
			}
		}
	}
	return float64(n) / float64(area.Dx()*area.Dy())
}

// keep leaves a picture where CLOUDPAL_PICTURES says, for who wants to look.
func keep(t *testing.T, name string, img image.Image, area image.Rectangle) {
	t.Helper()
	dir := os.Getenv("CLOUDPAL_PICTURES")
	if dir == "" {
		return
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img.(interface {
		SubImage(image.Rectangle) image.Image
	}).SubImage(area)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), b.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestFormIsSent goes the way of who adds a phone: the
// policy lets the form be sent to its own host, and the QR code be seen.
func TestFormIsSent(t *testing.T) {
	b := newBrowser(t)
	sent := make(chan string, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /form", func(w http.ResponseWriter, _ *http.Request) {
		console.Show(framed{w}, http.StatusOK, console.Form{Token: "t0ken", Name: "phone"})
	})
	mux.HandleFunc("POST /add", func(w http.ResponseWriter, r *http.Request) {
		sent <- fmt.Sprint(r.Header.Get("Origin") == "http://"+r.Host, " ", r.PostFormValue(console.FieldToken), " ", r.PostFormValue(console.FieldName), " ", r.PostFormValue(console.FieldFull))
		console.Show(framed{w}, http.StatusOK, added())
	})
	mux.HandleFunc("GET /press", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `<!doctype html><iframe src="/form"></iframe><pre id="found"></pre><script>
const frame = document.querySelector("iframe")
frame.onload = () => {
	const doc = frame.contentDocument, button = doc.querySelector("button"), picture = doc.querySelector("img")
	if (button) button.click()
	else document.getElementById("found").textContent = doc.querySelector("h1").textContent + " " + picture.naturalWidth
}
</script>`)
	})
	s := httptest.NewServer(mux)
	defer s.Close()
	doc := parse(t, string(b.run(light, "--virtual-time-budget=10000", "--dump-dom", s.URL+"/press")))
	if got := doc.one(t, "pre", "found").text(); got != "phone may join 328" {
		t.Errorf("after the form came %q", got)
	}
	select {
	case got := <-sent:
		if got != "true t0ken phone " {
			t.Errorf("got the form %q", got)
		}
	default:
		t.Error("the form did not arrive")
	}
}
