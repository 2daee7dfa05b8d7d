package caisson

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/namespaces"
	"github.com/caisson-go/caisson/rootfs"
)

// compilerEnv names a secilc, whose policy is loaded into this kernel and enforced from then on.
const compilerEnv = "CAISSON_TEST_SELINUX_COMPILER"

// selinuxTypes is a policy with a type for the host and two for containers, of which the host may become the first; what it
// does not speak of is allowed. "files" are all types.
const selinuxTypes = `(handleunknown allow)
(policycap nnp_nosuid_transition)
(class file (read))
(class process (transition dyntransition))
(class dir (reparent))
(classorder (file process dir))
(sensitivity s0)
(sensitivityorder (s0))
(category c0)
(category c1)
(categoryorder (c0 c1))
(sensitivitycategory s0 (range c0 c1))
(level low (s0))
(level high (s0 (range c0 c1)))
(user system_u)
(role object_r)
(role system_r)
(userrole system_u object_r)
(userrole system_u system_r)
(userlevel system_u low)
(userrange system_u (low high))
(typeattribute files)
(allow host_t files (file (read)))
(allow host_t host_t (process (dyntransition)))
(allow host_t container_t (process (transition)))
(allow container_t container_t (file (read)))
(allow container_t host_t (file (read)))
(allow host_t files (dir (reparent)))
(allow container_t files (dir (reparent)))
(fsuse trans tmpfs (system_u object_r host_t (low low)))
(fsuse trans mqueue (system_u object_r host_t (low low)))
(fsuse xattr ext4 (system_u object_r host_t (low low)))
(fsuse xattr overlay (system_u object_r host_t (low low)))
(genfscon proc / (system_u object_r host_t (low low)))
`

// initialSIDs are those of the kernel, in its order.
const initialSIDs = "kernel security unlabeled fs file file_labels init any_socket port netif netmsg node igmp_packet icmp_socket tcp_socket " +
	"sysctl_modprobe sysctl sysctl_fs sysctl_kernel sysctl_net sysctl_net_unix sysctl_vm sysctl_dev kmod policy scmp_packet devnull"

// selinuxPolicy completes selinuxTypes.
func selinuxPolicy() string {
	var b strings.Builder
	b.WriteString(selinuxTypes)
	for _, name := range []string{"host_t", "container_t", "forbidden_t", "secret_t"} {
		fmt.Fprintf(&b, "(type %s)\n(roletype system_r %[1]s)\n(roletype object_r %[1]s)\n(typeattributeset files %[1]s)\n", name)
	}
	for sid := range strings.FieldsSeq(initialSIDs) {
		role := "object_r"
		if sid == "kernel" || sid == "init" {
			role = "system_r"
		}
		fmt.Fprintf(&b, "(sid %s)\n(sidcontext %[1]s (system_u %s host_t (low low)))\n", sid, role)
	}
	fmt.Fprintf(&b, "(sidorder (%s))\n", initialSIDs)
	return b.String()
}

// enforceSELinux compiles and loads the policy, and has the kernel enforce it.
func enforceSELinux(t *testing.T, compiler string) {
	dir := t.TempDir()
	source, policy := filepath.Join(dir, "caisson.cil"), filepath.Join(dir, "policy")
	must(t, os.WriteFile(source, []byte(selinuxPolicy()), 0o600))
	if out, err := exec.Command(compiler, "-M", "true", "-o", policy, "-f", os.DevNull, source).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	binary, err := os.ReadFile(policy)
	must(t, err)
	const at = "/sys/fs/selinux"
	if _, err := os.Stat(at + "/load"); err != nil {
		must(t, unix.Mount("selinuxfs", at, "selinuxfs", 0, ""))
		t.Cleanup(func() { must(t, unix.Unmount(at, unix.MNT_DETACH)) })
	}
	must(t, os.WriteFile(at+"/load", binary, 0))
	must(t, os.WriteFile(at+"/enforce", []byte("1"), 0))
}

