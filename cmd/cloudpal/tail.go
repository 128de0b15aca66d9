package main

import (
	"io"
	"os"
	"strings"
)

// logTail is how many bytes of a log go behind an error.
const logTail = 2000

// tail returns the last lines of an agent's log, to go behind an error.
func tail(log *os.File) string {
	size, err := log.Seek(0, io.SeekEnd)
	if err != nil {
		return ""
	}
	data, err := io.ReadAll(io.NewSectionReader(log, max(0, size-logTail), logTail))
	text := strings.TrimSpace(string(data))
	if err != nil || text == "" {
		return ""
	}
	return "\nits log ends with:\n" + text
}
