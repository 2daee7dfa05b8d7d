package testutil

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caisson-go/caisson/internal/stage"
)

// Inventory counts what a process holds on the machine, by kind and name.
type Inventory map[string]int

var serial = regexp.MustCompile(`[0-9]+`)

// Take makes an inventory of this process: open files, mounts (see [Mounts]), cgroups, children, namespaces and goroutines.
// Files and cgroups are counted under their names without serial numbers. What waits for the next start is let go before.
func Take() Inventory { return take(os.TempDir() + "/") }

// take is Take with the mounts of what begins with the given path.
func take(dirs string) Inventory {
	stage.NoSpareNetwork()
	inv := Inventory{"goroutines": runtime.NumGoroutine()}
	inv.files()
	for _, m := range mountsOf(mountinfo(), dirs) {
		inv["mount on "+serial.ReplaceAllString(strings.Fields(m)[mountPoint], "N")]++
	}
	inv.cgroups()
	inv.children()
	return inv
}

// ThreadsElsewhere names the threads of this process that are in another namespace than the process. How many threads there are is the Go
// runtime's affair.
func ThreadsElsewhere() (out []string) {
	own := namespacesOf("self")
	tasks, _ := os.ReadDir("/proc/self/task")
	for _, task := range tasks {
		for kind, ns := range namespacesOf("self/task/" + task.Name()) {
			if ns != "" && ns != own[kind] { // "": it has ended
				out = append(out, task.Name()+" "+ns)
			}
		}
	}
	return out
}

func (inv Inventory) files() {
	dir, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		inv["descriptors cannot be listed: "+err.Error()]++
	}
	for _, e := range dir {
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err == nil && to != fmt.Sprintf("/proc/%d/fd", os.Getpid()) && !cached(to) {
			inv["file "+serial.ReplaceAllString(to, "N")]++
		}
	}
}

// cached says that a file is one that a host program keeps once it has been needed: the directory below which groups
// are made, device rules, and the executables of stages, of which there are few.
func cached(file string) bool {
	if file == "anon_inode:bpf-prog" || strings.HasPrefix(file, "/memfd:caisson-sealed-stage") {
		return true
	}
	return strings.HasPrefix(file, "/sys/fs/cgroup/") && !strings.Contains(file, "caisson")
}

// Mounts are the lines of /proc/self/mountinfo that can be this test's doing: what is mounted on or made of something in its temporary directories or those of
// its subtests, or has the library's name; and what is mounted where containers have mounts of their own, as if a set-up had come out of its mount namespace. What others
// mount on the machine meanwhile is none of ours.
func Mounts(t testing.TB) []string { return mountsOf(mountinfo(), tempDirs(t)) }

// mountPoint is the field of a line of mountinfo, proc(5), that says where it is mounted.
const mountPoint = 4

func mountinfo() string {
	b, _ := os.ReadFile("/proc/self/mountinfo")
	return string(b)
}

// inContainers is where containers have mounts of their own.
var inContainers = []string{"/", "/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/sys/fs/cgroup"}

// mountsOf picks those lines; dirs is what the paths of the temporary directories begin with.
func mountsOf(mountinfo, dirs string) (out []string) {
	for line := range strings.Lines(mountinfo) {
		f := strings.Fields(line)
		if len(f) <= mountPoint || strings.HasPrefix(f[mountPoint], "/run/netns/") { // those named so are looked after by the tests that name them
			continue
		}
		if slices.Contains(inContainers, f[mountPoint]) || strings.Contains(line, "caisson") || strings.Contains(line, dirs) {
			out = append(out, strings.TrimSpace(line))
		}
	}
	return out
}

// tempDirs is what the temporary directories of a test and of its subtests begin with: their names without what is odd, and a number.
func tempDirs(t testing.TB) string {
	name, _, _ := strings.Cut(t.Name(), "/")
	return filepath.Join(os.TempDir(), name)
}

// cgroups counts the groups that the library made for this process; their names hold its process id.
func (inv Inventory) cgroups() {
	mine := regexp.MustCompile(fmt.Sprintf(`^caisson-(.*-)?%d-[0-9]+$`, os.Getpid()))
	_ = filepath.WalkDir("/sys/fs/cgroup", func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && mine.MatchString(d.Name()) {
			inv["cgroup "+filepath.Dir(p)]++
			return fs.SkipDir
		}
		return nil
	})
}

