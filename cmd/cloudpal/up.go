package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/identity"
	"github.com/tradle/cloudpal/network/overlay"
	"github.com/tradle/cloudpal/network/tunnel"
	"github.com/tradle/cloudpal/person"
)

const upHelp = `Bring your pal up, and make it where there is none.

The first time this makes your keys and shows your recovery phrase, once: write
it down. It starts a center on this machine, or goes to the one of --center,
makes your pal there, unlocks it, and makes this machine the first of your
devices. Then it shows a QR code for your phone's WireGuard app. Each time after
that it brings back what is not running and changes nothing else. It may be
interrupted at any moment: the next one goes on.

A center on this machine takes tickets of a mint that is made beside it, which gives
you as many as you need: your pal pays with them as it would anywhere. For one free
of charge: sudo cloudpal up -- --tickets ''

A center on this machine needs root: sudo cloudpal up. Your keys are yours all the
same, not root's. What stands behind -- is given to that center: see "cloudpal
center --help".

Your pal's core is trusted the first time and held to that: where it is made of
another image later, as after an update, this command tells, and takes
--accept-core IMAGE.`

// upOptions are what "cloudpal up" is told.
type upOptions struct {
	center string // an address, or "" for one on this machine
	name   string // of this device
	phone  string // name of the phone that a QR code is made for, or ""
	accept string // an image of the core
	local  person.Local
}

func (c *cli) up() *cobra.Command {
	o := upOptions{}
	cmd := c.withHome(c.withJSON(&cobra.Command{
		Use: "up [-- CENTER-FLAG...]", Short: "Bring your pal up, and make it if there is none", Long: upHelp,
		Example: `  sudo cloudpal up
  cloudpal up --center https://203.0.113.5:7443#...
  sudo cloudpal up -- --idle 2m --seal 24h
  cloudpal up --json | jq -r .phrase`,
		Args: func(cmd *cobra.Command, args []string) error {
			if n := cmd.ArgsLenAtDash(); n != 0 && len(args) > 0 {
				return usage{fmt.Errorf("%s takes no arguments, not %q", cmd.CommandPath(), args[0])}
			}
			return nil
		},
		RunE: c.verb(func(ctx context.Context, args []string) error {
			o.local.Args, o.local.Socket = args, c.socket
			if err := o.check(); err != nil {
				return err
			}
			return c.runUp(ctx, o)
		}),
	}))
	f := cmd.Flags()
	f.StringVar(&o.center, "center", "", "`ADDRESS` of a center, as it prints it (default: one on this machine)")
	f.StringVar(&o.name, "name", "", "`NAME` of this device (default: this machine's)")
	f.StringVar(&o.phone, "phone", "phone", "`NAME` of the phone that the first QR code is for; \"\" for none")
	f.StringVar(&o.accept, "accept-core", "", "`IMAGE` of the core to trust from now on")
	f.StringVar(&o.local.State, "state", c.lookup("CLOUDPAL_STATE", defaultState), "`DIR` of the state of a center on this machine")
	f.StringVar(&o.local.Run, "run", c.lookup("CLOUDPAL_RUN", defaultRun), "`DIR` of what it need not keep")
	f.StringSliceVar(&o.local.Listen, "listen", []string{fmt.Sprintf("127.0.0.1:%d", api.DefaultPort)}, "TCP `[IP]:PORT` that it answers on; another address lets strangers make pals there, too")
	return cmd
}

func (o *upOptions) check() error {
	if o.name == "" {
		host, _ := os.Hostname()
		o.name = deviceName(host)
	}
	for _, name := range []string{o.name, o.phone} {
		if err := identity.CheckName(name); err != nil && name != "" {
			return usage{fmt.Errorf("%w: %s", err, cloudpal.HintOf(err))}
		}
	}
	for _, l := range o.local.Listen {
		if _, err := parseListen(l); err != nil {
			return usage{err}
		}
	}
	if o.center != "" {
		if _, err := api.ParseAddress(o.center); err != nil {
			return usage{fmt.Errorf("%w: %s", err, cloudpal.HintOf(err))}
		}
	}
	if o.name == o.phone {
		return usage{fmt.Errorf("--name and --phone: two devices cannot both be %q", o.name)}
	}
	for _, dir := range []*string{&o.local.State, &o.local.Run, &o.local.Socket} {
		abs, err := filepath.Abs(*dir)
		if err != nil {
			return cloudpal.E("find "+*dir, cloudpal.Invalid, err)
		}
		*dir = abs
	}
	return nil
}

