package wallet

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

// A backup is a file like a journal, of keys of its own, that says how many frames it
// has: it can be read by who has the phrase and by nobody else, and a part of one is
// none.
const purposeBackup = "backup"

// MaxBackup bounds a backup, in bytes.
const MaxBackup = 128 << 20

// Backup writes all that the wallet knows to a file, which is the old one or the new
// one, whatever happens. It is for the person's pal and other devices.
func (w *Wallet) Backup(path string) error {
	op := "write the backup " + path
	s, err := w.look()
	if err != nil {
		return err
	}
	b, err := seal(w.seed, s.raw)
	if err != nil {
		return cloudpal.E(op, "", err)
	}
	dir, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		return cloudpal.E(op, cloudpal.NotExist, err).WithHint("name a file in a folder that is there")
	}
	defer dir.Close()
	if err := writeFile(dir, filepath.Base(path), b); err != nil {
		return trouble(op, err)
	}
	return nil
}

// seal returns records as a backup.
func seal(seed ticket.Seed, raw map[string][]byte) ([]byte, error) {
	salt := make([]byte, saltSize)
	rand.Read(salt)
	keys, err := newJournalKeys(seed, purposeBackup, salt)
	if err != nil {
		return nil, err
	}
	all := frames(raw)
	count := binary.BigEndian.AppendUint32(nil, uint32(len(all)))
	b := append([]byte(magic), salt...)
	b = append(b, keys.frame(0, count)...)
	for i, plain := range all {
		b = append(b, keys.frame(uint64(i+1), plain)...)
	}
	if len(b) > MaxBackup {
		return nil, errors.New("the wallet is too large for a backup")
	}
	return b, nil
}

// unseal reads a backup.
func unseal(seed ticket.Seed, b []byte) (*state, error) {
	if len(b) < headerSize || !bytes.HasPrefix(b, []byte(magic)) {
		return nil, errors.New("it is no wallet's backup")
	}
	keys, err := newJournalKeys(seed, purposeBackup, b[len(magic):headerSize])
	if err != nil {
		return nil, err
	}
	b = b[headerSize:]
	s := newState()
	count := uint64(0)
	for i := uint64(0); i <= count; i++ {
		plain, size, err := keys.open(i, b)
		if err != nil {
			return nil, errors.New("it is another person's, or damaged, or a part is missing")
		}
		b = b[size:]
		if i == 0 {
			if len(plain) != 4 {
				return nil, errors.New("it is not as it should be")
			}
			count = uint64(binary.BigEndian.Uint32(plain))
			continue
		}
		if err := s.load(plain); err != nil {
			return nil, err
		}
	}
	if len(b) > 0 {
		return nil, errors.New("there is more in it than there should be")
	}
	return s, nil
}

// FromBackup makes a wallet of a backup. Its tickets may be spent since, by the device
// that it is of, and there may be others: Restore is to be called next.
func FromBackup(c Config, path string) (*Wallet, error) {
	op := "restore from " + path
	b, err := readBackup(path)
	if err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	s, err := unseal(c.Seed, b)
	if err != nil {
		return nil, cloudpal.E(op, cloudpal.Corrupt, err).
			WithHint("take another backup, and the phrase that it was made with; without one: cloudpal wallet restore --mint FILE")
	}
	var old uint32
	if !s.fact(factDevice, &old) {
		return nil, cloudpal.E(op, cloudpal.Corrupt, errors.New("it does not say what device it is of"))
	}
	ch := &change{of: s}
	ch.putFact(factDevice, 0)
	ch.putFact(factRestored, restored{Devices: []uint32{old}, Coins: serials(s)})
	if ch.err != nil {
		return nil, cloudpal.E(op, "", ch.err)
	}
	for _, r := range ch.records {
		if err := s.apply(r); err != nil {
			return nil, cloudpal.E(op, "", err)
		}
	}
	return create(c, s)
}

func readBackup(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, cloudpal.E("", cloudpal.NotExist, err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, MaxBackup+1))
	if err == nil && len(b) > MaxBackup {
		err = cloudpal.E("", cloudpal.Invalid, fmt.Errorf("it is above %d MiB", MaxBackup>>20))
	}
	return b, err
}
