package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/moby/sys/user"
)

// who is whom a process runs as.
type who struct {
	uid, gid int
	groups   []int
	home     string
}

// lookUp finds a user as an image names it: "", user, uid, user:group,
// uid:gid. Names are looked up in the image's own files.
func lookUp(name string) (who, error) {
	found, err := user.GetExecUser(name, &user.ExecUser{Home: "/"}, openEtc("/etc/passwd"), openEtc("/etc/group"))
	if err != nil {
		return who{}, fmt.Errorf("user %.60q of the image: %w", name, err)
	}
	// Numbers in the name are checked already, those in the files are not.
	for _, id := range append([]int{found.Uid, found.Gid}, found.Sgids...) {
		if id < 0 || id > maxID {
			return who{}, fmt.Errorf("user %.60q of the image: %d is no user's or group's number", name, id)
		}
	}
	return who{uid: found.Uid, gid: found.Gid, groups: found.Sgids, home: found.Home}, nil
}

// maxID is the greatest number of a user or group that programs agree on.
const maxID = 1<<31 - 1

// maxEtc bounds /etc/passwd and /etc/group, which are the image's word.
const maxEtc = 4 << 20

func openEtc(path string) io.Reader {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) || err != nil {
		return nil
	}
	return io.LimitReader(f, maxEtc)
}

func (w who) credential() *syscall.Credential {
	c := &syscall.Credential{Uid: uint32(w.uid), Gid: uint32(w.gid)}
	for _, g := range w.groups {
		c.Groups = append(c.Groups, uint32(g))
	}
	return c
}
