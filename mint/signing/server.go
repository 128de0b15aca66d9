package signing

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

const (
	maxConns  = 64               // at once
	idleFor   = 10 * time.Minute // that a connection may say nothing
	frameTime = 10 * time.Second // that a question may take to arrive, and an answer to leave
)

// Serve answers what the processes of one user ask on a Unix socket, until ctx
// ends, and waits for those that it is answering. Others it hangs up on.
func Serve(ctx context.Context, l *net.UnixListener, uid int, s Signer, log *slog.Logger) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var all sync.WaitGroup
	defer all.Wait()
	room := make(chan struct{}, maxConns)
	for {
		conn, err := l.AcceptUnix()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			return cloudpal.E("answer on the signer's socket", "", err)
		}
		select {
		case room <- struct{}{}:
		default:
			conn.Close()
			continue
		}
		all.Go(func() {
			defer func() { <-room }()
			defer conn.Close()
			if err := admit(conn, uid); err != nil {
				log.Warn("refused who asked the signer", "err", err)
				return
			}
			if err := answerAll(ctx, conn, s, log); err != nil && ctx.Err() == nil {
				log.Info("a connection ended", "err", err)
			}
		})
	}
}

// admit checks who is at the other end, as the kernel knows it.
func admit(conn *net.UnixConn, uid int) error {
	got, err := peer(conn)
	if err != nil {
		return err
	}
	if got != uid {
		return cloudpal.E("", cloudpal.Denied, errors.New("it is no process of the mint's user"))
	}
	return nil
}

// answerAll answers one question after another.
func answerAll(ctx context.Context, conn net.Conn, s Signer, log *slog.Logger) error {
	stop := context.AfterFunc(ctx, func() { conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for {
		kind, body, err := next(ctx, conn)
		if err != nil {
			return ended(err)
		}
		answer, err := answer(ctx, s, kind, body)
		reply := done
		if err != nil {
			log.Warn("did not do what it was asked", "err", err)
			reply, answer = failed, []byte(cloudpal.KindOf(err))
		}
		if err := conn.SetWriteDeadline(time.Now().Add(frameTime)); err != nil {
			return err
		}
		if err := writeFrame(conn, reply, answer); err != nil {
			return err
		}
	}
}

// next waits for a question, long for its first byte and not for the others.
func next(ctx context.Context, conn net.Conn) (byte, []byte, error) {
	if err := conn.SetReadDeadline(time.Now().Add(idleFor)); err != nil {
		return 0, nil, err
	}
	if ctx.Err() != nil { // else it may have ended just before, and its deadline be undone
		return 0, nil, io.EOF
	}
	return readFrame(&hasty{conn: conn})
}

// hasty gives the rest of a frame less time once it has begun.
type hasty struct {
	conn  net.Conn
	begun bool
}

// Read implements io.Reader.
func (h *hasty) Read(b []byte) (int, error) {
	n, err := h.conn.Read(b)
	if n > 0 && !h.begun && err == nil {
		h.begun = true
		err = h.conn.SetReadDeadline(time.Now().Add(frameTime))
	}
	return n, err
}

// answer does what is asked. Whatever is no question, is refused.
func answer(ctx context.Context, s Signer, kind byte, body []byte) ([]byte, error) {
	switch kind {
	case generate:
		n, rest, err := parseName(body)
		if err != nil || len(rest) > 0 {
			return nil, refused()
		}
		k, err := s.Generate(ctx, n.class, n.denomination, n.epoch)
		if err != nil {
			return nil, err
		}
		return appendKey(nil, k), nil
	case public:
		if len(body) > 0 {
			return nil, refused()
		}
		keys, err := s.Public(ctx)
		var b []byte
		for _, k := range keys {
			b = appendKey(b, k)
		}
		return b, err
	case sign:
		id, blinded, err := parseSign(body)
		if err != nil {
			return nil, refused()
		}
		signatures, err := s.Sign(ctx, id, blinded)
		if err != nil {
			return nil, err
		}
		return appendBlocks(nil, signatures)
	case drop:
		if len(body) != 4 {
			return nil, refused()
		}
		return nil, s.Drop(ctx, ticket.Epoch(binary.BigEndian.Uint32(body)))
	}
	return nil, refused()
}

func refused() error { return cloudpal.E("", cloudpal.Invalid, errFrame) }

// ended is what an error of reading means: a connection that ends between two
// questions ends well.
func ended(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
