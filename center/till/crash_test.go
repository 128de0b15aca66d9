package till

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/rpc"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
	mint "github.com/tradle/cloudpal/mint/api"
	"github.com/tradle/cloudpal/test/bank"
	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/manifest"
)

// The tests that kill a till run it in a process of its own: this program again.
const childEnv = "CLOUDPAL_TILL_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		if err := child(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A setup is what a child is told, in a file of its folder.
type setup struct {
	Key   []byte
	Trust []byte
	Start time.Time
}

// haste is how fast the child's clock goes.
const haste = 600

func hastened(start time.Time) func() time.Time {
	return func() time.Time { return start.Add(haste * time.Since(start)) }
}

// child runs a till that takes payments over a socket, until it is killed.
func child(dir string) error {
	var s setup
	data, err := os.ReadFile(filepath.Join(dir, "setup"))
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil {
		return err
	}
	trust, err := manifest.ParseTrust(s.Trust)
	if err != nil {
		return err
	}
	conn, err := rpc.Dial("unix", filepath.Join(dir, "mint"))
	if err != nil {
		return err
	}
	t, err := Open(Config{
		Dir: filepath.Join(dir, "till"), Key: s.Key, Issuers: []Issuer{{trust, far{conn}}},
		Terms: Terms{Tariff: tariff}, Log: slog.New(slog.DiscardHandler), Now: hastened(s.Start),
	})
	if err != nil {
		return err
	}
	go func() {
		for {
			t.Deposit(context.Background())
			t.Review()
			time.Sleep(5 * time.Millisecond) // the pace of the work, not a wait for any
		}
	}()
	socket := filepath.Join(dir, "s")
	os.Remove(socket)
	l, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var q order
		err := json.NewDecoder(r.Body).Decode(&q)
		var v any
		switch {
		case err != nil:
		case r.URL.Path == "/open":
			v, err = t.OpenTab(q.Account, q.Tab)
		case r.URL.Path == "/pay":
			v, err = t.Pay(r.Context(), q.Account, q.Tab.ID, q.Pay)
		}
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		json.NewEncoder(w).Encode(v)
	}))
}

type order struct {
	Account api.Fingerprint
	Tab     api.TabRequest
	Pay     api.PayRequest
}

// far is a mint in another process.
type far struct{ *rpc.Client }

// A DepositCall is what far.Deposit asks a Desk.
type DepositCall struct {
	Contract []byte
	Spend    []byte
}

func (f far) Deposit(_ context.Context, c ticket.PayContract, s ticket.Spend) (r mint.Receipt, err error) {
	data, err := json.Marshal(c)
	if err != nil {
		return r, err
	}
	return r, f.Call("Desk.Deposit", DepositCall{data, s.Append(nil)}, &r)
}

func (f far) Manifest(_ context.Context, e ticket.Epoch) (raw []byte, err error) {
	if err = f.Call("Desk.Manifest", e, &raw); err != nil && err.Error() == string(cloudpal.NotExist) {
		err = cloudpal.NotExist
	}
	return raw, err
}

func (f far) Disputes(context.Context) ([]mint.Dispute, error) { return nil, nil }
func (f far) Answer(context.Context, string, mint.AnswerRequest) (mint.Dispute, error) {
	return mint.Dispute{}, nil
}

// A Desk answers for a bank.
type Desk struct{ b *bank.Bank }

// Deposit answers far.Deposit.
func (d *Desk) Deposit(q DepositCall, r *mint.Receipt) (err error) {
	var c ticket.PayContract
	if err := json.Unmarshal(q.Contract, &c); err != nil {
		return err
	}
	s, err := ticket.ParseSpend(q.Spend)
	if err == nil {
		*r, err = d.b.Deposit(context.Background(), c, s)
	}
	return err
}

// Manifest answers far.Manifest.
func (d *Desk) Manifest(e ticket.Epoch, raw *[]byte) (err error) {
	if *raw, err = d.b.Manifest(context.Background(), e); errors.Is(err, cloudpal.NotExist) {
		return cloudpal.NotExist
	}
	return err
}