func TestSELinux(t *testing.T) {
	if !haveSELinux() {
		t.Skip("SELinux: this kernel runs without")
	}
	compiler := os.Getenv(compilerEnv)
	if compiler == "" {
		t.Skip("SELinux: needs a policy compiler in " + compilerEnv)
	}
	enforceSELinux(t, compiler)
	const label = "system_u:system_r:container_t:s0:c0,c1"
	root := testutil.Busybox(t)
	for name, of := range map[string]string{"open": "container_t", "secret": "secret_t"} {
		path := filepath.Join(root, "etc", name)
		must(t, os.WriteFile(path, []byte(name+"\n"), 0o644))
		must(t, unix.Setxattr(path, "security.selinux", []byte("system_u:object_r:"+of+":s0"), 0))
	}
	at := WithRootfs(rootfs.Dir(root))
	const script = "tr -d '\\0' < /proc/self/attr/current; echo; cat /etc/open; cat /etc/secret 2>&1"
	want := label + " open cat: can't open '/etc/secret': Permission denied"
	for name, opt := range map[string]Option{"root": Options(), "user namespace": userNS(t), "terminal": WithTerminal(24, 80), "privileges gained": WithNoNewPrivileges(false)} {
		c := newContainer(t, at, sh(script), opt, WithSELinux(label))
		out, _ := c.CombinedOutput(testContext(t))
		if got := strings.Join(strings.Fields(string(out)), " "); got != want {
			t.Errorf("%s: got %q", name, got)
		}
	}
	t.Run("mounts", func(t *testing.T) { selinuxMounts(t, root) })
	t.Run("exec", func(t *testing.T) { selinuxExec(t, at, label, script, want) })
	for name, c := range map[string]struct {
		label  string
		errno  unix.Errno
		remedy string
	}{
		"unknown":   {"system_u:system_r:no_such_t:s0", unix.EINVAL, "policy"},
		"forbidden": {"system_u:system_r:forbidden_t:s0", unix.EACCES, "policy"},
	} {
		var e *Error
		err := newContainer(t, at, WithCommand("/bin/true"), WithSELinux(c.label)).Run(testContext(t))
		if !errors.Is(err, c.errno) || !errors.As(err, &e) || !strings.Contains(e.Remedy, c.remedy) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// selinuxMounts: what is made for the container has the label of its mounts, which decides what its processes may do there.
func selinuxMounts(t *testing.T, root string) {
	const process, readable, secret = "system_u:system_r:container_t:s0:c0,c1", "system_u:object_r:container_t:s0:c0,c1", "system_u:object_r:secret_t:s0"
	tmpfs, other := rootfs.TmpfsMount("/tmp", 0), rootfs.TmpfsMount("/other", 0)
	other.Label = secret
	overlay := rootfs.OverlayMount("/stack", "", "", root)
	for _, dir := range []string{"tmp", "other", "stack"} {
		must(t, os.MkdirAll(filepath.Join(root, dir), 0o755))
	}
	for name, opt := range map[string]Option{
		"root": Options(), "user namespace": userNS(t), "read-only": WithReadOnlyRoot(true), "root on disk": WithRootfs(rootfs.Overlay(root).Upper(t.TempDir())),
		"shown root": WithRootfs(rootfs.Dir(root).ReadOnly()),
	} {
		t.Run(name, func(t *testing.T) {
			c := newContainer(t, WithRootfs(rootfs.Dir(root)), opt, WithMount(tmpfs, other, overlay), WithMaskedPaths("/bin/none", "/etc"),
				WithCommand("/bin/sleep", "1000"), WithSELinux(process), WithMountLabel(readable))
			p, err := c.Start(testContext(t))
			must(t, err)
			defer func() { _ = c.Stop(context.Background(), 0) }()
			want := map[string]string{"/dev": readable, "/dev/null": readable, "/dev/shm": readable, "/dev/pts": readable, "/dev/mqueue": readable,
				"/tmp": readable, "/other": secret, "/stack": readable, "/etc": readable}
			if name == "user namespace" { // where the host's node is shown
				delete(want, "/dev/null")
			}
			if name != "shown root" {
				want["/"], want["/bin/busybox"] = readable, readable
			}
			for path, label := range want {
				buf := make([]byte, 256)
				n, err := unix.Lgetxattr(fmt.Sprintf("/proc/%d/root%s", p.Pid(), path), "security.selinux", buf)
				if got := strings.TrimRight(string(buf[:max(n, 0)]), "\x00"); err != nil || got != label {
					t.Errorf("%s: %q, %v", path, got, err)
				}
			}
		})
	}
	for label, want := range map[string]string{readable: "x", secret: "cat: can't open '/dev/shm/x': Permission denied"} {
		c := newContainer(t, WithRootfs(rootfs.Dir(root).ReadOnly()), sh("echo x > /dev/shm/x; cat /dev/shm/x 2>&1"), WithSELinux(process), WithMountLabel(label))
		out, _ := c.CombinedOutput(testContext(t))
		if got := strings.TrimSpace(string(out)); got != want {
			t.Errorf("%s: got %q", label, got)
		}
	}
	t.Run("of a running container", func(t *testing.T) { selinuxLateMounts(t, root, process, readable) })
	t.Run("the host's message queues", func(t *testing.T) {
		var before, after [256]byte
		at := filepath.Join(t.TempDir(), "mq")
		must(t, os.Mkdir(at, 0o755))
		must(t, unix.Mount("mqueue", at, "mqueue", 0, ""))
		defer func() { must(t, unix.Unmount(at, unix.MNT_DETACH)) }()
		n, err := unix.Lgetxattr(at, "security.selinux", before[:])
		must(t, err)
		c := newContainer(t, WithRootfs(rootfs.Dir(root)), WithNamespace(namespaces.IPC, namespaces.Host()), WithCommand("/bin/true"), WithMountLabel(readable))
		must(t, c.Run(testContext(t)))
		m, err := unix.Lgetxattr(at, "security.selinux", after[:])
		if err != nil || string(after[:m]) != string(before[:n]) {
			t.Errorf("%q became %q, %v", before[:n], after[:m], err)
		}
		mq := rootfs.Mount{Type: rootfs.TypeMqueue, Target: "/dev/mqueue", Label: readable}
		err = newContainer(t, WithRootfs(rootfs.Dir(root)), WithNamespace(namespaces.IPC, namespaces.Host()), WithCommand("/bin/true"), WithMount(mq)).Run(testContext(t))
		if !errors.Is(err, ErrInvalid) {
			t.Errorf("a label of its own: %v", err)
		}
	})
	var e *Error
	err := newContainer(t, WithRootfs(rootfs.Dir(root)), WithCommand("/bin/true"), WithMountLabel("system_u:object_r:no_such_t:s0")).Run(testContext(t))
	if !errors.Is(err, unix.EINVAL) || !errors.As(err, &e) || !strings.Contains(e.Remedy, "policy") {
		t.Errorf("unknown: got %v", err)
	}
}

// selinuxLateMounts: what is mounted while a container runs has the label too, from a program that has loaded it as well.
func selinuxLateMounts(t *testing.T, root, process, label string) {
	state := stateDir(t)
	c := newContainer(t, WithRootfs(rootfs.Dir(root)), WithStateDir(string(state)), WithID("late"), WithDetached(true), WithCommand("/bin/sleep", "1000"), WithSELinux(process), WithMountLabel(label))
	p, err := c.Start(testContext(t))
	must(t, err)
	defer func() { _ = c.Remove(context.Background()) }()
	must(t, c.Mount(testContext(t), rootfs.TmpfsMount("/tmp", 0)))
	loaded, err := state.Load(testContext(t), "late")
	must(t, err)
	defer loaded.Close()
	must(t, loaded.Mount(testContext(t), rootfs.TmpfsMount("/other", 0)))
	for _, path := range []string{"/tmp", "/other"} {
		buf := make([]byte, 256)
		n, err := unix.Lgetxattr(fmt.Sprintf("/proc/%d/root%s", p.Pid(), path), "security.selinux", buf)
		if got := strings.TrimRight(string(buf[:max(n, 0)]), "\x00"); err != nil || got != label {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
}

// selinuxExec: a process that is started in the container has the container's label, or one of its own.
func selinuxExec(t *testing.T, at Option, label, script, want string) {
	c := newContainer(t, at, WithCommand("/bin/sleep", "1000"), WithSELinux(label))
	_, err := c.Start(testContext(t))
	must(t, err)
	defer func() { _ = c.Stop(context.Background(), 0) }()
	for name, e := range map[string]struct {
		opt  ProcessOption
		want string
	}{
		"as the container": {WithCommand("/bin/sh", "-c", script), want},
		"of its own":       {ProcessOptions(WithCommand("/bin/sh", "-c", script), WithSELinux("system_u:system_r:container_t:s0:c1")), strings.Replace(want, "c0,c1", "c1", 1)},
	} {
		var out strings.Builder
		p, err := c.Exec(testContext(t), e.opt, WithStdout(&out), WithStderr(&out))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		_, _ = p.Wait(testContext(t))
		if got := strings.Join(strings.Fields(out.String()), " "); got != e.want {
			t.Errorf("%s: got %q", name, got)
		}
	}
}

// must ends the test with what failed in its preparation.
func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
