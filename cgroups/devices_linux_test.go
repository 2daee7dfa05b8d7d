package cgroups

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The devices of these tests have numbers left for local use, which no driver has: opening one that is allowed fails
// with ENXIO, after the group was asked.
var testDevices = []string{"c 60:1", "c 60:2", "c 61:1", "b 60:1"}

const devicesVar = "CGROUPS_TEST_DEVICES" // the directory with the nodes

func nodeName(device string) string { return strings.NewReplacer(" ", "-", ":", "-").Replace(device) }

func nodeNumbers(device string) (mode uint32, dev int) {
	var typ string
	var major, minor uint32
	fmt.Sscanf(strings.ReplaceAll(device, ":", " "), "%s %d %d", &typ, &major, &minor)
	mode = unix.S_IFCHR
	if typ == "b" {
		mode = unix.S_IFBLK
	}
	return mode | 0o600, int(unix.Mkdev(major, minor))
}

// deviceNodes makes the nodes in a directory that a helper then uses.
func deviceNodes(t *testing.T, dir string) {
	t.Helper()
	for _, d := range testDevices {
		mode, dev := nodeNumbers(d)
		if err := unix.Mknod(dir+"/"+nodeName(d), mode, dev); err != nil {
			t.Fatal(err)
		}
	}
}

