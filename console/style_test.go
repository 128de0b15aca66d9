package console

import (
	"fmt"
	"math"
	"regexp"
	"strings"
	"testing"
)

// TestContrast holds the colours to WCAG 2.2: 4.5 to 1 for text (1.4.3, AA), 3
// to 1 for what has a meaning besides (1.4.11).
func TestContrast(t *testing.T) {
	for name, colours := range themes(t) {
		for _, c := range []struct {
			front, back string
			least       float64
		}{
			{"ink", "ground", 4.5}, {"ink", "card", 4.5}, {"soft", "card", 4.5}, {"soft", "ground", 4.5},
			{"link", "card", 4.5}, {"link", "ground", 4.5}, {"trouble", "card", 4.5}, {"button-ink", "button", 4.5},
			{"hero-ink", "hero-a", 4.5}, {"hero-ink", "hero-b", 4.5}, {"hero-soft", "hero-a", 4.5}, {"hero-soft", "hero-b", 4.5},
			{"awake", "card", 3}, {"asleep", "card", 3}, {"here", "card", 3},
		} {
			if got := contrast(t, colours[c.front], colours[c.back]); got < c.least {
				t.Errorf("%s: %s on %s has %.2f to 1, and needs %.1f", name, c.front, c.back, got, c.least)
			}
		}
	}
}

// themes returns the four sets of colours that a page may have.
func themes(t *testing.T) map[string]map[string]string {
	t.Helper()
	light, dark, ok := strings.Cut(string(style), "@media (prefers-color-scheme: dark) {")
	if !ok {
		t.Fatal("the style has no dark part")
	}
	dark, _, _ = strings.Cut(dark, "\n}\n")
	all := map[string]map[string]string{}
	for name, parts := range map[string][]string{
		"light, awake": {block(t, light, ":root")}, "light, asleep": {block(t, light, ":root"), block(t, light, ".is-asleep")},
		"dark, awake":  {block(t, light, ":root"), block(t, dark, ":root")},
		"dark, asleep": {block(t, light, ":root"), block(t, light, ".is-asleep"), block(t, dark, ":root"), block(t, dark, ".is-asleep")},
	} {
		all[name] = map[string]string{}
		for _, m := range regexp.MustCompile(`--([a-z-]+): (#[0-9a-f]{6});`).FindAllStringSubmatch(strings.Join(parts, ""), -1) {
			all[name][m[1]] = m[2]
		}
	}
	return all
}

func block(t *testing.T, css, selector string) string {
	t.Helper()
	_, rest, ok := strings.Cut(css, selector+" {")
	if !ok {
		t.Fatalf("the style has no %s", selector)
	}
	body, _, _ := strings.Cut(rest, "}")
	return body
}

func contrast(t *testing.T, a, b string) float64 {
	t.Helper()
	x, y := luminance(t, a), luminance(t, b)
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}

// luminance is "relative luminance" of WCAG 2.2.
func luminance(t *testing.T, colour string) float64 {
	t.Helper()
	var r, g, b uint8
	if _, err := fmt.Sscanf(colour, "#%02x%02x%02x", &r, &g, &b); err != nil {
		t.Fatalf("colour %q: %v", colour, err)
	}
	part := func(c uint8) float64 {
		f := float64(c) / 255
		if f <= 0.04045 {
			return f / 12.92
		}
		return math.Pow((f+0.055)/1.055, 2.4)
	}
	return 0.2126*part(r) + 0.7152*part(g) + 0.0722*part(b)
}