// deviceName makes a device's name of a machine's.
func deviceName(host string) string {
	host, _, _ = strings.Cut(strings.ToLower(host), ".")
	name := strings.Trim(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, host), "-")
	name = strings.TrimRight(name[:min(len(name), 32)], "-")
	if identity.CheckName(name) != nil || name == "phone" {
		return "laptop"
	}
	return name
}

// upResult is what "cloudpal up" prints as JSON.
type upResult struct {
	Phrase string          `json:"phrase,omitempty"` // the first time, and never again
	URL    string          `json:"url"`              // of the pal's page, on the person's devices
	Phone  *person.Changed `json:"phone,omitempty"`
	person.Status
}

const palURL = "http://pal/"

// runUp does what is left to do. The order is the one in which nothing is lost
// when it ends anywhere: a person is made for a center that answers, and is
// there for good once their phrase was shown.
func (c *cli) runUp(ctx context.Context, o upOptions) error {
	dir, own, err := c.homeDir()
	if err != nil {
		return err
	}
	st := c.steps()
	defer st.end()
	saved, err := readSaved(dir)
	if err != nil {
		return err
	}
	center, err := c.upCenter(ctx, o, saved, st)
	if err != nil {
		return err
	}
	h, err := person.Make(dir, own)
	if err != nil {
		return err
	}
	defer h.Close()
	r := upResult{URL: palURL}
	fresh := saved == nil || !saved.Shown
	if fresh {
		err = c.upPerson(ctx, h, o, center, &r, st)
	} else {
		err = keepCenter(ctx, h, *saved, center)
	}
	if err != nil {
		return err
	}
	err = c.upPal(ctx, h, o, fresh, &r, st)
	if err != nil && r.Phrase != "" {
		err = errors.Join(err, c.showPhrase(context.WithoutCancel(ctx), h, r.Phrase))
	}
	return err
}

// showPhrase prints the phrase of a person whose pal is not up yet. They are there for
// good then, and so is what they buy and pay until it is.
func (c *cli) showPhrase(ctx context.Context, h *person.Home, words string) error {
	err := c.printJSON(struct {
		Phrase string `json:"phrase"`
	}{words})
	if err != nil {
		return err
	}
	return h.SetShown(ctx)
}

