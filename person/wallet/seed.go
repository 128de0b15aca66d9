package wallet

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

// A device keeps the seed in a file of its own: what the wallets beside it follow
// from, and are encrypted with. That they are protects their copies and backups; who
// can read the device's keys can spend the tickets.
const (
	seedName   = "seed"
	seedPrefix = "cloudpal wallet seed v1 "
)

// KeepSeed keeps a person's seed in a directory, which it makes where it is missing,
// for the wallets below it. The error is cloudpal.Exist where there is another's.
func KeepSeed(dir string, seed ticket.Seed) error {
	const op = "keep the wallet's seed"
	switch there, err := ReadSeed(dir); {
	case err == nil && there == seed:
		return nil
	case err == nil:
		return cloudpal.E(op, cloudpal.Exist, errors.New("there is another person's wallet in "+dir)).
			WithHint("use another --home for this person")
	case !errors.Is(err, cloudpal.NotExist):
		return err
	}
	if err := makeDir(dir); err != nil {
		return cloudpal.E(op, "", err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return cloudpal.E(op, "", err)
	}
	defer root.Close()
	text := append([]byte(seedPrefix), hex.AppendEncode(nil, seed[:])...)
	defer clear(text)
	if err := writeFile(root, seedName, append(text, '\n')); err != nil {
		return trouble(op, err)
	}
	return nil
}

// ReadSeed returns the seed that KeepSeed has kept. The error is cloudpal.NotExist
// where there is none.
func ReadSeed(dir string) (seed ticket.Seed, err error) {
	const op = "read the wallet's seed"
	root, err := os.OpenRoot(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return seed, noWallet(dir)
	}
	if err != nil {
		return seed, cloudpal.E(op, "", err)
	}
	defer root.Close()
	f, err := root.Open(seedName)
	if errors.Is(err, fs.ErrNotExist) {
		return seed, noWallet(dir)
	}
	if err != nil {
		return seed, cloudpal.E(op, "", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 1<<10))
	if err != nil {
		return seed, cloudpal.E(op, "", err)
	}
	defer clear(text)
	digits, ok := bytes.CutPrefix(bytes.TrimSpace(text), []byte(seedPrefix))
	if !ok || len(digits) != hex.EncodedLen(len(seed)) {
		return seed, damagedSeed(op)
	}
	if _, err := hex.Decode(seed[:], digits); err != nil {
		return ticket.Seed{}, damagedSeed(op)
	}
	return seed, nil
}

func damagedSeed(op string) error {
	return cloudpal.E(op, cloudpal.Corrupt, errors.New("the file is damaged")).
		WithHint("remove it, and bring the wallet back with your recovery phrase: cloudpal wallet restore")
}
