package images

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
)

// unneeded are the parts of packages that nothing here runs or reads.
var unneeded = []string{
	"usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/lintian", "usr/share/info", "usr/share/bug",
	"usr/share/perl5", "usr/share/zoneinfo/posix", "usr/share/zoneinfo/right", "usr/share/postgresql/15/man",
	"usr/lib/x86_64-linux-gnu/gconv", "usr/lib/x86_64-linux-gnu/perl-base", "usr/lib/systemd", "usr/lib/init",
	"usr/lib/postgresql/15/lib/bitcode", "usr/lib/postgresql/15/lib/llvmjit.so", "usr/lib/postgresql/15/lib/llvmjit_types.bc",
	"etc/init.d", "etc/cron.d", "etc/cron.daily", "etc/logrotate.d", "etc/ufw", "etc/default",
}

// merged are the directories that Debian has moved below usr; some packages
// still name them as before.
var merged = []string{"bin", "sbin", "lib", "lib64"}

// unpack adds the files of Debian packages. Their scripts do not run.
func (l *layer) unpack(ctx context.Context, debs ...string) {
	for _, deb := range debs {
		if l.err != nil {
			return
		}
		if err := l.unpackOne(ctx, deb); err != nil {
			l.err = fmt.Errorf("unpack %s: %w", path.Base(deb), err)
		}
	}
}

func (l *layer) unpackOne(ctx context.Context, deb string) error {
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	var trouble bytes.Buffer
	cmd.Stderr = &trouble
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	err = l.take(tar.NewReader(out))
	_, rest := io.Copy(io.Discard, out)
	if e := cmd.Wait(); e != nil {
		err = errors.Join(err, fmt.Errorf("%w: %s", e, trouble.String()))
	}
	return errors.Join(err, rest)
}

// take adds the needed entries of an archive.
func (l *layer) take(r *tar.Reader) error {
	for {
		h, err := r.Next()
		if err == io.EOF {
			return l.err
		}
		if err != nil {
			return err
		}
		h.Name = place(h.Name)
		if h.Name == "." || slices.Contains(merged, h.Name) || isUnneeded(h.Name) {
			continue
		}
		if h.Typeflag == tar.TypeLink {
			h.Linkname = place(h.Linkname)
		}
		h.PAXRecords = nil
		l.entry(*h, r)
	}
}

// place returns where a package's file goes.
func place(name string) string {
	name = path.Clean(strings.TrimPrefix(name, "./"))
	if first, rest, ok := strings.Cut(name, "/"); ok && slices.Contains(merged, first) {
		return "usr/" + first + "/" + rest
	}
	return name
}

func isUnneeded(name string) bool {
	return slices.ContainsFunc(unneeded, func(u string) bool { return name == u || strings.HasPrefix(name, u+"/") })
}
