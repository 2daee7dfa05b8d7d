//go:build linux

package main

import (
	"os"
	"path/filepath"
	"testing"
)

// A container that was made with a socket can be started without a service manager: nothing is opened then.
func TestNotifierWithoutManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	g := &global{root: t.TempDir()}
	if err := os.MkdirAll(g.notifyDir("web"), 0o700); err != nil {
		t.Fatal(err)
	}
	n, err := g.notifier("web")
	if n != nil || err != nil {
		t.Errorf("%v, %v", n, err)
	}
	open, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range open {
		if to, err := os.Readlink(fd); err == nil && to == g.notifyDir("web") {
			t.Errorf("%s is left open", to)
		}
	}
}
