package testutil

import (
	"io"
	"os"
	"path/filepath"
	"testing"
)

// RootfsEnv names the environment variable that gives a whole root filesystem, such as one made by debootstrap.
const RootfsEnv = "CAISSON_TEST_ROOTFS"

// applets are the programs of a small root filesystem.
var applets = []string{
	"sh", "ash", "awk", "cat", "chmod", "chown", "cp", "cut", "date", "dd", "diff", "echo", "env", "expr", "false", "find", "grep",
	"head", "hostname", "id", "ip", "kill", "ln", "ls", "mkdir", "mkfifo", "mknod", "mount", "mv", "nc", "nice", "nohup",
	"od", "ps", "pwd", "readlink", "rm", "rmdir", "sed", "seq", "setsid", "sleep", "sort", "stat", "stty", "su", "sync",
	"tail", "tee", "test", "timeout", "touch", "tr", "true", "truncate", "tty", "umount", "uname", "unshare", "wc", "which",
	"whoami", "xargs", "yes",
}

var etc = map[string]string{
	"passwd": "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1000:web:/home/web:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n",
	"group":  "root:x:0:\nadm:x:4:web\ntty:x:5:\nweb:x:1000:\ncrew:x:2000:web\nnogroup:x:65534:\n",
}

// Busybox makes a small root filesystem from the host's static busybox, in a directory that goes with the test. Its
// users are root, web (1000, also in the groups adm and crew) and nobody.
func Busybox(t testing.TB) string {
	t.Helper()
	src := staticBusybox(t)
	dir := t.TempDir()
	for _, d := range []string{"bin", "etc", "dev", "proc", "sys", "tmp", "root", "home/web", "var"} {
		check(t, os.MkdirAll(filepath.Join(dir, d), 0o755))
	}
	check(t, os.Chmod(filepath.Join(dir, "tmp"), 0o777|os.ModeSticky))
	copyFile(t, src, filepath.Join(dir, "bin/busybox"), 0o755)
	for _, a := range applets {
		check(t, os.Symlink("busybox", filepath.Join(dir, "bin", a)))
	}
	for name, text := range etc {
		check(t, os.WriteFile(filepath.Join(dir, "etc", name), []byte(text), 0o644))
	}
	return dir
}

// Rootfs returns the root filesystem that CAISSON_TEST_ROOTFS names, or a small one: for tests that ask for no more
// than a shell and the usual tools.
func Rootfs(t testing.TB) string {
	t.Helper()
	if dir := os.Getenv(RootfsEnv); dir != "" {
		return dir
	}
	return Busybox(t)
}

// FullRootfs returns the root filesystem that CAISSON_TEST_ROOTFS names, and skips the test without one.
func FullRootfs(t testing.TB) string {
	t.Helper()
	dir := os.Getenv(RootfsEnv)
	if dir == "" {
		t.Skip(RootfsEnv + " does not name a root filesystem with a package manager, Perl and Python")
	}
	return dir
}

func staticBusybox(t testing.TB) string {
	t.Helper()
	for _, p := range []string{"/bin/busybox", "/usr/bin/busybox", "/bin/busybox.static"} {
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	t.Skip("no static busybox on this machine: install the package busybox-static")
	return ""
}

func copyFile(t testing.TB, from, to string, mode os.FileMode) {
	t.Helper()
	in, err := os.Open(from)
	check(t, err)
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	check(t, err)
	_, err = io.Copy(out, in)
	check(t, err)
	check(t, out.Close())
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
