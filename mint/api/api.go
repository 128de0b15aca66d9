// Package api is the HTTPS interface of a mint: the JSON it speaks, what is signed
// in it, and a client for it.
//
//	GET  /v1/mint                 Mint: what is sold, and how it is paid
//	GET  /v1/manifests/{epoch}    octets: the epoch's keys as package manifest reads them
//	POST /v1/quotes               QuoteRequest -> Quote; the same lock gives the same quote
//	GET  /v1/quotes/{id}          Quote
//	POST /v1/quotes/{id}/pay      PayRequest -> Quote; for methods that are paid at the mint
//	POST /v1/free                 FreeRequest -> Quote, paid: a free pack of an account
//	POST /v1/issue                IssueRequest -> Signatures
//	POST /v1/swap                 SwapRequest -> Signatures
//	POST /v1/deposits             DepositRequest -> Receipt; of a center
//	POST /v1/refunds              RefundRequest -> Signatures
//	POST /v1/disputes             DisputeRequest -> Dispute
//	GET  /v1/disputes             []Dispute, open ones against a center; of a center
//	POST /v1/disputes/{id}        AnswerRequest -> Dispute; of a center
//	POST /v1/restore              RestoreRequest -> Signatures, null for what was not signed
//	GET  /v1/centers              Directory
//	GET  /v1/account[?after=N]    Account; of a center
//	GET  /v1/counters/{epoch}     Counters
//	GET  /v1/leaves/{key}/{outputs|spent|deposits}/{hour}  octets: what an hour's root is over, 32 bytes each
//	POST /v1/hooks/{method}       a payment service's webhook
//
// "Of a center" means that the request is signed by the center's key (RFC 9421).
// Nobody else has an account, and nothing asks who a person is.
//
// To repeat a call is always right and gives the same answer: who lost one sends the
// same bytes again. All signatures of tickets are blind, in the order of the
// outputs.
//
// Errors are problem+json (RFC 9457), type Problem: they say the kind of trouble and
// what to do, and never more, but for a ticket that was spent before, whose problem
// has the Evidence.
package api

import (
	"time"

	"github.com/tradle/cloudpal/ticket"
)

// Bounds of what a mint takes and gives.
const (
	MaxBody     = 1 << 20 // bytes of a request
	MaxOutputs  = 100     // outputs of an issue, a swap or a restore
	MaxInputs   = 100     // of a swap
	MaxPayments = 1000    // of a tab in a dispute
)

// AnswerTime is how long a center has to answer a dispute.
const AnswerTime = 24 * time.Hour

// A Mint says what is sold here.
type Mint struct {
	Issuer  string       `json:"issuer"`
	Epoch   ticket.Epoch `json:"epoch"` // that issues now
	Time    time.Time    `json:"time"`  // of the mint's clock
	Methods []Method     `json:"methods"`
	Packs   []Pack       `json:"packs"`
}

// A Method is a way to pay.
type Method struct {
	Name  string       `json:"name"`
	Class ticket.Class `json:"class"` // of the tickets it buys
	Here  bool         `json:"here"`  // paid with Pay; else at the Quote's link
}

// A Pack is what one can buy: packs are few, so that what somebody bought says
// little.
type Pack struct {
	Name    string                `json:"name"`
	Tickets []ticket.Denomination `json:"tickets"` // the smallest first
	Price   int64                 `json:"price"`   // in the currency's smallest coin
	Code    string                `json:"currency"`
}

// A State is what became of a quote. Issued and Expired are final, but for a late
// payment: it makes an expired quote paid.
type State string

// The states.
const (
	Unpaid  State = "unpaid"
	Paid    State = "paid"
	Issued  State = "issued"
	Expired State = "expired"
)

// A QuoteRequest asks what a pack costs.
type QuoteRequest struct {
	Method string `json:"method"`
	Pack   string `json:"pack"`
	Lock   []byte `json:"lock"` // an Ed25519 public key, fresh for each quote: who has its private key gets the tickets
}

// A Quote is one purchase.
type Quote struct {
	ID       string                `json:"id"`
	State    State                 `json:"state"`
	Class    ticket.Class          `json:"class"`
	Pack     string                `json:"pack"`
	Tickets  []ticket.Denomination `json:"tickets"` // what to make outputs of, in this order
	Method   string                `json:"method"`
	Pay      string                `json:"pay,omitempty"` // the page to pay at; empty: pay here
	Price    int64                 `json:"price"`
	Currency string                `json:"currency"`
	Expires  time.Time             `json:"expires"`
	Hint     string                `json:"hint,omitempty"` // why it is not paid yet
}

