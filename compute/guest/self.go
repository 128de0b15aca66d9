package guest

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/tradle/cloudpal"
)

// SelfSocket is where vminit listens to the programs of its own guest. It
// speaks HTTP:
//
//	PUT    /busy/{name}?for=10m       keeps the VM awake so long, at most MaxBusy
//	DELETE /busy/{name}
//	PUT    /wake/{name}?at=TIME       has the VM run at that time (RFC 3339); past: now
//	DELETE /wake/{name}
//	GET    /wishes                    Wishes: all of that together
//	GET    /resumes                   a Resume a line, the latest first, then each as it comes
//	POST   /resumes/{n}               acknowledges one
//
// After a nap longer than LongNap, packets wait until a program that reads
// /resumes has acknowledged the resume, for at most AckWait.
const SelfSocket = "/run/cloudpal/guest.sock"

// selfTimeout bounds a question to this guest's own vminit.
const selfTimeout = 10 * time.Second

// maxResume bounds a line of the resumes in bytes.
const maxResume = 4 << 10

// A Self lets a program speak for the VM that it runs in. Make it with
// OpenSelf; its methods may be called from many goroutines.
type Self struct{ http *http.Client }

// OpenSelf finds the VM that this program runs in. Elsewhere the error is of
// kind cloudpal.Missing.
func OpenSelf() (*Self, error) {
	if _, err := os.Stat(SelfSocket); err != nil {
		return nil, cloudpal.E("find the VM that this runs in", cloudpal.Missing, err)
	}
	return DialSelf(SelfSocket), nil
}

// DialSelf is OpenSelf where the socket is at another place. It connects only
// when asked something.
func DialSelf(socket string) *Self {
	return &Self{&http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
		MaxIdleConns: 1,
	}}}
}

// Busy keeps the VM awake for d, at most MaxBusy, or until Idle, for a job of
// that name. Said again, the last word counts.
func (s *Self) Busy(name string, d time.Duration) error {
	return s.say(http.MethodPut, "/busy/"+url.PathEscape(name)+"?for="+url.QueryEscape(d.String()))
}

// Idle takes Busy back.
func (s *Self) Idle(name string) error {
	return s.say(http.MethodDelete, "/busy/"+url.PathEscape(name))
}

// WakeAt has the VM run at t, whether it sleeps or not. The zero time takes
// back what was said under the name.
func (s *Self) WakeAt(name string, t time.Time) error {
	path := "/wake/" + url.PathEscape(name)
	if t.IsZero() {
		return s.say(http.MethodDelete, path)
	}
	return s.say(http.MethodPut, path+"?at="+url.QueryEscape(t.UTC().Format(time.RFC3339Nano)))
}

// Wishes returns what all programs of the VM have said together.
func (s *Self) Wishes() (w Wishes, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), selfTimeout)
	defer cancel()
	resp, err := s.ask(ctx, http.MethodGet, "/wishes")
	if err != nil {
		return w, cloudpal.E("ask for this VM's wishes", "", err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer)).Decode(&w); err != nil {
		return w, cloudpal.E("ask for this VM's wishes", cloudpal.Corrupt, err)
	}
	return w, nil
}

// Resumes calls each for the VM's latest resume, if there was one, and for those
// to come, until ctx ends or an error. When each returns the resume is
// acknowledged: after a nap longer than LongNap no packet comes before that, or
// before AckWait is over.
func (s *Self) Resumes(ctx context.Context, each func(Resume)) error {
	const op = "follow this VM's resumes"
	resp, err := s.ask(ctx, http.MethodGet, "/resumes")
	if err != nil {
		return cloudpal.E(op, "", err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxResume)
	for lines.Scan() {
		var r Resume
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return cloudpal.E(op, cloudpal.Corrupt, err)
		}
		each(r)
		if err := s.say(http.MethodPost, "/resumes/"+strconv.FormatInt(r.N, 10)); err != nil {
			return err
		}
	}
	err = lines.Err()
	switch {
	case ctx.Err() != nil:
		err = ctx.Err()
	case err == nil:
		err = io.ErrUnexpectedEOF
	}
	return cloudpal.E(op, "", err)
}

// say asks for something that has no answer.
func (s *Self) say(method, path string) error {
	ctx, cancel := context.WithTimeout(context.Background(), selfTimeout)
	defer cancel()
	resp, err := s.ask(ctx, method, path)
	if err != nil {
		return cloudpal.E("speak for this VM", "", err)
	}
	return resp.Body.Close()
}

func (s *Self) ask(ctx context.Context, method, path string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://self"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 500))
	kind := cloudpal.Other
	switch resp.StatusCode {
	case http.StatusBadRequest:
		kind = cloudpal.Invalid
	case http.StatusConflict:
		kind = cloudpal.Busy
	}
	return nil, cloudpal.E("", kind, fmt.Errorf("%s", strings.TrimSpace(string(text))))
}
