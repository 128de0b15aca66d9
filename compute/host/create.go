package host

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/compute/api"
	"github.com/tradle/cloudpal/compute/image"
)

// What a request that is silent gets.
const (
	defaultMemory = 128 << 20
	defaultDisk   = 8 << 30
	minMemory     = 96 << 20 // below it Debian's kernel has no room (measured)
	maxMemory     = 64 << 30
	minDisk       = 16 << 20
	maxDisk       = 4 << 40
	maxCPUs       = 32
	maxVolumes    = 4
)

// Create makes a VM and boots it. If it cannot be booted, or ctx ends before it
// runs, nothing of it is left.
func (h *Host) Create(ctx context.Context, q api.CreateRequest) (api.VM, error) {
	v, err := h.place(q)
	if err != nil {
		return api.VM{}, err
	}
	err = v.createFiles(ctx)
	if err == nil {
		err = v.first(ctx)
	}
	if err == nil {
		err = context.Cause(ctx) // it runs, but for nobody
	}
	if err != nil {
		return api.VM{}, errors.Join(cloudpal.E("make vm "+v.name, "", err), v.discard())
	}
	return v.view(), nil
}

// place checks a request and gives the VM its place in the table. From then on
// its image is in use; until then nobody may collect it.
func (h *Host) place(q api.CreateRequest) (*vm, error) {
	h.collecting.RLock()
	defer h.collecting.RUnlock()
	img, err := h.cfg.Images.Get(q.Image)
	if err != nil {
		return nil, err
	}
	for choose := q.Name == ""; ; {
		if choose {
			q.Name = h.freeName(img)
		}
		if err := check(&q); err != nil {
			return nil, err
		}
		op := "make vm " + q.Name
		if len(process(img.Config, q).Args) == 0 {
			return nil, cloudpal.E(op, cloudpal.Invalid, errors.New("the image names no command")).
				WithHint("say what to run: cloudpal vm run " + q.Image + " COMMAND")
		}
		v, err := h.reserve(q, img)
		switch {
		case err == nil:
			return v, nil
		case choose && errors.Is(err, cloudpal.Exist):
			// Another took the name just now.
		default:
			return nil, cloudpal.E(op, "", err)
		}
	}
}

// check completes a request with defaults and refuses what cannot be.
func check(q *api.CreateRequest) error {
	if q.CPUs == 0 {
		q.CPUs = 1
	}
	if q.Memory == 0 {
		q.Memory = defaultMemory
	}
	if q.Disk == 0 {
		q.Disk = defaultDisk
	}
	if err := checkName("vm", q.Name); err != nil {
		return err
	}
	op := "make vm " + q.Name
	refuse := func(hint, format string, args ...any) error {
		return cloudpal.E(op, cloudpal.Invalid, fmt.Errorf(format, args...)).WithHint(hint)
	}
	switch {
	case q.CPUs < 1 || q.CPUs > maxCPUs:
		return refuse("a VM has 1 to 32 CPUs", "%d CPUs", q.CPUs)
	case q.Memory < minMemory || q.Memory > maxMemory:
		return refuse("a VM has 96 MiB to 64 GiB of memory", "%d bytes of memory", q.Memory)
	case q.Disk < minDisk || q.Disk > maxDisk:
		return refuse("a VM's disk has 16 MiB to 4 TiB", "%d bytes of disk", q.Disk)
	case len(q.Volumes) > maxVolumes:
		return refuse("a VM has at most 4 named volumes", "%d volumes", len(q.Volumes))
	case q.Limits.CPU < 0 || q.Limits.PlanCPU < 0 || q.Limits.BudgetCPU < 0 || q.Limits.BudgetNet < 0 ||
		q.Limits.DiskBytes < 0 || q.Limits.DiskOps < 0 || q.Limits.NetBytes < 0:
		return refuse("leave a limit out to have none", "a limit below zero")
	}
	q.Memory = q.Memory &^ (1<<20 - 1)
	q.Disk = q.Disk &^ (1<<20 - 1)
	for _, e := range q.Env {
		if name, _, ok := strings.Cut(e, "="); !ok || name == "" || strings.ContainsRune(e, 0) {
			return refuse("write it as NAME=value", "environment variable %s", quote(name))
		}
	}
	for i, m := range q.Volumes {
		if err := checkName("volume", m.Volume); err != nil {
			return err
		}
		if slices.ContainsFunc(q.Volumes[:i], func(o api.Mount) bool { return o.Volume == m.Volume }) {
			return refuse("mount it once", "volume %s twice", m.Volume)
		}
		if !path.IsAbs(m.Path) || path.Clean(m.Path) == "/" {
			return refuse("write it as NAME:/path", "volume %s at %s", m.Volume, quote(m.Path))
		}
	}
	if w := q.WireGuard; w != nil && (len(w.PublicKey) != 32 || w.Port == 0) {
		return refuse("a WireGuard interface has a public key of 32 bytes and a port", "a key of %d bytes, port %d", len(w.PublicKey), w.Port)
	}
	if n := q.Nap; tooShort(n.Idle) || tooShort(n.Seal) {
		return refuse("a nap's times are at least a second, or 0 for never", "nap after %v, sealed after %v", n.Idle, n.Seal)
	}
	for i := range q.Ports {
		p := &q.Ports[i]
		if p.Proto == "" {
			p.Proto = "tcp"
		}
		if p.Guest == 0 || (p.Proto != "tcp" && p.Proto != "udp") {
			return refuse("write it as 8080:80 or 5353:53/udp", "published port %d/%s", p.Guest, quote(p.Proto))
		}
		if !p.Host.Addr().IsValid() {
			p.Host = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), p.Host.Port())
		}
	}
	return nil
}

