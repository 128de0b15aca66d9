package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"time"

	center "github.com/tradle/cloudpal/center/api"
	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/test/world"
)

// How many pals sleep on a center that has few, and on one that has many.
const (
	fewPals  = 10
	manyPals = 10_000
)

// palRounds is how often the real one of them is woken.
const palRounds = 25

// benchPals holds a pal's wake on a center where thousands sleep against one
// where ten do. All but one of each are records and naps of a real pal, given
// names, addresses, ports and keys of their own: what the center and its agent
// keep of each is as real as if it had booted. Only what is never woken is not
// there to wake. The two centers run at the same time and take turns.
func benchPals(b *run) error {
	few, many := b.crowded(fewPals), b.crowded(manyPals)
	wakes := map[*world.House]sample{}
	parts := map[*world.House][][]api.Step{}
	for range palRounds {
		for _, h := range []*world.House{few, many} {
			d, err := ping(h.Phone, h.Core)
			b.must(err)
			wakes[h] = append(wakes[h], d)
			parts[h] = append(parts[h], b.woken(h))
			h.Sleep(api.Memory)
			time.Sleep(settled)
		}
	}
	tellSteps("of few", parts[few])
	tellSteps("of many", parts[many])
	host, err := many.API.Host(context.Background())
	b.must(err)
	const quiet = 20 * time.Second
	before := cpuOf(b, many.AgentPID())
	time.Sleep(quiet)
	cpu := 100 * (cpuOf(b, many.AgentPID()) - before).Seconds() / quiet.Seconds()
	b.add(upTo(fmt.Sprintf("memory of a center, %d pals asleep", host.Asleep), "MiB", mib(int(host.AgentRSS)), 200),
		upTo("lookup and route of a wake among them, p99", "ms", share(parts[many]).at(0.99), 1),
		told("lookup and route, p50", "ms", share(parts[many]).at(0.5), share(parts[few]).at(0.5), fmt.Sprintf("of %d", fewPals)),
		most(fmt.Sprintf("wake of one of %d, ping, p50", manyPals), "ms", wakes[many].at(0.5), wakes[few].at(0.5), fmt.Sprintf("one of %d", fewPals), 1.1),
		told("CPU of the center meanwhile, share of a core", "%", cpu, 0, ""))
	return nil
}

// crowded makes a house in whose center so many pals sleep.
func (b *run) crowded(pals int) *world.House {
	h := world.NewHouse(b, "--armed", "0", "--udp-ports", "33000-65535", "--max-pals", "20000")
	_, err := h.Phone.AskCore(h.Core, patience)
	b.must(err)
	h.Sleep(api.Disk)
	h.StopAgent()
	m := b.mold(h)
	for i := 1; i < pals; i++ {
		m.cast(b, i)
	}
	begun := time.Now()
	h.StartAgent()
	h.CenterAddress()
	fmt.Fprintf(os.Stderr, "    a center with %d pals answers after %v\n", pals, time.Since(begun).Round(time.Millisecond))
	host, err := h.API.Host(context.Background())
	b.must(err)
	if host.Asleep != pals {
		b.Fatalf("%d of %d pals are asleep", host.Asleep, pals)
	}
	if _, err := h.Phone.AskCore(h.Core, patience); err != nil {
		b.Fatalf("the real one: %v", err)
	}
	h.Sleep(api.Memory)
	return h
}

// A mold makes pals after a real one that sleeps on disk.
type mold struct {
	dir, run     string // the center's state and run directories
	name         string // of the real one's VM
	port         uint16
	vm, pal, nap map[string]any // its records
	seen, events []byte         // of its sessions; what happened to it
}

func (b *run) mold(h *world.House) *mold {
	m := &mold{dir: filepath.Join(h.Dir, "state"), run: h.Run, name: h.Pal}
	m.vm = b.readJSON(filepath.Join(m.dir, "vms", m.name, "vm.json"))
	m.pal = b.readJSON(m.record(m.name))
	m.nap = b.readJSON(filepath.Join(m.run, "nap", m.name, "run.json"))
	m.port = uint16(m.pal["hostPort"].(float64))
	var err error
	m.seen, err = os.ReadFile(m.sessions(m.name))
	b.must(err)
	m.events, err = os.ReadFile(filepath.Join(m.dir, "vms", m.name, "events.jsonl"))
	b.must(err)
	return m
}

func (m *mold) record(name string) string {
	return filepath.Join(m.dir, "center", "pals", name[len("pal-"):]+".json")
}

func (m *mold) sessions(name string) string {
	return filepath.Join(m.run, "network", "sessions", name+".json")
}

// cast makes the i-th pal, from 1 up.
func (m *mold) cast(b *run, i int) {
	id := string(center.NewID())
	name := "pal-" + id
	key := make([]byte, 32)
	rand.Read(key)
	port := 33000 + i
	if port >= int(m.port) {
		port++
	}
	for _, dir := range []string{
		filepath.Join(m.dir, "vms", name), filepath.Join(m.run, "nap", name), filepath.Join(m.run, "vm", name),
	} {
		b.must(os.Mkdir(dir, 0o711))
	}
	b.must(os.Link(filepath.Join(m.dir, "vms", m.name, "nap.sealed"), filepath.Join(m.dir, "vms", name, "nap.sealed")))
	b.must(os.Link(filepath.Join(m.dir, "volumes", m.name+".raw"), filepath.Join(m.dir, "volumes", name+".raw")))
	b.must(os.WriteFile(filepath.Join(m.dir, "vms", name, "events.jsonl"), m.events, 0o600))

	request := m.vm["request"].(map[string]any)
	request["name"] = name
	request["volumes"].([]any)[0].(map[string]any)["volume"] = name
	wg := request["wireGuard"].(map[string]any)
	wg["publicKey"], wg["hostPort"] = key, port
	m.vm["id"], m.vm["index"] = id, i
	b.writeJSON(filepath.Join(m.dir, "vms", name, "vm.json"), m.vm)
	b.writeJSON(filepath.Join(m.run, "nap", name, "run.json"), m.nap)
	m.pal["id"], m.pal["wireGuard"], m.pal["hostPort"] = id, key, port
	b.writeJSON(m.record(name), m.pal)
	b.must(os.WriteFile(m.sessions(name), m.seen, 0o600))
}

func (b *run) readJSON(path string) (v map[string]any) {
	data, err := os.ReadFile(path)
	b.must(err)
	b.must(json.Unmarshal(data, &v))
	return v
}

func (b *run) writeJSON(path string, v any) {
	data, err := json.Marshal(v)
	b.must(err)
	b.must(os.WriteFile(path, data, 0o600))
}
