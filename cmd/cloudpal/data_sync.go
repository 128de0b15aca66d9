package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/vbauerster/mpb/v8/decor"

	"github.com/tradle/cloudpal/data/corestore"
	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/manifest"
)

const syncHelp = `Fetch all of a KIND from who serves it, and check every block: that it is what
was signed by who made the KIND, and nothing else. What is already here is not
fetched again, so an interrupted one goes on where it was; run it again, too, to
get what is new. A KEY that was never here is new in your store; --name gives it
a name.

Without a person at a terminal nothing is shown but the result.`

func (c *cli) dataSync(k kind) *cobra.Command {
	var r remoteFlags
	var name, secretFile string
	var live bool
	cmd := c.withStore(&cobra.Command{
		Use: "sync KEY|NAME", Short: k.text("Fetch a KIND from who serves it, and check it"), Long: k.text(syncHelp),
		Example: k.text(`  cloudpal KIND sync 2zz…key…zz --from 192.168.1.5:7447 --name notes
  cloudpal KIND sync notes --from laptop:7447 --live
  cloudpal KIND sync notes --listen :7447     # for a serve --to this machine`),
		Args:              args(1, 1, k.text("the key or name of one KIND")),
		ValidArgsFunction: c.offerNames(k),
		PreRunE: func(*cobra.Command, []string) error {
			if name != "" {
				if err := checkName(name); err != nil {
					return err
				}
			}
			return r.check()
		},
		RunE: c.onStore(making, func(ctx context.Context, s *corestore.Store, args []string) error {
			t, err := c.toFetch(k, s, args[0], name, secretFile)
			if err != nil {
				return err
			}
			return t.leave(c.sync(ctx, t, r, live))
		}),
	})
	c.limitFlag(cmd)
	r.add(cmd)
	cmd.Flags().StringVar(&name, "name", "", "`NAME` to give it in your store")
	cmd.Flags().BoolVar(&live, "live", false, "go on with what is new, until Ctrl-C")
	secretFlag(cmd, &secretFile)
	return cmd
}

// toFetch finds what is to be fetched, and makes it in the store.
func (c *cli) toFetch(k kind, s *corestore.Store, ref, name, secretFile string) (*thing, error) {
	key, err := manifest.ParseKey(ref)
	if err != nil {
		known, found, err := k.lookup(s, ref)
		if err != nil {
			return nil, err
		}
		if !found {
			return nil, usage{fmt.Errorf("%.80q is neither a key nor a name in this store; give the key that \"serve\" shows", ref)}
		}
		key = known
	}
	_, known, err := k.lookup(s, key.String())
	if err != nil {
		return nil, err
	}
	t, err := open(k, s, key)
	if err != nil {
		return nil, err
	}
	t.ref, t.fresh = ref, !known
	if err := c.introduce(t, name, secretFile); err != nil {
		return nil, errors.Join(err, t.close())
	}
	return t, nil
}

// leave closes a thing. What was to be fetched and was nowhere, as where its key
// was mistyped, is not left behind.
func (t *thing) leave(err error) error {
	nothing := t.fresh && t.core.Length() == 0
	key := t.core.Key()
	if e := t.close(); err == nil {
		err = e
	}
	if nothing {
		_ = t.store.Purge(key) // it is in use no more, or stays: empty
	}
	return err
}

// introduce notes what a thing is that is new here.
func (c *cli) introduce(t *thing, name, secretFile string) error {
	if err := t.check(); err != nil {
		return err
	}
	if secretFile != "" {
		secret, err := c.readSecret(secretFile)
		if err != nil {
			return err
		}
		if err := errors.Join(t.note(secretRecord, secret[:]), t.decrypt(secret)); err != nil {
			return err
		}
	}
	if is, err := kindOf(t.core); err != nil || is == "" {
		if err := errors.Join(err, t.note(kindRecord, []byte(t.kind))); err != nil {
			return err
		}
	}
	if name == "" {
		return nil
	}
	return errors.Join(t.note(nameRecord, []byte(name)), t.kind.names(t.store).SetAlias(name, t.core.Key()))
}

// synced is what --json shows.
type synced struct {
	Name     string `json:"name"`
	Key      string `json:"key"`
	Blocks   uint64 `json:"blocks"`
	Bytes    uint64 `json:"bytes"`
	Fetched  uint64 `json:"fetched"`  // blocks that were not here before
	Received int64  `json:"received"` // bytes over the network
	Verified bool   `json:"verified"`
}

func (c *cli) sync(ctx context.Context, t *thing, r remoteFlags, live bool) error {
	l := c.newLine(t)
	err := l.with(ctx, r, func(ctx context.Context) error {
		if err := t.meet(ctx, l, r); err != nil {
			return err
		}
		fetch := func() error {
			out, err := c.fetch(ctx, t, l)
			if err != nil {
				return err
			}
			return c.printSynced(t, out)
		}
		if !live {
			return fetch()
		}
		return t.live(ctx, fetch)
	})
	if err != nil && ctx.Err() != nil {
		c.say("what was fetched stays: run it again to go on")
	}
	return err
}

// fetch gets all blocks that the other side has, to disk.
func (c *cli) fetch(ctx context.Context, t *thing, l *line) (out synced, err error) {
	cores, done, err := t.cores(ctx)
	if err != nil {
		return out, err
	}
	defer done()
	before := count(cores).here
	look := func() (int64, int64) {
		n := count(cores)
		return int64(n.here), int64(n.blocks)
	}
	stop := c.progress(ctx, "fetching", 0, countOf("blocks")).follow(look)
	for _, core := range cores {
		if err = fetchCore(ctx, core); err != nil {
			break
		}
	}
	stop()
	if err == nil {
		err = t.store.Sync()
	}
	n := count(cores)
	return synced{
		Name: t.name(), Key: t.core.Key().String(), Blocks: n.blocks, Bytes: n.bytes,
		Fetched: n.here - before, Received: l.in.Load(), Verified: err == nil,
	}, err
}

func fetchCore(ctx context.Context, core *hypercore.Core) error {
	if _, err := core.Update(ctx); err != nil {
		return err
	}
	return core.Download(ctx, hypercore.Range{})
}

// counts are the blocks and bytes of some cores.
type counts struct{ blocks, here, bytes uint64 }

func count(cores []*hypercore.Core) (n counts) {
	for _, core := range cores {
		i := core.Info()
		n.blocks += i.Length
		n.here += i.Blocks
		n.bytes += i.ByteLength
	}
	return n
}

// countOf says how many of what are done.
func countOf(what string) func(decor.Statistics) string {
	return func(s decor.Statistics) string { return fmt.Sprintf("%d of %d %s", s.Current, s.Total, what) }
}

func (c *cli) printSynced(t *thing, s synced) error {
	return c.print(s, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %d blocks, %s, %d of them new; all verified\n", plain(t.ref), s.Blocks, formatSize(int64(s.Bytes)), s.Fetched)
	})
}

// live does something now, and again whenever the thing has become another,
// until ctx ends.
func (t *thing) live(ctx context.Context, do func() error) error {
	changes := t.core.Changes(ctx) // those that happen while it is done, too
	was := t.version()
	if err := do(); err != nil {
		return err
	}
	for range changes {
		is := t.version()
		if is == was {
			continue
		}
		was = is
		if err := do(); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// version tells one content of a thing from any other.
func (t *thing) version() [2]uint64 {
	s := t.core.State()
	return [2]uint64{s.Fork, s.Length}
}
