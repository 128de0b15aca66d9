package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/person"
)

const destroyHelp = `Destroy your pal and all that is in it, and remove your keys from this machine. What
this removes comes back from nowhere: the recovery phrase recovers keys, not data
that is gone. Your wallet stays, with what is not used of the pal's tickets, and so
keep the phrase: that of your next pal does not restore it. It asks first.

With --forget the pal is left where it is, and only this machine's keys are removed:
for a center that is gone. Where no other device of yours has keys, this ends in the
same.`

func (c *cli) destroy() *cobra.Command {
	var yes, forget bool
	cmd := c.withHome(c.withJSON(&cobra.Command{
		Use: "destroy", Short: "Destroy your pal and all that is in it", Long: destroyHelp,
		Example: "  cloudpal destroy\n  cloudpal destroy --forget --yes",
		Args:    args(0, 0, ""),
		RunE: c.withHomeOf(func(ctx context.Context, h *person.Home, _ []string) error {
			s, err := h.Read()
			if err != nil && !(forget && errors.Is(err, cloudpal.Corrupt)) {
				return err
			}
			if err := c.mayDestroy(yes, forget); err != nil {
				return err
			}
			if !forget {
				if err := destroyPals(ctx, s); err != nil {
					return err
				}
			}
			if err := c.endAll(ctx, h, s, forget); err != nil {
				return err
			}
			return c.print(struct{}{}, func(w io.Writer) { fmt.Fprintln(w, "gone") })
		}),
	}))
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&forget, "forget", false, "leave the pal, remove only this machine's keys")
	return cmd
}

const destroyWord = "destroy"

func (c *cli) mayDestroy(yes, forget bool) error {
	if yes {
		return nil
	}
	if _, ok := terminal(c.in); !ok {
		return cloudpal.E("", cloudpal.Denied, errors.New("this asks first, and there is nobody to ask")).
			WithHint("if you mean it: cloudpal destroy --yes")
	}
	what := "This destroys your pal and all that is in it."
	if forget {
		what = "This removes your keys from this machine."
	}
	fmt.Fprintf(c.err, "%s Type %q to go on: ", what, destroyWord)
	line, err := readLine(c.in)
	if err != nil {
		return err
	}
	if line != destroyWord {
		return cloudpal.E("", cloudpal.Denied, errors.New("nothing was destroyed"))
	}
	return nil
}

// maxLine bounds what is read of a person's answer, in bytes.
const maxLine = 1000

func readLine(r io.Reader) (string, error) {
	line, err := bufio.NewReader(io.LimitReader(r, maxLine)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", cloudpal.E("read the answer", "", err)
	}
	return strings.TrimSpace(line), nil
}

// destroyPals removes all that the person has at their center. A pal that is gone
// is gone; one that is being made is waited for.
func destroyPals(ctx context.Context, s person.State) error {
	const op = "destroy your pal"
	client, err := s.Ask(nil)
	if err != nil {
		return err
	}
	defer client.Close()
	pals, err := client.Pals(ctx)
	if errors.Is(err, cloudpal.Missing) && s.Center.Local != nil {
		return cloudpal.E(op, "", err).
			WithHint("the center of this machine is down, and with it lies your pal: cloudpal up, then destroy it")
	}
	if err != nil {
		return cloudpal.E(op, "", err)
	}
	ctx, cancel := context.WithTimeout(ctx, busyTimeout)
	defer cancel()
	for _, p := range pals {
		err := client.Destroy(ctx, p.ID)
		for errors.Is(err, cloudpal.Busy) && pause(ctx, busyPause) == nil {
			err = client.Destroy(ctx, p.ID)
		}
		if err != nil && !errors.Is(err, cloudpal.NotExist) {
			return cloudpal.E(op, "", err)
		}
	}
	return nil
}

const (
	busyPause   = 500 * time.Millisecond
	busyTimeout = 3 * time.Minute // a pal is made within that, on a machine that has much to do
)

// endAll ends what runs here and removes the home. What is not used of the pal's tab
// comes back before, unless the center is to be forgotten.
func (c *cli) endAll(ctx context.Context, h *person.Home, s person.State, forget bool) error {
	if err := disconnect(ctx, h); err != nil {
		return err
	}
	if err := stopDeviceAgent(ctx, h); err != nil {
		return err
	}
	if !forget {
		c.leave(ctx, h)
	}
	if err := h.Remove(ctx); err != nil {
		return err
	}
	if s.Center.Local == nil || os.Geteuid() != 0 {
		return nil
	}
	return c.stopLocal(ctx, *s.Center.Local)
}
