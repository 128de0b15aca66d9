package keylog

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/api/layout"
	"github.com/transparency-dev/tessera/client"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/manifest"
)

// integrated returns the entries that are in the log, cosigned or not yet.
func (l *Log) integrated() ([]manifest.Entry, error) {
	b, err := os.ReadFile(filepath.Join(l.tiles(), ".state", "treeState"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var state struct {
		Size uint64 `json:"size"`
	}
	if err == nil {
		err = json.Unmarshal(b, &state)
	}
	if err != nil {
		return nil, cloudpal.E("read the log", cloudpal.Corrupt, err)
	}
	return l.first(state.Size)
}

// published returns the entries that are cosigned, and the checkpoint that says so;
// none of both where nothing was published yet.
func (l *Log) published() ([]manifest.Entry, manifest.Checkpoint, error) {
	b, err := os.ReadFile(filepath.Join(l.tiles(), layout.CheckpointPath))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", nil
	}
	var c log.Checkpoint
	if err == nil {
		_, err = c.Unmarshal(b)
	}
	if err != nil {
		return nil, "", cloudpal.E("read the log", cloudpal.Corrupt, err)
	}
	entries, err := l.first(c.Size)
	return entries, manifest.Checkpoint(b), err
}

// first returns the log's first n entries.
func (l *Log) first(n uint64) ([]manifest.Entry, error) {
	files := client.FileFetcher{Root: l.tiles()}
	var entries []manifest.Entry
	for i := uint64(0); i*layout.EntryBundleWidth < n; i++ {
		var b api.EntryBundle
		raw, err := files.ReadEntryBundle(context.Background(), i, layout.PartialTileSize(0, i, n))
		if err == nil {
			err = b.UnmarshalText(raw)
		}
		if err != nil {
			return nil, cloudpal.E("read the log", cloudpal.Corrupt, err)
		}
		for _, e := range b.Entries {
			entries = append(entries, manifest.Entry(e))
		}
	}
	if uint64(len(entries)) < n {
		return nil, cloudpal.E("read the log", cloudpal.Corrupt, fmt.Errorf("%d of %d entries are there", len(entries), n))
	}
	return entries[:n], nil
}

func (l *Log) keysOf(e ticket.Epoch) string {
	return filepath.Join(l.keys(), strconv.FormatUint(uint64(e), 10)+".json")
}

// keepKeys keeps the keys that a manifest lists.
func (l *Log) keepKeys(m *manifest.Listing, keys [][]byte) error {
	if len(keys) != len(m.Keys) {
		return cloudpal.E("", cloudpal.Invalid, fmt.Errorf("%d keys come with a manifest of %d", len(keys), len(m.Keys)))
	}
	for i, k := range keys {
		if sha256.Sum256(k) != m.Keys[i] {
			return cloudpal.E("", cloudpal.Invalid, errors.New("the keys are not those of the manifest"))
		}
	}
	b, err := json.Marshal(keys)
	if err == nil {
		err = replace(l.keysOf(m.Epoch), b)
	}
	if err != nil {
		return cloudpal.E("", cloudpal.Other, err)
	}
	return nil
}

// Bundle returns what wallets and centers are shown for an epoch, as
// manifest.ParseBundle reads it.
func (l *Log) Bundle(e ticket.Epoch) ([]byte, error) {
	op := fmt.Sprintf("show the keys of epoch %d", e)
	entries, c, err := l.published()
	if err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	return l.shown.bundle(c, e, func() ([]byte, error) {
		if !l.lists(entries, e) {
			return nil, cloudpal.E(op, cloudpal.NotExist, errors.New("they are not published"))
		}
		b := &manifest.Bundle{Entries: entries, Checkpoint: c}
		raw, err := os.ReadFile(l.keysOf(e))
		if err == nil {
			err = json.Unmarshal(raw, &b.Keys)
		}
		if err != nil {
			return nil, cloudpal.E(op, cloudpal.Corrupt, err)
		}
		return b.Marshal()
	})
}

func (l *Log) lists(entries []manifest.Entry, e ticket.Epoch) bool {
	for _, entry := range entries {
		s, err := entry.Open(l.root)
		if m, ok := s.(*manifest.Listing); err == nil && ok && m.Epoch == e {
			return true
		}
	}
	return false
}

// shown keeps bundles until there is another checkpoint.
type shown struct {
	mu         sync.Mutex
	checkpoint manifest.Checkpoint
	bundles    map[ticket.Epoch][]byte
}

func (s *shown) bundle(c manifest.Checkpoint, e ticket.Epoch, make func() ([]byte, error)) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.checkpoint != c || s.bundles == nil {
		s.checkpoint, s.bundles = c, map[ticket.Epoch][]byte{}
	}
	if b, ok := s.bundles[e]; ok {
		return b, nil
	}
	b, err := make()
	if err == nil {
		s.bundles[e] = b
	}
	return b, err
}

// ServeHTTP serves the log as C2SP's tlog-tiles: /checkpoint, /tile/....
func (l *Log) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, ok := tilePath(r.URL.Path)
	if r.Method != http.MethodGet && r.Method != http.MethodHead || !ok {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Cache-Control", "max-age=31536000, immutable")
	if name == layout.CheckpointPath {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-cache")
	}
	b, err := os.ReadFile(filepath.Join(l.tiles(), filepath.FromSlash(name)))
	if err != nil {
		w.Header().Del("Cache-Control")
		http.NotFound(w, r)
		return
	}
	_, _ = w.Write(b)
}

// tilePath returns which of the log's files a URL asks for, as it is written and no
// other way.
func tilePath(path string) (string, bool) {
	path = strings.TrimPrefix(path, "/")
	if path == layout.CheckpointPath {
		return path, true
	}
	rest, ok := strings.CutPrefix(path, "tile/")
	level, index, _ := strings.Cut(rest, "/")
	var n uint64
	var p uint8
	var err error
	var name string
	if level == "entries" {
		n, p, err = layout.ParseTileIndexPartial(index)
		name = layout.EntriesPath(n, p)
	} else {
		var h uint64
		h, n, p, err = layout.ParseTileLevelIndexPartial(level, index)
		name = layout.TilePath(h, n, p)
	}
	return name, ok && err == nil && name == path
}
