package netns

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
)

// roleFiles is a program that has run out of files, while a network is in use.
func roleFiles() {
	base, err := os.MkdirTemp("", "caisson-")
	fail := func(err error) {
		if err != nil {
			fmt.Println("error", err)
			os.Exit(1)
		}
	}
	fail(err)
	defer os.RemoveAll(base)
	fail(os.Mkdir(base+"/state", 0o700))
	s, err := openStore(context.Background(), base+"/state", 1)
	fail(err)
	defer s.close()
	web := &netState{Name: "web"}
	e := &epState{ID: "a", Network: "web", Ports: []Port{{Container: 80, Host: 8080}}}
	fail(errors.Join(s.begin(), s.saveNetwork(web), s.saveEndpoint(e)))
	_, err = s.takePort(e.Ports[0], e.ID)
	fail(err)
	zone := &netZone{views: []*view{{dir: s.netDir("web") + "/ep", network: web, eps: map[string]*epState{}}}}
	zone.views[0].refresh()
	var was unix.Rlimit
	fail(unix.Getrlimit(unix.RLIMIT_NOFILE, &was))
	fail(unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: was.Max}))
	tries := map[string]func() error{
		"networks":  func() error { _, err := s.networks(); return err },
		"endpoints": func() error { _, err := s.endpoints("web"); return err },
		"empty":     func() error { _, err := s.isEmpty("web"); return err },
		"release":   func() error { return s.release(endpointRef{"web", "b"}) },
		"port":      func() error { _, err := s.takePort(e.Ports[0], "b"); return err },
		"far":       func() error { return s.saveFar(web, tunnels{}) },
		"finish":    func() error { return (&undoing{store: s, table: "caisson-files"}).finish() },
		"pasta":     func() error { _, err := hasArgument(os.Getpid(), "x"); return err },
		"rules": func() error { // whether the kernel has nftables cannot be told
			c := &Connection{host: &BridgeConfig{StateDir: base}, rec: record{StateDir: base}}
			if err := c.checkRules(); !errors.Is(err, ErrUnsupported) {
				return err
			}
			return ErrUnsupported
		},
		"names": func() error {
			if zone.views[0].changed = zone.views[0].changed.Add(1); len(zone.views[0].eps) != 1 {
				return errors.New("not read")
			}
			if zone.views[0].refresh(); len(zone.views[0].eps) != 1 {
				return nil
			}
			return unix.EMFILE // it stays with what it knows
		},
	}
	for what, try := range tries {
		if err := try(); !errors.Is(err, unix.EMFILE) {
			fmt.Printf("error %s: %v\n", what, err)
		}
	}
	fail(unix.Setrlimit(unix.RLIMIT_NOFILE, &was))
	if n, err := s.network("web"); n == nil || err != nil {
		fmt.Println("error: the network was dropped:", err)
	}
	fmt.Println("done")
}

// What is in use is not taken for unused by a program that cannot open a directory.
func TestUnreadable(t *testing.T) {
	out, err := testutil.Role("files").Output()
	if err != nil || strings.TrimSpace(string(out)) != "done" {
		t.Errorf("%v\n%s", err, out)
	}
}

// Whether an address is free cannot be told where its file cannot be looked for.
func TestTakeUnknown(t *testing.T) {
	s := &store{dir: t.TempDir()}
	if err := s.saveNetwork(&netState{Name: "web"}); err != nil {
		t.Fatal(err)
	}
	ips := s.netDir("web") + "/ip"
	if err := errors.Join(os.Remove(ips), os.Symlink("ip", ips)); err != nil {
		t.Fatal(err)
	}
	if ok, err := s.lease("web", "a", netip.MustParseAddr("10.0.0.2")); ok || !errors.Is(err, unix.ELOOP) {
		t.Error(ok, err)
	}
}
