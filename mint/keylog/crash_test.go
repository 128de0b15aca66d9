package keylog

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"

	"github.com/tradle/cloudpal/ticket"
	"github.com/tradle/cloudpal/ticket/manifest"
)

// What TestMain does in place of the tests, in a process that is there to be killed.
const (
	roleVariable = "KEYLOG_TEST_ROLE" // publisher or witness
	dataVariable = "KEYLOG_TEST_DATA"
)

func TestMain(m *testing.M) {
	var err error
	switch os.Getenv(roleVariable) {
	case "publisher":
		err = runPublisher()
	case "witness":
		err = runWitness()
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// A publication is what a publisher is to do.
type publication struct {
	Folder, Key, Root string
	Trust             *manifest.Trust
	Witnesses         []string
	From, To          ticket.Epoch
}

// runPublisher publishes manifests of epochs and says each when it is done.
func runPublisher() error {
	var p publication
	if err := json.Unmarshal([]byte(os.Getenv(dataVariable)), &p); err != nil {
		return err
	}
	m := &mint{Config: Config{Folder: p.Folder, Key: p.Key, Trust: p.Trust, Witnesses: p.Witnesses, Now: now}}
	var err error
	if m.root, err = note.NewSigner(p.Root); err != nil {
		return err
	}
	l, err := Open(m.Config)
	if err != nil {
		return err
	}
	defer l.Close()
	for e := p.From; e <= p.To; e++ {
		entry, keys := m.manifest(panicker{}, e, "")
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		err := l.Publish(ctx, entry, keys)
		cancel()
		if err != nil {
			return err
		}
		fmt.Println(e)
	}
	return nil
}

// A panicker stands for a test where none runs.
type panicker struct{ testing.TB }

func (panicker) Helper()           {}
func (panicker) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

// child starts this program in a role. Its stdout is read line by line.
func child(t *testing.T, role string, data any, files ...*os.File) (*exec.Cmd, <-chan string) {
	t.Helper()
	b, err := json.Marshal(data)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleVariable+"="+role, dataVariable+"="+string(b))
	cmd.Stderr = os.Stderr
	cmd.ExtraFiles = files
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
	}()
	t.Cleanup(func() { kill(cmd) })
	return cmd, lines
}

