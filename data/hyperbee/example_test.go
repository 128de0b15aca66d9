package hyperbee_test

import (
	"context"
	"errors"
	"fmt"
	"log"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/data/hyperbee"
	"github.com/tradle/cloudpal/data/hypercore"
	"github.com/tradle/cloudpal/data/storage"
)

// newBee returns a bee in memory.
func newBee() *hyperbee.Bee {
	core, err := hypercore.Create(storage.Memory(), hypercore.Options{})
	if err != nil {
		log.Fatal(err)
	}
	return hyperbee.New(core, hyperbee.Options{})
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func Example() {
	ctx, bee := context.Background(), newBee()
	must(bee.Put(ctx, []byte("ann"), []byte("12")))
	must(bee.Put(ctx, []byte("ben"), []byte("7")))
	must(bee.Put(ctx, []byte("cat"), []byte("31")))
	must(bee.Delete(ctx, []byte("ben")))

	entry, err := bee.Get(ctx, []byte("ann"))
	must(err)
	fmt.Printf("ann is %s, set by block %d\n", entry.Value, entry.Seq)
	_, err = bee.Get(ctx, []byte("ben"))
	fmt.Println("ben:", errors.Is(err, cloudpal.NotExist))
	for entry, err := range bee.Range(ctx, hyperbee.Range{GTE: []byte("a"), LT: []byte("d")}) {
		must(err)
		fmt.Printf("%s=%s\n", entry.Key, entry.Value)
	}
	// Output:
	// ann is 12, set by block 1
	// ben: true
	// ann=12
	// cat=31
}

func ExampleBatch() {
	ctx, bee := context.Background(), newBee()
	batch := bee.Batch()
	defer batch.Close()
	must(batch.Put(ctx, []byte("ann"), []byte("5")))
	must(batch.Put(ctx, []byte("ben"), []byte("19")))
	_, err := bee.Get(ctx, []byte("ann"))
	fmt.Println("others see nothing yet:", errors.Is(err, cloudpal.NotExist))
	must(batch.Flush())
	fmt.Println("version", bee.Version())
	// Output:
	// others see nothing yet: true
	// version 3
}

func ExampleBee_PutIf() {
	ctx, bee := context.Background(), newBee()
	must(bee.Put(ctx, []byte("owner"), []byte("ann")))
	taken, err := bee.PutIf(ctx, []byte("owner"), []byte("ben"), func(prev, next hyperbee.Entry) bool {
		return string(prev.Value) == "nobody"
	})
	must(err)
	fmt.Println(taken)
	// Output: false
}

func ExampleBee_Diff() {
	ctx, bee := context.Background(), newBee()
	must(bee.Put(ctx, []byte("ann"), []byte("1")))
	before := bee.Snapshot()
	defer before.Close()
	must(bee.Put(ctx, []byte("ann"), []byte("2")))
	must(bee.Put(ctx, []byte("ben"), []byte("3")))
	for d, err := range bee.Diff(ctx, before, hyperbee.Range{}) {
		must(err)
		fmt.Printf("%s: %q to %q\n", d.Left.Key, d.Right.Value, d.Left.Value)
	}
	// Output:
	// ann: "1" to "2"
	// ben: "" to "3"
}

func ExampleBee_Sub() {
	ctx, bee := context.Background(), newBee()
	must(bee.Sub("posts").Put(ctx, []byte("1"), []byte("hello")))
	must(bee.Sub("users").Put(ctx, []byte("ann"), nil))
	for entry, err := range bee.Range(ctx, hyperbee.Range{}) {
		must(err)
		fmt.Printf("%q\n", entry.Key)
	}
	for entry, err := range bee.Sub("posts").Range(ctx, hyperbee.Range{}) {
		must(err)
		fmt.Printf("%s: %s\n", entry.Key, entry.Value)
	}
	// Output:
	// "posts\x001"
	// "users\x00ann"
	// 1: hello
}

func ExampleOf() {
	type post struct {
		Title string `json:"title"`
	}
	ctx, bee := context.Background(), newBee()
	posts := hyperbee.Of(bee, hyperbee.Uint{}, hyperbee.JSON[post]{})
	must(posts.Put(ctx, 1000, post{"later"}))
	must(posts.Put(ctx, 9, post{"sooner"}))
	for p, err := range posts.Range(ctx, hyperbee.Range{GTE: posts.Key(5)}) {
		must(err)
		fmt.Println(p.Key, p.Value.Title)
	}
	// Output:
	// 9 sooner
	// 1000 later
}

func ExampleBee_WatchKey() {
	ctx, bee := context.Background(), newBee()
	for entry, err := range bee.WatchKey(ctx, []byte("door")) {
		must(err)
		if entry.Seq == 0 {
			go bee.Put(ctx, []byte("door"), []byte("open"))
			continue
		}
		fmt.Printf("the door is %s\n", entry.Value)
		break
	}
	// Output: the door is open
}
