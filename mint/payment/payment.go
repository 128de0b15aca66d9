// Package payment is how a mint is paid: one small interface, behind which
// stand the methods of the packages below it.
//
// A mint has an order, which is its quote, and asks a Method to Begin it. From
// then on only Poll says what became of it. A webhook is a doorbell and no more:
// Hook checks that a service rang it and tells for which order, and the mint
// asks by Poll. So webhooks that come twice, out of order, late or again by
// somebody else's hand change nothing, and one that never comes is made good by
// asking now and then.
//
//	mint                       method                    service
//	Begin(order) ────────────► makes an invoice ───────► …
//	Started ◄─────────────────                           is paid
//	          webhook ◄────────────────────────────────┘
//	Hook(webhook) ───────────► order
//	Poll(order, ref) ────────► asks ───────────────────► …
//	Status ◄──────────────────
package payment

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// An Amount is money: so many of the currency's smallest coin.
type Amount struct {
	Minor    int64  `json:"minor"`    // cents, say
	Currency string `json:"currency"` // ISO 4217, upper case: "EUR"
}

// decimals are the currencies that have no cents, or three digits of them (ISO 4217).
// All others have two.
var decimals = map[string]int{
	"BIF": 0, "CLP": 0, "DJF": 0, "GNF": 0, "JPY": 0, "KMF": 0, "KRW": 0, "PYG": 0, "RWF": 0, "UGX": 0,
	"VND": 0, "VUV": 0, "XAF": 0, "XOF": 0, "XPF": 0, "SATS": 0,
	"BHD": 3, "IQD": 3, "JOD": 3, "KWD": 3, "LYD": 3, "OMR": 3, "TND": 3, "BTC": 8,
}

// Decimal returns the amount without its currency: "5.00".
func (a Amount) Decimal() string {
	digits, ok := decimals[a.Currency]
	if !ok {
		digits = 2
	}
	text := fmt.Sprintf("%0*d", digits+1, a.Minor)
	if digits == 0 {
		return text
	}
	return text[:len(text)-digits] + "." + text[len(text)-digits:]
}

// String returns the amount for people: "5.00 EUR".
func (a Amount) String() string { return a.Decimal() + " " + a.Currency }

// An Order is what is to be paid: a quote of the mint.
type Order struct {
	ID      string // of the quote: unique for ever, and no secret
	Amount  Amount
	Expires time.Time // until when it can be begun to be paid
}

// Started is how an order can be paid.
type Started struct {
	Ref string // what the method knows the order by; kept with the quote, for Poll
	URL string // the page to pay at; empty where the mint itself is paid: see Taker
}

// A State is what became of an order.
type State string

// The states. A method that says Paid, Dead or Reversed may later say another:
// money comes late, and is taken back.
//
//	Unpaid ──► Pending ──► Paid ──► Reversed
//	  └──────────┴───────► Dead
const (
	Unpaid   State = "unpaid"   // nothing was seen
	Pending  State = "pending"  // money is on its way, and may still not come
	Paid     State = "paid"     // the mint has it: issue
	Dead     State = "dead"     // it expired, was refused or paid in part, and nobody waits for more
	Reversed State = "reversed" // it was paid and taken back, by a dispute say; what was issued cannot be
)

// A Status is an order's state and what to tell the payer of it.
type Status struct {
	State State
	Hint  string // a sentence, or empty: why it is not paid yet, and what to do
}

// A Method is a way to pay. Its methods may be called by several goroutines at
// once, and again after a crash of either side: to repeat is to ask.
//
// Errors that are cloudpal.Missing, cloudpal.Busy or cloudpal.Timeout pass: the
// service or a database is not there. Others stay.
type Method interface {
	// Begin makes an order payable. The same order gives the same Started.
	Begin(ctx context.Context, o Order) (Started, error)

	// Poll says what became of an order that was begun.
	Poll(ctx context.Context, o Order, ref string) (Status, error)

	// Hook reads a webhook, which it reads no more of than it must, and returns
	// the ID of the order to Poll; empty where it is about none of this mint's.
	// Who serves it answers 200 when what Poll said is stored, 4xx for an error
	// that stays, and 503 for one that passes: the service comes again then. An
	// error of the kind cloudpal.Denied is a forgery.
	Hook(r *http.Request) (order string, err error)
}

// A Taker is a Method that is paid at the mint, with a secret such as a
// voucher's code. Once Take returns nil, Poll says Paid, for ever. The same
// secret for the same order is the same payment again; for another it is
// refused.
type Taker interface {
	Take(ctx context.Context, o Order, secret string) error
}
