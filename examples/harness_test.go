//go:build linux

// Package examples_test builds every example once and runs each as a user would: as root, if the tests are run by
// root, and as an ordinary user.
package examples_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// ordinary is the id of the user that root lends to the tests; it needs no entry in /etc/passwd.
const ordinary = 54321

// bin is where the programs are. Where there is no Go, as in a virtual machine, they are built beforehand.
var bin string

func init() {
	flag.StringVar(&bin, "bin", "", "`DIR` with the programs, instead of building them")
}

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	if bin != "" {
		return runAll(m)
	}
	dir, err := os.MkdirTemp("", "caisson-examples-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	bin = dir
	build := exec.Command("go", "build", "-o", dir+"/", "./...")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := errors.Join(os.Chmod(dir, 0o755), build.Run()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return runAll(m)
}

func runAll(m *testing.M) int {
	code := m.Run()
	if err := writeMatrix(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// caller runs programs as one user.
type caller struct {
	uid int
	dir string // a directory of its own, empty at first
}

func (c caller) root() bool { return c.uid == 0 }

// asEach runs f for each user that there is.
func asEach(t *testing.T, f func(t *testing.T, c caller)) {
	users := []int{os.Getuid()}
	if os.Getuid() == 0 {
		users = append(users, ordinary)
	}
	for _, uid := range users {
		name := "user"
		if uid == 0 {
			name = "root"
		}
		t.Run(name, func(t *testing.T) { f(t, caller{uid, ownDir(t, uid)}) })
	}
}

// ownDir makes a directory that only the user with this id uses. The temporary directories of package testing lie
// below one that is closed to others.
func ownDir(t *testing.T, uid int) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "caisson-examples-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	err = os.Chmod(dir, 0o755) // a container's root may be another user outside
	if os.Getuid() == 0 {
		err = errors.Join(err, os.Chown(dir, uid, uid))
	}
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// result is how a program ended.
type result struct {
	stdout, stderr string
	code           int
}

func (r result) String() string {
	return fmt.Sprintf("exit status %d\n--- stdout\n%s--- stderr\n%s", r.code, r.stdout, r.stderr)
}

// command prepares a program of the examples. It does not outlive the test.
func (c caller) command(t *testing.T, program string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, filepath.Join(bin, program), args...)
	cmd.Dir = c.dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + c.dir, "TMPDIR=" + c.dir}
	if os.Getuid() != c.uid {
		id := uint32(c.uid)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: id, Gid: id}}
	}
	return cmd
}

// run runs a program of the examples to its end.
func (c caller) run(t *testing.T, program string, args ...string) result {
	t.Helper()
	return finish(t, c.command(t, program, args...))
}

func finish(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var ee *exec.ExitError
	if err != nil && !errors.As(err, &ee) {
		t.Fatal(err)
	}
	return result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// want fails unless the program ended with code and its standard output matches all the patterns.
func (r result) want(t *testing.T, code int, patterns ...string) {
	t.Helper()
	if r.code != code {
		t.Fatalf("want exit status %d: %v", code, r)
	}
	match(t, "standard output", r.stdout, patterns)
}

// wantErr is want for standard error.
func (r result) wantErr(t *testing.T, code int, patterns ...string) {
	t.Helper()
	if r.code != code {
		t.Fatalf("want exit status %d: %v", code, r)
	}
	match(t, "standard error", r.stderr, patterns)
}

func match(t *testing.T, what, text string, patterns []string) {
	t.Helper()
	for _, p := range patterns {
		if !regexp.MustCompile("(?m)" + p).MatchString(text) {
			t.Errorf("no %q in %s:\n%s", p, what, text)
		}
	}
}

// needLimits skips a test of limits where this user has no cgroup that can be written.
func needLimits(t *testing.T, c caller) {
	t.Helper()
	r := c.run(t, "run", "-q", "-memory", "64M", "-cpus", "1", "-pids", "64", "true")
	if r.code != 0 && strings.Contains(r.stderr, "limits:") {
		t.Skipf("no limits for this user here: %s", r.stderr)
	}
}

// lockedBuffer collects the output of a program that still runs.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// await waits until the text has been written.
func (l *lockedBuffer) await(t *testing.T, text string) {
	t.Helper()
	for range 3000 {
		if strings.Contains(l.String(), text) {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Fatalf("no %q in %q", text, l.String())
}
