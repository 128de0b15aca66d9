package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hyperbee"
)

const beeHelp = `Make sorted maps of keys to values, change them, and share them.

A bee is a B-tree in a log, in the format of Hyperbee: every version of it can
still be read and compared, and who fetches it can check that all of it is what
its maker wrote. Keys and values are text, or any bytes with --hex.` + dataHelp

func (c *cli) bee() *cobra.Command {
	cmd := group("bee", "Make sorted maps, change them, share them", beeHelp, `  cloudpal bee create people
  cloudpal bee put people ann 12
  cloudpal bee get people ann
  cloudpal bee ls people
  cloudpal bee serve people`)
	cmd.AddCommand(
		c.dataCreate(beeKind), c.beePut(), c.beeGet(), c.beeDel(), c.beeLs(), c.beeHistory(), c.beeDiff(),
		c.dataInfo(beeKind), c.dataServe(beeKind), c.dataSync(beeKind), c.dataVerify(beeKind),
	)
	return cmd
}

// beeOptions are what most of a bee's commands are told.
type beeOptions struct {
	hex     bool
	version uint64
}

func (o *beeOptions) add(cmd *cobra.Command, versions bool) {
	cmd.Flags().BoolVar(&o.hex, "hex", false, "keys and values are hexadecimal digits")
	if versions {
		cmd.Flags().Uint64Var(&o.version, "version", 0, "read it as it was at this `VERSION`")
	}
}

// bytes reads a key or value of the command line.
func (o *beeOptions) bytes(text string) ([]byte, error) {
	if !o.hex {
		return []byte(text), nil
	}
	b, err := hex.DecodeString(text)
	if err != nil {
		return nil, usage{fmt.Errorf("%.40q are not hexadecimal digits, two for a byte", text)}
	}
	return b, nil
}

// text writes a key or value for a person.
func (o *beeOptions) text(b []byte) string {
	if o.hex {
		return hex.EncodeToString(b)
	}
	return legible(b)
}

// onBee is on for a bee that is read or, where it is to be changed, ours.
func (c *cli) onBee(o *beeOptions, change bool, f func(ctx context.Context, t *thing, b *hyperbee.Bee, args []string) error) func(*cobra.Command, []string) error {
	return c.on(beeKind, func(ctx context.Context, t *thing, args []string) error {
		if change {
			if err := t.writable(); err != nil {
				return err
			}
		} else if err := t.whole(); err != nil {
			return err
		}
		b := hyperbee.New(t.core, hyperbee.Options{ReadOnly: !t.core.Writable()})
		defer b.Close()
		if o.version == 0 {
			return f(ctx, t, b, args)
		}
		old, err := t.checkout(b, o.version)
		if err != nil {
			return err
		}
		defer old.Close()
		return f(ctx, t, old, args)
	})
}

// checkout returns an old version.
func (t *thing) checkout(b *hyperbee.Bee, version uint64) (*hyperbee.Bee, error) {
	if version == 0 || version > max(t.core.Length(), 1) {
		return nil, cloudpal.E(fmt.Sprintf("read version %d of %s", version, t.ref), cloudpal.NotExist, fmt.Errorf("the newest is %d", t.core.Length())).
			WithHint(t.kind.text("cloudpal KIND history NAME lists the versions"))
	}
	return b.Checkout(version), nil
}

// parseVersion reads a version of the command line.
func parseVersion(text string) (uint64, error) {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n == 0 {
		return 0, usage{fmt.Errorf("%.40q is no version: it is a number from 1", text)}
	}
	return n, nil
}

// pair is what --json shows of an entry, a line each. Of Key and KeyHex, and of
// Value and ValueHex, one is there; of a value that is none, neither.
type pair struct {
	Seq      uint64  `json:"seq"` // the block that set it
	Key      *string `json:"key,omitempty"`
	KeyHex   *string `json:"keyHex,omitempty"`
	Value    *string `json:"value,omitempty"`
	ValueHex *string `json:"valueHex,omitempty"`
	Deleted  bool    `json:"deleted,omitempty"`
}

func pairOf(e hyperbee.Entry) (p pair) {
	p.Seq = e.Seq
	p.Key, p.KeyHex = textOrHex(e.Key)
	if e.Value != nil {
		p.Value, p.ValueHex = textOrHex(e.Value)
	}
	return p
}

func errNoKey(t *thing, key string) error {
	return cloudpal.E(fmt.Sprintf("find %q in %s", key, t.ref), cloudpal.NotExist, errors.New("it has no such key")).
		WithHint("cloudpal bee ls NAME shows the keys that it has")
}
