// Package wallet has a person's tickets, on one of their devices: it buys them,
// changes them, pays with them and gets the rest back, sends them to others, and
// keeps them.
//
// All that a wallet makes follows from its seed, which follows from the person's
// recovery phrase, and all that it does is written down, and on the disk, before
// anybody hears of it. So it can be killed at any instant: what was begun is in the
// journal, and to go on is to say the same again, to which a mint and a center give
// the same answer. Resume does that.
//
//	journal: swap of A for B, C     mint
//	synced ──► A spent for B, C ──► binds A to B, C, signs
//	           signatures       ◄──┘
//	journal: B, C in place of A
//
// Tickets that belong together in nobody's eyes but the person's must not be seen
// together. So each is made on a branch of the seed of its own, asked for over a
// connection of its own, and used at a time that a Policy draws:
//
//	buy/DEVICE/EPOCH/CLASS/K   what the K-th purchase bought
//	in/DEVICE/EPOCH/CLASS/K    what the K-th ticket became that was received
//	swap/SERIAL                what that ticket was swapped for
//	change/SERIAL              what came back of it when it was paid with
//
// The first two count and have the device's number in them, since two devices that
// used one secret would get one ticket for the price of two. The others follow from
// a ticket, which is spent once. From the phrase alone Restore finds them all: the
// first two until three in a row have nothing, and from each ticket on to what it
// became.
package wallet

import (
	"context"
	crand "crypto/rand"
	"encoding/binary"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/manifest"
)

// A Config is what a wallet is opened with.
type Config struct {
	Dir     string      // its own: it has the tickets of one mint
	Seed    ticket.Seed // the person's: see identity.Root.WalletSeed
	Connect Connect     // for what nobody is to know who asks it
	Direct  Connect     // for the rest: what is sold, bought and published; nil: Connect
	Policy  Policy
	Clock   Clock       // nil: the machine's
	Random  rand.Source // of waits; nil: the system's
}

// A Wallet is a person's tickets of one mint on one device. It is safe for
// concurrent use, also by many processes. Its errors are *cloudpal.Error.
type Wallet struct {
	connect Connect
	direct  Connect
	policy  Policy
	clock   Clock
	seed    ticket.Seed
	dir     string
	root    *os.Root
	trust   *manifest.Trust

	mu        sync.Mutex
	random    *rand.Rand
	journal   *journal
	state     *state
	manifests map[ticket.Epoch]*manifest.Manifest // of the log that is known
}

// purposeJournal parts the keys of journals from those of backups.
const purposeJournal = "journal"

// FirstDevice is the number of the device that a person begins with.
const FirstDevice = 1

// Create makes a wallet in a directory that has none, and that directory, for the
// mint that trust describes, on the person's device with that number: 0 where it is
// for Restore to find one. The error is cloudpal.Exist where there is one.
func Create(c Config, trust *manifest.Trust, device uint32) (*Wallet, error) {
	const op = "make a wallet"
	raw, err := trust.Marshal()
	if err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	s := newState()
	ch := &change{of: s}
	ch.putFact(factTrust, string(raw))
	ch.putFact(factDevice, device)
	if ch.err != nil {
		return nil, cloudpal.E(op, "", ch.err)
	}
	for _, r := range ch.records {
		if err := s.apply(r); err != nil {
			return nil, cloudpal.E(op, "", err)
		}
	}
	return create(c, s)
}

// create makes a wallet that begins with a state.
func create(c Config, s *state) (*Wallet, error) {
	const op = "make a wallet"
	if err := makeDir(c.Dir); err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	root, err := os.OpenRoot(c.Dir)
	if err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	defer root.Close()
	unlock, err := lock(context.Background(), root)
	if err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	defer unlock()
	if _, err := root.Stat(journalName); !errors.Is(err, fs.ErrNotExist) {
		return nil, cloudpal.E(op, cloudpal.Exist, errors.New("there is one in "+c.Dir))
	}
	j, err := replaceJournal(root, c.Seed, purposeJournal, frames(s.raw))
	if err != nil {
		return nil, trouble(op, err)
	}
	j.f.Close()
	return Open(c)
}

