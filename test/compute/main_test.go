// Package compute_test runs real VMs on a real host's agent: what a person at
// the command line, a hostile tenant and a power cut would do to it.
package compute_test

import (
	"testing"

	"github.com/tradle/cloudpal/test/world"
)

func TestMain(m *testing.M) { world.Main(m) }
