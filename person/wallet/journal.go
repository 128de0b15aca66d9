package wallet

import (
	"bytes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"golang.org/x/crypto/chacha20poly1305"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

// A journal is a file that only grows, of frames that are encrypted and that no one
// without the seed could make, change, drop, repeat or put in another order. Only
// its end can be missing, which is what a crash leaves.
//
//	header  magic (20 bytes), salt (32)
//	frame   length (4, big endian) of what follows the mark
//	        mark (8): HMAC of the frame's number and the length
//	        nonce (24), XChaCha20-Poly1305 of the changes, with the frame's number
//
// The mark makes of a length something that can be believed, so that a frame that
// was damaged is told from one that was not written to its end.
type journal struct {
	f    *os.File
	keys journalKeys
	next uint64 // number of the frame to come
	size int64  // of the frames that count
	bad  error  // what went wrong in writing: no more is written
}

const (
	magic       = "cloudpal wallet v1 \n"
	headerSize  = len(magic) + saltSize
	saltSize    = 32
	lengthSize  = 4
	markSize    = 8
	frameHead   = lengthSize + markSize
	maxFrame    = 4 << 20   // bytes of one frame
	maxJournal  = 512 << 20 // bytes of one file
	journalName = "journal"
)

type journalKeys struct {
	aead cipher.AEAD
	mark []byte
}

// newJournalKeys are those of one file: the salt is random, so that no two have the
// same.
func newJournalKeys(seed ticket.Seed, purpose string, salt []byte) (k journalKeys, err error) {
	secret, err := hkdf.Key(sha256.New, seed[:], salt, "CloudPal wallet v1 "+purpose, chacha20poly1305.KeySize+sha256.Size)
	if err != nil {
		return k, err
	}
	k.mark = secret[chacha20poly1305.KeySize:]
	k.aead, err = chacha20poly1305.NewX(secret[:chacha20poly1305.KeySize])
	return k, err
}

func (k journalKeys) markOf(number uint64, length []byte) []byte {
	h := hmac.New(sha256.New, k.mark)
	h.Write(binary.BigEndian.AppendUint64(nil, number))
	h.Write(length)
	return h.Sum(nil)[:markSize]
}

// frame seals the number-th frame. Its nonce is random: after a crash another frame
// gets the same number.
func (k journalKeys) frame(number uint64, plain []byte) []byte {
	b := make([]byte, frameHead+k.aead.NonceSize(), frameHead+k.aead.NonceSize()+len(plain)+k.aead.Overhead())
	binary.BigEndian.PutUint32(b, uint32(k.aead.NonceSize()+len(plain)+k.aead.Overhead()))
	copy(b[lengthSize:], k.markOf(number, b[:lengthSize]))
	nonce := b[frameHead:]
	rand.Read(nonce)
	return k.aead.Seal(b, nonce, plain, binary.BigEndian.AppendUint64(nil, number))
}

// errTorn says that a file ends within a frame, or with one that is not whole.
var errTorn = errors.New("its end is not whole")

// open reads the number-th frame from the beginning of b, and returns its size.
func (k journalKeys) open(number uint64, b []byte) (plain []byte, size int, err error) {
	if len(b) < frameHead {
		return nil, 0, errTorn
	}
	if !hmac.Equal(b[lengthSize:frameHead], k.markOf(number, b[:lengthSize])) {
		return nil, 0, k.torn(number, b[1:])
	}
	length := binary.BigEndian.Uint32(b)
	if length > maxFrame || int(length) < k.aead.NonceSize() {
		return nil, 0, errors.New("a frame is too large")
	}
	if len(b)-frameHead < int(length) {
		return nil, 0, errTorn
	}
	size = frameHead + int(length)
	body := b[frameHead:size]
	nonce := body[:k.aead.NonceSize()]
	plain, err = k.aead.Open(nil, nonce, body[k.aead.NonceSize():], binary.BigEndian.AppendUint64(nil, number))
	if err != nil {
		return nil, 0, k.torn(number, b[size:])
	}
	return plain, size, nil
}

// torn tells what was not written to its end from what was damaged since: behind
// the latter there is another frame.
func (k journalKeys) torn(number uint64, rest []byte) error {
	for i := range max(0, len(rest)-frameHead+1) {
		head := rest[i : i+frameHead]
		if l := binary.BigEndian.Uint32(head); l > maxFrame {
			continue
		}
		if hmac.Equal(head[lengthSize:], k.markOf(number+1, head[:lengthSize])) {
			return fmt.Errorf("frame %d is damaged", number)
		}
	}
	return errTorn
}

// openJournal opens the file and hands each frame to each. It changes nothing.
func openJournal(root *os.Root, seed ticket.Seed, purpose string, each func([]byte) error) (*journal, error) {
	f, err := root.OpenFile(journalName, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	j := &journal{f: f}
	if err := j.start(seed, purpose); err != nil {
		f.Close()
		return nil, err
	}
	if err := j.catchUp(each); err != nil {
		f.Close()
		return nil, err
	}
	return j, nil
}

func (j *journal) start(seed ticket.Seed, purpose string) error {
	head := make([]byte, headerSize)
	if _, err := j.f.ReadAt(head, 0); err != nil || !bytes.HasPrefix(head, []byte(magic)) {
		return cloudpal.E("", cloudpal.Corrupt, errors.New("it is no wallet's journal"))
	}
	j.size = int64(headerSize)
	keys, err := newJournalKeys(seed, purpose, head[len(magic):])
	j.keys = keys
	return err
}

// catchUp hands the frames to each that were added since. What is torn is left: it
// may be another process's that is just being written.
func (j *journal) catchUp(each func([]byte) error) error {
	b, err := j.rest()
	for err == nil && len(b) > 0 {
		var plain []byte
		var size int
		plain, size, err = j.keys.open(j.next, b)
		if err == nil {
			err = each(plain)
		}
		if err == nil {
			b, j.next, j.size = b[size:], j.next+1, j.size+int64(size)
		}
	}
	if err != nil && !errors.Is(err, errTorn) {
		return cloudpal.E("", cloudpal.Corrupt, err)
	}
	if j.next == 0 {
		// The first frame was synced before the file had its name.
		return cloudpal.E("", cloudpal.Corrupt, errors.New("it is another wallet's, or damaged"))
	}
	return nil
}

func (j *journal) rest() ([]byte, error) {
	info, err := j.f.Stat()
	if err != nil {
		return nil, err
	}
	if info.Size() > maxJournal {
		return nil, errors.New("it is too large")
	}
	if info.Size() <= j.size {
		return nil, nil
	}
	return io.ReadAll(io.NewSectionReader(j.f, j.size, info.Size()-j.size))
}

// append adds a frame, and has it on the disk when it returns. What a crash or a
// full disk left of another goes. Only the holder of the wallet's lock calls it,
// after catchUp.
func (j *journal) append(plain []byte) error {
	if j.bad != nil {
		return j.bad
	}
	b := j.keys.frame(j.next, plain)
	if len(b) > maxFrame {
		return errors.New("more is to be changed at once than a frame holds")
	}
	err := j.f.Truncate(j.size)
	if err == nil {
		_, err = j.f.WriteAt(b, j.size)
	}
	if err == nil {
		err = j.f.Sync()
	}
	if err != nil {
		// Whether it is there, nobody knows: who opens the journal anew will.
		j.bad = err
		return errors.Join(err, j.f.Truncate(j.size))
	}
	j.next, j.size = j.next+1, j.size+int64(len(b))
	return nil
}

// replaceJournal writes a new file with frames and puts it in the place of the old:
// after a crash there is the old one or the new.
func replaceJournal(root *os.Root, seed ticket.Seed, purpose string, frames [][]byte) (*journal, error) {
	salt := make([]byte, saltSize)
	rand.Read(salt)
	keys, err := newJournalKeys(seed, purpose, salt)
	if err != nil {
		return nil, err
	}
	b := append([]byte(magic), salt...)
	for i, plain := range frames {
		b = append(b, keys.frame(uint64(i), plain)...)
	}
	if err := writeFile(root, journalName, b); err != nil {
		return nil, err
	}
	f, err := root.OpenFile(journalName, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return &journal{f: f, keys: keys, next: uint64(len(frames)), size: int64(len(b))}, nil
}

const tmpSuffix = ".new"

// writeFile replaces a file so that after a crash it is the old or the new one, and
// the new one once writeFile has returned.
func writeFile(root *os.Root, name string, data []byte) error {
	tmp := name + tmpSuffix
	if err := root.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := root.OpenFile(tmp, os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	if uid, gid, ok := heir(root); ok {
		err = f.Chown(uid, gid)
	}
	if err == nil {
		_, err = f.Write(data)
	}
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, root.Remove(tmp))
	}
	if err := root.Rename(tmp, name); err != nil {
		return err
	}
	return syncDir(root)
}

func syncDir(root *os.Root) error {
	d, err := root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
