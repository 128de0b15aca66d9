package secretstream

import (
	"bytes"
	"io"
	"testing"

	"github.com/flynn/noise"
	"golang.org/x/crypto/chacha20"
)

type vectors struct {
	DH []struct {
		LocalSeed, RemotePublicKey, Shared hexBytes
	}
	XX handshakeVector
	IK handshakeVector

	StreamIDs struct{ InitiatorID, ResponderID hexBytes }

	SecretStream struct {
		Key, Header hexBytes
		Messages    []struct{ Plain, Cipher hexBytes }
	}
	RawTranscript struct {
		Frames []struct {
			From string
			Hex  hexBytes
		}
		PlaintextSeenByResponder, PlaintextSeenByInitiator []hexBytes
	}
}

type handshakeVector struct {
	Message1, Message2, Message3, HandshakeHash, InitiatorTx, InitiatorRx hexBytes
	States                                                                []struct {
		H, CK hexBytes
	}
}

func TestSharedSecrets(t *testing.T) {
	var v vectors
	readVectors(t, &v)
	for _, d := range v.DH {
		got, err := edwards{}.DH(d.LocalSeed, d.RemotePublicKey)
		if err != nil || !bytes.Equal(got, d.Shared) {
			t.Errorf("seed %x with %x: got %x, %v, want %x", d.LocalSeed, d.RemotePublicKey, got, err, d.Shared)
		}
	}
}

// TestHandshakeMessages has the handshake say just what the original said with
// the same keys.
func TestHandshakeMessages(t *testing.T) {
	var v vectors
	readVectors(t, &v)
	for _, c := range []struct {
		pattern noise.HandshakePattern
		want    handshakeVector
	}{{noise.HandshakeXX, v.XX}, {noise.HandshakeIK, v.IK}} {
		t.Run(c.pattern.Name, func(t *testing.T) { replay(t, c.pattern, c.want) })
	}
}

func replay(t *testing.T, pattern noise.HandshakePattern, v handshakeVector) {
	initiator, responder := state(t, pattern, true), state(t, pattern, false)
	messages := [][]byte{v.Message1, v.Message2}
	if v.Message3 != nil {
		messages = append(messages, v.Message3)
	}
	var first, second *noise.CipherState
	for i, want := range messages {
		from, to := initiator, responder
		if i%2 == 1 {
			from, to = responder, initiator
		}
		got, c1, c2, err := from.WriteMessage(nil, nil)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("message %d: got %x, %v, want %x", i+1, got, err, want)
		}
		if _, _, _, err := to.ReadMessage(nil, want); err != nil {
			t.Fatalf("message %d: %v", i+1, err)
		}
		first, second = c1, c2
	}
	tx, rx := first.UnsafeKey(), second.UnsafeKey()
	if !bytes.Equal(tx[:], v.InitiatorTx) || !bytes.Equal(rx[:], v.InitiatorRx) {
		t.Errorf("got keys %x and %x, want %x and %x", tx, rx, v.InitiatorTx, v.InitiatorRx)
	}
	for _, s := range []*noise.HandshakeState{initiator, responder} {
		if got := s.ChannelBinding(); !bytes.Equal(got, v.HandshakeHash) {
			t.Errorf("got handshake hash %x, want %x", got, v.HandshakeHash)
		}
	}
}

