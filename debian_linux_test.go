package caisson

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/rootfs"
)

// A Debian system made by debootstrap works in a container: its package manager, a script, and a shell at a terminal.
func TestDebian(t *testing.T) {
	dir := testutil.FullRootfs(t)
	if _, err := os.Stat(filepath.Join(dir, "usr/bin/apt-get")); err != nil {
		t.Skip("CAISSON_TEST_ROOTFS does not name a root filesystem of Debian")
	}
	src := WithRootfs(rootfs.Dir(dir))
	if got := output(t, src, WithCommand("apt-get", "--version")); !strings.HasPrefix(got, "apt ") {
		t.Errorf("apt-get: %q", got)
	}
	script := WithCommand("perl", "-e", `print join(",", map { $_ ** 2 } 1..3), " pid $$ of ", (getpwuid $<)[0]`)
	if _, err := os.Stat(filepath.Join(dir, "usr/bin/python3")); err == nil {
		script = WithCommand("python3", "-c", `import os, pwd; print(",".join(str(n*n) for n in range(1, 4)), "pid", os.getpid(), "of", pwd.getpwuid(os.getuid()).pw_name)`)
	}
	if got := output(t, src, script, WithMemory(0)); got != "1,4,9 pid 1 of root" {
		t.Errorf("script: %q", got)
	}
	file := "/etc/new"
	if !isRoot() {
		file = "/dev/shm/new" // the directory's owner is not among the ids of a user's container
	}
	in, typing := io.Pipe()
	go func() {
		_, _ = io.WriteString(typing, "stty size; tty; dpkg -s bash | grep Status; touch $NEW && echo new; exit 7\n")
	}()
	defer typing.Close()
	var out bytes.Buffer
	c := newContainer(t, src, WithCommand("bash", "-i"), WithEnv("NEW="+file), WithTerminal(25, 99), WithStdin(in), WithStdout(&out))
	var exit *ExitError
	if err := c.Run(testContext(t)); !errors.As(err, &exit) || exit.Result.ExitCode != 7 {
		t.Errorf("%v\n%s", err, out.String())
	}
	for _, want := range []string{"25 99\r\n", "/dev/pts/0\r\n", "Status: install ok installed\r\n", "\nnew\r\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the terminal shows no %q:\n%s", want, out.String())
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, "etc/new")); err == nil {
		t.Error("the directory was changed")
	}
}
