package pal

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/pal/api"
)

// maxNaps is how many naps are kept: of one every two minutes, a day and a
// half. The file has at most twice as many.
const maxNaps = 1000

// Naps are when the core slept, the oldest first.
type naps struct {
	store   store
	list    []api.Nap
	unsaved []api.Nap // the last of list, which are not in the file
	lines   int       // in the file
}

// naps reads the history and adds to it that the core has booted now, if it
// ran before. What makes no sense in it, as after a power cut, is left out: a
// history is nothing to stay locked for.
func (s store) naps(booted time.Time) (*naps, error) {
	n := &naps{store: s}
	data, err := s.read(napsFile)
	whole := err == nil || errors.Is(err, fs.ErrNotExist)
	for line := range bytes.Lines(data) {
		n.lines++
		var nap api.Nap
		if json.Unmarshal(line, &nap) != nil || nap.To.IsZero() || !bytes.HasSuffix(line, []byte("\n")) {
			whole = false
			continue
		}
		n.list = append(n.list, nap)
	}
	n.trim()
	if !whole {
		if err := n.rewrite(); err != nil {
			return nil, err
		}
	}
	if last := s.lastAwake(); !last.IsZero() && last.Before(booted) {
		n.add(api.Nap{From: last, To: booted, Boot: true})
		return n, n.save()
	}
	return n, nil
}

func (n *naps) trim() { n.list = n.list[max(0, len(n.list)-maxNaps):] }

// last returns the latest nap.
func (n *naps) last() (api.Nap, bool) {
	if len(n.list) == 0 {
		return api.Nap{}, false
	}
	return n.list[len(n.list)-1], true
}

// since returns the naps that were over after t, at most the latest max.
func (n *naps) since(t time.Time, max int) []api.Nap {
	var list []api.Nap
	for _, nap := range slices.Backward(n.list) {
		if len(list) == max || !nap.To.After(t) {
			break
		}
		list = append(list, nap)
	}
	slices.Reverse(list)
	return list
}

// add takes one more; save puts it on the disk.
func (n *naps) add(nap api.Nap) {
	n.list = append(n.list, nap)
	n.unsaved = append(n.unsaved, nap)
	n.unsaved = n.unsaved[max(0, len(n.unsaved)-maxNaps):] // of a disk that is full
	n.trim()
}

func (n *naps) save() error {
	if len(n.unsaved) == 0 {
		return nil
	}
	if n.lines+len(n.unsaved) > 2*maxNaps {
		return n.rewrite()
	}
	var b bytes.Buffer
	if err := encode(&b, n.unsaved); err != nil {
		return err
	}
	f, err := os.OpenFile(filepath.Join(n.store.dir, napsFile), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return cloudpal.E("write "+napsFile, "", err)
	}
	_, err = f.Write(b.Bytes())
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return cloudpal.E("write "+napsFile, "", err)
	}
	n.lines, n.unsaved = n.lines+len(n.unsaved), nil
	return nil
}

func encode(b *bytes.Buffer, list []api.Nap) error {
	enc := json.NewEncoder(b)
	for _, nap := range list {
		if err := enc.Encode(nap); err != nil {
			return err
		}
	}
	return nil
}

func (n *naps) rewrite() error {
	var b bytes.Buffer
	if err := encode(&b, n.list); err != nil {
		return err
	}
	if err := n.store.write(napsFile, b.Bytes()); err != nil {
		return err
	}
	n.lines, n.unsaved = len(n.list), nil
	return nil
}

// noteAwake leaves a mark that the core is awake now.
func (s store) noteAwake() error {
	path := filepath.Join(s.dir, awakeFile)
	now := time.Now()
	err := os.Chtimes(path, now, now)
	if errors.Is(err, os.ErrNotExist) {
		err = os.WriteFile(path, nil, 0o600)
	}
	return err
}

func (s store) lastAwake() time.Time {
	info, err := os.Stat(filepath.Join(s.dir, awakeFile))
	if err != nil {
		return time.Time{}
	}
	return info.ModTime()
}
