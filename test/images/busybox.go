package images

import (
	"context"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// busyboxStart tells what it was given, and stops when it is told to.
const busyboxStart = `#!/bin/sh
echo "started as $(id -u):$(id -g) in $(pwd) with $*"
trap 'echo stopping; exit 0' TERM
while true; do sleep 3600 & wait $!; done
`

func init() {
	recipes["busybox"] = recipe{
		inputs: func() []string { return []string{"3", busyboxStart} },
		cook:   cookBusybox,
	}
}

func cookBusybox(ctx context.Context, cache, dir string) (dish, error) {
	debs, err := fetchDebs(ctx, cache, "busybox-static")
	if err != nil {
		return dish{}, err
	}
	base, program, home := newLayer(dir), newLayer(dir), newLayer(dir)
	baseFiles(base, "app:1000", "/home/app")
	base.dir("usr/local/bin", 0o755, 0, 0)
	base.text("home/app/old", "a lower layer's\n", 0o644)
	program.unpack(ctx, debs["busybox-static"])
	for _, name := range []string{"chmod", "chown", "cp", "cut", "date", "dd", "dmesg", "find", "free", "hostname", "httpd",
		"ip", "ln", "mount", "mv", "nc", "od", "ping", "printenv", "pwd", "rm", "sed", "seq", "sha256sum", "stat", "stty",
		"su", "sync", "tail", "tee", "top", "touch", "true", "false", "tty", "uname", "umount", "wget", "whoami", "xxd", "yes"} {
		program.link("usr/bin/"+name, "busybox")
	}
	home.dir("home", 0o755, 0, 0)
	home.dir("home/app", 0o750, 1000, 1000)
	home.hide("home/app/old")
	home.text("usr/local/bin/start", busyboxStart, 0o755)
	config := v1.Config{
		Entrypoint: []string{"/usr/local/bin/start"},
		Cmd:        []string{"no arguments"},
		User:       "app",
		Env:        []string{searchPath, "HOME=/home/app", "GREETING=hello world"},
		WorkingDir: "/home/app",
		StopSignal: "SIGTERM",
		Labels:     map[string]string{"pal.test": "busybox"},
	}
	return dish{config, []*layer{base, program, home}}, nil
}
