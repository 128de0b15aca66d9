package main

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/center"
	"github.com/tradle/cloudpal/center/api"
)

const centerHelp = `Run a data center on this machine, in the foreground: its agent, which "cloudpal
host" runs alone, and an HTTPS interface by which people make pals here. It
prints its address when it answers, with the key by which it is known.

The center knows a customer by a key and by nothing else, and sees of a pal what
it takes to run it. As it ends, pals that are awake stay awake; the next center
finds them all. Its own key, and what pals there are, is under --state in
"center": keep a copy of center/key.pem.

With --tickets it takes money: a pal needs tickets of one of those mints, whose
mint.json says whom to believe about its keys. What it costs is in the file of
--tariff:

  {"tariff": {"core": 64, "app": 64, "storage": 8, "traffic": 1}, "slice": 64,
   "classes": ["paid"], "grace": "5m", "seal": "72h", "delete": "720h"}

in units for a day awake, for 30 days of a GiB on disk, and for a GiB sent; a unit
is 1/64 of a day of the smallest core, and "slice" what one ticket is worth. The
key that tickets are paid to is center/tickets.pem: keep a copy of that, too.

People need to reach the TCP port of --listen and the UDP ports of --udp-ports.`

// centerOptions are what "cloudpal center" is told.
type centerOptions struct {
	host      hostOptions
	listen    []string
	advertise []string
	core      string // file or directory, or ""
	ports     center.Ports
	idle      time.Duration
	seal      time.Duration
	memory    size
	disk      size
	pals      int
	owned     int
	tickets   []string // files of mints; none: pals are free of charge
	tariff    string   // file
}

func (c *cli) center() *cobra.Command {
	o := centerOptions{}
	cmd := c.withJSON(&cobra.Command{
		Use: "center", Short: "Run a data center on this machine, look at it", Long: centerHelp,
		Example: `  cloudpal center
  cloudpal center --advertise 203.0.113.5 --max-pals 2000 --nap-memory 16G
  cloudpal center --tickets mint.json --tariff tariff.json
  cloudpal center --prefix6 2001:db8:1:2::/64 --seal 24h
  cloudpal center status
  cloudpal center receipts`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage{unknown(cmd, args[0])}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.host.socket = c.socket
			return c.serveCenter(cmd.Context(), o)
		},
	})
	f := cmd.Flags()
	f.StringSliceVar(&o.listen, "listen", []string{fmt.Sprintf(":%d", api.DefaultPort)}, "TCP `[IP]:PORT` to answer on; may be given more than once")
	f.StringSliceVar(&o.advertise, "advertise", nil, "`IP` at which this machine is reached, the likeliest first (default: its own)")
	f.TextVar(&o.ports, "udp-ports", center.DefaultPorts, "`RANGE` of UDP ports for the pals' WireGuard")
	f.DurationVar(&o.idle, "idle", center.DefaultIdle, "`TIME` without traffic before a pal naps")
	f.DurationVar(&o.seal, "seal", 0, "`TIME` asleep before a pal is sealed: one of its devices must unlock it then (default never)")
	f.IntVar(&o.pals, "max-pals", center.DefaultMaxPals, "how many pals there may be")
	f.IntVar(&o.owned, "max-owned", center.DefaultMaxOwned, "how many of them one account may have")
	f.Var(&o.memory, "pal-memory", "memory of a core (default 160M)")
	f.Var(&o.disk, "pal-disk", "disk of a pal, which takes what is on it (default 8G)")
	f.StringVar(&o.core, "core", c.lookup("CLOUDPAL_CORE", ""), "`PATH` of the core's image, an OCI layout or archive (default: core beside this program)")
	f.StringSliceVar(&o.tickets, "tickets", nil, "`FILE` of a mint whose tickets pay for pals, its mint.json; may be given more than once (default: pals are free of charge)")
	f.StringVar(&o.tariff, "tariff", "", "`FILE` that says what pals cost")
	c.hostFlags(f, &o.host)
	for _, name := range []string{"listen", "advertise", "udp-ports", "idle", "seal", "max-pals", "max-owned", "pal-memory", "pal-disk"} {
		c.offerFlag(cmd, name, words())
	}
	cmd.AddCommand(c.centerStatus(), c.centerReceipts())
	return cmd
}

// check refuses what no center can be told.
func (o *centerOptions) check() error {
	for _, a := range o.listen {
		if _, err := parseListen(a); err != nil {
			return usage{err}
		}
	}
	if _, err := o.addrs(); err != nil {
		return usage{err}
	}
	for name, d := range map[string]time.Duration{"idle": o.idle, "seal": o.seal} {
		if d != 0 && d < time.Second {
			return usage{fmt.Errorf("--%s %v: it is at least a second, or 0 for never", name, d)}
		}
	}
	switch {
	case len(o.listen) == 0:
		return usage{errors.New("--listen: a center answers somewhere")}
	case (len(o.tickets) > 0) != (o.tariff != ""):
		return usage{errors.New("--tickets and --tariff: who takes tickets says for what, and who does not has no tariff")}
	case o.pals < 1 || o.owned < 1:
		return usage{errors.New("--max-pals and --max-owned are at least 1")}
	case o.ports.Count() < o.pals:
		return usage{fmt.Errorf("--udp-ports %v: these are %d, and --max-pals is %d", o.ports, o.ports.Count(), o.pals)}
	}
	return o.host.check()
}

// parseListen reads where to listen. Names are not for this: they may mean
// another address tomorrow.
func parseListen(text string) (netip.AddrPort, error) {
	full := text
	if strings.HasPrefix(full, ":") {
		full = "[::]" + full
	}
	at, err := netip.ParseAddrPort(full)
	if err != nil {
		return at, fmt.Errorf("--listen %.60q: write it as :7443, 203.0.113.5:7443 or [2001:db8::5]:7443", text)
	}
	return at, nil
}

// addrs are those that the operator says this machine has.
func (o *centerOptions) addrs() (list []netip.Addr, err error) {
	for _, text := range o.advertise {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
			return nil, fmt.Errorf("--advertise %.60q: it is an IP address, such as 203.0.113.5", text)
		}
		list = append(list, a.Unmap())
	}
	return list, nil
}
