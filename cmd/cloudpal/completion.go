package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

const completionHelp = `Print a script that completes commands, flags and the names of VMs, images and
volumes when you press TAB.

Names come from the agent's socket, which only root may open: as another user
you get commands and flags.`

func (c *cli) completion() *cobra.Command {
	return &cobra.Command{
		Use: "completion SHELL", Short: "Print a shell's completion script", Long: completionHelp,
		Example: `  cloudpal completion bash > /etc/bash_completion.d/cloudpal
  cloudpal completion zsh > "${fpath[1]}/_cloudpal"
  cloudpal completion fish > ~/.config/fish/completions/cloudpal.fish`,
		ValidArgs: []string{"bash", "zsh", "fish"},
		Args:      args(1, 1, "a SHELL: bash, zsh or fish"),
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(c.out, true)
			case "zsh":
				return root.GenZshCompletion(c.out)
			case "fish":
				return root.GenFishCompletion(c.out, true)
			}
			return usage{fmt.Errorf("there is no completion for %q; take bash, zsh or fish", args[0])}
		},
	}
}
