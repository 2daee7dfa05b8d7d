package caisson

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"

	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

// podUsers are the user namespaces that the first container of a pod can have.
func podUsers() map[string][]Option {
	m := map[string][]Option{"default": nil}
	if isRoot() {
		m["user namespace"] = []Option{WithNamespace(namespaces.User, namespaces.New())}
	}
	return m
}

// pod starts a container that waits, and says with what others join it.
func pod(t *testing.T, user []Option, kinds ...namespaces.Kind) (*Container, Option) {
	t.Helper()
	c, _ := start(t, testContext(t), Options(user...), WithInit(true), WithHostname("first"), WithCommand("sleep", "1000"))
	return c, WithNamespacesOf(c, kinds...)
}

// warmJoin makes what a host program keeps.
func warmJoin(t *testing.T, user []Option) {
	t.Helper()
	if len(user) > 0 {
		needIDMaps(t)
	}
	if err := newContainer(t, Options(user...), WithCommand("true")).Run(testContext(t)); err != nil {
		t.Fatal(err)
	}
}

// Two containers with namespaces in common reach each other by all that these hold, and by nothing else.
func TestPod(t *testing.T) {
	for name, user := range podUsers() {
		t.Run(name, func(t *testing.T) {
			warmJoin(t, user)
			noLeaks(t)
			first, join := pod(t, user)
			second, p := start(t, testContext(t), join, WithHostname("second"), WithCommand("sleep", "2000"))
			for _, n := range []string{"net", "ipc", "uts"} {
				if a, b := namespaceOfProcess(t, first.Process().Pid(), n), namespaceOfProcess(t, p.Pid(), n); a != b {
					t.Errorf("%s: %s and %s", n, a, b)
				}
			}
			for _, n := range []string{"pid", "mnt", "cgroup"} {
				if a, b := namespaceOfProcess(t, first.Process().Pid(), n), namespaceOfProcess(t, p.Pid(), n); a == b {
					t.Errorf("%s: both %s", n, a)
				}
			}
			if out, _ := execs(t, second, "hostname"); out != "first\n" {
				t.Errorf("%q", out)
			}
			// Localhost.
			l, err := first.Listen(testContext(t), "tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				if conn, err := l.Accept(); err == nil {
					conn.Write([]byte("over localhost"))
					conn.Close()
				}
			}()
			_, port, _ := strings.Cut(l.Addr().String(), ":")
			if out, _ := execs(t, second, "nc 127.0.0.1 "+port+" </dev/null"); out != "over localhost" {
				t.Errorf("%q", out)
			}
			// Message queues.
			if out, _ := execs(t, first, "touch /dev/mqueue/q 2>&1 && ls /dev/mqueue"); out != "q\n" {
				t.Errorf("%q", out)
			}
			if out, _ := execs(t, second, "ls /dev/mqueue"); out != "q\n" {
				t.Errorf("%q", out)
			}
			// Their processes and files stay apart.
			if out, _ := execs(t, second, "ps; cat /proc/1/comm"); strings.Contains(out, "1000") || !strings.HasSuffix(out, "\nsleep\n") {
				t.Errorf("%q", out)
			}
			// The namespaces live on.
			if err := first.Close(); err != nil {
				t.Fatal(err)
			}
			if out, r := execs(t, second, "hostname; ls /dev/mqueue"); out != "first\nq\n" || !r.Success() {
				t.Errorf("%q", out)
			}
		})
	}
}

func namespaceOfProcess(t *testing.T, pid int, name string) string {
	t.Helper()
	s, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, name))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// With the pid namespace they see each other's processes, and end with the first.
