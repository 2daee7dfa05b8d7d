package caissontest_test

import (
	"os"
	"strings"
	"testing"

	"github.com/caisson-go/caisson/caissontest"
)

// recorder notes how a helper ends a test.
type recorder struct {
	testing.TB
	skipped, failed string
}

func (r *recorder) Helper()                   {}
func (r *recorder) Skip(args ...any)          { r.skipped, _ = args[0].(string); panic(r) }
func (r *recorder) Fatal(args ...any)         { r.failed, _ = args[0].(string); panic(r) }
func (r *recorder) Fatalf(f string, _ ...any) { r.failed = f; panic(r) }

func record(t *testing.T, f func(testing.TB)) (r *recorder) {
	r = &recorder{TB: t}
	defer func() {
		if p := recover(); p != nil && p != any(r) {
			panic(p)
		}
	}()
	f(r)
	return r
}

func TestNeed(t *testing.T) {
	other := caissontest.NeedRoot
	if os.Geteuid() == 0 {
		other = caissontest.NeedUser
	}
	if r := record(t, other); !strings.HasPrefix(r.skipped, "needs ") || r.failed != "" {
		t.Errorf("skipped %q, failed %q", r.skipped, r.failed)
	}
	t.Setenv(caissontest.RequireEnv, "1")
	if r := record(t, other); !strings.HasPrefix(r.failed, "needs ") || r.skipped != "" {
		t.Errorf("skipped %q, failed %q", r.skipped, r.failed)
	}
	if r := record(t, func(t testing.TB) { caissontest.Need(t, "flying") }); !strings.Contains(r.failed, "no ability") {
		t.Errorf("an unknown ability: skipped %q, failed %q", r.skipped, r.failed)
	}
}
