package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/corestore"
)

const createHelp = `Make a new, empty KIND in your store and print its key. The store is made, too,
where there is none.

With --encrypted, what it holds can be read only by who also has its encryption
key, which is kept in your store: others can store and pass it on without
reading it. "cloudpal KIND info --write-encryption-key FILE" writes that key to
a file, for those who may read.`

func (c *cli) dataCreate(k kind) *cobra.Command {
	var encrypted bool
	cmd := c.withStore(&cobra.Command{
		Use: "create NAME", Short: k.text("Make a new, empty KIND"), Long: k.text(createHelp),
		Example:           k.text("  cloudpal KIND create notes\n  cloudpal KIND create diary --encrypted"),
		Args:              args(1, 1, "one NAME"),
		ValidArgsFunction: words(),
		PreRunE:           func(_ *cobra.Command, args []string) error { return checkName(args[0]) },
		RunE: c.onStore(making, func(_ context.Context, s *corestore.Store, args []string) error {
			t, err := create(k, s, args[0], encrypted)
			if err != nil {
				return err
			}
			defer t.close()
			return c.printMade(t)
		}),
	})
	cmd.Flags().BoolVar(&encrypted, "encrypted", false, "encrypt it with a key of its own")
	return cmd
}

// create makes a thing. A drive's name is that of a namespace.
func create(k kind, s *corestore.Store, name string, encrypted bool) (*thing, error) {
	if _, found, err := k.names(s).Lookup(name); err != nil || found {
		if err == nil {
			err = cloudpal.E(k.text("make the KIND ")+name, cloudpal.Exist, nil).WithHint(k.text("take another name, or use it: cloudpal KIND --help"))
		}
		return nil, err
	}
	view, inner := k.names(s), name
	if k == driveKind {
		view, inner = view.Namespace(name), "db"
	}
	c, err := view.Get(inner)
	if err != nil {
		return nil, err
	}
	t := &thing{kind: k, ref: name, store: s, core: c}
	if err := t.begin(name, encrypted); err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

// begin notes what a new thing is, its name last: with that it is there.
func (t *thing) begin(name string, encrypted bool) error {
	errs := []error{t.note(kindRecord, []byte(t.kind)), t.note(nameRecord, []byte(name))}
	if encrypted {
		var secret [32]byte
		rand.Read(secret[:])
		errs = append(errs, t.note(secretRecord, secret[:]), t.decrypt(secret))
	}
	errs = append(errs, t.kind.names(t.store).SetAlias(name, t.core.Key()), t.store.Sync())
	return errors.Join(errs...)
}

// made is what --json shows of a thing that was made or changed.
type made struct {
	Name   string `json:"name"`
	Key    string `json:"key"`
	Blocks uint64 `json:"blocks"`
}

func (t *thing) made() made { return made{t.name(), t.core.Key().String(), t.core.Length()} }

func (c *cli) printMade(t *thing) error {
	return c.print(t.made(), func(w io.Writer) { fmt.Fprintln(w, t.core.Key()) })
}
