package world

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/person"
)

// CenterAddress waits until the world's center answers, and returns its
// address.
func (w *World) CenterAddress() api.Address {
	w.TB.Helper()
	var n struct {
		PID     int
		Address api.Address
	}
	w.Eventually(60*time.Second, "the center answers", func() error {
		data, err := os.ReadFile(filepath.Join(w.Run, "center.json"))
		if err == nil {
			err = json.Unmarshal(data, &n)
		}
		if err == nil && n.PID != w.AgentPID() {
			err = fmt.Errorf("it is another's notice")
		}
		return err
	})
	return n.Address
}

// A Laptop is a person's device: the command in a place, with a home.
type Laptop struct {
	*Place
	Home   string
	Phrase []string
	Phone  string // the configuration of the phone that "up" adds
	bin    string
}

// Laptop makes one that has nothing yet.
func (p *Place) Laptop() *Laptop {
	p.tb.Helper()
	bin, err := Binaries()
	must(p.tb, err)
	l := &Laptop{Place: p, Home: filepath.Join(p.tb.TempDir(), "home"), bin: filepath.Join(bin, "cloudpal")}
	p.tb.Cleanup(func() { l.command("down").Run() })
	return l
}

func (l *Laptop) command(args ...string) *exec.Cmd {
	cmd := l.Place.Command(l.bin, args...)
	cmd.Env = append(os.Environ(), "CLOUDPAL_HOME="+l.Home)
	return cmd
}

// Try runs the command and returns what it printed.
func (l *Laptop) Try(args ...string) ([]byte, error) {
	cmd := l.command(args...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		return out.Bytes(), fmt.Errorf("cloudpal %s: %w\n%s", strings.Join(args, " "), err, said.String())
	}
	return out.Bytes(), nil
}

// Cloudpal runs the command, which must work.
func (l *Laptop) Cloudpal(args ...string) []byte {
	l.tb.Helper()
	out, err := l.Try(args...)
	if err != nil {
		l.tb.Fatal(err)
	}
	return out
}

// Up brings the pal up, and keeps what is shown only once.
func (l *Laptop) Up(args ...string) person.Status {
	l.tb.Helper()
	var r struct {
		Phrase string
		Phone  *person.Changed
		person.Status
	}
	must(l.tb, json.Unmarshal(l.Cloudpal(append([]string{"up", "--json"}, args...)...), &r))
	if r.Phrase != "" {
		l.Phrase = strings.Fields(r.Phrase)
	}
	if r.Phone != nil {
		l.Phone = r.Phone.Config
	}
	return r.Status
}

// Status asks for the pal's state, which wakes nothing.
func (l *Laptop) Status() person.Status {
	l.tb.Helper()
	var s person.Status
	must(l.tb, json.Unmarshal(l.Cloudpal("status", "--json"), &s))
	return s
}

var number = regexp.MustCompile(`\d+`)

// Add adds a device and returns its configuration. The first time that needs
// words of the phrase; Add knows them.
func (l *Laptop) Add(name string, args ...string) string {
	l.tb.Helper()
	args = append([]string{"device", "add", name, "--json"}, args...)
	out, err := l.Try(args...)
	if err != nil && strings.Contains(err.Error(), "words") {
		_, question, _ := strings.Cut(err.Error(), "words")
		question, _, _ = strings.Cut(question, "\n")
		var words []string
		for _, n := range number.FindAllString(question, -1) {
			i, _ := strconv.Atoi(n)
			words = append(words, l.Phrase[i-1])
		}
		cmd := l.command(append(args, "--phrase-words")...)
		cmd.Stdin = strings.NewReader(strings.Join(words, " ") + "\n")
		out, err = cmd.Output()
	}
	must(l.tb, err)
	var c person.Changed
	must(l.tb, json.Unmarshal(out, &c))
	return c.Config
}

// Device returns the address of one of the person's devices.
func (l *Laptop) Device(name string) (v4, v6 netip.Addr) {
	l.tb.Helper()
	for _, d := range l.Status().Devices {
		if d.Name == name {
			for _, a := range d.Addresses {
				if a.Is4() {
					v4 = a
				} else {
					v6 = a
				}
			}
			return v4, v6
		}
	}
	l.tb.Fatalf("there is no device %s", name)
	return v4, v6
}
