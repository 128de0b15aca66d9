package overlay

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"strings"

	"rsc.io/qr"

	"github.com/tradle/cloudpal"
)

const (
	quiet   = 4 // modules of nothing around a code (ISO/IEC 18004, 5.3.8)
	pngStep = 8 // pixels of a module
)

// A QR is a text as a picture for a phone's camera. The text of a Config holds
// a private key, and so does its picture.
type QR struct{ code *qr.Code }

// NewQR encodes up to 2,953 bytes. The error is cloudpal.Invalid.
func NewQR(text []byte) (*QR, error) {
	code, err := qr.Encode(string(text), qr.L) // a screen is not scratched, and less correction makes larger modules
	if err != nil {
		return nil, cloudpal.E("draw a QR code", cloudpal.Invalid, errors.New("the text is too long"))
	}
	return &QR{code}, nil
}

// size is the side of the picture in modules.
func (q *QR) size() int { return q.code.Size + 2*quiet }

func (q *QR) black(x, y int) bool { return q.code.Black(x-quiet, y-quiet) }

// Terminal returns the picture as lines of half blocks, two modules above each
// other in a character. It sets both colours by their numbers in the palette of
// 256, which themes leave alone: it is black on white in a dark terminal and in
// a light one.
func (q *QR) Terminal() string {
	var b strings.Builder
	for y := 0; y < q.size(); y += 2 {
		b.WriteString("\x1b[38;5;16;48;5;231m")
		for x := range q.size() {
			b.WriteString(block(q.black(x, y), q.black(x, y+1)))
		}
		b.WriteString("\x1b[0m\n")
	}
	return b.String()
}

func block(upper, lower bool) string {
	switch {
	case upper && lower:
		return "█"
	case upper:
		return "▀"
	case lower:
		return "▄"
	}
	return " "
}

// Cells returns how many columns and lines of a terminal the picture takes.
func (q *QR) Cells() (columns, lines int) { return q.size(), (q.size() + 1) / 2 }

// PNG returns the picture as a file, 8 pixels a module.
func (q *QR) PNG() []byte {
	side := q.size() * pngStep
	img := image.NewPaletted(image.Rect(0, 0, side, side), color.Palette{color.White, color.Black})
	for y := range side {
		for x := range side {
			if q.black(x/pngStep, y/pngStep) {
				img.SetColorIndex(x, y, 1)
			}
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		panic(err) // memory takes what it is given
	}
	return b.Bytes()
}

// SVG returns the picture as an element for a page, as large as the page makes
// it. It brings its own white ground.
func (q *QR) SVG() string {
	var path strings.Builder
	for y := range q.size() {
		for x := 0; x < q.size(); x++ {
			from := x
			for q.black(x, y) {
				x++
			}
			if x > from {
				fmt.Fprintf(&path, "M%d %dh%dv1h-%dz", from, y, x-from, x-from)
			}
		}
	}
	return fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %[1]d" shape-rendering="crispEdges" role="img" aria-label="QR code">`+
		`<path fill="#fff" d="M0 0h%[1]dv%[1]dH0z"/><path fill="#000" d="%s"/></svg>`, q.size(), path.String())
}
