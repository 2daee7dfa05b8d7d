package caisson

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/caisson-go/caisson/internal/testutil"
)

func init() { roles["inner"] = innerRole }

// innerRole is a program in a container of another engine that makes containers with defaults, or holds a process to Landlock
// alone. It prints what became of it.
func innerRole() {
	ctx := context.Background()
	opts := []Option{WithCommand("/bin/sh", "-c", "echo pid $$; exit 7")}
	if os.Getenv("LANDLOCK") != "" {
		opts = append(opts, WithLandlockOnly(files(append(programs, LandlockPath{Path: "/proc", Access: LandlockRead})...)))
		opts = append(opts, WithCommand("/bin/sh", "-c", "echo x > /tmp/x || echo denied; exit 7"))
	}
	for range 2 {
		c, err := New(opts...)
		if err == nil {
			var out []byte
			out, err = c.CombinedOutput(ctx)
			fmt.Printf("%s", out)
			_ = c.Close()
		}
		var exit *ExitError
		var e *Error
		switch {
		case errors.As(err, &exit):
			fmt.Println("ended:", err)
		case errors.As(err, &e):
			fmt.Println("remedy:", e.Remedy)
			fmt.Println("error:", err)
		default:
			fmt.Println("unexpected:", err)
		}
	}
}

// podmanConf asks for no more than this program may give.
const podmanConf = `[containers]
default_ulimits = ["nofile=512:1024", "nproc=512:1024"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
`

// podman returns a function that runs this test binary in a container of Podman's, and what it printed. Its storage is its own.
func podman(t *testing.T) func(t *testing.T, env string, options ...string) string {
	t.Helper()
	engine, err := exec.LookPath("podman")
	if err != nil {
		t.Skip("podman is not installed")
	}
	runtime := "runc"
	if _, err := exec.LookPath(runtime); err != nil {
		t.Skip("podman has no runtime: runc is not installed")
	}
	needGroups(t)
	root := testutil.Busybox(t)
	dir, err := os.MkdirTemp("/tmp", "pm") // Podman takes 50 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// What clears up after a container, "podman container cleanup", goes on when "podman run" has ended.
		if !testutil.Eventually(testTime/4, func() bool { return len(processesWith(dir)) == 0 }) {
			t.Errorf("Podman's processes %v do not end", processesWith(dir))
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	for _, d := range []string{"usr/lib", "lib", "lib64"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	conf := filepath.Join(dir, "containers.conf")
	if err := os.WriteFile(conf, []byte(podmanConf), 0o644); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	run := []string{"--root", filepath.Join(dir, "store"), "--runroot", filepath.Join(dir, "run"), "--tmpdir", filepath.Join(dir, "tmp"),
		"--storage-driver", "vfs", "--runtime", runtime, "run", "--rm", "--network", "none", "-v", exe + ":/usr/inner:ro"}
	if f, err := elf.Open(exe); err == nil {
		if libs, err := f.ImportedLibraries(); err == nil && len(libs) > 0 {
			run = append(run, "-v", "/lib:/lib:ro", "-v", "/lib64:/lib64:ro", "-v", "/usr/lib:/usr/lib:ro")
		}
		f.Close()
	}
	environ := append(os.Environ(), "CONTAINERS_CONF="+conf, "XDG_RUNTIME_DIR="+dir, "HOME="+dir)
	if !isRoot() {
		t.Cleanup(func() { // a process that keeps its user namespace
			cmd := exec.Command(engine, append(slices.Clone(run[:slices.Index(run, "run")]), "system", "migrate")...)
			cmd.Env = environ
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("podman system migrate: %v: %s", err, out)
			}
		})
	}
	return func(t *testing.T, env string, options ...string) string {
		t.Helper()
		args := append(append(append([]string{}, run...), options...), "-e", testutil.RoleEnv+"=inner", "-e", "GORACE="+os.Getenv("GORACE"), "-e", env, "--rootfs", root, "/usr/inner")
		cmd := exec.CommandContext(testContext(t), engine, args...)
		cmd.Env = environ
		if isRoot() { // what it mounts is not seen by tests of other packages
			cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		}
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("podman: %v\n%s", err, out)
		}
		return string(out)
	}
}

// Programs in containers of other engines make containers, or say which flag of the engine it takes.
func TestInsidePodman(t *testing.T) {
	run := podman(t)
	const works = "pid 1\nended: exit status 7\npid 1\nended: exit status 7\n"
	for name, tt := range map[string]struct {
		env     string
		options []string
		want    []string
	}{
		"privileged":       {"A=", []string{"--privileged"}, []string{works}},
		"no filter":        {"A=", []string{"--security-opt", "seccomp=unconfined", "--security-opt", "unmask=ALL"}, []string{works}},
		"default":          {"A=", nil, []string{"remedy:", "error: caisson: start:", "--security-opt "}},
		"Landlock":         {"LANDLOCK=1", nil, []string{"denied\nended: exit status 7\n"}},
		"without a kernel": {"A=", []string{"--security-opt", "seccomp=" + filterFile(t, "clone3 openat2 mount_setattr"), "--security-opt", "unmask=ALL"}, []string{works}},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "Landlock" {
				needLandlock(t, 1)
			}
			out := run(t, tt.env, tt.options...)
			for _, w := range tt.want {
				if !strings.Contains(out, w) {
					t.Errorf("%q is not said in\n%s", w, out)
				}
			}
			t.Logf("%s", out)
		})
	}
}

// filterFile is a seccomp profile as engines take it that answers ENOSYS to calls.
func filterFile(t *testing.T, calls string) string {
	name := filepath.Join(t.TempDir(), "profile.json")
	list := `"` + strings.Join(strings.Fields(calls), `","`) + `"`
	text := fmt.Sprintf(`{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":[%s],"action":"SCMP_ACT_ERRNO","errnoRet":%d}]}`, list, syscall.ENOSYS)
	if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}
