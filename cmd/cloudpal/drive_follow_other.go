//go:build !linux

package main

import (
	"io/fs"
	"time"
)

// changeTime is when a file was changed last.
func changeTime(info fs.FileInfo) time.Time { return info.ModTime() }
