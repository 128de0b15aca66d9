// Package vault has a mint's private ticket keys. It is all that the signer process
// is: keys are made here, are kept in files that only this user can read, sign, and
// are destroyed here. No way leads one out.
//
// It does not believe its mint more than it must. It makes keys for the months at
// hand alone, signs with a key only while its tickets are worth something, and
// destroys none before they are worth nothing.
package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/mint/signing"
	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/signer"
)

// ahead is for how many months to come keys are made.
const ahead = 3

// maxFile bounds a key's file in bytes.
const maxFile = 8 << 10

// A name says which key, and what its file is called.
type name struct {
	class        ticket.Class
	denomination ticket.Denomination
	epoch        ticket.Epoch
}

// file is such as "0083-paid-64.pem".
func (n name) file() string {
	return fmt.Sprintf("%04d-%s-%d.pem", n.epoch, n.class, n.denomination)
}

// A pair is one key, both halves.
type pair struct {
	public  *ticket.Key
	private *signer.Signer
}

// A Vault is a folder of private keys.
type Vault struct {
	dir  string
	now  func() time.Time
	lock *os.File
	log  *slog.Logger
	cpus chan struct{} // holds a token for each signature that is being made

	making sync.Mutex // one key at a time: it takes a processor for a second

	mu    sync.Mutex
	pairs map[name]*pair
	byID  map[ticket.KeyID]*pair
}

var _ signing.Signer = (*Vault)(nil)

// Open opens the vault in a folder, which it makes. Only one process at a time has
// it. Keys that others could read or have changed are refused.
func Open(dir string, now func() time.Time, log *slog.Logger) (*Vault, error) {
	const op = "open the ticket keys"
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	if err := private(dir); err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	lock, err := lockFolder(dir)
	if err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	v := &Vault{dir: dir, now: now, lock: lock, log: log, cpus: make(chan struct{}, runtime.GOMAXPROCS(0)),
		pairs: map[name]*pair{}, byID: map[ticket.KeyID]*pair{}}
	if err := v.load(); err != nil {
		return nil, cloudpal.E(op, "", errors.Join(err, unlock(lock)))
	}
	return v, nil
}

// Close lets another process have the folder. The vault must not be used any more.
func (v *Vault) Close() error { return unlock(v.lock) }

// Len returns how many keys there are.
func (v *Vault) Len() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.pairs)
}

// load reads all keys.
func (v *Vault) load() error {
	entries, err := os.ReadDir(v.dir)
	if err != nil {
		return err
	}
	known := names(entries)
	for _, e := range entries {
		path := filepath.Join(v.dir, e.Name())
		if n, ok := known[e.Name()]; ok {
			if err := v.read(n, path); err != nil {
				return cloudpal.E(path, "", err)
			}
		} else if strings.HasPrefix(e.Name(), temporary) {
			if err := os.Remove(path); err != nil { // nobody was told of it
				return err
			}
		}
	}
	return nil
}

// names returns the keys that files of these names have.
func names(entries []fs.DirEntry) map[string]name {
	known := map[string]name{}
	for _, entry := range entries {
		for _, c := range ticket.Classes {
			for _, d := range ticket.Denominations {
				var e ticket.Epoch
				if _, err := fmt.Sscanf(entry.Name(), "%d-", &e); err != nil {
					continue
				}
				if n := (name{c, d, e}); n.file() == entry.Name() {
					known[entry.Name()] = n
				}
			}
		}
	}
	return known
}

