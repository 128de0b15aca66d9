package meter

import (
	"bytes"
	"errors"
)

// lastLine returns the last whole line in the end of a file, newline included,
// and how many bytes come behind it; nil where there is none. All says that
// the tail is the whole file.
func lastLine(tail []byte, all bool) (line []byte, torn int, err error) {
	end := bytes.LastIndexByte(tail, '\n') + 1
	torn = len(tail) - end
	if torn > maxLine || (end == 0 && !all) {
		return nil, 0, errors.New("its end is no record")
	}
	if end == 0 {
		return nil, torn, nil
	}
	start := bytes.LastIndexByte(tail[:end-1], '\n') + 1
	if start == 0 && !all {
		return nil, 0, errors.New("its last record is too long")
	}
	return tail[start:end], torn, nil
}
