package host

import (
	"testing"

	"github.com/tradle/cloudpal/compute/api"
)

// A packet that comes while a VM falls asleep, too late to interrupt that, is not
// forgotten: it is why the VM is woken as soon as it sleeps.
func TestAPacketThatComesTooLateToInterruptANapWakesFromIt(t *testing.T) {
	v := (&Host{}).newVM("a", record{})
	v.state, v.falling = api.Running, true
	interrupted := 0
	v.interrupt = func(error) { interrupted++ }
	v.rouse("a packet")
	if interrupted != 1 {
		t.Errorf("the nap was interrupted %d times, want once", interrupted)
	}
	v.interrupt = nil
	v.rouse("another packet")
	if got := v.fallen(); got != "another packet" {
		t.Errorf("it is to be woken for %q, want the other packet", got)
	}
	if got := v.fallen(); got != "" {
		t.Errorf("it is to be woken again, for %q", got)
	}
}
