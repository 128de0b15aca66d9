// Package ask asks payment services over HTTP: with a deadline, to a limit, and again
// where that is harmless and the trouble passes. It tells nobody a service's secrets,
// nor what a service answers to a mistake.
package ask

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/tradle/cloudpal"
)

const (
	maxAnswer = 1 << 20          // bytes
	tryFor    = 15 * time.Second // one try
	tries     = 4
	firstWait = 200 * time.Millisecond
	longest   = 5 * time.Second // that is waited between two tries
)

// A Service is where to ask.
type Service struct {
	Name      string // for errors
	Base      string // https://HOST, without a slash at its end
	Authorize func(http.Header)
	Client    *http.Client
}

// NewClient returns a client as payment services need it: it follows no redirects,
// which would take secrets elsewhere.
func NewClient() *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: 10 * time.Second}).DialContext,
			TLSHandshakeTimeout:    10 * time.Second,
			ResponseHeaderTimeout:  tryFor,
			IdleConnTimeout:        time.Minute,
			MaxResponseHeaderBytes: 64 << 10,
			ForceAttemptHTTP2:      true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// A Question is one call. It is asked again when it fails only with Again, which says
// that to ask twice is to ask once: because it only looks, or has a key by which the
// service knows it again.
type Question struct {
	Method, Path string
	Type         string // of Body
	Body         []byte
	Header       map[string]string
	Again        bool
}

// Do asks, and reads the answer, which is JSON, into answer. Errors of the kinds
// cloudpal.Missing, Busy and Timeout pass; NotExist is that the service has no such
// thing.
func (s *Service) Do(ctx context.Context, q Question, answer any) error {
	op := fmt.Sprintf("ask %s", s.Name)
	wait := firstWait
	for try := 1; ; try++ {
		data, after, err := s.try(ctx, q)
		if err == nil {
			return s.decode(op, data, answer)
		}
		if !q.Again || try == tries || !passes(err) || ctx.Err() != nil {
			return cloudpal.E(op, "", err)
		}
		if !sleep(ctx, min(longest, max(after, jitter(wait)))) {
			return cloudpal.E(op, cloudpal.Timeout, errors.Join(ctx.Err(), err))
		}
		wait *= 3
	}
}

func (s *Service) decode(op string, data []byte, answer any) error {
	if err := json.Unmarshal(data, answer); err != nil {
		return cloudpal.E(op, cloudpal.Corrupt, errors.New("its answer is not what its documentation says"))
	}
	return nil
}

func (s *Service) try(ctx context.Context, q Question) (data []byte, after time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, tryFor)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, q.Method, s.Base+q.Path, bytes.NewReader(q.Body))
	if err != nil {
		return nil, 0, cloudpal.E("", cloudpal.Invalid, errors.New("its address is none"))
	}
	if q.Type != "" {
		r.Header.Set("Content-Type", q.Type)
	}
	r.Header.Set("Accept", "application/json")
	for name, value := range q.Header {
		r.Header.Set(name, value)
	}
	s.Authorize(r.Header)
	resp, err := s.Client.Do(r)
	if err != nil {
		return nil, 0, lost(ctx)
	}
	defer resp.Body.Close()
	data, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return nil, 0, lost(ctx)
	}
	if len(data) > maxAnswer {
		return nil, 0, cloudpal.E("", cloudpal.Corrupt, errors.New("its answer is too large"))
	}
	if resp.StatusCode/100 != 2 {
		return nil, retryAfter(resp.Header), failed(resp.StatusCode)
	}
	return data, 0, nil
}

// lost is an answer that did not come. The error that net/http has of it names the
// address, which may be private.
func lost(ctx context.Context) error {
	if ctx.Err() != nil {
		return cloudpal.E("", cloudpal.Timeout, errors.New("it does not answer in time"))
	}
	return cloudpal.E("", cloudpal.Missing, errors.New("it cannot be reached"))
}

// failed is what a status means.
func failed(status int) error {
	err := fmt.Errorf("it answers with status %d", status)
	switch {
	case status == http.StatusNotFound:
		return cloudpal.E("", cloudpal.NotExist, err)
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return cloudpal.E("", cloudpal.Denied, err).WithHint("check the mint's key for the payment service, and what it may do")
	case status == http.StatusTooManyRequests || status == http.StatusConflict:
		return cloudpal.E("", cloudpal.Busy, err)
	case status >= 500:
		return cloudpal.E("", cloudpal.Missing, err)
	}
	return cloudpal.E("", cloudpal.Invalid, err)
}

func passes(err error) bool {
	return errors.Is(err, cloudpal.Missing) || errors.Is(err, cloudpal.Busy) || errors.Is(err, cloudpal.Timeout)
}

func retryAfter(h http.Header) time.Duration {
	seconds, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || seconds < 0 {
		return 0
	}
	return time.Duration(min(seconds, int(longest/time.Second))) * time.Second
}

// jitter is about d, so that those who failed together do not come back together.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d) }

func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// ReadHook reads a webhook's body to a limit. The error is who sends too much.
func ReadHook(r *http.Request, most int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r.Body, most+1))
	if err != nil {
		return nil, cloudpal.E("read a webhook", cloudpal.Timeout, errors.New("it did not come whole"))
	}
	if int64(len(data)) > most {
		return nil, cloudpal.E("read a webhook", cloudpal.Invalid, fmt.Errorf("it is above %d bytes", most))
	}
	return data, nil
}
