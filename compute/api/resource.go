package api

import (
	"context"
	"net/http"
)

// Host describes the machine and its agent.
func (c *Client) Host(ctx context.Context) (Host, error) {
	return ask[Host](ctx, c, question{op: "ask the agent", method: http.MethodGet, path: "/v1/host"})
}

// Images lists the images in the host's store.
func (c *Client) Images(ctx context.Context) ([]Image, error) {
	return ask[[]Image](ctx, c, question{op: "list images", method: http.MethodGet, path: "/v1/images"})
}

// RemoveImage takes an image's name out of the store, and with it the layers
// that nothing else needs.
func (c *Client) RemoveImage(ctx context.Context, name string) (RemovedImage, error) {
	op := "remove image " + name
	s, err := segment(op, name)
	if err != nil {
		return RemovedImage{}, err
	}
	return ask[RemovedImage](ctx, c, question{op: op, method: http.MethodDelete, path: "/v1/images/" + s})
}

// Volumes lists the host's named volumes.
func (c *Client) Volumes(ctx context.Context) ([]Volume, error) {
	return ask[[]Volume](ctx, c, question{op: "list volumes", method: http.MethodGet, path: "/v1/volumes"})
}

// RemoveVolume removes a volume that no VM has, and all that is on it.
func (c *Client) RemoveVolume(ctx context.Context, name string) error {
	op := "remove volume " + name
	s, err := segment(op, name)
	if err != nil {
		return err
	}
	return c.tell(ctx, question{op: op, method: http.MethodDelete, path: "/v1/volumes/" + s})
}
