package netns

import (
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
)

// Settings of a namespace are the same by an instance of proc as by the host's own, and the instance is replaced and given back.
func TestInsideSettings(t *testing.T) {
	testutil.NoLeaks(t)
	const path = "/proc/sys/net/ipv4/conf/lo/forwarding"
	mounts := 0
	p := procInstance{mount: func() (*os.File, error) { mounts++; return mountProc() }}
	read := func(ns *Namespace, want string) {
		t.Helper()
		err := ns.Do(func() error {
			f, err := p.open(path, os.O_RDONLY)
			if err != nil {
				return err
			}
			defer f.Close()
			b := make([]byte, 16)
			n, err := f.Read(b)
			if got := strings.TrimSpace(string(b[:n])); got != want {
				t.Errorf("%q, want %q", got, want)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	one, two := newNS(t), newNS(t)
	if err := one.Do(func() error { return setInside(path, "1") }); err != nil {
		t.Fatal(err)
	}
	if err := two.Do(func() error { return setInside(path, "0") }); err != nil {
		t.Fatal(err)
	}
	for range procUses {
		read(one, "1")
		read(two, "0")
	}
	if mounts < 2 {
		t.Errorf("%d instances for %d settings", mounts, 2*procUses)
	}
	if !testutil.Eventually(10*time.Second, func() bool {
		p.mu.Lock()
		defer p.mu.Unlock()
		return p.root == nil
	}) {
		t.Error("the instance stays")
	}
	// Where there is none, the host's does.
	p.mount = func() (*os.File, error) { return nil, unix.EPERM }
	read(one, "1")
	if _, err := p.open("/proc/sys/net/none", os.O_RDONLY); !os.IsNotExist(err) {
		t.Error(err)
	}
	if err := setInside("/proc/sys/net/none", "1"); !os.IsNotExist(err) && !strings.Contains(err.Error(), "/proc/sys/net/none") {
		t.Error(err)
	}
}

// A network with one endpoint is not empty, whatever else lies beside it.
func TestEmpty(t *testing.T) {
	s := &store{dir: t.TempDir()}
	if !s.isEmpty("web") {
		t.Error("a network that is not there has endpoints")
	}
	if err := s.saveNetwork(&netState{Name: "web"}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.netDir("web")+"/ep/"+unfinished, nil, 0o600); err != nil || !s.isEmpty("web") {
		t.Error("an unfinished file counts:", err)
	}
	e := &epState{ID: "a", Network: "web"}
	if err := s.saveEndpoint(e); err != nil || s.isEmpty("web") {
		t.Error("the endpoint is not seen:", err)
	}
}
