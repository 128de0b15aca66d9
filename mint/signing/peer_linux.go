package signing

import (
	"net"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal"
)

// peer returns the user of the process that connected.
func peer(conn *net.UnixConn) (uid int, err error) {
	const op = "ask the kernel who connected"
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, cloudpal.E(op, "", err)
	}
	var cred *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return 0, cloudpal.E(op, "", err)
	}
	return int(cred.Uid), nil
}
