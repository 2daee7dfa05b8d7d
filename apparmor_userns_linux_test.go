package caisson

import (
	"compress/gzip"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
)

// loadProfile loads a profile of testdata/apparmor. They are compiled there, since the parser of Debian 12 knows no rules for user
// namespaces: apparmor_parser -Q -S -O minimize of AppArmor 4.1, for what Linux 6.12 mediates.
func loadProfile(t *testing.T, name string) {
	t.Helper()
	const at = "/sys/kernel/security/apparmor/"
	if mask, err := os.ReadFile(at + "features/namespaces/mask"); err != nil || !strings.Contains(string(mask), "userns_create") {
		t.Skip("AppArmor: this kernel's does not judge user namespaces")
	}
	f, err := os.Open(filepath.Join("testdata/apparmor", name+".policy.gz"))
	must(t, err)
	defer f.Close()
	z, err := gzip.NewReader(f)
	must(t, err)
	policy, err := io.ReadAll(z)
	must(t, err)
	must(t, os.WriteFile(at+".replace", policy, 0))
	t.Cleanup(func() { must(t, os.WriteFile(at+".remove", []byte("caisson-"+name), 0)) })
}

// A program whose AppArmor profile refuses user namespaces, or leaves it no capability in one, is told so.
func TestUserNamespacesRefusedByAppArmor(t *testing.T) {
	testutil.NeedRoot(t)
	if os.Getenv(sysctlsEnv) != "1" {
		t.Skip("changes settings of the whole machine: loads AppArmor profiles with " + sysctlsEnv + "=1, in a virtual machine")
	}
	if !haveAppArmor() {
		t.Skip("AppArmor: not in this kernel")
	}
	exe, err := os.Executable()
	must(t, err)
	for _, name := range []string{"no-userns", "no-capabilities"} {
		t.Run(name, func(t *testing.T) {
			loadProfile(t, name)
			cmd := exec.Command("/bin/sh", "-c", `printf 'exec caisson-`+name+`' > /proc/self/attr/apparmor/exec && exec "$0"`, exe)
			cmd.Env = append(os.Environ(), testutil.RoleEnv+"=start")
			s := startBy(t, cmd, 65534)
			if s.Errno != unix.EACCES && s.Errno != unix.EPERM || !strings.Contains(s.Remedy, `AppArmor profile "caisson-`+name+`"`) || !strings.Contains(s.Remedy, "userns,") {
				t.Errorf("error %q (%v) with remedy %q", s.Err, s.Errno, s.Remedy)
			}
			if s := startAs(t, 65534); s.Output != "it runs\n" {
				t.Errorf("without the profile: %q %s", s.Output, s.Err)
			}
		})
	}
}
