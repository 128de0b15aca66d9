package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/tradle/cloudpal"
)

// Pull gets an image from a registry. Report, which may be nil, is called for
// each line of progress, from this goroutine.
func (c *Client) Pull(ctx context.Context, r PullRequest, report func(Progress)) (Image, error) {
	return c.fetch(ctx, question{op: "pull " + r.Ref, method: http.MethodPost, path: "/v1/images/pull", body: r}, report)
}

// Import gets an image from the host's file system. Report is as Pull's.
func (c *Client) Import(ctx context.Context, r ImportRequest, report func(Progress)) (Image, error) {
	return c.fetch(ctx, question{op: "import " + r.Path, method: http.MethodPost, path: "/v1/images/import", body: r}, report)
}

// fetch follows a pull or import to its last line, which says how it went.
func (c *Client) fetch(ctx context.Context, q question, report func(Progress)) (Image, error) {
	resp, err := c.send(ctx, q)
	if err != nil {
		return Image{}, err
	}
	defer resp.Body.Close()
	var image *Image
	err = lines(resp.Body, func(p Progress) error {
		switch {
		case p.Error != nil:
			return p.Error.Err()
		case p.Image != nil:
			image = p.Image
		case report != nil:
			report(p)
		}
		return nil
	})
	if err == nil && image == nil {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return Image{}, streamFailure(ctx, q.op, err)
	}
	return *image, nil
}

// Logs calls each with what the VM's process wrote, from the first line that
// is kept, until there is no more; or, if follow, until the process has ended.
// An error of each ends it and is returned as it is.
func (c *Client) Logs(ctx context.Context, name string, follow bool, each func(LogEntry) error) error {
	q, err := vmQuestion(http.MethodGet, "logs", name, nil)
	if err != nil {
		return err
	}
	if follow {
		q.path += "?follow=1"
	}
	resp, err := c.send(ctx, q)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var stopped error
	err = lines(resp.Body, func(e LogEntry) error {
		stopped = each(e)
		return stopped
	})
	if err != nil && stopped == nil {
		return streamFailure(ctx, q.op, err)
	}
	return err
}

// streamFailure leaves what the agent told as it is: it has what was tried in
// it.
func streamFailure(ctx context.Context, op string, err error) error {
	var told *cloudpal.Error
	if errors.As(err, &told) {
		return err
	}
	return failure(ctx, op, err)
}

// lines decodes one T a line and hands it to each, until the end or the first
// error.
func lines[T any](r io.Reader, each func(T) error) error {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 64<<10), maxLine)
	for s.Scan() {
		if len(s.Bytes()) == 0 {
			continue
		}
		var t T
		if err := json.Unmarshal(s.Bytes(), &t); err != nil {
			if s.Err() != nil { // the line was cut off
				return s.Err()
			}
			return fmt.Errorf("a line of the agent's answer: %w", err)
		}
		if err := each(t); err != nil {
			return err
		}
	}
	if errors.Is(s.Err(), bufio.ErrTooLong) {
		return fmt.Errorf("a line of the agent's answer is above %d MiB", maxLine>>20)
	}
	return s.Err()
}
