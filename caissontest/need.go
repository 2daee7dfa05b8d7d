package caissontest

import (
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/caisson-go/caisson"
	"github.com/caisson-go/caisson/cgroups"
)

// RequireEnv names the environment variable that, set to 1, makes tests fail that would be skipped because the
// machine lacks something.
const RequireEnv = "CAISSONTEST_REQUIRE"

// lacking ends the test.
func lacking(t testing.TB, reason string) {
	t.Helper()
	if os.Getenv(RequireEnv) == "1" {
		t.Fatal(reason + " (" + RequireEnv + "=1 forbids to skip)")
	}
	t.Skip(reason)
}

// NeedContainers skips the test unless this machine and user can start a container with the default options.
func NeedContainers(t testing.TB) {
	t.Helper()
	if err := startable(); err != nil {
		lacking(t, "needs containers: "+err.Error())
	}
}

var startable = sync.OnceValue(func() error {
	c, err := caisson.New(Rootfs(), caisson.WithCommand("/bin/true"))
	if err != nil {
		return err
	}
	defer c.Close()
	return c.Run(background())
})

// NeedLimits skips the test unless this machine and user can limit, for a container, what the given controllers
// count: cgroups.Memory|cgroups.Pids for example.
func NeedLimits(t testing.TB, which cgroups.Controllers) {
	t.Helper()
	m, err := cgroups.Default()
	if err != nil {
		lacking(t, "needs limits: "+err.Error())
		return
	}
	for _, a := range m.Check() {
		if a.Controller&which != 0 && !a.Usable {
			lacking(t, withRemedy("needs limits: "+a.Controller.String()+": "+a.Reason, a.Remedy))
		}
	}
}

// Need skips the test unless [caisson.Probe] answers yes for every one of these abilities: "user", "overlay",
// "memory controller" and so on. A name that Probe does not know fails the test.
func Need(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		need(t, name)
	}
}

func need(t testing.TB, name string) {
	t.Helper()
	var known []string
	for _, a := range abilities() {
		if a.Name == name {
			if a.Answer != caisson.Yes {
				lacking(t, withRemedy("needs "+a.Area+": "+name+": "+a.Reason, a.Remedy))
			}
			return
		}
		known = append(known, a.Name)
	}
	t.Fatalf("no ability is named %q; there are: %s", name, strings.Join(known, ", "))
}

var abilities = sync.OnceValue(func() []caisson.Ability { return caisson.Probe(background()) })

func withRemedy(s, remedy string) string {
	if remedy != "" {
		s += " (" + remedy + ")"
	}
	return s
}

// NeedRoot skips the test unless it runs as root.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		lacking(t, "needs root")
	}
}

// NeedUser skips the test unless it runs as an ordinary user.
func NeedUser(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		lacking(t, "needs an ordinary user")
	}
}
