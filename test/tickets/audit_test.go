package tickets

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/mint/audit"
	"github.com/tradle/cloudpal/ticket"
)

// A forgetful mint leaves one deposit out of what it says, and signs that.
type forgetful struct {
	*api.Client
	key  ed25519.PrivateKey
	leaf [32]byte
}

func (f forgetful) Leaves(ctx context.Context, id ticket.KeyID, kind api.Kind, hour int64) ([][32]byte, error) {
	all, err := f.Client.Leaves(ctx, id, kind, hour)
	return slices.DeleteFunc(all, func(leaf [32]byte) bool { return leaf == f.leaf }), err
}

func (f forgetful) Counters(ctx context.Context, e ticket.Epoch) (api.Counters, error) {
	c, err := f.Client.Counters(ctx, e)
	if err != nil || len(c.Signature) == 0 {
		return c, err
	}
	for _, k := range c.Keys {
		for i := range k.Hours {
			h := &k.Hours[i]
			if len(h.Deposits) == 0 {
				continue
			}
			left, err := f.Leaves(ctx, ticket.KeyID(k.Key), api.LeafDeposits, h.Hour)
			if err != nil {
				return c, err
			}
			root := api.Root(left)
			h.Deposits = root[:]
		}
	}
	c.Signature = ed25519.Sign(f.key, c.Text())
	return c, nil
}

// receipts are all that a center's operator has.
func (c *center) receipts() (list []api.Receipt) {
	c.Helper()
	for after := ""; ; {
		page, err := c.Receipts(after, 1)
		c.must(err)
		for _, r := range page.Receipts {
			var signed api.Receipt
			c.must(json.Unmarshal(r.Signed, &signed))
			list = append(list, signed)
		}
		if after = page.Next; after == "" {
			return list
		}
	}
}

// Each deposit of a center's is counted by its mint, and one that is left out is found, by
// what the center has kept.
func TestAuditOfDeposits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	c, p := w.center(), w.person()
	p.buys()
	desk := counter{c, p.account}
	p.funds(desk)
	c.count(p, 0)
	c.passes(p, 40*time.Hour)
	w.Add(30 * time.Hour) // a day late, what was deposited is published
	own := audit.Own{Receipts: c.receipts()}
	config := audit.Config{Mint: w.client(), Trust: w.trust, Now: w.Now(), Own: own}
	r, err := audit.Run(t.Context(), config)
	w.must(err)
	if len(r.Findings) > 0 || len(r.Counted) != len(own.Receipts) || len(own.Receipts) < 2 {
		t.Fatalf("of %d deposits %d are counted, and wrong is %+v", len(own.Receipts), len(r.Counted), r.Findings)
	}
	for _, missing := range own.Receipts {
		config.Mint = forgetful{w.client(), w.receipts, missing.Leaf()}
		r, err := audit.Run(t.Context(), config)
		w.must(err)
		if len(r.Findings) != 1 || !strings.Contains(r.Findings[0].Text, "a deposit of paid 64") || len(r.Counted) != len(own.Receipts)-1 {
			t.Errorf("without one deposit %d are counted, and wrong is %+v", len(r.Counted), r.Findings)
		}
	}
}
