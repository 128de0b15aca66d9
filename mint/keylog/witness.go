package keylog

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/witness/witness"
	"golang.org/x/mod/sumdb/note"

	"github.com/tradle/cloudpal"
)

// A WitnessConfig says what a witness is.
type WitnessConfig struct {
	Folder string           // its key and what it saw: who loses one loses both, and no key outlives what it must remember
	Name   string           // of its key, such as "witness.example"; asked for only where Folder has none yet
	Logs   []string         // the keys of the logs that it cosigns
	Now    func() time.Time // nil: time.Now
}

// A Witness cosigns checkpoints of logs: of each log only one that extends what it
// cosigned before. It speaks C2SP's tlog-witness.
type Witness struct {
	signer  *cosigner
	logs    map[string]note.Verifier // by origin
	core    *witness.Witness
	store   *memory
	unlock  func() error
	handler http.Handler
}

// OpenWitness opens a witness. There is one at a time for a folder.
func OpenWitness(c WitnessConfig) (*Witness, error) {
	const op = "open a witness"
	if err := makeFolder(c.Folder); err != nil {
		return nil, cloudpal.E(op, cloudpal.Other, err)
	}
	unlock, err := lock(filepath.Join(c.Folder, "lock"))
	if err != nil {
		return nil, cloudpal.E(op, "", err)
	}
	w := &Witness{unlock: unlock, store: &memory{folder: c.Folder}}
	if err := w.open(c); err != nil {
		return nil, cloudpal.E(op, "", errors.Join(err, unlock()))
	}
	return w, nil
}

func (w *Witness) open(c WitnessConfig) error {
	key, err := witnessKey(filepath.Join(c.Folder, "key"), c.Name)
	if err != nil {
		return err
	}
	if w.signer, err = newCosigner(key, c.Now); err != nil {
		return err
	}
	w.logs = map[string]note.Verifier{}
	for _, text := range c.Logs {
		v, err := note.NewVerifier(text)
		if err != nil {
			return cloudpal.E("", cloudpal.Invalid, fmt.Errorf("a log's key is no key of a note: %w", err))
		}
		if w.logs[v.Name()] != nil {
			return cloudpal.E("", cloudpal.Invalid, fmt.Errorf("two keys for the log %s", v.Name()))
		}
		w.logs[v.Name()] = v
	}
	w.core, err = witness.New(context.Background(), witness.Opts{
		Persistence: w.store,
		Signers:     []note.Signer{w.signer},
		VerifierForLog: func(_ context.Context, origin string) (note.Verifier, bool, error) {
			v, ok := w.logs[origin]
			return v, ok, nil
		},
	})
	if err != nil {
		return err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /add-checkpoint", w.addCheckpoint)
	w.handler = http.MaxBytesHandler(mux, witness.MaxRequestBodyBytes)
	return nil
}

// Key returns the key that others know the witness by: one of a Trust's witnesses.
func (w *Witness) Key() string { return w.signer.verifier() }

// Close lets another have the folder.
func (w *Witness) Close() error { return w.unlock() }

// ServeHTTP answers POST /add-checkpoint.
func (w *Witness) ServeHTTP(rw http.ResponseWriter, r *http.Request) { w.handler.ServeHTTP(rw, r) }

// What who asks a witness can have.
const (
	requestTimeout  = 10 * time.Second
	idleTimeout     = time.Minute
	shutdownTimeout = 5 * time.Second
	maxHeader       = 8 << 10 // bytes
)

// Serve answers on a listener until ctx ends. What is said is signed, and no secret:
// that it crosses without TLS tells and changes nothing.
func (w *Witness) Serve(ctx context.Context, l net.Listener) error {
	server := &http.Server{
		Handler: w, ReadTimeout: requestTimeout, WriteTimeout: 2 * requestTimeout, IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeader,
		ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug), // it names addresses
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	select {
	case err := <-served:
		return cloudpal.E("answer as a witness", cloudpal.Other, err)
	case <-ctx.Done():
	}
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(ending); err != nil {
		return cloudpal.E("stop a witness", cloudpal.Other, errors.Join(err, server.Close()))
	}
	return nil
}

// addCheckpoint lets nobody but a log be heard, and keeps what a log signed and the
// witness did not take as an extension: with what it took before, it shows what the
// log did.
func (w *Witness) addCheckpoint(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		rw.WriteHeader(http.StatusBadRequest)
		return
	}
	_, checkpoint, _ := bytes.Cut(body, []byte("\n\n"))
	origin, _, _ := strings.Cut(string(checkpoint), "\n")
	v, ok := w.logs[origin]
	if !ok {
		rw.WriteHeader(http.StatusNotFound)
		return
	}
	if _, _, _, err := log.ParseCheckpoint(checkpoint, origin, v); err != nil {
		rw.WriteHeader(http.StatusForbidden)
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	s := &statusRecorder{ResponseWriter: rw}
	witness.NewHTTPHandler(w.core).AddCheckpoint(s, r)
	if s.status == http.StatusUnprocessableEntity {
		_ = w.store.keep(checkpoint) // that it is refused does not hang on it
	}
}

// A statusRecorder remembers the status of an answer.
type statusRecorder struct {
	http.ResponseWriter
	status int
}

func (s *statusRecorder) WriteHeader(status int) {
	s.status = status
	s.ResponseWriter.WriteHeader(status)
}

// Refused returns the checkpoints that logs have signed and that the witness refused.
func (w *Witness) Refused() ([]string, error) {
	names, err := filepath.Glob(filepath.Join(w.store.folder, "refused-*"))
	if err != nil {
		return nil, cloudpal.E("read what a witness refused", cloudpal.Other, err)
	}
	var all []string
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, cloudpal.E("read what a witness refused", cloudpal.Other, err)
		}
		all = append(all, string(b))
	}
	return all, nil
}

