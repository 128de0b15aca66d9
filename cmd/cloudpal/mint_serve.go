package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/mint"
	"github.com/tradle/cloudpal/mint/books"
	"github.com/tradle/cloudpal/mint/keylog"
	"github.com/tradle/cloudpal/mint/oblivious"
	"github.com/tradle/cloudpal/mint/payment/ask"
	"github.com/tradle/cloudpal/mint/payment/btcpay"
	"github.com/tradle/cloudpal/mint/payment/card"
	"github.com/tradle/cloudpal/mint/payment/voucher"
	"github.com/tradle/cloudpal/mint/signing"
	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/ledger"
)

const mintServeHelp = `Answer as the mint of a folder, in the foreground. It starts the process that has
the private keys of tickets, unless config.json names one that runs by itself, and
prints its address when it answers.

What it is told stands in config.json; what it must not lose is the folder, and the
database where config.json names one. Killed at any moment, it loses nothing that
it has answered: start it again.`

func (c *cli) mintServe() *cobra.Command {
	var folder string
	var debug bool
	cmd := c.withMint(&cobra.Command{
		Use: "serve", Short: "Sell tickets, and take them back from centers", Long: mintServeHelp,
		Example: `  cloudpal mint serve
  cloudpal mint serve --folder /srv/mint`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := c.mintDir(folder)
			if err != nil {
				return err
			}
			return c.untilSignal(cmd.Context(), func(ctx context.Context) error {
				return c.serveMint(ctx, f, c.logger(debug), func(url string) error {
					_, err := fmt.Fprintf(c.out, "the mint answers at %s\n", url)
					return err
				})
			})
		},
	}, &folder)
	cmd.Flags().BoolVar(&debug, "debug", false, "log more")
	return cmd
}

// serveMint runs the mint of a folder until ctx ends. Ready is told when it answers.
func (c *cli) serveMint(ctx context.Context, f mintFolder, log *slog.Logger, ready func(url string) error) (err error) {
	config, err := f.config()
	if err != nil {
		return err
	}
	keys, trust, err := f.openLog(config, time.Now)
	if err != nil {
		return err
	}
	defer keys.Close()
	shown := shownLog{keys, trust, time.Now}
	root, err := f.rootFor(ctx, shown)
	if err != nil {
		return err
	}
	b, err := f.openBooks(ctx, config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	spent, err := f.openLedger(ctx, config)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, spent.Close()) }()
	l, err := net.Listen("tcp", config.Listen)
	if err != nil {
		return cannotListen(config.Listen, err)
	}
	defer l.Close()
	signer, stop, err := f.startSigner(ctx, config, log)
	if err != nil {
		return err
	}
	defer stop()
	if root != nil {
		if err := f.publishMonth(ctx, shown, signer, root, ticket.EpochAt(time.Now())); err != nil {
			return cloudpal.E("make this month's keys", "", err)
		}
	}
	methods, err := config.methods(ctx, b)
	if err != nil {
		return err
	}
	m, err := mint.New(mint.Config{
		Issuer: trust.Issuer, Books: b, Ledger: spent, Signer: signer, Log: shown, Receipt: f.receipt,
		Methods: methods, Packs: config.Packs, Now: time.Now, Logger: log,
	})
	if err != nil {
		return err
	}
	key, err := f.key("tls.pem")
	if err != nil {
		return err
	}
	cert, err := mint.Certificate(key)
	if err != nil {
		return err
	}
	var monthly sync.WaitGroup
	defer monthly.Wait()
	ctx, end := context.WithCancel(ctx)
	defer end()
	// Who has just made a month's keys has time for the next month's.
	monthly.Go(func() { f.eachMonth(ctx, shown, signer, log, root != nil) })
	if err := ready(trust.URL); err != nil {
		return err
	}
	return m.Serve(ctx, l, cert, f.handler(m, keys))
}

// rootFor returns the root key where this month's keys are yet to be made and it is at
// hand, as in a mint of one's own that was away for long, or that is new.
func (f mintFolder) rootFor(ctx context.Context, log shownLog) (note.Signer, error) {
	_, _, err := log.Epoch(ctx, ticket.EpochAt(time.Now()))
	if err == nil {
		return nil, nil
	}
	k, rootErr := f.readRoot("")
	if !errors.Is(err, cloudpal.NotExist) || rootErr != nil || k.Plain == "" {
		return nil, cloudpal.E("find this month's keys", "", err).WithHint("make them: cloudpal mint keys add")
	}
	return k.open(nil)
}

