package netns

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/journal"
)

// A network with one endpoint is not empty, whatever else lies beside it, and one that cannot be looked into is not either.
func TestEmpty(t *testing.T) {
	s := &store{dir: t.TempDir()}
	is := func(what string, want bool) {
		t.Helper()
		if got, err := s.isEmpty("web"); got != want || err != nil {
			t.Errorf("%s: %v, %v", what, got, err)
		}
	}
	is("not there", true)
	if err := s.saveNetwork(&netState{Name: "web"}); err != nil {
		t.Fatal(err)
	}
	ep := s.netDir("web") + "/ep"
	if err := os.WriteFile(ep+"/"+unfinished, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	is("an unfinished file", true)
	if err := s.saveEndpoint(&epState{ID: "a", Network: "web"}); err != nil {
		t.Fatal(err)
	}
	is("an endpoint", false)
	for what, spoil := range map[string]func() error{
		"ENOTDIR": func() error { return os.WriteFile(ep, nil, 0o600) },
		"ELOOP":   func() error { return os.Symlink("ep", ep) },
	} {
		if err := errors.Join(os.RemoveAll(ep), spoil()); err != nil {
			t.Fatal(err)
		}
		var e *Error
		if empty, err := s.isEmpty("web"); empty || !errors.As(err, &e) {
			t.Errorf("%s: %v, %v", what, empty, err)
		}
	}
}

// That a descriptor was lacking once is not remembered for ever.
func TestBootIDAfterFailure(t *testing.T) {
	knownBoot.Store(nil)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 0
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	_, first := bootID()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if !errors.Is(first, unix.EMFILE) {
		t.Errorf("without a descriptor: %v", first)
	}
	if b, err := bootID(); err != nil || len(b) == 0 {
		t.Errorf("afterwards: %q, %v", b, err)
	}
}

// A state directory that others could have made since is not used, and one that was removed is made again, with the directory that it lies in where
// no other was asked for.
func TestStateDirReplaced(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	reopen := func(base, dir string) error {
		s, err := reopenStore(testContext(t), base, dir, 1)
		if err == nil {
			s.close()
		}
		return err
	}
	if err := reopen(dir, dir); err != nil {
		t.Fatal("removed:", err)
	}
	if err := reopen(dir, dir); err != nil {
		t.Fatal("as it was:", err)
	}
	if err := os.Chmod(dir, 0o770); err != nil {
		t.Fatal(err)
	}
	if err := reopen(dir, dir); !errors.Is(err, journal.ErrUnsafeDir) {
		t.Errorf("writable by others: %v", err)
	}
	own := filepath.Join(t.TempDir(), "own")
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(own, 0o700), os.Symlink(own, dir)); err != nil {
		t.Fatal(err)
	}
	if err := reopen(dir, dir); err == nil {
		t.Error("a link is followed")
	}
	base, err := stateDir("")
	if err != nil {
		t.Fatal(err)
	}
	parent := filepath.Dir(base)
	if err := os.Rename(parent, parent+".away"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(os.RemoveAll(parent), os.Rename(parent+".away", parent)); err != nil {
			t.Error(err)
		}
	}()
	if err := reopen(base, ""); err != nil {
		t.Error("removed with its parent:", err)
	}
}
