package api

import (
	"context"
	"io"
	"net/http"
)

// maxConsole bounds the serial console's tail in bytes.
const maxConsole = 1 << 20

// VMs lists the host's VMs.
func (c *Client) VMs(ctx context.Context) ([]VM, error) {
	return ask[[]VM](ctx, c, question{op: "list VMs", method: http.MethodGet, path: "/v1/vms"})
}

// Create makes a VM and starts it. If ctx ends before the VM runs, the agent
// leaves nothing of it.
func (c *Client) Create(ctx context.Context, r CreateRequest) (VM, error) {
	return ask[VM](ctx, c, question{op: "make a VM of " + r.Image, method: http.MethodPost, path: "/v1/vms", body: r})
}

// VM describes one VM.
func (c *Client) VM(ctx context.Context, name string) (VM, error) {
	return onVM[VM](ctx, c, http.MethodGet, "", name, nil)
}

// Remove removes a stopped VM, or with force any, and its disk. Its named
// volumes stay.
func (c *Client) Remove(ctx context.Context, name string, force bool) error {
	q, err := vmQuestion(http.MethodDelete, "", name, nil)
	if err != nil {
		return err
	}
	if force {
		q.path += "?force=1"
	}
	return c.tell(ctx, q)
}

// Start boots a stopped VM. It returns when the VM runs.
func (c *Client) Start(ctx context.Context, name string) (VM, error) {
	return onVM[VM](ctx, c, http.MethodPost, "start", name, nil)
}

// Stop ends the VM's process in good order, and the VM with it.
func (c *Client) Stop(ctx context.Context, name string, r StopRequest) (VM, error) {
	return onVM[VM](ctx, c, http.MethodPost, "stop", name, r)
}

// Kill sends a signal to the VM's process, or ends the VM at once.
func (c *Client) Kill(ctx context.Context, name string, r SignalRequest) error {
	q, err := vmQuestion(http.MethodPost, "kill", name, r)
	if err != nil {
		return err
	}
	return c.tell(ctx, q)
}

// Suspend puts a VM to sleep, or a sleeping one to another depth.
func (c *Client) Suspend(ctx context.Context, name string, r SuspendRequest) (VM, error) {
	return onVM[VM](ctx, c, http.MethodPost, "suspend", name, r)
}

// Resume wakes a VM.
func (c *Client) Resume(ctx context.Context, name string) (VM, error) {
	return onVM[VM](ctx, c, http.MethodPost, "resume", name, nil)
}

// Wait returns when the VM's process has ended. A sleeping VM's has not. One
// that was removed at its end is known for a minute, to Wait and Logs.
func (c *Client) Wait(ctx context.Context, name string) (Exit, error) {
	return onVM[Exit](ctx, c, http.MethodGet, "wait", name, nil)
}

// Stats reads a VM's counters.
func (c *Client) Stats(ctx context.Context, name string) (Stats, error) {
	return onVM[Stats](ctx, c, http.MethodGet, "stats", name, nil)
}

// Console returns the last bytes of a VM's serial console. They are the
// guest's: not fit for a terminal as they are.
func (c *Client) Console(ctx context.Context, name string) ([]byte, error) {
	body, err := c.open(ctx, "console", name)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	data, err := io.ReadAll(io.LimitReader(body, maxConsole))
	if err != nil {
		return nil, failure(ctx, "console "+name, err)
	}
	return data, nil
}

// Usage opens a VM's usage records, one JSON a line, from the first. The
// caller closes them.
func (c *Client) Usage(ctx context.Context, name string) (io.ReadCloser, error) {
	return c.open(ctx, "usage", name)
}

// open asks for a part of a VM that is not one JSON value.
func (c *Client) open(ctx context.Context, what, name string) (io.ReadCloser, error) {
	q, err := vmQuestion(http.MethodGet, what, name, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.send(ctx, q)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// onVM asks something of one VM.
func onVM[T any](ctx context.Context, c *Client, method, what, name string, body any) (T, error) {
	q, err := vmQuestion(method, what, name, body)
	if err != nil {
		var none T
		return none, err
	}
	return ask[T](ctx, c, q)
}

// vmQuestion is a question about one VM. What is "" for the VM itself, or the
// last part of the path.
func vmQuestion(method, what, name string, body any) (question, error) {
	q := question{op: what + " " + name, method: method, body: body}
	switch {
	case method == http.MethodDelete:
		q.op = "remove " + name
	case what == "":
		q.op = "look at " + name
	}
	s, err := segment(q.op, name)
	q.path = "/v1/vms/" + s
	if what != "" {
		q.path += "/" + what
	}
	return q, err
}
