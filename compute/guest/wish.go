package guest

import (
	"errors"
	"fmt"
	"regexp"
	"time"
)

// What a guest may say of its own sleep.
const (
	MaxWishes = 64             // names of each kind
	MaxBusy   = 24 * time.Hour // that one word keeps it awake
	// LongNap is how long a nap is at least after which a guest's own programs
	// are heard before it gets packets: what they know of the world, their
	// sessions above all, may have ended meanwhile.
	LongNap = time.Minute
	// AckWait is how long such a program may take to say that it is ready.
	AckWait = 500 * time.Millisecond
	// TimerHold is how long a timer that has gone off keeps the guest awake, so
	// that who set it can begin.
	TimerHold = 2 * time.Second
)

// Wishes are what a guest wishes of its sleep, its programs' taken together.
type Wishes struct {
	Busy   []string  `json:"busy,omitempty"`  // what keeps it awake
	WakeAt time.Time `json:"wakeAt,omitzero"` // when it is to run at the latest; past: now
}

// latestWake is after any time that a guest can mean.
var latestWake = time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)

// check refuses wishes that no vminit has: a guest may be hostile.
func (w *Wishes) check() error {
	if len(w.Busy) > MaxWishes || w.WakeAt.After(latestWake) {
		*w = Wishes{}
		return errors.New("the guest's wishes make no sense")
	}
	for _, name := range w.Busy {
		if err := CheckName(name); err != nil {
			*w = Wishes{}
			return fmt.Errorf("the guest's wishes: %w", err)
		}
	}
	return nil
}

var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// CheckName says what is wrong with the name of a job or timer.
func CheckName(name string) error {
	if validName.MatchString(name) {
		return nil
	}
	return fmt.Errorf("name %.80q: use 1 to 64 letters, digits, dots, dashes and underscores, the first a letter or digit", name)
}

// A Resume tells a guest's programs that it slept.
type Resume struct {
	N      int64         `json:"n"` // counts from 1 at its boot
	Time   time.Time     `json:"time"`
	Slept  time.Duration `json:"slept"` // ns
	Reason string        `json:"reason"`
}
