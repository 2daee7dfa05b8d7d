package caisson

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

// hookDir has a directory that hooks of every kind can write to: bound into the container at the same path.
func hookDir(t *testing.T) (dir string, opts []Option) {
	dir = t.TempDir()
	for d := dir; d != "/"; d = filepath.Dir(d) { // for the container's ids
		_ = os.Chmod(d, 0o755)
		if filepath.Dir(d) == os.TempDir() {
			break
		}
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir, []Option{WithRootfs(dirOf(t)), WithID("hooks-" + filepath.Base(dir)), WithMount(rootfs.BindMount(dir, dir))}
}

// shell is a hook program that runs a script with the given arguments.
func shell(script string, args ...string) specs.Hook {
	return specs.Hook{Path: "/bin/sh", Args: append([]string{"sh", "-c", script, "hook"}, args...), Env: []string{"PATH=/bin:/usr/bin", "MARK=yes"}}
}

// everywhere has a script run at every moment.
func everywhere(script func(point string) specs.Hook) *specs.Hooks {
	return &specs.Hooks{
		//lint:ignore SA1019 the specification still has it
		Prestart: []specs.Hook{script("prestart")}, CreateRuntime: []specs.Hook{script("createRuntime")}, CreateContainer: []specs.Hook{script("createContainer")}, //nolint:staticcheck // bundles have it
		StartContainer: []specs.Hook{script("startContainer")}, Poststart: []specs.Hook{script("poststart")}, Poststop: []specs.Hook{script("poststop")},
	}
}

func wordsIn(t *testing.T, name string) []string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.Fields(string(b))
}

var allPoints = []string{"prestart", "createRuntime", "createContainer", "created", "startContainer", "poststart", "poststop"}

