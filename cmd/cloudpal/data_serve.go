package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/corestore"
	"github.com/tradle/cloudpal/data/hyperbee"
	"github.com/tradle/cloudpal/data/manifest"
)

const serveHelp = `Let others read a KIND: listen on a TCP port, or connect to somebody who
listens, and send what they ask for. All is encrypted on the way, and what they
get they can check to be yours. This shows the line to run on the other machine;
Ctrl-C ends it.

The key in that line is what lets them read: give it only to those who may, by a
way that nobody else reads along. Only this KIND is served, nothing else of
your store; other commands need another store meanwhile.

One that was made by another store can be served as well, as far as it is here.`

const serveFolderHelp = `

Of a FOLDER, this makes a drive, or brings the drive that was made of it up to
date, and goes on doing so while it serves: what you change in the folder is a
new version some seconds later, and those who run "mirror --live" have it.
Symbolic links are kept as links; what is neither file, link nor folder is left
out, and that is said.`

func (c *cli) dataServe(k kind) *cobra.Command {
	var listen, to string
	use, long, example := "serve NAME|KEY", serveHelp, `  cloudpal KIND serve notes
  cloudpal KIND serve notes --listen 192.168.1.5:9000
  cloudpal KIND serve notes --to pal.example:7447`
	if k == driveKind {
		use, long = "serve FOLDER|NAME|KEY", serveHelp+serveFolderHelp
		example = "  cloudpal drive serve ~/Pictures\n" + example
	}
	cmd := c.withStore(&cobra.Command{
		Use: use, Short: k.text("Let others read a KIND"), Long: k.text(long), Example: k.text(example),
		Args:              args(1, 1, k.text("the name or key of one KIND")),
		ValidArgsFunction: c.offerNames(k),
		PreRunE: func(*cobra.Command, []string) error {
			if to != "" {
				return checkHostPort("--to", to)
			}
			_, err := listenAddr(listen)
			return err
		},
		RunE: c.onStore(making, func(ctx context.Context, s *corestore.Store, args []string) error {
			t, f, err := c.toServe(k, s, args[0])
			if err != nil {
				return err
			}
			defer t.close()
			if f != nil {
				if err := f.begin(ctx); err != nil {
					return err
				}
				defer f.end()
			}
			return c.serveThing(ctx, t, listen, to)
		}),
	})
	if k == driveKind {
		cmd.ValidArgsFunction = nil // files: it is mostly a folder
	}
	c.limitFlag(cmd)
	cmd.Flags().StringVar(&listen, "listen", fmt.Sprint(":", dataPort), "TCP `[IP]:PORT` to listen on; port 0 takes any")
	cmd.Flags().StringVar(&to, "to", "", "`HOST:PORT` to connect to instead, where the other side waits with --listen")
	return cmd
}

// toServe finds what is to be served. A folder becomes a drive that follows it.
func (c *cli) toServe(k kind, s *corestore.Store, ref string) (*thing, *follower, error) {
	if k == driveKind && isFolder(ref) {
		if _, found, err := k.names(s).Lookup(ref); err != nil || !found {
			t, err := c.driveOf(s, ref)
			if err != nil {
				return nil, nil, err
			}
			return t, &follower{c: c, t: t, path: ref}, nil
		}
	}
	t, err := c.find(k, s, ref)
	return t, nil, err
}

// served is what --json shows of what is served.
type served struct {
	Name    string   `json:"name"`
	Key     string   `json:"key"`
	Listen  []string `json:"listen,omitempty"` // addresses
	To      string   `json:"to,omitempty"`
	Command string   `json:"command,omitempty"` // to be run on the other machine
}

