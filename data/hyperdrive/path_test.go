package hyperdrive

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tradle/cloudpal"
)

// TestResolve compares with what unix-path-resolve of the original made of the
// same names.
func TestResolve(t *testing.T) {
	var cases []struct {
		Base, Name string
		Result     *string
	}
	readVectors(t, "resolve.json", &cases)
	for _, c := range cases {
		got, err := Resolve(c.Base, c.Name)
		if (err != nil) != (c.Result == nil) || err == nil && got != *c.Result {
			t.Errorf("Resolve(%q, %q) = %q, %v; want %v", c.Base, c.Name, got, err, c.Result)
		}
	}
}

func readVectors(t testing.TB, name string, v any) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestCleanName(t *testing.T) {
	for name, want := range map[string]string{
		"/a":                    "/a",
		"a":                     "/a",
		`\win\..\x//y.txt`:      "/x/y.txt",
		"/a/./b/":               "/a/b",
		"/":                     "",
		"":                      "",
		"..":                    "",
		"/a/../..":              "",
		"/zero\x00":             "",
		"/\xff":                 "",
		"/" + longName(MaxName): "",
	} {
		got, err := cleanName(name)
		if got != want || (err == nil) == (want == "") {
			t.Errorf("cleanName(%q) = %q, %v; want %q", name, got, err, want)
		}
		if err != nil && !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("cleanName(%q): %v is not Invalid", name, err)
		}
	}
}

func longName(n int) string { return strings.Repeat("x", n) }

func FuzzResolve(f *testing.F) {
	f.Add("/", `a\..\b`)
	f.Add("/a/b", "../../c")
	f.Add("C:/x", "file:///y")
	f.Add("/", "http://h/a")
	f.Fuzz(func(t *testing.T, base, name string) {
		got, err := Resolve(base, name)
		if err != nil {
			return
		}
		if got != "/" && !isClean(got) && len(got) <= MaxName && !strings.ContainsRune(got, 0) && strings.ToValidUTF8(got, "") == got {
			t.Errorf("Resolve(%q, %q) = %q, which is not clean", base, name, got)
		}
		if again, err := Resolve("/", got); again != got || err != nil {
			t.Errorf("Resolve(/, %q) = %q, %v", got, again, err)
		}
	})
}
