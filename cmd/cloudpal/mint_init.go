package main

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/mod/sumdb/note"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/mint"
	"github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/mint/books"
	"github.com/tradle/cloudpal/mint/signing"
	"github.com/tradle/cloudpal/mint/signing/vault"
	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/manifest"
)

const mintInitHelp = `Make a mint's folder: its keys, what it sells, and the log in which its keys are
published, with those of this month and the next. Where there are witnesses, who
have to know the log before they cosign it, "cloudpal mint keys add" publishes them.

The root key signs each month's keys. It is sealed with a passphrase that is asked
for, or read from standard input. With --root it is written to another place
instead, such as a stick that you take away, and the folder never has it. With --own
it stays in the folder as it is: the mint then makes each month's keys by itself,
and who can read the folder can make keys that your wallet believes.

A mint that others buy from needs at least two witnesses, run by others than you:
give each as --witness KEY,URL. Without, wallets say that the mint could show each
of them other keys, and call it a mint of one's own.`

// mintOptions are what "cloudpal mint init" is told.
type mintOptions struct {
	folder, issuer, url, listen, database, signer, root string
	own                                                 bool
	later                                               bool // its first keys are made when it serves
	witnesses                                           []string
	quorum                                              int
}

// defaultMintListen is where a mint answers that is told nothing else: on this
// machine alone.
const defaultMintListen = "127.0.0.1:7445"

// freePacks is how many free packs the account has that a new mint makes.
const freePacks = 31

// defaultPacks are what a new mint sells. A day of the smallest VM is one ticket.
func defaultPacks() []api.Pack {
	days := func(n int) (list []ticket.Denomination) {
		for range n {
			list = append(list, 64)
		}
		return list
	}
	return []api.Pack{
		{Name: "day", Tickets: days(1), Price: 10, Code: "EUR"},
		{Name: "week", Tickets: days(7), Price: 70, Code: "EUR"},
		{Name: "month", Tickets: days(30), Price: 300, Code: "EUR"},
	}
}

func (c *cli) mintInit() *cobra.Command {
	o := mintOptions{}
	cmd := c.withMint(&cobra.Command{
		Use: "init", Short: "Make a mint", Long: mintInitHelp,
		Example: `  cloudpal mint init
  cloudpal mint init --own
  cloudpal mint init --issuer mint.example --url https://mint.example:7445 --listen :7445
  cloudpal mint init --root /media/stick/root.key --witness "$KEY1,https://w1.example" --witness "$KEY2,https://w2.example"`,
		Args: cobra.NoArgs,
		RunE: c.verb(func(ctx context.Context, _ []string) error { return c.initMint(ctx, o) }),
	}, &o.folder)
	f := cmd.Flags()
	f.StringVar(&o.issuer, "issuer", "mint.local", "the mint's `NAME`, which its tickets have in them, such as mint.example")
	f.StringVar(&o.url, "url", "", "where it is reached, `https://HOST:PORT` (default: where it listens)")
	f.StringVar(&o.listen, "listen", defaultMintListen, "TCP `[IP]:PORT` to answer on; port 0 takes a free one")
	f.StringVar(&o.database, "database", "", "`postgres://...` for its books and spent tickets (default: files in the folder)")
	f.StringVar(&o.signer, "signer", "", "`SOCKET` of a signer that runs by itself, as another user (default: the mint runs one)")
	f.StringVar(&o.root, "root", "", "`FILE` that the root key is written to, which the folder then has not")
	f.BoolVar(&o.own, "own", false, "leave the root key in the folder as it is: for a mint of your own")
	f.StringArrayVar(&o.witnesses, "witness", nil, "`KEY,URL` of one who sees to it that the mint shows all the same keys")
	f.IntVar(&o.quorum, "quorum", 0, "how many witnesses have to cosign (default: 2 where there are any)")
	for _, name := range []string{"issuer", "url", "listen", "database", "witness", "quorum"} {
		c.offerFlag(cmd, name, words())
	}
	return cmd
}

func (c *cli) initMint(ctx context.Context, o mintOptions) error {
	f, err := c.mintDir(o.folder)
	if err != nil {
		return err
	}
	if o.own && o.root != "" {
		return usage{errors.New("--own leaves the root key in the folder, --root takes it away")}
	}
	trust, err := c.makeMint(ctx, f, o)
	if err != nil {
		return err
	}
	return c.saidMint(f, o, trust)
}

