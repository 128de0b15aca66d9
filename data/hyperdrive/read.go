package hyperdrive

import (
	"context"
	"errors"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hyperblobs"
)

// Get returns a file's content; links are followed. A file may be larger than
// memory: look at Size before, or take a Reader.
func (d *Drive) Get(ctx context.Context, name string) ([]byte, error) {
	id, blobs, err := d.find(ctx, name)
	if err != nil {
		return nil, err
	}
	return blobs.Get(ctx, id)
}

// Reader returns a Reader of a file, which can begin anywhere in it; links are
// followed. Its waiting ends with ctx. Close it.
func (d *Drive) Reader(ctx context.Context, name string) (*hyperblobs.Reader, error) {
	id, blobs, err := d.find(ctx, name)
	if err != nil {
		return nil, err
	}
	return blobs.NewReader(ctx, id)
}

// EntryReader returns a Reader of an entry's content.
func (d *Drive) EntryReader(ctx context.Context, e Entry) (*hyperblobs.Reader, error) {
	blobs, err := d.content.blobs(ctx)
	if err != nil {
		return nil, err
	}
	if e.Blob == nil {
		return blobs.NewReader(ctx, hyperblobs.ID{})
	}
	return blobs.NewReader(ctx, *e.Blob)
}

// find returns where a file's content is.
func (d *Drive) find(ctx context.Context, name string) (id hyperblobs.ID, blobs *hyperblobs.Blobs, err error) {
	e, err := d.Follow(ctx, name)
	if err != nil {
		return id, nil, err
	}
	if e.Blob == nil {
		return id, nil, cloudpal.E("read a file", cloudpal.NotExist, errors.New("the name has no content, only metadata"))
	}
	blobs, err = d.content.blobs(ctx)
	return *e.Blob, blobs, err
}

// Size returns how many bytes of content an entry has. It waits for that only
// where the content is deduplicated, or was written as a shared one.
func (d *Drive) Size(ctx context.Context, e Entry) (int64, error) {
	if e.Blob == nil || !e.Blob.BlockMap {
		return plainSize(e), nil
	}
	blobs, err := d.content.blobs(ctx)
	if err != nil {
		return 0, err
	}
	return blobs.Size(ctx, *e.Blob)
}
