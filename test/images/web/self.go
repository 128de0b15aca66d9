package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

func init() {
	answers["/self"] = func(r *http.Request) (string, error) {
		q := r.URL.Query()
		return askSelf(q.Get("method"), q.Get("path"))
	}
	answers["/follow"] = func(r *http.Request) (string, error) {
		return "following", follow(time.Duration(number(r, "ms")) * time.Millisecond)
	}
	answers["/resumed"] = func(*http.Request) (string, error) { return resumed.Load().(string), nil }
	resumed.Store("never")
}

// self is a client of this guest's own vminit.
var self = &http.Client{Transport: &http.Transport{
	DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", "/run/cloudpal/guest.sock")
	},
}}

func callSelf(method, path string) (*http.Response, error) {
	r, err := http.NewRequest(method, "http://self"+path, nil)
	if err != nil {
		return nil, err
	}
	return self.Do(r)
}

func askSelf(method, path string) (string, error) {
	resp, err := callSelf(method, path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return strings.TrimSpace(fmt.Sprint(resp.StatusCode, " ", string(text))), err
}

// resumed is the last resume that was acknowledged.
var resumed atomic.Value

// follow acknowledges this guest's resumes, each after it has thought for a
// while.
func follow(think time.Duration) error {
	resp, err := callSelf("GET", "/resumes")
	if err != nil {
		return err
	}
	go func() {
		defer resp.Body.Close()
		for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
			var r struct {
				N      int64
				Slept  time.Duration
				Reason string
			}
			if json.Unmarshal(lines.Bytes(), &r) != nil {
				return
			}
			time.Sleep(think)
			resumed.Store(fmt.Sprintf("%d %d %s", r.N, int(r.Slept.Minutes()), r.Reason))
			if _, err := askSelf("POST", fmt.Sprint("/resumes/", r.N)); err != nil {
				return
			}
		}
	}()
	return nil
}
