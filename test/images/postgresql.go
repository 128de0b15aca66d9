package images

import (
	"context"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// postgresStart makes the database at the first start. It is made beside its
// place and moved there, so that a power cut in between leaves none that is
// half made. fsync is left to the server: an init that is lost is made again.
const postgresStart = `#!/bin/sh
set -e
if ! test -e "$PGDATA/PG_VERSION"; then
	rm -rf "$PGDATA.new"
	initdb --pgdata="$PGDATA.new" --username=postgres --auth=trust --encoding=UTF8 --locale=C
	echo 'host all all all trust' >>"$PGDATA.new/pg_hba.conf"
	mv "$PGDATA.new" "$PGDATA"
fi
exec postgres -c 'listen_addresses=*' -c jit=off -c unix_socket_directories=/tmp "$@"
`

func init() {
	recipes["postgresql"] = service{
		packages: []string{"postgresql-15", "postgresql-client-15"},
		user:     "postgres:70",
		home:     "/var/lib/postgresql",
		finish:   finishPostgres,
		inputs:   []string{postgresStart},
		config: v1.Config{
			Entrypoint:   []string{"/usr/local/bin/start-postgres"},
			User:         "postgres",
			Env:          []string{searchPath + ":/usr/lib/postgresql/15/bin", "PGDATA=/var/lib/postgresql/data/main"},
			WorkingDir:   "/var/lib/postgresql/data",
			Volumes:      ports("/var/lib/postgresql/data"),
			ExposedPorts: ports("5432/tcp"),
			StopSignal:   "SIGINT",
		},
	}.recipe()
}

func finishPostgres(_ context.Context, l *layer, _ string) {
	l.hide("usr/lib/postgresql/15/bin/pg_upgrade")
	l.hide("usr/lib/postgresql/15/bin/oid2name")
	l.dir("var/lib/postgresql", 0o755, 70, 70)
	l.dir("var/lib/postgresql/data", 0o700, 70, 70)
	l.link("usr/bin/rm", "busybox")
	l.link("usr/bin/mv", "busybox")
	l.text("usr/local/bin/start-postgres", postgresStart, 0o755)
}
