package images

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// An apt fetches packages with the machine's apt, as if none were installed.
type apt struct{ dir string }

// openApt keeps what it fetches in cacheDir. Only one process does so at a
// time.
func openApt(cacheDir string) (apt, func(), error) {
	unlock, err := lock(filepath.Join(cacheDir, "apt.lock"))
	if err != nil {
		return apt{}, nil, err
	}
	a := apt{filepath.Join(cacheDir, "apt")}
	err = errors.Join(os.MkdirAll(filepath.Join(a.dir, "debs", "partial"), 0o755),
		os.WriteFile(filepath.Join(a.dir, "status"), nil, 0o644))
	if err != nil {
		unlock()
	}
	return a, unlock, err
}

func (a apt) run(ctx context.Context, name string, args ...string) ([]byte, error) {
	own := []string{
		"-q", "-o", "Dir::State::status=" + filepath.Join(a.dir, "status"), "-o", "Dir::Cache=" + a.dir,
		"-o", "APT::Sandbox::User=root", "-o", "Debug::NoLocking=1",
	}
	cmd := exec.CommandContext(ctx, name, append(own, args...)...)
	cmd.Dir = filepath.Join(a.dir, "debs")
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var out, trouble bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &trouble
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, trouble.String())
	}
	return out.Bytes(), nil
}

// fetch returns the files of the packages roots, and of those that they need
// and wanted lets in. Where the list of packages is too old, it renews that.
func (a apt) fetch(ctx context.Context, roots ...string) (map[string]string, error) {
	debs, err := a.tryFetch(ctx, roots)
	if err == nil || ctx.Err() != nil {
		return debs, err
	}
	if out, e := exec.CommandContext(ctx, "apt-get", "-q", "update").CombinedOutput(); e != nil {
		return nil, fmt.Errorf("%w\nand apt-get update: %w\n%s", err, e, out)
	}
	return a.tryFetch(ctx, roots)
}

func (a apt) tryFetch(ctx context.Context, roots []string) (map[string]string, error) {
	packages, err := a.closure(ctx, roots)
	if err != nil {
		return nil, err
	}
	var args []string
	debs := map[string]string{}
	for _, p := range packages {
		debs[p.name] = filepath.Join(a.dir, "debs", p.file())
		if !exists(debs[p.name]) {
			args = append(args, p.name+"="+p.version)
		}
	}
	if len(args) == 0 {
		return debs, nil
	}
	_, err = a.run(ctx, "apt-get", append([]string{"download"}, args...)...)
	return debs, err
}

// A pkg is a package as apt-cache shows it.
type pkg struct {
	name, version, arch string
	needs               []string
}

// file is the name that apt-get download gives.
func (p pkg) file() string {
	return fmt.Sprintf("%s_%s_%s.deb", p.name, strings.ReplaceAll(p.version, ":", "%3a"), p.arch)
}

// closure returns the roots and all that they need, as far as wanted lets them in.
func (a apt) closure(ctx context.Context, roots []string) ([]pkg, error) {
	var all []pkg
	seen := map[string]bool{}
	for todo := roots; len(todo) > 0; {
		out, err := a.run(ctx, "apt-cache", append([]string{"show", "--no-all-versions"}, todo...)...)
		if err != nil {
			return nil, err
		}
		found := parsePackages(string(out))
		for _, name := range todo {
			seen[name] = true
		}
		all = append(all, found...)
		todo = nil
		for _, p := range found {
			for _, need := range p.needs {
				if wanted(need) && !seen[need] && !slices.Contains(todo, need) {
					todo = append(todo, need)
				}
			}
		}
	}
	return all, nil
}

func parsePackages(text string) []pkg {
	var all []pkg
	for stanza := range strings.SplitSeq(text, "\n\n") {
		var p pkg
		for line := range strings.Lines(stanza) {
			key, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
			switch key {
			case "Package":
				p.name = value
			case "Version":
				p.version = value
			case "Architecture":
				p.arch = value
			case "Depends", "Pre-Depends":
				p.needs = append(p.needs, parseNeeds(value)...)
			}
		}
		if p.name != "" {
			all = append(all, p)
		}
	}
	return all
}

// parseNeeds returns the first choice of each need: "libc6" of "libc6 (>= 2.36) | musl".
func parseNeeds(value string) []string {
	var names []string
	for need := range strings.SplitSeq(value, ",") {
		first, _, _ := strings.Cut(need, "|")
		if f := strings.Fields(first); len(f) > 0 {
			name, _, _ := strings.Cut(f[0], ":")
			names = append(names, name)
		}
	}
	return names
}
