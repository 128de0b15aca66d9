package pal

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tradle/cloudpal"
	"github.com/tradle/cloudpal/identity"
)

// seal returns an unlock of a person's laptop, sealed to a lock.
func seal(t *testing.T, l *lock) []byte {
	t.Helper()
	root, list := newList(t)
	sealed, err := identity.SealUnlock(l.describe().Key, root, identity.Unlock{Secrets: root.PalSecrets(), List: list, Time: time.Now()})
	must(t, err)
	return sealed
}

func TestALockOpensOnce(t *testing.T) {
	opened := 0
	l := newLock(func(u identity.Unlock) (*unlocked, error) {
		opened++
		return &unlocked{key: u.Secrets.WireGuardKey()}, nil
	})
	if d := l.describe(); !d.Locked || len(d.Key) != 32 || d.WireGuard != nil || d.Attestation.Kind != "none" {
		t.Errorf("a new lock says %+v", d)
	}
	first, second := seal(t, l), seal(t, l)
	var tries sync.WaitGroup
	errs := make([]error, 8)
	for i := range errs { // of which half are of another person
		tries.Go(func() { errs[i] = l.unlock(t.Context(), [][]byte{first, second}[i%2]) })
	}
	tries.Wait()
	worked := 0
	for _, err := range errs {
		if err == nil {
			worked++
		} else if !errors.Is(err, cloudpal.Exist) {
			t.Error(err)
		}
	}
	if worked != 1 || opened != 1 {
		t.Errorf("%d unlocks worked, and %d opened it; want 1", worked, opened)
	}
	if d := l.describe(); d.Locked || d.Key != nil || len(d.WireGuard) != 32 {
		t.Errorf("an open lock says %+v", d)
	}
}

func TestALockThatDoesNotOpenStaysLocked(t *testing.T) {
	broken := errors.New("the disk is broken")
	var used identity.Secrets
	l := newLock(func(u identity.Unlock) (*unlocked, error) {
		used = u.Secrets
		return nil, broken
	})
	key := l.describe().Key
	if err := l.unlock(t.Context(), seal(t, l)); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if d := l.describe(); !d.Locked || string(d.Key) != string(key) {
		t.Errorf("it says %+v", d)
	}
	for _, b := range used.Disk() {
		if b != 0 {
			t.Fatal("it remembers the secrets")
		}
	}
}

func TestTriesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLock(func(identity.Unlock) (*unlocked, error) { panic("garbage opens it") })
		try := func() error { return l.unlock(t.Context(), []byte("garbage")) }
		for range unlockBurst {
			if err := try(); !errors.Is(err, cloudpal.Denied) {
				t.Fatal(err)
			}
		}
		if err := try(); !errors.Is(err, cloudpal.Busy) {
			t.Errorf("one more: got %v, want that it is busy", err)
		}
		time.Sleep(unlockEvery)
		if err := try(); !errors.Is(err, cloudpal.Denied) {
			t.Errorf("a second later: got %v", err)
		}
	})
}

func TestStrangersLearnTheKindOnly(t *testing.T) {
	secret := cloudpal.E("unlock laptop at 10.7.8.2", cloudpal.Denied, errors.New("the disk key 0123")).WithHint("ask again")
	p := problem(secret, statusOf(secret))
	if p.Title != "not allowed" || p.Status != 403 || p.Hint != "ask again" {
		t.Errorf("got %+v", p)
	}
}
