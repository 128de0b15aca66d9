//go:build amd64

package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/tradle/cloudpal"
	mintapi "github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/person"
	"github.com/tradle/cloudpal/ticket/manifest"
)

// What "up" keeps beside the state of a center that it starts: a mint of the machine's
// own, and what the center takes for pals, which is its owner's to change.
const (
	ownMint    = "own-mint"
	ownMintLog = "own-mint.log"
	ownTariff  = "tariff.json"
)

// ownTerms are those of a center on a machine of one's own. Nothing is deleted there for
// want of money within ten years.
const ownTerms = `{"tariff": {"core": 64, "app": 64, "storage": 8, "traffic": 1}, "slice": 64,
 "classes": ["free", "paid"], "valid": "8760h", "seal": "720h", "delete": "87600h"}
`

// sellsItself reports whether the flags of a center say themselves what tickets it
// takes, or with an empty --tickets that it takes none.
func sellsItself(l person.Local) bool {
	return slices.ContainsFunc(l.Args, func(a string) bool { return a == "--tickets" || strings.HasPrefix(a, "--tickets=") })
}

func ownMintOf(l person.Local) mintFolder { return mintFolder(filepath.Join(l.State, ownMint)) }

// ensureMint makes the mint of this machine where there is none, and has it run. It does
// not wait until it answers: the first start makes keys, as the center's does other
// things.
func (c *cli) ensureMint(ctx context.Context, l person.Local) error {
	f := ownMintOf(l)
	if err := os.MkdirAll(l.State, 0o711); err != nil {
		return cloudpal.E("make a mint", "", err)
	}
	if _, err := os.Stat(string(f)); errors.Is(err, fs.ErrNotExist) {
		name := make([]byte, 4)
		rand.Read(name)
		o := mintOptions{issuer: "mint-" + hex.EncodeToString(name) + ".local", listen: ownMintListen(), own: true, later: true}
		if _, err := c.makeMint(ctx, f, o); err != nil {
			return err
		}
	}
	tariff := filepath.Join(l.State, ownTariff)
	if _, err := os.Stat(tariff); errors.Is(err, fs.ErrNotExist) {
		if err := writeDurably(tariff, []byte(ownTerms), 0o644); err != nil {
			return err
		}
	}
	if runningAs("--folder", string(f), "mint", "serve") != 0 {
		return nil
	}
	log, err := os.OpenFile(filepath.Join(l.State, ownMintLog), os.O_CREATE|os.O_RDWR|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return cloudpal.E("start a mint", "", err)
	}
	defer log.Close()
	cmd, err := background(log, "mint", "serve", "--folder", string(f))
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return cloudpal.E("start a mint", "", err)
	}
	go cmd.Wait() // so that it is seen when it ends
	return nil
}

// ownMintListen is where a new mint of one's own answers.
func ownMintListen() string {
	l, err := net.Listen("tcp", defaultMintListen)
	if err != nil {
		return "127.0.0.1:0" // another mint has the usual port
	}
	l.Close()
	return defaultMintListen
}

// upMint waits until the mint of this machine answers, where that has one. Who is not
// root has not started it.
func (c *cli) upMint(ctx context.Context, s person.State, st *steps) error {
	if s.Center.Local == nil || s.Center.Local.Grant == nil || os.Geteuid() != 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	trust, err := manifest.ParseTrust(s.Center.Local.Grant.Trust)
	if err != nil || mintAnswers(ctx, trust) == nil {
		return err
	}
	return st.do("starting a mint", func() error { return awaitMint(ctx, *s.Center.Local, trust) })
}

func awaitMint(ctx context.Context, l person.Local, trust *manifest.Trust) error {
	const op = "start a mint"
	f := ownMintOf(l)
	path := filepath.Join(l.State, ownMintLog)
	for {
		err := mintAnswers(ctx, trust)
		if err == nil {
			return nil
		}
		if runningAs("--folder", string(f), "mint", "serve") == 0 {
			err = errors.New("it has ended")
		} else if pause(ctx, pollEvery) == nil {
			continue
		}
		if log, openErr := os.Open(path); openErr == nil {
			err = fmt.Errorf("%w%s", err, tail(log))
			log.Close()
		}
		return cloudpal.E(op, cloudpal.Other, err).
			WithHint("read all of " + path + ", or run it here to watch it: cloudpal mint serve --folder " + string(f))
	}
}

func mintAnswers(ctx context.Context, t *manifest.Trust) error {
	client, err := mintapi.Dial(t.URL, nil)
	if err != nil {
		return err
	}
	defer client.Close()
	_, err = client.Mint(ctx)
	return err
}

// readGrant returns what the person needs to have tickets of this machine's mint.
func readGrant(l person.Local) (*person.Grant, error) {
	f := ownMintOf(l)
	trust, err := f.read("mint.json")
	if err != nil {
		return nil, err
	}
	account, err := f.read("account")
	if err != nil {
		return nil, err
	}
	return &person.Grant{Trust: trust, Account: strings.TrimSpace(string(account))}, nil
}

// stopMint ends the mint of this machine, if it runs. Its signer ends with it.
func (c *cli) stopMint(ctx context.Context, l person.Local) error {
	const op = "stop the mint"
	ctx, cancel := context.WithTimeout(ctx, agentTimeout)
	defer cancel()
	pid := runningAs("--folder", string(ownMintOf(l)), "mint", "serve")
	if pid == 0 {
		return nil
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil && !errors.Is(err, syscall.ESRCH) {
		return cloudpal.E(op, "", err)
	}
	for runningAs("--folder", string(ownMintOf(l)), "mint", "serve") == pid {
		if err := pause(ctx, pollEvery); err != nil {
			return cloudpal.E(op, cloudpal.Timeout, err)
		}
	}
	return nil
}