func tooShort(d time.Duration) bool { return d != 0 && d < time.Second }

// reserve gives the VM its place in the table, so that no other gets its name,
// number or volumes.
func (h *Host) reserve(q api.CreateRequest, img image.Image) (*vm, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.vms[q.Name] != nil {
		return nil, cloudpal.E("", cloudpal.Exist, nil).
			WithHint("choose another --name, or remove it: cloudpal vm rm " + q.Name)
	}
	for _, m := range q.Volumes {
		if user := h.volumes[m.Volume]; user != "" {
			return nil, cloudpal.E("volume "+m.Volume, cloudpal.Busy, fmt.Errorf("vm %s has it", user)).
				WithHint("a volume is in one VM at a time")
		}
	}
	if err := h.choosePort(&q); err != nil {
		return nil, err
	}
	id := make([]byte, 16)
	rand.Read(id)
	rec := record{
		ID: hex.EncodeToString(id), Request: q, ImageID: img.ID,
		Created: time.Now().UTC(), Index: h.freeIndex(),
	}
	rec.Addrs = h.addrs(rec.Index)
	v := h.newVM(q.Name, rec)
	v.state = api.Stopped
	h.take(v)
	return v, nil
}

// take puts v into the tables. The caller holds mu.
func (h *Host) take(v *vm) {
	h.vms[v.name] = v
	for _, a := range v.rec.Addrs {
		h.byAddr[a] = v
	}
	for _, m := range v.rec.Request.Volumes {
		h.volumes[m.Volume] = v.name
	}
}

// freeIndex returns the lowest number no VM has. The caller holds mu.
func (h *Host) freeIndex() int {
	used := map[int]bool{}
	for _, v := range h.vms {
		used[v.rec.Index] = true
	}
	for i := 0; ; i++ {
		if !used[i] {
			return i
		}
	}
}

// addrs returns the addresses of the VM with the given number: those after the
// host's own in each prefix.
func (h *Host) addrs(index int) []netip.Addr {
	v4, v6 := h.net.Prefixes()
	return []netip.Addr{nth(v4, index+16), nth(v6, index+16)}
}

// nth returns the n-th address of p, counting from its first.
func nth(p netip.Prefix, n int) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := len(b) - 1; i >= 0 && n > 0; i-- {
		n += int(b[i])
		b[i] = byte(n)
		n >>= 8
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// freeName makes a name out of an image's.
func (h *Host) freeName(img image.Image) string {
	base := strings.ToLower(path.Base(strings.SplitN(img.Name, "@", 2)[0]))
	base, _, _ = strings.Cut(base, ":")
	base = strings.Trim(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' {
			return r
		}
		return '-'
	}, base), "-")
	if base == "" {
		base = "vm"
	}
	base = base[:min(len(base), 40)]
	h.mu.Lock()
	defer h.mu.Unlock()
	name := base
	for i := 2; h.vms[name] != nil; i++ {
		name = fmt.Sprintf("%s-%d", base, i)
	}
	return name
}

