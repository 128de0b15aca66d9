package main

import (
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal/compute/guest"
)

// A mailbox is where the host leaves a hello while this guest is suspended.
type mailbox struct {
	greeter  *greeter
	page     []byte // nil where there is none
	watching atomic.Bool
}

// openMailbox maps the page. A guest without one gets its hellos by the network
// alone.
func openMailbox(g *greeter) *mailbox {
	m := &mailbox{greeter: g}
	f, err := os.OpenFile("/dev/mem", os.O_RDWR, 0)
	if err == nil {
		defer f.Close()
		m.page, err = unix.Mmap(int(f.Fd()), guest.MailboxAddr, guest.MailboxSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "vminit: no mailbox: %v\n", err)
	}
	return m
}

// How long the suspend that was announced may take to come, and how often the
// watcher looks. It is this guest's own time: while it is suspended, none of it
// passes.
const (
	watchTime = time.Second
	watchPoll = 100 * time.Microsecond
)

// watch has a thread look at the page until a hello is there, or no suspend has
// come. It goes before all other threads of the guest: what those would do first
// after a resume takes tens of milliseconds under software emulation (measured).
func (m *mailbox) watch() {
	if m.page == nil || !m.watching.CompareAndSwap(false, true) {
		return
	}
	go func() {
		defer m.watching.Store(false)
		// The thread ends with the goroutine, and its priority with it.
		runtime.LockOSThread()
		if err := goFirst(); err != nil {
			fmt.Fprintf(os.Stderr, "vminit: watch the mailbox: %v\n", err)
		}
		letter := make([]byte, guest.HelloSize)
		for end := time.Now().Add(watchTime); time.Now().Before(end); nap(watchPoll) {
			copy(letter, m.page)
			if h, err := guest.Letter(letter); err == nil {
				m.take(h)
				return
			}
		}
	}()
}

// goFirst gives this thread the least real-time priority (sched(7)).
func goFirst() error {
	const schedFIFO = 1
	return unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: schedFIFO, Priority: 1}, 0)
}

// nap sleeps without telling Go's scheduler, which would have this thread wait
// for others before it goes on.
func nap(d time.Duration) {
	ts := unix.NsecToTimespec(d.Nanoseconds())
	_, _, _ = unix.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0)
}

func (m *mailbox) take(h guest.Hello) {
	guest.Wipe(m.page)
	if err := m.greeter.take(h, func() { h.Confirm(m.page) }); err != nil {
		fmt.Fprintf(os.Stderr, "vminit: take the host's time: %v\n", err)
	}
}
