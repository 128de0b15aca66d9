package images

import (
	"context"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

func init() {
	recipes["redis"] = service{
		packages: []string{"redis-server", "redis-tools"},
		user:     "redis:999",
		home:     "/data",
		finish:   finishRedis,
		config: v1.Config{
			Entrypoint:   []string{"redis-server"},
			Cmd:          []string{"--protected-mode", "no", "--bind", "* -::*"},
			User:         "redis",
			Env:          []string{searchPath},
			WorkingDir:   "/data",
			Volumes:      ports("/data"),
			ExposedPorts: ports("6379/tcp"),
		},
	}.recipe()
}

func finishRedis(_ context.Context, l *layer, _ string) {
	l.hide("etc/redis/redis.conf")
	l.dir("data", 0o755, 999, 999)
}