func (c *cli) serveThing(ctx context.Context, t *thing, listen, to string) error {
	keys, err := t.keys(ctx)
	if err != nil {
		return err
	}
	defer t.hint()()
	l := &line{c: c, store: t.store, allow: func(k manifest.Key) bool { return slices.Contains(keys, k) }}
	shown := served{Name: t.name(), Key: t.core.Key().String(), To: to}
	if to != "" {
		if err := c.printServed(t, shown); err != nil {
			return err
		}
		return ended(ctx, l.keep(ctx, to, forEver))
	}
	on, err := c.listen(ctx, listen)
	if err != nil {
		return err
	}
	shown.Listen = reachable(on.Addr())
	shown.Command = t.command(shown.Listen[0])
	if err := c.printServed(t, shown); err != nil {
		on.Close()
		return err
	}
	return l.serve(ctx, on)
}

// hint has those who read a bee or a drive from afar be told which blocks they
// will need.
func (t *thing) hint() (stop func()) {
	r, ok := t.store.Replicator(t.core)
	if !ok || t.kind == coreKind {
		return func() {}
	}
	return hyperbee.New(t.core, hyperbee.Options{ReadOnly: true}).ShareHints(r)
}

const forEver = 1<<63 - 1

// ended makes the end by Ctrl-C no error: it is how serving ends.
func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}

func (c *cli) printServed(t *thing, s served) error {
	return c.print(s, func(w io.Writer) {
		if s.To != "" {
			fmt.Fprintf(w, "%s\n", s.Key)
			return
		}
		fmt.Fprintf(w, "serving %s, %d bytes of blocks. On the other machine:\n\n  %s\n\n", plain(t.ref), t.core.ByteLength(), s.Command)
		for _, other := range s.Listen[1:] {
			fmt.Fprintf(w, "or --from %s\n", other)
		}
		if t.secret != nil {
			fmt.Fprintf(w, "with --encryption-key FILE as well, which cloudpal %s info NAME --write-encryption-key FILE makes here\n", t.kind)
		}
		fmt.Fprintln(w, "Whoever has that line can read all of it. Ctrl-C ends this.")
	})
}

// command is what fetches the thing on another machine.
func (t *thing) command(address string) string {
	if t.kind == driveKind {
		return fmt.Sprintf("cloudpal drive mirror %s FOLDER --from %s", t.core.Key(), address)
	}
	return fmt.Sprintf("cloudpal %s sync %s --from %s", t.kind, t.core.Key(), address)
}

// reachable returns the addresses at which a listener is reached, those first
// that another machine is most likely to reach.
func reachable(a net.Addr) []string {
	at, err := netip.ParseAddrPort(a.String())
	if err != nil || !at.Addr().IsUnspecified() {
		return []string{a.String()}
	}
	var found []netip.Addr
	all, _ := net.InterfaceAddrs()
	for _, one := range all {
		p, err := netip.ParsePrefix(one.String())
		if err == nil && (p.Addr().IsGlobalUnicast() || p.Addr().IsLoopback() && p.Addr().Is4()) {
			found = append(found, p.Addr())
		}
	}
	slices.SortStableFunc(found, func(a, b netip.Addr) int { return distance(a) - distance(b) })
	var out []string
	for _, addr := range found {
		out = append(out, netip.AddrPortFrom(addr, at.Port()).String())
	}
	if len(out) == 0 {
		return []string{netip.AddrPortFrom(netip.IPv6Loopback(), at.Port()).String()}
	}
	return out
}

func distance(a netip.Addr) int {
	switch {
	case a.IsLoopback():
		return 3
	case a.Is6():
		return 2
	case a.IsPrivate():
		return 0
	}
	return 1
}

// keys returns the keys of all cores that a thing is made of.
func (t *thing) keys(ctx context.Context) ([]manifest.Key, error) {
	keys := []manifest.Key{t.core.Key()}
	if t.kind != driveKind {
		return keys, nil
	}
	content, err := t.contentKey(ctx)
	if err != nil {
		return nil, cloudpal.E("find the content of "+t.ref, "", err)
	}
	return append(keys, content...), nil
}

// name returns what the thing is called in this store, or "".
func (t *thing) name() string {
	record, err := t.core.UserData(nameRecord)
	if err != nil {
		return ""
	}
	return string(record)
}
