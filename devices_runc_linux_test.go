package caisson

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/caisson-go/caisson/cgroups"
	"github.com/caisson-go/caisson/internal/testutil"
)

// deviceLists have each kind of access allowed and denied, alone and after a wider rule.
var deviceLists = [][]string{
	{"deny a"}, {"allow a"},
	{"deny a", "c 60:1 r"}, {"deny a", "c 60:1 w"}, {"deny a", "c 60:1 m"}, {"deny a", "c 60:1 rw"}, {"deny a", "c 60:1 rm"},
	{"deny a", "c 60:1 wm"}, {"deny a", "c 60:1 rwm"}, {"deny a", "b 60:1 r"}, {"deny a", "b 60:1 rwm"}, {"deny a", "c 60:* rw"},
	{"allow a", "deny c 60:1 r"}, {"allow a", "deny c 60:1 w"}, {"allow a", "deny c 60:1 m"}, {"allow a", "deny c 60:1 rw"},
	{"allow a", "deny c 60:1 rwm"}, {"allow a", "deny b 60:1 w"}, {"allow a", "deny b 60:1 rwm"},
	{"deny a", "c 60:1 rw", "deny c 60:1 w"}, {"deny a", "deny c 60:1 w", "c 60:1 rw"}, {"deny a", "c 60:1 r", "c 60:2 w", "c 61:1 rw", "b 60:1 rw"},
}

// tryNodes tells, for each device that no driver has, whether it can be opened for reading, for writing, and for both, and
// whether a node can be made for the one whose number is higher by 60, to which the same rules apply: nodes that a container is
// given can always be made. Opening one that is allowed fails too, but with ENXIO.
const tryNodes = `for d in c-60-1 c-60-2 c-61-1 b-60-1; do
n=$NODES/$d r=
for o in 'exec 3<$n' 'exec 3>$n' 'exec 3<>$n'; do
case $( (eval "$o") 2>&1) in *"not permitted"*) r=$r- ;; *"o such device"*) r=${r}y ;; *) r=$r? ;; esac
done
set -- $(echo $d | tr - ' ')
if mknod $NEW/$d $1 $(($2+60)) $3 2>/dev/null; then r=${r}m; rm $NEW/$d; fi
echo $d $r
done
echo over`

// deviceBundle is a bundle for this machine's runtimes, with nodes for the devices in its /dev.
func deviceBundle(t *testing.T, root, name string, rules []cgroups.DeviceRule) string {
	t.Helper()
	s := minimalSpec()
	s.Root.Path = root
	s.Process.Args = []string{"sh", "-c", tryNodes}
	s.Process.Env = []string{"PATH=/bin", "NODES=/dev", "NEW=/tmp"}
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: []string{"CAP_MKNOD"}, Effective: []string{"CAP_MKNOD"}, Permitted: []string{"CAP_MKNOD"}}
	s.Mounts = []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc"}, {Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "mode=755"}},
		{Destination: "/tmp", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid"}},
	}
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.PIDNamespace})
	s.Linux.CgroupsPath = "/" + name
	s.Linux.Resources = &specs.LinuxResources{}
	mode := os.FileMode(0o600)
	for _, d := range []string{"c 60 1", "c 60 2", "c 61 1", "b 60 1"} {
		n := specs.LinuxDevice{Path: "/dev/" + strings.ReplaceAll(d, " ", "-"), FileMode: &mode}
		fmt.Sscan(d, &n.Type, &n.Major, &n.Minor)
		s.Linux.Devices = append(s.Linux.Devices, n)
	}
	for _, r := range rules {
		d := specs.LinuxDeviceCgroup{Allow: r.Allow, Type: r.Type.String(), Access: r.Access.String()}
		if r.Major != cgroups.AnyNumber {
			d.Major = &r.Major
		}
		if r.Minor != cgroups.AnyNumber {
			d.Minor = &r.Minor
		}
		s.Linux.Resources.Devices = append(s.Linux.Resources.Devices, d)
	}
	dir := t.TempDir()
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func parsedRules(t *testing.T, texts []string) (list []cgroups.DeviceRule) {
	t.Helper()
	for _, s := range texts {
		r, err := cgroups.ParseDeviceRule(s)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, r)
		if r.Major != cgroups.AnyNumber {
			r.Major += 60
			list = append(list, r)
		}
	}
	return list
}

// deviceTrier runs tryNodes each time it is asked.
type deviceTrier struct {
	in  io.WriteCloser
	out *bufio.Reader
}

const tryWhenAsked = "while read go; do\n" + tryNodes + "\ndone"

