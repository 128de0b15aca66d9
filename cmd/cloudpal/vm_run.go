package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute/api"
)

const vmRunHelp = `Make a VM out of an image and run it. COMMAND stands for what the image would run;
flags behind IMAGE are COMMAND's. IMAGE is, the first that fits:

  a path that begins with / or ., or has a / in it and exists and is no image's
  name here: an OCI layout directory, a docker-archive or an oci-archive, which
  is imported
  an image of this machine, by name or ID ("cloudpal image ls")
  a reference of a registry, as in nginx:1.27, which is pulled

What the process writes to standard output and standard error is shown there,
and the exit status is the process's. A terminal gets no control characters of
it. Ctrl-C, or SIGTERM, stops the VM in good order; a second one ends this
command at once and leaves the VM. The process has no standard input; use "vm
exec -it" for a shell.

With --detach the command returns when the process runs, and prints the VM's
name. A VM stays when its process has ended, with all that it wrote, until
"cloudpal vm rm". With --rm it goes when its process has ended.

With --json and --detach the VM is printed, as by "vm inspect". Without
--detach it is how the process ended; what it writes then all goes to standard
error.

Published ports are open on this machine only, unless an address is given:
--publish 0.0.0.0:8080:80 for all the world. Without a HOST port one is chosen.

A volume has a file system at its path. With :raw the VM gets the block device
itself there, for root: -v secret:/dev/secret:raw.

A VM naps by itself only with --nap-after: when it had no traffic for that long,
and no program in it says that it is busy. A packet wakes it. With --seal-after
nothing but its disks is left after that long asleep, and a packet boots it.

Limits have no effect unless given. SIZE is a number of bytes, or one with K, M,
G or T behind.`

// runOptions are what "vm run" is told.
type runOptions struct {
	request                       api.CreateRequest
	memory, disk                  size
	diskRate, netRate, budgetNet  size
	entry                         string
	env, envFiles, ports, volumes []string
	detach                        bool
}

func (c *cli) vmRun() *cobra.Command {
	o := &runOptions{}
	cmd := c.exits(c.withJSON(&cobra.Command{
		Use: "run [flags] IMAGE [COMMAND...]", Short: "Make a VM of an image and run it", Long: vmRunHelp,
		DisableFlagsInUseLine: true,
		Example: `  cloudpal vm run --rm busybox echo hello
  cloudpal vm run --detach --name web --publish 8080:80 nginx
  cloudpal vm run -d --name db -v data:/var/lib/postgresql -e POSTGRES_PASSWORD --memory 512M postgres
  cloudpal vm run --rm ./build/layout --verbose
  cloudpal vm run -d --name notes --read-only -v notes:/data --nap-after 30s notes
  cloudpal vm run -d --limit-cpu 0.5 --budget-cpu 10h --budget-net 20G miner`,
		Args:    args(1, -1, "an IMAGE"),
		PreRunE: func(cmd *cobra.Command, args []string) error { return o.complete(cmd, args, c.getenv) },
		RunE: c.ask(func(ctx context.Context, agent *api.Client, _ []string) error {
			return c.runVM(ctx, agent, o)
		}),
	}))
	cmd.ValidArgsFunction = c.completeImage
	o.flags(cmd.Flags())
	c.offerFlag(cmd, "volume", c.offer(true, volumeNames))
	for _, name := range []string{"name", "memory", "cpus", "disk", "env", "publish", "user", "workdir", "hostname", "entrypoint"} {
		c.offerFlag(cmd, name, words())
	}
	return cmd
}