// A memory is what a witness cosigned last, a file for each log. What it has
// answered with a cosignature is on disk.
type memory struct {
	mu     sync.Mutex
	folder string
}

var _ witness.LogStatePersistence = (*memory)(nil)

func (m *memory) Init(context.Context) error { return nil }

func (m *memory) path(origin string) string {
	return filepath.Join(m.folder, "log-"+log.ID(origin))
}

// Latest returns what was cosigned last, or nil.
func (m *memory) Latest(_ context.Context, origin string) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.latestLocked(origin)
}

func (m *memory) latestLocked(origin string) ([]byte, error) {
	b, err := os.ReadFile(m.path(origin))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case len(b) == 0: // nil would mean that it saw nothing yet
		return nil, cloudpal.E("read what a witness saw", cloudpal.Corrupt, nil)
	}
	return b, nil
}

// Update replaces what was cosigned last by what f makes of it.
func (m *memory) Update(_ context.Context, origin string, f func([]byte) ([]byte, error)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	old, err := m.latestLocked(origin)
	if err != nil {
		return err
	}
	updated, err := f(old)
	if err != nil {
		return err
	}
	return replace(m.path(origin), updated)
}

// keep keeps a checkpoint that was refused, once: there are no more than a log signs.
func (m *memory) keep(checkpoint []byte) error {
	h := sha256.Sum256(checkpoint)
	return replace(filepath.Join(m.folder, fmt.Sprintf("refused-%x", h[:16])), checkpoint)
}

// A cosigner makes C2SP's cosignature/v1: an Ed25519 signature that says when.
type cosigner struct {
	name string
	key  ed25519.PrivateKey
	now  func() time.Time
}

// cosignatureV1 is C2SP signed-note's number of the algorithm.
const cosignatureV1 = 4

var _ note.Signer = (*cosigner)(nil)

// newCosigner takes a key as note.GenerateKey writes it.
func newCosigner(text string, now func() time.Time) (*cosigner, error) {
	bad := cloudpal.E("read a witness's key", cloudpal.Corrupt, nil)
	if _, err := note.NewSigner(text); err != nil {
		return nil, bad
	}
	parts := strings.SplitN(text, "+", 5)
	raw, err := base64.StdEncoding.DecodeString(parts[len(parts)-1])
	if err != nil || len(raw) != 1+ed25519.SeedSize {
		return nil, bad
	}
	if now == nil {
		now = time.Now
	}
	return &cosigner{name: parts[2], key: ed25519.NewKeyFromSeed(raw[1:]), now: now}, nil
}

func (c *cosigner) public() []byte {
	return append([]byte{cosignatureV1}, c.key.Public().(ed25519.PublicKey)...)
}

func (c *cosigner) verifier() string {
	return fmt.Sprintf("%s+%08x+%s", c.name, c.KeyHash(), base64.StdEncoding.EncodeToString(c.public()))
}

func (c *cosigner) Name() string { return c.name }

func (c *cosigner) KeyHash() uint32 {
	h := sha256.Sum256(append([]byte(c.name+"\n"), c.public()...))
	return binary.BigEndian.Uint32(h[:])
}

func (c *cosigner) Sign(text []byte) ([]byte, error) {
	at := c.now().Unix()
	signature := ed25519.Sign(c.key, fmt.Appendf(nil, "cosignature/v1\ntime %d\n%s", at, text))
	return append(binary.BigEndian.AppendUint64(nil, uint64(at)), signature...), nil
}

// witnessKey reads a key, or makes one of that name where there is none and no name
// of another.
func witnessKey(path, name string) (string, error) {
	b, err := os.ReadFile(path)
	if err == nil {
		return strings.TrimSpace(string(b)), nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if name == "" {
		return "", cloudpal.E("make a witness's key", cloudpal.Invalid, errors.New("it has no name")).WithHint(`name it like the host where it answers, "witness.example"`)
	}
	key, _, err := note.GenerateKey(rand.Reader, name)
	if err == nil {
		_, err = note.NewSigner(key)
	}
	if err != nil {
		return "", cloudpal.E("make a witness's key", cloudpal.Invalid, errors.New("a name has no spaces, and no +"))
	}
	return key, replace(path, []byte(key+"\n"))
}
