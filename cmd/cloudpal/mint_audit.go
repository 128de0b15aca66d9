package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/mint/audit"
	"github.com/tradle/cloudpal/ticket/manifest"
)

const mintAuditHelp = `Check what a mint says of itself, as anybody can, by its MINT.JSON: that its log of
keys is the one that was seen before and that witnesses cosigned, that under no key
more tickets were redeemed than issued, that each root that it publishes is that of
what it shows, and that it does not change what it said before, which the audit
keeps for that.

With --own FILE, that what you have from the mint is in it: outputs that it signed
for a wallet, receipts for what a center deposited. With --seen FILE, that its log
is the one that somebody else was shown, who gives you their checkpoint.

It fails where anything is wrong. --json prints the evidence besides: what the mint
signed, which proves it to others. What an audit cannot see is tickets that a mint
makes for itself and counts as issued, as long as they are fewer than those that
people bought and have not spent.`

// newMintAudit returns "cloudpal mint audit".
func (c *cli) newMintAudit() *cobra.Command {
	var own, memory string
	var seen []string
	cmd := c.withJSON(&cobra.Command{
		Use: "audit MINT.JSON", Short: "Check what a mint says of itself", Long: mintAuditHelp,
		Example: `  cloudpal mint audit mint.json
  cloudpal mint audit mint.json --own receipts.json --json > report.json
  cloudpal mint audit mint.json --seen bobs-checkpoint.txt`,
		Args: exactArgs(1, "MINT.JSON is missing: the file that says whom to trust about the mint"),
		RunE: c.verb(func(ctx context.Context, args []string) error {
			return c.auditMint(ctx, args[0], own, memory, seen)
		}),
	})
	f := cmd.Flags()
	f.StringVar(&own, "own", "", "`FILE` of what you have from the mint, in JSON")
	f.StringArrayVar(&seen, "seen", nil, "`FILE` of a checkpoint that somebody else was shown")
	f.StringVar(&memory, "memory", "", "`FILE` of what the audit before saw (default: in audit in ~/.local/share/cloudpal)")
	return cmd
}

// maxAuditFile bounds a file of an audit, in bytes: counters of five months are below
// a quarter of it.
const maxAuditFile = 64 << 20

func (c *cli) auditMint(ctx context.Context, trustFile, own, memory string, seen []string) error {
	trust, err := manifest.Load(trustFile)
	if err != nil {
		return err
	}
	config := audit.Config{Trust: trust, Now: time.Now()}
	if memory == "" {
		if memory, err = c.auditMemory(trust); err != nil {
			return err
		}
	}
	if err := readAuditFile(memory, &config.Memory); err != nil && !errors.Is(err, cloudpal.NotExist) {
		return err
	}
	if own != "" {
		if err := readAuditFile(own, &config.Own); err != nil {
			return err
		}
	}
	for _, name := range seen {
		text, err := readAtMost(name, maxAuditFile)
		if err != nil {
			return err
		}
		config.Others = append(config.Others, manifest.Checkpoint(text))
	}
	client, err := api.Dial(trust.URL, nil)
	if err != nil {
		return err
	}
	defer client.Close()
	config.Mint = client
	report, err := audit.Run(ctx, config)
	if err != nil {
		return err
	}
	if err := keepAuditMemory(memory, report.Memory); err != nil {
		return err
	}
	if err := c.print(report, func(w io.Writer) { printAudit(w, report) }); err != nil {
		return err
	}
	if n := len(report.Findings); n > 0 {
		return cloudpal.E("audit the mint "+trust.Issuer, cloudpal.Denied, fmt.Errorf("%d things are wrong", n)).
			WithHint("buy no more tickets there; keep the evidence, which --json prints, and show it to others")
	}
	return nil
}

// auditMemory returns the file of what was seen of a mint, by its root key.
func (c *cli) auditMemory(trust *manifest.Trust) (string, error) {
	home, _, err := c.homeDir()
	if err != nil {
		return "", err
	}
	_, key, _ := strings.Cut(trust.Root, "+")
	hash, _, _ := strings.Cut(key, "+")
	return filepath.Join(home, "audit", trust.Issuer+"-"+hash+".json"), nil
}

func readAuditFile(name string, v any) error {
	data, err := readAtMost(name, maxAuditFile)
	if err != nil {
		return err
	}
	if err := decodeStrictly(data, v); err != nil {
		return cloudpal.E("read "+name, cloudpal.Invalid, err)
	}
	return nil
}

func readAtMost(name string, most int64) ([]byte, error) {
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, cloudpal.E("read "+name, cloudpal.NotExist, nil)
	}
	if err != nil {
		return nil, cloudpal.E("read "+name, "", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, cloudpal.E("read "+name, "", err)
	}
	if int64(len(data)) > most {
		return nil, cloudpal.E("read "+name, cloudpal.Invalid, fmt.Errorf("it has more than %d MiB", most>>20))
	}
	return data, nil
}

func keepAuditMemory(name string, m audit.Memory) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return cloudpal.E("keep what was seen of the mint", "", err)
	}
	return writeDurably(name, data, 0o600)
}

func printAudit(w io.Writer, r *audit.Report) {
	fmt.Fprintf(w, "%s: %d keys and %d hours checked, %d tickets issued, %d redeemed\n", plain(r.Mint), r.Keys, r.Hours, r.Issued, r.Redeemed)
	if r.Alone {
		fmt.Fprintln(w, "no witnesses: it could show each person other keys")
	}
	for _, f := range r.Findings {
		fmt.Fprintf(w, "WRONG: %s\n", plain(f.Text))
	}
	if len(r.Findings) == 0 {
		fmt.Fprintln(w, "nothing is wrong")
	}
}
