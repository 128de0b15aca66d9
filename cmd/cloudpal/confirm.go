package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/person"
)

// phraseFlag adds the flag that answers what confirm asks.
func (c *cli) phraseFlag(cmd *cobra.Command, words *bool) {
	cmd.Flags().BoolVar(words, "phrase-words", false, "read the words of the recovery phrase that are asked for from standard input")
}

// confirm asks, the first time that a pal is really used, for a few words of
// the recovery phrase: who has not written it down learns it while little is
// lost.
func (c *cli) confirm(ctx context.Context, h *person.Home, words bool) error {
	s, err := h.Read()
	if err != nil || s.Confirm == nil {
		return err
	}
	_, asked := terminal(c.in)
	if !asked && !words {
		return cloudpal.E("", cloudpal.Denied, errors.New("this needs "+s.Confirm.Question()+", once")).
			WithHint("write them to its standard input, and give it --phrase-words")
	}
	if asked {
		fmt.Fprintf(c.err, "Once, to see that you wrote it down: %s: ", s.Confirm.Question())
	}
	line, err := readLine(c.in)
	if err != nil {
		return err
	}
	return h.Confirm(ctx, line)
}
