package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/tradle/cloudpal"
)

const (
	maxEnvFile = 1 << 20 // bytes
	maxEnvLine = 128 << 10
)

// parseEnv reads NAME=value, or NAME, which takes the value from this
// command's environment. Unset there, it gives "".
func parseEnv(text string, getenv func(string) (string, bool)) (string, error) {
	name, _, has := strings.Cut(text, "=")
	if name == "" || strings.ContainsRune(text, 0) || strings.ContainsAny(name, " \t\n\r") {
		return "", errors.New("an environment variable is written NAME=value, or NAME to pass one on")
	}
	if has {
		return text, nil
	}
	if value, ok := getenv(name); ok {
		return name + "=" + value, nil
	}
	return "", nil
}

// parseEnvs reads many, and leaves out those that are unset.
func parseEnvs(texts []string, getenv func(string) (string, bool)) ([]string, error) {
	var env []string
	for _, text := range texts {
		e, err := parseEnv(text, getenv)
		if err != nil {
			return nil, err
		}
		if e != "" {
			env = append(env, e)
		}
	}
	return env, nil
}

// readEnv reads a file's variables: one a line, as --env takes them; empty
// lines and lines that begin with # are left out. Quotes have no meaning.
func readEnv(r io.Reader, getenv func(string) (string, bool)) ([]string, error) {
	var env []string
	limited := &io.LimitedReader{R: r, N: maxEnvFile}
	s := bufio.NewScanner(limited)
	s.Buffer(nil, maxEnvLine)
	for n := 1; s.Scan(); n++ {
		line := strings.TrimLeft(s.Text(), " \t")
		if line == "" || line[0] == '#' {
			continue
		}
		e, err := parseEnv(line, getenv)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		if e != "" {
			env = append(env, e)
		}
	}
	if s.Err() == nil && limited.N == 0 {
		return nil, fmt.Errorf("it is above %d KiB", maxEnvFile>>10)
	}
	return env, s.Err()
}

// readEnvFiles reads files in turn.
func readEnvFiles(files []string, getenv func(string) (string, bool)) ([]string, error) {
	var env []string
	for _, name := range files {
		f, err := os.Open(name)
		if err != nil {
			return nil, cloudpal.E("read variables", cloudpal.NotExist, err)
		}
		more, err := readEnv(f, getenv)
		f.Close()
		if err != nil {
			return nil, cloudpal.E("read variables from "+name, cloudpal.Invalid, err)
		}
		env = append(env, more...)
	}
	return env, nil
}
