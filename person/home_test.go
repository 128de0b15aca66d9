package person

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/identity"
)

func newHome(t *testing.T) *Home {
	t.Helper()
	h, err := Make(filepath.Join(t.TempDir(), "some", "where", "home"), Me())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}

var somewhere = Center{Address: api.Address{Host: "203.0.113.5", Port: 7443, Key: api.Fingerprint{1}}}

func TestPersonIsMadeOnce(t *testing.T) {
	h := newHome(t)
	if _, err := h.Read(); !errors.Is(err, cloudpal.NotExist) || cloudpal.HintOf(err) == "" {
		t.Errorf("read an empty home: got %v", err)
	}
	first, err := h.NewPerson(t.Context(), somewhere, "laptop", nil)
	if err != nil {
		t.Fatal(err)
	}
	// Nobody has seen it: it is made anew.
	phrase, err := h.NewPerson(t.Context(), somewhere, "laptop", nil)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(first.Words(), " ") == strings.Join(phrase.Words(), " ") {
		t.Error("the same phrase came twice")
	}
	if err := h.SetShown(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := h.NewPerson(t.Context(), somewhere, "laptop", nil); !errors.Is(err, cloudpal.Exist) {
		t.Errorf("a second person: got %v, want %v", err, cloudpal.Exist)
	}
	s, err := h.Read()
	if err != nil {
		t.Fatal(err)
	}
	root := phrase.Root()
	secrets, err := s.secrets()
	if err != nil || s.Person != root.ID() || !secrets.Equal(root.PalSecrets()) {
		t.Errorf("what is kept is not what the phrase stands for: %v", err)
	}
	if seed := root.WalletSeed(); !bytes.Equal(s.Wallet, seed[:]) {
		t.Error("the wallet's seed is not the one that the phrase has")
	}
	if !s.account().Equal(root.Account(somewhere.Address.Key[:])) {
		t.Error("the account is not the one that the phrase has at this center")
	}
}

// Neither the phrase, nor a word of it in its place, is on the disk.
func TestPhraseIsNotKept(t *testing.T) {
	h := newHome(t)
	phrase, err := h.NewPerson(t.Context(), somewhere, "laptop", nil)
	if err != nil {
		t.Fatal(err)
	}
	words := phrase.Words()
	err = filepath.WalkDir(h.Dir(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		for i := range len(words) - 1 {
			if strings.Contains(string(data), words[i]+" "+words[i+1]) {
				t.Errorf("%s has words %d and %d in it", path, i+1, i+2)
			}
		}
		info, _ := d.Info()
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(h.Dir()); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the home has mode %v, %v", info.Mode(), err)
	}
}

func TestSecretsAreNotPrinted(t *testing.T) {
	h := newHome(t)
	if _, err := h.NewPerson(t.Context(), somewhere, "laptop", nil); err != nil {
		t.Fatal(err)
	}
	s, err := h.Read()
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if got := fmt.Sprintf(format, s); got != "[secret]" {
			t.Errorf("%s shows %.40q", format, got)
		}
	}
}

func TestConfirm(t *testing.T) {
	h := newHome(t)
	phrase, err := h.NewPerson(t.Context(), somewhere, "laptop", nil)
	if err != nil {
		t.Fatal(err)
	}
	s, err := h.Read()
	if err != nil {
		t.Fatal(err)
	}
	words, p := phrase.Words(), s.Confirm.Places
	if len(p) != 3 || p[0] >= p[1] || p[1] >= p[2] || p[0] < 1 || p[2] > 24 {
		t.Fatalf("the places are %v", p)
	}
	good := words[p[0]-1] + " " + words[p[1]-1] + "  " + strings.ToUpper(words[p[2]-1]) + "\n"
	for _, bad := range []string{"", "a b c", words[p[1]-1] + " " + words[p[0]-1] + " " + words[p[2]-1], good + " more", strings.Repeat("x ", 1<<20)} {
		if words[p[0]-1] == words[p[1]-1] {
			break // then they may be exchanged
		}
		if err := h.Confirm(t.Context(), bad); !errors.Is(err, cloudpal.Denied) || !strings.Contains(err.Error(), s.Confirm.Question()) {
			t.Errorf("%.20q: got %v, want %v", bad, err, cloudpal.Denied)
		}
	}
	if err := h.Confirm(t.Context(), good); err != nil {
		t.Fatal(err)
	}
	if s, err := h.Read(); err != nil || s.Confirm != nil {
		t.Errorf("it is asked for again: %v", err)
	}
	if err := h.Confirm(t.Context(), "whatever"); err != nil {
		t.Errorf("a second time: got %v", err)
	}
}

func TestManyChangeOneHome(t *testing.T) {
	h := newHome(t)
	if _, err := h.NewPerson(t.Context(), somewhere, "laptop", nil); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	const many = 20
	for range many {
		all.Go(func() {
			other, err := OpenHome(h.Dir())
			if err != nil {
				t.Error(err)
				return
			}
			defer other.Close()
			err = other.Change(t.Context(), func(s *State) error {
				s.Center.Address.Port++
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if s, err := h.Read(); err != nil || s.Center.Address.Port != 7443+many {
		t.Errorf("the port is %d, %v: a change was lost", s.Center.Address.Port, err)
	}
}

func TestOthersHomesAreRefused(t *testing.T) {
	h := newHome(t)
	if err := os.Chmod(h.Dir(), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenHome(h.Dir()); !errors.Is(err, cloudpal.Denied) {
		t.Errorf("a home that others can read: got %v, want %v", err, cloudpal.Denied)
	}
	if _, err := OpenHome(filepath.Join(h.Dir(), "nothing")); !errors.Is(err, cloudpal.NotExist) {
		t.Errorf("no home: got %v", err)
	}
}

// A home that root makes for somebody is theirs, and so is all that root writes
// in it.
func TestRootWritesForTheOwner(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give things away")
	}
	own := Owner{12345, 12346}
	base := t.TempDir()
	h, err := Make(filepath.Join(base, "a", "b"), own)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if _, err := h.NewPerson(t.Context(), somewhere, "laptop", nil); err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(filepath.Join(base, "a"), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if got := ownerOf(t, path); got != own {
			t.Errorf("%s belongs to %v, want %v", path, got, own)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// A link that the owner planted leads root nowhere.
	if err := os.Remove(h.path(lockName)); err != nil {
		t.Fatal(err)
	}
	victim := filepath.Join(base, "victim")
	if err := os.WriteFile(victim, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, h.path(lockName)); err != nil {
		t.Fatal(err)
	}
	if err := h.SetShown(t.Context()); err == nil {
		t.Error("a lock that leads out of the home was taken")
	}
	if got := ownerOf(t, victim); got != Me() {
		t.Errorf("root's file belongs to %v now", got)
	}
}

func TestDamagedStates(t *testing.T) {
	h := newHome(t)
	if _, err := h.NewPerson(t.Context(), somewhere, "laptop", nil); err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(h.path(stateName))
	if err != nil {
		t.Fatal(err)
	}
	for name, damaged := range map[string][]byte{
		"empty": {}, "cut off": good[:len(good)/2], "no state": []byte("{}"), "null": []byte("null"),
		"another version": []byte(strings.Replace(string(good), `"version": 1`, `"version": 2`, 1)),
	} {
		if err := os.WriteFile(h.path(stateName), damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := h.Read(); !errors.Is(err, cloudpal.Corrupt) || cloudpal.HintOf(err) == "" {
			t.Errorf("%s: got %v, want %v and a hint", name, err, cloudpal.Corrupt)
		}
	}
	if err := h.Remove(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(h.Dir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the home is still there: %v", err)
	}
}

func TestRemoveLeavesWhatIsNotOurs(t *testing.T) {
	h := newHome(t)
	if _, err := h.NewPerson(t.Context(), somewhere, "laptop", nil); err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(h.Dir(), "letters")
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := h.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(h.Dir())
	if err != nil || len(left) != 1 || left[0].Name() != "letters" {
		t.Errorf("left are %v, %v", left, err)
	}
}

// FuzzParseState wants no bytes to be more than an error.
func FuzzParseState(f *testing.F) {
	phrase := identity.NewPhrase()
	s, err := newState(phrase, somewhere, "laptop", nil)
	if err != nil {
		f.Fatal(err)
	}
	s.Pal = &Pal{ID: api.NewID(), Image: "sha256:1"}
	good, err := json.Marshal(s)
	if err != nil {
		f.Fatal(err)
	}
	if _, err := parseState(good); err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"version":1,"list":""}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseState(data)
		if err != nil {
			return
		}
		if _, err := s.Devices(); err != nil {
			t.Error(err)
		}
		if s.Confirm != nil {
			s.Confirm.Question()
		}
	})
}

// What the phrase's owner must do once takes a guesser long.
func TestGuessesTakeLong(t *testing.T) {
	c := newConfirm(identity.NewPhrase().Words())
	begun := time.Now()
	c.hash([]string{"a", "b", "c"})
	if took := time.Since(begun); took < 20*time.Millisecond {
		t.Errorf("a guess takes %v", took)
	}
}