// makeDir makes a directory, and those above it, each of the owner of the one that it
// is in, and sees that it is there after a crash.
func makeDir(dir string) error {
	up := filepath.Dir(dir)
	if _, err := os.Stat(dir); err == nil || up == dir {
		return err
	}
	if err := makeDir(up); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	root, err := os.OpenRoot(up)
	if err != nil {
		return err
	}
	defer root.Close()
	if uid, gid, ok := heir(root); ok {
		if err := root.Lchown(filepath.Base(dir), uid, gid); err != nil {
			return err
		}
	}
	return syncDir(root)
}

// heir returns whose a file becomes that root makes in a directory of somebody else's.
func heir(root *os.Root) (uid, gid int, ok bool) {
	if os.Geteuid() != 0 {
		return 0, 0, false
	}
	info, err := root.Stat(".")
	if err != nil {
		return 0, 0, false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	return int(st.Uid), int(st.Gid), ok && st.Uid != 0
}

// Open opens a wallet. The error is cloudpal.NotExist where there is none, and
// cloudpal.Corrupt where it is damaged, or another person's.
func Open(c Config) (*Wallet, error) {
	op := "open the wallet in " + c.Dir
	if err := c.Policy.check(); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(c.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noWallet(c.Dir)
	}
	if err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	w := &Wallet{connect: c.Connect, direct: c.Direct, policy: c.Policy, clock: c.Clock, seed: c.Seed, dir: c.Dir, root: root}
	if w.direct == nil {
		w.direct = w.connect
	}
	if w.clock == nil {
		w.clock = SystemClock{}
	}
	if c.Random == nil {
		c.Random = systemRandom{}
	}
	w.random = rand.New(c.Random)
	if err := w.start(); err != nil {
		root.Close()
		if errors.Is(err, fs.ErrNotExist) {
			return nil, noWallet(c.Dir)
		}
		return nil, cloudpal.E(op, "", err)
	}
	return w, nil
}

func noWallet(dir string) error {
	return cloudpal.E("", cloudpal.NotExist, errors.New("there is no wallet yet in "+dir)).
		WithHint("the first tickets make one: cloudpal wallet buy --mint FILE")
}

func (w *Wallet) start() error {
	if err := w.reopen(); err != nil {
		return err
	}
	var trust string
	if !w.state.fact(factTrust, &trust) {
		return cloudpal.E("", cloudpal.Corrupt, errors.New("it does not say of which mint it is"))
	}
	t, err := manifest.ParseTrust([]byte(trust))
	w.trust = t
	return err
}

// reopen reads the journal from its beginning.
func (w *Wallet) reopen() error {
	s := newState()
	j, err := openJournal(w.root, w.seed, purposeJournal, s.load)
	if errors.Is(err, cloudpal.Corrupt) {
		err = cloudpal.E("", "", err).WithHint("put it back from a backup: cloudpal wallet restore --from FILE, into another --home")
	}
	if err != nil {
		return err
	}
	if w.journal != nil {
		w.journal.f.Close()
	}
	w.journal, w.state, w.manifests = j, s, map[ticket.Epoch]*manifest.Manifest{}
	return nil
}

// Close lets go of the files. What is being done must have ended.
func (w *Wallet) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return errors.Join(w.journal.f.Close(), w.root.Close())
}

// String tells nothing: there are secrets in it.
func (*Wallet) String() string { return "wallet" }

// Trust returns whom the wallet believes about its mint.
func (w *Wallet) Trust() manifest.Trust { return *w.trust }

// Device returns the number of this device among the person's; 0 where a restore is
// yet to find one that no other has.
func (w *Wallet) Device() (n uint32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state.fact(factDevice, &n)
	return n
}

