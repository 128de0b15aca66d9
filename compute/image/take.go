package image

import (
	"context"
	"sync"
)

// take makes the plan's layers and gives the image its name.
func (s *Store) take(ctx context.Context, p plan, name string, progress func(Progress)) (Image, error) {
	defer s.pin(p.keys()...)()
	layers, err := s.stack(ctx, p, reporter(p.phase, progress))
	if err != nil {
		return Image{}, err
	}
	r := record{
		ID: p.id.String(), Created: p.config.Created.Time, Architecture: p.config.Architecture,
		Layers: layers, Config: configOf(p.config.Config),
	}
	if err := s.writeRecord(r); err != nil {
		return Image{}, err
	}
	n := nameRecord{Name: name, ID: r.ID, Digest: p.digest}
	return s.image(r, n), s.writeName(n)
}

// keys returns everything in the store that the plan may come to need.
func (p plan) keys() []string {
	keys := []string{p.id.String()}
	for i, l := range p.layers {
		keys = append(keys, layerKey(l.diffID), chainKey(chainID(p.layers[:i+1])))
	}
	return keys
}

// report tells how far a layer is.
type report func(p part, done int64)

// step is the least news worth telling, in bytes.
const step = 1 << 20

// reporter returns a report that calls progress, one call at a time, for each
// step and at the end.
func reporter(phase string, progress func(Progress)) report {
	if progress == nil {
		return func(part, int64) {}
	}
	var mu sync.Mutex
	told := map[string]int64{}
	return func(p part, done int64) {
		mu.Lock()
		defer mu.Unlock()
		key := p.label()
		if last, ok := told[key]; ok && (done == last || done < last+step && done != p.size && done > last) {
			return
		}
		told[key] = done
		progress(Progress{Layer: key, Phase: phase, Done: done, Total: p.size})
	}
}

// label is what people are told of the layer.
func (p part) label() string {
	if p.digest.Hex == "" {
		return p.diffID.String()
	}
	return p.digest.String()
}