func (o *runOptions) flags(f *pflag.FlagSet) {
	f.SetInterspersed(false) // what is behind IMAGE is COMMAND's
	q := &o.request
	f.StringVar(&q.Name, "name", "", "the VM's `NAME` (default: made of the image's)")
	f.VarP(&o.memory, "memory", "m", "memory (default 128M)")
	f.IntVar(&q.CPUs, "cpus", 1, "how many CPUs it has (`N`)")
	f.Var(&o.disk, "disk", "the most that its own disk, or a raw volume that is new, can take (default 8G)")
	f.StringArrayVarP(&o.env, "env", "e", nil, "`NAME=value`, or NAME to pass on one of this command's")
	f.StringArrayVar(&o.envFiles, "env-file", nil, "read variables from `FILE`, one a line")
	f.StringArrayVarP(&o.ports, "publish", "p", nil, "open a port here for one of the VM's: `[[IP:]HOST:]PORT[/udp]`")
	f.StringArrayVarP(&o.volumes, "volume", "v", nil, "put a named volume at a path: `NAME:/path[:ro|:raw]`")
	f.BoolVar(&q.ReadOnly, "read-only", false, "give it no disk: what it writes outside its volumes stays in its memory")
	f.BoolVarP(&o.detach, "detach", "d", false, "return when it runs, and print its name")
	f.BoolVar(&q.Remove, "rm", false, "remove it when its process has ended")
	f.StringVar(&o.entry, "entrypoint", "", "run `PROGRAM` instead of the image's; COMMAND are its arguments")
	f.StringVarP(&q.User, "user", "u", "", "run as `USER[:GROUP]`, names or numbers")
	f.StringVarP(&q.Dir, "workdir", "w", "", "start in `DIR`")
	f.StringVar(&q.Host, "hostname", "", "the `NAME` that the VM calls itself (default: its name)")
	f.DurationVar(&q.Nap.Idle, "nap-after", 0, "let it sleep after this `TIME` without traffic, as in 30s")
	f.DurationVar(&q.Nap.Seal, "seal-after", 0, "keep nothing but its disks after this `TIME` asleep, as in 24h")
	o.limits(f)
}

func (o *runOptions) limits(f *pflag.FlagSet) {
	l := &o.request.Limits
	f.Float64Var(&l.CPU, "limit-cpu", 0, "at most `CORES` at any instant, as in 0.5")
	f.Float64Var(&l.PlanCPU, "plan-cpu", 0, "`CORES` in the long run: above, it is throttled, then stopped")
	f.Var(&o.diskRate, "disk-rate", "at most `SIZE` a second to and from its disks")
	f.Int64Var(&l.DiskOps, "disk-ops", 0, "at most `N` disk operations a second")
	f.Var(&o.netRate, "net-rate", "at most `SIZE` a second each way")
	f.DurationVar(&l.BudgetCPU, "budget-cpu", 0, "stop it when it has used this CPU `TIME` in all, as in 90m")
	f.Var(&o.budgetNet, "budget-net", "stop it when it has sent and received `SIZE` in all")
}

// complete turns what the command line says into what the agent is asked.
func (o *runOptions) complete(cmd *cobra.Command, args []string, getenv func(string) (string, bool)) error {
	q := &o.request
	q.Image, q.Args = args[0], args[1:]
	q.Memory, q.Disk = int64(o.memory), int64(o.disk)
	q.Limits.DiskBytes, q.Limits.NetBytes, q.Limits.BudgetNet = int64(o.diskRate), int64(o.netRate), int64(o.budgetNet)
	if cmd.Flags().Changed("entrypoint") {
		q.Entry = []string{}
		if o.entry != "" {
			q.Entry = []string{o.entry}
		}
	}
	var err error
	if q.Ports, err = parseAll(o.ports, parsePort); err != nil {
		return usage{err}
	}
	if q.Volumes, err = parseAll(o.volumes, parseMount); err != nil {
		return usage{err}
	}
	if err := o.checkNumbers(); err != nil {
		return usage{err}
	}
	q.Env, err = environment(o.envFiles, o.env, getenv)
	return err
}