// A till that is killed at any instant has what it gave its word for, and deposits
// and gives change for each ticket once.
func TestKilledAtAnyInstant(t *testing.T) {
	t.Parallel()
	const people, tickets, kills = 5, 24, 12
	begin := time.Now()
	now := hastened(begin)
	b := bank.New(t, now)
	b.Publish(t, ticket.EpochAt(now())+1) // where the month ends meanwhile
	_, key, _ := ed25519.GenerateKey(nil)
	dir, err := os.MkdirTemp("", "till")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	trust, err := b.Trust.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	data, _ := json.Marshal(setup{key, trust, begin})
	if err := os.WriteFile(filepath.Join(dir, "setup"), data, 0o600); err != nil {
		t.Fatal(err)
	}
	desk := rpc.NewServer()
	if err := desk.Register(&Desk{b}); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "mint"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for conn, err := l.Accept(); err == nil; conn, err = l.Accept() {
			go desk.ServeConn(conn)
		}
	}()

	// The offer is the first child's to make: it is there before anybody pays.
	config := Config{Dir: filepath.Join(dir, "till"), Key: key, Issuers: []Issuer{{b.Trust, b}}, Terms: Terms{Tariff: tariff}, Log: slog.New(slog.DiscardHandler), Now: now}
	first, err := Open(config)
	if err != nil {
		t.Fatal(err)
	}
	offer := first.Offer()
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	type purse struct {
		*bank.Payer
		pays  []api.PayRequest
		words [][]byte
	}
	var purses []*purse
	for range people {
		p := &purse{Payer: bank.NewPayer(t, b)}
		for range tickets {
			p.pays = append(p.pays, p.Pays(offer, p.Buy(ticket.Paid, 64, ticket.EpochAt(now())), time.Time{}))
		}
		purses = append(purses, p)
	}
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", filepath.Join(dir, "s"))
		},
	}}
	ask := func(path string, q order) ([]byte, error) {
		body, _ := json.Marshal(q)
		resp, err := client.Post("http://till"+path, "application/json", bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		answer, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode != http.StatusOK {
			err = errors.New(string(answer))
		}
		return answer, err
	}
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	done := make(chan struct{})
	killed := make(chan int, 1)
	begun := make(chan struct{}) // a payment that a till has the tab of
	go func() {
		n := 0
		for ctx.Err() == nil {
			c := exec.Command(os.Args[0])
			c.Env = append(os.Environ(), childEnv+"="+dir)
			c.Stderr = os.Stderr
			if err := c.Start(); err != nil {
				t.Error(err)
				break
			}
			for range 1 + rand.IntN(8) {
				select {
				case <-begun:
				case <-done:
				}
			}
			time.Sleep(time.Duration(rand.IntN(3000)) * time.Microsecond) // anywhere in a payment
			c.Process.Kill()
			c.Wait()
			n++
			select {
			case <-done:
				killed <- n
				return
			default:
			}
		}
		killed <- n
	}()
	var all sync.WaitGroup
	for _, p := range purses {
		all.Go(func() {
			for i := 0; i < len(p.pays) && ctx.Err() == nil; {
				q := order{p.Account, p.Request, p.pays[i]}
				if _, err := ask("/open", q); err != nil {
					time.Sleep(5 * time.Millisecond) // it is being started
					continue
				}
				select {
				case begun <- struct{}{}:
				default:
				}
				word, err := ask("/pay", q)
				if err != nil {
					continue
				}
				p.words = append(p.words, word)
				i++
			}
		})
	}
	all.Wait()
	close(done)
	if n := <-killed; n < kills {
		t.Errorf("killed %d times only, want %d", n, kills)
	}
	if ctx.Err() != nil {
		t.Fatal("it does not come to an end")
	}

	late := bank.NewClock(now().Add(time.Hour))
	config.Now = late.Now
	till, err := Open(config)
	if err != nil {
		t.Fatal(err)
	}
	defer till.Close()
	for range 3 {
		till.Deposit(t.Context())
		late.Add(time.Hour)
	}
	if got := b.Deposited(); got != people*tickets*64 {
		t.Errorf("the mint has %d units, want %d", got, people*tickets*64)
	}
	for _, p := range purses {
		for i, word := range p.words {
			again, err := till.Pay(t.Context(), p.Account, p.Request.ID, p.pays[i])
			if err != nil {
				t.Fatalf("a payment that it gave its word for: %v", err)
			}
			var before api.Signed
			if err := json.Unmarshal(word, &before); err != nil || !bytes.Equal(before.Text, again.Text) || !bytes.Equal(before.Signature, again.Signature) {
				t.Fatalf("its word is another: %s, before %s", again.Text, word)
			}
		}
		signed, err := till.CloseTab(p.Account, p.Request.ID)
		if err != nil {
			t.Fatal(err)
		}
		var closed api.Closed
		if err := json.Unmarshal(signed.Text, &closed); err != nil {
			t.Fatal(err)
		}
		r, err := ticket.ParseRecord(closed.Meter.Record)
		if err != nil {
			t.Fatal(err)
		}
		var back ticket.Units
		for _, f := range closed.Refunds {
			back += p.Refund(f)
		}
		if back+r.Used != tickets*64 {
			t.Errorf("of %d units %d are used and %d come back", tickets*64, r.Used, back)
		}
	}
}