// kill ends a process as a power cut would, as far as it can tell.
func kill(cmd *exec.Cmd) {
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

// A publisher is killed before the witnesses saw what it published, after one or both
// cosigned it, and whenever it happens; what it said is published stays so, and each
// manifest is in the log once.
func TestKilledPublisher(t *testing.T) {
	t.Parallel()
	m := newMint(t, 2)
	private, root := newKeyPair(t, issuer)
	m.Trust.Root = root
	var err error
	if m.root, err = note.NewSigner(private); err != nil {
		t.Fatal(err)
	}
	const first, last = 80, 93
	p := publication{Folder: m.Folder, Key: m.Key, Root: private, Trust: m.Trust, Witnesses: m.Witnesses, From: first, To: last}

	// hold does not answer while the publisher lives, and says that it was asked.
	hold := func(asked chan struct{}) gate {
		return func(_ http.ResponseWriter, r *http.Request) bool {
			_, _ = io.Copy(io.Discard, r.Body) // else the server does not notice
			select {
			case asked <- struct{}{}:
			default:
			}
			<-r.Context().Done()
			return false
		}
	}
	answerless := func(s *witnessServer, asked chan struct{}) gate {
		return func(w http.ResponseWriter, r *http.Request) bool {
			s.witness.ServeHTTP(httptest.NewRecorder(), r)
			return hold(asked)(w, r)
		}
	}
	// Each is where the publisher is killed.
	one, two := m.witnesses[0], m.witnesses[1]
	stages := []func(asked chan struct{}){
		func(asked chan struct{}) { one.set(hold(asked)) },
		func(asked chan struct{}) { one.set(answerless(one, asked)) },
		func(asked chan struct{}) { two.set(answerless(two, asked)) },
		func(asked chan struct{}) { one.set(answerless(one, asked)); two.set(answerless(two, nil)) },
	}
	var seen manifest.Checkpoint
	var done ticket.Epoch
	check := func() {
		t.Helper()
		if done == 0 {
			return
		}
		l, err := Open(Config{Folder: m.Folder, Key: m.Key, Trust: m.Trust, Witnesses: m.Witnesses, Now: now})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		for e := ticket.Epoch(first); e <= done; e++ {
			_, b, err := m.fetch(l, e, seen)
			if err != nil {
				t.Fatalf("epoch %d, which was published: %v", e, err)
			}
			seen = b.Checkpoint
		}
	}
	reached := func(line string) {
		n, err := strconv.Atoi(line)
		if err != nil {
			t.Fatalf("the publisher says %q", line)
		}
		done = max(done, ticket.Epoch(n))
	}
	for i, stage := range stages {
		asked := make(chan struct{}, 1)
		stage(asked)
		cmd, lines := child(t, "publisher", p)
		select {
		case <-asked:
		case line, ok := <-lines:
			t.Fatalf("stage %d: the publisher says %q, %v", i, line, ok)
		case <-time.After(time.Minute):
			t.Fatalf("stage %d: no witness was asked", i)
		}
		kill(cmd)
		if line, ok := <-lines; ok {
			t.Fatalf("stage %d: it says that %s is published, and nothing can be", i, line)
		}
		one.set(nil)
		two.set(nil)
		// It goes on from there, by one.
		step := p
		step.To = first + ticket.Epoch(i)
		_, lines = child(t, "publisher", step)
		for line := range lines {
			reached(line)
		}
		if done != step.To {
			t.Fatalf("stage %d: published up to %d", i, done)
		}
		check()
		p.From = done + 1 // the next is new
	}
	p.From = first

	r := rand.New(rand.NewPCG(5, 93))
	kills := 0
	for done < last {
		cmd, lines := child(t, "publisher", p)
		at := time.After(time.Duration(r.IntN(700)) * time.Millisecond)
		for alive := true; alive; {
			select {
			case line, ok := <-lines:
				if !ok {
					alive = false
					break
				}
				reached(line)
			case <-at:
				kill(cmd)
				kills++
				for line := range lines {
					reached(line)
				}
				alive = false
			}
		}
		check()
	}
	l := m.open(t)
	entries, err := l.integrated()
	if err != nil || len(entries) != last-first+1 {
		t.Errorf("after %d kills, %d manifests are %d entries, %v", kills, last-first+1, len(entries), err)
	}
	t.Logf("%d kills", kills+len(stages))
}

type witnessData struct {
	Folder, Name string
	Logs         []string
}

// runWitness serves a witness at file 3.
func runWitness() error {
	var d witnessData
	if err := json.Unmarshal([]byte(os.Getenv(dataVariable)), &d); err != nil {
		return err
	}
	l, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		return err
	}
	w, err := OpenWitness(WitnessConfig{Folder: d.Folder, Name: d.Name, Logs: d.Logs, Now: now})
	if err != nil {
		return err
	}
	fmt.Println(w.Key())
	return http.Serve(l, w)
}

// A witness that is killed at any time remembers what it cosigned: of a log and its
// fork, it never cosigns both, and it never goes back.
func TestKilledWitness(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	trees := newTrees(t)
	d := witnessData{Folder: t.TempDir(), Name: "witness.example", Logs: []string{trees.key}}
	r := rand.New(rand.NewPCG(7, 7))
	seen := history{trees: trees}
	kills := 0
	for ; kills < 6 || seen.last.size < treeSize; kills++ {
		if kills > 60 {
			t.Fatalf("after %d kills it cosigned only %d entries", kills, seen.last.size)
		}
		cmd, lines := child(t, "witness", d, f)
		if _, ok := <-lines; !ok {
			t.Fatal("the witness does not start")
		}
		over := make(chan struct{})
		time.AfterFunc(time.Duration(r.IntN(100))*time.Millisecond, func() {
			kill(cmd)
			close(over)
		})
		for alive := true; alive; {
			next := head{branch: r.IntN(2), size: uint64(r.IntN(treeSize) + 1)}
			if r.IntN(2) == 0 { // else it soon sees only what it refuses
				next = head{branch: seen.last.branch, size: min(seen.last.size+1, treeSize)}
			}
			ctx, cancel := context.WithCancel(t.Context())
			go func() { // the listener stays, and would take a question that nobody answers
				select {
				case <-over:
				case <-ctx.Done():
				}
				cancel()
			}()
			err := seen.ask(ctx, "http://"+l.Addr().String(), next)
			cancel()
			if err != nil && !errors.Is(err, errLost) {
				t.Fatal(err)
			}
			alive = err == nil
		}
		<-over
	}
	t.Logf("%d kills, %d cosigned, %d refused", kills, seen.cosigned, seen.refused)
}
