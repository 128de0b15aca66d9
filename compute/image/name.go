package image

import (
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
)

// full returns a name in full, as docker understands it: "nginx" is
// "index.docker.io/library/nginx:latest".
func full(s string) (string, error) {
	ref, err := parse(s)
	if err != nil {
		return "", err
	}
	return ref.Name(), nil
}

func parse(s string) (name.Reference, error) {
	ref, err := name.ParseReference(s)
	if err != nil {
		return nil, refuse("a name looks like nginx, nginx:1.27 or registry.example/team/app:tag", "%.300q is not an image's name", s)
	}
	return ref, nil
}

// short is full's inverse, for people.
func short(full string) string {
	s := strings.TrimPrefix(full, name.DefaultRegistry+"/")
	if s == full {
		return full
	}
	return strings.TrimPrefix(s, "library/")
}
