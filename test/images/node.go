package images

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

//go:embed node
var nodeSource embed.FS

func init() {
	recipes["node"] = service{
		packages: []string{"nodejs", "libnode108"},
		user:     "node:1000",
		home:     "/app",
		finish:   finishNode,
		inputs:   textsOf(nodeSource),
		config: v1.Config{
			Entrypoint:   []string{"node"},
			Cmd:          []string{"server.js"},
			User:         "node",
			Env:          []string{searchPath, "NODE_ENV=production"},
			WorkingDir:   "/app",
			ExposedPorts: ports("3000/tcp"),
		},
	}.recipe()
}

// finishNode installs exactly what package-lock.json says, without running
// the packages' scripts.
func finishNode(ctx context.Context, l *layer, dir string) {
	if err := os.CopyFS(dir, nodeSource); err != nil {
		l.err = errors.Join(l.err, err)
		return
	}
	app := filepath.Join(dir, "node")
	cmd := exec.CommandContext(ctx, "npm", "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir = app
	if out, err := cmd.CombinedOutput(); err != nil {
		l.err = errors.Join(l.err, fmt.Errorf("npm ci: %w\n%s", err, out))
		return
	}
	l.hide("usr/include")
	l.err = errors.Join(l.err, l.tree("app", app))
}

// tree adds a directory of this machine, as root's.
func (l *layer) tree(name, from string) error {
	return filepath.WalkDir(from, func(at string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, at)
		if err != nil {
			return err
		}
		to := path.Join(name, filepath.ToSlash(rel))
		switch d.Type() {
		case fs.ModeDir:
			l.dir(to, 0o755, 0, 0)
		case fs.ModeSymlink:
			target, err := os.Readlink(at)
			if err != nil {
				return err
			}
			l.link(to, target)
		default:
			l.copy(to, at, 0o644)
		}
		return l.err
	})
}
