package nested_test

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// The machine's process 1 says every now and then that its clock goes on. A
// machine that has said nothing for so long stands still.
const (
	beat       = 2 * time.Second
	stillAfter = time.Minute
)

var errStill = errors.New("the machine stands still")

// heartbeat says it on the third serial port, for ever.
func heartbeat() error {
	port, err := os.OpenFile("/dev/ttyS2", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	go func() {
		for range time.Tick(beat) {
			fmt.Fprintln(port, "on")
		}
	}()
	return nil
}

// A heart puts off the end of a machine, with each beat.
type heart struct{ end *time.Timer }

func (h heart) Write(b []byte) (int, error) {
	h.end.Reset(stillAfter)
	return len(b), nil
}