// systemRandom is the system's.
type systemRandom struct{}

// Uint64 implements rand.Source.
func (systemRandom) Uint64() uint64 {
	var b [8]byte
	crand.Read(b[:])
	return binary.BigEndian.Uint64(b[:])
}

// now is the time, in whole seconds.
func (w *Wallet) now() time.Time { return w.clock.Now().UTC().Truncate(time.Second) }

func (w *Wallet) draw(s Spread) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return s.Draw(w.random)
}

// look returns what the wallet knows now, also of what other processes did.
func (w *Wallet) look() (*state, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.refresh(); err != nil {
		return nil, cloudpal.E("read the wallet", "", err)
	}
	return w.state.clone(), nil
}

// refresh reads on in the journal, or anew where another process has replaced it.
func (w *Wallet) refresh() error {
	there, err := w.root.Stat(journalName)
	if err != nil {
		return err
	}
	mine, err := w.journal.f.Stat()
	if err != nil {
		return err
	}
	if w.journal.bad != nil || !os.SameFile(there, mine) {
		return w.reopen()
	}
	return w.journal.catchUp(w.state.load)
}

// change has f say what is to be changed, and returns when it is on the disk: all
// of it, or nothing. Others wait meanwhile.
func (w *Wallet) change(ctx context.Context, f func(*state, *change) error) error {
	const op = "write to the wallet"
	w.mu.Lock()
	defer w.mu.Unlock()
	unlock, err := lock(ctx, w.root)
	if err != nil {
		return cloudpal.E(op, "", err)
	}
	defer unlock()
	if err := w.refresh(); err != nil {
		return cloudpal.E(op, "", err)
	}
	c := &change{of: w.state}
	if err := f(w.state, c); err != nil {
		return err
	}
	if c.err != nil {
		return cloudpal.E(op, "", c.err)
	}
	if len(c.records) == 0 {
		return nil
	}
	if err := w.write(c.records); err != nil {
		return trouble(op, err)
	}
	return nil
}

func (w *Wallet) write(records []record) error {
	var plain []byte
	for _, r := range records {
		plain = r.append(plain)
	}
	if err := w.journal.append(plain); err != nil {
		return err
	}
	if err := w.state.load(plain); err != nil {
		return err
	}
	if w.journal.size > compactFrom && w.journal.size > compactAt*w.state.bytes {
		return w.compact()
	}
	return nil
}

// A journal is written anew when most of it is of the past.
const (
	compactFrom = 256 << 10 // bytes
	compactAt   = 3         // times what counts of it
)

// compact replaces the journal by one of what counts. When it fails the old one is
// there, and good.
func (w *Wallet) compact() error {
	j, err := replaceJournal(w.root, w.seed, purposeJournal, frames(w.state.raw))
	if err != nil {
		return err
	}
	w.journal.f.Close()
	w.journal = j
	return nil
}

// trouble gives an error of the disk its kind.
func trouble(op string, err error) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return cloudpal.E(op, cloudpal.NoSpace, err).WithHint("nothing is lost: make room on the disk and do it again")
	}
	return cloudpal.E(op, "", err)
}

const (
	lockName  = "lock"
	lockEvery = 10 * time.Millisecond
)

// lock waits for the lock of a wallet's directory, which ends with this process, or
// with unlock.
func lock(ctx context.Context, root *os.Root) (unlock func(), err error) {
	f, err := root.OpenFile(lockName, os.O_CREATE|os.O_RDWR|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	if uid, gid, ok := heir(root); ok {
		if err := f.Chown(uid, gid); err != nil {
			f.Close()
			return nil, err
		}
	}
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			f.Close()
			return nil, err
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, cloudpal.E("wait for another process that uses the wallet", cloudpal.Busy, ctx.Err())
		case <-time.After(lockEvery):
		}
	}
}
