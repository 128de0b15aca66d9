package hypercore_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/manifest"
	"github.com/tradle/cloudpal/data/merkle"
	"github.com/tradle/cloudpal/data/storage"
)

func TestCreateAndOpen(t *testing.T) {
	s := newStore(t)
	pair := manifest.NewKeyPair([32]byte{1})
	c := create(t, s, hypercore.Options{KeyPair: &pair})
	if _, err := hypercore.Create(s, hypercore.Options{KeyPair: &pair}); !errors.Is(err, cloudpal.Exist) {
		t.Errorf("made twice: got %v, want %v", err, cloudpal.Exist)
	}
	if _, err := hypercore.OpenStored(s, [32]byte{9}, hypercore.Options{}); !errors.Is(err, cloudpal.NotExist) {
		t.Errorf("a discovery key that the store does not have: got %v, want %v", err, cloudpal.NotExist)
	}
	if _, err := hypercore.Create(s, hypercore.Options{Manifest: &manifest.Manifest{Version: 9}}); !errors.Is(err, cloudpal.Invalid) {
		t.Errorf("a manifest that is none: got %v, want %v", err, cloudpal.Invalid)
	}
	stored, err := hypercore.OpenStored(s, c.DiscoveryKey(), hypercore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer stored.Close()
	if stored.Key() != c.Key() || stored.Writable() || !c.Writable() {
		t.Errorf("key %v, writable %v and %v; a key pair that is given is not kept", stored.Key(), stored.Writable(), c.Writable())
	}
	if _, err := stored.Append([]byte("x")); !errors.Is(err, cloudpal.Denied) || cloudpal.HintOf(err) == "" {
		t.Errorf("append without the key pair: got %v, want %v and a hint", err, cloudpal.Denied)
	}
	other := newStore(t)
	r, err := hypercore.Open(other, c.Key(), hypercore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, ok := r.Manifest(); ok || r.Length() != 0 || r.Fork() != 0 || r.Signature() != nil {
		t.Error("a log that nobody has sent anything of is not empty")
	}
}

func TestLimitsOfALog(t *testing.T) {
	c := create(t, newStore(t), hypercore.Options{})
	appendAll(t, c, "a", "b")
	_, large := c.Append([]byte("c"), make([]byte, hypercore.MaxBlock+1))
	_, unsigned := c.AppendSigned(nil, []byte("c"))
	for name, err := range map[string]error{
		"a block too large":       large,
		"no signature":            unsigned,
		"longer by truncating":    c.Truncate(3),
		"the same fork":           c.Truncate(1, 0),
		"a fork beyond 2^53":      c.Truncate(1, 1<<53),
		"truncated under nothing": c.TruncateSigned(nil, 1, 1),
	} {
		if !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("%s: got %v, want %v", name, err, cloudpal.Invalid)
		}
	}
	wantBlocks(t, c, "a", "b")
	if n, err := c.Append(make([]byte, hypercore.MaxBlock)); err != nil || n != 3 {
		t.Errorf("the largest block: %v", err)
	}
	if n, err := c.Append(); err != nil || n != 3 {
		t.Errorf("no blocks: got length %d, %v", n, err)
	}
}

// TestAtomic has a batch of which one block is refused leave nothing.
func TestAtomic(t *testing.T) {
	c := create(t, newStore(t), hypercore.Options{})
	appendAll(t, c, "a")
	before := c.Head()
	if _, err := c.Append([]byte("b"), make([]byte, hypercore.MaxBlock+1)); err == nil {
		t.Fatal("it was appended")
	}
	if after := c.Head(); after.Length != before.Length || after.Hash() != before.Hash() || c.Has(1) {
		t.Error("a part of a batch was appended")
	}
}

func TestSessions(t *testing.T) {
	secret := hypercore.Encryption{Key: [32]byte{1}}
	pair := manifest.NewKeyPair([32]byte{2})
	c := create(t, newStore(t), hypercore.Options{KeyPair: &pair, Encryption: &secret})
	closed := 0
	reader := c.Session(hypercore.SessionOptions{ReadOnly: true, OnClose: func() { closed++ }})
	stored := c.Session(hypercore.SessionOptions{Stored: true})
	appendAll(t, c, "one", "two")
	wantBlocks(t, reader, "one", "two")
	if got := stored.ByteLength(); got != c.ByteLength()+16 {
		t.Errorf("bytes as they are stored: got %d, want %d", got, c.ByteLength()+16)
	}
	if b, err := stored.Local(1); err != nil || len(b) != 3+8 || string(b[8:]) == "two" {
		t.Errorf("a block as it is stored: %q, %v", b, err)
	}
	again := stored.Session(hypercore.SessionOptions{Encryption: &secret})
	defer again.Close()
	wantBlocks(t, again, "one", "two")
	if _, err := reader.Append([]byte("x")); reader.Writable() || !errors.Is(err, cloudpal.Denied) {
		t.Errorf("a session for reading: writable %v, %v", reader.Writable(), err)
	}
	writer := reader.Session(hypercore.SessionOptions{KeyPair: &pair})
	appendAll(t, writer, "three")
	if i := c.Info(); i.Length != 3 || i.ByteLength != 11 || i.Blocks != 3 || i.Contiguous != 3 || !i.Writable || !i.Encrypted || i.Compat || i.Key != c.Key() {
		t.Errorf("info: %+v", i)
	}
	for _, s := range []*hypercore.Core{reader, stored, writer} {
		if err := errors.Join(s.Close(), s.Close()); err != nil {
			t.Error(err)
		}
	}
	if closed != 1 {
		t.Errorf("told of the end of a session %d times", closed)
	}
	for name, err := range map[string]error{
		"local":    func() error { _, err := reader.Local(0); return err }(),
		"get":      func() error { _, err := reader.Get(t.Context(), 0); return err }(),
		"append":   func() error { _, err := writer.Append([]byte("x")); return err }(),
		"clear":    writer.Clear(0, 1),
		"truncate": writer.Truncate(0),
		"update":   func() error { _, err := reader.Update(t.Context()); return err }(),
		"download": reader.Download(t.Context(), hypercore.Range{}),
		"user":     writer.SetUserData("a", nil),
		"seek":     func() error { _, _, err := reader.Seek(t.Context(), 0); return err }(),
		"apply":    func() error { _, err := reader.Apply(merkle.Proof{}); return err }(),
		"audit":    func() error { _, err := reader.Audit(t.Context(), nil); return err }(),
	} {
		if !errors.Is(err, cloudpal.Invalid) {
			t.Errorf("%s on a closed session: got %v, want %v", name, err, cloudpal.Invalid)
		}
	}
	wantBlocks(t, c, "one", "two", "three") // whose session is open
}

func TestUserData(t *testing.T) {
	fs := vfs.NewMem()
	s, err := storage.Open("s", storage.Options{FS: fs})
	if err != nil {
		t.Fatal(err)
	}
	c, err := hypercore.Create(s, hypercore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.SetUserData("title", []byte("notes")), c.SetUserData("gone", []byte("x")), c.SetUserData("gone", nil),
		c.SetUserData("empty", []byte{}), c.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	if s, err = storage.Open("s", storage.Options{FS: fs}); err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if c, err = hypercore.Open(s, c.Key(), hypercore.Options{}); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for name, want := range map[string][]byte{"title": []byte("notes"), "gone": nil, "empty": {}, "never": nil} {
		got, err := c.UserData(name)
		if err != nil || string(got) != string(want) || (got == nil) != (want == nil) {
			t.Errorf("%s: got %q (%v), want %q", name, got, err, want)
		}
	}
}

// TestWatch tells all that happens, in order, with where the log stands after it.
func TestWatch(t *testing.T) {
	c := create(t, newStore(t), hypercore.Options{})
	var got []hypercore.Event
	stop := c.Watch(func(e hypercore.Event) { got = append(got, e) })
	appendAll(t, c, "a", "b", "c")
	if err := errors.Join(c.Clear(1, 2), c.Truncate(2)); err != nil {
		t.Fatal(err)
	}
	stop()
	appendAll(t, c, "d")
	want := []hypercore.Event{
		{Kind: hypercore.Appended, Start: 0, End: 3, Length: 3},
		{Kind: hypercore.Cleared, Start: 1, End: 2, Length: 3},
		{Kind: hypercore.Truncated, Start: 2, End: 3, Fork: 1, Length: 2},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}

	// A reader's are those of what arrives.
	r := readerOf(t, c)
	var kinds []hypercore.Kind
	defer r.Watch(func(e hypercore.Event) { kinds = append(kinds, e.Kind) })()
	m, _ := c.Manifest()
	h := c.Head()
	if err := errors.Join(r.ApplyManifest(m.Append(nil)), r.Reorg(h, h.Roots, 0, 0)); err != nil {
		t.Fatal(err)
	}
	missing, err := r.Missing(2)
	if err != nil {
		t.Fatal(err)
	}
	fetch(t, c, r, merkle.Request{Block: &merkle.NodeRequest{Index: 2, Nodes: missing}})
	if want := []hypercore.Kind{hypercore.Truncated, hypercore.Upgraded, hypercore.Downloaded}; !slices.Equal(kinds, want) {
		t.Errorf("a reader is told %v, want %v", kinds, want)
	}
}

// TestChanges joins what happens while nobody looks.
func TestChanges(t *testing.T) {
	c := create(t, newStore(t), hypercore.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	changes := c.Changes(ctx)
	appendAll(t, c, "a")
	appendAll(t, c, "b", "c")
	if err := c.Clear(0, 1); err != nil {
		t.Fatal(err)
	}
	n := 0
	for e := range changes {
		if n++; n == 2 {
			if e.Kind != hypercore.Appended || e.Start != 3 || e.End != 4 {
				t.Errorf("then: got %+v", e)
			}
			cancel()
			continue
		}
		if want := (hypercore.Event{Kind: hypercore.Appended | hypercore.Cleared, Start: 0, End: 3, Length: 3}); e != want {
			t.Errorf("got %+v, want %+v", e, want)
		}
		appendAll(t, c, "d")
	}
	if n != 2 {
		t.Errorf("%d changes, want 2", n)
	}
}
