package vault

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/mint/signing"
	"github.com/tradle/cloudpal/ticket"
)

// noon is in the middle of an epoch.
var noon = time.Date(2026, 11, 15, 12, 0, 0, 0, time.UTC)

var quiet = slog.New(slog.DiscardHandler)

func open(t *testing.T, dir string, now time.Time) *Vault {
	t.Helper()
	v, err := Open(dir, func() time.Time { return now }, quiet)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Close() })
	return v
}

func someKey(t *testing.T, v *Vault, d ticket.Denomination) *ticket.Key {
	t.Helper()
	k, err := v.Generate(t.Context(), ticket.Paid, d, ticket.EpochAt(v.now()))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// outputs are what a wallet has signed, and its secrets.
func outputs(t *testing.T, k *ticket.Key, n int) (blinded [][]byte, secrets []ticket.Secret) {
	t.Helper()
	var seed ticket.Seed
	rand.Read(seed[:])
	for i := range n {
		s, err := ticket.Derive(seed, "test", "mint.example", k, uint64(i))
		if err != nil {
			t.Fatal(err)
		}
		o := s.Output()
		blinded, secrets = append(blinded, o.Blinded[:]), append(secrets, s)
	}
	return blinded, secrets
}

// The keys outlive the process, and what they sign makes tickets.
func TestKeysOutliveTheVault(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "keys")
	v := open(t, dir, noon)
	k := someKey(t, v, 64)
	blinded, secrets := outputs(t, k, 5)
	first, err := v.Sign(t.Context(), k.ID(), blinded)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range secrets {
		if _, err := s.Finish(first[i]); err != nil {
			t.Errorf("signature %d makes no ticket: %v", i, err)
		}
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}

	v = open(t, dir, noon)
	keys, err := v.Public(t.Context())
	if err != nil || len(keys) != 1 || keys[0].ID() != k.ID() || keys[0].Denomination != 64 {
		t.Fatalf("there are %v (%v) after it was opened again", keys, err)
	}
	if again := someKey(t, v, 64); again.ID() != k.ID() {
		t.Error("a second key was made in the place of the first")
	}
	second, err := v.Sign(t.Context(), k.ID(), blinded)
	if err != nil || !slices.EqualFunc(first, second, bytes.Equal) {
		t.Errorf("it signs differently (%v) after it was opened again", err)
	}
}

func TestSignAllOrNone(t *testing.T) {
	t.Parallel()
	v := open(t, filepath.Join(t.TempDir(), "keys"), noon)
	k := someKey(t, v, 1)
	good, _ := outputs(t, k, 3)
	for what, bad := range map[string][]byte{"none": nil, "zero": make([]byte, 256), "short": good[0][1:], "too large": bytes.Repeat([]byte{0xff}, 256)} {
		got, err := v.Sign(t.Context(), k.ID(), [][]byte{good[0], bad, good[2]})
		if !errors.Is(err, cloudpal.Invalid) || got != nil {
			t.Errorf("with a message that is %s: %d signatures, %v", what, len(got), err)
		}
	}
	if _, err := v.Sign(t.Context(), k.ID(), make([][]byte, signing.MaxBatch+1)); !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("too many at once: %v", err)
	}
	if _, err := v.Sign(t.Context(), ticket.KeyID{1}, good); !errors.Is(err, cloudpal.NotExist) {
		t.Errorf("a key that there is not: %v", err)
	}
	if got, err := v.Sign(t.Context(), k.ID(), nil); err != nil || len(got) != 0 {
		t.Errorf("nothing to sign: %v, %v", got, err)
	}
}

