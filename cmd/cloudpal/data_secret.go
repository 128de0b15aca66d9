package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/tradle/cloudpal"
)

// secretFlag adds the flag that names where an encryption key is read. A key
// itself on a command line would be in the shell's history, and in sight of
// every process.
func secretFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVar(path, "encryption-key", "", "`FILE` with the key that it is encrypted with; - asks for it, /dev/fd/3 reads an open file")
}

// readSecret reads an encryption key: 64 hexadecimal digits.
func (c *cli) readSecret(path string) (secret [32]byte, err error) {
	text, err := c.readSecretText(path)
	if err != nil {
		return secret, cloudpal.E("read the encryption key", cloudpal.NotExist, err).
			WithHint("give a file with its 64 digits, as written by: cloudpal core info NAME --write-encryption-key FILE")
	}
	text = bytes.TrimSpace(text)
	if n, err := hex.Decode(secret[:], text[:min(len(text), 64)]); err != nil || n != 32 || len(text) != 64 {
		return secret, cloudpal.E("read the encryption key", cloudpal.Invalid, errors.New("it is not 64 hexadecimal digits"))
	}
	return secret, nil
}

func (c *cli) readSecretText(path string) ([]byte, error) {
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return io.ReadAll(io.LimitReader(f, 1<<10))
	}
	if t, ok := terminal(c.in); ok {
		fmt.Fprint(c.err, "encryption key: ")
		defer fmt.Fprintln(c.err)
		return term.ReadPassword(int(t.Fd()))
	}
	line, err := bufio.NewReader(io.LimitReader(c.in, 1<<10)).ReadBytes('\n')
	if err == io.EOF {
		err = nil
	}
	return line, err
}

// writeSecret writes an encryption key to a new file that only its owner may
// read.
func writeSecret(path string, secret [32]byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return cloudpal.E("write the encryption key", "", err).WithHint("name a file that is not there yet, in a folder that you can write")
	}
	_, err = fmt.Fprintln(f, hex.EncodeToString(secret[:]))
	return errors.Join(err, f.Sync(), f.Close())
}

// writeSecret writes the thing's encryption key to a new file.
func (t *thing) writeSecret(path string) error {
	if t.secret == nil {
		return cloudpal.E("write the encryption key of "+t.ref, cloudpal.NotExist, errors.New("it is not encrypted, or its key was never given here")).
			WithHint(t.kind.text("cloudpal KIND create NAME --encrypted makes one that is"))
	}
	return writeSecret(path, *t.secret)
}
