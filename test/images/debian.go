package images

import (
	"context"
	"maps"
	"regexp"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// follow matches the packages that are taken in because another needs them:
// libraries, and data that programs read. What installs and configures
// packages stays out.
var follow = regexp.MustCompile(`^(lib.*|zlib1g|tzdata|nginx-common|redis-tools|node-.*)$`)

// A service is a program out of Debian's packages.
type service struct {
	packages []string
	user     string // "redis:999" of the group of the same name
	home     string
	// finish adds what the packages' scripts would have made.
	finish func(ctx context.Context, config *layer, dir string)
	config v1.Config
	inputs []string
}

// recipe makes the layers: base (libraries, shell), the program, its
// configuration.
func (s service) recipe() recipe {
	return recipe{
		inputs: func() []string {
			return append(slices.Concat(s.packages, s.inputs, unneeded), "10", follow.String(), unwanted.String())
		},
		cook: func(ctx context.Context, cache, dir string) (dish, error) {
			debs, err := fetchDebs(ctx, cache, append(s.packages, "busybox-static")...)
			if err != nil {
				return dish{}, err
			}
			base, program, config := newLayer(dir), newLayer(dir), newLayer(dir)
			baseFiles(base, s.user, s.home)
			for _, name := range slices.Sorted(maps.Keys(debs)) {
				to := base
				if slices.Contains(s.packages, name) {
					to = program
				}
				to.unpack(ctx, debs[name])
			}
			s.finish(ctx, config, dir)
			return dish{s.config, []*layer{base, program, config}}, nil
		},
	}
}

func fetchDebs(ctx context.Context, cache string, names ...string) (map[string]string, error) {
	a, unlock, err := openApt(cache)
	if err != nil {
		return nil, err
	}
	defer unlock()
	return a.fetch(ctx, names...)
}

// baseFiles adds what every Debian system has.
func baseFiles(l *layer, user, home string) {
	for _, name := range merged {
		l.dir("usr/"+name, 0o755, 0, 0)
		l.link(name, "usr/"+name)
	}
	l.dir("tmp", 0o1777, 0, 0)
	l.dir("run", 0o755, 0, 0)
	l.dir("root", 0o700, 0, 0)
	users := []string{"root:0", "www-data:33", "nobody:65534"}
	if user != "" {
		users = append(users, user)
	}
	var passwd, group strings.Builder
	for _, u := range users {
		name, id, _ := strings.Cut(u, ":")
		at := "/"
		if u == user {
			at = home
		}
		passwd.WriteString(name + ":x:" + id + ":" + id + "::" + at + ":/bin/sh\n")
		group.WriteString(name + ":x:" + id + ":\n")
	}
	l.text("etc/passwd", passwd.String(), 0o644)
	l.text("etc/group", group.String()+"tty:x:5:\n", 0o644)
	l.text("etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n", 0o644)
	l.text("etc/services", "http 80/tcp\n", 0o644)
	for _, name := range []string{"sh", "ls", "cat", "id", "env", "sleep", "ps", "kill", "echo", "mkdir", "test", "df", "grep", "head", "wc"} {
		l.link("usr/bin/"+name, "busybox")
	}
}

func wanted(name string) bool { return follow.MatchString(name) && !unwanted.MatchString(name) }

// unwanted matches what follow does and yet is of no use here: postgres compiles
// queries only where it is told to.
var unwanted = regexp.MustCompile(`^(libllvm.*|libz3.*|libperl.*|lib.*-perl|libpython.*|libpam-.*)$`)

const searchPath = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

func ports(list ...string) map[string]struct{} {
	m := map[string]struct{}{}
	for _, p := range list {
		m[p] = struct{}{}
	}
	return m
}
