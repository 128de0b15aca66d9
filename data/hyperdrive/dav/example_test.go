package dav_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"

	"github.com/tradle/cloudpal/data/corestore"
	"github.com/tradle/cloudpal/data/hyperdrive"
	"github.com/tradle/cloudpal/data/hyperdrive/dav"
)

// What a file manager puts over WebDAV is in the drive.
func ExampleHandler() {
	store := corestore.Memory()
	defer store.Close()
	drive, err := hyperdrive.New(store, hyperdrive.Options{})
	if err != nil {
		panic(err)
	}
	server := httptest.NewServer(dav.Handler(drive, "/files"))
	defer server.Close()

	put, err := http.NewRequest("PUT", server.URL+"/files/a.txt", strings.NewReader("hello"))
	if err != nil {
		panic(err)
	}
	answer, err := http.DefaultClient.Do(put)
	if err != nil {
		panic(err)
	}
	io.Copy(io.Discard, answer.Body)
	answer.Body.Close()

	content, err := drive.Get(ctx, "/a.txt")
	fmt.Printf("%s %v\n", content, err)
	// Output: hello <nil>
}
