// Web is the guest of tests and benchmarks: a small server that does what it
// is asked, good or bad, and counts what it did.
//
//	GET  /            a greeting
//	GET  /count       how many times it was asked to count
//	GET  /time        its clock, nanoseconds since 1970
//	GET  /random      16 bytes of the kernel's randomness, in hex
//	GET  /canary      a secret that it makes at start and only ever keeps in memory
//	GET  /datagrams   how many came to UDP :9090, and how many of them after a later one
//	GET  /append?dir  adds a record to a file and syncs it; /appended?dir counts them
//	GET  /usage       the guest's own counters (guest.Usage)
//	GET  /cpu?ms      burns CPU for so long; /spin does so for good, beside
//	GET  /write?mb    writes so much to its disk and syncs; /send?mb answers with so much
//	GET  /say?text    writes a line to its console
//	GET  /reach?addr  "yes" if a TCP connection can be made
//	GET  /self?method&path  asks this guest's own vminit
//	GET  /follow?ms   acknowledges this guest's resumes, after so long each; /resumed tells the last
//	GET  /attack?kind does its worst: see attack.go
//
// TCP :7070 echoes lines. With arguments it does one thing and ends:
// exit N, signal N, eat (all memory).
package main

import (
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"strconv"
	"syscall"
)

func main() {
	if len(os.Args) > 1 {
		once(os.Args[1:])
		return
	}
	// Before :8080, on which is waited for.
	lines, packets := listen()
	go echo(lines)
	go datagrams(packets)
	for path, answer := range answers {
		http.HandleFunc(path, serve(answer))
	}
	http.HandleFunc("/send", send)
	fmt.Println("web listens")
	log.Fatal(http.ListenAndServe(":8080", nil))
}

// once does what the arguments say.
func once(args []string) {
	n := 0
	if len(args) > 1 {
		n, _ = strconv.Atoi(args[1])
	}
	switch args[0] {
	case "exit":
		fmt.Println("to stdout")
		fmt.Fprintln(os.Stderr, "to stderr")
		os.Exit(n)
	case "signal":
		syscall.Kill(os.Getpid(), syscall.Signal(n))
		select {}
	case "eat":
		eat()
	}
	log.Fatalf("no such thing: %q", args)
}

// serve makes a handler of what answers with a line of text.
func serve(answer func(*http.Request) (string, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := answer(r)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		io.WriteString(w, body+"\n")
	}
}

// number returns a query's parameter, or 0.
func number(r *http.Request, key string) int {
	n, _ := strconv.Atoi(r.URL.Query().Get(key))
	return n
}
