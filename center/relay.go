package center

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
)

// lockPort is where a core answers its host, and nobody else, about its lock.
const lockPort = 7460

const (
	relayTimeout = 90 * time.Second // an unlock that formats the volume included
	dialTimeout  = 2 * time.Second
	redialEvery  = 50 * time.Millisecond
	maxCore      = 64 << 10 // bytes of a core's answer; it is the tenant's, and not to be trusted
)

// lock makes the pal's core run and asks it whether it is locked.
func (c *Center) lock(ctx context.Context, p *pal) (l api.Lock, err error) {
	resp, err := c.askCore(ctx, p, http.MethodGet, "/v1/lock", nil)
	if err != nil {
		return l, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return l, coreFailed(fmt.Errorf("it answered %d", resp.StatusCode))
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxCore)).Decode(&l); err != nil {
		return l, coreFailed(err)
	}
	return l, nil
}

// unlock makes the pal's core run and hands it what was sealed to it.
func (c *Center) unlock(ctx context.Context, p *pal, sealed []byte) error {
	resp, err := c.askCore(ctx, p, http.MethodPost, "/v1/unlock", sealed)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK, http.StatusNoContent:
		return nil
	case http.StatusForbidden:
		return refuse(cloudpal.Denied, "the core refused it: ask for the lock again and seal it to the key there")
	case http.StatusConflict:
		return refuse(cloudpal.Exist, "the core is unlocked already")
	case http.StatusTooManyRequests:
		return refuse(cloudpal.Busy, "the core was asked too often; try it again in a minute")
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge:
		return refuse(cloudpal.Invalid, "the core could not read it")
	}
	return coreFailed(fmt.Errorf("it answered %d", resp.StatusCode))
}

// countersign asks the pal's core to agree with a record, and hands what it says to
// the till. A core that is locked, or is of an earlier image, or does not agree is no
// trouble of the center's: a device of the person can countersign, too.
func (c *Center) countersign(ctx context.Context, p *pal, tab api.TabRequest, m api.Meter) error {
	offer, ok := c.till.OfferOf(p.Owner, tab.ID)
	if !ok {
		return nil
	}
	body, err := json.Marshal(struct {
		Nonce     []byte `json:"nonce"`
		Offer     []byte `json:"offer"`
		Record    []byte `json:"record"`
		Signature []byte `json:"signature"`
	}{tab.Nonce, offer.Text, m.Record, m.Signature})
	if err != nil {
		return err
	}
	resp, err := c.askCore(ctx, p, http.MethodPost, "/v1/countersign", body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		c.log.Debug("a core does not countersign", "pal", p.ID, "status", resp.StatusCode)
		return nil
	}
	var answer struct {
		Signature []byte `json:"signature"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxCore)).Decode(&answer); err != nil {
		return coreFailed(err)
	}
	_, err = c.till.Countersign(p.Owner, tab.ID, api.CountersignRequest{Record: m.Record, Signature: answer.Signature})
	return err
}

func coreFailed(err error) error { return cloudpal.E("ask a core", cloudpal.Other, err) }

// askCore makes the core run and asks it. The caller closes the answer's body.
// What is asked is of the center's own making but for the body.
func (c *Center) askCore(ctx context.Context, p *pal, method, path string, body []byte) (*http.Response, error) {
	v, err := c.run(ctx, p)
	if err != nil {
		return nil, err
	}
	if len(v.Addresses) == 0 {
		return nil, coreFailed(errors.New("its VM has no address"))
	}
	ctx, cancel := context.WithTimeout(ctx, relayTimeout)
	at := netip.AddrPortFrom(v.Addresses[0], lockPort).String()
	r, err := http.NewRequestWithContext(ctx, method, "http://"+at+path, bytes.NewReader(body))
	if err != nil {
		cancel()
		return nil, coreFailed(err)
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/octet-stream")
	}
	transport := &http.Transport{
		DialContext: dialCore, DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: 16 << 10,
	}
	letGo := c.keepAwake(ctx, p)
	resp, err := transport.RoundTrip(r)
	letGo()
	if err != nil {
		late := ctx.Err() != nil
		cancel()
		if late {
			return nil, cloudpal.E("ask a core", cloudpal.Timeout, err)
		}
		return nil, coreFailed(err)
	}
	resp.Body = closer{resp.Body, cancel}
	return resp, nil
}

// stayEvery is how often a core is woken that is asked something.
const stayEvery = time.Second

// keepAwake wakes the core again should it nap before it has answered: what the
// center asks it is no traffic that it stays awake for.
func (c *Center) keepAwake(ctx context.Context, p *pal) (letGo func()) {
	ctx, cancel := context.WithCancel(ctx)
	var task sync.WaitGroup
	task.Go(func() {
		tick := time.NewTicker(stayEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				// An error is one of the host's, and the question's to meet.
				_, _ = c.host.Resume(ctx, p.vm())
			case <-ctx.Done():
				return
			}
		}
	})
	return func() { cancel(); task.Wait() }
}

// closer ends what an answer's body needs when it is closed.
type closer struct {
	io.ReadCloser
	cancel context.CancelFunc
}

func (c closer) Close() error {
	defer c.cancel()
	return c.ReadCloser.Close()
}

// dialCore connects to a core, which may have booted just now and not listen
// yet, or nap at this very moment. It tries anew rather than wait for an
// answer to what got lost: TCP would, ever more slowly.
func dialCore(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout}
	for {
		conn, err := d.DialContext(ctx, network, addr)
		if err == nil {
			return conn, nil
		}
		t := time.NewTimer(redialEvery)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return nil, err
		}
	}
}
