package console_test

import (
	"bytes"
	"encoding/base64"
	"image"
	"image/color"
	"image/png"
	"strings"
	"testing"

	"github.com/tradle/cloudpal/console"
)

const config = "[Interface]\nPrivateKey = aGVyZSBzdGFuZHMgdGhlIGtleSBvZiB0aGUgcGhvbmU=\n\n[Peer]\nEndpoint = [2001:db8::5]:51820\n"

func added() console.Added {
	return console.Added{Name: "phone", QR: square(), Config: []byte(config)}
}

// square is a picture that is black and white.
func square() []byte {
	img := image.NewPaletted(image.Rect(0, 0, 328, 328), color.Palette{color.White, color.Black})
	for i := range img.Pix {
		if x, y := i%328/8, i/328/8; x > 4 && x < 36 && y > 4 && y < 36 && (x*y+x)%3 == 0 {
			img.Pix[i] = 1
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		panic(err)
	}
	return b.Bytes()
}

func TestFormAsksForAName(t *testing.T) {
	for name, v := range views() {
		if name != "form" && name != "with a form" {
			continue
		}
		form := draw(t, v).one(t, "form")
		if form.attr("method") != "post" || form.attr("action") != "/add" {
			t.Errorf("%s: it is sent by %s to %s", name, form.attr("method"), form.attr("action"))
		}
		field := form.one(t, "input", "name="+console.FieldName)
		if form.one(t, "label", "for="+field.attr("id")).text() == "" {
			t.Errorf("%s: the field has no label", name)
		}
		form.one(t, "input", "name="+console.FieldFull, "value=1")
		form.one(t, "button")
	}
}

func TestFormCarriesItsToken(t *testing.T) {
	form := draw(t, console.Form{Token: "t0ken"})
	if got := form.one(t, "input", "name="+console.FieldToken, "type=hidden").attr("value"); got != "t0ken" {
		t.Errorf("got %q", got)
	}
	if n := len(draw(t, console.Form{}).all("input", "name="+console.FieldToken)); n != 0 {
		t.Error("there is a field for no token")
	}
}

func TestFormSaysWhatWasWrong(t *testing.T) {
	form := draw(t, console.Form{Name: "Phone", Full: true, Trouble: "a name has small letters"})
	if got := form.one(t, "p", "role=alert").text(); got != "a name has small letters" {
		t.Errorf("got %q", got)
	}
	field := form.one(t, "input", "name="+console.FieldName)
	if field.attr("value") != "Phone" || field.attr("aria-invalid") != "true" || !strings.Contains(field.attr("aria-describedby"), "trouble") {
		t.Errorf("got the field %v", field.Attr)
	}
}

func TestAddedOffersTheConfiguration(t *testing.T) {
	doc := draw(t, added())
	link := doc.one(t, "a", "download=phone.conf")
	if got := decode(t, link.attr("href"), "data:application/octet-stream;base64,"); got != config {
		t.Errorf("got the file %q", got)
	}
	if got := decode(t, doc.one(t, "img").attr("src"), "data:image/png;base64,"); got != string(square()) {
		t.Errorf("got a picture of %d bytes", len(got))
	}
	if got := doc.one(t, "p", "once").text(); !strings.HasPrefix(got, "It is shown this once.") {
		t.Errorf("got %q", got)
	}
	if text := doc.one(t, "pre").text(); !strings.Contains(text, "Endpoint = [2001:db8::5]:51820") {
		t.Errorf("got %q", text)
	}
}

func TestAddedWithoutAPicture(t *testing.T) {
	doc := draw(t, console.Added{Name: hostile, Config: []byte(hostile), Trouble: "it is not told yet", Back: "//evil.example"})
	if len(doc.all("img"))+len(doc.all("script")) != 0 {
		t.Error("there is a picture or a script")
	}
	if got := doc.one(t, "a", "button").attr("download"); got != "titlestylescrip.conf" {
		t.Errorf("got the file's name %q", got)
	}
	if got := doc.one(t, "p", "role=alert").text(); got != "it is not told yet" {
		t.Errorf("got %q", got)
	}
	if got := doc.one(t, "a", "again").attr("href"); got != "/" {
		t.Errorf("the way back leads to %q", got)
	}
}

func decode(t *testing.T, url, kind string) string {
	t.Helper()
	text, ok := strings.CutPrefix(url, kind)
	data, err := base64.StdEncoding.DecodeString(text)
	if !ok || err != nil {
		t.Fatalf("%.40q is no %s: %v", url, kind, err)
	}
	return string(data)
}
