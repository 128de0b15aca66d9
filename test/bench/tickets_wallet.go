package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tradle/cloudpal/test/world"
	"github.com/tradle/cloudpal/ticket"
)

const (
	packs     = 100 // of which a full wallet has so many
	inPack    = 100 // tickets
	mintReady = time.Minute
)

// An owner is a person's home, with a wallet in it, and the program that they run.
type owner struct {
	b            *run
	program, dir string
}

// A usage is what commands took: until they ended, and of that, computing.
type usage struct{ elapsed, computed sample }

// run runs a command to its end.
func (o owner) run(args ...string) (out string, elapsed, computed time.Duration) {
	cmd := exec.Command(o.program, args...)
	cmd.Env = append(os.Environ(), "CLOUDPAL_HOME="+o.at("home"), "CLOUDPAL_MINT="+o.at("../mint"))
	var said, told strings.Builder
	cmd.Stdout, cmd.Stderr = &said, &told
	began := time.Now()
	if err := cmd.Run(); err != nil {
		o.b.Fatalf("cloudpal %s: %v\n%s", strings.Join(args, " "), err, &told)
	}
	return said.String(), time.Since(began), cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}

func (o owner) at(name string) string { return filepath.Join(o.dir, name) }

// benchWallet times the commands of a wallet of 10,000 tickets, as processes from
// their start to their end, with a mint beside them; and the same with one of 100.
func (c *prices) benchWallet(b *run) error {
	full, small := b.owners()
	codes := full.mint()
	for range packs {
		codes = full.buy("hundred", codes)
		time.Sleep(time.Second) // a mint lets one source ask so often: for a quote, and to pay it
	}
	codes = small.buy("hundred", codes)
	if out, _, _ := full.run("wallet", "list", "--json"); !strings.Contains(out, fmt.Sprintf(`"paid": %d`, packs*worth())) {
		b.Fatalf("the wallet has something else: %s", out)
	}
	for _, name := range []string{"list", "buy", "send", "receive", "backup", "sync"} {
		var ours, other usage
		for round := range 7 {
			ours.add(full.command(name, round, small, &codes))
			other.add(small.command(name, round, full, &codes))
		}
		f := told("wallet of 10,000 tickets: "+name, "ms", ours.elapsed.at(0.5), other.elapsed.at(0.5), "with 100 tickets")
		f.Goal, f.Met = "≤ 200 ms", f.Ours <= 200
		b.add(f, told("  computing", "ms", ours.computed.at(0.5), other.computed.at(0.5), "with 100 tickets"))
	}
	return nil
}

func (u *usage) add(elapsed, computed time.Duration) {
	u.elapsed, u.computed = append(u.elapsed, elapsed), append(u.computed, computed)
}

// owners makes two homes.
func (b *run) owners() (full, small owner) {
	bin, err := world.Binaries()
	b.must(err)
	dir := b.TempDir()
	full, small = owner{b, filepath.Join(bin, "cloudpal"), filepath.Join(dir, "full")}, owner{b, filepath.Join(bin, "cloudpal"), filepath.Join(dir, "small")}
	for _, o := range []owner{full, small} {
		b.must(os.Mkdir(o.dir, 0o700))
	}
	return full, small
}

// command runs one, and what must come before it, which is not counted.
func (o owner) command(name string, round int, other owner, codes *[]string) (elapsed, computed time.Duration) {
	gift := o.at(fmt.Sprint("gift", round))
	args := []string{"wallet", name}
	switch name {
	case "buy":
		args = append(args, "day", "--now", "--voucher", o.voucher(codes))
	case "send":
		args = append(args, "16", "--now", "--file", gift)
	case "receive": // what the other has sent
		args = append(args, other.at(fmt.Sprint("gift", round)), "--now")
	case "backup":
		args = append(args, o.at("backup"))
	case "sync":
		args = append(args, "--now")
	}
	_, elapsed, computed = o.run(args...)
	return elapsed, computed
}

// hundred is the pack that fills a wallet.
func hundred() (list []ticket.Denomination) {
	for d, n := range map[ticket.Denomination]int{1: 40, 4: 30, 16: 20, 64: 10} {
		list = append(list, slices.Repeat([]ticket.Denomination{d}, n)...)
	}
	slices.Sort(list)
	return list
}

func worth() (sum int) {
	for _, d := range hundred() {
		sum += int(d)
	}
	return sum
}

// mint makes a mint that sells that pack, and runs it. It returns codes of vouchers:
// each of the pack, and behind them, each of a day.
func (o owner) mint() (codes []string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	o.b.must(err)
	address := l.Addr().String()
	o.b.must(l.Close())
	o.run("mint", "init", "--own", "--listen", address)
	path := o.at("../mint/config.json")
	text, err := os.ReadFile(path)
	o.b.must(err)
	var config map[string]any
	o.b.must(json.Unmarshal(text, &config))
	config["packs"] = append(config["packs"].([]any), map[string]any{"name": "hundred", "tickets": hundred(), "price": 1000, "currency": "EUR"})
	text, err = json.Marshal(config)
	o.b.must(err)
	o.b.must(os.WriteFile(path, text, 0o600))
	for pack, count := range map[string]int{"hundred": packs + 1, "day": 14} {
		out, _, _ := o.run("mint", "vouchers", "make", pack, fmt.Sprint(count), "--batch", pack)
		if made := strings.Fields(out); pack == "day" {
			codes = append(codes, made...)
		} else {
			codes = append(made, codes...)
		}
	}
	o.serve()
	return codes
}

// serve runs the mint until the benchmark ends.
func (o owner) serve() {
	cmd := exec.Command(o.program, "mint", "serve")
	cmd.Env = append(os.Environ(), "CLOUDPAL_MINT="+o.at("../mint"))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	o.b.must(err)
	o.b.must(cmd.Start())
	o.b.Cleanup(func() {
		cmd.Process.Signal(unix.SIGTERM)
		cmd.Wait()
	})
	answers := make(chan error, 1)
	go func() {
		_, err := bufio.NewReader(out).ReadString('\n')
		answers <- err
	}()
	select {
	case err := <-answers:
		o.b.must(err)
	case <-time.After(mintReady):
		o.b.Fatal("the mint does not answer")
	}
}

// buy buys a pack with the first code, and returns the rest.
func (o owner) buy(pack string, codes []string) []string {
	file := o.voucher(&codes)
	o.run("wallet", "buy", pack, "--now", "--mint", o.at("../mint/mint.json"), "--voucher", file)
	return codes
}

// voucher puts the first code into a file.
func (o owner) voucher(codes *[]string) (path string) {
	path = o.at("voucher")
	o.b.must(os.WriteFile(path, []byte((*codes)[0]), 0o600))
	*codes = (*codes)[1:]
	return path
}