// createFiles makes the VM's part of StateDir, all of it or nothing.
func (v *vm) createFiles(ctx context.Context) error {
	tmp := filepath.Join(filepath.Dir(v.paths.disk), ".new-"+v.name)
	if err := errors.Join(os.RemoveAll(tmp), os.Mkdir(tmp, 0o700)); err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	q := &v.rec.Request
	if !q.ReadOnly {
		if err := makeVolume(ctx, filepath.Join(tmp, "volume.img"), q.Disk); err != nil {
			return err
		}
	}
	for _, m := range q.Volumes {
		if err := v.h.ensureVolume(ctx, m, q.Disk); err != nil {
			return err
		}
	}
	if err := writeJSON(filepath.Join(tmp, "vm.json"), v.rec); err != nil {
		return err
	}
	if err := os.Rename(tmp, v.paths.disk); err != nil {
		return err
	}
	return syncDir(filepath.Dir(v.paths.disk))
}

// A journal in bytes, for a volume of at least journalFrom. In time a guest has
// written all of it, however little it keeps, and mke2fs would take 64 MiB.
const (
	journal     = 8 << 20
	journalFrom = 256 << 20
)

// makeVolume makes a sparse file with an empty ext4 in it. A half-made one is
// removed.
func makeVolume(ctx context.Context, file string, size int64) (err error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, f.Close()); err != nil {
			err = errors.Join(err, os.Remove(file))
		}
	}()
	if err := f.Truncate(size); err != nil {
		return err
	}
	mke2fs, err := exec.LookPath("mke2fs")
	if err != nil {
		if _, err := os.Stat("/sbin/mke2fs"); err != nil {
			return cloudpal.E("make a volume", cloudpal.Missing, errors.New("mke2fs")).
				WithHint("apt-get install e2fsprogs")
		}
		mke2fs = "/sbin/mke2fs"
	}
	// No reserved blocks: there is no other root to keep them for. No room for
	// growth, which is 4 MiB that are written. What is zero stays a hole of the
	// sparse file, also when the guest mounts it.
	args := []string{"-q", "-F", "-t", "ext4", "-m", "0", "-O", "^resize_inode", "-E", "assume_storage_prezeroed=1,nodiscard"}
	if size >= journalFrom {
		args = append(args, "-J", "size="+strconv.Itoa(journal>>20))
	}
	cmd := exec.CommandContext(ctx, mke2fs, append(args, file)...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return cloudpal.E("make a volume", noSpace(out.String()), fmt.Errorf("mke2fs: %w: %.200s", err, out.String()))
	}
	return f.Sync()
}

func noSpace(out string) cloudpal.Kind {
	if strings.Contains(out, "No space left") {
		return cloudpal.NoSpace
	}
	return cloudpal.Other
}

// first is the start of a VM that is being made: it ends with ctx.
func (v *vm) first(ctx context.Context) error {
	if err := v.begin(ctx); err != nil {
		return err
	}
	defer v.end()
	return v.launch(ctx)
}

// start boots a VM that is not running. The caller does not hold op.
func (v *vm) start(ctx context.Context) error {
	if err := v.begin(ctx); err != nil {
		return err
	}
	defer v.end()
	switch state, _ := v.now(); state {
	case api.Running:
		return nil
	case api.Asleep:
		return v.resume(ctx, "started")
	}
	// It is not half done because the one who asked went away.
	return v.launch(context.WithoutCancel(ctx))
}

// launch boots a VM that has no process. The caller holds op.
func (v *vm) launch(ctx context.Context) error {
	if err := errors.Join(v.meter.open(), v.mayRun(), v.h.roomFor(v.rec.Request.Memory)); err != nil {
		return err
	}
	if err := v.h.net.Add(v.name, v.nic()); err != nil {
		return err
	}
	if err := v.publish(); err != nil {
		return err
	}
	v.mu.Lock()
	v.rec.Stopped, v.rec.StopAt = nil, time.Time{}
	v.mu.Unlock()
	if err := v.save(); err != nil {
		return err
	}
	if err := v.boot(ctx, "started"); err != nil {
		v.unpublish()
		v.mu.Lock()
		v.rec.Stopped = &api.Exit{Code: 125, Reason: err.Error()}
		v.mu.Unlock()
		v.become(api.Stopped, "", err.Error())
		v.happened(api.Event{What: api.Ended, Reason: err.Error()})
		return errors.Join(err, v.save())
	}
	return nil
}

