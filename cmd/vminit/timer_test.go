package main

import (
	"os"
	"path/filepath"
	"testing"
)

func TestAKernelWithoutATimerIsFound(t *testing.T) {
	device := filepath.Join(t.TempDir(), "current_device")
	for content, want := range map[string]bool{"lapic\n": true, "\n": false, "": false} {
		if err := os.WriteFile(device, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := checkTimer(device); (err == nil) != want {
			t.Errorf("%q: got %v", content, err)
		}
	}
	if err := checkTimer(device + "-none"); err != nil {
		t.Errorf("a kernel that does not tell: %v", err)
	}
}
