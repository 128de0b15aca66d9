package meter

import (
	"fmt"
	"time"
)

// A Budget is the most a VM may use in its life. Zero means no bound.
type Budget struct {
	CPU time.Duration // of all cores together
	Net int64         // bytes, in and out together
}

// How often NextCheck looks.
const (
	soonest = 50 * time.Millisecond
	latest  = time.Second
)

// fastestNet is more bytes a second than a VM's one network device moves:
// 10 Gbit/s.
const fastestNet = 1.25e9

// Exhausted says, as a sentence for a person, which bound c has reached; "" if
// none.
func (b Budget) Exhausted(c Counters) string {
	net := c.NetIn + c.NetOut
	switch {
	case b.CPU > 0 && c.CPU >= b.CPU:
		return fmt.Sprintf("its CPU budget of %v is used up", b.CPU)
	case b.Net > 0 && net >= b.Net:
		return fmt.Sprintf("its network budget of %d bytes is used up", b.Net)
	}
	return ""
}

// NextCheck says how soon to count again so that a VM whose process can use at
// most that many cores (0: as many as a VM can have) is found exhausted no
// later than 50 ms after it is: when it would be at its fastest, but between
// 50 ms and 1 s.
func (b Budget) NextCheck(c Counters, cores float64) time.Duration {
	if cores <= 0 {
		cores = 32
	}
	wait := latest
	if b.CPU > 0 {
		wait = min(wait, time.Duration(float64(b.CPU-c.CPU)/cores))
	}
	if b.Net > 0 {
		left := float64(b.Net - c.NetIn - c.NetOut)
		wait = min(wait, time.Duration(min(left/fastestNet, 1)*float64(time.Second)))
	}
	return max(wait, soonest)
}
