package signing

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

var quiet = slog.New(slog.DiscardHandler)

var someRSA = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

func someKey(t testing.TB, d ticket.Denomination) *ticket.Key {
	t.Helper()
	k, err := ticket.NewKey(ticket.Paid, d, 82, &someRSA().PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// mirror is a Signer that turns messages round: enough to see what goes over.
type mirror struct{ keys []*ticket.Key }

func (m mirror) Generate(_ context.Context, c ticket.Class, d ticket.Denomination, e ticket.Epoch) (*ticket.Key, error) {
	for _, k := range m.keys {
		if k.Class == c && k.Denomination == d && k.Epoch == e {
			return k, nil
		}
	}
	return nil, cloudpal.E("make a key of ann's", cloudpal.Denied, errors.New("a secret"))
}

func (m mirror) Public(context.Context) ([]*ticket.Key, error) { return m.keys, nil }

func (m mirror) Sign(_ context.Context, id ticket.KeyID, blinded [][]byte) (signatures [][]byte, err error) {
	if id != m.keys[0].ID() {
		return nil, cloudpal.NotExist
	}
	for _, b := range blinded {
		signatures = append(signatures, turned(b))
	}
	return signatures, nil
}

func (m mirror) Drop(_ context.Context, e ticket.Epoch) error {
	if e == 7 {
		panic("nobody drops epoch 7")
	}
	return nil
}

func turned(b []byte) []byte {
	r := bytes.Clone(b)
	for i, j := 0, len(r)-1; i < j; i, j = i+1, j-1 {
		r[i], r[j] = r[j], r[i]
	}
	return r
}

// serve answers with s on a socket until the test ends.
func serve(t *testing.T, s Signer, uid int) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "signing")
	if err != nil {
		t.Fatal(err)
	}
	socket = filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- Serve(ctx, l, uid, s, quiet) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("serving ended with %v", err)
		}
		os.RemoveAll(dir)
	})
	return socket
}

func blocks(n int) (list [][]byte) {
	for i := range n {
		b := make([]byte, ticket.BlindSize)
		binary.BigEndian.PutUint32(b, uint32(i))
		list = append(list, b)
	}
	return list
}

func TestAsksAndAnswers(t *testing.T) {
	t.Parallel()
	keys := []*ticket.Key{someKey(t, 1), someKey(t, 4)}
	c := NewClient(serve(t, mirror{keys}, os.Getuid()))
	defer c.Close()
	got, err := c.Public(t.Context())
	if err != nil || len(got) != 2 || got[1].ID() != keys[1].ID() || got[1].Denomination != 4 || got[1].Epoch != 82 {
		t.Errorf("the keys come as %v (%v)", got, err)
	}
	if k, err := c.Generate(t.Context(), ticket.Paid, 4, 82); err != nil || k.ID() != keys[1].ID() || k.Denomination != 4 {
		t.Errorf("the made key is %v (%v)", k, err)
	}
	for _, n := range []int{0, 1, MaxBatch} {
		in := blocks(n)
		out, err := c.Sign(t.Context(), keys[0].ID(), in)
		if err != nil || len(out) != n {
			t.Fatalf("%d to sign: %d, %v", n, len(out), err)
		}
		for i := range in {
			if !bytes.Equal(out[i], turned(in[i])) {
				t.Fatalf("of %d, number %d is another's", n, i)
			}
		}
	}
	if err := c.Drop(t.Context(), 3); err != nil {
		t.Error(err)
	}
}

// An answer says the kind of trouble, and nothing else of the signer's.
func TestTroubleIsAKind(t *testing.T) {
	t.Parallel()
	c := NewClient(serve(t, mirror{[]*ticket.Key{someKey(t, 1)}}, os.Getuid()))
	defer c.Close()
	_, err := c.Generate(t.Context(), ticket.Free, 1, 82)
	if !errors.Is(err, cloudpal.Denied) || bytes.Contains([]byte(err.Error()), []byte("ann")) {
		t.Errorf("got %v", err)
	}
	if _, err := c.Sign(t.Context(), ticket.KeyID{}, nil); !errors.Is(err, cloudpal.NotExist) {
		t.Errorf("got %v", err)
	}
	for _, bad := range [][][]byte{blocks(MaxBatch + 1), {make([]byte, 255)}, {nil}} {
		if _, err := c.Sign(t.Context(), ticket.KeyID{}, bad); !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("got %v", err)
		}
	}
}

func TestOthersAreHungUpOn(t *testing.T) {
	t.Parallel()
	conn, err := net.Dial("unix", serve(t, mirror{[]*ticket.Key{someKey(t, 1)}}, os.Getuid()+1))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	writeFrame(conn, public, nil)
	if b, err := io.ReadAll(conn); len(b) > 0 {
		t.Errorf("another user is told %q (%v)", b, err)
	}
}

