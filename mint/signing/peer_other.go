//go:build !linux

package signing

import (
	"net"

	"github.com/tradle/cloudpal"
)

// peer refuses: the signer is made for Linux.
func peer(*net.UnixConn) (uid int, err error) {
	return 0, cloudpal.E("ask the kernel who connected", cloudpal.Missing, nil).WithHint("run the signer on Linux")
}
