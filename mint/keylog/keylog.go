// Package keylog is the log of a mint's keys, and the witnesses who see to it that
// there is one. What is in the log, and what is believed of it, package manifest
// says.
//
// A Log is appended to by its mint alone, a few times a month, and read by anybody, as
// C2SP's tlog-tiles. What Publish has answered is cosigned by a quorum of witnesses
// and outlives a crash of any of them; when the mint is killed before that, the
// log goes on where it was, and to publish again does not append again. A Log
// never appends what wallets would refuse: nothing can be taken back.
//
// A Witness remembers of each log what it cosigned last, and cosigns only what
// extends it. It is for others than the mint to run.
package keylog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/storage/posix"
	"golang.org/x/mod/sumdb/note"
	"k8s.io/klog/v2"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket/manifest"
)

// What the libraries of this package say on standard error, it learns otherwise.
func init() { klog.SetSlogLogger(slog.New(slog.DiscardHandler)) }

const (
	checkEvery   = 200 * time.Millisecond // whether there is something to sign
	pollEvery    = 20 * time.Millisecond  // whether it is signed
	cosignEvery  = time.Hour              // though nothing is new: see manifest.MaxAge
	witnessLimit = 15 * time.Second       // for all witnesses to answer
)

// A Config says what a log is.
type Config struct {
	Folder    string
	Key       string           // signs checkpoints, as note.GenerateKey writes it
	Trust     *manifest.Trust  // what wallets and centers have
	Witnesses []string         // where each of Trust's answers, a URL, in their order
	Now       func() time.Time // nil: time.Now
}

// A Log is a mint's. Many may use it at once, and several processes.
type Log struct {
	folder string
	trust  *manifest.Trust
	root   note.Verifier
	signer note.Signer
	group  tessera.WitnessGroup
	asked  *asked
	now    func() time.Time
	shown  shown

	mu       sync.Mutex // held while something is published; guards what follows
	appender *tessera.Appender
	stop     func()
}

// Open opens a log. Where it was left while it was not cosigned yet, that goes on. The
// witnesses of a new log are first asked by Publish.
func Open(c Config) (*Log, error) {
	const op = "open the log of a mint's keys"
	l := &Log{folder: c.Folder, trust: c.Trust, now: c.Now, asked: newAsked()}
	if l.now == nil {
		l.now = time.Now
	}
	if err := l.readKeys(c); err != nil {
		return nil, cloudpal.E(op, cloudpal.Invalid, err)
	}
	for _, dir := range []string{l.folder, l.tiles(), l.keys()} {
		if err := makeFolder(dir); err != nil {
			return nil, cloudpal.E(op, cloudpal.Other, err)
		}
	}
	entries, err := l.integrated()
	if err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	if len(entries) > 0 {
		err = l.startLocked()
	}
	if err != nil {
		return nil, cloudpal.E(op, cloudpal.Other, err)
	}
	return l, nil
}

func (l *Log) tiles() string { return filepath.Join(l.folder, "log") }
func (l *Log) keys() string  { return filepath.Join(l.folder, "keys") }

func (l *Log) readKeys(c Config) error {
	if _, err := l.trust.Marshal(); err != nil {
		return err
	}
	var err error
	if l.root, err = note.NewVerifier(l.trust.Root); err != nil {
		return err
	}
	if l.signer, err = note.NewSigner(c.Key); err != nil {
		return errors.New("the log's key is no key of a note")
	}
	origin, err := note.NewVerifier(l.trust.Log)
	if err != nil {
		return err
	}
	if origin.Name() != l.signer.Name() || origin.KeyHash() != l.signer.KeyHash() {
		return errors.New("the log's key is not the one that wallets know")
	}
	return l.readWitnesses(c.Witnesses)
}

func (l *Log) readWitnesses(urls []string) error {
	if len(urls) != len(l.trust.Witnesses) {
		return fmt.Errorf("there are %d addresses of %d witnesses", len(urls), len(l.trust.Witnesses))
	}
	for i, key := range l.trust.Witnesses {
		u, err := url.Parse(urls[i])
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
			return fmt.Errorf("%q is not where a witness answers", urls[i])
		}
		w, err := tessera.NewWitness(key, u)
		if err != nil {
			return err
		}
		l.group.Components = append(l.group.Components, w)
		l.asked.names[w.URL] = w.Key.Name()
	}
	l.group.N = l.trust.Quorum
	return nil
}