func TestHooksInOrder(t *testing.T) {
	for _, create := range []bool{false, true} {
		t.Run(fmt.Sprint("create=", create), func(t *testing.T) {
			noLeaks(t)
			dir, opts := hookDir(t)
			log := filepath.Join(dir, "log")
			opts = append(opts, sh("while [ ! -e "+dir+"/go ]; do sleep 0.05; done"),
				WithHooks(everywhere(func(p string) specs.Hook { return shell("echo $1 >> $2", p, log) })))
			var funcs []HookPoint
			for _, p := range []HookPoint{HookCreateRuntime, HookCreated, HookStarted, HookStopped} {
				opts = append(opts, WithHook(p, func(_ context.Context, s *HookState) error {
					funcs = append(funcs, s.Point)
					if s.Point == HookCreated {
						return os.WriteFile(log, append([]byte(strings.Join(wordsIn(t, log), "\n")), "\ncreated\n"...), 0o666)
					}
					if s.Point == HookStopped && (s.Result == nil || !s.Result.Success()) {
						t.Errorf("result at the end: %v", s.Result)
					}
					return nil
				}))
			}
			c := newContainer(t, opts...)
			if err := os.WriteFile(log, nil, 0o666); err != nil || os.Chmod(log, 0o666) != nil {
				t.Fatal(err)
			}
			if create {
				if _, err := c.Create(testContext(t)); err != nil {
					t.Fatal(err)
				}
				if got := wordsIn(t, log); !slices.Equal(got, allPoints[:4]) {
					t.Errorf("after Create: %v", got)
				}
			}
			if _, err := c.Start(testContext(t)); err != nil {
				t.Fatal(err)
			}
			if got := wordsIn(t, log); !slices.Equal(got, allPoints[:6]) {
				t.Errorf("after Start: %v", got)
			}
			if err := os.WriteFile(dir+"/go", nil, 0o666); err != nil {
				t.Fatal(err)
			}
			if r, err := c.Wait(testContext(t)); err != nil || !r.Success() {
				t.Error(r, err)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			if got := wordsIn(t, log); !slices.Equal(got, allPoints) {
				t.Errorf("after Close: %v", got)
			}
			if want := []HookPoint{HookCreateRuntime, HookCreated, HookStarted, HookStopped}; !slices.Equal(funcs, want) {
				t.Errorf("functions: %v", funcs)
			}
		})
	}
}

// TestHookSurroundings looks at what each program is given: namespaces, state, environment.
func TestHookSurroundings(t *testing.T) {
	noLeaks(t)
	dir, opts := hookDir(t)
	script := `cat > $2/$1.state; for n in mnt pid net ipc uts user; do echo $n $(readlink /proc/self/ns/$n); done > $2/$1.ns; env | sort > $2/$1.env; id -u > $2/$1.uid; pwd > $2/$1.pwd`
	bundle := t.TempDir()
	opts = append(opts, WithLabels(map[string]string{"org.example.job": "7"}), option(func(s *spec) { s.hooks.bundle = bundle }),
		WithHooks(everywhere(func(p string) specs.Hook { return shell(script, p, dir) })),
		sh("for n in mnt pid net ipc uts user; do echo $n $(readlink /proc/self/ns/$n); done"))
	if isRoot() { // an ordinary user may have one id only
		opts = append(opts, WithUser("1000:1000"))
	}
	c := newContainer(t, opts...)
	out, err := c.Output(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	pid := c.Process().Pid()
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	var host strings.Builder
	for _, n := range []string{"mnt", "pid", "net", "ipc", "uts", "user"} {
		l, err := os.Readlink("/proc/self/ns/" + n)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&host, n, l)
	}
	status := map[string]specs.ContainerState{"startContainer": "created", "poststart": "running", "poststop": "stopped"}
	for _, p := range allPoints {
		if p == "created" {
			continue
		}
		read := func(what string) string {
			b, err := os.ReadFile(filepath.Join(dir, p+"."+what))
			if err != nil {
				t.Error(err)
			}
			return string(b)
		}
		inside := p == "createContainer" || p == "startContainer"
		want := host.String()
		if inside {
			want = string(out)
		}
		if got := strings.TrimSpace(read("ns")); got != strings.TrimSpace(want) {
			t.Errorf("%s: namespaces\n%swant\n%s", p, got, want)
		}
		var s specs.State
		if err := json.Unmarshal([]byte(read("state")), &s); err != nil {
			t.Errorf("%s: %v", p, err)
		}
		wantPid := pid
		if inside {
			wantPid = 1
		} else if p == "poststop" {
			wantPid = 0
		}
		wantStatus := status[p]
		if wantStatus == "" {
			wantStatus = "creating"
		}
		if s.ID != c.ID() || s.Version != specs.Version || s.Pid != wantPid || s.Status != wantStatus || s.Bundle != bundle || s.Annotations["org.example.job"] != "7" {
			t.Errorf("%s: state %+v; pid %d", p, s, wantPid)
		}
		env := read("env")
		for l := range strings.Lines(env) {
			if k, _, _ := strings.Cut(l, "="); !slices.Contains([]string{"MARK", "PATH", "PWD", "SHLVL", "_", "OLDPWD"}, k) {
				t.Errorf("%s: environment has %q", p, l)
			}
		}
		if !strings.Contains(env, "MARK=yes\n") {
			t.Errorf("%s: environment %q", p, env)
		}
		if got := read("uid"); p == "startContainer" && got != "1000\n" && isRoot() {
			t.Errorf("%s: uid %s", p, got)
		}
		if got := read("pwd"); !inside && got != bundle+"\n" {
			t.Errorf("%s: working directory %s", p, got)
		}
	}
}

func TestHookFails(t *testing.T) {
	points := map[string]func(*specs.Hooks, specs.Hook){
		//lint:ignore SA1019 the specification still has it
		"prestart":        func(h *specs.Hooks, p specs.Hook) { h.Prestart = []specs.Hook{p} }, //nolint:staticcheck // bundles have it
		"createRuntime":   func(h *specs.Hooks, p specs.Hook) { h.CreateRuntime = []specs.Hook{p} },
		"createContainer": func(h *specs.Hooks, p specs.Hook) { h.CreateContainer = []specs.Hook{p} },
		"startContainer":  func(h *specs.Hooks, p specs.Hook) { h.StartContainer = []specs.Hook{p} },
		"poststart":       func(h *specs.Hooks, p specs.Hook) { h.Poststart = []specs.Hook{p} },
	}
	one := 1
	faults := map[string]struct {
		hook  specs.Hook
		wrong func(*HookError) bool
	}{
		"exit": {shell("echo it broke; exit 3"), func(e *HookError) bool {
			return !strings.Contains(e.Error(), "exit status 3") || string(e.Output) != "it broke\n"
		}},
		"signal":  {shell("kill -9 $$"), func(e *HookError) bool { return !strings.Contains(e.Error(), "killed") }},
		"missing": {specs.Hook{Path: "/no/such/hook"}, func(e *HookError) bool { return !errors.Is(e, os.ErrNotExist) }},
		"timeout": {specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", "/bin/sleep 1000 & /bin/sleep 1000"}, Timeout: &one},
			func(e *HookError) bool { return !errors.Is(e, os.ErrDeadlineExceeded) }},
	}
	for point, set := range points {
		for name, f := range faults {
			t.Run(point+"/"+name, func(t *testing.T) {
				noLeaks(t)
				dir, opts := hookDir(t)
				h := &specs.Hooks{Poststop: []specs.Hook{shell("echo end > $1/end", dir), shell("exit 1"), shell("echo end2 > $1/end2", dir)}}
				set(h, f.hook)
				var log bytes.Buffer
				c := newContainer(t, append(opts, WithHooks(h), sh("sleep 1000"), WithLogger(slog.New(slog.NewTextHandler(&log, nil))))...)
				_, err := c.Start(testContext(t))
				var he *HookError
				if !errors.As(err, &he) || he.Point.String() != point || he.Path != f.hook.Path || f.wrong(he) {
					t.Fatalf("%v", err)
				}
				if c.State() != StateNew {
					t.Errorf("state %v", c.State())
				}
				for _, e := range []string{"end", "end2"} {
					if _, err := os.Stat(filepath.Join(dir, e)); err != nil {
						t.Error(err)
					}
				}
				if !strings.Contains(log.String(), "exit status 1") {
					t.Errorf("log: %s", log.String())
				}
			})
		}
	}
}

func TestHookFunctionFails(t *testing.T) {
	why := errors.New("no")
	for _, p := range []HookPoint{HookCreateRuntime, HookCreated, HookStarted} {
		noLeaks(t)
		stopped := 0
		c := newContainer(t, WithRootfs(dirOf(t)), sh("sleep 1000"), WithHook(p, func(context.Context, *HookState) error { return why }),
			WithHook(HookStopped, func(context.Context, *HookState) error { stopped++; return why }))
		err := c.Run(testContext(t))
		var he *HookError
		if !errors.As(err, &he) || he.Point != p || !errors.Is(err, why) || stopped != 1 {
			t.Errorf("%v: %v; stopped %d", p, err, stopped)
		}
	}
}

func TestHookNamespaces(t *testing.T) {
	noLeaks(t)
	var net string
	c := newContainer(t, WithRootfs(dirOf(t)), sh("readlink /proc/self/ns/net"), WithHook(HookCreateRuntime, func(_ context.Context, s *HookState) error {
		f, err := namespaces.Of(namespaces.Net, s.Pid)
		if err != nil {
			return err
		}
		defer f.Close()
		net, err = os.Readlink(fmt.Sprintf("/proc/%d/ns/net", s.Pid))
		return err
	}))
	if out, err := c.Output(testContext(t)); err != nil || string(out) != net+"\n" {
		t.Errorf("%s, %v; want %s", out, err, net)
	}
}

// TestHookCanceled gives a start up while a program runs: nothing of it is left.
func TestHookCanceled(t *testing.T) {
	for _, p := range []string{"createRuntime", "createContainer", "startContainer", "poststart"} {
		t.Run(p, func(t *testing.T) {
			noLeaks(t)
			dir, opts := hookDir(t)
			hooks := everywhere(func(q string) specs.Hook {
				if p != q {
					return shell("exit 0")
				}
				return shell("echo > $1/here; sleep 1000 & sleep 1000", dir)
			})
			c := newContainer(t, append(opts, WithHooks(hooks), sh("sleep 1000"))...)
			ctx, cancel := context.WithCancel(testContext(t))
			defer cancel()
			go func() {
				for ctx.Err() == nil {
					if _, err := os.Stat(filepath.Join(dir, "here")); err == nil {
						cancel()
					}
					time.Sleep(10 * time.Millisecond)
				}
			}()
			if _, err := c.Start(ctx); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
	}
}

// TestHookMounts has a program of the host mount something into the container before the root is switched.
func TestHookMounts(t *testing.T) {
	noLeaks(t)
	_, opts := hookDir(t)
	h := &specs.Hooks{CreateContainer: []specs.Hook{shell("set -e; mount -t tmpfs -o size=64k none ./tmp; echo hello > ./tmp/greeting")}}
	out := output(t, append(opts, WithHooks(h), sh("cat /tmp/greeting"))...)
	if out != "hello" {
		t.Errorf("%q", out)
	}
}

func TestHooksJudged(t *testing.T) {
	zero := 0
	f := func(context.Context, *HookState) error { return nil }
	for name, opts := range map[string][]Option{
		"no id":         {WithHooks(&specs.Hooks{Poststop: []specs.Hook{{Path: "/bin/true"}}})},
		"relative":      {WithID("a"), WithHooks(&specs.Hooks{Poststop: []specs.Hook{{Path: "bin/true"}}})},
		"timeout":       {WithID("a"), WithHooks(&specs.Hooks{Poststop: []specs.Hook{{Path: "/bin/true", Timeout: &zero}}})},
		"nul":           {WithID("a"), WithHooks(&specs.Hooks{Poststop: []specs.Hook{{Path: "/bin/true", Args: []string{"\x00"}}}})},
		"point":         {WithHook(0, f)},
		"inside":        {WithHook(HookStartContainer, f)},
		"nil":           {WithHook(HookCreated, nil)},
		"detached func": {WithID("a"), WithDetached(true), WithHook(HookStopped, f)},
	} {
		if _, err := New(append(opts, WithCommand("/bin/true"))...); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHooksDetached(t *testing.T) {
	noLeaks(t)
	dir, opts := hookDir(t)
	h := &specs.Hooks{CreateRuntime: []specs.Hook{shell("echo a >> $1/log", dir)}, CreateContainer: []specs.Hook{shell("echo b >> $1/log", dir)}}
	state := filepath.Join(t.TempDir(), "state")
	if err := os.Mkdir(state, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/log", nil, 0o666); err != nil || os.Chmod(dir+"/log", 0o666) != nil {
		t.Fatal(err)
	}
	created := false
	c := newContainer(t, append(opts, WithHooks(h), WithDetached(true), WithStateDir(state), WithCommand("/bin/true"),
		WithHook(HookCreated, func(context.Context, *HookState) error { created = true; return nil }))...)
	if _, err := c.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if r, err := c.Wait(testContext(t)); err != nil || !r.Success() {
		t.Error(r, err)
	}
	if got := wordsIn(t, dir+"/log"); !slices.Equal(got, []string{"a", "b"}) || !created {
		t.Error(got, created)
	}
	if err := c.Remove(testContext(t)); err != nil {
		t.Error(err)
	}
}

func TestHooksBundle(t *testing.T) {
	noLeaks(t)
	two := 2
	want := &specs.Hooks{CreateRuntime: []specs.Hook{{Path: "/bin/true", Args: []string{"true", "x"}, Env: []string{"A=b"}, Timeout: &two}}}
	c := newContainer(t, WithRootfs(rootfs.Dir(testutil.Busybox(t)).ReadOnly().Unmapped()), WithID("a"), WithHooks(want), WithCommand("/bin/true"))
	s, err := c.Spec(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	a, _ := json.Marshal(want)
	if b, _ := json.Marshal(s.Hooks); string(a) != string(b) {
		t.Errorf("written %s, want %s", b, a)
	}
	o, err := FromSpec(s, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	c2 := newContainer(t, o, WithID("b"))
	if b, _ := json.Marshal(c2.spec.hooks.programs); string(a) != string(b) || c2.spec.hooks.bundle == "" {
		t.Errorf("read %s", b)
	}
	s.Hooks.Poststop = []specs.Hook{{Path: "relative"}}
	var fe *FieldError
	if _, err := FromSpec(s, "/"); !errors.As(err, &fe) || fe.Field != "hooks.poststop[0]" {
		t.Error(err)
	}
}
