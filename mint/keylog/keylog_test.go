package keylog

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"

	"io/fs"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/transparency-dev/tessera/client"
	"golang.org/x/mod/sumdb/note"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/manifest"
)

const issuer = "mint.example"

// now is the time of the tests, in epoch 93; cosignatures are of that time, too.
func now() time.Time { return time.Date(2027, 10, 20, 12, 0, 0, 0, time.UTC) }

// A mint is one with witnesses that answer on real sockets.
type mint struct {
	Config
	root      note.Signer
	witnesses []*witnessServer
}

// A witnessServer is a witness and what stands before it.
type witnessServer struct {
	config  WitnessConfig
	witness *Witness
	server  *httptest.Server
	gate    atomic.Pointer[gate]
}

// A gate is asked before a witness, and says whether it is to be asked, too.
type gate func(http.ResponseWriter, *http.Request) bool

// set puts a gate before a witness; nil takes it away.
func (s *witnessServer) set(g gate) { s.gate.Store(&g) }

func newKeyPair(tb testing.TB, name string) (private, public string) {
	tb.Helper()
	private, public, err := note.GenerateKey(rand.Reader, name)
	if err != nil {
		tb.Fatal(err)
	}
	return private, public
}

func newMint(tb testing.TB, witnesses int) *mint {
	tb.Helper()
	private, root := newKeyPair(tb, issuer)
	key, log := newKeyPair(tb, issuer+"/keys")
	m := &mint{Config: Config{
		Folder: tb.TempDir(), Key: key, Now: now,
		Trust: &manifest.Trust{Issuer: issuer, URL: "https://" + issuer, Root: root, Log: log},
	}}
	var err error
	if m.root, err = note.NewSigner(private); err != nil {
		tb.Fatal(err)
	}
	for i := range witnesses {
		s := newWitness(tb, fmt.Sprintf("witness-%d.example", i), log)
		m.witnesses = append(m.witnesses, s)
		m.Witnesses = append(m.Witnesses, s.server.URL)
		m.Trust.Witnesses = append(m.Trust.Witnesses, s.witness.Key())
	}
	if witnesses > 0 {
		m.Trust.Quorum = 2
	}
	return m
}

func newWitness(tb testing.TB, name string, logs ...string) *witnessServer {
	tb.Helper()
	s := &witnessServer{config: WitnessConfig{Folder: tb.TempDir(), Name: name, Logs: logs, Now: now}}
	s.open(tb)
	s.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if g := s.gate.Load(); g == nil || *g == nil || (*g)(w, r) {
			s.witness.ServeHTTP(w, r)
		}
	}))
	tb.Cleanup(func() {
		s.server.Close()
		if err := s.witness.Close(); err != nil {
			tb.Error(err)
		}
	})
	return s
}

func (s *witnessServer) open(tb testing.TB) {
	tb.Helper()
	var err error
	if s.witness, err = OpenWitness(s.config); err != nil {
		tb.Fatal(err)
	}
}

// down makes a witness not answer.
func down(w http.ResponseWriter, _ *http.Request) bool {
	w.WriteHeader(http.StatusServiceUnavailable)
	return false
}

func (m *mint) open(tb testing.TB) *Log {
	tb.Helper()
	l, err := Open(m.Config)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(l.Close)
	return l
}

// manifest returns one of an epoch whose keys follow from a seed; nobody knows their
// private halves.
func (m *mint) manifest(tb testing.TB, e ticket.Epoch, seed string) (manifest.Entry, [][]byte) {
	tb.Helper()
	var keys []*ticket.Key
	for _, c := range ticket.Classes {
		for _, d := range ticket.Denominations {
			var n []byte
			for i := range 8 {
				h := sha256.Sum256(fmt.Appendf(nil, "%s %d %s %d %d", seed, e, c, d, i))
				n = append(n, h[:]...)
			}
			n[0] |= 0x80
			n[255] |= 1
			k, err := ticket.NewKey(c, d, e, &rsa.PublicKey{N: new(big.Int).SetBytes(n), E: 65537})
			if err != nil {
				tb.Fatal(err)
			}
			keys = append(keys, k)
		}
	}
	listed, err := manifest.New(issuer, e, make(ed25519.PublicKey, ed25519.PublicKeySize), keys)
	if err != nil {
		tb.Fatal(err)
	}
	entry, err := listed.Sign(m.root)
	if err != nil {
		tb.Fatal(err)
	}
	return entry, listed.Public()
}