// methods are how the mint is paid.
func (config mintConfig) methods(ctx context.Context, b *books.Books) (map[string]mint.Method, error) {
	methods := map[string]mint.Method{}
	if config.Vouchers {
		v, err := voucher.Open(ctx, b.DB())
		if err != nil {
			return nil, err
		}
		methods["voucher"] = mint.Method{Method: v, Class: ticket.Paid}
	}
	if config.BTCPay != nil {
		s, err := btcpay.New(*config.BTCPay, ask.NewClient(), time.Now)
		if err != nil {
			return nil, err
		}
		methods["btcpay"] = mint.Method{Method: s, Class: ticket.Paid}
	}
	if config.Card != nil {
		c, err := card.Open(ctx, *config.Card, ask.NewClient(), b.DB(), time.Now)
		if err != nil {
			return nil, err
		}
		methods["card"] = mint.Method{Method: c, Class: ticket.Paid}
	}
	return methods, nil
}

// handler puts the mint behind what hides who asks, and shows the log of its keys.
func (f mintFolder) handler(m *mint.Mint, log *keylog.Log) http.Handler {
	inner := m.Handler()
	gateway := oblivious.NewGateway(inner, f.receipt, time.Now)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == oblivious.Path || r.URL.Path == oblivious.KeysPath:
			gateway.ServeHTTP(w, r)
		case r.URL.Path == "/checkpoint" || strings.HasPrefix(r.URL.Path, "/tile/"):
			log.ServeHTTP(w, r)
		default:
			inner.ServeHTTP(w, r)
		}
	})
}

func (f mintFolder) openLedger(ctx context.Context, config mintConfig) (ledger.Ledger, error) {
	if config.Database != "" {
		return ledger.OpenPostgres(ctx, config.Database)
	}
	return ledger.OpenPebble(f.path("ledger"))
}

// maxSocket is how long a Unix socket's path can be.
const maxSocket = 100

// signerSocket is where the signer answers that the mint runs.
func (f mintFolder) signerSocket() string {
	if path := f.path("signer.sock"); len(path) <= maxSocket {
		return path
	}
	sum := sha256.Sum256([]byte(f))
	return filepath.Join(os.TempDir(), "cloudpal-mint-"+hex.EncodeToString(sum[:8]), "signer.sock")
}

// startSigner returns the signer that config.json names, or runs one.
func (f mintFolder) startSigner(ctx context.Context, config mintConfig, log *slog.Logger) (s *signing.Client, stop func(), err error) {
	if config.Signer != "" {
		s := signing.NewClient(config.Signer)
		return s, func() { s.Close() }, nil
	}
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	socket := f.signerSocket()
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		return nil, nil, cloudpal.E("start the signer", "", err)
	}
	// It ends after the mint, which asks it to the last.
	running, end := context.WithCancel(context.WithoutCancel(ctx))
	var kept sync.WaitGroup
	kept.Go(func() {
		signing.Keep(running, func(ctx context.Context) *exec.Cmd {
			cmd := exec.CommandContext(ctx, self, "mint", "signer", "--keys", f.path("keys"), "--listen", socket, "--end-with-input")
			cmd.Stderr = os.Stderr
			return cmd
		}, log)
	})
	s = signing.NewClient(socket)
	return s, func() { s.Close(); end(); kept.Wait() }, nil
}

// monthlyEvery is how often it is looked whether the next month has keys.
const monthlyEvery = time.Hour

// warnAhead is how long before its beginning a month without keys is worth a word.
const warnAhead = 7 * 24 * time.Hour

// eachMonth makes each month's keys, where the root key is at hand, and says so in time
// where it is not.
func (f mintFolder) eachMonth(ctx context.Context, log shownLog, signer signing.Signer, talk *slog.Logger, later bool) {
	tick := time.NewTicker(monthlyEvery)
	defer tick.Stop()
	for {
		next := ticket.EpochAt(time.Now()) + 1
		if _, _, err := log.Epoch(ctx, next); errors.Is(err, cloudpal.NotExist) && !later {
			f.nextMonth(ctx, log, signer, next, talk)
		}
		later = false
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func (f mintFolder) nextMonth(ctx context.Context, log shownLog, signer signing.Signer, e ticket.Epoch, talk *slog.Logger) {
	k, err := f.readRoot("")
	if err != nil || k.Plain == "" {
		if time.Until(e.Begins()) < warnAhead {
			talk.Warn("the next month has no keys: make them with cloudpal mint keys add", "month", e.Begins().Format("2006-01"))
		}
		return
	}
	root, err := k.open(nil)
	if err == nil {
		err = f.publishMonth(ctx, log, signer, root, e)
	}
	if err != nil && ctx.Err() == nil {
		talk.Error("the next month's keys are not published", "err", err)
	}
}

// quiet is for what a command does on the way.
func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