// A mint that is not itself any more can have no keys made or destroyed that no mint
// needs, and none used out of season.
func TestSeasons(t *testing.T) {
	t.Parallel()
	now := noon
	v, err := Open(filepath.Join(t.TempDir(), "keys"), func() time.Time { return now }, quiet)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	e := ticket.EpochAt(noon)
	for _, far := range []ticket.Epoch{0, e - 1, e + ahead + 1, 1 << 31} {
		if _, err := v.Generate(t.Context(), ticket.Paid, 1, far); !errors.Is(err, cloudpal.Denied) {
			t.Errorf("a key of epoch %d in %d: %v", far, e, err)
		}
	}
	for what, err := range map[string]error{
		"a class":        second(v.Generate(t.Context(), 9, 1, e)),
		"a denomination": second(v.Generate(t.Context(), ticket.Paid, 2, e)),
	} {
		if !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("%s that there is not: %v", what, err)
		}
	}

	k, err := v.Generate(t.Context(), ticket.Free, 4, e+1)
	if err != nil {
		t.Fatal(err)
	}
	blinded, _ := outputs(t, k, 1)
	if _, err := v.Sign(t.Context(), k.ID(), blinded); !errors.Is(err, cloudpal.Denied) {
		t.Errorf("before its month it signs: %v", err)
	}
	now = k.Epoch.SwapEnds().Add(-time.Second)
	if _, err := v.Sign(t.Context(), k.ID(), blinded); err != nil {
		t.Errorf("while its tickets can be swapped: %v", err)
	}
	if err := v.Drop(t.Context(), k.Epoch); !errors.Is(err, cloudpal.Denied) {
		t.Errorf("a key whose tickets are worth something is destroyed: %v", err)
	}
	now = k.Epoch.SwapEnds()
	if _, err := v.Sign(t.Context(), k.ID(), blinded); !errors.Is(err, cloudpal.Exhausted) {
		t.Errorf("when its tickets are worth nothing it signs: %v", err)
	}
	for range 2 {
		if err := v.Drop(t.Context(), k.Epoch); err != nil {
			t.Fatal(err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(v.dir, "*.pem")); len(left) != 0 || v.Len() != 0 {
		t.Errorf("destroyed keys are left: %d, %d", len(left), v.Len())
	}
}

func second[T any](_ T, err error) error { return err }

func TestFilesAreNobodyElses(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "keys")
	v := open(t, dir, noon)
	someKey(t, v, 16)
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			err = fmt.Errorf("%s is %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	v.Close()
	file := filepath.Join(dir, "0082-paid-16.pem")
	for path, mode := range map[string]fs.FileMode{file: 0o640, dir: 0o755} {
		os.Chmod(path, mode)
		if _, err := Open(dir, time.Now, quiet); !errors.Is(err, cloudpal.Denied) || cloudpal.HintOf(err) == "" {
			t.Errorf("%s with the mode %v is opened: %v", path, mode, err)
		}
		os.Chmod(path, mode&^0o077)
	}
	if err := os.Rename(file, file+"2"); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file+"2", file); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, time.Now, quiet); !errors.Is(err, cloudpal.Denied) {
		t.Errorf("a link in a key's place is opened: %v", err)
	}
}

// What a crash left of a key that nobody was told of is swept away; what is damaged
// is said, and shown to nobody.
func TestFilesAfterCrashes(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "keys")
	v := open(t, dir, noon)
	someKey(t, v, 16)
	v.Close()
	half := filepath.Join(dir, temporary+"123")
	if err := os.WriteFile(half, []byte("-----BEGIN"), 0o600); err != nil {
		t.Fatal(err)
	}
	open(t, dir, noon).Close()
	if _, err := os.Stat(half); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("half a key is left: %v", err)
	}
	file := filepath.Join(dir, "0082-paid-16.pem")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, damaged := range [][]byte{nil, text[:len(text)/2], bytes.Repeat([]byte("x"), maxFile+1)} {
		if err := os.WriteFile(file, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(dir, time.Now, quiet)
		if !errors.Is(err, cloudpal.Corrupt) || strings.Contains(fmt.Sprint(err), string(text[100:140])) {
			t.Errorf("a damaged key: %v", err)
		}
	}
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "0082-paid-64.pem"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, time.Now, quiet); !errors.Is(err, cloudpal.Corrupt) {
		t.Errorf("one key for two denominations: %v", err)
	}
}

func TestOneSignerForAFolder(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "keys")
	v := open(t, dir, noon)
	if _, err := Open(dir, time.Now, quiet); !errors.Is(err, cloudpal.Busy) {
		t.Errorf("two have one folder: %v", err)
	}
	v.Close()
	open(t, dir, noon)
}

// A disk that is full leaves the vault as it was.
func TestNoKeyThatIsNotOnDisk(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "keys")
	v := open(t, dir, noon)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Generate(t.Context(), ticket.Paid, 1, ticket.EpochAt(noon)); err == nil || v.Len() != 0 {
		t.Errorf("a key that could not be written is used: %v", err)
	}
}