// A PayRequest pays a quote at the mint.
type PayRequest struct {
	Voucher string `json:"voucher"`
}

// A FreeRequest asks for free tickets of an account: so many packs an epoch.
type FreeRequest struct {
	Account string `json:"account"` // its secret
	Pack    string `json:"pack"`
	Lock    []byte `json:"lock"`
}

// An Output is a ticket.Output.
type Output struct {
	Key     []byte `json:"key"`
	Blinded []byte `json:"blinded"`
}

// Signatures are blind signatures, of ticket.BlindSize bytes each.
type Signatures struct {
	Signatures [][]byte `json:"signatures"`
}

// An IssueRequest asks for what a paid quote bought: one output for each of its
// Tickets, in their order, under keys of the epoch that issues now.
type IssueRequest struct {
	Quote     string   `json:"quote"`
	Outputs   []Output `json:"outputs"`
	Signature []byte   `json:"signature"` // by the quote's lock, over IssueText
}

// A SwapRequest changes tickets for others of the same value. Each input is a
// ticket.Spend for the ticket.SwapContract of the outputs. Where one input turns out
// to be spent, the others may be bound to these outputs: the wallet repeats the
// swap with the same outputs and another ticket in its place.
type SwapRequest struct {
	Inputs  [][]byte `json:"inputs"`
	Outputs []Output `json:"outputs"` // under keys of the epoch that issues now
	// Seeds has, where a key is revoked, a ticket.BlindSeed for each input of it, and
	// nothing for the others: it shows that the mint has signed that ticket. It shows,
	// too, what was signed together with it, and for whom.
	Seeds [][]byte `json:"seeds,omitempty"`
}

// A DepositRequest is a ticket.PayContract and the ticket.Spend for it.
type DepositRequest struct {
	Spend     []byte              `json:"spend"`
	Center    []byte              `json:"center"`
	Hidden    []byte              `json:"hidden"`
	Amount    ticket.Denomination `json:"amount"`
	NotBefore time.Time           `json:"notBefore"`
	Blank     []byte              `json:"blank"`
}

// A Receipt says that a ticket was deposited and its worth credited to a center.
type Receipt struct {
	Serial    []byte              `json:"serial"` // of the ticket
	Key       []byte              `json:"key"`    // its ticket.KeyID
	Center    []byte              `json:"center"`
	Amount    ticket.Denomination `json:"amount"`
	Contract  []byte              `json:"contract"` // its digest
	Credited  time.Time           `json:"credited"` // in whole hours
	Epoch     ticket.Epoch        `json:"epoch"`    // whose manifest has the receipt key that signed it
	Signature []byte              `json:"signature"`
}

// A RefundRequest gives back what is not used of a ticket that was deposited: the
// outputs whose digest is the contract's Blank, of which ticket.Change says which
// are signed. Payer and center sign the same.
type RefundRequest struct {
	Serial  []byte       `json:"serial"`
	Units   ticket.Units `json:"units"`
	Outputs []Output     `json:"outputs"`
	Payer   []byte       `json:"payer"`  // by the ticket's key, over RefundText
	Center  []byte       `json:"center"` // by the center's, over RefundText
}

// A Payment is one ticket of a tab: what was hidden from the mint, and the contract
// besides.
type Payment struct {
	Serial    []byte              `json:"serial"`
	Tariff    []byte              `json:"tariff"`
	Nonce     []byte              `json:"nonce"`
	Amount    ticket.Denomination `json:"amount"`
	NotBefore time.Time           `json:"notBefore"`
	Blank     []byte              `json:"blank"`
}

// A DisputeRequest says that a center does not give back what is not used of a tab.
// It opens the tab to the mint: all its payments in full, and the last that the
// center signed of the meter. The mint gives back, of the last payment, what all
// payments were worth less what was used and what was given back already.
type DisputeRequest struct {
	Center    []byte    `json:"center"`
	Tab       []byte    `json:"tab"` // an Ed25519 public key: its owner countersigns the meter
	Payments  []Payment `json:"payments"`
	Record    []byte    `json:"record,omitempty"`          // a ticket.Record; none: nothing was used
	Signature []byte    `json:"recordSignature,omitempty"` // by the center
	Outputs   []Output  `json:"outputs"`                   // of the last payment's Blank
	Public    []byte    `json:"public"`                    // the last payment's ticket's
	Payer     []byte    `json:"payer"`                     // by that ticket's key, over DisputeText
}

// A DisputeState is how far a dispute is.
type DisputeState string

