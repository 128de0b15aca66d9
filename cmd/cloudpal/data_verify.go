package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hypercore"
)

const verifyHelp = `Read all that is here of a KIND and check it: every block against the Merkle
tree, the tree against the signature of who made it. It asks nobody, and fails
where anything is not as it was signed: then the disk has changed it.`

// verified is what --json shows.
type verified struct {
	Name   string   `json:"name"`
	Key    string   `json:"key"`
	Good   bool     `json:"good"`
	Blocks uint64   `json:"blocks"` // of all
	Here   uint64   `json:"here"`   // checked
	Bytes  uint64   `json:"bytes"`  // of those
	Faults []string `json:"faults,omitempty"`
}

func (c *cli) dataVerify(k kind) *cobra.Command {
	return c.withStore(&cobra.Command{
		Use: "verify NAME|KEY", Short: k.text("Check all that is here of a KIND"), Long: k.text(verifyHelp),
		Example:           k.text("  cloudpal KIND verify notes\n  cloudpal KIND verify notes --json | jq .good"),
		Args:              args(1, 1, k.text("the name or key of one KIND")),
		ValidArgsFunction: c.offerNames(k),
		RunE: c.on(k, func(ctx context.Context, t *thing, _ []string) error {
			cores, done, err := t.cores(ctx)
			if err != nil {
				return err
			}
			defer done()
			return c.audit(ctx, t, cores)
		}),
	})
}

func (c *cli) audit(ctx context.Context, t *thing, cores []*hypercore.Core) error {
	v := verified{Name: t.name(), Key: t.core.Key().String()}
	var here uint64
	for _, core := range cores {
		here += core.Info().Blocks
	}
	b := c.progress(ctx, "checking", int64(here), countOf("blocks"))
	for _, core := range cores {
		a, err := core.Audit(ctx, func(a hypercore.Audit) { b.set(int64(v.Here+a.Blocks), int64(here)) })
		if err != nil {
			b.end()
			return err
		}
		v.Blocks += a.Length
		v.Here += a.Blocks
		v.Bytes += a.Bytes
		v.Faults = append(v.Faults, a.Faults...)
		b.set(int64(v.Here), int64(here))
	}
	b.end()
	v.Good = len(v.Faults) == 0
	if err := c.print(v, func(w io.Writer) { printVerified(w, t, v) }); err != nil || v.Good {
		return err
	}
	return cloudpal.E("verify "+t.ref, cloudpal.Corrupt, fmt.Errorf("%d things are not as they were signed", len(v.Faults))).
		WithHint("the disk has changed them: check it, and fetch the " + string(t.kind) + " into a new store")
}

func printVerified(w io.Writer, t *thing, v verified) {
	for _, fault := range v.Faults {
		fmt.Fprintln(w, plain(fault))
	}
	if !v.Good {
		return
	}
	here := "all of them"
	if v.Here < v.Blocks {
		here = fmt.Sprint(v.Here)
	}
	fmt.Fprintf(w, "%s: %d blocks, %s here and verified (%s)\n", plain(t.ref), v.Blocks, here, formatSize(int64(v.Bytes)))
}
