package host

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/compute/image"
)

// usedImages maps each image that a VM needs to those VMs.
func (h *Host) usedImages() map[string][]string {
	used := map[string][]string{}
	for _, v := range h.all() {
		used[v.rec.ImageID] = append(used[v.rec.ImageID], v.name)
	}
	return used
}

func (h *Host) serveImages(w http.ResponseWriter, r *http.Request) error {
	images, err := h.cfg.Images.List(r.Context())
	if err != nil {
		return err
	}
	used := h.usedImages()
	list := []api.Image{}
	for _, img := range images {
		list = append(list, viewImage(img, used))
	}
	return reply(w, list)
}

func viewImage(img image.Image, used map[string][]string) api.Image {
	return api.Image{
		Name: img.Name, ID: img.ID, Created: img.Created, Arch: img.Architecture,
		Size: img.Size, Layers: len(img.Layers), UsedBy: used[img.ID],
	}
}

func (h *Host) servePull(w http.ResponseWriter, r *http.Request) error {
	q, err := read[api.PullRequest](r)
	if err != nil {
		return err
	}
	return h.fetch(w, r, func(ctx context.Context, progress func(image.Progress)) (image.Image, error) {
		return h.cfg.Images.Pull(ctx, q.Ref, image.PullOptions{}, progress)
	})
}

func (h *Host) serveImport(w http.ResponseWriter, r *http.Request) error {
	q, err := read[api.ImportRequest](r)
	if err != nil {
		return err
	}
	if !filepath.IsAbs(q.Path) {
		return cloudpal.E("import "+quote(q.Path), cloudpal.Invalid, nil).WithHint("give the agent an absolute path")
	}
	return h.fetch(w, r, func(ctx context.Context, progress func(image.Progress)) (image.Image, error) {
		return h.cfg.Images.Import(ctx, q.Path, q.Name, progress)
	})
}

// fetch runs a pull or import and streams its progress. The outcome is the
// last line, as the status was sent before it was known.
func (h *Host) fetch(w http.ResponseWriter, r *http.Request,
	get func(context.Context, func(image.Progress)) (image.Image, error)) error {
	out := newStream(w)
	var mu sync.Mutex
	last := map[string]time.Time{}
	img, err := get(r.Context(), func(p image.Progress) {
		mu.Lock()
		defer mu.Unlock()
		key := p.Layer + p.Phase
		if p.Done != p.Total && time.Since(last[key]) < progressInterval {
			return
		}
		last[key] = time.Now()
		// A client that is gone ends r's context, and with it the pull.
		_ = out.send(api.Progress{Layer: p.Layer, Phase: p.Phase, Done: p.Done, Total: p.Total})
	})
	mu.Lock()
	defer mu.Unlock()
	if err != nil {
		p := api.ProblemOf(classify(err))
		return out.send(api.Progress{Error: &p})
	}
	view := viewImage(img, nil)
	return out.send(api.Progress{Image: &view})
}

// serveRemoveImage removes an image's name, and the layers that no image and
// no VM needs any more.
func (h *Host) serveRemoveImage(w http.ResponseWriter, r *http.Request) error {
	img, err := h.cfg.Images.Get(r.PathValue("name"))
	if err != nil {
		return err
	}
	used := h.usedImages()
	if users := used[img.ID]; len(users) > 0 {
		return cloudpal.E("remove image "+img.Name, cloudpal.Busy, fmt.Errorf("it is used by vm %s", strings.Join(users, ", "))).
			WithHint("remove the VM first: cloudpal vm rm " + users[0])
	}
	if err := h.cfg.Images.Remove(r.Context(), img.Name); err != nil {
		return err
	}
	freed, err := h.collectImages(r.Context())
	if err != nil {
		return err
	}
	return reply(w, api.RemovedImage{Name: img.Name, Freed: freed})
}

// collectImages removes the layers that no name and no VM needs any more, and
// returns how many bytes they took.
func (h *Host) collectImages(ctx context.Context) (freed int64, err error) {
	h.collecting.Lock()
	defer h.collecting.Unlock()
	return h.cfg.Images.Collect(ctx, slices.Collect(maps.Keys(h.usedImages())))
}

// dropImage collects in the background, when a VM is gone that may have been
// the last of its image.
func (h *Host) dropImage() {
	h.tasks.Go(func() {
		if _, err := h.collectImages(h.ctx); err != nil && h.ctx.Err() == nil {
			h.log.Error("remove layers that nothing needs", "err", err)
		}
	})
}
