package seal

import (
	"os"
	"sync"
)

// A piece is what one frame holds: up to a MiB of memory or state.
type piece struct {
	kind   kind
	number int64           // which MiB of its kind
	frame  uint64          // which frame of the file
	turn   <-chan struct{} // closed when the frame before it was written
	done   chan struct{}   // the next one's turn
}

// pieces hands out the pieces of a nap, in the order of their frames.
type pieces struct {
	mem         *os.File
	size, state int64 // bytes

	mu     sync.Mutex
	offset int64 // memory handed out
	given  int64 // state handed out
	frames uint64
	last   chan struct{}
}

func (s *pieces) start(mem *os.File, size, state int64) {
	s.mem, s.size, s.state = mem, size, state
	s.frames = 1 // the head
	s.last = make(chan struct{})
	close(s.last)
}

// next returns the next piece, or false when there is none.
func (s *pieces) next() (piece, bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok, err := s.nextLocked()
	if err != nil || !ok {
		return piece{}, false, err
	}
	p.frame, p.turn, p.done = s.frames, s.last, make(chan struct{})
	s.frames++
	s.last = p.done
	return p, true, nil
}

func (s *pieces) nextLocked() (piece, bool, error) {
	data, err := nextData(s.mem, s.offset, s.size)
	if err != nil {
		return piece{}, false, err
	}
	if data < s.size {
		n := data / pieceSize
		s.offset = min((n+1)*pieceSize, s.size)
		return piece{kind: kindMemory, number: n}, true, nil
	}
	s.offset = s.size
	if s.given < s.state {
		n := s.given / pieceSize
		s.given = min(s.given+pieceSize, s.state)
		return piece{kind: kindState, number: n}, true, nil
	}
	return piece{}, false, nil
}
