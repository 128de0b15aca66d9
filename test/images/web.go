package images

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

//go:embed web/*.go
var webSource embed.FS

func init() {
	recipes["web"] = recipe{inputs: webInputs, cook: cookWeb}
}

func webInputs() []string { return append(textsOf(webSource), "2", runtime.Version()) }

func cookWeb(ctx context.Context, _, dir string) (dish, error) {
	program, err := buildWeb(ctx, dir)
	if err != nil {
		return dish{}, err
	}
	base, temp, web := newLayer(dir), newLayer(dir), newLayer(dir)
	base.text("etc/passwd", "root:x:0:0:root:/:/web\nnobody:x:65534:65534:nobody:/:/web\n", 0o644)
	base.text("etc/group", "root:x:0:\nnogroup:x:65534:\n", 0o644)
	temp.dir("tmp", 0o1777, 0, 0)
	web.copy("web", program, 0o755)
	config := v1.Config{
		Entrypoint:   []string{"/web"},
		WorkingDir:   "/",
		Env:          []string{"PATH=/"},
		ExposedPorts: map[string]struct{}{"8080/tcp": {}},
	}
	return dish{config, []*layer{base, temp, web}}, nil
}

// buildWeb builds the program from the source that this package carries, as a
// module of its own: it needs nothing but the standard library.
func buildWeb(ctx context.Context, dir string) (string, error) {
	src := filepath.Join(dir, "src")
	if err := os.CopyFS(src, webSource); err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(src, "go.mod"), []byte("module web\n\ngo 1.26\n"), 0o644); err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w -buildid=", "-o", "../web", "./web")
	cmd.Dir = src
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOWORK=off", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return filepath.Join(dir, "web"), nil
}

// textsOf returns the names and contents of all files in fsys.
func textsOf(fsys fs.FS) []string {
	var all []string
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := fs.ReadFile(fsys, name)
		all = append(all, name, string(text))
		return err
	})
	if err != nil {
		panic(err) // files that the compiler put into this program
	}
	return all
}