// state returns one side of the vectors' handshakes.
func state(t *testing.T, pattern noise.HandshakePattern, initiator bool) *noise.HandshakeState {
	t.Helper()
	c := noise.Config{CipherSuite: suite, Pattern: pattern, Initiator: initiator,
		StaticKeypair: keypair(key(2)), Random: bytes.NewReader(key(0x22).Seed())}
	if initiator {
		c.StaticKeypair, c.Random = keypair(key(1)), bytes.NewReader(key(0x11).Seed())
		if pattern.Name == "IK" {
			c.PeerStatic = public(key(2))[:]
		}
	}
	s, err := noise.NewHandshakeState(c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestInitialState has the hash of the protocol's name and an empty prologue.
func TestInitialState(t *testing.T) {
	var v struct {
		XX struct {
			States []struct {
				Initiator struct{ H hexBytes }
			}
		}
	}
	readVectors(t, &v)
	got, want := state(t, noise.HandshakeXX, true).ChannelBinding(), v.XX.States[0].Initiator.H
	if !bytes.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
}

func TestStreamIDs(t *testing.T) {
	var v vectors
	readVectors(t, &v)
	hash := [64]byte(v.XX.HandshakeHash)
	if got := streamID(&hash, true); !bytes.Equal(got[:], v.StreamIDs.InitiatorID) {
		t.Errorf("initiator: got %x, want %x", got, v.StreamIDs.InitiatorID)
	}
	if got := streamID(&hash, false); !bytes.Equal(got[:], v.StreamIDs.ResponderID) {
		t.Errorf("responder: got %x, want %x", got, v.StreamIDs.ResponderID)
	}
}

func TestSecretStream(t *testing.T) {
	var v vectors
	readVectors(t, &v)
	var tx, rx stream
	tx.init([32]byte(v.SecretStream.Key), v.SecretStream.Header)
	rx.init([32]byte(v.SecretStream.Key), v.SecretStream.Header)
	for _, m := range v.SecretStream.Messages {
		got := sealed(&tx, m.Plain)
		if !bytes.Equal(got, m.Cipher) {
			t.Fatalf("%d bytes: got %x, want %x", len(m.Plain), got, m.Cipher)
		}
		back, err := opened(&rx, got)
		if err != nil || !bytes.Equal(back, m.Plain) {
			t.Fatalf("%d bytes: opened as %x, %v", len(m.Plain), back, err)
		}
	}
}

// sealed returns what is sent for a message.
func sealed(s *stream, message []byte) []byte {
	box := append(make([]byte, blockSize), message...)
	box = append(box, make([]byte, tagSize)...)
	s.seal(box)
	return box[blockSize-1:]
}

// opened returns the message of what was received.
func opened(s *stream, frame []byte) ([]byte, error) {
	return s.open(append(make([]byte, blockSize-1), frame...))
}

// TestTranscript replays a whole conversation of two originals: each side of it
// is played by ours, whose every byte must be theirs.
func TestTranscript(t *testing.T) {
	var v vectors
	readVectors(t, &v)
	all := map[string][]byte{}
	headers := map[string][]byte{}
	for _, f := range v.RawTranscript.Frames {
		all[f.From] = append(all[f.From], f.Hex...)
		if len(f.Hex) == lengthSize+headerBody {
			headers[f.From] = f.Hex[lengthSize+idSize:]
		}
	}
	a, b := tcp(t)
	ta, tb := &tap{ReadWriteCloser: a}, &tap{ReadWriteCloser: b}
	initiator, responder := pair(t, ta, tb,
		Config{Key: key(1), KeepAlive: -1, random: io.MultiReader(bytes.NewReader(key(0x11).Seed()), bytes.NewReader(headers["initiator"]))},
		Config{Key: key(2), KeepAlive: -1, random: io.MultiReader(bytes.NewReader(key(0x22).Seed()), bytes.NewReader(headers["responder"]))})
	say(t, initiator, responder, v.RawTranscript.PlaintextSeenByResponder)
	say(t, responder, initiator, v.RawTranscript.PlaintextSeenByInitiator)
	for name, p := range map[string]*tap{"initiator": ta, "responder": tb} {
		if got := p.wrote.Bytes(); !bytes.Equal(got, all[name]) {
			t.Errorf("the %s wrote\n%x, want\n%x", name, got, all[name])
		}
	}
	if initiator.RemoteKey() != *public(key(2)) || responder.RemoteKey() != *public(key(1)) {
		t.Error("the sides do not know each other")
	}
	if h := initiator.HandshakeHash(); h != responder.HandshakeHash() || !bytes.Equal(h[:], v.XX.HandshakeHash) {
		t.Errorf("got handshake hashes %x and %x, want %x", h, responder.HandshakeHash(), v.XX.HandshakeHash)
	}
}

// say sends messages and has them received.
func say(t *testing.T, from, to *Conn, messages []hexBytes) {
	t.Helper()
	for _, m := range messages {
		if err := from.WriteMessage(m); err != nil {
			t.Fatal(err)
		}
		want(t, to, m)
	}
}

// TestSealLengths has the two ways to a MAC agree with the definition for all
// lengths around the borders of blocks.
func TestSealLengths(t *testing.T) {
	var tx, rx, slow stream
	header := bytes.Repeat([]byte{9}, headerSize)
	for _, s := range []*stream{&tx, &rx, &slow} {
		s.init([32]byte{7}, header)
	}
	for n := range 1100 {
		message := bytes.Repeat([]byte{byte(n)}, n)
		frame := sealed(&tx, message)
		if want := byDefinition(&slow, message); !bytes.Equal(frame, want) {
			t.Fatalf("%d bytes: got %x, want %x", n, frame, want)
		}
		got, err := opened(&rx, frame)
		if err != nil || !bytes.Equal(got, message) {
			t.Fatalf("%d bytes: opened as %x, %v", n, got, err)
		}
	}
}

// byDefinition seals as libsodium's documentation has it, block by block.
func byDefinition(s *stream, message []byte) []byte {
	blocks := keyStream(s, 2*blockSize+len(message))
	body := append(make([]byte, blockSize), message...)
	for i := range body {
		body[i] ^= blocks[blockSize+i]
	}
	mac := make([]byte, tagSize)
	var first [2 * blockSize]byte
	copy(first[:], blocks)
	sum(mac, body, &first)
	s.next(mac, 0)
	body[blockSize-1] = body[0]
	return append(body[blockSize-1:], mac...)
}

// keyStream returns the first n bytes of what the next message is encrypted
// with.
func keyStream(s *stream, n int) []byte {
	c, err := chacha20.NewUnauthenticatedCipher(s.key[:], s.nonce[:])
	if err != nil {
		panic(err)
	}
	blocks := make([]byte, n)
	c.XORKeyStream(blocks, blocks)
	return blocks
}

// TestDamagedFramesAreRefused flips each bit of frames of both ways to a MAC.
func TestDamagedFramesAreRefused(t *testing.T) {
	for _, n := range []int{0, 1, 8, 63, 64, 100} {
		var tx, rx stream
		tx.init([32]byte{7}, make([]byte, headerSize))
		frame := sealed(&tx, make([]byte, n))
		for bit := range 8 * len(frame) {
			rx.init([32]byte{7}, make([]byte, headerSize))
			frame[bit/8] ^= 1 << (bit % 8)
			if _, err := opened(&rx, frame); err == nil {
				t.Errorf("%d bytes with bit %d flipped were accepted", n, bit)
			}
			frame[bit/8] ^= 1 << (bit % 8)
		}
	}
}
