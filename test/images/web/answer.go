package main

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"sync/atomic"
	"time"
)

// answers are the pages of one line.
var answers = map[string]func(*http.Request) (string, error){
	"/{$}":       func(*http.Request) (string, error) { return "hello from a microVM", nil },
	"/count":     func(*http.Request) (string, error) { return fmt.Sprint(asked.Add(1)), nil },
	"/time":      func(*http.Request) (string, error) { return fmt.Sprint(time.Now().UnixNano()), nil },
	"/random":    func(*http.Request) (string, error) { return random(), nil },
	"/canary":    func(*http.Request) (string, error) { return canary, nil },
	"/datagrams": func(*http.Request) (string, error) { return fmt.Sprint(came.Load(), " ", late.Load()), nil },
	"/append":    func(r *http.Request) (string, error) { return "ok", appendRecord(records(r)) },
	"/appended":  func(r *http.Request) (string, error) { return countRecords(records(r)) },
	"/usage":     func(*http.Request) (string, error) { return usageText() },
	"/cpu":       func(r *http.Request) (string, error) { return burn(number(r, "ms")) },
	"/spin":      func(*http.Request) (string, error) { return spin() },
	"/write":     func(r *http.Request) (string, error) { return "done", write("/written", number(r, "mb")) },
	"/say":       func(r *http.Request) (string, error) { return "said", say(r.URL.Query().Get("text")) },
	"/reach":     func(r *http.Request) (string, error) { return reach(r.URL.Query().Get("addr")), nil },
	"/attack":    func(r *http.Request) (string, error) { return "attacked", attack(r.URL.Query().Get("kind")) },
}

var (
	asked  atomic.Int64
	canary = "canary-" + random() + random()
)

func random() string {
	b := make([]byte, 16)
	rand.Read(b)
	return hex.EncodeToString(b)
}

func usageText() (string, error) {
	text, err := json.Marshal(usage())
	return string(text), err
}

func burn(ms int) (string, error) {
	for end := time.Now().Add(time.Duration(ms) * time.Millisecond); time.Now().Before(end); {
	}
	return "done", nil
}

func spin() (string, error) {
	go func() {
		for n := 0; ; n++ {
		}
	}()
	return "spinning", nil
}

// send answers with so many mebibytes of zeros.
func send(w http.ResponseWriter, r *http.Request) {
	block := make([]byte, 1<<20)
	for range number(r, "mb") {
		if _, err := w.Write(block); err != nil {
			return
		}
	}
}

// write fills a file with so many mebibytes and syncs it.
func write(path string, mb int) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	block := make([]byte, 1<<20)
	for i := range mb {
		block[0] = byte(i + 1)
		if _, err := f.Write(block); err != nil {
			return err
		}
	}
	return f.Sync()
}

// say writes a line to the console.
func say(text string) error { return os.WriteFile("/dev/console", []byte(text+"\n"), 0) }

func reach(addr string) string {
	conn, err := net.DialTimeout("tcp", addr, 2*time.Second)
	if err != nil {
		return "no"
	}
	conn.Close()
	return "yes"
}
