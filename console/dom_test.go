package console_test

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/html"
)

// A node is a part of a page that a test looks at.
type node struct{ *html.Node }

// draw renders a view and reads it as a browser does.
func draw(t testing.TB, v interface{ Render(io.Writer) error }) node {
	t.Helper()
	var b bytes.Buffer
	if err := v.Render(&b); err != nil {
		t.Fatal(err)
	}
	return parse(t, b.String())
}

func parse(t testing.TB, document string) node {
	t.Helper()
	n, err := html.Parse(strings.NewReader(document))
	if err != nil {
		t.Fatal(err)
	}
	return node{n}
}

// all returns the elements below n that have a tag and, if words are given, each
// of them as an id, a class, or an attribute "name=value".
func (n node) all(tag string, words ...string) (found []node) {
	for d := range n.Descendants() {
		if d.Type == html.ElementNode && d.Data == tag && !slices.ContainsFunc(words, func(w string) bool { return !(node{d}).is(w) }) {
			found = append(found, node{d})
		}
	}
	return found
}

func (n node) is(word string) bool {
	if name, value, ok := strings.Cut(word, "="); ok {
		return n.attr(name) == value
	}
	return n.attr("id") == word || slices.Contains(strings.Fields(n.attr("class")), word)
}

// one returns the only such element.
func (n node) one(t testing.TB, tag string, words ...string) node {
	t.Helper()
	found := n.all(tag, words...)
	if len(found) != 1 {
		t.Fatalf("got %d elements %s %v, want one", len(found), tag, words)
	}
	return found[0]
}

func (n node) attr(name string) string {
	for _, a := range n.Attr {
		if a.Key == name {
			return a.Val
		}
	}
	return ""
}

// text returns what is read of n, in one line.
func (n node) text() string {
	var b strings.Builder
	for d := range n.Descendants() {
		if d.Type == html.TextNode {
			b.WriteString(d.Data)
		}
	}
	return strings.Join(strings.Fields(b.String()), " ")
}

// rows returns the texts of a table's body.
func (n node) rows() (rows [][]string) {
	for _, body := range n.all("tbody") {
		for _, tr := range body.all("tr") {
			var row []string
			for c := range tr.ChildNodes() {
				if c.Type == html.ElementNode {
					row = append(row, node{c}.text())
				}
			}
			rows = append(rows, row)
		}
	}
	return rows
}
