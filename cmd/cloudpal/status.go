package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/person"
)

const statusHelp = `Show how your pal is: awake or asleep and since when, why it woke last, your
devices, and the tunnel to it; where it is paid for, what it costs and how long the
money lasts: 64 units are a day of the smallest VM. Asking wakes nothing: what is
told of the pal comes from its center, and the devices are those this machine
knows of.`

func (c *cli) status() *cobra.Command {
	return c.withHome(c.withJSON(&cobra.Command{
		Use: "status", Short: "Show how your pal is", Long: statusHelp,
		Example: "  cloudpal status\n  cloudpal status --json | jq -r .pal.state",
		Args:    args(0, 0, ""),
		RunE: c.withHomeOf(func(ctx context.Context, h *person.Home, _ []string) error {
			s, err := lookAtPal(ctx, h)
			if err != nil {
				return err
			}
			return c.print(s, func(w io.Writer) { printStatus(w, s) })
		}),
	}))
}

// lookAtPal asks the agent, or, where none runs, the center.
func lookAtPal(ctx context.Context, h *person.Home) (person.Status, error) {
	s, err := h.Client().Status(ctx)
	if errors.Is(err, person.ErrNoAgent) {
		return h.Status(ctx)
	}
	return s, err
}

func printStatus(out io.Writer, s person.Status) {
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(t, "%s\t%s\n", name, plain(fmt.Sprintf(format, args...)))
	}
	row("pal", "%s", palText(s))
	if s.Woke != nil {
		row("woke last", "%s ago: %s", formatSince(s.Woke.Time), orDash(s.Woke.Reason))
	}
	row("center", "%s", centerText(s.Center))
	if s.Money != nil {
		row("money", "%s", moneyText(*s.Money))
		row("costs", "%s", costText(*s.Money))
		row("lasts", "%s", lastsText(*s.Money))
	}
	row("network", "%s", joinPrefixes(s.Network))
	row("tunnel", "%s", tunnelText(s.Agent))
	for i, d := range s.Devices {
		name := ""
		if i == 0 {
			name = "devices"
		}
		row(name, "%s", deviceText(d))
	}
	if s.Problem != "" {
		row("trouble", "%s", s.Problem)
	}
	if s.Hint != "" {
		row("hint", "%s", s.Hint)
	}
	t.Flush()
}

func palText(s person.Status) string {
	if s.Pal == nil {
		return "not known"
	}
	text := string(s.Pal.State)
	if s.Pal.State == api.Napping && s.Pal.Depth != "" {
		text += " (" + string(s.Pal.Depth) + ")"
	}
	return fmt.Sprintf("%s for %s; %d wakes, %d boots", text, formatSince(s.Pal.Since), s.Pal.Wakes, s.Pal.Boots)
}

func centerText(c person.CenterStatus) string {
	text := c.Address.HostPort()
	if c.Local {
		text += ", on this machine"
	}
	if !c.Answers {
		text += ", does not answer"
	}
	return text
}

func moneyText(m person.Money) string {
	text := fmt.Sprintf("%d units in %d tickets of %s; paid at the center: %d", m.Units, m.Tickets, m.Issuer, m.Left)
	if m.Ahead > 0 {
		text += fmt.Sprintf(", and %d for later", m.Ahead)
	}
	return text
}

func costText(m person.Money) string {
	parts := []string{fmt.Sprintf("%.3g units an hour now", m.Hour)}
	for _, c := range m.Costs {
		parts = append(parts, fmt.Sprintf("%s %.3g awake", c.Name, c.Hour))
	}
	return strings.Join(parts, "; ")
}

// lastsText says how long the money lasts, and what happens at its end.
func lastsText(m person.Money) string {
	if m.Stage != api.Funded {
		text := "nothing is paid at the center: the pal is " + string(m.Stage)
		if !m.Deletes.IsZero() {
			text += ", and is deleted on " + m.Deletes.Local().Format(time.DateOnly)
		}
		return text
	}
	return fmt.Sprintf("%.1f days awake; asleep it costs nothing but its disk", m.Days)
}

func joinPrefixes(list []netip.Prefix) string {
	texts := make([]string, len(list))
	for i, p := range list {
		texts[i] = p.String()
	}
	return strings.Join(texts, ", ")
}

func tunnelText(a *person.AgentStatus) string {
	if a == nil {
		return "no agent runs; cloudpal up starts it"
	}
	text := map[person.Mode]string{
		person.OnlyAgent: "of the agent", person.Overlay: "of this machine, to your devices", person.Everything: "of this machine, for all",
	}[a.Mode]
	if !a.Endpoint.IsValid() || a.Handshake.IsZero() {
		return text + "; not used yet"
	}
	return fmt.Sprintf("%s; to %v, last handshake %s ago, %s in, %s out",
		text, a.Endpoint, formatAge(time.Since(a.Handshake)), formatSize(a.Received), formatSize(a.Sent))
}

func deviceText(d person.Device) string {
	var text strings.Builder
	text.WriteString(d.Name)
	for _, a := range d.Addresses {
		text.WriteString("  " + a.String())
	}
	if d.This {
		text.WriteString("  (this one)")
	}
	return text.String()
}
