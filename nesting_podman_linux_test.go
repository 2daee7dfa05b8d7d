package caisson

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/caisson-go/caisson/internal/testutil"
	"github.com/caisson-go/caisson/rootfs"
)

// podmanScript runs a container by Podman: the root filesystem is /srv/root, $CGROUPS and $RUNTIME say how.
const podmanScript = `set -e
cat > /tmp/containers.conf <<END
[containers]
default_ulimits = ["nofile=512:1024", "nproc=512:1024"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
END
export CONTAINERS_CONF=/tmp/containers.conf
if [ $CGROUPS = enabled ] && [ -e /sys/fs/cgroup/cgroup.controllers ]; then # a v2 group that has processes hands no controllers on
	mkdir -p /sys/fs/cgroup/engine
	for p in $(cat /sys/fs/cgroup/cgroup.procs); do echo $p > /sys/fs/cgroup/engine/cgroup.procs || :; done
	for c in $(cat /sys/fs/cgroup/cgroup.controllers); do echo +$c > /sys/fs/cgroup/cgroup.subtree_control || :; done
fi 2>/dev/null
cp -r /srv/root /var/lib/containers/root
podman --storage-driver vfs --runtime $RUNTIME run --rm --cgroups=$CGROUPS $LIMIT --network none --rootfs /var/lib/containers/root /bin/sh -c '
echo inner $$; readlink /proc/self/ns/pid; [ -z "'"$LIMIT"'" ] || cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; exit 6' || echo status $?
readlink /proc/self/ns/pid`

// Podman works in a container that is made for it, root's and a user's, on a view of the host's programs.
func TestNestingOfPodman(t *testing.T) {
	if _, err := exec.LookPath("podman"); err != nil {
		t.Skip("podman is not installed")
	}
	runtime := ""
	for _, name := range []string{"crun", "runc"} {
		if path, err := exec.LookPath(name); err == nil && runtime == "" {
			runtime = path
		}
	}
	if runtime == "" {
		t.Skip("podman has no runtime: neither crun nor runc is installed")
	}
	needGroups(t)
	opts := []Option{WithNesting(true), WithInit(true), WithRootfs(rootfs.Host()), WithCommand("/bin/sh", "-c", podmanScript),
		WithMount(rootfs.TmpfsMount("/var/lib/containers", 256<<20), rootfs.TmpfsMount("/run", 64<<20), rootfs.TmpfsMount("/var/tmp", 64<<20)),
		WithFS("/srv/root", os.DirFS(testutil.Busybox(t)))}
	warm := newContainer(t, WithNesting(true), WithRootfs(rootfs.Host()), WithCommand("true"))
	if err := warm.Run(testContext(t)); err != nil {
		t.Fatal(err)
	}
	m, ok := warm.Isolation().Get("cgroup delegation")
	cgroups, limit := "CGROUPS=disabled", "LIMIT="
	if ok && m.Status == Applied {
		cgroups, limit = "CGROUPS=enabled", "LIMIT=-m 67108864"
	}
	noLeaks(t)
	c := newContainer(t, append(opts, WithEnv("RUNTIME="+runtime, cgroups, limit))...)
	out, err := c.CombinedOutput(testContext(t))
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	own, _ := os.Readlink("/proc/self/ns/pid")
	want := 4
	if limit != "LIMIT=" {
		want = 5
	}
	if err != nil || len(lines) != want || lines[0] != "inner 1" || lines[want-2] != "status 6" || lines[1] == lines[want-1] || lines[want-1] == own {
		t.Fatalf("%v\n%s", err, out)
	}
	if want == 5 && lines[2] != "67108864" {
		t.Errorf("the limit of the inner container is %s", lines[2])
	}
}

// needGroups skips the test for a user of a single id, as whom Podman does not run.
func needGroups(t *testing.T) {
	t.Helper()
	if b, err := os.ReadFile("/etc/subuid"); !isRoot() && (err != nil || !strings.Contains(string(b), userName()+":")) {
		t.Skip("needs subordinate ids: podman gives files to several users")
	}
}

func userName() string { return os.Getenv("USER") }