// Whatever is sent, the server answers the next client.
func TestGarbage(t *testing.T) {
	t.Parallel()
	k := someKey(t, 1)
	socket := serve(t, mirror{[]*ticket.Key{k}}, os.Getuid())
	for what, b := range map[string][]byte{
		"nothing":              {},
		"half a length":        {0, 0},
		"an empty frame":       {0, 0, 0, 0},
		"a frame without end":  {0xff, 0xff, 0xff, 0xff, 3},
		"one that is cut":      {0, 0, 1, 0, 3, 1, 2},
		"just too long":        binary.BigEndian.AppendUint32(nil, maxFrame+1),
		"text":                 []byte("GET / HTTP/1.1\r\n\r\n"),
		"no such question":     {0, 0, 0, 1, 9},
		"an answer":            {0, 0, 0, 1, 0},
		"a sign without a key": {0, 0, 0, 2, 3, 1},
		"a sign of a part":     append([]byte{0, 0, 0, 34, 3}, make([]byte, 33)...),
		"a drop of nothing":    {0, 0, 0, 1, 4},
		"a long generate":      {0, 0, 0, 11, 1, 1, 0, 0, 0, 1, 0, 0, 0, 82, 0},
		"public of something":  {0, 0, 0, 2, 2, 0},
	} {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(b); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		conn.(*net.UnixConn).CloseWrite()
		conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		answer, err := io.ReadAll(conn)
		if len(answer) > 0 && (len(answer) < 5 || answer[4] != failed || string(answer[5:]) != string(cloudpal.Invalid)) {
			t.Errorf("%s is answered with %q (%v)", what, answer, err)
		}
		conn.Close()
	}
	c := NewClient(socket)
	defer c.Close()
	if _, err := c.Sign(t.Context(), k.ID(), blocks(2)); err != nil {
		t.Errorf("after all that: %v", err)
	}
}

// Slow ones get their time and no more; a full house hangs up.
func TestRoomForSoMany(t *testing.T) {
	t.Parallel()
	socket := serve(t, mirror{[]*ticket.Key{someKey(t, 1)}}, os.Getuid())
	var conns []net.Conn
	defer func() {
		for _, c := range conns {
			c.Close()
		}
	}()
	for range maxConns {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
		if err := writeFrame(conn, drop, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
		if _, _, err := readFrame(conn); err != nil { // it is in
			t.Fatal(err)
		}
	}
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	if n, err := conn.Read(make([]byte, 1)); n != 0 || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("one too many is kept waiting: %d, %v", n, err)
	}
}

// A client does not wait for ever for a signer that is not there, and not at all
// once it is told.
func TestNobodyThere(t *testing.T) {
	t.Parallel()
	c := NewClient(filepath.Join(t.TempDir(), "none"))
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Public(ctx); !errors.Is(err, cloudpal.Missing) || cloudpal.HintOf(err) == "" {
		t.Errorf("got %v", err)
	}
	c.Close()
	if _, err := c.Public(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a closed client: %v", err)
	}
}

// A signer that ends is waited for, and asked again.
func TestAsksTheNext(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "signing")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "s")
	k := someKey(t, 1)
	answers := []func(net.Conn){
		func(c net.Conn) {},                                         // hangs up
		func(c net.Conn) { readFrame(c) },                           // ends in the middle
		func(c net.Conn) { readFrame(c); c.Write([]byte{0, 0, 1}) }, // and in an answer
		func(c net.Conn) { readFrame(c); c.Write(make([]byte, 4)) }, // and says what is none
		func(c net.Conn) { answerAll(t.Context(), c, mirror{[]*ticket.Key{k}}, quiet) },
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var all sync.WaitGroup
	all.Go(func() {
		for _, answer := range answers {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			answer(conn)
			conn.Close()
		}
	})
	c := NewClient(socket)
	got, err := c.Sign(t.Context(), k.ID(), blocks(3))
	if err != nil || len(got) != 3 {
		t.Errorf("got %d, %v", len(got), err)
	}
	c.Close()
	all.Wait()
}

// FuzzQuestion: whatever is asked, the answer is one of the protocol's.
func FuzzQuestion(f *testing.F) {
	k := someKey(f, 1)
	id := k.ID()
	for kind, body := range map[byte][]byte{
		generate: appendName(nil, keyName{ticket.Paid, 1, 82}),
		public:   nil,
		sign:     append(id[:], make([]byte, 512)...),
		drop:     {0, 0, 0, 1},
		9:        {1},
	} {
		var b bytes.Buffer
		writeFrame(&b, kind, body)
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		kind, body, err := readFrame(bytes.NewReader(in))
		if err != nil {
			return
		}
		if kind == drop && bytes.Equal(body, []byte{0, 0, 0, 7}) {
			return
		}
		out, err := answer(t.Context(), mirror{[]*ticket.Key{k}}, kind, body)
		if err != nil && len(out) > 0 {
			t.Errorf("an answer with %v", err)
		}
		var b bytes.Buffer
		if err := writeFrame(&b, done, out); err != nil {
			t.Errorf("an answer that cannot be sent: %v", err)
		}
	})
}

// FuzzAnswer: whatever a signer answers, the client takes it or says why not, and
// what it takes is what would be written.
func FuzzAnswer(f *testing.F) {
	f.Add(appendKey(appendKey(nil, someKey(f, 1)), someKey(f, 4)))
	f.Add(make([]byte, 512))
	f.Fuzz(func(t *testing.T, in []byte) {
		if keys, err := parseKeys(in); err == nil {
			var again []byte
			for _, k := range keys {
				again = appendKey(again, k)
			}
			if !bytes.Equal(again, in) {
				t.Errorf("%x is read as %x", in, again)
			}
		}
		if blocks, err := parseBlocks(in); err == nil {
			if again, err := appendBlocks(nil, blocks); err != nil || !bytes.Equal(again, in) {
				t.Errorf("%d blocks are not what came (%v)", len(blocks), err)
			}
		}
		kindOf(in)
	})
}

// A full batch and all keys that there can be fit.
func TestFrameFits(t *testing.T) {
	t.Parallel()
	if size := MaxKeys * (keySize + len(someKey(t, 1).Public())); size >= maxFrame {
		t.Errorf("%d keys take %d bytes, and a frame %d", MaxKeys, size, maxFrame)
	}
	if len(someKey(t, 1).Public()) > maxPublic {
		t.Error("a key's public half is too large")
	}
	if err := writeFrame(io.Discard, sign, make([]byte, maxFrame)); !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("a frame that is too large is written: %v", err)
	}
}