// tryDevices prints for each device what this process may do: "r", "w", "+" for both at once, "m".
func tryDevices() {
	dir := os.Getenv(devicesVar)
	for _, d := range testDevices {
		node := dir + "/" + nodeName(d)
		got := ""
		for i, flags := range []int{unix.O_RDONLY, unix.O_WRONLY, unix.O_RDWR} {
			fd, err := unix.Open(node, flags|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
			if err == nil {
				unix.Close(fd)
			}
			if err == unix.EACCES {
				got += "nodev!"
			}
			if err != unix.EPERM {
				got += "rw+"[i : i+1]
			}
		}
		mode, dev := nodeNumbers(d)
		fresh := node + "-new"
		if err := unix.Mknod(fresh, mode, dev); err == nil {
			got += "m"
			_ = unix.Unlink(fresh)
		} else if err != unix.EPERM {
			got += err.Error()
		}
		fmt.Println(d, got)
	}
}

// nodeDir makes a directory on a filesystem where device nodes can be opened: temporary files often lie on one where
// they cannot (nodev).
func nodeDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	if st.Flags&unix.ST_NODEV == 0 {
		return dir
	}
	dir, err := os.MkdirTemp("/dev", "caisson-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// meaning is what tryDevices must print.
func meaning(list []DeviceRule) string {
	var b strings.Builder
	for _, d := range testDevices {
		r, _ := ParseDeviceRule(d + " r")
		a := allows(list, r.Type, r.Major, r.Minor)
		got := ""
		for i, ask := range []DeviceAccess{DeviceRead, DeviceWrite, DeviceRead | DeviceWrite, DeviceMknod} {
			if ask&^a == 0 {
				got += "rw+m"[i : i+1]
			}
		}
		fmt.Fprintln(&b, d, got)
	}
	return b.String()
}

// inGroup lets a process of the group try the devices.
func inGroup(t *testing.T, g *Group, dir string) string {
	t.Helper()
	t.Setenv(devicesVar, dir)
	p := start(t, g, "devices")
	p.run()
	if err := p.Wait(); err != nil {
		t.Fatal(err)
	}
	return p.out.String()
}

// deviceConfigs are the ways of holding processes to device rules here.
func deviceConfigs(t *testing.T) map[string]Config {
	switch mode(t) {
	case ModeV2:
		return map[string]Config{"v2": {}}
	case ModeHybrid:
		return map[string]Config{"hybrid": {}, "v1": {NoUnified: true}}
	}
	return map[string]Config{"v1": {}}
}

// deviceMatrix has each kind of access allowed and denied, in each order, for one device and for many.
var deviceMatrix = [][]string{
	{},
	{"deny a"},
	{"allow a"},
	{"c 60:1 r"}, {"c 60:1 w"}, {"c 60:1 m"}, {"c 60:1 rw"}, {"c 60:1 rwm"},
	{"b 60:1 r"}, {"c 60:* rw"}, {"c *:1 r"}, {"c *:* m", "b *:* m"},
	{"c 60:* r", "c *:1 w"}, // together they allow both
	{"allow a", "deny c 60:1 r"}, {"allow a", "deny c 60:1 w"}, {"allow a", "deny c 60:1 m"}, {"allow a", "deny b *:* rwm"},
	{"c 60:1 rwm", "deny c 60:1 w"}, {"deny c 60:1 w", "c 60:1 rwm"},
	{"c *:* m", "deny c 60:1 m"}, {"c *:* m", "b *:* m", "c 60:1 rwm", "deny c 60:1 w"},
}

// only v2 can hold these.
var deviceMatrixV2 = [][]string{
	{"c *:* m", "b 60:1 r", "deny c 60:1 m"}, {"allow a", "deny c 60:* rw", "c 60:1 r"}, {"c 60:* rwm", "deny c 60:2 w", "b *:* r"},
}

// TestDeviceMatrix puts every list of rules into force in a group of its own, and then all of them one after the other
// in one group.
func TestDeviceMatrix(t *testing.T) {
	needRoot(t)
	dir := nodeDir(t)
	deviceNodes(t, dir)
	for name, c := range deviceConfigs(t) {
		matrix := deviceMatrix
		if name != "v1" {
			matrix = append(matrix[:len(matrix):len(matrix)], deviceMatrixV2...)
		}
		t.Run(name, func(t *testing.T) {
			c.Controllers |= Devices
			updated := newGroup(t, Resources{}, c)
			if got, want := inGroup(t, updated, dir), meaning(rules(t, "allow a")); got != want {
				t.Fatalf("without rules:\n%swant:\n%s", got, want)
			}
			for _, texts := range matrix {
				t.Run(strings.Join(texts, ", "), func(t *testing.T) {
					list := rules(t, texts...)
					if list == nil {
						list = []DeviceRule{}
					}
					g := newGroup(t, Resources{Devices: list}, c)
					want := meaning(list)
					if got := inGroup(t, g, dir); got != want {
						t.Errorf("got:\n%swant:\n%s", got, want)
					}
					for range 2 { // the second time there is nothing to change
						if err := updated.Update(t.Context(), Resources{Devices: list}); err != nil {
							t.Fatal(err)
						}
						if got := inGroup(t, updated, dir); got != want {
							t.Errorf("updated:\n%swant:\n%s", got, want)
						}
					}
				})
			}
		})
	}
}

// TestDevicesReplaced: a hundred updates leave one program, also when the group is opened anew.
func TestDevicesReplaced(t *testing.T) {
	g := newGroup(t, Resources{}, Config{})
	n := g.unified()
	if n == nil || !n.bits.Has(Devices) {
		t.Skip("no device programs here")
	}
	for i := range 100 {
		res := Resources{Devices: []DeviceRule{{Allow: true, Type: CharDevice, Major: int64(i), Minor: 1, Access: DeviceAny}}}
		again, err := OpenPaths(g.Paths())
		if err != nil {
			t.Fatal(err)
		}
		err = again.Update(t.Context(), res)
		again.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
	fds, err := bpfAttached(n.fd)
	closeAll(fds)
	if err != nil || len(fds) != 1 {
		t.Errorf("%d programs, %v", len(fds), err)
	}
}

// TestDevicesBelow: a group cannot allow what one above it denies.
func TestDevicesBelow(t *testing.T) {
	needRoot(t)
	dir := nodeDir(t)
	deviceNodes(t, dir)
	for name, c := range deviceConfigs(t) {
		t.Run(name, func(t *testing.T) {
			c.Controllers |= Devices
			above := newGroup(t, Resources{Devices: rules(t, "c 60:* r")}, c)
			g, err := above.New(t.Context(), "below", Resources{Devices: rules(t, "c 60:1 rw", "c 60:2 r")}, c)
			if name == "v1" {
				if !errors.Is(err, unix.EPERM) { // the kernel says so
					t.Errorf("%v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer destroy(t, g)
			if got, want := inGroup(t, g, dir), meaning(rules(t, "c 60:1 r", "c 60:2 r")); got != want {
				t.Errorf("got:\n%swant:\n%s", got, want)
			}
		})
	}
}

// TestDevicesNotPermitted: who may not load programs is told so, by name.
func TestDevicesNotPermitted(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("needs an ordinary user")
	}
	_, err := New(context.Background(), name(t), Resources{Devices: DefaultDeviceRules()}, Config{})
	if u := (*UnsupportedError)(nil); !errors.As(err, &u) || u.Controller != Devices || u.Reason == "" {
		t.Errorf("%v", err)
	}
}
