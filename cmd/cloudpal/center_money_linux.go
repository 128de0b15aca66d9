//go:build amd64

package main

import (
	"crypto/ed25519"
	"log/slog"
	"time"

	"github.com/tradle/cloudpal/center"
	"github.com/tradle/cloudpal/center/till"
	mint "github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/ticket/manifest"
)

// money reads what the operator says about it: nil where pals are free of charge.
func (o *centerOptions) money(log *slog.Logger) (*center.Money, error) {
	if len(o.tickets) == 0 {
		return nil, nil
	}
	terms, err := till.LoadTerms(o.tariff)
	if err != nil {
		return nil, err
	}
	var trusts []*manifest.Trust
	for _, file := range o.tickets {
		t, err := manifest.Load(file)
		if err != nil {
			return nil, err
		}
		if t.Alone() {
			log.Warn("a mint without witnesses could give each person keys of their own; take its tickets only if it is yours", "issuer", t.Issuer)
		}
		trusts = append(trusts, t)
	}
	return &center.Money{Terms: terms, Mints: func(key ed25519.PrivateKey) (list []till.Issuer, err error) {
		for _, t := range trusts {
			c, err := mint.Dial(t.URL, nil)
			if err != nil {
				return nil, err
			}
			list = append(list, till.Issuer{Trust: t, Mint: c.As(key, time.Now)})
		}
		return list, nil
	}}, nil
}