// The states.
const (
	Open    DisputeState = "open"    // the center can answer
	Settled DisputeState = "settled" // Units are given back
)

// A Dispute is what became of a DisputeRequest.
type Dispute struct {
	ID         string       `json:"id"`
	State      DisputeState `json:"state"`
	Tab        []byte       `json:"tab"`
	Serial     []byte       `json:"serial"` // of the last payment's ticket
	Record     []byte       `json:"record,omitempty"`
	Until      time.Time    `json:"until"`                // when it is settled if the center is silent
	Units      ticket.Units `json:"units"`                // to give back: claimed while open
	Signatures [][]byte     `json:"signatures,omitempty"` // of those outputs that ticket.Change says, once settled
}

// An AnswerRequest is a center's answer to a dispute: a later record of the tab that
// the pal's side countersigned.
type AnswerRequest struct {
	Record        []byte `json:"record"`
	Countersigned []byte `json:"countersigned"` // by the tab's key, over the record as ticket.Record signs
}

// A RestoreRequest asks which outputs were ever signed: for a wallet that lost all
// but its seed.
type RestoreRequest struct {
	Outputs []Output `json:"outputs"`
}

// A Center is one that takes tickets of this mint.
type Center struct {
	ID   []byte `json:"id"` // its ticket.CenterID
	Name string `json:"name"`
	URL  string `json:"url"` // as package center/api reads addresses
}

// A Directory lists the centers.
type Directory struct {
	Centers   []Center     `json:"centers"`
	Time      time.Time    `json:"time"`
	Epoch     ticket.Epoch `json:"epoch"` // of the receipt key
	Signature []byte       `json:"signature"`
}

// An Account is what the mint owes a center.
type Account struct {
	Balance  ticket.Units `json:"balance"` // for paid tickets
	Free     ticket.Units `json:"free"`    // for free ones, which it pays nothing for
	Held     ticket.Units `json:"held"`    // of it, for open disputes
	Deposits []Deposit    `json:"deposits"`
	Payouts  []Payout     `json:"payouts"` // the newest 100, the newest first
}

// A Payout says that the mint paid a center for units that it owed.
type Payout struct {
	Center    []byte       `json:"center"`
	N         int64        `json:"n"` // counts the center's, from 1
	Units     ticket.Units `json:"units"`
	Reference string       `json:"reference"` // of the transfer, as the mint's operator notes it
	At        time.Time    `json:"at"`
	Epoch     ticket.Epoch `json:"epoch"` // whose manifest has the receipt key that signed it
	Signature []byte       `json:"signature"`
}

// A Deposit is one of an account's, numbered from 1.
type Deposit struct {
	N        int64        `json:"n"`
	Receipt  Receipt      `json:"receipt"`
	Refunded ticket.Units `json:"refunded"`
}

// Counters say how much was signed and spent under each of an epoch's keys, by the
// hour, so that anyone can see that no more is redeemed than was issued.
type Counters struct {
	Issuer    string       `json:"issuer"`
	Epoch     ticket.Epoch `json:"epoch"`
	Time      time.Time    `json:"time"`
	Keys      []KeyCounter `json:"keys"`
	Signed    ticket.Epoch `json:"signed"` // whose manifest has the receipt key that signed it
	Signature []byte       `json:"signature"`
}

// A KeyCounter is one key's.
type KeyCounter struct {
	Key      []byte `json:"key"` // its ticket.KeyID
	Issued   int64  `json:"issued"`
	Redeemed int64  `json:"redeemed"`
	Refunded int64  `json:"refunded"` // of those issued, as change
	Hours    []Hour `json:"hours"`
}

// An Hour counts what was done in it. The roots are those that Root returns of
// BlindedHash of each output, of each serial, and of Leaf of each deposit's receipt,
// sorted; the roots of what was spent and deposited come a day late.
type Hour struct {
	Hour     int64  `json:"hour"` // since 1970
	Issued   int64  `json:"issued"`
	Redeemed int64  `json:"redeemed"`
	Refunded int64  `json:"refunded"`
	Outputs  []byte `json:"outputs,omitempty"`
	Spent    []byte `json:"spent,omitempty"`
	Deposits []byte `json:"deposits,omitempty"`
}

// A Problem is an error as it crosses HTTP (RFC 9457).
type Problem struct {
	Title    string `json:"title"`  // a cloudpal.Kind
	Status   int    `json:"status"` // HTTP status
	Hint     string `json:"hint,omitempty"`
	Evidence []byte `json:"evidence,omitempty"` // that a ticket was spent before, as ParseEvidence reads it
}