// children counts child processes, zombies included, and the namespaces they live in.
func (inv Inventory) children() {
	own := namespacesOf("self")
	for _, pid := range Children(os.Getpid()) {
		inv["child "+state(pid)]++
		for kind, ns := range namespacesOf(strconv.Itoa(pid)) {
			if ns != own[kind] {
				inv["namespace "+kind]++
			}
		}
	}
}

func namespacesOf(pid string) map[string]string {
	out := map[string]string{}
	for _, kind := range []string{"mnt", "net", "pid", "user", "ipc", "uts", "cgroup"} {
		out[kind], _ = os.Readlink("/proc/" + pid + "/ns/" + kind)
	}
	return out
}

// Children lists the child processes of pid, zombies included.
func Children(pid int) []int {
	var out []int
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, t := range tasks {
		b, _ := os.ReadFile(t)
		for f := range strings.FieldsSeq(string(b)) {
			if n, err := strconv.Atoi(f); err == nil {
				out = append(out, n)
			}
		}
	}
	return out
}

// state reads /proc/PID/stat: "12 (name) S 1 ...". States in which a process merely does something now are one to us.
func state(pid int) string {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	i := strings.LastIndex(string(b), ") ")
	switch {
	case i < 0:
		return "gone"
	case b[i+2] == 'Z' || b[i+2] == 'X':
		return "zombie"
	}
	return "alive"
}

// Alive reports whether a process exists and is no zombie.
func Alive(pid int) bool { return state(pid) == "alive" }

// Growth tells what is more in after than in inv.
func (inv Inventory) Growth(after Inventory) []string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(after)) {
		if after[k] > inv[k] {
			out = append(out, fmt.Sprintf("%s: %d before, %d after", k, inv[k], after[k]))
		}
	}
	return out
}

// NoLeaks fails the test if, at its end, the process holds more than now, or loop devices of files below the test's temporary directory are left, whoever holds them.
// What is about to go has half a minute to do so, since the machine may be busy. The test must not run in parallel with others.
func NoLeaks(t testing.TB) {
	t.Helper()
	poller()
	dir := filepath.Dir(t.TempDir()) // others' loop devices come and go
	dirs := tempDirs(t)
	now := func() Inventory {
		inv := take(dirs)
		inv.loops(dir)
		return inv
	}
	before := now()
	t.Cleanup(func() { before.check(t, now) })
}

// loops counts the loop devices of files below dir. They are the machine's, and stay where nobody has them cleared, also when all of the process is gone.
func (inv Inventory) loops(dir string) {
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	for _, f := range files {
		if data, err := os.ReadFile(f); err == nil && strings.HasPrefix(string(data), dir+"/") {
			inv["loop device of "+serial.ReplaceAllString(strings.TrimSpace(string(data)), "N")]++
		}
	}
}

// poller has the runtime make what it waits for descriptors with, and keeps: a test that is run alone may be the first that needs it.
var poller = sync.OnceFunc(func() {
	if r, w, err := os.Pipe(); err == nil {
		_ = r.Close()
		_ = w.Close()
	}
})

// Check fails the test if the process holds more than inv says.
func (inv Inventory) Check(t testing.TB) {
	t.Helper()
	inv.check(t, Take)
}

func (inv Inventory) check(t testing.TB, take func() Inventory) {
	t.Helper()
	var more []string
	Eventually(Time(30*time.Second), func() bool {
		more = inv.Growth(take())
		return len(more) == 0
	})
	if len(more) > 0 {
		t.Errorf("left behind:\n  %s", strings.Join(more, "\n  "))
		if slices.ContainsFunc(more, func(s string) bool { return strings.HasPrefix(s, "goroutines") }) {
			buf := make([]byte, 1<<20)
			t.Logf("%s", buf[:runtime.Stack(buf, true)])
		}
	}
}

// Eventually polls until ok answers true, at most for d.
func Eventually(d time.Duration, ok func() bool) bool {
	for end := time.Now().Add(d); ; {
		if ok() {
			return true
		}
		if time.Now().After(end) {
			return false
		}
		time.Sleep(2 * time.Millisecond)
	}
}