func (d *deviceTrier) try(t *testing.T) string {
	t.Helper()
	if _, err := io.WriteString(d.in, "go\n"); err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for {
		line, err := d.out.ReadString('\n')
		if err != nil {
			t.Fatalf("%v after %q", err, text.String())
		}
		if text.WriteString(line); line == "over\n" {
			return text.String()
		}
	}
}

// updatedContainer is a container of the bundle that tries the devices when asked.
func updatedContainer(t *testing.T, bundle string) (*Container, *deviceTrier) {
	t.Helper()
	o, err := FromBundle(bundle)
	if err != nil {
		t.Fatal(err)
	}
	c := newContainer(t, o, sh(tryWhenAsked))
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Start(testContext(t)); err != nil {
		t.Fatal(err)
	}
	return c, &deviceTrier{in, bufio.NewReader(out)}
}

// groupAlone is a group of package cgroups, and a process in it that tries the devices of a directory when asked.
func groupAlone(t *testing.T) (*cgroups.Group, *deviceTrier) {
	t.Helper()
	nodes, err := os.MkdirTemp("/dev", "caisson-test-") // temporary files may be where no device can be opened
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(nodes) })
	for name, d := range map[string][3]uint32{"c-60-1": {unix.S_IFCHR, 60, 1}, "c-60-2": {unix.S_IFCHR, 60, 2}, "c-61-1": {unix.S_IFCHR, 61, 1}, "b-60-1": {unix.S_IFBLK, 60, 1}} {
		if err := unix.Mknod(filepath.Join(nodes, name), d[0]|0o600, int(unix.Mkdev(d[1], d[2]))); err != nil {
			t.Fatal(err)
		}
	}
	g, err := cgroups.New(t.Context(), fmt.Sprintf("caisson-devices-%d-alone", os.Getpid()), cgroups.Resources{}, cgroups.Config{Controllers: cgroups.Devices})
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(testutil.Busybox(t), "bin")
	cmd := exec.Command(filepath.Join(bin, "sh"), "-c", tryWhenAsked)
	cmd.Env = []string{"PATH=" + bin, "NODES=" + nodes, "NEW=" + t.TempDir()}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		_ = cmd.Wait()
		if err := g.Delete(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if err := g.AddProc(t.Context(), cmd.Process.Pid); err != nil {
		t.Fatal(err)
	}
	return g, &deviceTrier{in, bufio.NewReader(out)}
}

// asMeant corrects what runc enforces on cgroup v2, where a rule that denies one kind of access does not hold for opens that
// ask for both. A device that cannot be read or cannot be written cannot be opened for both, as on v1.
var asMeant = strings.NewReplacer(" -yy", " -y-", " y-y", " y--", " --y", " ---")

// The same list of device rules allows the same, whether runc holds a container to it, a container of this package is made
// with it or updated to it, or a group of package cgroups alone is.
func TestDeviceRulesAsRunc(t *testing.T) {
	testutil.NeedRoot(t)
	runc, err := exec.LookPath("runc")
	if err != nil {
		t.Skip("runc is not installed")
	}
	noLeaks(t)
	root := testutil.Busybox(t)
	name := fmt.Sprintf("caisson-devices-%d", os.Getpid())
	live, inside := updatedContainer(t, deviceBundle(t, root, name+"-live", parsedRules(t, deviceLists[0])))
	g, alone := groupAlone(t)
	for i, texts := range deviceLists {
		t.Run(strings.Join(texts, ", "), func(t *testing.T) {
			ctx := testContext(t) // each has its own time
			rules := parsedRules(t, texts)
			bundle := deviceBundle(t, root, fmt.Sprint(name, "-", i), rules)
			b, err := exec.CommandContext(ctx, runc, "--root", t.TempDir(), "run", "--bundle", bundle, name).CombinedOutput()
			want := asMeant.Replace(string(b))
			if err != nil {
				t.Skipf("runc cannot run a bundle on this machine: %v: %s", err, want)
			}
			o, err := FromBundle(bundle)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := newContainer(t, o).Output(ctx); err != nil || string(got) != want {
				t.Errorf("a container: %v\n%srunc:\n%s", err, got, want)
			}
			list := withDefaultDevices(rules)
			if err := live.Update(ctx, cgroups.Resources{Devices: list}); err != nil {
				t.Fatal(err)
			}
			if got := inside.try(t); got != want {
				t.Errorf("a container that is updated:\n%srunc:\n%s", got, want)
			}
			if err := g.Update(ctx, cgroups.Resources{Devices: list}); err != nil {
				t.Fatal(err)
			}
			if got := alone.try(t); got != want {
				t.Errorf("a group alone:\n%srunc:\n%s", got, want)
			}
		})
	}
	inside.in.Close()
	if r, err := live.Wait(testContext(t)); err != nil || r.ExitCode != 0 {
		t.Errorf("%v %v", r, err)
	}
}