func limit(tb testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(tb.Context(), time.Minute)
	tb.Cleanup(cancel)
	return ctx
}

func (m *mint) publish(tb testing.TB, l *Log, e ticket.Epoch) {
	tb.Helper()
	entry, keys := m.manifest(tb, e, "")
	if err := l.Publish(limit(tb), entry, keys); err != nil {
		tb.Fatal(err)
	}
}

// fetch is what a wallet does.
func (m *mint) fetch(l *Log, e ticket.Epoch, seen manifest.Checkpoint) (*manifest.Manifest, *manifest.Bundle, error) {
	raw, err := l.Bundle(e)
	if err != nil {
		return nil, nil, err
	}
	b, err := manifest.ParseBundle(raw)
	if err != nil {
		return nil, nil, err
	}
	got, err := m.Trust.Verify(b, e, seen, now())
	return got, b, err
}

func TestPublish(t *testing.T) {
	t.Parallel()
	m := newMint(t, 3)
	l := m.open(t)
	if _, err := l.Bundle(92); !errors.Is(err, cloudpal.NotExist) {
		t.Errorf("before anything is published: %v", err)
	}
	m.publish(t, l, 92)
	_, b, err := m.fetch(l, 92, "")
	if err != nil {
		t.Fatal(err)
	}
	m.publish(t, l, 93)
	got, b, err := m.fetch(l, 93, b.Checkpoint)
	if err != nil {
		t.Fatal(err)
	}
	gone := got.Keys()[0]
	revoke, err := manifest.Revocation{Issuer: issuer, Epoch: 93, Key: gone.ID(), Reason: "stolen"}.Sign(m.root)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Publish(limit(t), revoke, nil); err != nil {
		t.Fatal(err)
	}
	got, b, err = m.fetch(l, 93, b.Checkpoint)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := got.KeyByID(gone.ID()); !errors.Is(err, cloudpal.Denied) {
		t.Errorf("a revoked key: %v", err)
	}
	if _, err := l.Bundle(91); !errors.Is(err, cloudpal.NotExist) {
		t.Errorf("an epoch that was never published: %v", err)
	}

	// It is all there for who opens it anew, and for another process.
	again := m.open(t)
	if _, _, err := m.fetch(again, 92, b.Checkpoint); err != nil {
		t.Error(err)
	}
}

// What is published twice is in the log once, and nothing that wallets would refuse
// gets into it.
func TestPublishOnce(t *testing.T) {
	t.Parallel()
	m := newMint(t, 2)
	l, other := m.open(t), m.open(t)
	m.publish(t, l, 92)
	m.publish(t, l, 92)
	m.publish(t, other, 92)
	m.publish(t, other, 93)
	m.publish(t, l, 93)

	second, keys := m.manifest(t, 93, "for ann only")
	ahead, aheadKeys := m.manifest(t, 95, "")
	old, oldKeys := m.manifest(t, 91, "")
	stranger := newMint(t, 0)
	theirs, theirKeys := stranger.manifest(t, 94, "")
	next, _ := m.manifest(t, 94, "")
	for name, c := range map[string]struct {
		entry manifest.Entry
		keys  [][]byte
	}{
		"a second manifest":     {second, keys},
		"one for months ahead":  {ahead, aheadKeys},
		"one of last month":     {old, oldKeys},
		"another mint's":        {theirs, theirKeys},
		"one without its keys":  {next, nil},
		"one with others' keys": {next, keys},
		"what is not an entry":  {"cloudpal\n", nil},
		"an entry of 100 KB":    {manifest.Entry(strings.Repeat("a", 100<<10)), nil},
	} {
		if err := l.Publish(limit(t), c.entry, c.keys); err == nil {
			t.Errorf("%s is published", name)
		}
	}
	entries, _, err := l.published()
	if err != nil || len(entries) != 2 {
		t.Fatalf("the log has %d entries, %v", len(entries), err)
	}
	if _, _, err := m.fetch(l, 93, ""); err != nil {
		t.Error(err)
	}
}

