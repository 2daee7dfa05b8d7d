package netns

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// Chains of iptables-legacy, which nftables does not show, are found as others are.
func TestLegacyObstacles(t *testing.T) {
	lock := filepath.Join(t.TempDir(), "lock") // an ordinary user cannot use that of the machine
	run := func(tool string, args ...string) error {
		cmd := exec.Command(tool, append([]string{"-w"}, args...)...)
		cmd.Env = append(os.Environ(), "XTABLES_LOCKFILE="+lock)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Logf("%s %q: %v: %s", tool, args, err, out)
		}
		return err
	}
	const four, six = "iptables-legacy", "ip6tables-legacy"
	for _, tool := range []string{four, six} {
		t.Cleanup(func() { _, _ = run(tool, "-P", "FORWARD", "ACCEPT"), run(tool, "-F") })
		_, err := os.ReadFile("/proc/thread-self/net/" + map[string]string{four: "ip_tables_names", six: "ip6_tables_names"}[tool])
		if errors.Is(err, fs.ErrPermission) || run(tool, "-P", "FORWARD", "DROP") != nil {
			t.Skip("iptables-legacy does not work here")
		}
	}
	web := newBridge(t, BridgeConfig{Name: "web"})
	found := func(when, want string) {
		t.Helper()
		l, err := web.Obstacles(testContext(t))
		var got []string
		for _, o := range l {
			got = append(got, o.Family)
			if !o.Legacy || !strings.Contains(o.Remedy, "-legacy -I FORWARD -i cs-web -j ACCEPT") {
				t.Errorf("%s: %+v", when, o)
			}
		}
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: %v, %v", when, l, err)
		}
	}
	must := func(tool string, args ...string) {
		t.Helper()
		if run(tool, args...) != nil {
			t.Fatal(tool, args)
		}
	}
	found("a policy", "ip ip6")
	if _, c := connect(t, "a", Endpoint{Network: web}); len(c.Warnings()) != 2 || !strings.Contains(c.Warnings()[0].Reason, "(iptables-legacy)") {
		t.Error(c.Warnings())
	}
	must(four, "-I", "FORWARD", "-i", "cs-other", "-j", "ACCEPT")
	found("a rule about another device", "ip ip6")
	must(four, "-I", "FORWARD", "!", "-o", "cs-web", "-j", "ACCEPT")
	found("a rule about all but the device", "ip ip6")
	must(four, "-I", "FORWARD", "-i", "cs-web", "-j", "ACCEPT")
	found("a rule about the device", "ip6")
	must(six, "-N", "mine")
	must(six, "-A", "mine", "-o", "cs-+", "-j", "ACCEPT")
	found("a rule about the beginning of its name, in a chain of its own", "")
	must(six, "-F")
	must(six, "-X")
	must(six, "-P", "FORWARD", "ACCEPT")
	found("another policy", "")
	must(six, "-A", "FORWARD", "-p", "tcp", "-j", "DROP")
	found("a rule with a condition", "")
	must(six, "-A", "FORWARD", "-j", "DROP")
	found("a rule at the end", "ip6")
}

// What the kernel gives is taken to be whole, but never read beyond its end.
func FuzzLegacy(f *testing.F) {
	f.Add(make([]byte, 400), 0, 112)
	f.Fuzz(func(_ *testing.T, b []byte, begin, last int) {
		for _, family := range legacyFamilies {
			t := &legacyTable{family, b, begin, last}
			_, _, _ = t.refuses(), t.names("cs-web"), t.has("DOCKER-USER")
		}
	})
}
