package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"time"

	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/identity"
	"github.com/tradle/cloudpal/test/world"
)

// coreMemory and coreDisk are what a center gives a core by default, and what
// world.NewHouse has it give.
const (
	coreMemory = 160 << 20
	coreDisk   = 256 << 20
)

// plainCore starts, on a host of its own, a VM of the image that pals' cores are
// made of, and unlocks it as a device does. For its host it is no WireGuard
// peer: any packet wakes it.
func (b *run) plainCore() (*world.World, api.VM) {
	w := world.New(b, "--armed", "0")
	_, err := w.API.Import(context.Background(), api.ImportRequest{Path: world.Core(b), Name: "core"}, nil)
	b.must(err)
	v := w.Start(api.CreateRequest{
		Name: "core", Host: "core", Image: "core", Memory: coreMemory, Disk: coreDisk, ReadOnly: true, Outbound: true,
		Volumes: []api.Mount{{Volume: "core", Path: "/dev/pal", Raw: true}},
	})
	b.must(unlock(w, v))
	return w, v
}

// unlock gives a core the secrets of a person of its own.
func unlock(w *world.World, v api.VM) error {
	root, laptop, now := identity.NewPhrase().Root(), identity.NewDeviceKey(), time.Now()
	list, err := identity.NewList(root, netip.MustParsePrefix("10.77.88.0/24"), netip.MustParsePrefix("fd77:1234:5678::/64"), now)
	if err != nil {
		return err
	}
	if list, err = list.Add(root, laptop.Device("laptop", true), now); err != nil {
		return err
	}
	url := "http://" + world.Addr(v, 7460)
	var text string
	w.Eventually(patience, "the core tells its lock", func() (err error) {
		text, err = w.Get(url + "/v1/lock")
		return err
	})
	var lock struct{ Key []byte }
	if err := json.Unmarshal([]byte(text), &lock); err != nil {
		return err
	}
	sealed, err := identity.SealUnlock(lock.Key, laptop, identity.Unlock{Secrets: root.PalSecrets(), List: list, Time: now})
	if err != nil {
		return err
	}
	r, err := w.HTTP().Post(url+"/v1/unlock", "application/octet-stream", bytes.NewReader(sealed))
	if err != nil {
		return err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusNoContent {
		said, _ := io.ReadAll(io.LimitReader(r.Body, 1<<10))
		return fmt.Errorf("unlock: %s %s", r.Status, said)
	}
	return nil
}