func TestPodOfProcesses(t *testing.T) {
	for name, user := range podUsers() {
		t.Run(name, func(t *testing.T) {
			if len(user) == 0 && isRoot() && !procOfNamespace() {
				t.Skip("joining a pid namespace without a user namespace needs Linux 6.17")
			}
			warmJoin(t, user)
			noLeaks(t)
			first, join := pod(t, user, namespaces.PID, namespaces.Net)
			var out buffer
			second, p := start(t, testContext(t), join, WithStdout(&out), WithTerminal(24, 80), WithUser("0"),
				sh(`[ $$ != 1 ] && cat /proc/1/comm && kill -0 1 && tty && ps -o args; echo ready; exec sleep 2000`))
			out.await(t, "ready")
			if got := out.String(); !strings.Contains(got, "caisson-init\r\n/dev/pts/0\r\n") || !strings.Contains(got, "sleep 1000") {
				t.Errorf("%q", got)
			}
			if got, _ := execs(t, first, "ps -o args"); !strings.Contains(got, "sleep 2000") {
				t.Errorf("%q", got)
			}
			if got, _ := execs(t, second, "ps -o args"); !strings.Contains(got, "sleep 1000") {
				t.Errorf("%q", got)
			}
			l, err := second.Top(testContext(t))
			if err != nil || len(l) != 1 || !strings.Contains(strings.Join(l[0].Args, " "), "sleep 2000") {
				t.Errorf("%+v %v", l, err)
			}
			third, q := start(t, testContext(t), join, sh("exit 9"))
			if r, err := q.Wait(testContext(t)); err != nil || r.ExitCode != 9 {
				t.Errorf("%v %v", r, err)
			}
			_ = third
			if err := first.Close(); err != nil {
				t.Fatal(err)
			}
			if r, err := p.Wait(testContext(t)); err != nil || r.Signal != syscall.SIGKILL {
				t.Errorf("%v %v", r, err)
			}
		})
	}
}

