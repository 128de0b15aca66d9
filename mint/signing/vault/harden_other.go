//go:build !linux

package vault

import (
	"log/slog"

	"github.com/tradle/cloudpal"
)

// Harden refuses: only of Linux is it known how.
func Harden(*slog.Logger) error {
	return cloudpal.E("harden the signer", cloudpal.Missing, nil).WithHint("run the signer on Linux")
}