func (v *vm) nic() NIC {
	q := v.rec.Request
	return NIC{MAC: v.rec.mac(), Addrs: v.rec.Addrs, Rate: q.Limits.NetBytes, WireGuard: q.WireGuard, Outbound: q.Outbound}
}

// roomFor refuses a VM that the machine's memory cannot take.
func (h *Host) roomFor(memory int64) error {
	kb, err := meminfo("MemAvailable")
	if err != nil || kb<<10 > memory+memory/4 {
		return nil
	}
	return cloudpal.E("", cloudpal.NoMemory, fmt.Errorf("the VM needs %d MiB, the host has %d MiB left", memory>>20, kb>>10)).
		WithHint("suspend or stop a VM (cloudpal vm ps), or give this one less --memory")
}

// publish forwards the VM's ports. A port that was left to the agent keeps the
// number it got.
func (v *vm) publish() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.ports) > 0 {
		return nil
	}
	// The record's slice may be on its way to disk: change a copy.
	ports := slices.Clone(v.rec.Request.Ports)
	for i, p := range ports {
		target := netip.AddrPortFrom(v.rec.Addrs[0], p.Guest)
		pub, err := v.h.net.Publish(p.Proto, p.Host, target)
		if err != nil {
			for _, done := range v.ports {
				err = errors.Join(err, done.Close())
			}
			v.ports = nil
			return err
		}
		v.ports = append(v.ports, pub)
		ports[i].Host = netip.AddrPortFrom(p.Host.Addr(), pub.Addr().Port())
	}
	v.rec.Request.Ports = ports
	return nil
}

func (v *vm) unpublish() {
	v.mu.Lock()
	ports := v.ports
	v.ports = nil
	v.mu.Unlock()
	for _, p := range ports {
		if err := p.Close(); err != nil {
			v.h.log.Error("unpublish", "vm", v.name, "err", err)
		}
	}
}

// remove ends the VM, if force, and removes everything of it but its named
// volumes.
func (v *vm) remove(ctx context.Context, force bool) error {
	if state, _ := v.now(); state != api.Stopped && !force {
		return cloudpal.E("remove "+v.name, cloudpal.Busy, fmt.Errorf("it is %s", state)).
			WithHint("stop it first, or use --force")
	}
	if err := v.kill(ctx, "removed"); err != nil && !errors.Is(err, cloudpal.NotExist) {
		return err
	}
	if err := v.begin(ctx); err != nil {
		if errors.Is(err, cloudpal.NotExist) {
			return nil // --rm was faster
		}
		return err
	}
	defer v.end()
	return v.removeFiles()
}

// discard removes a VM that never came to be.
func (v *vm) discard() error { return v.remove(context.WithoutCancel(v.h.ctx), true) }

// removeFiles takes the VM out of the tables and off the disk. The caller
// holds op; the VM has no process.
func (v *vm) removeFiles() error {
	v.mu.Lock()
	v.removed = true
	close(v.changed)
	v.changed = make(chan struct{})
	v.mu.Unlock()
	v.h.net.Remove(v.name)
	errs := []error{v.meter.close(), v.log.close()}
	gone := filepath.Join(filepath.Dir(v.paths.disk), ".gone-"+v.name)
	err := os.Rename(v.paths.disk, gone)
	if err == nil {
		err = errors.Join(syncDir(filepath.Dir(gone)), os.RemoveAll(gone))
	}
	if !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	errs = append(errs, os.RemoveAll(v.paths.run), os.RemoveAll(v.paths.nap))
	v.h.mu.Lock()
	defer v.h.mu.Unlock()
	delete(v.h.vms, v.name)
	for _, a := range v.rec.Addrs {
		delete(v.h.byAddr, a)
	}
	for _, m := range v.rec.Request.Volumes {
		if v.h.volumes[m.Volume] == v.name {
			delete(v.h.volumes, m.Volume)
		}
	}
	v.h.dropImage()
	return errors.Join(errs...)
}

// mergeEnv lays over a base environment; the last of a name wins.
func mergeEnv(base, over []string) []string {
	var out []string
	at := map[string]int{}
	for _, e := range slices.Concat(base, over) {
		name, _, _ := strings.Cut(e, "=")
		if i, ok := at[name]; ok {
			out[i] = e
			continue
		}
		at[name] = len(out)
		out = append(out, e)
	}
	return out
}
