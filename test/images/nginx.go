package images

import (
	"context"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const nginxConf = `user www-data;
worker_processes 1;
pid /run/nginx.pid;
error_log stderr notice;
events { worker_connections 512; }
http {
	include /etc/nginx/mime.types;
	access_log /dev/stdout;
	server {
		listen 80;
		listen [::]:80;
		root /srv/www;
	}
}
`

func init() {
	recipes["nginx"] = service{
		packages: []string{"nginx", "nginx-common"},
		finish:   finishNginx,
		inputs:   []string{nginxConf},
		config: v1.Config{
			Entrypoint:   []string{"nginx"},
			Cmd:          []string{"-g", "daemon off;"},
			Env:          []string{searchPath},
			WorkingDir:   "/",
			StopSignal:   "SIGQUIT",
			ExposedPorts: ports("80/tcp"),
		},
	}.recipe()
}

func finishNginx(_ context.Context, l *layer, _ string) {
	l.hide("etc/nginx/sites-available")
	l.hideAll("etc/nginx/snippets")
	l.hide("usr/share/nginx/html/index.html")
	l.text("etc/nginx/nginx.conf", nginxConf, 0o644)
	l.text("srv/www/index.html", "hello from nginx\n", 0o644)
	l.dir("var/log/nginx", 0o755, 33, 33)
	l.dir("var/lib/nginx", 0o755, 33, 33)
}