// Many who publish the same at once publish it once.
func TestPublishAtOnce(t *testing.T) {
	t.Parallel()
	m := newMint(t, 2)
	logs := []*Log{m.open(t), m.open(t)}
	entry, keys := m.manifest(t, 92, "")
	done := make(chan error)
	for i := range 8 {
		go func() { done <- logs[i%2].Publish(limit(t), entry, keys) }()
	}
	for range 8 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if entries, err := logs[0].integrated(); err != nil || len(entries) != 1 {
		t.Errorf("the log has %d entries, %v", len(entries), err)
	}
}

// A log to which nothing is added is cosigned anew all the same, so that nobody takes
// it for one that is kept back.
func TestCosignedAnew(t *testing.T) {
	t.Parallel()
	m := newMint(t, 2)
	l := m.open(t)
	m.publish(t, l, 92)
	l.Close()
	var later atomic.Bool
	next := now().Add(2 * manifest.MaxAge)
	for _, s := range m.witnesses {
		if err := s.witness.Close(); err != nil {
			t.Fatal(err)
		}
		s.config.Now = func() time.Time {
			if later.Load() {
				return next
			}
			return now()
		}
		s.open(t)
	}
	verify := func(l *Log) error {
		raw, err := l.Bundle(92)
		if err != nil {
			return err
		}
		b, err := manifest.ParseBundle(raw)
		if err != nil {
			return err
		}
		_, err = m.Trust.Verify(b, 92, "", next)
		return err
	}
	if err := verify(l); !errors.Is(err, cloudpal.Denied) {
		t.Fatalf("what was cosigned two weeks ago: %v", err)
	}
	later.Store(true)
	// The library looks at the file's time.
	old := time.Now().Add(-2 * cosignEvery)
	if err := os.Chtimes(filepath.Join(l.tiles(), "checkpoint"), old, old); err != nil {
		t.Fatal(err)
	}
	l = m.open(t)
	for end := time.Now().Add(time.Minute); verify(l) != nil; time.Sleep(pollEvery) {
		if time.Now().After(end) {
			t.Fatal(verify(l))
		}
	}
}

