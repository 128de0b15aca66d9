package seal

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/tradle/cloudpal"
)

// Open reads what Seal wrote: the memory into mem, whose content it replaces
// and whose holes are the zero pages, and the device state, which it returns.
// If a bit of src is not what Seal wrote under key and label, the error is
// cloudpal.Corrupt. When Open fails, mem holds garbage and is the caller's to
// drop.
func Open(ctx context.Context, src io.Reader, key *Key, label string, mem *os.File) ([]byte, error) {
	state, err := open(ctx, src, key, label, mem)
	if err == nil {
		return state, nil
	}
	const op = "seal.Open"
	if _, ok := errors.AsType[damage](err); ok {
		return nil, cloudpal.E(op, cloudpal.Corrupt, err).
			WithHint("the nap cannot be used; the VM must boot from its disks")
	}
	return nil, cloudpal.E(op, spaceKind(err), err)
}

func open(ctx context.Context, src io.Reader, key *Key, label string, mem *os.File) ([]byte, error) {
	o := &opener{src: bufio.NewReaderSize(src, 64<<10), mem: mem}
	if err := o.begin(key, label); err != nil {
		return nil, err
	}
	g, ctx := errgroup.WithContext(ctx)
	for range workers(o.size) {
		g.Go(func() error { return o.work(ctx) })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return o.state()
}

// An opener is one run of Open. Workers take frames from next and put what is
// in them where it belongs, in any order.
type opener struct {
	box  box
	mem  *os.File
	size int64

	mu     sync.Mutex
	src    io.Reader
	frames uint64
	ended  bool
	parts  [][]byte // of the state
}

// begin reads the header and the head frame, which tells whether key, label
// and header are the right ones; only then the memory size is believed.
func (o *opener) begin(key *Key, label string) error {
	var h header
	if _, err := io.ReadFull(o.src, h[:]); err != nil {
		return early(err)
	}
	if err := h.check(); err != nil {
		return damage(err.Error())
	}
	aead, err := key.aead(h, label)
	if err != nil {
		return err
	}
	o.box = box{aead}
	if err := o.readHead(); err != nil {
		return err
	}
	o.size = int64(h.size())
	return errors.Join(o.mem.Truncate(0), o.mem.Truncate(o.size))
}

func (o *opener) readHead() error {
	room := takeScratch()
	defer room.give()
	f, err := readFrame(o.src, room.sealed)
	if err != nil {
		return err
	}
	plain, err := o.box.open(f, 0)
	if err != nil || kind(f[0]) != kindHead || len(plain) > 0 {
		return damaged("it was sealed under another key or for another VM, or its first bytes were changed")
	}
	o.frames = 1
	return nil
}

func (o *opener) work(ctx context.Context) error {
	room := takeScratch()
	defer room.give()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		f, n, err := o.next(room)
		if err != nil || f == nil {
			return err
		}
		if err := o.unpack(room, f, n); err != nil {
			return err
		}
	}
}

// next reads the next frame into room's memory and returns it with its
// number; nil after the end frame.
func (o *opener) next(room *scratch) ([]byte, uint64, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ended {
		return nil, 0, nil
	}
	f, err := readFrame(o.src, room.sealed)
	if err != nil {
		return nil, 0, err
	}
	n := o.frames
	o.frames++
	if kind(f[0]) != kindEnd {
		return f, n, nil
	}
	o.ended = true
	return nil, 0, o.end(f, n)
}

func (o *opener) end(f []byte, n uint64) error {
	if _, err := o.box.open(f, n); err != nil {
		return err
	}
	switch _, err := io.ReadFull(o.src, make([]byte, 1)); err {
	case io.EOF:
		return nil
	case nil:
		return damaged("something follows its end frame")
	default:
		return err
	}
}

func (o *opener) unpack(room *scratch, f []byte, n uint64) error {
	plain, err := o.box.open(f, n)
	if err != nil {
		return err
	}
	switch kind(f[0]) {
	case kindMemory:
		return unpackMemory(room, plain, o.mem, o.size)
	case kindState:
		i, part, err := unpackState(room, plain)
		if err != nil {
			return err
		}
		return o.keep(i, part)
	}
	return damaged("a frame of unknown kind")
}

// keep puts a part of the state in its place.
func (o *opener) keep(i int, part []byte) error {
	if i >= MaxState/pieceSize {
		return damaged("more than 64 MiB of state")
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	for len(o.parts) <= i {
		o.parts = append(o.parts, nil)
	}
	o.parts[i] = part
	return nil
}

func (o *opener) state() ([]byte, error) {
	var all []byte
	for _, part := range o.parts {
		if len(part) == 0 || len(all)%pieceSize != 0 {
			return nil, damaged("a part of the state is missing")
		}
		all = append(all, part...)
	}
	return all, nil
}

// spaceKind tells a full disk from other trouble.
func spaceKind(err error) cloudpal.Kind {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return cloudpal.NoSpace
	}
	return ""
}
