//go:build !(linux && amd64)

package main

import (
	"context"
	"errors"
	"runtime"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/person"
)

// localCenter refuses: centers are Linux machines.
func (c *cli) localCenter(context.Context, person.Local, *api.Address, *steps) (person.Center, error) {
	return person.Center{}, cloudpal.E("", cloudpal.Missing, errors.New("a center runs on Linux on x86-64, and this is "+runtime.GOOS+"/"+runtime.GOARCH)).
		WithHint("use one elsewhere: cloudpal up --center ADDRESS")
}

func (c *cli) stopLocal(context.Context, person.Local) error { return nil }

func (c *cli) upMint(context.Context, person.State, *steps) error { return nil }
