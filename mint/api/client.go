package api

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
)

// ErrUnreachable is in the trail of every error that says that no mint answers at
// the address: nothing was asked.
var ErrUnreachable = errors.New("no mint answers there")

// ErrOtherKey is in the trail of the error that says that somebody answers who is
// not the mint of the address.
var ErrOtherKey = errors.New("who answers there has another key than the address says")

const (
	maxAnswer        = 8 << 20 // bytes of one answer
	maxHeader        = 16 << 10
	dialTimeout      = 10 * time.Second
	handshakeTimeout = 10 * time.Second
	answerTimeout    = time.Minute // of the mint, where the context allows more
)

// A Dialer connects. It is net.Dialer's, but for who goes another way.
type Dialer interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
}

// A Client asks a mint. Its methods may be called from many goroutines; each ends
// when its context does. Their errors are *cloudpal.Error with the mint's kind and
// hint. Calls that say that an answer got lost are to be repeated.
type Client struct {
	base string
	http *http.Client
}

// Dial returns a client of the mint at an address: see Transport. Through may be nil.
// Dial connects only when something is asked.
func Dial(address string, through Dialer) (*Client, error) {
	base, by, err := Transport(address, through)
	if err != nil {
		return nil, err
	}
	return Over(base, by), nil
}

// Transport returns how to reach who answers at https://HOST[:PORT][#FINGERPRINT], and
// that address without the fingerprint. With a fingerprint, the SHA-256 of a public
// key in base64url, just who has that key is reached; without one, who shows a
// certificate for HOST, as web sites do. Through may be nil.
func Transport(address string, through Dialer) (base string, by *http.Transport, err error) {
	const op = "read a mint's address"
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || strings.Trim(u.Path, "/") != "" {
		return "", nil, cloudpal.E(op, cloudpal.Invalid, errors.New("it is not https://HOST:PORT")).WithHint("it stands in the mint.json that the mint's operator gives away")
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13}
	if u.Fragment != "" {
		pin, err := base64.RawURLEncoding.Strict().DecodeString(u.Fragment)
		if err != nil || len(pin) != sha256.Size {
			return "", nil, cloudpal.E(op, cloudpal.Invalid, errors.New("the key behind the # is not one of 43 characters"))
		}
		// The key is compared with the address's, in place of names and authorities.
		config.InsecureSkipVerify = true
		config.VerifyConnection = func(s tls.ConnectionState) error { return pinned(pin, s) }
	}
	if through == nil {
		through = &net.Dialer{Timeout: dialTimeout}
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host}).String(), &http.Transport{
		DialContext:            through.DialContext,
		TLSClientConfig:        config,
		TLSHandshakeTimeout:    handshakeTimeout,
		DisableCompression:     true,
		IdleConnTimeout:        30 * time.Second,
		MaxIdleConns:           4,
		MaxResponseHeaderBytes: maxHeader,
	}, nil
}

