package secretstream

import "io"

// pieceSize is the size of the messages that a stream of bytes is cut into.
const pieceSize = 64 << 10

// Stream returns the connection as a stream of bytes: what is written leaves as
// messages of up to 64 KiB, and borders of messages that arrive are not seen.
// It is the same connection, so who reads the Stream calls ReadMessage no
// more.
func (c *Conn) Stream() io.ReadWriteCloser { return &byteStream{Conn: c} }

type byteStream struct {
	*Conn
	rest []byte // of the message that was read last
}

// Read returns bytes of the current message, or the next.
func (s *byteStream) Read(b []byte) (n int, err error) {
	for len(s.rest) == 0 && len(b) > 0 {
		if s.rest, err = s.ReadMessage(); err != nil {
			return 0, err
		}
	}
	n = copy(b, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// Write sends b.
func (s *byteStream) Write(b []byte) (n int, err error) {
	for n < len(b) {
		piece := b[n:min(n+pieceSize, len(b))]
		if err := s.QueueMessage(piece); err != nil {
			return n, err
		}
		n += len(piece)
	}
	return n, s.Flush()
}
