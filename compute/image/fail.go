package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute/image/layer"
)

// fail makes err the package's own, with its kind and what a person can do.
func fail(op string, err error) error {
	kind, hint := judge(err)
	e := cloudpal.E(op, kind, err)
	if hint != "" {
		e.Hint = hint
	}
	return e
}

func judge(err error) (cloudpal.Kind, string) {
	var known *cloudpal.Error
	var web *transport.Error
	switch {
	case errors.As(err, &known):
		return known.Kind, known.Hint
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return cloudpal.NoSpace, "make room on the disk of the image store: remove images with cloudpal image rm NAME"
	case errors.Is(err, layer.ErrLimit):
		return cloudpal.Invalid, "the image asks for more than this host allows; do not run it unless you know who made it"
	case errors.Is(err, layer.ErrInvalid):
		return cloudpal.Invalid, "the image was not made properly; build it again"
	case strings.Contains(err.Error(), "error verifying"): // the registry client's own check, which has no type
		return cloudpal.Corrupt, "the data was changed or cut on the way; fetch the image again"
	case errors.Is(err, io.ErrUnexpectedEOF):
		return cloudpal.Corrupt, "the data ended early; try again"
	case errors.Is(err, context.DeadlineExceeded):
		return cloudpal.Timeout, "try again"
	case errors.As(err, &web):
		return judgeWeb(web)
	case errors.Is(err, fs.ErrNotExist):
		return cloudpal.NotExist, "check the name or path"
	case errors.Is(err, fs.ErrPermission):
		return cloudpal.Denied, "run it as a user who may"
	case isNetwork(err):
		return cloudpal.Missing, "check that the registry's name is right and that it can be reached"
	}
	return cloudpal.Other, "look whether the disk and the network work, and try again"
}

// isNetwork reports whether err is the network's. net.Error would not do: every
// error of the system is one.
func isNetwork(err error) bool {
	var op *net.OpError
	var web *url.Error
	return errors.As(err, &op) || errors.As(err, &web)
}

func judgeWeb(err *transport.Error) (cloudpal.Kind, string) {
	switch err.StatusCode {
	case http.StatusNotFound:
		return cloudpal.NotExist, "check the image's name and tag"
	case http.StatusUnauthorized, http.StatusForbidden:
		return cloudpal.Denied, "check the name, or log in to the registry with docker login or podman login"
	case http.StatusTooManyRequests:
		return cloudpal.Busy, "the registry wants fewer requests; try again later"
	}
	return cloudpal.Other, "the registry is in trouble; try again later"
}

func corrupt(format string, args ...any) error {
	return cloudpal.E("", cloudpal.Corrupt, fmt.Errorf(format, args...)).
		WithHint("the data was changed or cut on the way; fetch the image again")
}

// refuse returns an error of kind Invalid. Where hint is empty, it is the
// remedy for an image that makes no sense.
func refuse(hint, format string, args ...any) error {
	if hint == "" {
		hint = "the image was not made properly; build it again"
	}
	return cloudpal.E("", cloudpal.Invalid, fmt.Errorf(format, args...)).WithHint(hint)
}
