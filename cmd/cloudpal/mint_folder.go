package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/mint/keylog"
	"github.com/tradle/cloudpal/mint/payment/btcpay"
	"github.com/tradle/cloudpal/mint/payment/card"
	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/manifest"
)

// A mintFolder is all that a mint has, but for its root key where that is away.
//
//	mint.json     whom to trust about the mint: give it away
//	config.json   what it sells, and where it answers
//	root.key      signs each month's keys
//	log.key       signs the log of keys
//	tls.pem       its address names this key
//	receipts/     a key for each month
//	keys/         the tickets' keys: the signer's alone
//	log/          the log of keys
//	books.db      quotes and accounts
//	ledger/       spent tickets
//	account       the secret of an account for free tickets
type mintFolder string

func (f mintFolder) path(name string) string { return filepath.Join(string(f), name) }

const (
	maxMintFile = 1 << 20
	pemKey      = "PRIVATE KEY" // PKCS #8 (RFC 5208)
)

// A mintConfig is what a mint is told. Its file is the operator's to change.
type mintConfig struct {
	Listen    string     `json:"listen"`
	Database  string     `json:"database,omitempty"`  // postgres://...; else files in the folder
	Signer    string     `json:"signer,omitempty"`    // socket of a signer that runs by itself
	Witnesses []string   `json:"witnesses,omitempty"` // URLs of those that mint.json names, in its order
	Packs     []api.Pack `json:"packs"`

	// How it is paid, besides free tickets.
	Vouchers bool           `json:"vouchers"`
	BTCPay   *btcpay.Config `json:"btcpay,omitempty"`
	Card     *card.Config   `json:"card,omitempty"`
}

func (f mintFolder) config() (c mintConfig, err error) {
	data, err := f.read("config.json")
	if err != nil {
		return c, err
	}
	if err := decodeStrictly(data, &c); err != nil {
		return c, cloudpal.E("read "+f.path("config.json"), cloudpal.Invalid, err)
	}
	return c, nil
}

// read reads one of the folder's files.
func (f mintFolder) read(name string) ([]byte, error) {
	op := "read " + f.path(name)
	info, err := os.Stat(f.path(name))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, cloudpal.E(op, cloudpal.NotExist, err).WithHint("is that a mint's folder? make one: cloudpal mint init")
	case err != nil:
		return nil, cloudpal.E(op, "", err)
	case !info.Mode().IsRegular() || info.Size() > maxMintFile:
		return nil, cloudpal.E(op, cloudpal.Corrupt, errors.New("it is no file of a mint"))
	}
	data, err := os.ReadFile(f.path(name))
	if err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	return data, nil
}

// write writes one of the folder's files: all of it or nothing, for good.
func (f mintFolder) write(name string, data []byte, mode fs.FileMode) error {
	return writeDurably(f.path(name), data, mode)
}

func writeDurably(path string, data []byte, mode fs.FileMode) error {
	tmp := path + ".new"
	file, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return cloudpal.E("write "+path, "", err)
	}
	_, err = file.Write(data)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return cloudpal.E("write "+path, "", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return cloudpal.E("write "+path, "", err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return cloudpal.E("write "+path, "", err)
	}
	return errors.Join(dir.Sync(), dir.Close())
}

func (f mintFolder) writeJSON(name string, v any, mode fs.FileMode) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return f.write(name, append(data, '\n'), mode)
}

// key returns an Ed25519 key of the folder, and makes one where there is none.
func (f mintFolder) key(name string) (ed25519.PrivateKey, error) {
	data, err := f.read(name)
	if errors.Is(err, cloudpal.NotExist) {
		return f.makeKey(name)
	}
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block != nil && block.Type == pemKey {
		parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if key, ok := parsed.(ed25519.PrivateKey); err == nil && ok {
			return key, nil
		}
	}
	return nil, cloudpal.E("read "+f.path(name), cloudpal.Corrupt, errors.New("it has no Ed25519 key")).WithHint("put it back from a backup")
}

func (f mintFolder) makeKey(name string) (ed25519.PrivateKey, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, f.write(name, pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: der}), 0o600)
}

func receiptFile(e ticket.Epoch) string { return filepath.Join("receipts", fmt.Sprintf("%04d.pem", e)) }

// receipt returns the key that signs receipts in an epoch.
func (f mintFolder) receipt(e ticket.Epoch) (ed25519.PrivateKey, error) {
	if _, err := os.Stat(f.path(receiptFile(e))); err != nil {
		return nil, cloudpal.E("read the mint's receipt key", cloudpal.Missing, err).WithHint("make this month's keys: cloudpal mint keys add")
	}
	return f.key(receiptFile(e))
}

func (f mintFolder) trust() (*manifest.Trust, error) { return manifest.Load(f.path("mint.json")) }

// openLog opens the log of keys.
func (f mintFolder) openLog(c mintConfig, now func() time.Time) (*keylog.Log, *manifest.Trust, error) {
	trust, err := f.trust()
	if err != nil {
		return nil, nil, err
	}
	key, err := f.read("log.key")
	if err != nil {
		return nil, nil, err
	}
	l, err := keylog.Open(keylog.Config{Folder: f.path("log"), Key: string(key), Trust: trust, Witnesses: c.Witnesses, Now: now})
	return l, trust, err
}

// A shownLog is what the mint itself believes of its log: no more than anybody.
type shownLog struct {
	*keylog.Log
	trust *manifest.Trust
	now   func() time.Time
}

func (l shownLog) Epoch(_ context.Context, e ticket.Epoch) (*manifest.Manifest, []byte, error) {
	raw, err := l.Bundle(e)
	if err != nil {
		return nil, nil, err
	}
	b, err := manifest.ParseBundle(raw)
	if err != nil {
		return nil, nil, err
	}
	m, err := l.trust.Verify(b, e, "", l.now())
	return m, raw, err
}
