package caisson

import (
	"errors"
	"testing"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/testutil"
)

// Where the rest of a group cannot be made, the start is made anew with all of it made before.
func TestLateGroup(t *testing.T) {
	testutil.NeedRoot(t)
	noLeaks(t)
	tries := 0
	testHookComplete = func() error { tries++; return errors.New("cannot") }
	defer func() { testHookComplete = nil }()
	out := output(t, sh("cat /proc/self/cgroup"), WithPids(64))
	testHookComplete = nil
	m, err := cgroups.Default()
	if err != nil {
		t.Fatal(err)
	}
	if want := m.Mode() != cgroups.ModeV2; (tries == 1) != want {
		t.Errorf("%d tries", tries)
	}
	if again := output(t, sh("cat /proc/self/cgroup"), WithPids(64)); again != out {
		t.Errorf("in order the process is in other groups:\n%s\nthan with all made before:\n%s", again, out)
	}
}