// startLocked begins to sign what is appended. Of a new log it has the empty
// checkpoint cosigned first.
func (l *Log) startLocked() error {
	if l.appender != nil {
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	driver, err := posix.New(ctx, posix.Config{Path: l.tiles(), HTTPClient: &http.Client{Transport: l.asked, Timeout: witnessLimit}})
	if err == nil {
		options := tessera.NewAppendOptions().
			WithCheckpointSigner(l.signer).
			WithCheckpointInterval(checkEvery).
			WithCheckpointRepublishInterval(cosignEvery).
			WithBatching(1, checkEvery).
			WithGarbageCollectionInterval(0). // nothing is lost by keeping a few files
			WithWitnesses(l.group, &tessera.WitnessOptions{Timeout: witnessLimit})
		l.appender, _, _, err = tessera.NewAppender(ctx, driver, options)
	}
	if err != nil {
		cancel()
		return errors.Join(err, l.asked.err())
	}
	l.stop = cancel
	return nil
}

// Close stops signing. What is not cosigned yet goes on when the log is opened again.
func (l *Log) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stop != nil {
		l.stop()
	}
	l.appender, l.stop = nil, nil
}

// Publish has an entry in the log and cosigned, and returns then. Of a manifest it
// takes the keys besides, as Manifest.Public returns them. An entry that is in the
// log already is not appended again; one that wallets would refuse, such as a second
// manifest of an epoch, is not appended at all.
func (l *Log) Publish(ctx context.Context, e manifest.Entry, keys [][]byte) error {
	const op = "publish a mint's keys"
	l.mu.Lock()
	defer l.mu.Unlock()
	unlock, err := l.lock(ctx)
	if err != nil {
		return cloudpal.E(op, "", err)
	}
	defer func() { _ = unlock() }()
	entries, err := l.integrated()
	if err != nil {
		return cloudpal.E(op, "", err)
	}
	i := slices.Index(entries, e)
	if i < 0 {
		if err := l.admit(append(entries, e), keys); err != nil {
			return cloudpal.E(op, "", err)
		}
	}
	if err := l.startLocked(); err != nil {
		return cloudpal.E(op, cloudpal.Missing, err).WithHint("see why the witnesses do not answer, and publish it again")
	}
	if i < 0 {
		at, err := l.appender.Add(ctx, tessera.NewEntry([]byte(e)))()
		if err != nil {
			return cloudpal.E(op, cloudpal.Other, err)
		}
		i = int(at.Index)
	}
	if err := l.await(ctx, i); err != nil {
		return cloudpal.E(op, "", err)
	}
	return nil
}

// lock waits until no other process publishes.
func (l *Log) lock(ctx context.Context) (unlock func() error, err error) {
	for {
		unlock, err := lock(filepath.Join(l.folder, "lock"))
		if !errors.Is(err, cloudpal.Busy) {
			return unlock, err
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(err, ctx.Err())
		case <-time.After(pollEvery):
		}
	}
}

// admit checks the log as it would be, and keeps the keys of its last entry.
func (l *Log) admit(entries []manifest.Entry, keys [][]byte) error {
	if err := l.trust.Check(entries, l.now()); err != nil {
		return err
	}
	last := entries[len(entries)-1]
	s, err := last.Open(l.root)
	if err != nil {
		return err
	}
	if m, ok := s.(*manifest.Listing); ok {
		return l.keepKeys(m, keys)
	}
	return nil
}

// await waits until an entry is cosigned.
func (l *Log) await(ctx context.Context, i int) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		entries, _, err := l.published()
		if err != nil || len(entries) > i {
			return err
		}
		select {
		case <-ctx.Done():
			return cloudpal.E("have it cosigned", cloudpal.Timeout, errors.Join(ctx.Err(), l.asked.err())).
				WithHint("it is in the log, but nobody believes it yet; see why the witnesses do not cosign, and publish it again")
		case <-tick.C:
		}
	}
}