// makeMint makes a mint beside the place where it goes, and moves it there when it is
// whole.
func (c *cli) makeMint(ctx context.Context, f mintFolder, o mintOptions) (*manifest.Trust, error) {
	op := "make a mint in " + string(f)
	if _, err := os.Stat(string(f)); err == nil {
		return nil, cloudpal.E(op, cloudpal.Exist, nil).WithHint("one is there: cloudpal mint serve; or give another --folder")
	}
	draft := mintFolder(string(f) + ".new")
	if err := errors.Join(os.RemoveAll(string(draft)), os.MkdirAll(draft.path("receipts"), 0o700)); err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	defer os.RemoveAll(string(draft))
	trust, err := c.draftMint(ctx, draft, o)
	if err != nil {
		return nil, err
	}
	if err := os.Rename(string(draft), string(f)); err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	if err := syncFolder(filepath.Dir(string(f))); err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	return trust, nil
}

// saidMint says what to do with a mint that was just made.
func (c *cli) saidMint(f mintFolder, o mintOptions, trust *manifest.Trust) error {
	fmt.Fprintf(c.out, "%s\n", f.path("mint.json"))
	fmt.Fprintf(c.err, "The mint %s is made. Give mint.json to wallets and centers; answer with: cloudpal mint serve\n", trust.Issuer)
	if trust.Alone() {
		fmt.Fprintln(c.err, "It has no witnesses: it is a mint of your own, and wallets will say so.")
	} else {
		fmt.Fprintf(c.err, "Tell its witnesses the key of its log: cloudpal mint witness --log '%s'\n", trust.Log)
		fmt.Fprintln(c.err, "Then publish its keys: cloudpal mint keys add")
	}
	if o.root != "" {
		fmt.Fprintf(c.err, "Its root key is in %s: take that away from this machine.\n", o.root)
	}
	return nil
}