func (v *Vault) read(n name, path string) error {
	if err := private(path); err != nil {
		return err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return cloudpal.E("", cloudpal.Corrupt, errors.New("it is no ticket key"))
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	defer clear(text)
	s, err := signer.Parse(text)
	if err != nil {
		return cloudpal.E("", "", err).WithHint("put it back from a copy: tickets that it signed are worth nothing without it")
	}
	return v.add(n, s)
}

func (v *Vault) add(n name, s *signer.Signer) error {
	k, err := ticket.NewKey(n.class, n.denomination, n.epoch, s.Public())
	if err != nil {
		return err
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, ok := v.byID[k.ID()]; ok {
		return cloudpal.E("", cloudpal.Corrupt, errors.New("two files have the same key"))
	}
	p := &pair{k, s}
	v.pairs[n], v.byID[k.ID()] = p, p
	return nil
}

// Generate implements signing.Signer.
func (v *Vault) Generate(ctx context.Context, c ticket.Class, d ticket.Denomination, e ticket.Epoch) (*ticket.Key, error) {
	const op = "make a ticket key"
	if !slices.Contains(ticket.Classes, c) || !d.Valid() {
		return nil, cloudpal.E(op, cloudpal.Invalid, errors.New("there are no such tickets"))
	}
	v.making.Lock()
	defer v.making.Unlock()
	n := name{c, d, e}
	if p := v.pair(n); p != nil {
		return p.public, nil
	}
	if err := v.mayMake(e); err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	if err := ctx.Err(); err != nil {
		return nil, cloudpal.E(op, cloudpal.Timeout, err)
	}
	if err := v.make(n); err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	v.log.Info("made a ticket key", "class", c.String(), "denomination", uint32(d), "epoch", uint32(e))
	return v.pair(n).public, nil
}

// mayMake refuses what no mint needs, so that one which is not itself any more
// cannot have the disk filled.
func (v *Vault) mayMake(e ticket.Epoch) error {
	now := ticket.EpochAt(v.now())
	if e < now || e > now+ahead {
		return cloudpal.E("", cloudpal.Denied, fmt.Errorf("keys are made for this month, epoch %d, and the %d that follow", now, ahead))
	}
	if v.Len() >= signing.MaxKeys {
		return cloudpal.E("", cloudpal.Exhausted, fmt.Errorf("there are %d already", signing.MaxKeys))
	}
	return nil
}

// make makes a key. It is on the disk before anybody hears of it.
func (v *Vault) make(n name) error {
	s, err := signer.Generate()
	if err != nil {
		return err
	}
	text, err := s.Marshal()
	if err != nil {
		return err
	}
	defer clear(text)
	if err := writeFile(v.dir, n.file(), bytes.NewReader(text)); err != nil {
		return err
	}
	return v.add(n, s)
}

func (v *Vault) pair(n name) *pair {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.pairs[n]
}

// Public implements signing.Signer.
func (v *Vault) Public(context.Context) ([]*ticket.Key, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	var keys []*ticket.Key
	for _, p := range v.pairs {
		keys = append(keys, p.public)
	}
	slices.SortFunc(keys, func(a, b *ticket.Key) int {
		return strings.Compare(name{a.Class, a.Denomination, a.Epoch}.file(), name{b.Class, b.Denomination, b.Epoch}.file())
	})
	return keys, nil
}

// Sign implements signing.Signer, on all processors at once.
func (v *Vault) Sign(ctx context.Context, id ticket.KeyID, blinded [][]byte) ([][]byte, error) {
	const op = "sign tickets"
	p, err := v.usable(id)
	if err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	if len(blinded) > signing.MaxBatch {
		return nil, cloudpal.E(op, cloudpal.Invalid, fmt.Errorf("%d at once; %d are the most", len(blinded), signing.MaxBatch))
	}
	signatures := make([][]byte, len(blinded))
	g, ctx := errgroup.WithContext(ctx)
	for i := range blinded {
		select {
		case v.cpus <- struct{}{}:
		case <-ctx.Done():
			return nil, cloudpal.E(op, "", errors.Join(g.Wait(), context.Cause(ctx)))
		}
		g.Go(func() (err error) {
			defer func() { <-v.cpus }()
			signatures[i], err = p.private.Sign(blinded[i])
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	return signatures, nil
}

// usable returns the key that signs now: from its month, for as long as its tickets
// can be swapped.
func (v *Vault) usable(id ticket.KeyID) (*pair, error) {
	v.mu.Lock()
	p := v.byID[id]
	v.mu.Unlock()
	if p == nil {
		return nil, cloudpal.NotExist
	}
	now := v.now()
	if now.Before(p.public.Epoch.Begins()) {
		return nil, cloudpal.E("", cloudpal.Denied, errors.New("the key's month has not begun"))
	}
	if !now.Before(p.public.Epoch.SwapEnds()) {
		return nil, cloudpal.E("", cloudpal.Exhausted, errors.New("the key's tickets are worth nothing any more"))
	}
	return p, nil
}

// Drop implements signing.Signer.
func (v *Vault) Drop(_ context.Context, e ticket.Epoch) error {
	const op = "destroy ticket keys"
	if v.now().Before(e.SwapEnds()) {
		return cloudpal.E(op, cloudpal.Denied, errors.New("their tickets are still worth something"))
	}
	v.making.Lock()
	defer v.making.Unlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	for n, p := range v.pairs {
		if n.epoch != e {
			continue
		}
		if err := os.Remove(filepath.Join(v.dir, n.file())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return cloudpal.E(op, "", err)
		}
		delete(v.pairs, n)
		delete(v.byID, p.public.ID())
	}
	if err := syncFolder(v.dir); err != nil {
		return cloudpal.E(op, "", err)
	}
	v.log.Info("destroyed ticket keys", "epoch", uint32(e))
	return nil
}
