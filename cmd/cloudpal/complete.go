package main

import (
	"context"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/compute/api"
)

// completeTimeout is how long a shell's TAB may wait for the agent.
const completeTimeout = 2 * time.Second

// A completer offers words for an argument.
type completer = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective)

// offer makes a completer of what the agent knows; it never starts one.
// Without many, it offers words for the first argument only.
func (c *cli) offer(many bool, list func(context.Context, *api.Client) ([]string, error)) completer {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if !many && len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(context.Background(), completeTimeout)
		defer cancel()
		agent := api.Dial(c.socket)
		defer agent.Close()
		words, err := list(ctx, agent)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return slices.DeleteFunc(words, func(w string) bool { return slices.Contains(args, w) }),
			cobra.ShellCompDirectiveNoFileComp
	}
}

// vmNames lists VMs that are in one of the states, or all.
func vmNames(states ...api.State) func(context.Context, *api.Client) ([]string, error) {
	return func(ctx context.Context, agent *api.Client) ([]string, error) {
		vms, err := agent.VMs(ctx)
		var names []string
		for _, v := range vms {
			if len(states) == 0 || slices.Contains(states, v.State) {
				names = append(names, v.Name)
			}
		}
		return names, err
	}
}

func imageNames(ctx context.Context, agent *api.Client) ([]string, error) {
	images, err := agent.Images(ctx)
	var names []string
	for _, i := range images {
		names = append(names, i.Name)
	}
	return names, err
}

func volumeNames(ctx context.Context, agent *api.Client) ([]string, error) {
	volumes, err := agent.Volumes(ctx)
	var names []string
	for _, v := range volumes {
		names = append(names, v.Name)
	}
	return names, err
}

// words makes a completer of fixed words.
func words(list ...string) completer {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return list, cobra.ShellCompDirectiveNoFileComp
	}
}

// offerFlag makes TAB offer words for a flag's value.
func (c *cli) offerFlag(cmd *cobra.Command, name string, offer completer) {
	if err := cmd.RegisterFlagCompletionFunc(name, offer); err != nil {
		panic(err) // the command has no such flag
	}
}
