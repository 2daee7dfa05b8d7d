package caisson

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/rootfs"
)

func TestLabelsOfThisMachine(t *testing.T) {
	for name, c := range map[string]struct {
		opt  Option
		have bool
	}{
		"AppArmor": {WithAppArmor("unconfined"), haveAppArmor()},
		"SELinux":  {WithSELinux("system_u:system_r:container_t:s0"), haveSELinux()},
		"mounts":   {WithMountLabel("system_u:object_r:container_file_t:s0:c1,c2"), haveSELinux()},
	} {
		if c.have {
			continue
		}
		var e *Error
		for call, err := range map[string]error{"check": newContainer(t, WithCommand("/bin/true"), c.opt).Check(testContext(t)), "run": newContainer(t, WithCommand("/bin/true"), c.opt).Run(testContext(t))} {
			if !errors.Is(err, ErrUnsupported) || !errors.As(err, &e) || !strings.Contains(e.Remedy, "lsm=") {
				t.Errorf("%s: %s: got %v", name, call, err)
			}
		}
	}
	for want, opt := range map[string]Option{
		"WithAppArmor": WithAppArmor(""), "WithAppArmor: \"a": WithAppArmor("a\nb"), "WithAppArmor: \" ": WithAppArmor(" x"),
		"WithSELinux": WithSELinux("container_t"), "WithSELinux: \"a:b:c ": WithSELinux("a:b:c d"),
		"WithMountLabel": WithMountLabel("container_file_t"), "WithMountLabel: \"a:b:c\\\"": WithMountLabel(`a:b:c"`), "WithMountLabel: \"a:b:c ": WithMountLabel("a:b:c d"),
		"does not go together with WithLandlockOnly": Options(WithLandlockOnly(Landlock{}), WithMountLabel("a:b:c")),
	} {
		if _, err := New(WithCommand("true"), opt); !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v", want, err)
		}
	}
}

// parserEnv names an apparmor_parser that loads profiles into this kernel.
const parserEnv = "CAISSON_TEST_APPARMOR_PARSER"

func TestAppArmor(t *testing.T) {
	if !haveAppArmor() {
		t.Skip("AppArmor: not in this kernel")
	}
	parser := os.Getenv(parserEnv)
	if parser == "" {
		t.Skip("AppArmor: needs a parser in " + parserEnv)
	}
	const profile = `profile caisson-test flags=(attach_disconnected,mediate_deleted) {
  /** rwlkmix,
  / r,
  capability,
  network,
  signal,
  deny /etc/secret r,
}
`
	cmd := exec.Command(parser, "-r", "-K", "--base", t.TempDir())
	cmd.Stdin = strings.NewReader(profile)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	secret := Options(WithFile("/etc/secret", []byte("x\n"), 0o644), WithFile("/etc/open", []byte("o\n"), 0o644))
	script := sh("cat /proc/self/attr/current; cat /etc/open; cat /etc/secret 2>&1")
	for name, opt := range map[string]Option{"root": Options(), "user namespace": userNS(t), "terminal": WithTerminal(24, 80)} {
		c := newContainer(t, secret, script, opt, WithAppArmor("caisson-test"))
		out, _ := c.CombinedOutput(testContext(t))
		if got := strings.Join(strings.Fields(string(out)), " "); got != "caisson-test (enforce) o cat: can't open '/etc/secret': Permission denied" {
			t.Errorf("%s: got %q", name, got)
		}
	}
	err := newContainer(t, WithCommand("/bin/true"), WithAppArmor("caisson-no-such")).Check(testContext(t))
	var e *Error
	if !errors.As(err, &e) || !strings.Contains(e.Remedy, "apparmor_parser") {
		t.Errorf("got %v", err)
	}
	err = newContainer(t, WithCommand("/bin/true"), WithAppArmor("caisson-no//such")).Run(testContext(t)) // the kernel says so
	if !errors.As(err, &e) || !strings.Contains(e.Remedy, "apparmor_parser") {
		t.Errorf("got %v", err)
	}
}

// A configuration's labels become options, which judge them.
func TestLabelsOfABundle(t *testing.T) {
	s := specOf(t, WithRootfs(rootfs.Dir(testutil.Busybox(t)).Writable()), WithCommand("true"))
	s.Process.ApparmorProfile, s.Process.SelinuxLabel = "bad\nprofile", "bad"
	opt, err := FromSpec(s, t.TempDir())
	if err == nil {
		_, err = New(opt)
	}
	for _, want := range []string{"WithAppArmor", "WithSELinux"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s is not among the faults: %v", want, err)
		}
	}
	c := newContainer(t, WithRootfs(rootfs.Dir(testutil.Busybox(t)).Writable()), WithCommand("true"),
		WithSeccompNotify(func(context.Context, *SeccompNotification) {}, "read"))
	if _, err := c.Spec(t.Context()); !errors.Is(err, ErrUnsupported) || !strings.Contains(err.Error(), "WithSeccompNotify") {
		t.Errorf("got %v", err)
	}
}
