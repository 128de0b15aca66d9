package meter

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/tradle/cloudpal"
)

// A Summary is what Verify found.
type Summary struct {
	Records     int64
	First, Last Record   // zero where there are none
	Total       Counters // those of Last
	FromStart   bool     // whether First is the VM's first record
	Torn        bool     // the last line is not whole: it was being written, or its writer was killed
}

// Verify checks records as they come, oldest first: that each line is one, is
// as it was written and follows the one before, and that no number, time or
// total goes back. The error is cloudpal.Corrupt and names the first bad line.
// It cannot see that records are missing at the end: for that, compare
// Summary.Last with one that was seen before.
func Verify(r io.Reader) (Summary, error) {
	var s Summary
	in := bufio.NewReaderSize(r, maxLine)
	for {
		line, err := in.ReadSlice('\n')
		if errors.Is(err, io.EOF) {
			s.Torn = len(line) > 0
			return s, nil
		}
		if err == nil {
			err = s.take(line)
		}
		if err != nil {
			return s, verifyError(s.Records+1, err)
		}
	}
}

func verifyError(line int64, err error) error {
	op := fmt.Sprintf("verify usage: line %d", line)
	if errors.Is(err, bufio.ErrBufferFull) {
		err = fault("longer than 64 KiB")
	}
	var f fault
	if errors.As(err, &f) {
		return cloudpal.E(op, cloudpal.Corrupt, err)
	}
	return cloudpal.E(op, "", err)
}

// A fault is what is wrong with a record, as against trouble in reading it.
type fault string

func (f fault) Error() string { return string(f) }

// take checks one more line.
func (s *Summary) take(line []byte) error {
	r, err := parse(line)
	if err == nil && s.Records > 0 {
		err = r.follows(&s.Last)
	}
	if err != nil {
		return fault(err.Error())
	}
	if s.Records == 0 {
		s.First, s.FromStart = r, r.Seq == 1
	}
	s.Records++
	s.Last, s.Total = r, r.Total
	return nil
}

// History opens all files there are of the log at path, to be read for Verify
// as one, oldest first. If there are none the error is cloudpal.NotExist.
func History(path string) (io.ReadCloser, error) {
	h := &history{}
	// Oldest first also where the agent puts a file aside meanwhile: one
	// may then be missed, and Verify says so; none is read twice unseen.
	for n := keepFiles; n >= 0; n-- {
		name := path
		if n > 0 {
			name = aside(path, n)
		}
		f, err := os.Open(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, cloudpal.E("open usage log "+path, "", errors.Join(err, h.Close()))
		}
		h.files = append(h.files, f)
	}
	if len(h.files) == 0 {
		return nil, cloudpal.E("open usage log "+path, cloudpal.NotExist, nil)
	}
	h.Reader = io.MultiReader(h.readers()...)
	return h, nil
}

type history struct {
	io.Reader
	files []*os.File
}

func (h *history) readers() []io.Reader {
	var rs []io.Reader
	for _, f := range h.files {
		rs = append(rs, f)
	}
	return rs
}

// Close closes the files.
func (h *history) Close() error {
	var errs []error
	for _, f := range h.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
