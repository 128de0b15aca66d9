package flat_test

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"testing"

	"pgregory.net/rapid"

	"github.com/tradle/cloudpal/data/flat"
)

// TestVectors compares with what flat-tree 1.13.0 says.
func TestVectors(t *testing.T) {
	var v struct {
		FullRootsByLength map[string][]uint64
		Nodes             []struct {
			Index, Parent, Sibling, Offset, CountLeaves uint64
			Depth                                       uint
			LeftChild, RightChild                       int64
			Spans                                       [2]uint64
		}
	}
	raw, err := os.ReadFile("testdata/flat-tree.json")
	if err == nil {
		err = json.Unmarshal(raw, &v)
	}
	if err != nil || len(v.Nodes) == 0 || len(v.FullRootsByLength) == 0 {
		t.Fatal("cannot read the vectors:", err)
	}
	for text, want := range v.FullRootsByLength {
		length, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		if got := flat.AppendFullRoots(nil, length); !slices.Equal(got, want) {
			t.Errorf("roots of %d: got %v, want %v", length, got, want)
		}
	}
	for _, n := range v.Nodes {
		first, last := flat.Span(n.Index)
		left, right, ok := flat.Children(n.Index)
		got := []any{flat.Depth(n.Index), flat.Offset(n.Index), flat.Parent(n.Index), flat.Sibling(n.Index), flat.Count(n.Index), first, last, flat.Index(n.Depth, n.Offset)}
		want := []any{n.Depth, n.Offset, n.Parent, n.Sibling, n.CountLeaves, n.Spans[0], n.Spans[1], n.Index}
		if !slices.Equal(got, want) {
			t.Errorf("node %d: got %v, want %v", n.Index, got, want)
		}
		if ok != (n.LeftChild >= 0) || ok && (left != uint64(n.LeftChild) || right != uint64(n.RightChild)) {
			t.Errorf("children of %d: got %d, %d, %v, want %d, %d", n.Index, left, right, ok, n.LeftChild, n.RightChild)
		}
	}
}

// TestTree checks what must hold between the functions, up to the largest
// index that is promised.
func TestTree(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		i := rapid.Uint64Range(0, 1<<62-1).Draw(t, "i")
		if got := flat.Index(flat.Depth(i), flat.Offset(i)); got != i {
			t.Errorf("index of the depth and offset of %d: got %d", i, got)
		}
		parent, sibling := flat.Parent(i), flat.Sibling(i)
		if flat.Parent(sibling) != parent || flat.Sibling(sibling) != i {
			t.Errorf("%d and %d are not siblings below %d", i, sibling, parent)
		}
		left, right, ok := flat.Children(parent)
		if !ok || left != min(i, sibling) || right != max(i, sibling) {
			t.Errorf("children of %d: got %d, %d, want %d, %d", parent, left, right, min(i, sibling), max(i, sibling))
		}
		if flat.IsRight(i) != (i == right) || !flat.Contains(parent, i) || flat.Contains(i, parent) || flat.Contains(i, sibling) {
			t.Errorf("%d is not where it should be below %d", i, parent)
		}
		if flat.Depth(parent) != flat.Depth(i)+1 || flat.Count(parent) != 2*flat.Count(i) {
			t.Errorf("%d is not one above %d", parent, i)
		}
	})
}

// TestFullRoots checks that roots cover every block once and cannot be joined.
func TestFullRoots(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		length := rapid.Uint64Range(0, 1<<61).Draw(t, "length")
		var next uint64
		size := uint64(math.MaxUint64)
		for _, root := range flat.AppendFullRoots(nil, length) {
			first, last := flat.Span(root)
			if first != next || flat.Count(root) >= size {
				t.Fatalf("root %d of %d starts at %d with %d leaves; want %d, and fewer than %d", root, length, first, flat.Count(root), next, size)
			}
			next, size = last+2, flat.Count(root)
		}
		if next != 2*length {
			t.Errorf("roots of %d end before leaf %d", length, next)
		}
	})
}

// TestNoPanic goes where nothing is promised but that.
func TestNoPanic(t *testing.T) {
	for _, i := range []uint64{math.MaxUint64, math.MaxUint64 - 1, math.MaxUint64 >> 1, 1 << 63} {
		t.Log(flat.Parent(i), flat.Sibling(i), flat.Contains(i, 0), flat.Count(i), flat.Index(flat.Depth(i), flat.Offset(i)))
		t.Log(flat.Children(i))
		t.Log(flat.AppendFullRoots(nil, i))
	}
}

func Example() {
	fmt.Println(flat.AppendFullRoots(nil, 5))
	fmt.Println(flat.Span(3))
	fmt.Println(flat.Parent(2*2), flat.Sibling(2*2)) // of block 2
	// Output:
	// [3 8]
	// 0 6
	// 5 6
}