// readSaved returns the state of a home, or nil where there is none.
func readSaved(dir string) (*person.State, error) {
	h, err := person.OpenHome(dir)
	if errors.Is(err, cloudpal.NotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer h.Close()
	s, err := h.Read()
	if errors.Is(err, cloudpal.NotExist) {
		return nil, nil
	}
	return &s, err
}

// upCenter returns a center that answers.
func (c *cli) upCenter(ctx context.Context, o upOptions, saved *person.State, st *steps) (person.Center, error) {
	known := saved != nil && saved.Shown
	switch {
	case o.center != "":
		a, err := api.ParseAddress(o.center)
		if err != nil {
			return person.Center{}, err
		}
		if known && a.Key != saved.Center.Address.Key {
			return person.Center{}, cloudpal.E("go to another center", cloudpal.Exist, errors.New("your pal is at "+saved.Center.Address.String())).
				WithHint("leave --center out, or use another --home")
		}
		return person.Center{Address: a}, st.do("reaching the center", func() error { return answers(ctx, a) })
	case known && saved.Center.Local == nil:
		a := saved.Center.Address
		return saved.Center, st.do("reaching the center", func() error { return answers(ctx, a) })
	case known:
		l := *saved.Center.Local
		if len(o.local.Args) > 0 {
			l.Args = o.local.Args // for when it starts the next time
		}
		return c.localCenter(ctx, l, &saved.Center.Address, st)
	}
	return c.localCenter(ctx, o.local, nil, st)
}

// answers asks a center whether it is there.
func answers(ctx context.Context, a api.Address) error {
	client, err := api.Dial(a, nil, nil)
	if err != nil {
		return err
	}
	defer client.Close()
	_, err = client.Center(ctx)
	return err
}

// keepCenter keeps a center's new address and flags. Its key is the same, or its
// customers' keys would mean nothing to it.
func keepCenter(ctx context.Context, h *person.Home, s person.State, center person.Center) error {
	if s.Center.Address.Key != center.Address.Key {
		return cloudpal.E("find your center", cloudpal.Denied, errors.New("the one on this machine is another: its state was removed, or put elsewhere")).
			WithHint("put its state back, or begin anew: cloudpal destroy --forget")
	}
	if center.Local == nil {
		center.Local = s.Center.Local
	}
	if reflect.DeepEqual(s.Center, center) {
		return nil
	}
	return h.Change(ctx, func(s *person.State) error {
		s.Center = center
		return nil
	})
}

// upPerson makes the person and, unless all is to be printed as JSON at the
// end, shows the phrase.
func (c *cli) upPerson(ctx context.Context, h *person.Home, o upOptions, center person.Center, r *upResult, st *steps) error {
	if err := c.forgetUnseen(ctx, h); err != nil {
		return err
	}
	var phrase identity.Phrase
	err := st.do("making your keys", func() (err error) {
		phrase, err = h.NewPerson(ctx, center, o.name, tunnel.InUse())
		return err
	})
	if err != nil {
		return err
	}
	defer phrase.Wipe()
	if c.json {
		r.Phrase = strings.Join(phrase.Words(), " ")
		return nil
	}
	printPhrase(c.out, phrase.Words())
	return h.SetShown(ctx)
}

// forgetUnseen takes away what an earlier run made that ended before anybody had
// seen the phrase, and brings back what that had paid.
func (c *cli) forgetUnseen(ctx context.Context, h *person.Home) error {
	s, err := h.Read()
	if errors.Is(err, cloudpal.NotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := stopDeviceAgent(ctx, h); err != nil {
		return err
	}
	if err := destroyPals(ctx, s); err != nil {
		return err
	}
	c.leave(ctx, h)
	return nil
}

const phraseRows = 6

// printPhrase shows the words in columns, numbered from the top down.
func printPhrase(w io.Writer, words []string) {
	fmt.Fprintln(w, "\nYour recovery phrase. Write these 24 words on paper, with their numbers: whoever has")
	fmt.Fprintln(w, "them has your pal, and without them and your devices nobody has, not even you.")
	fmt.Fprintln(w, "They are shown this once.")
	fmt.Fprintln(w)
	for row := range phraseRows {
		for i := row; i < len(words); i += phraseRows {
			fmt.Fprintf(w, "  %2d %-10s", i+1, words[i])
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w)
}

// upPal has the agent bring the pal up, and prints the result.
func (c *cli) upPal(ctx context.Context, h *person.Home, o upOptions, fresh bool, r *upResult, st *steps) error {
	agent, err := c.currentAgent(ctx, h)
	if err != nil {
		return err
	}
	s, err := h.Read()
	if err != nil {
		return err
	}
	minted := c.upMint(ctx, s, st)
	err = agent.Up(ctx, person.UpRequest{AcceptCore: o.accept}, st.tell)
	switch {
	case err != nil && minted != nil:
		return minted // that is why
	case err != nil:
		return err
	case minted != nil:
		c.say("your pal lives on what is paid for it; %v\nhint: %s", minted, cloudpal.HintOf(minted))
	}
	if _, seen := terminal(c.out); s.Pal == nil && o.phone != "" && (seen || c.json) {
		phone, err := agent.Add(ctx, person.AddRequest{Name: o.phone, Unconfirmed: true})
		if err != nil {
			return err
		}
		r.Phone = &phone
	}
	if r.Status, err = agent.Status(ctx); err != nil {
		return err
	}
	if err := c.print(r, func(w io.Writer) { printUp(w, r) }); err != nil {
		return err
	}
	if !fresh {
		return nil
	}
	return h.SetShown(ctx)
}

// currentAgent returns an agent that is of this version: an update brings a new
// one.
func (c *cli) currentAgent(ctx context.Context, h *person.Home) (*person.Client, error) {
	s, err := h.Client().Agent(ctx)
	if err == nil && s.Version != versionName() && s.Mode == person.OnlyAgent {
		if err := stopDeviceAgent(ctx, h); err != nil {
			return nil, err
		}
	}
	return c.needAgent(ctx, h)
}

func printUp(w io.Writer, r *upResult) {
	if r.Phone != nil {
		fmt.Fprintln(w, "For your phone: install the WireGuard app, and scan this.")
		printQR(w, r.Phone.Config)
	}
	fmt.Fprintf(w, "your pal is up: %s on your devices; in this machine's browser: cloudpal open\n", r.URL)
}

// printQR shows a configuration for a phone's camera.
func printQR(w io.Writer, config string) {
	qr, err := overlay.NewQR([]byte(config))
	if err != nil {
		fmt.Fprintln(w, config)
		return
	}
	fmt.Fprint(w, qr.Terminal())
}
