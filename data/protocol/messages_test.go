package protocol

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"slices"
	"testing"

	"github.com/tradle/cloudpal/data/compact"
	"github.com/tradle/cloudpal/data/merkle"
)

// A jsNode is a node as the vectors have it.
type jsNode struct {
	Index, Size uint64
	Hash        string
}

func nodes(t *testing.T, list []jsNode) []merkle.Node {
	t.Helper()
	out := []merkle.Node{}
	for _, n := range list {
		out = append(out, merkle.Node{Index: n.Index, Size: n.Size, Hash: merkle.Hash(unhex(t, n.Hash))})
	}
	return out
}

func unhex(t *testing.T, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

type pair struct{ Index, Nodes, Bytes, Padding, Start, Length uint64 }

// A message is any of the vectors' values.
type message struct {
	Seeks                                                      bool
	Capability                                                 string
	Fork, Length, RemoteLength                                 uint64
	CanUpgrade, Uploading, Downloading, HasManifest, AllowPush bool
	ID, Priority, Request, Reason, Start                       uint64
	Manifest                                                   any
	Any, Drop                                                  bool
	Bitfield                                                   map[string]uint32
	Name, Message                                              string
	Block, Hash, Seek, Upgrade                                 *struct {
		pair
		Value, Signature       string
		Nodes, AdditionalNodes json.RawMessage
	}
}

type vector struct {
	Type  string
	Note  string
	Value message
	Hex   string
}

func vectors(t testing.TB) []vector {
	t.Helper()
	b, err := os.ReadFile("testdata/wire-messages.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct{ Vectors []vector }
	if err := json.Unmarshal(b, &file); err != nil {
		t.Fatal(err)
	}
	return file.Vectors
}

// Every message is written as the original writes it, and read to the same.
func TestMessages(t *testing.T) {
	for _, v := range vectors(t) {
		t.Run(v.Type+" "+v.Note, func(t *testing.T) {
			wire := unhex(t, v.Hex)
			got, err := recode(v.Type, wire)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, wire) {
				t.Errorf("read and written again\n%x, want\n%x", got, wire)
			}
			check(t, v, wire)
		})
	}
}

// recode reads a message and writes it again.
func recode(typ string, b []byte) ([]byte, error) {
	switch typ {
	case "handshake":
		m, err := decodeHandshake(b)
		return m.append(nil), err
	case "sync":
		m, err := decodeSync(b)
		return m.append(nil), err
	case "request":
		m, err := decodeRequest(b)
		return m.append(nil), err
	case "cancel":
		id, err := decodeCancel(b)
		return compact.AppendUint(nil, id), err
	case "data":
		var a answer
		_, err := a.decode(b, nil)
		return appendProof(nil, &a.clone().proof), err
	case "noData":
		m, err := decodeRefusal(b)
		return m.append(nil), err
	case "want", "unwant":
		m, err := decodeWant(b)
		return m.append(nil), err
	case "bitfield":
		m, err := decodeBitfield(b)
		return append(compact.AppendUint(compact.AppendUint(nil, m.start), uint64(len(m.words)/4)), m.words...), err
	case "range":
		m, err := decodeSpan(b)
		return m.append(nil), err
	case "extension":
		m, err := decodeExtension(b)
		return m.append(nil), err
	}
	panic("no such message: " + typ)
}

// check compares what is read with what the original says that it wrote.
func check(t *testing.T, v vector, wire []byte) {
	t.Helper()
	want := v.Value
	switch v.Type {
	case "handshake":
		m, _ := decodeHandshake(wire)
		same(t, m, handshake{want.Seeks, [32]byte(unhex(t, want.Capability))})
	case "sync":
		m, _ := decodeSync(wire)
		same(t, m, syncState{want.Fork, want.Length, want.RemoteLength, want.CanUpgrade, want.Uploading, want.Downloading, want.HasManifest, want.AllowPush})
	case "request":
		m, _ := decodeRequest(wire)
		checkRequest(t, m, want)
	case "data":
		var a answer
		a.decode(wire, nil)
		checkData(t, a.proof, want)
	case "noData":
		m, _ := decodeRefusal(wire)
		same(t, m, refusal{want.Request, want.Reason})
	case "cancel":
		id, _ := decodeCancel(wire)
		same(t, id, want.Request)
	case "want", "unwant":
		w, _ := decodeWant(wire)
		same(t, w.start, want.Start)
		same(t, w.length, want.Length)
		same(t, w.any, want.Any)
	case "range":
		s, _ := decodeSpan(wire)
		same(t, s, span{want.Start, want.Length, want.Drop})
	case "bitfield":
		f, _ := decodeBitfield(wire)
		same(t, f.start, want.Start)
		same(t, len(f.words)/4, len(want.Bitfield))
	case "extension":
		e, _ := decodeExtension(wire)
		same(t, string(e.name), want.Name)
		same(t, hex.EncodeToString(e.message), want.Message)
	}
}

func checkRequest(t *testing.T, m request, want message) {
	t.Helper()
	same(t, m.id, want.ID)
	same(t, m.fork, want.Fork)
	same(t, m.priority, want.Priority)
	same(t, m.has(partManifest), want.Manifest == true)
	same(t, m.has(partBlock), want.Block != nil)
	same(t, m.has(partHash), want.Hash != nil)
	same(t, m.has(partSeek), want.Seek != nil)
	same(t, m.has(partUpgrade), want.Upgrade != nil)
	if want.Block != nil {
		same(t, m.block.Index, want.Block.Index)
		same(t, number(t, want.Block.Nodes), m.block.Nodes)
	}
	if want.Hash != nil {
		same(t, m.hash.Index, want.Hash.Index)
		same(t, number(t, want.Hash.Nodes), m.hash.Nodes)
	}
	if want.Seek != nil {
		same(t, m.seek, merkle.SeekRequest{Bytes: want.Seek.Bytes, Padding: want.Seek.Padding})
	}
	if want.Upgrade != nil {
		same(t, m.upgrade, merkle.UpgradeRequest{Start: want.Upgrade.Start, Length: want.Upgrade.Length})
	}
}

func checkData(t *testing.T, p merkle.Proof, want message) {
	t.Helper()
	same(t, p.ID, want.Request)
	same(t, p.Fork, want.Fork)
	same(t, p.Manifest != nil, want.Manifest != nil)
	if want.Block != nil {
		same(t, p.Block.Index, want.Block.Index)
		same(t, hex.EncodeToString(p.Block.Value), want.Block.Value)
		sameNodes(t, p.Block.Nodes, want.Block.Nodes)
	}
	if want.Hash != nil {
		same(t, p.Hash.Index, want.Hash.Index)
		sameNodes(t, p.Hash.Nodes, want.Hash.Nodes)
	}
	if want.Seek != nil {
		same(t, p.Seek.Bytes, want.Seek.Bytes)
		sameNodes(t, p.Seek.Nodes, want.Seek.Nodes)
	}
	if want.Upgrade != nil {
		same(t, p.Upgrade.Start, want.Upgrade.Start)
		same(t, p.Upgrade.Length, want.Upgrade.Length)
		sameNodes(t, p.Upgrade.Nodes, want.Upgrade.Nodes)
		sameNodes(t, p.Upgrade.Additional, want.Upgrade.AdditionalNodes)
		same(t, hex.EncodeToString(p.Upgrade.Signature), want.Upgrade.Signature)
	}
}

func number(t *testing.T, raw json.RawMessage) (n uint64) {
	t.Helper()
	if err := json.Unmarshal(raw, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

func sameNodes(t *testing.T, got []merkle.Node, raw json.RawMessage) {
	t.Helper()
	var want []jsNode
	if err := json.Unmarshal(raw, &want); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got, nodes(t, want)) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func same[T comparable](t *testing.T, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Numbers that would reach beyond what can be counted are refused.
func TestRefusesReach(t *testing.T) {
	top := compact.AppendUint(nil, compact.MaxUint)
	long := append(slices.Clone(top), top...)
	for _, test := range []struct {
		name string
		b    []byte
	}{
		{"range", append([]byte{0}, long...)},
		{"want", long},
		{"bitfield", append(compact.AppendUint(nil, compact.MaxUint&^31), 1, 1, 1, 1, 1)},
		{"request", append([]byte{partUpgrade, 1, 0}, long...)},
		{"bitfield", []byte{5, 1, 1, 1, 1, 1}}, // not a multiple of 32
		{"bitfield", compact.AppendUint([]byte{0}, maxWords+1)},
		{"data", append(append([]byte{partBlock, 1, 0, 0}, compact.AppendUint(nil, 1<<40)...), 1)},
		{"extension", append(compact.AppendUint(nil, maxName+1), make([]byte, maxName+1)...)},
	} {
		if _, err := recode(test.name, test.b); err == nil {
			t.Errorf("%s %x was accepted", test.name, test.b)
		}
	}
}

// What is read from strangers' bytes is written to something that reads the same,
// and takes no more memory than the bytes.
func FuzzMessages(f *testing.F) {
	kinds := []string{"handshake", "sync", "request", "cancel", "data", "noData", "want", "unwant", "bitfield", "range", "extension"}
	for _, v := range vectors(f) {
		b, _ := hex.DecodeString(v.Hex)
		f.Add(uint8(slices.Index(kinds, v.Type)), b)
	}
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		name := kinds[int(kind)%len(kinds)]
		once, err := recode(name, b)
		if err != nil {
			return
		}
		if len(once) > len(b)+32 {
			t.Fatalf("%d bytes became %d", len(b), len(once))
		}
		twice, err := recode(name, once)
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%x was written as %x and then as %x: %v", b, once, twice, err)
		}
	})
}

// A data message of a block is read into memory that is there already.
func TestDecodeAllocatesNothing(t *testing.T) {
	p := merkle.Proof{ID: 9, Block: &merkle.BlockProof{Index: 5, Value: make([]byte, 1024), Nodes: make([]merkle.Node, 3)}}
	wire := appendProof(nil, &p)
	var a answer
	slab := make([]merkle.Node, 0, 8)
	if n := testing.AllocsPerRun(100, func() { a.decode(wire, slab) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