func syncFolder(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// draftMint makes all that is in a mint's folder.
func (c *cli) draftMint(ctx context.Context, f mintFolder, o mintOptions) (*manifest.Trust, error) {
	rootSecret, rootKeyText, err := note.GenerateKey(rand.Reader, o.issuer)
	if err != nil {
		return nil, usage{fmt.Errorf("--issuer %.80q: a mint's name is a host name, such as mint.example", o.issuer)}
	}
	logSecret, logKeyText, err := note.GenerateKey(rand.Reader, o.issuer+"/log")
	if err != nil {
		return nil, err
	}
	if err := c.keepRoot(f, o, rootSecret); err != nil {
		return nil, err
	}
	if err := f.write("log.key", []byte(logSecret), 0o600); err != nil {
		return nil, err
	}
	trust := &manifest.Trust{Issuer: o.issuer, Root: rootKeyText, Log: logKeyText, Quorum: o.quorum}
	config := mintConfig{Database: o.database, Signer: o.signer, Packs: defaultPacks(), Vouchers: true}
	for _, w := range o.witnesses {
		key, url, ok := strings.Cut(w, ",")
		if !ok {
			return nil, usage{fmt.Errorf("--witness %.80q: it is KEY,URL", w)}
		}
		trust.Witnesses, config.Witnesses = append(trust.Witnesses, key), append(config.Witnesses, url)
	}
	if o.quorum == 0 && len(o.witnesses) > 0 {
		trust.Quorum = manifest.MinQuorum
	}
	if config.Listen, trust.URL, err = f.addresses(o); err != nil {
		return nil, err
	}
	data, err := trust.Marshal()
	if err != nil {
		return nil, err
	}
	err = errors.Join(f.write("mint.json", data, 0o644), f.writeJSON("config.json", config, 0o600))
	if err != nil {
		return nil, err
	}
	if err := f.makeAccount(ctx, config); err != nil {
		return nil, err
	}
	if !trust.Alone() || o.later {
		return trust, nil // witnesses have to be told of the log first
	}
	root, err := note.NewSigner(rootSecret)
	if err != nil {
		return nil, err
	}
	return trust, f.publish(ctx, config, root)
}

// keepRoot writes the root key where it was asked for.
func (c *cli) keepRoot(f mintFolder, o mintOptions, secret string) error {
	var passphrase []byte
	var err error
	if !o.own && o.root == "" {
		if passphrase, err = c.newPassphrase(); err != nil {
			return err
		}
	}
	k, err := sealRoot(secret, passphrase)
	if err != nil {
		return err
	}
	if o.root == "" {
		return f.writeJSON("root.key", k, 0o600)
	}
	if _, err := os.Lstat(o.root); err == nil {
		return cloudpal.E("write "+o.root, cloudpal.Exist, nil).WithHint("name a file that is not there yet")
	}
	away := mintFolder(filepath.Dir(o.root))
	return away.writeJSON(filepath.Base(o.root), k, 0o600)
}

// addresses returns where the mint listens, and its URL, which names the key that it
// answers with.
func (f mintFolder) addresses(o mintOptions) (listen, url string, err error) {
	host, port, err := net.SplitHostPort(o.listen)
	if err != nil {
		return "", "", usage{fmt.Errorf("--listen %.80q: it is [IP]:PORT, such as 127.0.0.1:7445 or :7445", o.listen)}
	}
	if port == "0" {
		l, err := net.Listen("tcp", o.listen)
		if err != nil {
			return "", "", cannotListen(o.listen, err)
		}
		_, port, _ = net.SplitHostPort(l.Addr().String())
		l.Close()
	}
	listen = net.JoinHostPort(host, port)
	key, err := f.key("tls.pem")
	if err != nil {
		return "", "", err
	}
	cert, err := mint.Certificate(key)
	if err != nil {
		return "", "", err
	}
	if url = strings.TrimSuffix(o.url, "/"); url == "" {
		if host == "" || net.ParseIP(host).IsUnspecified() {
			host = "127.0.0.1"
		}
		url = "https://" + net.JoinHostPort(host, port)
	}
	url += "#" + mint.Fingerprint(cert)
	if _, _, err := api.Transport(url, nil); err != nil {
		return "", "", usage{fmt.Errorf("--url %.80q: it is https://HOST:PORT", o.url)}
	}
	return listen, url, nil
}

// makeAccount makes the first account for free tickets.
func (f mintFolder) makeAccount(ctx context.Context, config mintConfig) error {
	secret := make([]byte, 20)
	rand.Read(secret)
	text := strings.ToLower(base32.StdEncoding.EncodeToString(secret))
	b, err := f.openBooks(ctx, config)
	if err != nil {
		return err
	}
	hash := mint.AccountHash(text)
	return errors.Join(b.Allow(ctx, hash[:], "own", freePacks), b.Close(), f.write("account", []byte(text+"\n"), 0o600))
}

func (f mintFolder) openBooks(ctx context.Context, config mintConfig) (*books.Books, error) {
	place := config.Database
	if place == "" {
		place = f.path("books.db")
	}
	return books.Open(ctx, place)
}

// openSigner returns the mint's signer for a command: that which runs, or the folder's
// keys.
func (f mintFolder) openSigner(config mintConfig) (s signing.Signer, close func() error, err error) {
	socket := config.Signer
	if socket == "" {
		if v, err := vault.Open(f.path("keys"), time.Now, quiet()); err == nil {
			return v, v.Close, nil
		} else if !errors.Is(err, cloudpal.Busy) {
			return nil, nil, err
		}
		socket = f.signerSocket() // of the mint that runs
	}
	client := signing.NewClient(socket)
	return client, client.Close, nil
}

// publish makes and publishes the keys of this month and the next, where they are
// not.
func (f mintFolder) publish(ctx context.Context, config mintConfig, root note.Signer) error {
	signer, done, err := f.openSigner(config)
	if err != nil {
		return err
	}
	defer done()
	log, trust, err := f.openLog(config, time.Now)
	if err != nil {
		return err
	}
	defer log.Close()
	shown := shownLog{log, trust, time.Now}
	now := ticket.EpochAt(time.Now())
	for _, e := range []ticket.Epoch{now, now + 1} {
		if _, _, err := shown.Epoch(ctx, e); err == nil {
			continue
		}
		if err := f.publishMonth(ctx, shown, signer, root, e); err != nil {
			return err
		}
	}
	return nil
}

// publishTime is how long witnesses have to answer.
const publishTime = time.Minute

func (f mintFolder) publishMonth(ctx context.Context, log shownLog, signer signing.Signer, root note.Signer, e ticket.Epoch) error {
	receipt, err := f.key(receiptFile(e))
	if err != nil {
		return err
	}
	var keys []*ticket.Key
	for _, class := range ticket.Classes {
		for _, d := range ticket.Denominations {
			k, err := signer.Generate(ctx, class, d, e)
			if err != nil {
				return err
			}
			keys = append(keys, k)
		}
	}
	m, err := manifest.New(log.trust.Issuer, e, receipt.Public().(ed25519.PublicKey), keys)
	if err != nil {
		return err
	}
	entry, err := m.Sign(root)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, publishTime)
	defer cancel()
	return log.Publish(ctx, entry, m.Public())
}
