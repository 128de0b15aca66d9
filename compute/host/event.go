package host

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"sync"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/compute/guest"
)

// A history is what happened to one VM, a line of JSON each, in a file that is
// appended to. It outlives the agent and the machine, but is not synced: after a
// power cut the last events may be missing. Of thousands of VMs none is kept in
// memory but the last.
type history struct {
	path string

	mu      sync.Mutex
	open    bool
	last    api.Event
	room    int64         // bytes that the file may take
	changed chan struct{} // closed and replaced with each event
}

func newHistory(path string) *history { return &history{path: path, changed: make(chan struct{})} }

const (
	// maxHistory is how long the file gets, in bytes, before what is too old is
	// cut off; twice what is left then, where that is more.
	maxHistory = 256 << 10
	// maxEventReason bounds an event's reason in bytes, and maxEvent its line,
	// with everything in it escaped.
	maxEventReason = 200
	maxEvent       = 2 << 10
	// maxEventNumber is what no VM reaches.
	maxEventNumber = 1 << 60
)

// add numbers an event and appends it.
func (h *history) add(e api.Event) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.load(); err != nil {
		return err
	}
	e.N = h.last.N + 1
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	f, err := os.OpenFile(h.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, '\n'))
	info, _ := f.Stat()
	if err = errors.Join(err, f.Close()); err != nil {
		h.open = false // it may end in half a line
		return err
	}
	h.last = e
	close(h.changed)
	h.changed = make(chan struct{})
	if info != nil && info.Size() > max(maxHistory, h.room) {
		return h.cut()
	}
	return nil
}

// load finds the last event, and cuts off what a crash has left behind it. The
// caller holds mu.
func (h *history) load() error {
	if h.open {
		return nil
	}
	f, err := os.OpenFile(h.path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		h.open = true
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	// The last lines are enough, unless the end is nothing that a history has.
	for from := max(0, size-2*maxEvent); ; from = 0 {
		tail := make([]byte, size-from)
		if _, err := f.ReadAt(tail, from); err != nil && err != io.EOF {
			return err
		}
		whole := bytes.LastIndexByte(tail, '\n') + 1
		events := parseEvents(tail[:whole])
		if from > 0 && len(events) == 0 {
			continue
		}
		if len(events) > 0 {
			h.last = events[len(events)-1]
		}
		h.open = true
		return f.Truncate(from + int64(whole))
	}
}

// cut leaves the last events only. The caller holds mu.
func (h *history) cut() error {
	events, err := h.read()
	if err != nil {
		return err
	}
	var kept bytes.Buffer
	enc := json.NewEncoder(&kept)
	for _, e := range events {
		if err := enc.Encode(e); err != nil {
			return err
		}
	}
	h.room = 2 * int64(kept.Len())
	return writeFile(h.path, kept.Bytes())
}

// read returns the events that are kept. The caller holds mu.
func (h *history) read() ([]api.Event, error) {
	f, err := os.Open(h.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	events := parseEvents(data)
	return events[max(0, len(events)-api.MaxEvents):], err
}

// parseEvents reads lines, and passes over those that are none.
func parseEvents(data []byte) []api.Event {
	var events []api.Event
	for line := range bytes.Lines(data) {
		var e api.Event
		if json.Unmarshal(line, &e) == nil && e.N > 0 && e.N < maxEventNumber {
			events = append(events, e)
		}
	}
	return events
}

// latest returns the last event, or a zero one.
func (h *history) latest() (api.Event, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.last, h.load()
}

// after returns the events with higher numbers than n, and a channel that is
// closed when there is one more. A number that was never reached is another
// VM's: it gets all.
func (h *history) after(n int64) ([]api.Event, <-chan struct{}, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.load(); err != nil {
		return nil, h.changed, err
	}
	if n > h.last.N {
		n = 0
	}
	if n == h.last.N {
		return nil, h.changed, nil
	}
	events, err := h.read()
	for i, e := range events {
		if e.N > n {
			return events[i:], h.changed, err
		}
	}
	return nil, h.changed, err
}

// happened notes an event. Who had to do with it is left out: it is on disk for
// as long as the VM is.
func (v *vm) happened(e api.Event) {
	e.Time = time.Now().UTC()
	e.Reason = nameless(guest.CleanText(e.Reason, maxEventReason))
	if err := v.history.add(e); err != nil {
		v.h.log.Error("note what happened", "vm", v.name, "err", err)
	}
}

var fromAddress = regexp.MustCompile(` from \[?[0-9a-fA-F:.]*[:.][0-9a-fA-F:.]*\]?(:[0-9]+)?`)

// nameless leaves out of a reason who sent the packet that woke a VM.
func nameless(reason string) string { return fromAddress.ReplaceAllString(reason, "") }

// reconcile notes what happened while no agent watched: what the VM is now does
// not follow from the last event.
func (v *vm) reconcile() {
	last, err := v.history.latest()
	if err != nil {
		v.h.log.Error("read what happened", "vm", v.name, "err", err)
		return
	}
	v.mu.Lock()
	state, depth, reason := v.state, v.depth, v.reason
	v.mu.Unlock()
	now := whatIs(state, depth)
	if last.What == now || state == api.Running && last.What == api.Woke {
		return
	}
	e := api.Event{What: now, Reason: reason}
	if state == api.Asleep {
		e.Depth = depth
	}
	v.happened(e)
}

// whatIs is the event that brings a VM into a state.
func whatIs(s api.State, d api.Depth) api.What {
	switch {
	case s == api.Running:
		return api.Booted
	case s == api.Asleep:
		return api.Napped
	case s == api.Stopped:
		return api.Ended
	case d == api.Sealed:
		return api.Dropped
	}
	return api.Lost
}

// serveEvents answers with events, and waits for one where there is none.
func (v *vm) serveEvents(w http.ResponseWriter, r *http.Request) error {
	after, wait, err := eventQuery(r)
	if err != nil {
		return cloudpal.E("events of "+v.name, cloudpal.Invalid, err).WithHint("as in ?after=0&wait=30s, at most 1m")
	}
	end := time.NewTimer(wait)
	defer end.Stop()
	for {
		v.mu.Lock()
		removed := v.removed
		state := v.changed // closed when it is removed, too
		v.mu.Unlock()
		events, more, err := v.history.after(after)
		switch {
		case err != nil:
			return cloudpal.E("events of "+v.name, "", err)
		case len(events) > 0:
			return reply(w, events)
		case removed:
			return cloudpal.E("vm "+quote(v.name), cloudpal.NotExist, nil)
		}
		select {
		case <-more:
			continue
		case <-state:
			continue
		case <-end.C:
		case <-r.Context().Done():
		case <-v.h.ctx.Done():
		}
		return reply(w, []api.Event{})
	}
}

func eventQuery(r *http.Request) (after int64, wait time.Duration, err error) {
	q := r.URL.Query()
	if text := q.Get("after"); text != "" {
		if after, err = strconv.ParseInt(text, 10, 64); err == nil && after < 0 {
			err = errors.New("a number below zero")
		}
	}
	if text := q.Get("wait"); text != "" && err == nil {
		if wait, err = time.ParseDuration(text); err == nil && (wait < 0 || wait > api.MaxWait) {
			err = errors.New("it waits for 0 to 1m")
		}
	}
	return after, wait, err
}
