// Package seal puts a napping VM on disk so that nothing of it can be read or
// altered there: the guest's memory without its zero pages, and the device
// state, compressed, encrypted and authenticated under a key that lives no
// longer than the machine is powered.
//
// A sealed nap is a header and frames. The header is in the clear:
//
//	16 bytes  "CloudPal nap v1\n"
//	32 bytes  random salt
//	 8 bytes  memory size in bytes, big endian
//
// The file's own key is HKDF-SHA256 of the Key, the salt, and the header and
// label as info, so a nap opens only under its key, its label and its own
// header. Frames follow, each with five bytes in the clear:
//
//	1 byte   kind: 'h' head, 'm' memory, 's' state, 'e' end
//	4 bytes  length of what follows, big endian
//	...      AES-256-GCM: the nonce is the frame's number in the file, the
//	         five bytes are authenticated with it
//
// The first frame is an empty head, the last an empty end; nothing may follow.
// Since a frame's number and kind are authenticated and only the last is an
// end, none can be dropped, added, moved or taken from another file (the
// STREAM construction). A memory frame holds the number of its MiB of memory,
// a bitmap of its non-zero pages, and these pages as one zstd frame; MiBs that
// are holes have no frame. A state frame holds the number of its MiB of state
// and that MiB as one zstd frame.
//
// What it does not do: a whole old file of the same label put back in place of
// a new one is authentic. Who keeps naps must remove what was used.
package seal

import (
	"context"
	"errors"
	"io"
	"os"
	"runtime"

	"golang.org/x/sync/errgroup"

	"github.com/tradle/cloudpal"
)

// Bounds of what can be sealed.
const (
	MaxMemory = 64 << 30 // bytes of guest memory
	MaxState  = 64 << 20 // bytes of device state
)

const (
	pieceSize = 1 << 20 // bytes of memory or state in one frame
	pageSize  = 4096
	maxPages  = pieceSize / pageSize
)

// Stats says what sealing did, in bytes.
type Stats struct {
	Memory int64 // the guest's memory
	Kept   int64 // of it, pages that are not all zero
	Sealed int64 // written
}

// Seal writes mem and state to dst, bound to label. It reads mem with its
// holes left out, on as many cores as there are, and stops when ctx ends. It
// does not sync dst; what was written when it fails is of no use.
func Seal(ctx context.Context, dst io.Writer, key *Key, label string, mem *os.File, state []byte) (Stats, error) {
	const op = "seal.Seal"
	info, err := mem.Stat()
	if err != nil {
		return Stats{}, cloudpal.E(op, "", err)
	}
	if info.Size() > MaxMemory || len(state) > MaxState {
		return Stats{}, cloudpal.E(op, cloudpal.Invalid, errors.New("more than 64 GiB of memory or 64 MiB of state"))
	}
	h := newHeader(info.Size())
	aead, err := key.aead(h, label)
	if err != nil {
		return Stats{}, cloudpal.E(op, "", err)
	}
	s := &sealer{dst: dst, box: box{aead}, mem: mem, size: info.Size(), state: state}
	if err := s.run(ctx, h); err != nil {
		return Stats{}, cloudpal.E(op, spaceKind(err), err)
	}
	return s.stats(), nil
}

// A sealer is one run of Seal. Workers take pieces from next; each seals its
// own and hands over to the one behind it by closing a channel, so that frames
// are written in order and no more are in memory than there are workers.
type sealer struct {
	dst   io.Writer
	box   box
	mem   *os.File
	size  int64
	state []byte

	pieces pieces
	kept   int64 // guarded by the turn to write
	sealed int64 // likewise
}

func (s *sealer) stats() Stats {
	return Stats{Memory: s.size, Kept: s.kept, Sealed: s.sealed}
}

func (s *sealer) run(ctx context.Context, h header) error {
	if err := s.write(h[:]); err != nil {
		return err
	}
	if err := s.write(s.box.seal(frame(kindHead), 0, nil)); err != nil {
		return err
	}
	s.pieces.start(s.mem, s.size, int64(len(s.state)))
	g, ctx := errgroup.WithContext(ctx)
	for range workers(s.size + int64(len(s.state))) {
		g.Go(func() error { return s.work(ctx) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return s.write(s.box.seal(frame(kindEnd), s.pieces.frames, nil))
}

// work seals pieces until there are none.
func (s *sealer) work(ctx context.Context) error {
	room := takeScratch()
	defer room.give()
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		p, ok, err := s.pieces.next()
		if err != nil || !ok {
			return err
		}
		sealed, kept, err := s.pack(room, p)
		if err != nil {
			return err
		}
		select {
		case <-p.turn:
		case <-ctx.Done():
			return ctx.Err()
		}
		s.kept += kept
		if err := s.write(sealed); err != nil {
			return err
		}
		close(p.done)
	}
}

// pack returns p as a frame, in room's memory, and how many bytes of memory
// it keeps.
func (s *sealer) pack(room *scratch, p piece) ([]byte, int64, error) {
	if p.kind == kindState {
		plain := packState(room, p.number, s.state)
		return s.box.seal(room.frame(kindState), p.frame, plain), 0, nil
	}
	plain, kept, err := packMemory(room, p.number, s.mem, s.size)
	if err != nil {
		return nil, 0, err
	}
	return s.box.seal(room.frame(kindMemory), p.frame, plain), kept, nil
}

func (s *sealer) write(b []byte) error {
	s.sealed += int64(len(b))
	_, err := s.dst.Write(b)
	return err
}

// workers says how many goroutines a job of so many bytes gets: one more than
// there are cores, since one is always waiting for its turn. Each takes about
// 3 MiB.
func workers(size int64) int {
	pieces := int((size + pieceSize - 1) / pieceSize)
	return max(1, min(runtime.GOMAXPROCS(0)+1, 16, pieces))
}