func parseAll[T any](texts []string, parse func(string) (T, error)) ([]T, error) {
	var all []T
	for _, text := range texts {
		t, err := parse(text)
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, nil
}

// checkNumbers refuses what would else mean "the default" or "no limit".
func (o *runOptions) checkNumbers() error {
	l := o.request.Limits
	switch {
	case o.request.CPUs < 1:
		return fmt.Errorf("--cpus %d: a VM has 1 or more", o.request.CPUs)
	case !(l.CPU >= 0) || !(l.PlanCPU >= 0) || l.DiskOps < 0 || l.BudgetCPU < 0:
		return errors.New("a limit is above zero; leave it out to have none")
	case tooShort(o.request.Nap.Idle) || tooShort(o.request.Nap.Seal):
		return errors.New("--nap-after and --seal-after are at least 1s; leave them out for never")
	}
	return nil
}

func tooShort(d time.Duration) bool { return d != 0 && d < time.Second }

// environment joins the variables of files and those given one by one, which
// come last and so win.
func environment(files, texts []string, getenv func(string) (string, bool)) ([]string, error) {
	env, err := readEnvFiles(files, getenv)
	if err != nil {
		return nil, err
	}
	more, err := parseEnvs(texts, getenv)
	if err != nil {
		return nil, usage{err}
	}
	return append(env, more...), nil
}

// completeImage offers images, or files where one begins to type a path.
func (c *cli) completeImage(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 && isPath(word) {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return c.offer(false, imageNames)(cmd, args, word)
}

func (c *cli) runVM(ctx context.Context, agent *api.Client, o *runOptions) error {
	v, err := c.makeVM(ctx, agent, o.request)
	if err != nil {
		return err
	}
	for _, p := range v.Ports {
		c.say("%s is at %s (%s)", v.Name, portURL(p), formatPort(p))
	}
	if o.detach {
		return c.print(v, func(w io.Writer) { fmt.Fprintln(w, plain(v.Name)) })
	}
	exit, err := c.attend(ctx, agent, v.Name)
	if err != nil {
		return err
	}
	if c.json {
		if err := c.printJSON(exit); err != nil {
			return err
		}
	}
	return c.exit(v.Name, exit)
}

// isPath reports whether an image's name can only be a path.
func isPath(name string) bool { return strings.HasPrefix(name, "/") || strings.HasPrefix(name, ".") }

// makeVM makes a VM and gets its image where that is not here.
func (c *cli) makeVM(ctx context.Context, agent *api.Client, q api.CreateRequest) (api.VM, error) {
	if !isPath(q.Image) {
		v, err := c.boot(ctx, agent, q)
		if !errors.Is(err, cloudpal.NotExist) {
			return v, err
		}
	}
	image, err := c.fetchImage(ctx, agent, q.Image)
	if err != nil {
		return api.VM{}, err
	}
	q.Image = nameOrID(image)
	return c.boot(ctx, agent, q)
}

func (c *cli) fetchImage(ctx context.Context, agent *api.Client, name string) (api.Image, error) {
	if isPath(name) {
		return c.importImage(ctx, agent, name, "")
	}
	if _, err := os.Stat(name); err == nil && strings.Contains(name, "/") {
		return c.importImage(ctx, agent, name, "")
	}
	return c.pull(ctx, agent, name)
}

// boot makes the VM. A signal meanwhile leaves nothing of it.
func (c *cli) boot(ctx context.Context, agent *api.Client, q api.CreateRequest) (v api.VM, err error) {
	begun := time.Now()
	slow := c.whileSlow("booting a VM of "+q.Image, func() { v, err = agent.Create(ctx, q) })
	if err == nil && slow {
		c.say("%s runs after %s", v.Name, formatTime(time.Since(begun)))
	}
	return v, err
}

// attend shows what the VM's process writes until it has ended, and returns
// how. When ctx ends the VM is stopped in good order, and its last words are
// shown too.
func (c *cli) attend(ctx context.Context, agent *api.Client, name string) (exit api.Exit, err error) {
	live, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	ended := make(chan struct{})
	var logs, stop error
	var tasks sync.WaitGroup
	tasks.Go(func() {
		defer close(ended)
		exit, err = agent.Wait(live, name)
	})
	tasks.Go(func() { logs = agent.Logs(live, name, true, c.runPrinter()) })
	tasks.Go(func() {
		select {
		case <-ended:
			return
		case <-ctx.Done():
		}
		stop = c.stopVM(live, agent, name)
		if errors.Is(stop, cloudpal.NotExist) {
			stop = nil // with --rm, it went by itself
		}
		if stop != nil {
			cancel()
		}
	})
	tasks.Wait()
	switch {
	case stop != nil:
		return exit, stop
	case err != nil:
		return exit, cloudpal.E("", "", err).WithHint("the VM goes on without this command: cloudpal vm wait " + name)
	case logs != nil:
		c.say("cloudpal: %v; what is missing here: cloudpal vm logs %s", logs, name)
	}
	return exit, nil
}

// runPrinter is logPrinter without JSON: with it standard output has only the
// result.
func (c *cli) runPrinter() func(api.LogEntry) error {
	if c.json {
		return printTo(c.err, c.err, false)
	}
	return printTo(c.out, c.err, false)
}

func (c *cli) stopVM(ctx context.Context, agent *api.Client, name string) error {
	var err error
	c.whileSlow("stopping "+name, func() { _, err = agent.Stop(ctx, name, api.StopRequest{}) })
	return err
}
