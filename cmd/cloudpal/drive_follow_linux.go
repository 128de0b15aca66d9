package main

import (
	"io/fs"
	"syscall"
	"time"
)

// changeTime is when anything of a file was changed last. Nobody can set it, as
// they can the time of its content.
func changeTime(info fs.FileInfo) time.Time {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return time.Unix(st.Ctim.Unix())
	}
	return info.ModTime()
}