// Who publishes while another process does waits, as long as its context lets it.
func TestPublishWaits(t *testing.T) {
	t.Parallel()
	m := newMint(t, 0)
	l := m.open(t)
	unlock, err := lock(filepath.Join(m.Folder, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	entry, keys := m.manifest(t, 92, "")
	ctx, cancel := context.WithTimeout(t.Context(), 3*pollEvery)
	defer cancel()
	if err := l.Publish(ctx, entry, keys); !errors.Is(err, cloudpal.Busy) {
		t.Fatalf("got %v", err)
	}
	done := make(chan error)
	go func() { done <- l.Publish(limit(t), entry, keys) }()
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A quorum is enough; less is not, and says who is missing.
func TestWitnessesDown(t *testing.T) {
	t.Parallel()
	m := newMint(t, 3)
	l := m.open(t)
	m.witnesses[0].set(down)
	m.publish(t, l, 92)

	m.witnesses[1].set(down)
	entry, keys := m.manifest(t, 93, "")
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	err := l.Publish(ctx, entry, keys)
	if !errors.Is(err, cloudpal.Timeout) || !strings.Contains(err.Error(), "witness witness-1.example answers 503") || cloudpal.HintOf(err) == "" {
		t.Fatalf("with one of three witnesses: %v", err)
	}
	if _, _, err := m.fetch(l, 93, ""); err == nil {
		t.Fatal("what is not cosigned is shown")
	}
	if _, _, err := m.fetch(l, 92, ""); err != nil {
		t.Errorf("what was cosigned is not shown any more: %v", err)
	}
	m.witnesses[1].set(nil)
	m.publish(t, l, 93)
	if entries, _, err := l.published(); err != nil || len(entries) != 2 {
		t.Errorf("the log has %d entries, %v", len(entries), err)
	}
}

func TestWitnessesDownAtFirst(t *testing.T) {
	t.Parallel()
	m := newMint(t, 2)
	m.witnesses[0].server.Close()
	l := m.open(t)
	entry, keys := m.manifest(t, 92, "")
	err := l.Publish(limit(t), entry, keys)
	if !errors.Is(err, cloudpal.Missing) || !strings.Contains(err.Error(), "witness witness-0.example does not answer") {
		t.Fatalf("got %v", err)
	}
	l.Close()
	s := newWitness(t, "witness-3.example", m.Trust.Log)
	m.Witnesses[0], m.Trust.Witnesses[0] = s.server.URL, s.witness.Key()
	l = m.open(t)
	m.publish(t, l, 92)
	if _, _, err := m.fetch(l, 92, ""); err != nil {
		t.Error(err)
	}
}

// A mint of one's own has no witnesses to wait for.
func TestAlone(t *testing.T) {
	t.Parallel()
	m := newMint(t, 0)
	l := m.open(t)
	m.publish(t, l, 92)
	if _, _, err := m.fetch(l, 92, ""); err != nil || !m.Trust.Alone() {
		t.Error(err)
	}
}

// A mint with two logs, one of them for ann, gets only one cosigned: whoever wants
// cosignatures refuses the other.
func TestForkedLog(t *testing.T) {
	t.Parallel()
	m := newMint(t, 3)
	l := m.open(t)
	m.publish(t, l, 92)
	l.Close()

	forged := *m
	forged.Folder = t.TempDir()
	if err := os.CopyFS(forged.Folder, os.DirFS(m.Folder)); err != nil {
		t.Fatal(err)
	}
	l = m.open(t)
	m.publish(t, l, 93)
	_, b, err := m.fetch(l, 93, "")
	if err != nil {
		t.Fatal(err)
	}

	f := forged.open(t)
	entry, keys := forged.manifest(t, 93, "for ann only")
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := f.Publish(ctx, entry, keys); !errors.Is(err, cloudpal.Timeout) || !strings.Contains(err.Error(), "not the one that it saw before") {
		t.Fatalf("witnesses cosigned two logs: %v", err)
	}
	if _, _, err := forged.fetch(f, 93, ""); !errors.Is(err, cloudpal.NotExist) {
		t.Fatalf("the forged keys: %v", err)
	}

	// It leaves its witnesses out and shows ann what it signed itself.
	lonely := forged
	alone := *forged.Trust
	alone.Quorum, alone.Witnesses = 0, nil
	lonely.Trust, lonely.Witnesses = &alone, nil
	g := lonely.open(t)
	if err := g.Publish(limit(t), entry, keys); err != nil {
		t.Fatal(err)
	}
	raw, err := g.Bundle(93)
	if err != nil {
		t.Fatal(err)
	}
	shown, err := manifest.ParseBundle(raw)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Trust.Verify(shown, 93, "", now()); !errors.Is(err, cloudpal.Denied) {
		t.Errorf("ann believes the forged keys: %v", err)
	}
	// Who saw the other before has proof, even with no witness at all.
	_, err = alone.Verify(shown, 93, b.Checkpoint, now())
	if fork, ok := errors.AsType[*manifest.Fork](err); !ok || fork.Seen != b.Checkpoint || fork.Shown != shown.Checkpoint {
		t.Errorf("got %v", err)
	}
	refused, err := m.witnesses[0].witness.Refused()
	if err != nil || len(refused) == 0 || !strings.HasPrefix(refused[0], issuer+"/keys\n2\n") {
		t.Errorf("the witness kept %q, %v", refused, err)
	}
}

// A mint that goes back to an old copy of its log gets nothing cosigned.
func TestRolledBack(t *testing.T) {
	t.Parallel()
	m := newMint(t, 2)
	l := m.open(t)
	m.publish(t, l, 91)
	l.Close()
	old := *m
	old.Folder = t.TempDir()
	if err := os.CopyFS(old.Folder, os.DirFS(m.Folder)); err != nil {
		t.Fatal(err)
	}
	l = m.open(t)
	m.publish(t, l, 92)
	m.publish(t, l, 93)
	o := old.open(t)
	entry, keys := old.manifest(t, 93, "")
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := o.Publish(ctx, entry, keys); !errors.Is(err, cloudpal.Timeout) {
		t.Errorf("witnesses cosigned a log without what they saw: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(*Config){
		"another log's key":        func(c *Config) { c.Key, _ = newKeyPair(t, issuer+"/keys") },
		"a key that is none":       func(c *Config) { c.Key = "PRIVATE+KEY+" },
		"a witness without a URL":  func(c *Config) { c.Witnesses = c.Witnesses[1:] },
		"a witness in a file":      func(c *Config) { c.Witnesses[0] = "file:///tmp/x" },
		"a trust that trusts none": func(c *Config) { c.Trust = &manifest.Trust{} },
	} {
		m := newMint(t, 2)
		spoil(&m.Config)
		_, err := Open(m.Config)
		if !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil && strings.Contains(err.Error(), "PRIVATE") {
			t.Errorf("%s: the error shows the key", name)
		}
	}
}

// Anybody can read the log with the tools of others, and nothing besides it.
func TestServeTiles(t *testing.T) {
	t.Parallel()
	m := newMint(t, 2)
	l := m.open(t)
	for e := ticket.Epoch(91); e <= 93; e++ {
		m.publish(t, l, e)
	}
	server := httptest.NewServer(l)
	defer server.Close()
	u, err := url.Parse(server.URL + "/")
	if err != nil {
		t.Fatal(err)
	}
	reader, err := client.NewHTTPFetcher(u, nil)
	if err != nil {
		t.Fatal(err)
	}
	origin, err := note.NewVerifier(m.Trust.Log)
	if err != nil {
		t.Fatal(err)
	}
	top, _, _, err := client.FetchCheckpoint(limit(t), reader.ReadCheckpoint, origin, origin.Name())
	if err != nil || top.Size != 3 {
		t.Fatalf("got %+v, %v", top, err)
	}
	bundle, err := client.GetEntryBundle(limit(t), reader.ReadEntryBundle, 0, top.Size)
	if err != nil || len(bundle.Entries) != 3 || !strings.Contains(string(bundle.Entries[2]), "\nepoch 93\n") {
		t.Fatalf("got %d entries, %v", len(bundle.Entries), err)
	}
	builder, err := client.NewProofBuilder(limit(t), top.Size, reader.ReadTile)
	if err != nil {
		t.Fatal(err)
	}
	if proof, err := builder.InclusionProof(limit(t), 1); err != nil || len(proof) != 2 {
		t.Errorf("got %d hashes, %v", len(proof), err)
	}
	for _, path := range []string{"/", "/.state/treeState", "/tile/", "/tile/../.state/treeState", "/tile/0/000.p/3/../1", "/keys/93.json",
		"/tile/entries/000.p/x", "/tile/0/0", "//checkpoint", "/checkpoint/", "/tile/0/000.p/03"} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.URL.Path = path
		w := httptest.NewRecorder()
		l.ServeHTTP(w, r)
		if w.Code != http.StatusNotFound {
			t.Errorf("%s answers %d", path, w.Code)
		}
	}
}

// Damage is said to be damage.
func TestDamaged(t *testing.T) {
	t.Parallel()
	m := newMint(t, 0)
	l := m.open(t)
	m.publish(t, l, 92)
	m.publish(t, l, 93)
	l.Close()
	err := filepath.WalkDir(m.Folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.Contains(path, "entries") {
			return err
		}
		return os.WriteFile(path, []byte{0, 9}, 0o600)
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Bundle(93); !errors.Is(err, cloudpal.Corrupt) {
		t.Errorf("a bundle of damaged entries: %v", err)
	}
	if _, err := Open(m.Config); !errors.Is(err, cloudpal.Corrupt) {
		t.Errorf("a damaged log opens: %v", err)
	}
}

func FuzzTilePath(f *testing.F) {
	for _, p := range []string{"/checkpoint", "/tile/0/000.p/3", "/tile/entries/x001/234", "/tile/entries/000.p/7"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, path string) {
		name, ok := tilePath(path)
		if ok && (!fs.ValidPath(name) || strings.HasPrefix(name, ".")) {
			t.Errorf("%q leads to %q", path, name)
		}
	})
}