// Over returns a client that asks by a transport of its own, such as one that hides
// who asks. Base is https://HOST[:PORT].
func Over(base string, by http.RoundTripper) *Client {
	return &Client{base: base, http: &http.Client{
		Transport: by,
		Timeout:   answerTimeout,
		// A mint never sends one.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func pinned(want []byte, s tls.ConnectionState) error {
	if len(s.PeerCertificates) > 0 {
		got := sha256.Sum256(s.PeerCertificates[0].RawSubjectPublicKeyInfo)
		if subtle.ConstantTimeCompare(got[:], want) == 1 {
			return nil
		}
	}
	return ErrOtherKey
}

// Close lets go of connections that wait for another question.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Mint says what is sold.
func (c *Client) Mint(ctx context.Context) (Mint, error) {
	return ask[Mint](ctx, c, question{op: "ask the mint", path: "/v1/mint"})
}

// Manifest returns the keys of an epoch as package manifest reads and checks them.
func (c *Client) Manifest(ctx context.Context, e ticket.Epoch) ([]byte, error) {
	return c.octets(ctx, question{op: "fetch a mint's keys", path: "/v1/manifests/" + strconv.FormatUint(uint64(e), 10)})
}

// Quote asks what a pack costs.
func (c *Client) Quote(ctx context.Context, r QuoteRequest) (Quote, error) {
	return ask[Quote](ctx, c, question{op: "ask for a quote", path: "/v1/quotes", body: r})
}

// Look returns a quote.
func (c *Client) Look(ctx context.Context, quote string) (Quote, error) {
	return ask[Quote](ctx, c, question{op: "look at a quote", path: "/v1/quotes/" + url.PathEscape(quote)})
}

// Pay pays a quote with a voucher.
func (c *Client) Pay(ctx context.Context, quote, voucher string) (Quote, error) {
	return ask[Quote](ctx, c, question{op: "pay a quote", path: "/v1/quotes/" + url.PathEscape(quote) + "/pay", body: PayRequest{voucher}})
}

// Free returns a paid quote for free tickets.
func (c *Client) Free(ctx context.Context, r FreeRequest) (Quote, error) {
	return ask[Quote](ctx, c, question{op: "ask for free tickets", path: "/v1/free", body: r})
}

// Issue returns the signatures that a paid quote bought. The lock is the private key
// of the quote's.
func (c *Client) Issue(ctx context.Context, quote string, outputs []ticket.Output, lock ed25519.PrivateKey) ([][]byte, error) {
	r := IssueRequest{Quote: quote, Outputs: Outputs(outputs)}
	r.Signature = ed25519.Sign(lock, IssueText(quote, ticket.OutputsDigest(outputs)))
	return c.signatures(ctx, question{op: "have tickets issued", path: "/v1/issue", body: r}, len(outputs))
}

// Swap changes tickets. Each input is spent for the SwapContract of outputs. An error
// with *Spent in its trail says which was spent before.
func (c *Client) Swap(ctx context.Context, inputs []ticket.Spend, outputs []ticket.Output) ([][]byte, error) {
	return c.Recoup(ctx, inputs, nil, outputs)
}

// Recoup is Swap for tickets of which some are of a key that was revoked, with what shows
// that those are the mint's own: see SwapRequest.
func (c *Client) Recoup(ctx context.Context, inputs []ticket.Spend, seeds [][]byte, outputs []ticket.Output) ([][]byte, error) {
	r := SwapRequest{Outputs: Outputs(outputs), Seeds: seeds}
	for i := range inputs {
		r.Inputs = append(r.Inputs, inputs[i].Append(nil))
	}
	return c.signatures(ctx, question{op: "swap tickets", path: "/v1/swap", body: r}, len(outputs))
}

// Refund returns the signatures of those outputs that ticket.Change says.
func (c *Client) Refund(ctx context.Context, r RefundRequest) ([][]byte, error) {
	return c.signatures(ctx, question{op: "take change back", path: "/v1/refunds", body: r}, -1)
}

// Dispute opens a dispute, and looks at one that is open: the same request gives the
// same one.
func (c *Client) Dispute(ctx context.Context, r DisputeRequest) (Dispute, error) {
	return ask[Dispute](ctx, c, question{op: "dispute with a center", path: "/v1/disputes", body: r})
}

// Restore returns the signatures of outputs, and nil for each that was never signed.
func (c *Client) Restore(ctx context.Context, outputs []ticket.Output) ([][]byte, error) {
	return c.signatures(ctx, question{op: "restore tickets", path: "/v1/restore", body: RestoreRequest{Outputs(outputs)}}, len(outputs))
}

// Centers returns the directory of centers, unchecked.
func (c *Client) Centers(ctx context.Context) (Directory, error) {
	return ask[Directory](ctx, c, question{op: "list centers", path: "/v1/centers"})
}

// Counters returns the counters of an epoch, unchecked.
func (c *Client) Counters(ctx context.Context, e ticket.Epoch) (Counters, error) {
	return ask[Counters](ctx, c, question{op: "fetch a mint's counters", path: "/v1/counters/" + strconv.FormatUint(uint64(e), 10)})
}

// A Kind of leaves.
type Kind string

// What an hour's roots are over.
const (
	LeafOutputs  Kind = "outputs"
	LeafSpent    Kind = "spent"
	LeafDeposits Kind = "deposits"
)

// Leaves returns what an hour's root is over, sorted.
func (c *Client) Leaves(ctx context.Context, key ticket.KeyID, kind Kind, hour int64) ([][32]byte, error) {
	const op = "fetch what a mint counted"
	b, err := c.octets(ctx, question{op: op, path: fmt.Sprintf("/v1/leaves/%x/%s/%d", key[:], kind, hour)})
	if err != nil {
		return nil, err
	}
	if len(b)%32 != 0 {
		return nil, cloudpal.E(op, cloudpal.Corrupt, errors.New("the answer is not of hashes"))
	}
	leaves := make([][32]byte, 0, len(b)/32)
	for ; len(b) > 0; b = b[32:] {
		leaves = append(leaves, [32]byte(b))
	}
	return leaves, nil
}

// A CenterClient asks a mint as a center does: it signs what it asks.
type CenterClient struct {
	*Client
	key ed25519.PrivateKey
	now func() time.Time
}

// As returns a client that signs with a center's key, by its clock.
func (c *Client) As(center ed25519.PrivateKey, now func() time.Time) *CenterClient {
	return &CenterClient{c, center, now}
}

// Deposit has a payment credited. An error with *Spent in its trail says that the
// ticket was spent before, and proves it.
func (c *CenterClient) Deposit(ctx context.Context, p ticket.PayContract, s ticket.Spend) (Receipt, error) {
	r := DepositRequest{
		Spend: s.Append(nil), Center: p.Center[:], Hidden: p.Hidden[:], Amount: p.Amount, NotBefore: p.NotBefore.UTC(), Blank: p.Blank[:],
	}
	return ask[Receipt](ctx, c.Client, question{op: "deposit a ticket", path: "/v1/deposits", body: r, key: c.key, at: c.now()})
}

// Account returns the center's account with its deposits after number after.
func (c *CenterClient) Account(ctx context.Context, after int64) (Account, error) {
	return ask[Account](ctx, c.Client, question{op: "ask what the mint owes", path: "/v1/account?after=" + strconv.FormatInt(after, 10), key: c.key, at: c.now()})
}

// Disputes returns what is open against the center.
func (c *CenterClient) Disputes(ctx context.Context) ([]Dispute, error) {
	return ask[[]Dispute](ctx, c.Client, question{op: "ask for disputes", path: "/v1/disputes", key: c.key, at: c.now()})
}

// Answer answers a dispute.
func (c *CenterClient) Answer(ctx context.Context, dispute string, r AnswerRequest) (Dispute, error) {
	return ask[Dispute](ctx, c.Client, question{op: "answer a dispute", path: "/v1/disputes/" + url.PathEscape(dispute), body: r, key: c.key, at: c.now()})
}

// A question is one request. With a body it is a POST, else a GET.
type question struct {
	op   string
	path string
	body any
	key  ed25519.PrivateKey // that signs it; nil: nobody's
	at   time.Time          // when
}

func (q question) request(ctx context.Context, base string) (*http.Request, error) {
	if q.body == nil {
		return http.NewRequestWithContext(ctx, http.MethodGet, base+q.path, nil)
	}
	data, err := json.Marshal(q.body)
	if err != nil {
		return nil, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, base+q.path, bytes.NewReader(data))
	if err == nil {
		r.Header.Set("Content-Type", "application/json")
	}
	return r, err
}

func (c *Client) octets(ctx context.Context, q question) ([]byte, error) {
	r, err := q.request(ctx, c.base)
	if err != nil {
		return nil, cloudpal.E(q.op, cloudpal.Invalid, err)
	}
	if q.key != nil {
		if err := SignRequest(r, q.key, q.at); err != nil {
			return nil, cloudpal.E(q.op, "", err)
		}
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return nil, failure(ctx, q.op, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, failure(ctx, q.op, err)
	}
	if len(data) > maxAnswer {
		return nil, cloudpal.E(q.op, cloudpal.Corrupt, fmt.Errorf("the mint's answer is above %d MiB", maxAnswer>>20))
	}
	if resp.StatusCode/100 != 2 {
		return nil, refused(q.op, resp.StatusCode, data)
	}
	return data, nil
}

func ask[T any](ctx context.Context, c *Client, q question) (T, error) {
	var answer T
	data, err := c.octets(ctx, q)
	if err != nil {
		return answer, err
	}
	if err := json.Unmarshal(data, &answer); err != nil {
		return answer, cloudpal.E(q.op, cloudpal.Corrupt, err).WithHint("is it a mint, and of the same version?")
	}
	return answer, nil
}

// signatures asks for n signatures, or any number where n is below 0. It leaves it
// to the wallet to check them.
func (c *Client) signatures(ctx context.Context, q question, n int) ([][]byte, error) {
	s, err := ask[Signatures](ctx, c, q)
	if err != nil {
		return nil, err
	}
	if n >= 0 && len(s.Signatures) != n {
		return nil, cloudpal.E(q.op, cloudpal.Corrupt, fmt.Errorf("%d signatures came for %d outputs", len(s.Signatures), n))
	}
	return s.Signatures, nil
}

// failure says that a question or its answer got lost.
func failure(ctx context.Context, op string, err error) error {
	var wrapped *url.Error
	var dial *net.OpError
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return cloudpal.E(op, cloudpal.Timeout, ctx.Err())
	case ctx.Err() != nil:
		return cloudpal.E(op, cloudpal.Other, ctx.Err())
	case errors.Is(err, ErrOtherKey):
		return cloudpal.E(op, cloudpal.Denied, ErrOtherKey).
			WithHint("do not go on: ask the mint's operator, by another way, what its address is")
	case errors.As(err, &dial) && dial.Op == "dial":
		return cloudpal.E(op, cloudpal.Missing, fmt.Errorf("%w: %w", ErrUnreachable, dial.Err)).
			WithHint("is the mint running, and does the address still lead to it?")
	case errors.As(err, &wrapped):
		err = wrapped.Err
	}
	return cloudpal.E(op, cloudpal.Other, fmt.Errorf("the mint's answer got lost: %w", err)).WithHint("try it again: a mint gives the same answer")
}

// refused reads why the mint said no.
func refused(op string, status int, data []byte) error {
	var p Problem
	if json.Unmarshal(data, &p) != nil || p.Title == "" {
		return cloudpal.E(op, cloudpal.Other, fmt.Errorf("it answered %d", status)).
			WithHint("is it a mint, and of the same version?")
	}
	return cloudpal.E(op, "", p.Err())
}
