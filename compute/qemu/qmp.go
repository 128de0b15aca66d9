package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// maxMessage bounds one message of QEMU's in bytes: its process is a guest
// away from being hostile.
const maxMessage = 1 << 20

// A monitor speaks QMP (QEMU Machine Protocol, docs/interop/qmp-spec.txt) on
// one connection. Answers come in the order of commands; events in between.
// The libraries that there are do not pass descriptors, which is how a snapshot
// gets in and out.
type monitor struct {
	conn *net.UnixConn
	// onEvent is called for each event, in order, and must not block.
	onEvent func(event)

	send    sync.Mutex // one command at a time is written and queued
	mu      sync.Mutex
	waiting []chan<- answer
	err     error
	gone    chan struct{} // closed when err is set
}

// A message is anything that QEMU says.
type message struct {
	Greeting *json.RawMessage `json:"QMP"`
	Return   json.RawMessage  `json:"return"`
	Error    *qmpError        `json:"error"`
	Event    string           `json:"event"`
	Data     json.RawMessage  `json:"data"`
}

type qmpError struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

type answer struct {
	data json.RawMessage
	err  error
}

// An event is something that happened in the machine.
type event struct {
	name string
	data json.RawMessage
}

// newMonitor takes over conn. QEMU's greeting need not have come: it reads
// what was written before it was up.
func newMonitor(conn *net.UnixConn, onEvent func(event)) *monitor {
	m := &monitor{conn: conn, onEvent: onEvent, gone: make(chan struct{})}
	go m.read()
	return m
}

func (m *monitor) read() {
	err := eachMessage(m.conn, m.handle)
	m.conn.Close()
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = fmt.Errorf("the connection to QEMU ended: %w", err)
	for _, w := range m.waiting {
		w <- answer{err: m.err}
	}
	m.waiting = nil
	close(m.gone)
}

// eachMessage parses what QEMU writes, a message a line.
func eachMessage(r interface{ Read([]byte) (int, error) }, f func(message) error) error {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 4096), maxMessage)
	for lines.Scan() {
		if len(lines.Bytes()) == 0 {
			continue
		}
		var msg message
		if err := json.Unmarshal(lines.Bytes(), &msg); err != nil {
			return fmt.Errorf("not QMP: %w", err)
		}
		if err := f(msg); err != nil {
			return err
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return errors.New("QEMU closed it")
}

func (m *monitor) handle(msg message) error {
	switch {
	case msg.Event != "":
		m.onEvent(event{msg.Event, msg.Data})
	case msg.Greeting != nil:
	case msg.Error != nil:
		return m.answer(answer{err: fmt.Errorf("%.300s", msg.Error.Desc)})
	default:
		return m.answer(answer{data: msg.Return})
	}
	return nil
}

// answer gives a to the first that waits.
func (m *monitor) answer(a answer) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.waiting) == 0 {
		return errors.New("an answer that nobody asked for")
	}
	m.waiting[0] <- a
	m.waiting = m.waiting[1:]
	return nil
}

// A command is one request.
type command struct {
	Execute   string         `json:"execute"`
	Arguments map[string]any `json:"arguments,omitempty"`
	file      *os.File       // goes with it, for getfd
}

// run sends commands, all at once, and returns the last one's answer, or the
// first error.
func (m *monitor) run(ctx context.Context, commands ...command) (json.RawMessage, error) {
	answers, err := m.write(commands)
	if err != nil {
		return nil, err
	}
	var last json.RawMessage
	for i, a := range answers {
		select {
		case got := <-a:
			if got.err != nil {
				return nil, fmt.Errorf("%s: %w", commands[i].Execute, got.err)
			}
			last = got.data
		case <-ctx.Done():
			return nil, fmt.Errorf("%s: %w", commands[i].Execute, context.Cause(ctx))
		}
	}
	return last, nil
}

// writeWait is how long QEMU may leave a command unread.
const writeWait = 10 * time.Second

func (m *monitor) write(commands []command) ([]<-chan answer, error) {
	m.send.Lock()
	defer m.send.Unlock()
	answers := make([]<-chan answer, len(commands))
	var text, rights []byte
	for i, c := range commands {
		line, err := json.Marshal(c)
		if err != nil {
			return nil, err
		}
		text = append(append(text, line...), '\n')
		if c.file != nil {
			rights = unix.UnixRights(int(c.file.Fd()))
		}
		a := make(chan answer, 1)
		answers[i] = a
		if err := m.expect(a); err != nil {
			return nil, err
		}
	}
	if err := m.conn.SetWriteDeadline(time.Now().Add(writeWait)); err != nil {
		return nil, err
	}
	if _, _, err := m.conn.WriteMsgUnix(text, rights, nil); err != nil {
		// What was half written cannot be taken back.
		m.conn.Close()
		return nil, fmt.Errorf("write to QEMU: %w", err)
	}
	return answers, nil
}

func (m *monitor) expect(a chan<- answer) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return m.err
	}
	m.waiting = append(m.waiting, a)
	return nil
}

func (m *monitor) close() { m.conn.Close() }

// decode reads an answer's data.
func decode(data json.RawMessage, v any) error {
	if err := json.Unmarshal(data, v); err != nil {
		return fmt.Errorf("QEMU's answer: %w", err)
	}
	return nil
}
