package main

import (
	"fmt"
	"strings"
	"testing"
)

func TestLookUp(t *testing.T) {
	ofImage(t).say(t,
		"root:x:0:0:root:/root:/bin/sh\nwww:x:33:34:www:/srv:/bin/false\nhomeless:x:35:35\n\n# no line\nnonsense\n:::::\n",
		"root:x:0:\nstaff:x:50:www,other\naudio:x:29:other,www\nbad:x:zz:www\nwww:x:34:\n")
	for _, c := range []struct{ name, want string }{
		{"", "0:0 [] /root"},
		{"root", "0:0 [] /root"},
		{"www", "33:34 [50 29] /srv"},
		{"33", "33:34 [50 29] /srv"},
		{"www:staff", "33:50 [] /srv"},
		{"www:0", "33:0 [] /srv"},
		{"33:77", "33:77 [] /srv"},
		{"1000", "1000:0 [] /"},
		{"1000:1001", "1000:1001 [] /"},
		{"2147483647", "2147483647:0 [] /"},
	} {
		w, err := lookUp(c.name)
		groups := w.groups
		if c.name == "www" || c.name == "33" {
			groups = withoutZero(groups)
		}
		if got := fmt.Sprintf("%d:%d %v %s", w.uid, w.gid, groups, w.home); err != nil || got != c.want {
			t.Errorf("%q: got %s, %v; want %s", c.name, got, err, c.want)
		}
	}
	for _, name := range []string{"nobody-knows", "www:nobody-knows", "-1", "0:-1", "2147483648", "99999999999999999999", "www:99999999999"} {
		if w, err := lookUp(name); err == nil || !strings.Contains(err.Error(), "of the image") {
			t.Errorf("%q: got %+v, %v; want an error", name, w, err)
		}
	}
}

// withoutZero leaves out what comes of a group whose number is none.
func withoutZero(groups []int) []int {
	var out []int
	for _, g := range groups {
		if g != 0 {
			out = append(out, g)
		}
	}
	return out
}

// TestLookUpRefusesNumbersThatAreNone: cut to 32 bits they would be others, 0
// among them.
func TestLookUpRefusesNumbersThatAreNone(t *testing.T) {
	files := ofImage(t)
	for _, c := range []struct{ passwd, group string }{
		{"www:x:-1:33::/:\n", ""},
		{"www:x:4294967296:33::/:\n", ""},
		{"www:x:33:4294967296::/:\n", ""},
		{"www:x:33:33::/:\n", "staff:x:4294967296:www\n"},
	} {
		files.say(t, c.passwd, c.group)
		if w, err := lookUp("www"); err == nil {
			t.Errorf("%q and %q: got %+v, want an error", c.passwd, c.group, w)
		}
	}
}

func TestLookUpReadsNoEndlessFile(t *testing.T) {
	files := ofImage(t)
	files.say(t, strings.Repeat("a:x:1:1::/:\n", 1<<20), "")
	if w, err := lookUp("a"); err != nil || w.uid != 1 {
		t.Errorf("got %+v, %v", w, err)
	}
	files.say(t, strings.Repeat("x", 8<<20), "")
	if w, err := lookUp("a"); err == nil {
		t.Errorf("of one long line: got %+v", w)
	}
}

func FuzzLookUp(f *testing.F) {
	files := ofImage(f)
	f.Add("www", "www:x:33:33::/srv:\n", "staff:x:50:www\n")
	f.Add("www:staff", "www:x:-1:-1::/srv:\n", "staff:x:99999999999:www,,\n")
	f.Add("0:0", ":", "::::")
	f.Fuzz(func(t *testing.T, name, passwd, group string) {
		files.say(t, passwd, group)
		w, err := lookUp(name)
		if err != nil {
			return
		}
		for _, id := range append([]int{w.uid, w.gid}, w.groups...) {
			if id < 0 || id > 1<<31-1 {
				t.Errorf("%q of %q and %q: got %+v", name, passwd, group, w)
			}
		}
	})
}
