package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

// records returns the file that a request's records are in.
func records(r *http.Request) string {
	dir := r.URL.Query().Get("dir")
	if dir == "" {
		dir = "/"
	}
	return filepath.Join(dir, "records")
}

// appendRecord adds a record that survives a power cut once it returns.
func appendRecord(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.WriteString("record\n"); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

func countRecords(path string) (string, error) {
	text, err := os.ReadFile(path)
	return fmt.Sprint(strings.Count(string(text), "record\n")), err
}