// What cannot be joined is refused by name.
func TestPodIsRefused(t *testing.T) {
	noLeaks(t)
	c := newContainer(t, WithCommand("true"))
	if err := newContainer(t, WithCommand("true"), WithNamespacesOf(c)).Check(testContext(t)); !errors.Is(err, ErrState) {
		t.Errorf("of a container that does not run: %v", err)
	}
	for name, opt := range map[string]Option{
		"nil":     WithNamespacesOf(nil),
		"zero":    WithNamespacesOf(&Container{}),
		"mounts":  WithNamespacesOf(c, namespaces.Mount),
		"unknown": WithNamespacesOf(c, namespaces.Kind(99)),
	} {
		_, err := New(WithCommand("true"), opt)
		var o *OptionError
		if !errors.As(err, &o) || o.Option != "WithNamespacesOf" || !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := New(WithCommand("true"), WithNamespacesOf(c), WithSysctl("net.ipv4.ip_forward", "1")); !errors.Is(err, ErrInvalid) {
		t.Errorf("a parameter of a namespace that is not its own: %v", err)
	}
	if err := c.Run(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := newContainer(t, WithCommand("true"), WithNamespacesOf(c)).Start(testContext(t)); !errors.Is(err, ErrState) {
		t.Errorf("of a container that has ended: %v", err)
	}
}

// A container that insists on a user namespace of its own cannot join what another one's owns: the error says what helps.
func TestPodNeedsTheUserNamespace(t *testing.T) {
	user := []Option{}
	kind := namespaces.Net
	if isRoot() { // who may join everything but what would show it processes that it cannot
		user, kind = append(user, WithNamespace(namespaces.User, namespaces.New())), namespaces.PID
	}
	if len(user) > 0 {
		needIDMaps(t)
	}
	warmJoin(t, user)
	noLeaks(t)
	_, join := pod(t, user, kind)
	c := newContainer(t, WithCommand("true"), join, WithNamespace(namespaces.User, namespaces.New()))
	err := c.Run(testContext(t))
	var e *Error
	if !errors.As(err, &e) || !strings.Contains(e.Remedy, "join that user namespace too") {
		t.Errorf("%v", err)
	}
	if err := newContainer(t, WithCommand("true"), join, WithIDMaps(namespaces.IDMaps{UID: []namespaces.IDMap{{HostID: 7, Size: 2}}, GID: []namespaces.IDMap{{HostID: 7, Size: 2}}})).Run(testContext(t)); !errors.Is(err, ErrInvalid) {
		t.Errorf("%v", err)
	}
}

// Namespaces that turn out to be the host's are told to be.
func TestPodOfTheHost(t *testing.T) {
	noLeaks(t)
	first, _ := start(t, testContext(t), WithCommand("sleep", "1000"), WithNamespace(namespaces.Net, namespaces.Host()))
	second := newContainer(t, WithCommand("readlink", "/proc/self/ns/net"), WithNamespacesOf(first, namespaces.Net))
	out, err := second.Output(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if own, _ := os.Readlink("/proc/self/ns/net"); string(out) != own+"\n" {
		t.Errorf("%q instead of %q", out, own)
	}
	if m, ok := second.Isolation().Get(namespaces.Net.String() + " namespace"); !ok || m.Status != Declined {
		t.Errorf("%+v", m)
	}
}

// A container that another program made can be joined.
func TestPodOfALoadedContainer(t *testing.T) {
	d := stateDir(t)
	noLeaks(t)
	c := detached(t, d, "first", WithCommand("sleep", "1000"), WithHostname("first"))
	if _, err := c.Create(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if got := output(t, WithNamespacesOf(load(t, d, "first")), WithCommand("hostname")); got != "first" {
		t.Errorf("%q", got)
	}
	l := load(t, d, "first")
	if _, err := l.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	member := detached(t, d, "second", WithNamespacesOf(l, namespaces.UTS, namespaces.PID), sh("[ $$ = 1 ] || exit 3; exit 4"))
	if isRoot() && !procOfNamespace() {
		member = detached(t, d, "second", WithNamespacesOf(l, namespaces.UTS), sh("exit 3"))
	}
	if _, err := member.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if r, err := member.Wait(testContext(t)); err != nil || r.ExitCode != 3 {
		t.Errorf("%v %v", r, err)
	}
	if err := member.Remove(testContext(t)); err != nil {
		t.Fatal(err)
	}
	if err := c.Remove(testContext(t)); err != nil {
		t.Fatal(err)
	}
}

// Members join by path, process and file alike.
func TestJoinPidAndUserNamespaces(t *testing.T) {
	for name, user := range podUsers() {
		t.Run(name, func(t *testing.T) {
			if len(user) == 0 && isRoot() && !procOfNamespace() {
				t.Skip("joining a pid namespace without a user namespace needs Linux 6.17")
			}
			warmJoin(t, user)
			noLeaks(t)
			first, _ := pod(t, user)
			pid := first.Process().Pid()
			var files []*os.File
			for how, of := range map[string]func(namespaces.Kind) namespaces.Namespace{
				"path": func(k namespaces.Kind) namespaces.Namespace {
					return namespaces.JoinPath(fmt.Sprintf("/proc/%d/ns/%s", pid, k.ProcName()))
				},
				"process": func(namespaces.Kind) namespaces.Namespace { return namespaces.JoinPID(pid) },
				"file": func(k namespaces.Kind) namespaces.Namespace {
					f, err := namespaces.Of(k, pid)
					if err != nil {
						t.Fatal(err)
					}
					files = append(files, f)
					return namespaces.JoinFile(f)
				},
			} {
				opts := []Option{WithCommand("cat", "/proc/1/comm")}
				for _, k := range []namespaces.Kind{namespaces.PID, namespaces.Net, namespaces.IPC, namespaces.UTS, namespaces.Cgroup} {
					opts = append(opts, WithNamespace(k, of(k)))
				}
				if len(user) > 0 || !isRoot() {
					opts = append(opts, WithNamespace(namespaces.User, of(namespaces.User)))
				}
				if got := output(t, opts...); got != "caisson-init" {
					t.Errorf("%s: %q", how, got)
				}
			}
			for _, f := range files {
				f.Close()
			}
		})
	}
}

// Each operation of the start of a member fails in turn, and leaves nothing.
func TestPodFailsAtEveryStep(t *testing.T) {
	for name, user := range podUsers() {
		t.Run(name, func(t *testing.T) {
			kinds := []namespaces.Kind{namespaces.PID, namespaces.Net, namespaces.IPC, namespaces.UTS}
			if len(user) == 0 && isRoot() && !procOfNamespace() {
				kinds = kinds[1:]
			}
			warmJoin(t, user)
			_, join := pod(t, user, kinds...)
			testEveryStepFails(t, []Option{WithRootfs(dirOf(t)), join, WithTerminal(3, 4), WithCommand("true")}, (*Container).Run)
		})
	}
}

// While a member sets itself up, what others in the pid namespace see of it tells and gives them nothing, although they are
// root of the same user namespace and may trace processes.
func TestPodMemberIsClosedToOthers(t *testing.T) {
	for name, user := range podUsers() {
		t.Run(name, func(t *testing.T) {
			if len(user) == 0 && isRoot() && !procOfNamespace() {
				t.Skip("joining a pid namespace without a user namespace needs Linux 6.17")
			}
			warmJoin(t, user)
			noLeaks(t)
			all := append([]Option{WithAddedCapabilities("SYS_PTRACE", "SYS_ADMIN")}, user...)
			first, join := pod(t, all, namespaces.PID, namespaces.Net)
			var seen string
			look := func() {
				seen, _ = execs(t, first, `for p in /proc/[0-9]*; do [ $p = /proc/1 ] || [ $p = /proc/$$ ] || case $(cat $p/comm) in caisson-stage)
ls $p/fd; readlink $p/fd/*; readlink $p/root; head -c1 $p/mem; cat $p/environ; grep -E '^Cap(Prm|Eff)' $p/status; echo end;; esac; done 2>&1`)
			}
			defer func() { testHookAdopted = nil }()
			testHookAdopted = func(int) { testHookAdopted = nil; look() }
			opts := []Option{join, WithCommand("true"), WithEnv("SECRET=x")}
			if err := newContainer(t, opts...).Run(testContext(t)); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(seen, "end") {
				t.Fatalf("the process was not seen: %q", seen)
			}
			privileged := len(user) == 0 && isRoot() // others may trace it: what it has is what counts
			if privileged && (strings.Contains(seen, "CapPrm:\t000001ff") || strings.Contains(seen, "CapEff:\t000001ff") || strings.Contains(seen, "SECRET")) {
				t.Errorf("has more than the container may: %s", seen)
			}
			if !privileged && (strings.Contains(seen, "socket:") || strings.Contains(seen, "SECRET") || strings.Count(seen, "ermission denied") < 3) {
				t.Errorf("can be looked into: %s", seen)
			}
		})
	}
}

// A bundle names namespaces by their paths, in any order, with the id maps that the user namespace has.
func TestBundleJoinsNamespaces(t *testing.T) {
	for name, user := range podUsers() {
		t.Run(name, func(t *testing.T) {
			if len(user) == 0 && isRoot() && !procOfNamespace() {
				t.Skip("joining a pid namespace without a user namespace needs Linux 6.17")
			}
			warmJoin(t, user)
			noLeaks(t)
			first, _ := pod(t, user)
			pid := first.Process().Pid()
			s := specOf(t, WithRootfs(rootfs.Dir(testutil.Busybox(t)).ReadOnly().Unmapped()), WithCommand("cat", "/proc/1/comm"))
			s.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.MountNamespace}}
			kinds := []specs.LinuxNamespaceType{specs.TimeNamespace, specs.CgroupNamespace, specs.UTSNamespace, specs.PIDNamespace, specs.IPCNamespace, specs.NetworkNamespace}
			files := map[specs.LinuxNamespaceType]string{specs.NetworkNamespace: "net", specs.MountNamespace: "mnt"}
			if len(user) > 0 || !isRoot() {
				kinds = append(kinds, specs.UserNamespace)
				m, err := namespaces.IDMapsOf(pid)
				if err != nil {
					t.Fatal(err)
				}
				s.Linux.UIDMappings, s.Linux.GIDMappings = specMaps(m.UID), specMaps(m.GID)
			}
			for _, k := range kinds {
				s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: k, Path: fmt.Sprintf("/proc/%d/ns/%s", pid, cmp.Or(files[k], string(k)))})
			}
			s.Hostname, s.Linux.Resources, s.Process.User.AdditionalGids = "", nil, nil
			o, err := FromSpec(s, "/")
			if err != nil {
				t.Fatal(err)
			}
			if got := output(t, o); got != "caisson-init" {
				t.Errorf("%q", got)
			}
			if len(user) == 0 && isRoot() {
				return
			}
			s.Linux.UIDMappings[0].HostID++
			if o, err = FromSpec(s, "/"); err != nil {
				t.Fatal(err)
			}
			if err := newContainer(t, o).Run(testContext(t)); !errors.Is(err, ErrInvalid) {
				t.Errorf("other id maps: %v", err)
			}
			c := newContainer(t, WithCommand("true"), WithRootfs(rootfs.Dir(testutil.Busybox(t)).ReadOnly()), WithNamespacesOf(first))
			if _, err := c.Spec(testContext(t)); !errors.Is(err, ErrUnsupported) && !errors.As(err, new(*FieldError)) {
				t.Errorf("namespaces of a container were written down: %v", err)
			}
		})
	}
}
