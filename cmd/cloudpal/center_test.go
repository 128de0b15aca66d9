package main

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
	mintapi "github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/mint/audit"
)

// Receipts are printed as an audit reads them: of one mint, from a day on, in no order
// that tells anything.
func TestReceiptsForAnAudit(t *testing.T) {
	day := time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC)
	var page api.Receipts
	for _, r := range []struct {
		issuer string
		serial byte
		at     time.Time
	}{{"one.example", 3, day}, {"one.example", 1, day.Add(time.Hour)}, {"one.example", 2, day.Add(-time.Hour)}, {"two.example", 4, day}} {
		signed, err := json.Marshal(mintapi.Receipt{Serial: []byte{r.serial}, Amount: 64, Credited: r.at})
		if err != nil {
			t.Fatal(err)
		}
		page.Receipts = append(page.Receipts, api.Receipt{Issuer: r.issuer, Signed: signed})
	}
	take := func(o receiptsOptions) map[string][]mintapi.Receipt {
		all := map[string][]mintapi.Receipt{}
		if err := o.take(page, all); err != nil {
			t.Fatal(err)
		}
		return all
	}
	w, out, _ := newWorld("")
	c := &cli{world: w, json: true}
	if err := c.printReceipts(take(receiptsOptions{mint: "one.example", since: date(day)})); err != nil {
		t.Fatal(err)
	}
	var own audit.Own
	if err := decodeStrictly(out.Bytes(), &own); err != nil || len(own.Receipts) != 2 || own.Receipts[0].Serial[0] != 1 || own.Receipts[1].Serial[0] != 3 {
		t.Errorf("an audit reads %+v (%v)", own, err)
	}
	out.Reset()
	if err := c.printReceipts(take(receiptsOptions{})); !errors.Is(err, cloudpal.Invalid) || !strings.Contains(cloudpal.HintOf(err), "--mint one.example") || out.Len() > 0 {
		t.Errorf("of two mints: %v, printed %q", err, out)
	}
	tableReceipts(out, take(receiptsOptions{}))
	if got := strings.Fields(strings.Split(out.String(), "\n")[1]); strings.Join(got, " ") != "one.example 3 192 2026-11-19 2026-11-20" {
		t.Errorf("the table has %q", got)
	}
}

// What no center can be told is refused with an example of what can.
func TestWrongCenters(t *testing.T) {
	for line, want := range map[string]string{
		"center nonsense":                           `no command "nonsense"`,
		"center --listen 7443":                      ":7443",
		"center --listen center.example:7443":       ":7443",
		"center --listen :70000":                    ":7443",
		"center --listen=":                          "answers somewhere",
		"center --advertise center.example":         "203.0.113.5",
		"center --advertise 0.0.0.0":                "203.0.113.5",
		"center --advertise fe80::1%eth0":           "203.0.113.5",
		"center --advertise 203.0.113.5:7443":       "203.0.113.5",
		"center --udp-ports 9-1":                    "51820-52819",
		"center --udp-ports 51820-51829":            "--max-pals is 100",
		"center --max-pals 0":                       "at least 1",
		"center --max-owned -1":                     "at least 1",
		"center --idle 10ms":                        "--idle",
		"center --seal -1h":                         "--seal",
		"center --tickets mint.json":                "--tariff",
		"center --tariff tariff.json":               "--tickets",
		"center --pal-memory much":                  "256M",
		"center --prefix6 2001:db8::1/64":           "2001:db8:1:2::/64",
		"center --prefix6 2001:db8::/128":           "2001:db8:1:2::/64",
		"center --prefix6 10.0.0.0/8":               "2001:db8:1:2::/64",
		"center --prefix6 nonsense":                 "--prefix6",
		"center --armed -1":                         "--armed",
		"host --prefix6 2001:db8::/120":             "2001:db8:1:2::/64",
		"center status extra":                       "extra",
		"center receipts extra":                     "extra",
		"center receipts --since yesterday":         "2026-11-01",
		"center --listen :7443 --advertise nowhere": "203.0.113.5",
	} {
		w, out, errs := newWorld("")
		got := run(context.Background(), w, strings.Fields(line))
		if got != 2 || out.Len() > 0 || !strings.Contains(errs.String(), want) || !strings.Contains(errs.String(), "\nhint: cloudpal") {
			t.Errorf("%s: got status %d, output %q and %q, want 2 and a sentence with %q", line, got, out, errs, want)
		}
	}
}
