package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center"
	centerapi "github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/compute/api"
)

const centerStatusHelp = `Show at which address this machine's center answers, how many pals it has, and
what they take. It shows nothing of whose they are: the center does not know.

Without a center the exit status is 1.`

// A notice is what a center leaves in its run directory for who looks for it.
type notice struct {
	PID       int                 `json:"pid"`
	Address   centerapi.Address   `json:"address"`
	Addresses []centerapi.Address `json:"addresses"` // all, Address first
	Here      netip.AddrPort      `json:"here"`      // where it is reached from this machine
}

// noticeName is the notice's name in the run directory.
const noticeName = "center.json"

// centerView is what "center status" prints.
type centerView struct {
	notice
	Version   string `json:"version"`
	NapMemory int64  `json:"napMemory"` // bytes of RAM that naps take
	NapLimit  int64  `json:"napLimit"`
	center.Census
}

func (c *cli) centerStatus() *cobra.Command {
	return c.withJSON(&cobra.Command{
		Use: "status", Short: "Show the center's address and what its pals take", Long: centerStatusHelp,
		Example: "  cloudpal center status\n  cloudpal center status --json | jq -r .address",
		Args:    args(0, 0, ""),
		RunE: c.verb(func(ctx context.Context, _ []string) error {
			agent := api.Dial(c.socket)
			defer agent.Close()
			v, err := lookAtCenter(ctx, agent)
			if err != nil {
				return err
			}
			return c.print(v, func(w io.Writer) { printCenter(w, v) })
		}),
	})
}

func lookAtCenter(ctx context.Context, agent *api.Client) (v centerView, err error) {
	const op = "look at the center"
	h, err := agent.Host(ctx)
	if errors.Is(err, api.ErrNoAgent) {
		return v, cloudpal.E(op, cloudpal.Missing, err).WithHint("start it: sudo cloudpal center")
	}
	if err != nil {
		return v, err
	}
	v.notice, err = readNotice(h.RunDir)
	if err != nil || v.PID != h.PID {
		return v, cloudpal.E(op, cloudpal.Missing, errors.New("this machine's agent runs without one")).
			WithHint("end the agent and start a center: cloudpal host stop && cloudpal center")
	}
	vms, err := agent.VMs(ctx)
	if err != nil {
		return v, err
	}
	v.Version, v.NapMemory, v.NapLimit, v.Census = h.Version, h.NapMemory, h.NapLimit, center.Count(vms)
	return v, nil
}

// readNotice reads what the center of a run directory has left there last.
func readNotice(run string) (n notice, err error) {
	data, err := os.ReadFile(filepath.Join(run, noticeName))
	if err == nil {
		err = json.Unmarshal(data, &n)
	}
	return n, err
}

func printCenter(out io.Writer, v centerView) {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(t, "%s\t%s\n", name, plain(fmt.Sprintf(format, args...)))
	}
	row("address", "%v", v.Address)
	for _, a := range v.Addresses[min(1, len(v.Addresses)):] {
		row("", "%v", a)
	}
	row("center", "cloudpal %s, pid %d", v.Version, v.PID)
	row("pals", "%d: %d awake, %d napping, %d sealed, %d starting, %d stopped",
		v.Pals, v.Awake, v.Napping, v.Sealed, v.Starting, v.Stopped)
	row("memory", "%s at most of those awake, %s of naps (%s at most)",
		formatSize(v.Memory), formatSize(v.NapMemory), formatSize(v.NapLimit))
	t.Flush()
}
